//! Clients of each kind that come again as soon as they are done: with long polls, slow uploads,
//! event streams, tunnels and HTTP/2 streams; some that go in the middle, and some that stay.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::http1::{Connection, Lost};
use super::http2;
use super::tally::{Book, Visits};

/// Far longer than any of them takes; then it counts as lost.
const VISIT_MAX: Duration = Duration::from_secs(30);
/// Visitors of each kind.
const OF_EACH: usize = 3;
const RESTING: usize = 30;
/// Half of them tunnels, half of them event streams.
const STAYING: usize = 6;
const PIECES: usize = 10;
const PIECE_EVERY: Duration = Duration::from_millis(60);

/// What a visitor does again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Poll,
    Upload,
    ChunkedUpload,
    Events,
    Tunnel,
    /// Goes away in the middle of an answer.
    Leave,
}

const KINDS: [Kind; 6] =
    [Kind::Poll, Kind::Upload, Kind::ChunkedUpload, Kind::Events, Kind::Tunnel, Kind::Leave];

/// See the module.
pub(super) struct Visitors {
    runtime: Runtime,
    over: Arc<AtomicBool>,
    book: Book,
    at_it: JoinSet<()>,
}

impl Visitors {
    pub(super) fn start(address: SocketAddr) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let (over, book) = (Arc::new(AtomicBool::new(false)), Book::default());
        let mut at_it = JoinSet::new();
        for serial in 0..OF_EACH {
            for kind in KINDS {
                let visiting = kind.visits(serial, address, book.clone(), Arc::clone(&over));
                at_it.spawn_on(visiting, runtime.handle());
            }
            let mut visitor = http2::Visitor::new(address, book.clone());
            let over = Arc::clone(&over);
            let visiting = async move {
                while !over.load(Ordering::Relaxed) {
                    visitor.visit().await;
                }
            };
            at_it.spawn_on(visiting, runtime.handle());
        }
        Self { runtime, over, book, at_it }
    }

    /// Lets them finish what they have begun; what they saw.
    pub(super) fn stop(self) -> Visits {
        self.over.store(true, Ordering::Relaxed);
        self.runtime.block_on(self.at_it.join_all());
        self.book.visits().clone()
    }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: storm.test\r\nte: trailers\r\n\r\n")
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Poll => "long polls",
            Self::Upload => "slow uploads by length",
            Self::ChunkedUpload => "slow uploads in chunks",
            Self::Events => "event streams",
            Self::Tunnel => "tunnels",
            Self::Leave => "clients that leave",
        }
    }

    async fn visits(self, serial: usize, address: SocketAddr, book: Book, over: Arc<AtomicBool>) {
        let (mut kept, mut turn) = (None::<Connection>, serial);
        while !over.load(Ordering::Relaxed) {
            turn += 1;
            let is_open = kept.as_ref().is_none_or(Connection::is_open);
            let connection = kept.take().filter(|_| is_open);
            book.note(self.name(), |tally| {
                tally.sent += 1;
                tally.closed += u64::from(!is_open);
            });
            let visit = timeout(VISIT_MAX, self.visit(connection, address, turn)).await;
            let visit = visit.unwrap_or_else(|_| Err(Lost::because("timeout", self.name())));
            book.note(self.name(), |tally| match visit {
                Ok(connection) => {
                    let left = u64::from(self == Self::Leave);
                    tally.left += left;
                    tally.answered += 1 - left;
                    tally.tunnels += u64::from(self == Self::Tunnel);
                    kept = connection;
                }
                Err(lost) => tally.lose(lost.0),
            });
        }
    }

    /// One visit; the connection, if it can be used again.
    async fn visit(
        self,
        kept: Option<Connection>,
        address: SocketAddr,
        turn: usize,
    ) -> Result<Option<Connection>, Lost> {
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connection::open(address).await?,
        };
        let (text, wanted) = match self {
            Self::Poll => {
                let path = format!("/wait?ms={}", 200 + 350 * (turn % 4));
                connection.write(get(&path)).await?;
                (connection.answer().await?, "has waited".to_owned())
            }
            Self::Upload | Self::ChunkedUpload => {
                upload(&mut connection, self == Self::ChunkedUpload).await?;
                (connection.answer().await?, format!("received {} bytes", PIECES * 16))
            }
            Self::Events => {
                connection.write(get("/events?count=12&ms=40")).await?;
                (connection.answer().await?.to_ascii_lowercase(), "x-events: 12".to_owned())
            }
            Self::Tunnel => {
                open_tunnel(&mut connection).await?;
                for word in 0..10 {
                    connection.echo(&format!("word {word}")).await?;
                    // sleep: a tunnel lasts.
                    tokio::time::sleep(PIECE_EVERY).await;
                }
                connection.hang_up().await?;
                return Ok(None);
            }
            Self::Leave => {
                open_stream(&mut connection).await?;
                // sleep: it comes back after a while; each visit costs a connection.
                tokio::time::sleep(PIECE_EVERY).await;
                return Ok(None);
            }
        };
        if !text.contains(&wanted) {
            return Err(Lost::because("another answer", text));
        }
        Ok(Some(connection))
    }
}

