//! What instances of the live check run: a small HTTP/1 server that answers as a scenario's
//! version does, and notes down when requests arrive if it is the candidate.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;

use super::{Error, arrivals, cannot, scenario_of};
use crate::arm::{Answer, Grain, Ready};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::scenarios;

/// Probes ask for this; they are answered at once and are no requests.
pub(super) const READY_PATH: &str = "/ready";
/// A request that hangs is held for so long: longer than anybody waits.
const HANGS_FOR: Duration = Duration::from_mins(1);
/// Heads are shorter.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// The version that this process is.
struct Version {
    ready: Ready,
    random: Random,
    /// The candidate's.
    arrivals: Option<File>,
}

/// Serves until it is killed: on `PORT`, as `SWITCHBACK_VERSION`.
pub fn serve(directory: &Path) -> Result<(), Error> {
    let variable = |name| std::env::var(name).map_err(|_| Error::Unknown(name));
    let (port, name) = (variable("PORT")?, variable("SWITCHBACK_VERSION")?);
    let port: u16 = port.parse().map_err(|_| Error::Unknown("PORT"))?;
    let version = Rc::new(RefCell::new(Version::named(directory, &name)?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(cannot("start a runtime"))?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.map_err(cannot(format!("listen on port {port}")))?;
        loop {
            let (stream, _) = listener.accept().await.map_err(cannot("accept a connection"))?;
            // How a connection ends is the proxy's to see.
            tokio::task::spawn_local(converse(stream, Rc::clone(&version)));
        }
    })
}

impl Version {
    fn named(directory: &Path, name: &str) -> Result<Self, Error> {
        let seed = u64::from(std::process::id());
        let random = Random::new(seed, name, 0);
        let Some(Scenario { candidate, .. }) = scenario_of(name) else {
            let baseline = scenarios::usual();
            let ready = Ready::new(&baseline, Grain::Fine);
            return Ok(Self { ready, random, arrivals: None });
        };
        let path = arrivals(directory, name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(cannot(format!("write {}", path.display())))?;
        let ready = Ready::new(&candidate[0], Grain::Fine);
        Ok(Self { ready, random, arrivals: Some(file) })
    }

    /// A request has arrived: what becomes of it.
    fn answer(&mut self) -> Answer {
        if let Some(file) = &mut self.arrivals {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            // A line that is missing would show as a request that was judged and never came.
            let _ = writeln!(file, "{}", now.as_micros());
        }
        self.ready.answer(&mut self.random)
    }
}

async fn converse(mut stream: TcpStream, version: Rc<RefCell<Version>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::with_capacity(1024);
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 || head.len() > HEAD_BYTES_MAX {
            return Ok(());
        }
        head.extend_from_slice(&buffer[..read]);
        // Requests have no body, and the proxy sends the next one after the answer.
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        let status = if is_probe(&head) { 200 } else { status(&version).await };
        head.clear();
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 3\r\n\r\nok\n");
        stream.write_all(answer.as_bytes()).await?;
    }
}

fn is_probe(head: &[u8]) -> bool {
    head.split(|byte| *byte == b' ').nth(1) == Some(READY_PATH.as_bytes())
}

/// Takes as long as the version takes.
async fn status(version: &RefCell<Version>) -> u16 {
    let answer = version.borrow_mut().answer();
    match answer {
        Answer::Never => {
            // sleep: this is what a version that hangs does
            tokio::time::sleep(HANGS_FOR).await;
            504
        }
        Answer::After { micros, is_failure } => {
            // sleep: the latency that was drawn
            tokio::time::sleep(Duration::from_micros(micros)).await;
            if is_failure { 500 } else { 200 }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::live::version_of;

    #[test]
    fn a_candidate_notes_arrivals_down_and_misbehaves_as_its_scenario_says() {
        let directory = tempfile::tempdir().unwrap();
        let name = version_of("errors 0.1 -> 5 %", 1);
        let mut version = Version::named(directory.path(), &name).unwrap();
        let mut failed = 0;
        for _ in 0..4000 {
            let Answer::After { is_failure, .. } = version.answer() else { panic!("none hangs") };
            failed += u32::from(is_failure);
        }
        assert!((120..290).contains(&failed), "{failed} of 4000");
        let noted = std::fs::read_to_string(arrivals(directory.path(), &name)).unwrap();
        assert_eq!(noted.lines().count(), 4000);
        let mut hanging = Version::named(directory.path(), &version_of("all hang", 1)).unwrap();
        assert_eq!(hanging.answer(), Answer::Never);
        assert!(Version::named(directory.path(), "v1").unwrap().arrivals.is_none());
    }

    #[test]
    fn only_probes_ask_whether_it_is_ready() {
        assert!(is_probe(b"GET /ready HTTP/1.1\r\n\r\n"));
        assert!(!is_probe(b"GET / HTTP/1.1\r\nx: /ready \r\n\r\n") && !is_probe(b"x"));
    }
}
