//! Frames on a Unix socket: a length, a JSON document, and file descriptors that travel with it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

use crate::limits::TABLE_BYTES_MAX;

/// Descriptors in one frame: the kernel takes up to 253.
pub(super) const DESCRIPTORS_MAX: usize = 128;
/// A table, and counts of as many versions as it may name.
const FRAME_BYTES_MAX: usize = 4 * TABLE_BYTES_MAX;
/// Bytes of a frame's length.
const HEAD: usize = 4;
/// Read at once.
const PIECE: usize = 64 * 1024;
/// Pause while more descriptors are on their way than the kernel allows a user.
const CROWDED_PAUSE: Duration = Duration::from_millis(1);

/// The end that is read.
#[derive(Debug)]
pub(super) struct Reader {
    stream: Rc<UnixStream>,
    /// Of the present frame, its length first.
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// The end that is written.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    stream: Rc<UnixStream>,
}

/// Both ends of a connection.
pub(super) fn ends(stream: UnixStream) -> (Reader, Writer) {
    let stream = Rc::new(stream);
    let reader = Reader { stream: Rc::clone(&stream), bytes: Vec::new(), descriptors: Vec::new() };
    (reader, Writer { stream })
}

impl Writer {
    /// Sends one frame. Dropped halfway, it leaves a connection that is of no more use.
    pub(super) async fn send(
        &self,
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut frame = vec![0; HEAD];
        serde_json::to_writer(&mut frame, message)?;
        let length = u32::try_from(frame.len() - HEAD).map_err(io::Error::other)?;
        frame[..HEAD].copy_from_slice(&length.to_be_bytes());
        let (mut rest, mut descriptors) = (&frame[..], descriptors);
        while !rest.is_empty() {
            let send = || send_some(&self.stream, rest, descriptors).map_err(io::Error::from);
            match self.stream.async_io(Interest::WRITABLE, send).await {
                Ok(count) => (rest, descriptors) = (&rest[count..], &[]),
                Err(error) if error.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error()) => {
                    tokio::time::sleep(CROWDED_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Writer {
    /// Says that nothing more will be sent.
    pub(super) fn end(&self) {
        // It may be gone.
        let _ = rustix::net::shutdown(&*self.stream, rustix::net::Shutdown::Write);
    }
}

fn send_some(
    stream: &UnixStream,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::INVAL);
    }
    sendmsg(stream, &[IoSlice::new(bytes)], &mut beside, SendFlags::NOSIGNAL)
}

impl Reader {
    /// Receives one frame. Dropped halfway, it goes on where it was.
    pub(super) async fn receive<M: DeserializeOwned>(&mut self) -> io::Result<(M, Vec<OwnedFd>)> {
        loop {
            let wanted = self.wanted()?;
            if wanted == 0 {
                let message = serde_json::from_slice(&self.bytes[HEAD..])?;
                self.bytes.clear();
                return Ok((message, std::mem::take(&mut self.descriptors)));
            }
            let stream = Rc::clone(&self.stream);
            // Never past the frame: descriptors belong to the bytes that they came with.
            let receive = || self.receive_some(wanted.min(PIECE));
            if stream.async_io(Interest::READABLE, receive).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// How many bytes of the present frame are missing, as far as that is known.
    fn wanted(&self) -> io::Result<usize> {
        let Some(head) = self.bytes.first_chunk::<HEAD>() else {
            return Ok(HEAD - self.bytes.len());
        };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            let reason = format!("a frame of {length} bytes is none");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        Ok(HEAD + length - self.bytes.len().min(HEAD + length))
    }

    fn receive_some(&mut self, count: usize) -> io::Result<usize> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let start = self.bytes.len();
        self.bytes.resize(start + count, 0);
        let mut room = [IoSliceMut::new(&mut self.bytes[start..])];
        let received = recvmsg(&*self.stream, &mut room, &mut beside, RecvFlags::CMSG_CLOEXEC);
        self.bytes.truncate(start + received.as_ref().map_or(0, |received| received.bytes));
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                self.descriptors.extend(descriptors);
            }
        }
        let received = received?;
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("no room for descriptors"));
        }
        Ok(received.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn frames_keep_their_descriptors_also_when_they_are_large_and_close_together() {
        let (one, other) = UnixStream::pair().unwrap();
        let ((_, writer), (mut reader, _)) = (ends(one), ends(other));
        let file = std::fs::File::open("/dev/null").unwrap();
        let large = "x".repeat(1_000_000);
        let sending = async {
            for count in [0, 3, 0, DESCRIPTORS_MAX, 1] {
                let descriptors = vec![file.as_fd(); count];
                writer.send(&(count, &large), &descriptors).await.unwrap();
            }
        };
        let receiving = async {
            for expected in [0, 3, 0, DESCRIPTORS_MAX, 1] {
                let ((count, text), descriptors): ((usize, String), _) =
                    reader.receive().await.unwrap();
                assert_eq!((count, descriptors.len()), (expected, expected));
                assert_eq!(text.len(), large.len());
            }
        };
        tokio::join!(sending, receiving);
        drop(writer);
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_is_no_frame_is_an_error_and_no_panic() {
        for bytes in [&b"\xff\xff\xff\xff"[..], b"\0\0\0\x02{", b"\0\0\0\x01x", b"\0"] {
            let (mut one, other) = UnixStream::pair().unwrap();
            one.write_all(bytes).await.unwrap();
            drop(one);
            let (mut reader, _) = ends(other);
            assert!(reader.receive::<String>().await.is_err(), "{bytes:?}");
        }
    }
}
