//! Every target on bytes made from good ones by a fixed seed, so that none of them can rot and no
//! easy panic gets in. The long runs are cargo-fuzz's, which can begin with the same good ones.

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use switchback_domain::Timestamp;
use switchback_engine::{Event, Service, step};

/// Inputs made from each sample; `SWITCHBACK_FUZZ_CASES` says another number.
const CASES: usize = 400;

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(folder: &str) -> Vec<String> {
    let mut paths: Vec<PathBuf> = fs::read_dir(repository().join(folder))
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).expect("it is text")).collect()
}

/// Pieces that mean something to the readers under attack.
const PIECES: [&[u8]; 16] = [
    b"\0",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b":",
    b",",
    b"-1",
    b"1e999",
    b"18446744073709551615",
    b"null",
    b"true",
    b"\xff",
    b"\\u0000",
    b"\n",
];

/// One to four changes: bytes flipped, cut out, doubled, or replaced by a piece or a number.
fn mutate(random: &mut StdRng, sample: &[u8]) -> Vec<u8> {
    let mut bytes = sample.to_vec();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..12)).min(bytes.len());
        match random.random_range(0..5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let doubled = bytes[at..end].to_vec();
                bytes.splice(at..at, doubled);
            }
            3 => change_number(random, &mut bytes, at),
            _ => {
                let piece = PIECES.choose(random).expect("there are some");
                bytes.splice(at..end, piece.iter().copied());
            }
        }
    }
    bytes
}

/// Puts another number in the place of the next one.
fn change_number(random: &mut StdRng, bytes: &mut Vec<u8>, from: usize) {
    let Some(begin) = bytes[from..].iter().position(u8::is_ascii_digit) else { return };
    let begin = from + begin;
    let length = bytes[begin..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number: u64 = random.random::<u64>() >> random.random_range(0..64);
    bytes.splice(begin..begin + length, number.to_string().into_bytes());
}

/// Where cargo-fuzz keeps its inputs, if the samples are to be written there too.
fn seeds(name: &str) -> Option<PathBuf> {
    std::env::var_os("SWITCHBACK_FUZZ_SEEDS").map(|folder| Path::new(&folder).join(name))
}

fn attack(name: &str, target: fn(&[u8]), samples: &[Vec<u8>]) {
    if let Some(folder) = seeds(name) {
        fs::create_dir_all(&folder).expect("the folder can be made");
        for (number, sample) in samples.iter().enumerate() {
            fs::write(folder.join(format!("sample-{number}")), sample).expect("it is written");
        }
    }
    let cases = std::env::var("SWITCHBACK_FUZZ_CASES").ok().and_then(|text| text.parse().ok());
    let mut random = StdRng::seed_from_u64(20_261_121);
    assert!(!samples.is_empty());
    for sample in samples {
        target(sample);
        for _ in 0..cases.unwrap_or(CASES) {
            target(&mutate(&mut random, sample));
        }
    }
}

fn bytes(texts: &[String]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.clone().into_bytes()).collect()
}

#[test]
fn no_configuration_file_makes_the_reader_panic() {
    let samples: Vec<_> = ["valid", "invalid"]
        .iter()
        .flat_map(|kind| files(&format!("tests/sample-configs/{kind}")))
        .collect();
    attack("configuration", switchback_hostile::configuration, &bytes(&samples));
}

/// States and the events that led on from them, as the golden journals have them.
fn journal_samples() -> Vec<Vec<u8>> {
    let mut samples = Vec::new();
    for journal in files("testing/golden") {
        let mut service: Option<Service> = None;
        for line in journal.lines() {
            let Ok(record) = serde_json::from_str::<serde_json::Value>(line) else { continue };
            let Some(body) = record["body"].as_str() else { continue };
            let Ok(event) = serde_json::from_str::<Event>(body) else { continue };
            let at = Timestamp::from_millis(record["at"].as_u64().unwrap_or_default());
            let scope = record["scope"].as_str().unwrap_or_default();
            let Ok(key) = serde_json::from_value(scope.into()) else { continue };
            let before = service.unwrap_or_else(|| Service::new(key));
            let mut sample = serde_json::to_vec(&before).expect("a state can be written");
            sample.push(0);
            sample.extend_from_slice(body.as_bytes());
            samples.push(sample);
            service = Some(step(&before, &event, at).map_or(before, |after| after.service));
        }
    }
    samples
}

#[test]
fn no_record_of_the_journal_makes_the_engine_panic() {
    let samples = journal_samples();
    assert!(samples.len() > 50, "only {} samples", samples.len());
    let some: Vec<_> = samples.into_iter().step_by(4).collect();
    attack("journal", switchback_hostile::journal, &some);
}

#[test]
fn no_body_of_a_call_makes_the_api_panic() {
    let bodies = [
        r#"{"service":"web","version":"v2","environment":null,"strategy":"canary","by":"ada"}"#,
        r#"{"by":"ada","reason":"why not","full":true}"#,
        r#"{"service":"web","to":"v1","by":"ada"}"#,
        r#"{"operation":{"maintenance":{"page":null,"retry_after_ms":1000}},"services":["web"]}"#,
    ];
    attack("api_body", switchback_hostile::api_body, &bodies.map(|body| body.as_bytes().to_vec()));
}

#[test]
fn no_route_table_makes_the_data_plane_panic() {
    let route = r#"{"service":"dev/web","listen":"127.0.0.1:8080","hosts":["a.test","*.b.test"],
        "path_prefix":"/api","timeout":30000,"split":[["r1",9000],["r2",1000]],"steering":{
        "rules":{"matches":[{"path":{"regex":"/v[0-9]+/.*"},"when":{"methods":["GET"]}}],
        "affinity":{"own_cookie":{"name":"sb","max_age_ms":60000}}},
        "candidate":{"release":"r2","salt":"7","open":true}}}"#;
    let arm = |release: &str| {
        format!(
            r#"{{"id":{{"service":"dev/web","release":"{release}"}},"version":"{release}",
            "endpoints":[{{"instance":"i-{release}","address":"127.0.0.1:9000"}}]}}"#
        )
    };
    let table = format!(
        r#"{{"generation":{{"epoch":1,"counter":2}},"routes":[{route}],"arms":[{},{}]}}"#,
        arm("r1"),
        arm("r2")
    );
    let parsed: Result<switchback_routing::Table, _> = serde_json::from_str(&table);
    parsed.expect("the sample is a table");
    attack("route_table", switchback_hostile::route_table, &[table.into_bytes()]);
}
