//! Any bytes as a source's answer: a target of `fuzz/`, and shortly of every test run.

use hyper::StatusCode;
use switchback_domain::Timestamp;
use switchback_domain::metric::Answer;

use crate::http::Page;
use crate::{json, prometheus};

/// Longest text of an answer: the source's words, and ours around them.
const TEXT_MAX: usize = 200;

/// Understands the bytes as an answer of either kind of source. The first byte says with which
/// status and date they come.
///
/// # Panics
///
/// When the code under test breaks its promise; that is what this is for.
pub fn metrics_answer(bytes: &[u8]) {
    let Some((kind, body)) = bytes.split_first() else { return };
    let statuses = [StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::SERVICE_UNAVAILABLE];
    let status = statuses[usize::from(kind & 3) % statuses.len()];
    let date = (kind & 4 != 0).then(|| String::from_utf8_lossy(body).into_owned());
    let (page, at) = (Page { status, date, body: body.to_vec() }, Timestamp::from_millis(100_000));
    let answer = prometheus::understand(&page, at);
    let is_good = page.status.is_success();
    assert!(is_good || !matches!(answer, Answer::Number { .. }), "{answer:?}");
    is_presentable(&answer);
    for pointer in ["", "/0", "/data/result/0/value/1", "/a~1b/~0"] {
        is_presentable(&json::understand(&page, pointer, at));
    }
}

/// What people are shown is one short line, whatever the source wrote.
fn is_presentable(answer: &Answer) {
    let text = match answer {
        Answer::NotANumber(text) | Answer::Failed(text) => text,
        Answer::Number { .. }
        | Answer::NoData
        | Answer::SeveralSeries(_)
        | Answer::OtherClock(_)
        | Answer::TooLate => return,
    };
    assert!(!text.is_empty() && text.chars().count() <= TEXT_MAX, "{text}");
    assert!(!text.contains(char::is_control), "{text:?}");
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: [&str; 4] = [
        r#" {"status":"success","data":{"resultType":"vector","result":[{"value":[1.5,"0.25"]}]}}"#,
        r#" {"status":"success","data":{"resultType":"scalar","result":[1e99,"-Inf"]}}"#,
        r#" {"status":"error","error":"parse error: x","warnings":["a store is down"]}"#,
        r#"!{"data":{"result":[{"value":[1,[2]]}]},"a/b":{"~":7}}"#,
    ];

    /// Pieces of the samples and of what may be mistaken for them, in any order.
    #[test]
    fn no_answer_does_harm() {
        let mut state = 20_261_121_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(state >> 33).unwrap_or_default() % below
        };
        let pieces: [&[u8]; 8] =
            [b"\0", b"\n\x1b[2J", b"\xff\xfe", b"\"", b"[", b"NaN", b"-1e999", b"\\ud800"];
        for case in 0..8_000 {
            let mut bytes = SAMPLES[case % SAMPLES.len()].as_bytes().to_vec();
            bytes[0] = u8::try_from(random(8)).unwrap_or_default();
            for _ in 0..random(5) {
                let at = 1 + random(bytes.len());
                let end = (at + random(9)).min(bytes.len());
                bytes.splice(at.min(end)..end, pieces[random(pieces.len())].iter().copied());
            }
            metrics_answer(&bytes);
        }
    }
}
