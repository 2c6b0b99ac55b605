//! The host's end of `contract::lane`: one program over a socket of the VMM's own, without SSH.
//!
//! Behind QEMU's socket is a port, which serves one client and lets the next one wait without a word,
//! so a client first takes a lock on the socket's directory. Whoever finds it taken goes by SSH.
//! Behind Firecracker's is vsock, which has room for all.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use banger_agent::contract::exec::{self, ExecRequest};
use banger_agent::contract::lane::{
    self, Greeting, GuestKind, HEADER_BYTES, HostKind, LaneError, NONCE_BYTES, WINDOW, greeting,
};
use bytes::BytesMut;
use rustix::fs::FlockOperation;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::line::call_vsock;
use super::ssh::{Control, ExitKind, GuestError, GuestIo};

/// An agent that lives says the greeting back within milliseconds, on a very busy host within
/// tenths of a second.
const GREETING_LIMIT: Duration = Duration::from_secs(2);
const CHUNK: usize = 64 << 10;

/// The lane of one guest, taken until it is dropped. Dropping it hangs up whatever runs over it.
#[derive(Debug)]
pub struct Lane {
    stream: UnixStream,
    socket: PathBuf,
    /// Of a port. The kernel takes the lock back when this process ends, however it does.
    _lock: Option<File>,
}

impl Lane {
    /// By the port behind `socket`. Fails at once if somebody else has it, and soon if the guest does
    /// not answer; nothing was asked of the guest then.
    pub async fn take(socket: &Path) -> io::Result<Self> {
        let lock = File::open(socket.parent().unwrap_or_else(|| Path::new("/")))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        let greeting = new_greeting()?;
        let greeted = async {
            let mut stream = UnixStream::connect(socket).await?;
            stream.write_all(&greeting).await?;
            hear(&mut stream, &greeting).await.map(|()| stream)
        };
        let stream = timeout(GREETING_LIMIT, greeted).await??;
        Ok(Self { stream, socket: socket.to_owned(), _lock: Some(lock) })
    }

    /// By Firecracker's vsock `socket`. Fails at once if the guest has no lane there, and soon if
    /// nobody answers; nothing was asked of the guest then.
    pub async fn dial(socket: &Path) -> io::Result<Self> {
        let greeting = new_greeting()?;
        let greeted = async {
            let mut stream = call_vsock(socket, lane::VSOCK_PORT, &greeting).await?;
            hear(&mut stream, &greeting).await.map(|()| stream)
        };
        let stream = timeout(GREETING_LIMIT, greeted).await??;
        Ok(Self { stream, socket: socket.to_owned(), _lock: None })
    }

    /// Ends when the program has ended and all it wrote is written. `controls` may be closed;
    /// sizes of terminals mean nothing here.
    pub async fn exec<I, O, E>(
        &mut self,
        request: &ExecRequest,
        io: GuestIo<I, O, E>,
        controls: mpsc::Receiver<Control>,
    ) -> Result<ExitKind, GuestError>
    where
        I: AsyncRead + Unpin,
        O: AsyncWrite + Unpin,
        E: AsyncWrite + Unpin,
    {
        let request = exec::encode(request).map_err(GuestError::Request)?;
        let lost = Lost { target: self.socket.display().to_string() };
        let request =
            lane::frame(HostKind::Request, &request).map_err(|error| lost.nonsense(error))?;
        self.stream.write_all(&request).await.map_err(|error| lost.broken(error))?;
        let credit = Semaphore::new(WINDOW as usize);
        let (from, to) = self.stream.split();
        let output =
            collect(Frames { from, heard: BytesMut::new() }, io.stdout, io.stderr, &credit, &lost);
        let input = feed(to, io.stdin, controls, &credit);
        tokio::pin!(output, input);
        tokio::select! {
            ended = &mut output => return ended,
            fed = &mut input => fed.map_err(GuestError::Input)?,
        }
        output.await
    }
}

