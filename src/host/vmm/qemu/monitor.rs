//! QMP with files passed along, which the library has no way to do: a line of JSON each way.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// The longest answer to what is asked here has some thousand bytes.
const MAX_LINE: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Monitor {
    stream: UnixStream,
    held: Vec<u8>,
    /// `7.2.22`
    pub(super) version: String,
}

impl Monitor {
    pub(super) async fn open(stream: UnixStream) -> io::Result<Self> {
        let mut monitor = Self { stream, held: vec![], version: String::new() };
        let greeting = monitor.line().await?;
        let version = &greeting["QMP"]["version"]["qemu"];
        let part = |name: &str| version[name].as_u64();
        let (Some(major), Some(minor), Some(micro)) = (part("major"), part("minor"), part("micro"))
        else {
            return Err(nonsense(&greeting));
        };
        monitor.version = format!("{major}.{minor}.{micro}");
        monitor.execute("qmp_capabilities", json!({})).await?;
        Ok(monitor)
    }

    /// The answer. A refusal is an error with QEMU's own words.
    pub(super) async fn execute(&mut self, command: &str, arguments: Value) -> io::Result<Value> {
        self.stream.write_all(&request(command, &arguments)).await?;
        self.answer().await
    }

    /// Gives QEMU a file, to be spoken of as `fd:<name>` on this connection.
    pub(super) async fn give(&mut self, name: &str, file: impl AsFd) -> io::Result<()> {
        let bytes = request("getfd", &json!({ "fdname": name }));
        let send = || send_with(self.stream.as_fd(), &bytes, file.as_fd());
        let sent = self.stream.async_io(Interest::WRITABLE, send).await?;
        self.stream.write_all(&bytes[sent..]).await?;
        self.answer().await.map(drop)
    }

    async fn answer(&mut self) -> io::Result<Value> {
        loop {
            let mut line = self.line().await?;
            if let Some(error) = line.get("error") {
                let words = error["desc"].as_str().unwrap_or("refused without a word");
                return Err(io::Error::other(words.to_owned()));
            }
            if let Some(answer) = line.get_mut("return") {
                return Ok(answer.take());
            }
            if line.get("event").is_none() {
                return Err(nonsense(&line));
            }
        }
    }

    async fn line(&mut self) -> io::Result<Value> {
        loop {
            if let Some(end) = self.held.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.held.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(io::Error::from);
            }
            if self.held.len() > MAX_LINE {
                return Err(io::Error::other("a line without an end"));
            }
            if self.stream.read_buf(&mut self.held).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "QEMU hung up"));
            }
        }
    }
}

fn request(command: &str, arguments: &Value) -> Vec<u8> {
    let mut bytes = json!({ "execute": command, "arguments": arguments }).to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

fn send_with(socket: BorrowedFd<'_>, bytes: &[u8], file: BorrowedFd<'_>) -> io::Result<usize> {
    let files = [file];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&files)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    let parts = [io::IoSlice::new(bytes)];
    Ok(sendmsg(socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?)
}

fn nonsense(said: &Value) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not QMP: {said}"))
}
