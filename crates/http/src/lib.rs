//! One HTTP/1.1 exchange on a connection of its own: what all adapters have in common that ask
//! somebody over HTTP. Not here: how the connection is made, TLS, names and addresses, and time
//! limits. Those are the caller's, as is what an answer means.

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// How much of an answer is taken in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of its head, at least 8 KiB; a longer one is no answer.
    pub head_bytes_max: usize,
    /// Bytes of its body.
    pub body_bytes_max: usize,
    /// What becomes of a longer body.
    pub longer: Longer,
}

/// What becomes of an answer whose body is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Longer {
    /// It counts as none.
    Refused,
    /// It ends where its limit is.
    Cut,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What came is none, or nothing came.
    #[error("no valid HTTP answer")]
    Invalid(#[source] hyper::Error),
    /// It broke off, or became none, after its head.
    #[error("{0}, then no valid HTTP answer")]
    BrokenOff(StatusCode, #[source] hyper::Error),
    /// Its body has more than so many bytes.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
}

/// Sends a request as it stands (its target is what the peer sees, its `Host` the caller's to set)
/// and reads the answer whole. The connection ends with it, or when this is dropped.
pub async fn exchange<S, B>(
    stream: S,
    request: Request<B>,
    limits: Limits,
) -> Result<Response<Bytes>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut client = http1::Builder::new();
    let handshake = client.max_buf_size(limits.head_bytes_max).handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(Error::Invalid)?;
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(Error::Invalid)?;
        read(answer, limits).await
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        biased;
        answer = &mut exchange => answer,
        // The peer has closed; what it said before may still be waiting to be read.
        _ = &mut connection => exchange.await,
    }
}

async fn read(answer: Response<Incoming>, limits: Limits) -> Result<Response<Bytes>, Error> {
    let (head, mut incoming) = answer.into_parts();
    let mut body = Vec::new();
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(|source| Error::BrokenOff(head.status, source))?;
        let data = frame.into_data().unwrap_or_default();
        let room = limits.body_bytes_max - body.len();
        body.extend_from_slice(&data[..data.len().min(room)]);
        match limits.longer {
            Longer::Refused if data.len() > room => {
                return Err(Error::TooLarge(limits.body_bytes_max));
            }
            Longer::Cut if data.len() >= room => break,
            Longer::Refused | Longer::Cut => {}
        }
    }
    Ok(Response::from_parts(head, body.into()))
}

/// The beginning of what somebody says, on one line: at most so many characters, and a sign where
/// there is more.
pub fn shown(text: &str, characters_max: usize) -> String {
    let (text, plain) = (text.trim(), |c: char| if c.is_control() { ' ' } else { c });
    let more = text.chars().nth(characters_max).map(|_| '…');
    text.chars().take(characters_max).map(plain).chain(more).collect()
}

#[cfg(test)]
mod tests {
    use http_body_util::Empty;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMITS: Limits =
        Limits { head_bytes_max: 8 * 1024, body_bytes_max: 10, longer: Longer::Refused };

    /// What is made of a peer that reads a request and says this, then closes or not.
    async fn answer_to(said: &str, closes: bool, limits: Limits) -> Result<String, String> {
        let (ours, mut theirs) = duplex(1 << 20);
        let said = said.to_owned();
        let peer = tokio::spawn(async move {
            let mut asked = [0; 15];
            theirs.read_exact(&mut asked).await.unwrap();
            assert_eq!(&asked, b"GET /x HTTP/1.1");
            theirs.write_all(said.as_bytes()).await.unwrap();
            if !closes {
                std::future::pending::<()>().await;
            }
        });
        let request = Request::get("/x").header("host", "a.test").body(Empty::<Bytes>::new());
        let answer = exchange(ours, request.unwrap(), limits).await;
        peer.abort();
        let answer = answer.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(answer.body()).into_owned())
    }

    #[test]
    fn words_are_shown_on_one_line_up_to_their_limit() {
        assert_eq!(shown(" a\nb\r\n", 3), "a b");
        assert_eq!(shown("üüüü", 3), "üüü…");
        assert_eq!(shown("abc", 3), "abc");
    }

    #[tokio::test]
    async fn an_answer_is_read_whole_whether_the_peer_closes_or_not() {
        let sized = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n0123456789";
        let chunked = "HTTP/1.1 404 No\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n";
        for closes in [false, true] {
            assert_eq!(answer_to(sized, closes, LIMITS).await.unwrap(), "0123456789");
            assert_eq!(answer_to(chunked, closes, LIMITS).await.unwrap(), "ab");
        }
        let torn = answer_to(&sized[..45], true, LIMITS).await.unwrap_err();
        assert_eq!(torn, "200 OK, then no valid HTTP answer");
    }

    #[tokio::test]
    async fn a_longer_body_is_refused_or_cut() {
        let cut = Limits { longer: Longer::Cut, ..LIMITS };
        for head in ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\ncontent-length: 12"] {
            let longer = format!("{head}\r\n\r\n0123456789ab");
            let refused = answer_to(&longer, false, LIMITS).await.unwrap_err();
            assert_eq!(refused, "the answer is larger than 10 bytes");
            assert_eq!(answer_to(&longer, false, cut).await.unwrap(), "0123456789");
        }
        let full = "HTTP/1.1 200 OK\r\n\r\n0123456789";
        assert_eq!(answer_to(full, false, cut).await.unwrap(), "0123456789", "no need to wait");
    }

    #[tokio::test]
    async fn what_is_none_and_a_head_without_end_are_no_answer() {
        let endless = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(20_000));
        for (said, closes) in [(endless.as_str(), false), ("SSH-2.0-x\r\n", false), ("", true)] {
            let refused = answer_to(said, closes, LIMITS).await.unwrap_err();
            assert_eq!(refused, "no valid HTTP answer", "{said:.10}");
        }
    }
}
