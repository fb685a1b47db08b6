//! A request as routing sees it. The data plane lends its own parts; nothing is copied, and what
//! no rule asks about is never looked at.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

/// Calls its second argument with each value of the header that the first names (in lower case),
/// until one call returns true; returns whether one did.
pub type Headers<'r> = dyn Fn(&str, &mut dyn FnMut(&[u8]) -> bool) -> bool + 'r;

/// The parts of a request that routing may ask about.
#[derive(Clone, Copy)]
pub struct RequestView<'r> {
    /// Where it came in: the route's own address, not the connection's.
    pub listen: SocketAddr,
    /// The client, or who a trusted proxy says it is.
    pub client: IpAddr,
    /// The method as sent.
    pub method: &'r str,
    /// The host it asks for; port and case do not matter.
    pub host: &'r str,
    /// The path as sent, without query.
    pub path: &'r str,
    /// What follows the `?`; empty without one.
    pub query: &'r str,
    /// Looks headers up.
    pub headers: &'r Headers<'r>,
}

impl RequestView<'_> {
    /// Whether `fits` is true of a value of the header.
    pub(crate) fn header(&self, name: &str, fits: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        (self.headers)(name, fits)
    }

    /// Whether `fits` is true of a cookie of this name. Reads as browsers write (RFC 6265, 5.4):
    /// pairs between semicolons; HTTP/2 may spread them over several lines.
    pub(crate) fn cookie(&self, name: &str, fits: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        (self.headers)("cookie", &mut |line| {
            line.split(|byte| *byte == b';').any(|pair| {
                let (key, value) = split_pair(pair, b'=');
                key.trim_ascii() == name.as_bytes() && fits(value.unwrap_or_default().trim_ascii())
            })
        })
    }

    /// Whether `fits` is true of a parameter of the query of this name, both decoded.
    pub(crate) fn parameter(&self, name: &str, fits: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let pairs = self.query.as_bytes().split(|byte| *byte == b'&');
        pairs.filter(|pair| !pair.is_empty()).any(|pair| {
            let (key, value) = split_pair(pair, b'=');
            *decoded(key) == *name.as_bytes() && fits(&decoded(value.unwrap_or_default()))
        })
    }
}

fn split_pair(pair: &[u8], at: u8) -> (&[u8], Option<&[u8]>) {
    match pair.iter().position(|byte| *byte == at) {
        Some(found) => (&pair[..found], Some(&pair[found + 1..])),
        None => (pair, None),
    }
}

/// A part of a query as forms write it: `+` is a blank, `%41` an `A`, a stray `%` itself.
fn decoded(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut plain = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        let escaped = (*byte == b'%').then(|| digit(at + 1).zip(digit(at + 2))).flatten();
        let found = match (escaped, byte) {
            (Some((high, low)), _) => u8::try_from(high * 16 + low).unwrap_or_default(),
            (None, b'+') => b' ',
            (None, other) => *other,
        };
        plain.push(found);
        at += if escaped.is_some() { 3 } else { 1 };
    }
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view<'r>(query: &'r str, headers: &'r Headers<'r>) -> RequestView<'r> {
        RequestView {
            listen: "127.0.0.1:80".parse().unwrap(),
            client: "127.0.0.1".parse().unwrap(),
            method: "GET",
            host: "x",
            path: "/",
            query,
            headers,
        }
    }

    fn values(any: impl FnOnce(&mut dyn FnMut(&[u8]) -> bool) -> bool) -> Vec<String> {
        let mut found = Vec::new();
        any(&mut |value| {
            found.push(String::from_utf8_lossy(value).into_owned());
            false
        });
        found
    }

    #[test]
    fn cookies_are_found_in_every_line() {
        let headers = |name: &str, visit: &mut dyn FnMut(&[u8]) -> bool| {
            name == "cookie" && [&b"a=1; b=2=3;c"[..], b" a =4;;=x"].into_iter().any(visit)
        };
        let view = view("", &headers);
        assert_eq!(values(|fits| view.cookie("a", fits)), ["1", "4"]);
        assert_eq!(values(|fits| view.cookie("b", fits)), ["2=3"]);
        assert_eq!(values(|fits| view.cookie("c", fits)), [""]);
        assert!(values(|fits| view.cookie("d", fits)).is_empty());
        assert!(view.cookie("a", &mut |value| value == b"1"));
    }

    #[test]
    fn parameters_are_decoded() {
        let none = |_: &str, _: &mut dyn FnMut(&[u8]) -> bool| false;
        let view = view("a=1&b=x+y%21&%61=2&c&&=z&d=%4&e=%zz%", &none);
        assert_eq!(values(|fits| view.parameter("a", fits)), ["1", "2"]);
        assert_eq!(values(|fits| view.parameter("b", fits)), ["x y!"]);
        assert_eq!(values(|fits| view.parameter("c", fits)), [""]);
        assert_eq!(values(|fits| view.parameter("", fits)), ["z"]);
        assert_eq!(values(|fits| view.parameter("d", fits)), ["%4"]);
        assert_eq!(values(|fits| view.parameter("e", fits)), ["%zz%"]);
    }
}
