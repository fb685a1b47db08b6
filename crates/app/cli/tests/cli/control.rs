//! A control plane of a few lines: answers requests on a Unix socket as a test wants them
//! answered, from a thread.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

/// What is answered.
pub(crate) enum Reply {
    /// A status and a document.
    Json(u16, Value),
    /// Events; the stream ends in good order.
    Events(Vec<Value>),
    /// Events; then the connection breaks and nobody listens for a moment.
    EventsThenKilled(Vec<Value>),
    /// Events; then nothing, and the connection stays.
    EventsThenSilence(Vec<Value>),
}

/// A control plane in a directory of its own, with a configuration beside its state.
pub(crate) struct Control {
    directory: tempfile::TempDir,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Control {
    /// Answers by request: `POST /v1/deploy {...}`.
    pub(crate) fn answering(reply: impl FnMut(&str) -> Reply + Send + 'static) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("switchback.yaml"), super::CONFIG).unwrap();
        let state = directory.path().join(".switchback");
        std::fs::create_dir(&state).unwrap();
        let socket = state.join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        std::thread::spawn(move || serve(listener, &socket, reply, &seen));
        Self { directory, requests }
    }

    /// The project's directory.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Every request so far, with its body.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(
    mut listener: UnixListener,
    socket: &PathBuf,
    mut reply: impl FnMut(&str) -> Reply,
    seen: &Mutex<Vec<String>>,
) {
    while let Ok((mut stream, _)) = listener.accept() {
        let request = read_request(&mut stream);
        seen.lock().unwrap().push(request.clone());
        match reply(&request) {
            Reply::Json(status, document) => {
                let body = document.to_string();
                let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
            Reply::Events(events) => {
                let _ = stream.write_all((chunks(&events) + "0\r\n\r\n").as_bytes());
            }
            Reply::EventsThenKilled(events) => {
                let _ = stream.write_all(chunks(&events).as_bytes());
                drop(stream);
                drop(listener);
                std::fs::remove_file(socket).unwrap();
                listener = UnixListener::bind(socket).unwrap();
            }
            Reply::EventsThenSilence(events) => {
                let _ = stream.write_all(chunks(&events).as_bytes());
                // Open until the reader leaves.
                std::thread::spawn(move || stream.read(&mut [0]));
            }
        }
    }
}

fn chunks(events: &[Value]) -> String {
    let mut text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n\n\r\n".to_owned();
    for event in events {
        let line = format!("{event}\n");
        let _ = write!(text, "{:x}\r\n{line}\r\n", line.len());
    }
    text
}

/// The request's first line without the protocol, and its body.
fn read_request(stream: &mut UnixStream) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        bytes.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    let _ = stream.read_exact(&mut body);
    let line = String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned();
    let route = line.trim_end_matches(" HTTP/1.1");
    format!("{route} {}", String::from_utf8_lossy(&body)).trim_end().to_owned()
}

/// Rollout r1 of production/api from v1 to v2.
pub(crate) fn summary(outcome: Option<&str>) -> Value {
    json!({
        "id": "r1", "key": "production/api", "strategy": "canary", "from": "v1", "to": "v2",
        "phase": "Observing", "step": 1, "steps": 2, "doing": "weight 5%", "weight": 500,
        "waiting_for": null, "started_ms": 1_000, "ended_ms": outcome.map(|_| 5_000),
        "outcome": outcome, "cause": outcome.filter(|word| *word != "promoted").map(|_| CAUSE),
        "candidate_requests": 10, "candidate_failed": 0, "by": "anna",
    })
}

/// Why r1 was taken back.
pub(crate) const CAUSE: &str = "v2 never became ready: GET /ready answered 503";

/// An event of r1.
pub(crate) fn event(sequence: u64, kind: &str, text: &str, outcome: Option<&str>) -> Value {
    json!({
        "sequence": sequence, "at_ms": 1_000 + sequence * 100, "kind": kind, "text": text,
        "summary": summary(outcome), "verdict": null,
    })
}

/// Everything about r1.
pub(crate) fn detail(outcome: Option<&str>) -> Value {
    json!({
        "summary": summary(outcome), "plan": ["weight 5%", "weight 100%"],
        "events": [event(1, "phase", "Provisioning", None)], "verdict": null,
        "last_words": [{
            "instance": "production.api.0a1b2c3d.0", "probe": "GET /ready answered 503",
            "exit": null, "log": ["no database"],
        }],
    })
}

/// A status with r1 active.
pub(crate) fn status() -> Value {
    json!({
        "project": "shop", "environment": "production",
        "control": {"pid": 1, "epoch": 1, "degraded": null},
        "data_plane": {"pid": 2, "generation": "1.1", "error": null, "listening": []},
        "services": [{
            "key": "production/api", "url": null, "stable": null, "split": [],
            "rollout": summary(None), "queue": [], "instances": [], "revisions": [],
        }],
    })
}

/// The answer of 400 and above.
pub(crate) fn problem(status: u16, code: &str, exit: u8) -> Reply {
    let hint = "do something else";
    let body =
        json!({"code": code, "message": "no", "hint": hint, "details": [], "exit_code": exit});
    Reply::Json(status, body)
}
