//! Certificates that are ordered from an authority by ACME (RFC 8555): what is ordered and where
//! it is kept. When it is due is decided in `core/resilience`, how it is done by an adapter.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Let's Encrypt, for certificates that browsers trust.
pub const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";

/// The directory for certificates and accounts below the state directory.
pub const DIRECTORY: &str = "acme";

/// Where authorities ask for the proof that a name leads here.
pub const CHALLENGE_PREFIX: &str = "/.well-known/acme-challenge/";

/// A certificate to be ordered. Equal orders share one certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AcmeSpec {
    /// The URL of the authority's directory; always `https://`.
    pub directory: String,
    /// Whom the authority may write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The names in the certificate: sorted, at least one, no wildcards.
    pub domains: Vec<String>,
    /// The file with the certificates of those who vouch for the authority's own server (PEM);
    /// `None` takes the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

impl AcmeSpec {
    /// The file in [`DIRECTORY`] with chain and key, in one so that they change as one. The same
    /// for the same authority and names; whom it writes to does not matter.
    pub fn file_name(&self) -> String {
        let first = self.domains.first().map_or("certificate", String::as_str);
        let shown: String = first.chars().filter(|c| *c != '/').take(100).collect();
        format!("{shown}-{}.pem", digest(&[&self.directory, &self.domains.join(",")]))
    }

    /// The file in [`DIRECTORY`] with the account at the authority.
    pub fn account_name(&self) -> String {
        let email = self.email.as_deref().unwrap_or_default();
        format!("account-{}.json", digest(&[&self.directory, email]))
    }

    /// For people: its names.
    pub fn names(&self) -> String {
        self.domains.join(", ")
    }
}

/// Eight hexadecimal digits that tell files apart.
fn digest(parts: &[&str]) -> String {
    let hash = Sha256::digest(parts.join("\n").as_bytes());
    hash.iter().take(4).fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_follows_authority_and_names_and_nothing_else() {
        let spec = AcmeSpec {
            directory: LETS_ENCRYPT.to_owned(),
            email: None,
            domains: vec!["a.test".to_owned(), "b.test".to_owned()],
            authority: None,
        };
        let known = AcmeSpec { email: Some("ops@a.test".to_owned()), ..spec.clone() };
        assert_eq!(spec.file_name(), known.file_name());
        assert_ne!(spec.account_name(), known.account_name());
        assert!(spec.file_name().starts_with("a.test-"));
        let fewer = AcmeSpec { domains: vec!["a.test".to_owned()], ..spec.clone() };
        assert_ne!(fewer.file_name(), spec.file_name());
        let elsewhere = AcmeSpec { directory: "https://ca.test/dir".to_owned(), ..spec.clone() };
        assert_ne!(elsewhere.file_name(), spec.file_name());
    }
}
