//! What answers on the admin socket is not always a data plane.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;

use switchback_dataplane::{Options, ProxyDataPlane};
use switchback_ports::DataPlane;
use switchback_ports::data_plane::Error;
use switchback_routing::Table;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

async fn told(answer: &[u8]) -> Error {
    let directory = tempfile::tempdir().unwrap();
    let socket = switchback_domain::socket_path(directory.path(), "proxy");
    let listener = UnixListener::bind(socket).unwrap();
    let stranger = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(answer).await.unwrap();
        stream.shutdown().await.unwrap();
        // The whole request, or closing would reset the connection.
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let plane = ProxyDataPlane::new(Options::new(directory.path(), "unused"));
    let empty = Table::default();
    let (published, ()) = tokio::join!(plane.publish(&empty), stranger);
    published.unwrap_err()
}

#[tokio::test(flavor = "current_thread")]
async fn an_answer_that_is_not_ours_is_no_answer() {
    for answer in [
        &b""[..],
        b"SSH-2.0-nonsense\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"out",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    ] {
        let error = told(answer).await;
        assert!(matches!(error, Error::Unavailable(_)), "{error:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn refusals_keep_their_meaning() {
    let answer = |status: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let generations = r#""given":{"epoch":1,"counter":2},"seen":{"epoch":3,"counter":4}"#;
    let fenced = answer("409 Conflict", &format!(r#"{{"outcome":"fenced",{generations}}}"#));
    let error = told(fenced.as_bytes()).await;
    assert!(matches!(error, Error::Fenced { given, seen } if given < seen), "{error:?}");
    let refused = answer("422 Unprocessable", r#"{"outcome":"refused","reason":"in use"}"#);
    let error = told(refused.as_bytes()).await;
    assert!(matches!(&error, Error::Refused(reason) if reason == "in use"), "{error:?}");
    let late = answer("504 Late", r#"{"outcome":"unacknowledged","reason":"worker 1"}"#);
    let error = told(late.as_bytes()).await;
    assert!(matches!(&error, Error::Unavailable(_)), "{error:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn nobody_there_is_unavailable() {
    let directory = tempfile::tempdir().unwrap();
    let plane = ProxyDataPlane::new(Options::new(directory.path(), "unused"));
    let Err(Error::Unavailable(cause)) = plane.report().await else { panic!("nobody answered") };
    assert_eq!(cause.kind(), ErrorKind::NotFound);
    assert_eq!(plane.pid().await, None);
    plane.stop().await.unwrap();
}
