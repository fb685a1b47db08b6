//! The name in a `Host` header, as routes and certificates are looked up by it.

use std::borrow::Cow;

/// A host as in the `Host` header without port and closing dot, in lower case.
pub fn bare_host(host: &str) -> Cow<'_, str> {
    let name = match host.find(']') {
        Some(end) if host.starts_with('[') => &host[..=end],
        Some(_) | None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Owned(name.to_ascii_lowercase());
    }
    Cow::Borrowed(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_bare_without_port_dot_and_case() {
        let cases = [("A.Test:443", "a.test"), ("a.test.", "a.test"), ("[::1]:8443", "[::1]")];
        for (given, bare) in cases {
            assert_eq!(bare_host(given), bare);
        }
    }
}
