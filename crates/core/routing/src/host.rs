//! The name in a `Host` header, as routes and certificates are looked up by it.

use std::borrow::Cow;

/// A host as in the `Host` header without port and closing dot, in lower case.
pub fn bare_host(host: &str) -> Cow<'_, str> {
    let end = match host.as_bytes() {
        [b'[', ..] => host.find(']').map(|end| end + 1),
        _ => None,
    };
    // Names are short: a search that prepares itself takes longer.
    let end = end.or_else(|| host.bytes().position(|byte| byte == b':'));
    let name = end.map_or(host, |end| &host[..end]);
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
