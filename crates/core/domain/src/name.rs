//! Names that users write: checked once, then passed as types.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest name accepted anywhere, in bytes. Keeps socket paths, file names and log lines short.
pub const NAME_LENGTH_MAX: usize = 63;

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was given.
    #[error("is empty")]
    Empty,
    /// Longer than [`NAME_LENGTH_MAX`].
    #[error("is longer than {NAME_LENGTH_MAX} characters")]
    TooLong,
    /// Holds a character that is not allowed.
    #[error("holds {found:?}; use {allowed}")]
    Character {
        /// The first offending character.
        found: char,
        /// What may be used instead.
        allowed: &'static str,
    },
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $allowed:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps a name.
            pub fn new(text: impl Into<String>) -> Result<Self, Error> {
                let text = text.into();
                check(&text, $allowed, $check)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;
            fn try_from(text: String) -> Result<Self, Error> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }
    };
}

fn check(text: &str, allowed: &'static str, ok: fn(usize, char) -> bool) -> Result<(), Error> {
    if text.is_empty() {
        return Err(Error::Empty);
    }
    if text.len() > NAME_LENGTH_MAX {
        return Err(Error::TooLong);
    }
    match text.chars().enumerate().find(|&(index, found)| !ok(index, found)) {
        Some((_, found)) => Err(Error::Character { found, allowed }),
        None => Ok(()),
    }
}

/// A DNS label: safe in host names, file names, metric labels and Kubernetes objects.
fn dns_label(index: usize, found: char) -> bool {
    found.is_ascii_lowercase() || found.is_ascii_digit() || (found == '-' && index > 0)
}

/// What people tag releases with (`v1.2.3`, `2026-11-21`, `1.0.0+build.5`), safe in file names.
fn version_character(index: usize, found: char) -> bool {
    found.is_ascii_alphanumeric() || (index > 0 && matches!(found, '.' | '-' | '_' | '+'))
}

const DNS_LABEL: &str = "lower-case letters, digits and inner hyphens";
const VERSION: &str = "letters, digits, and . - _ + after the first character";

name!(
    /// The project a `switchback.yaml` describes.
    ProjectName, DNS_LABEL, dns_label
);
name!(
    /// One service of the project.
    ServiceName, DNS_LABEL, dns_label
);
name!(
    /// One environment: the same services with other values.
    EnvironmentName, DNS_LABEL, dns_label
);
name!(
    /// The version of a service as its users call it.
    Version, VERSION, version_character
);

/// One service in one environment: the unit that has at most one active rollout.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServiceKey {
    /// Where it runs.
    pub environment: EnvironmentName,
    /// What runs.
    pub service: ServiceName,
}

impl ServiceKey {
    /// Pairs an environment and a service.
    pub fn new(environment: EnvironmentName, service: ServiceName) -> Self {
        Self { environment, service }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.environment, self.service))
    }
}

impl TryFrom<String> for ServiceKey {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        let (environment, service) = text.split_once('/').ok_or(Error::Empty)?;
        Ok(Self::new(EnvironmentName::new(environment)?, ServiceName::new(service)?))
    }
}

impl From<ServiceKey> for String {
    fn from(key: ServiceKey) -> String {
        key.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_character_is_wrong() {
        assert_eq!(
            ServiceName::new("My App").unwrap_err(),
            Error::Character { found: 'M', allowed: DNS_LABEL }
        );
        assert_eq!(ServiceName::new("").unwrap_err(), Error::Empty);
        assert_eq!(ServiceName::new("a".repeat(64)).unwrap_err(), Error::TooLong);
        assert!(ServiceName::new("-a").is_err());
    }

    #[test]
    fn versions_as_people_write_them() {
        for text in ["v1", "1.2.3", "1.0.0-rc.1+build.5", "2026-11-21", "abc_def"] {
            assert!(Version::new(text).is_ok(), "{text}");
        }
        for text in ["../x", ".hidden", "a/b", "a b", "-1"] {
            assert!(Version::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_reads_back_what_it_writes() {
        let key = ServiceKey::try_from("production/api".to_owned()).unwrap();
        assert_eq!(ServiceKey::try_from(String::from(key.clone())).unwrap(), key);
    }
}