async fn upload(connection: &mut Connection, chunked: bool) -> Result<(), Lost> {
    let framing = if chunked {
        "transfer-encoding: chunked".to_owned()
    } else {
        format!("content-length: {}", PIECES * 16)
    };
    let head = format!("POST / HTTP/1.1\r\nhost: storm.test\r\n{framing}\r\n\r\n");
    connection.write(head).await?;
    for _ in 0..PIECES {
        let piece = "0123456789abcdef";
        let piece = if chunked { format!("10\r\n{piece}\r\n") } else { piece.to_owned() };
        connection.write(piece).await?;
        // sleep: a slow upload.
        tokio::time::sleep(PIECE_EVERY).await;
    }
    if chunked { connection.write("0\r\n\r\n").await } else { Ok(()) }
}

async fn open_tunnel(connection: &mut Connection) -> Result<(), Lost> {
    let wanted = "connection: upgrade\r\nupgrade: echo";
    let ask = format!("GET /echo HTTP/1.1\r\nhost: storm.test\r\n{wanted}\r\n\r\n");
    connection.write(ask).await?;
    connection.head(101).await.map(drop)
}

/// An event stream that would last for hours, and its first event.
async fn open_stream(connection: &mut Connection) -> Result<(), Lost> {
    connection.write(get("/events?count=100000&ms=100")).await?;
    connection.head(200).await?;
    connection.chunk().await.map(drop)
}

/// Connections that rest for as long as the storm does.
pub(super) struct Resting(Vec<Connection>);

impl Resting {
    pub(super) fn open(visitors: &Visitors, address: SocketAddr) -> Self {
        visitors.runtime.block_on(async {
            let mut resting = Vec::new();
            for _ in 0..RESTING {
                let mut connection = Connection::open(address).await.expect("it listens");
                connection.write(get("/")).await.expect("it reads");
                connection.answer().await.expect("it answers");
                resting.push(connection);
            }
            Self(resting)
        })
    }

    /// Each is as good as it was; how many requests there were in all.
    pub(super) fn ask_again(self, visitors: &Visitors) -> u64 {
        visitors.runtime.block_on(async {
            for mut connection in self.0 {
                assert!(connection.is_open(), "a resting connection was closed");
                connection.write(get("/")).await.expect("it reads");
                connection.answer().await.expect("a resting connection is answered");
            }
        });
        2 * RESTING as u64
    }
}

/// Tunnels and event streams whose clients stay for as long as they are let.
pub(super) struct Kept(Vec<Connection>);

impl Kept {
    pub(super) fn open(visitors: &Visitors, address: SocketAddr) -> Self {
        visitors.runtime.block_on(async {
            let mut kept = Vec::new();
            for serial in 0..STAYING {
                let mut connection = Connection::open(address).await.expect("it listens");
                if serial % 2 == 0 {
                    open_tunnel(&mut connection).await.expect("a tunnel");
                } else {
                    open_stream(&mut connection).await.expect("an event");
                }
                kept.push(connection);
            }
            Self(kept)
        })
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Waits until each has seen its end.
    pub(super) fn are_cut(self, visitors: &Visitors) {
        visitors.runtime.block_on(async {
            for connection in self.0 {
                timeout(VISIT_MAX, connection.drain()).await.expect("it is cut");
            }
        });
    }
}
