//! The HTTP API of Prometheus and of those that speak it: instant queries at a given time.

use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

use serde_json::Value;
use switchback_domain::Timestamp;
use switchback_domain::metric::{Answer, Endpoint};

use crate::http::{self, Page};
use crate::shown;

/// Clocks further apart than this are named: numbers would be about another time than asked for.
const SKEW_MAX_SECONDS: i64 = 30;

/// Asks once, about `at`.
pub(crate) async fn ask(endpoint: &Endpoint, query: &str, at: Timestamp) -> Answer {
    let millis = at.as_millis();
    let (seconds, rest) = (millis / 1000, millis % 1000);
    let (slash, query) = (if endpoint.url.ends_with('/') { "" } else { "/" }, encoded(query));
    let suffix = format!("{slash}api/v1/query?query={query}&time={seconds}.{rest:03}");
    match http::get(endpoint, &suffix).await {
        Ok(page) => understand(&page, at),
        Err(why) => Answer::Failed(why),
    }
}

/// Everything but unreserved characters, as `%XX`.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut done, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            done.push(char::from(byte));
        } else {
            // Writing to a text cannot fail.
            let _ = write!(done, "%{byte:02X}");
        }
        done
    })
}

pub(crate) fn understand(page: &Page, at: Timestamp) -> Answer {
    let Ok(document) = serde_json::from_slice::<Value>(&page.body) else {
        let said = shown(&String::from_utf8_lossy(&page.body));
        return Answer::Failed(format!("{}, and no JSON: {said}", page.status));
    };
    let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
    if !page.status.is_success() || text("/status") != Some("success") {
        let why = text("/error").map_or_else(|| page.status.to_string(), shown);
        return Answer::Failed(why);
    }
    if let Some(seconds) = page.date.as_deref().and_then(|date| skew(date, at)) {
        return Answer::OtherClock(seconds);
    }
    // With a warning, part of the data may be missing: no number to decide by.
    let warning = document.pointer("/warnings/0").and_then(Value::as_str);
    if let Some(warning) = warning {
        return Answer::Failed(format!("it warns: {}", shown(warning)));
    }
    let result = document.pointer("/data/result");
    match (text("/data/resultType"), result) {
        (Some("vector"), Some(Value::Array(series))) => match series.as_slice() {
            [] => Answer::NoData,
            [one] => match one.get("value") {
                Some(sample) => number(sample),
                None => Answer::NotANumber("a histogram".to_owned()),
            },
            several => Answer::SeveralSeries(several.len()),
        },
        (Some("scalar"), Some(sample)) => number(sample),
        (Some("string"), Some(sample)) => {
            let text = sample.get(1).and_then(Value::as_str).unwrap_or_default();
            Answer::NotANumber(format!("the text \"{}\"", shown(text)))
        }
        (Some(kind), Some(_)) => Answer::NotANumber(format!("a {}", shown(kind))),
        (_, None) | (None, Some(_)) => Answer::Failed("the answer holds no result".to_owned()),
    }
}

/// By how many seconds the server's clock is ahead of ours, if by too many.
#[allow(clippy::cast_possible_wrap, reason = "seconds since 1970 stay far below 2^63")]
fn skew(date: &str, at: Timestamp) -> Option<i64> {
    let theirs = httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let seconds = theirs.as_secs() as i64 - (at.as_millis() / 1000) as i64;
    (seconds.abs() > SKEW_MAX_SECONDS).then_some(seconds)
}

/// `[seconds, "number"]`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as casts saturate")]
fn number(sample: &Value) -> Answer {
    let seconds = sample.get(0).and_then(Value::as_f64);
    let text = sample.get(1).and_then(Value::as_str);
    let (Some(seconds), Some(text)) = (seconds, text) else {
        return Answer::Failed("the answer holds no sample".to_owned());
    };
    match text.parse() {
        Ok(value) => {
            let at = Timestamp::from_millis((seconds * 1000.0).round() as u64);
            Answer::Number { value, at }
        }
        Err(_) => Answer::NotANumber(format!("the text \"{}\"", shown(text))),
    }
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;

    use super::*;

    fn said(status: StatusCode, body: &str) -> Answer {
        let date = Some("Thu, 01 Jan 1970 00:01:40 GMT".to_owned());
        let page = Page { status, date, body: body.as_bytes().to_vec() };
        understand(&page, Timestamp::from_millis(100_000))
    }

    #[test]
    fn every_shape_of_an_answer_has_a_name() {
        let result = |kind: &str, result: &str| {
            let data = format!(r#"{{"resultType":"{kind}","result":{result}}}"#);
            said(StatusCode::OK, &format!(r#"{{"status":"success","data":{data}}}"#))
        };
        let at = Timestamp::from_millis(1_500);
        let sample = r#"[{"metric":{},"value":[1.5,"0.25"]}]"#;
        assert_eq!(result("vector", sample), Answer::Number { value: 0.25, at });
        assert_eq!(result("scalar", r#"[1.5,"7"]"#), Answer::Number { value: 7.0, at });
        assert_eq!(result("vector", "[]"), Answer::NoData);
        assert_eq!(result("vector", "[{},{}]"), Answer::SeveralSeries(2));
        for infinite in ["+Inf", "-Inf", "NaN"] {
            let answer = result("scalar", &format!(r#"[1.5,"{infinite}"]"#));
            let is_told = matches!(answer, Answer::Number { value, .. } if !value.is_finite());
            assert!(is_told, "{infinite}");
        }
        for (kind, odd) in [
            ("string", r#"[1,"x"]"#),
            ("matrix", "[]"),
            ("vector", r#"[{"histogram":[]}]"#),
            ("scalar", r#"[1,"x"]"#),
        ] {
            let answer = result(kind, odd);
            assert!(matches!(answer, Answer::NotANumber(_)), "{kind}: {answer:?}");
        }
        for torn in ["", "{", "[]", "{}", r#"{"status":"success"}"#] {
            let answer = said(StatusCode::OK, torn);
            assert!(matches!(answer, Answer::Failed(_)), "{torn}: {answer:?}");
        }
        assert!(matches!(result("scalar", "[]"), Answer::Failed(_)));
    }

    #[test]
    fn errors_warnings_and_other_clocks_are_told() {
        let wrong = r#"{"status":"error","errorType":"bad_data","error":"parse error: x"}"#;
        let answer = said(StatusCode::BAD_REQUEST, wrong);
        assert_eq!(answer, Answer::Failed("parse error: x".to_owned()));
        let part = r#"{"status":"success","warnings":["a store is down"],"data":{}}"#;
        let answer = said(StatusCode::OK, part);
        assert_eq!(answer, Answer::Failed("it warns: a store is down".to_owned()));
        let date = "Thu, 01 Jan 1970 00:01:40 GMT";
        assert_eq!(skew(date, Timestamp::from_millis(71_000)), None);
        assert_eq!(skew(date, Timestamp::from_millis(40_000)), Some(60));
        assert_eq!(skew(date, Timestamp::from_millis(200_000)), Some(-100));
    }

    #[test]
    fn queries_are_written_into_the_address_whole() {
        assert_eq!(encoded("sum(a{v=\"1 ü\"})"), "sum%28a%7Bv%3D%221%20%C3%BC%22%7D%29");
    }
}