/// Carries input, as far as it was granted, and controls; ends when neither is left. That the
/// guest takes no more is no error: the output tells how it ended.
async fn feed<I: AsyncRead + Unpin>(
    mut to: WriteHalf<'_>,
    mut stdin: I,
    mut controls: mpsc::Receiver<Control>,
    credit: &Semaphore,
) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    let (mut reading, mut steering) = (true, true);
    while reading || steering {
        let frame = tokio::select! {
            read = read_granted(&mut stdin, &mut buffer, credit), if reading => match read? {
                0 => {
                    reading = false;
                    lane::frame(HostKind::End, &[])
                }
                _ => lane::frame(HostKind::Data, &buffer.split()),
            },
            control = controls.recv(), if steering => match control {
                Some(Control::Signal(name)) => lane::frame(HostKind::Signal, name.as_bytes()),
                Some(Control::Resize { .. }) => continue,
                None => {
                    steering = false;
                    continue;
                }
            },
        };
        let Ok(frame) = frame else { return Ok(()) };
        if to.write_all(&frame).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Cancel-safe: what was not read is not taken from the credit.
async fn read_granted<I: AsyncRead + Unpin>(
    stdin: &mut I,
    buffer: &mut BytesMut,
    credit: &Semaphore,
) -> io::Result<usize> {
    let Ok(first) = credit.acquire().await else { return Ok(0) }; // it is never closed
    let room = CHUNK.min(1 + credit.available_permits());
    buffer.reserve(room);
    let read = stdin.take(room as u64).read_buf(buffer).await?;
    if read > 0 {
        first.forget();
        credit.forget_permits(read - 1);
    }
    Ok(read)
}

async fn collect<O, E>(
    mut frames: Frames<'_>,
    mut stdout: O,
    mut stderr: E,
    credit: &Semaphore,
    lost: &Lost,
) -> Result<ExitKind, GuestError>
where
    O: AsyncWrite + Unpin,
    E: AsyncWrite + Unpin,
{
    loop {
        // Flushed when nothing more is at hand: at once for one line, not for each piece of a long
        // output.
        if !frames.at_hand() {
            stdout.flush().await.map_err(GuestError::writing)?;
            stderr.flush().await.map_err(GuestError::writing)?;
        }
        let (kind, payload) = frames.next(lost).await?;
        match kind {
            GuestKind::Out => stdout.write_all(&payload).await.map_err(GuestError::writing)?,
            GuestKind::Err => stderr.write_all(&payload).await.map_err(GuestError::writing)?,
            GuestKind::Grant => credit.add_permits(lane::number(&payload).unwrap_or(0) as usize),
            GuestKind::Exit | GuestKind::Died => {
                stdout.flush().await.map_err(GuestError::writing)?;
                stderr.flush().await.map_err(GuestError::writing)?;
                // POSIX passes the low eight bits only.
                let code = || lane::number(&payload).unwrap_or(u32::MAX).to_le_bytes()[0];
                return Ok(match kind {
                    GuestKind::Died => {
                        ExitKind::Signal(String::from_utf8_lossy(&payload).into_owned())
                    }
                    _ => ExitKind::Code(code()),
                });
            }
        }
    }
}

struct Frames<'a> {
    from: ReadHalf<'a>,
    heard: BytesMut,
}

impl Frames<'_> {
    fn at_hand(&self) -> bool {
        lane::first_frame(&self.heard)
            .is_ok_and(|first| first.is_some_and(|n| n <= self.heard.len()))
    }

    async fn next(&mut self, lost: &Lost) -> Result<(GuestKind, BytesMut), GuestError> {
        loop {
            let first = lane::first_frame(&self.heard).map_err(|error| lost.nonsense(error))?;
            if let Some(length) = first.filter(|length| *length <= self.heard.len()) {
                let mut frame = self.heard.split_to(length);
                let payload = frame.split_off(HEADER_BYTES);
                let kind = GuestKind::try_from(frame[0]).map_err(|error| lost.nonsense(error))?;
                return Ok((kind, payload));
            }
            self.heard.reserve(CHUNK);
            match self.from.read_buf(&mut self.heard).await {
                Ok(0) => return Err(lost.broken(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => return Err(lost.broken(error)),
            }
        }
    }
}

struct Lost {
    target: String,
}

impl Lost {
    fn broken(&self, source: io::Error) -> GuestError {
        let source = Some(source.into());
        GuestError::Lost { target: self.target.clone(), during: "the program ran", source }
    }

    fn nonsense(&self, error: LaneError) -> GuestError {
        self.broken(io::Error::other(error))
    }
}

fn new_greeting() -> io::Result<Greeting> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(greeting(nonce))
}

/// Reads up to the end of `wanted` and not a byte more, dropping what comes before it.
async fn hear(from: &mut (impl AsyncRead + Unpin), wanted: &Greeting) -> io::Result<()> {
    let mut heard = Vec::with_capacity(wanted.len());
    while heard.len() < wanted.len() {
        let mut more = [0; size_of::<Greeting>()];
        let (room, _) = more.split_at_mut(wanted.len() - heard.len());
        let length = from.read(room).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        heard.extend_from_slice(&room[..length]);
        // What is heard can only be of use as far as its end begins the greeting.
        while !wanted.starts_with(&heard) {
            heard.remove(0);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
