//! The client against a small server on a Unix socket: answers, problems, broken streams.

#![allow(clippy::unwrap_used, reason = "a test that fails should fail loudly")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use switchback_api::client::{Client, Command, Error, Progress};
use switchback_api::{CommandRequest, RolloutEvent, code, exit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

/// Serves the given raw answers, one connection each, and reports each request's first line.
fn serve(listener: UnixListener, answers: Vec<String>) -> mpsc::UnboundedReceiver<String> {
    let (told, requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for answer in answers {
            let Ok((mut stream, _)) = listener.accept().await else { return };
            let head = read_head(&mut stream).await;
            let _ = told.send(head.lines().next().unwrap_or_default().to_owned());
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    requests
}

async fn read_head(stream: &mut UnixStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte).await {
            Ok(1) => head.push(byte[0]),
            _ => break,
        }
    }
    String::from_utf8_lossy(&head).into_owned()
}

fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// A chunked stream of lines; without `whole` it breaks off.
fn stream(lines: &[String], whole: bool) -> String {
    let mut text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for line in lines {
        let _ = write!(text, "{:x}\r\n{line}\n\r\n", line.len() + 1);
    }
    if whole {
        text.push_str("0\r\n\r\n");
    }
    text
}

fn event(sequence: u64, kind: &str) -> String {
    let outcome = if kind == "ended" { "\"promoted\"" } else { "null" };
    format!(
        r#"{{"sequence":{sequence},"at_ms":1,"kind":"{kind}","text":"t{sequence}","verdict":null,
        "summary":{{"id":"r1","key":"production/api","strategy":"canary","from":"v1","to":"v2",
        "phase":"Observing","step":1,"steps":4,"doing":"weight 5%","weight":500,
        "waiting_for":null,"started_ms":1,"ended_ms":null,"outcome":{outcome},"cause":null,
        "candidate_requests":0,"candidate_failed":0,"by":"anna"}}}}"#
    )
    .replace('\n', " ")
}

fn socket(directory: &Path) -> (PathBuf, UnixListener) {
    let path = directory.join("control.sock");
    let listener = UnixListener::bind(&path).unwrap();
    (path, listener)
}

async fn drain(client: &Client) -> Result<Vec<String>, Error> {
    let mut follow = client.follow("r1").reconnect_for(Duration::from_millis(200));
    let mut told = Vec::new();
    loop {
        match follow.next().await? {
            Progress::Event(event) => told.push(word(&event)),
            Progress::Lost => told.push("lost".to_owned()),
            Progress::Back => told.push("back".to_owned()),
            Progress::Ended => return Ok(told),
        }
    }
}

fn word(event: &RolloutEvent) -> String {
    format!("{}{}", event.kind, event.sequence)
}

fn command_request() -> CommandRequest {
    CommandRequest { full: false, reason: None, by: "anna".to_owned() }
}

#[tokio::test]
async fn an_answer_is_read_and_the_route_is_as_documented() {
    let directory = tempfile::tempdir().unwrap();
    let (path, listener) = socket(directory.path());
    let accepted = answer("200 OK", r#"{"rollout":"r1","queued":false,"note":null}"#);
    let mut requests = serve(listener, vec![accepted]);
    let client = Client::new(path);
    let accepted = client.command("r1", Command::Promote, &command_request()).await.unwrap();
    assert_eq!(accepted.rollout, "r1");
    assert_eq!(requests.recv().await.unwrap(), "POST /v1/rollouts/r1/promote HTTP/1.1");
}

#[tokio::test]
async fn a_problem_keeps_its_code_and_exit_code() {
    let directory = tempfile::tempdir().unwrap();
    let (path, listener) = socket(directory.path());
    let body = serde_json::to_string(&code::BUSY.problem("r7 runs").hint("wait")).unwrap();
    let page = answer("502 Bad Gateway", "<html>\nno</html>");
    let _requests = serve(listener, vec![answer("409 Conflict", &body), page]);
    let client = Client::new(path);
    let problem = client.ledger().await.unwrap_err().into_problem();
    assert_eq!((problem.code.as_str(), problem.exit_code), ("SB0301", exit::BUSY));
    let problem = client.ledger().await.unwrap_err().into_problem();
    assert_eq!(problem.code, code::ANSWER_NOT_UNDERSTOOD.id);
    assert!(problem.message.contains("502") && problem.message.contains("<html>"), "{problem:?}");
}

#[tokio::test]
async fn garbage_and_half_answers_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let (path, listener) = socket(directory.path());
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_owned();
    let _requests = serve(listener, vec![answer("200 OK", "[]"), half, "hello\r\n\r\n".to_owned()]);
    let client = Client::new(path);
    assert!(matches!(client.ledger().await, Err(Error::NotUnderstood(_))));
    assert!(matches!(client.ledger().await, Err(Error::Broken(_))));
    let broken = client.ledger().await.unwrap_err();
    assert!(broken.is_passing());
    let problem = broken.into_problem();
    assert_eq!(problem.exit_code, exit::UNAVAILABLE);
    assert!(!problem.details.is_empty());
}

