//! A successor that gives up halfway, for the tests of failed upgrades: it speaks the handover's
//! words up to a point, then ends or falls silent. `half_successor STAGE --state-dir DIR ...`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let directory = arguments.iter().skip_while(|word| *word != "--state-dir").nth(1);
    let directory = PathBuf::from(directory.ok_or(io::ErrorKind::InvalidInput)?);
    let stage = arguments.first().map_or("", String::as_str);
    let path = switchback_domain::socket_path(&directory, "handover");
    let mut stream = UnixStream::connect(path)?;
    let protocol = if stage == "protocol" { 99 } else { 1 };
    say(&mut stream, &format!(r#"{{"Hello":{{"protocol":{protocol},"version":"9.9.9"}}}}"#))?;
    let mut word = hear(&mut stream)?;
    if word.contains("Offer") && stage != "offer" {
        word = hear(&mut stream)?;
        say(&mut stream, if stage == "garbage" { "{]" } else { "\"Ready\"" })?;
        if stage != "ready" {
            word = hear(&mut stream)?;
        }
    }
    if stage == "silent" {
        // Longer than anybody waits for the last word; whoever waited ends this process.
        loop {
            std::thread::park();
        }
    }
    // What the process that runs has said last.
    Err(io::Error::other(format!("gave up after {word:.200}")))
}

fn say(stream: &mut UnixStream, word: &str) -> io::Result<()> {
    let length = u32::try_from(word.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(word.as_bytes())
}

/// Descriptors that come along are closed by the kernel when nobody asks for them.
fn hear(stream: &mut UnixStream) -> io::Result<String> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut word = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut word)?;
    String::from_utf8(word).map_err(io::Error::other)
}
