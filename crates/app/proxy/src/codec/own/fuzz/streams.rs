//! The fuzz targets as ordinary tests: streams drawn from a seed, most of them nearly valid.
//!
//! `SWITCHBACK_FUZZ_CASES` and `SWITCHBACK_FUZZ_SEED` make a run longer, or another one.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, RngExt, SeedableRng};

use super::*;

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "X"];
const TARGETS: [&str; 7] = ["/", "/a?b=c", "*", "http://h.test/p", "/%2e", "/a#b", "/{|}?[\"]"];
const VERSIONS: [&str; 5] = ["1.1", "1.1", "1.1", "1.1", "1.0"];
const STATUSES: [&str; 12] = [
    "200 OK",
    "200 OK",
    "200",
    "201 ",
    "204 No Content",
    "304 Not Modified",
    "404 Not Found",
    "500 \u{e4}",
    "100 Continue",
    "103 Early Hints",
    "101 Switching Protocols",
    "205 Reset Content",
];
const FIELDS: [&str; 17] = [
    "x: 1\r\n",
    "Connection: close\r\n",
    "Connection: keep-alive\r\n",
    "connection: x, te\r\n",
    "connection: upgrade\r\nupgrade: x\r\n",
    "X-Long: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
    "expect: 100-continue\r\n",
    "Content-Length: 3\r\n",
    "content-length: 0\r\n",
    "transfer-encoding: chunked\r\n",
    "transfer-encoding: gzip\r\n",
    "te: trailers\r\n",
    "host: b\r\n",
    "keep-alive: timeout=5\r\n",
    "x-forwarded-for: 1.1.1.1\r\n",
    " folded: 1\r\n",
    "bare: 1\n",
];
const EXTENSIONS: [&str; 6] = ["", "", "", ";a=b", "; a = \"b;\\\"\r\"", " "];
const TRAILERS: [&str; 4] = ["", "", "x: 1\r\n", "content-length: 5\r\n"];
const PIECES: [&[u8]; 25] = [
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b"\t",
    b"\r\n",
    b"\r\n ",
    b"0",
    b"+",
    b"0x",
    b",",
    b";",
    b"\"",
    b":",
    b"\x0b",
    b"\xff",
    b"chunked",
    b"content-length: 1\r\n",
    b"transfer-encoding: x\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"\r\n\r\n",
    b"0\r\n\r\n",
    b"GET / HTTP/1.1\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
];

fn one<T: Copy>(of: &[T], random: &mut StdRng) -> T {
    *of.choose(random).expect("there are some")
}

fn data(most: usize, random: &mut StdRng) -> Vec<u8> {
    let mut data = vec![0; random.random_range(0..most)];
    random.fill_bytes(&mut data);
    data
}

/// A field that frames a body, and the body.
fn body(random: &mut StdRng) -> (String, Vec<u8>) {
    match random.random_range(0..10) {
        0..3 => (String::new(), Vec::new()),
        3..6 => {
            let data = data(40, random);
            (format!("content-length: {}\r\n", data.len()), data)
        }
        _ => ("Transfer-Encoding: chunked\r\n".to_owned(), chunks(random)),
    }
}

fn chunks(random: &mut StdRng) -> Vec<u8> {
    let mut body = Vec::new();
    for _ in 0..random.random_range(0..4) {
        let data = data(20, random);
        if !data.is_empty() {
            let extension = one(&EXTENSIONS, random);
            body.extend_from_slice(format!("{:x}{extension}\r\n", data.len()).as_bytes());
            body.extend_from_slice(&data);
            body.extend_from_slice(b"\r\n");
        }
    }
    body.extend_from_slice(format!("0\r\n{}\r\n", one(&TRAILERS, random)).as_bytes());
    body
}

/// A message with this first line, nearly always valid.
fn message(line: &str, first: &str, random: &mut StdRng) -> Vec<u8> {
    let (framing, body) = body(random);
    let mut fields = String::new();
    for _ in 0..one(&[0, 0, 0, 1, 2], random) {
        fields.push_str(one(&FIELDS, random));
    }
    [format!("{line}\r\n{first}{fields}{framing}\r\n").into_bytes(), body].concat()
}

fn request(random: &mut StdRng) -> Vec<u8> {
    let (method, target) = (one(&METHODS, random), one(&TARGETS, random));
    let version = one(&VERSIONS, random);
    message(&format!("{method} {target} HTTP/{version}"), "host: a\r\n", random)
}

fn answer(random: &mut StdRng) -> Vec<u8> {
    let (version, status) = (one(&VERSIONS, random), one(&STATUSES, random));
    message(&format!("HTTP/{version} {status}"), "", random)
}