#[tokio::test]
async fn nobody_listening_is_said_with_and_without_a_socket_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let client = Client::new(&path);
    assert!(matches!(client.ledger().await, Err(Error::NotRunning { .. })));
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "a killed control plane leaves its socket behind");
    let problem = client.ledger().await.unwrap_err().into_problem();
    assert_eq!((problem.code.as_str(), problem.exit_code), ("SB0201", exit::UNAVAILABLE));
}

#[tokio::test]
async fn a_refused_permission_is_its_own_error() {
    // Root may connect to anything: the sorting itself is tested beside `client::Error`.
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let _listener = UnixListener::bind(&path).unwrap();
    let mut permissions = std::fs::metadata(&path).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o000);
    std::fs::set_permissions(&path, permissions).unwrap();
    match UnixStream::connect(&path).await {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let problem = Client::new(path).ledger().await.unwrap_err().into_problem();
            assert_eq!((problem.code.as_str(), problem.exit_code), ("SB0204", exit::REJECTED));
        }
        other => assert!(other.is_ok(), "only root gets through: {other:?}"),
    }
}

#[tokio::test]
async fn a_stream_that_breaks_goes_on_after_the_last_event_seen() {
    let directory = tempfile::tempdir().unwrap();
    let (path, listener) = socket(directory.path());
    let first = [event(1, "phase"), String::new(), event(2, "step"), event(0, "probe")];
    let second = [event(2, "step"), event(3, "verdict"), event(4, "ended")];
    let mut requests = serve(listener, vec![stream(&first, false), stream(&second, true)]);
    let told = drain(&Client::new(path)).await.unwrap();
    let expected = ["phase1", "step2", "probe0", "lost", "back", "verdict3", "ended4"];
    assert_eq!(told, expected);
    assert_eq!(requests.recv().await.unwrap(), "GET /v1/rollouts/r1/events?after=0 HTTP/1.1");
    assert_eq!(requests.recv().await.unwrap(), "GET /v1/rollouts/r1/events?after=1 HTTP/1.1");
}

#[tokio::test]
async fn a_break_between_two_events_of_one_record_loses_neither() {
    let directory = tempfile::tempdir().unwrap();
    let (path, listener) = socket(directory.path());
    let first = [event(1, "phase"), event(2, "step"), event(2, "weight")];
    let second = [event(2, "step"), event(2, "weight"), event(2, "note"), event(3, "ended")];
    let _requests = serve(listener, vec![stream(&first, false), stream(&second, true)]);
    let told = drain(&Client::new(path)).await.unwrap();
    assert_eq!(told, ["phase1", "step2", "weight2", "lost", "back", "note2", "ended3"]);
}

#[tokio::test]
async fn a_line_cut_in_two_by_a_break_is_asked_for_again() {
    let directory = tempfile::tempdir().unwrap();
    let (path, listener) = socket(directory.path());
    let mut cut = stream(&[event(1, "phase")], false);
    cut.push_str("6\r\n{\"sequ\r\n0\r\n\r\n");
    let second = stream(&[event(2, "ended")], true);
    let _requests = serve(listener, vec![cut, second]);
    assert_eq!(drain(&Client::new(path)).await.unwrap(), ["phase1", "lost", "back", "ended2"]);
}

#[tokio::test]
async fn following_gives_up_when_the_control_plane_stays_away() {
    let directory = tempfile::tempdir().unwrap();
    let (path, listener) = socket(directory.path());
    let _requests = serve(listener, vec![stream(&[event(1, "phase")], false)]);
    let error = drain(&Client::new(path)).await.unwrap_err();
    assert!(matches!(error, Error::NotRunning { .. }), "{error:?}");
}

#[tokio::test]
async fn an_unknown_rollout_is_not_asked_for_twice() {
    let directory = tempfile::tempdir().unwrap();
    let (path, listener) = socket(directory.path());
    let body = serde_json::to_string(&code::UNKNOWN_ROLLOUT.problem("no r1")).unwrap();
    let mut requests = serve(listener, vec![answer("404 Not Found", &body)]);
    let error = drain(&Client::new(path)).await.unwrap_err();
    assert!(matches!(error, Error::Problem(_)));
    assert!(requests.recv().await.is_some() && requests.recv().await.is_none());
}
