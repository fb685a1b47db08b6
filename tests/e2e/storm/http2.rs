//! A client of HTTP/2, without encryption and by prior knowledge: three streams at once, and a new
//! connection where the other side has said that it takes no more on this one.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use h2::client::{SendRequest, handshake};
use http::{HeaderMap, HeaderValue, Request};
use tokio::net::TcpStream;

use super::http1::Lost;
use super::tally::Book;

const PIECES: usize = 8;
const PIECE_EVERY: Duration = Duration::from_millis(30);

pub(super) const KIND: &str = "HTTP/2 streams";

/// One connection after another.
pub(super) struct Visitor {
    address: SocketAddr,
    book: Book,
    sender: Option<SendRequest<Bytes>>,
}

impl Visitor {
    pub(super) fn new(address: SocketAddr, book: Book) -> Self {
        Self { address, book, sender: None }
    }

    /// Three streams side by side.
    pub(super) async fn visit(&mut self) {
        let sender = match self.sender.take() {
            Some(sender) => sender.ready().await.ok(),
            None => None,
        };
        let sender = match sender {
            Some(sender) => sender,
            None => match self.connect().await {
                Ok(sender) => sender,
                Err(lost) => return self.book.note(KIND, |tally| tally.lose(lost.0)),
            },
        };
        tokio::join!(
            self.ask(&sender, "POST", "/", "received 80"),
            self.ask(&sender, "GET", "/wait?ms=150", "has waited"),
            self.ask(&sender, "GET", "/events?count=8&ms=30", "x-events 8"),
        );
        self.sender = Some(sender);
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, Lost> {
        let stream = TcpStream::connect(self.address).await;
        let stream = stream.map_err(|error| Lost::because("connect", error))?;
        let hands = handshake(stream).await;
        let (sender, connection) = hands.map_err(|error| Lost::because("connect", error))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn ask(&self, sender: &SendRequest<Bytes>, method: &str, path: &str, wanted: &str) {
        self.book.note(KIND, |tally| tally.sent += 1);
        let mut answer = self.exchange(sender.clone(), method, path).await;
        while let Ok(None) = answer {
            answer = match self.connect().await {
                Ok(sender) => self.exchange(sender, method, path).await,
                Err(lost) => Err(lost),
            };
        }
        self.book.note(KIND, |tally| match answer {
            Ok(Some(text)) if text.contains(wanted) => tally.answered += 1,
            Ok(text) => tally.lose(format!("another answer: {text:?}")),
            Err(lost) => tally.lose(lost.0),
        });
    }

    /// Body and trailers of an answer; nothing if the other side had said goodbye before it took the
    /// request: then any client sends it again on a new connection (RFC 9113, section 6.8).
    async fn exchange(
        &self,
        sender: SendRequest<Bytes>,
        method: &str,
        path: &str,
    ) -> Result<Option<String>, Lost> {
        let mut sender = match sender.ready().await {
            Ok(sender) => sender,
            Err(_) => self.connect().await?,
        };
        let uri = format!("http://{}{path}", self.address);
        let request = Request::builder().method(method).uri(uri).header("te", "trailers").body(());
        let request = request.expect("it is a request");
        let is_empty = method == "GET";
        let sent = sender.send_request(request, is_empty);
        let (response, mut body) = match sent {
            Ok(sent) => sent,
            Err(error) if was_not_taken(&error) => return Ok(None),
            Err(error) => return Err(Lost::because("before a byte", error)),
        };
        for piece in 1..=PIECES {
            if is_empty {
                break;
            }
            match body.send_data(Bytes::from_static(b"0123456789"), piece == PIECES) {
                Ok(()) => {}
                Err(error) if was_not_taken(&error) => return Ok(None),
                Err(error) => return Err(Lost::because("mid-request", error)),
            }
            // sleep: an upload takes its time.
            tokio::time::sleep(PIECE_EVERY).await;
        }
        let response = match response.await {
            Ok(response) => response,
            Err(error) if was_not_taken(&error) => return Ok(None),
            Err(error) => return Err(Lost::because("before a byte", error)),
        };
        let status = response.status();
        let mut body = response.into_body();
        let mut text = String::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(|error| Lost::because("mid-response", error))?;
            text.push_str(&String::from_utf8_lossy(&data));
            // The window is far larger than what comes; an error would come with the data.
            let _ = body.flow_control().release_capacity(data.len());
        }
        let trailers = body.trailers().await;
        let trailers = trailers.map_err(|error| Lost::because("mid-response", error))?;
        if status != 200 {
            return Err(Lost::because("status", format!("{status} {text}")));
        }
        Ok(Some(text + &told(&trailers.unwrap_or_default())))
    }
}

/// Streams that the other side has taken end as ever after its goodbye.
fn was_not_taken(error: &h2::Error) -> bool {
    error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
}

fn told(trailers: &HeaderMap) -> String {
    let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let lines = trailers.iter().map(|(name, value)| format!("{name} {}", text(value)));
    lines.collect::<Vec<_>>().join("\n")
}