/// Does something to a stream.
fn harm(bytes: &mut Vec<u8>, random: &mut StdRng) {
    let at = random.random_range(0..=bytes.len());
    match random.random_range(0..7) {
        0 => {
            if let Some(place) = bytes.get_mut(at) {
                *place = random.random();
            }
        }
        1..5 => drop(bytes.splice(at..at, one(&PIECES, random).iter().copied())),
        kind => {
            let end = (at + random.random_range(1..30)).min(bytes.len());
            if kind == 5 {
                bytes.drain(at..end);
            } else {
                let piece = bytes[at..end].to_vec();
                drop(bytes.splice(at..at, piece));
            }
        }
    }
}

fn stream(of: impl Fn(&mut StdRng) -> Vec<u8>, random: &mut StdRng) -> Vec<u8> {
    let count = random.random_range(1..4);
    let mut bytes: Vec<u8> = (0..count).flat_map(|_| of(random)).collect();
    for _ in 0..one(&[0, 0, 1, 1, 2, 3], random) {
        harm(&mut bytes, random);
    }
    bytes
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Runs `check` with streams drawn from the seed; says which one it did not like.
fn each(of: impl Fn(&mut StdRng) -> Vec<u8>, mut check: impl FnMut(u64, &[u8])) -> u64 {
    let (seed, cases) = (number("SWITCHBACK_FUZZ_SEED", 1), number("SWITCHBACK_FUZZ_CASES", 3_000));
    let mut random = StdRng::seed_from_u64(seed);
    for case in 0..cases {
        let bytes = stream(&of, &mut random);
        let told = Told(&bytes);
        check(case, &bytes);
        std::mem::forget(told);
    }
    cases
}

/// Shows a stream when the check of it panics.
struct Told<'b>(&'b [u8]);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let mut errors = std::io::stderr();
        let _ = std::io::Write::write_fmt(
            &mut errors,
            format_args!("stream: {}\n", self.0.escape_ascii()),
        );
    }
}

#[test]
fn the_own_reader_never_sees_another_request_than_hyper() {
    let mut read = 0;
    let cases = each(request, |_, bytes| match oracle::requests_agree(bytes) {
        Ok(count) => read += count as u64,
        Err(difference) => panic!("{difference}"),
    });
    assert!(read > cases / 5, "the streams must be worth reading: {read}");
}

#[test]
fn the_own_reader_never_sees_another_answer_than_hyper() {
    let mut read = 0;
    let cases = each(answer, |case, bytes| match oracle::answers_agree(bytes, case % 8 == 0) {
        Ok(is_answer) => read += u64::from(is_answer),
        Err(difference) => panic!("{difference}"),
    });
    assert!(read > cases / 5, "the streams must be worth reading: {read}");
}

#[test]
fn every_target_holds_for_streams_of_its_own_kind_and_of_others() {
    let any = |random: &mut StdRng| match random.random_range(0..3) {
        0 => request(random),
        1 => answer(random),
        _ => chunks(random),
    };
    each(any, |_, bytes| {
        request_head(bytes);
        response_head(bytes);
        chunked_body(bytes);
        differential(bytes);
    });
}

#[test]
fn known_disagreements_of_parsers_are_none_here() {
    for bytes in [
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\ncontent-length: 4\r\n\r\nGET ",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4, 4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +4\r\n\r\nabcd",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
        "\n\r\n\nGET / HTTP/1.1\nhost: a\n\n",
        "GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\n y: 2\r\n\r\n",
    ] {
        let agreed = oracle::requests_agree(bytes.as_bytes());
        assert_eq!(agreed, Ok(0), "{bytes:?} is refused, and nothing is read of it");
    }
    let valid = "\r\nPOST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5;x=\"y\"\r\nhello\r\n0\r\nt: 1\r\n\r\nGET / HTTP/1.0\r\n\r\n";
    assert_eq!(oracle::requests_agree(valid.as_bytes()), Ok(2));
}

#[test]
fn a_head_of_as_many_fields_as_may_be_is_passed_on_with_ours_on_top() {
    let fields = "x: 1\r\n".repeat(HEADERS_MAX - 1);
    request_head(format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n").as_bytes());
    response_head(format!("HTTP/1.1 200 OK\r\nx: 1\r\n{fields}\r\n").as_bytes());
}

#[test]
fn every_target_is_there_to_be_fuzzed() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../fuzz");
    let manifest = std::fs::read_to_string(format!("{folder}/Cargo.toml")).unwrap();
    for name in ["request_head", "response_head", "chunked_body", "differential"] {
        let target = std::fs::read_to_string(format!("{folder}/fuzz_targets/{name}.rs")).unwrap();
        assert!(target.contains(&format!("switchback_proxy::fuzzing::{name}(bytes)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}

#[test]
fn a_target_notices_what_it_is_there_for() {
    let panics = |work: fn()| std::panic::catch_unwind(work).is_err();
    assert!(panics(|| check_lines(b"HTTP/1.1 200 OK\r\nx: a\nset-cookie: b\r\n\r\n")));
    assert!(panics(|| check_lines(b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")));
    check_lines(b"HTTP/1.1 200 OK\r\nx: a\r\n\r\n");
}
