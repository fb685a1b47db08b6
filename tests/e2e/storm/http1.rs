//! A client of HTTP/1.1 that can take its time, and says at which point an answer was lost.

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// The class of a lost request, and what there is to say of it.
#[derive(Debug)]
pub(super) struct Lost(pub(super) String);

impl Lost {
    pub(super) fn because(class: &str, why: impl Display) -> Self {
        Self(format!("{class}: {why}"))
    }
}

/// How the body of an answer ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
    /// No body, or whatever comes after an upgrade.
    None,
}

pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    served: u32,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> Result<Self, Lost> {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| Lost::because("connect", error))?;
        let _ = stream.set_nodelay(true);
        Ok(Self { stream: BufReader::new(stream), served: 0 })
    }

    /// Whether the other side has neither closed it nor said a word out of turn.
    pub(super) fn is_open(&self) -> bool {
        let read = self.stream.get_ref().try_read(&mut [0]);
        self.stream.buffer().is_empty()
            && read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    fn before_byte(&self, error: impl Display) -> Lost {
        let class = if self.served > 0 { "reused before a byte" } else { "before a byte" };
        Lost::because(class, error)
    }

    pub(super) async fn write(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Lost> {
        let written = self.stream.write_all(bytes.as_ref()).await;
        written.map_err(|error| self.before_byte(error))
    }

    /// Reads a head; its status has to be this one.
    pub(super) async fn head(&mut self, status: u16) -> Result<Framing, Lost> {
        let first = self.line().await.map_err(|lost| self.before_byte(lost.0))?;
        let (mut framing, mut head) = (Framing::None, first);
        loop {
            let line = self.line().await?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", length)) => {
                    framing = Framing::Length(length.parse().unwrap_or_default());
                }
                Some(("transfer-encoding", _)) => framing = Framing::Chunked,
                Some(("connection", "close")) => {
                    return Err(Lost::because("told to close", &head));
                }
                Some(_) => {}
                None if line.is_empty() => break,
                None => return Err(Lost::because("malformed", line)),
            }
            head.push_str(&line);
        }
        if head.get(9..12) != Some(&status.to_string()) {
            return Err(Lost::because("status", head));
        }
        Ok(framing)
    }

    /// Reads an answer of status 200 to its end: the body and, after a line's end, the trailers.
    pub(super) async fn answer(&mut self) -> Result<String, Lost> {
        let mut body = String::new();
        match self.head(200).await? {
            Framing::Length(length) => {
                let mut bytes = vec![0; length];
                let read = self.stream.read_exact(&mut bytes).await;
                read.map_err(|error| Lost::because("mid-response", error))?;
                body = String::from_utf8_lossy(&bytes).into_owned();
            }
            Framing::Chunked => {
                while let Some(chunk) = self.chunk().await? {
                    body.push_str(&chunk);
                }
                loop {
                    let trailer = self.line().await?;
                    if trailer.is_empty() {
                        break;
                    }
                    body.push('\n');
                    body.push_str(&trailer);
                }
            }
            Framing::None => {}
        }
        self.served += 1;
        Ok(body)
    }

    /// The next chunk; `None` after the last one.
    pub(super) async fn chunk(&mut self) -> Result<Option<String>, Lost> {
        let size = self.line().await?;
        let size = usize::from_str_radix(&size, 16);
        let size = size.map_err(|error| Lost::because("malformed", error))?;
        if size == 0 {
            return Ok(None);
        }
        let mut bytes = vec![0; size + 2];
        let read = self.stream.read_exact(&mut bytes).await;
        read.map_err(|error| Lost::because("mid-response", error))?;
        bytes.truncate(size);
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Sends a word into a tunnel, and has it back.
    pub(super) async fn echo(&mut self, word: &str) -> Result<(), Lost> {
        self.write(word).await?;
        let mut back = vec![0; word.len()];
        let read = self.stream.read_exact(&mut back).await;
        read.map_err(|error| Lost::because("mid-tunnel", error))?;
        if back != word.as_bytes() {
            return Err(Lost::because("another echo", String::from_utf8_lossy(&back)));
        }
        Ok(())
    }

    /// Ends a tunnel, and waits until the other side has done so too.
    pub(super) async fn hang_up(mut self) -> Result<(), Lost> {
        let ended = async {
            self.stream.get_mut().shutdown().await?;
            self.stream.read_to_end(&mut Vec::new()).await
        };
        ended.await.map(drop).map_err(|error| Lost::because("mid-tunnel", error))
    }

    /// Reads until there is no more, however that comes about.
    pub(super) async fn drain(mut self) {
        let _ = self.stream.read_to_end(&mut Vec::new()).await;
    }

    /// A line without its end.
    async fn line(&mut self) -> Result<String, Lost> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await;
        read.map_err(|error| Lost::because("mid-response", error))?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(Lost::because("mid-response", "the connection was closed")),
        }
    }
}
