//! gRPC answers 200 and says in a trailer what went wrong. So that a broken version counts as
//! broken, the statuses that a client would blame on the service count as a 5xx.

use http::{HeaderMap, StatusCode};

use crate::counters::Outcome;

/// UNKNOWN, `DEADLINE_EXCEEDED`, INTERNAL, UNAVAILABLE, `DATA_LOSS`. All others are the caller's
/// doing, or an answer.
const FAILURES: [&[u8]; 5] = [b"2", b"4", b"13", b"14", b"15"];

/// How an answer with this header is to be counted so far; `None` when it is not gRPC's. An answer
/// whose status never comes counts as failed, as clients take it for UNKNOWN.
pub(super) fn outcome_so_far(status: StatusCode, headers: &HeaderMap) -> Option<Outcome> {
    let kind = headers.get(http::header::CONTENT_TYPE)?.as_bytes();
    let rest = kind.strip_prefix(b"application/grpc")?;
    let is_grpc = status == StatusCode::OK && matches!(rest.first(), None | Some(b'+' | b';'));
    is_grpc.then(|| outcome(headers))
}

/// How it is to be counted by the trailers.
pub(super) fn outcome(trailers: &HeaderMap) -> Outcome {
    let code = trailers.get("grpc-status").map(http::HeaderValue::as_bytes);
    let failed = code.is_none_or(|code| FAILURES.contains(&code));
    Outcome::Answered(if failed { 4 } else { 1 })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(kind: &'static str, status: Option<&'static str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(status) = status {
            headers.insert("grpc-status", HeaderValue::from_static(status));
        }
        headers
    }

    #[test]
    fn a_status_that_is_the_services_fault_counts_as_a_5xx() {
        let of = |kind, status| outcome_so_far(StatusCode::OK, &headers(kind, status));
        let (good, failed) = (Some(Outcome::Answered(1)), Some(Outcome::Answered(4)));
        assert_eq!(of("application/grpc", Some("0")), good);
        assert_eq!(of("application/grpc+proto", Some("5")), good, "not found is an answer");
        assert_eq!(of("application/grpc", Some("14")), failed);
        assert_eq!(of("application/grpc; x=y", None), failed, "until the trailers say else");
        assert_eq!(of("application/grpc-web", None), None, "its status is in the body");
        assert_eq!(of("text/html", None), None);
    }
}
