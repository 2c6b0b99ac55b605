//! The port: one client after the other.
//!
//! ```text
//! thread   waits for a greeting, says it back ──port──> runtime: one session over it
//!                ^                                            |
//!                `── the session has ended, perhaps with the next greeting in hand ──'
//! ```
//!
//! The waiting is a thread's, because a port whose host is away reports a hang-up that never ends,
//! which an async reactor takes for final. For a session that is right: it ends with it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use banger_agent::contract::lane::{self, Greeting, PORT_NAME};
use nix::poll::poll;
use nix::sys::epoll::{Epoll, EpollEvent, EpollTimeout};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{mpsc, oneshot};

use crate::{log, port};

/// How long a greeting waits to be taken, and how often it is offered.
const SAY_LIMIT: Duration = Duration::from_secs(1);
const SAY_AGAIN: u8 = 1; // ms

/// A client that was greeted, for the runtime to take in.
#[derive(Debug)]
pub(in crate::ssh) struct Greeted {
    port: File,
    done: oneshot::Sender<Next>,
}

/// What a session leaves to the thread: the greeting that ended it, if one did.
type Next = Option<Greeting>;

/// The clients as they come; `None` if the VMM has no such port.
pub(in crate::ssh) fn open() -> Option<mpsc::Receiver<Greeted>> {
    let port = port::open(PORT_NAME).ok()?;
    let epoll = port::watch(&port).ok()?;
    let (clients, queue) = mpsc::channel(1);
    let run = move || {
        if let Err(error) = serve(&port, &epoll, &clients) {
            log::line(format_args!("lane: {error}"));
        }
    };
    std::thread::Builder::new().name("lane".into()).spawn(run).ok()?;
    Some(queue)
}

fn serve(port: &File, epoll: &Epoll, clients: &mpsc::Sender<Greeted>) -> io::Result<()> {
    let mut next = None;
    loop {
        let greeting = match next.take() {
            Some(greeting) => greeting,
            None => await_greeting(port, epoll)?,
        };
        if !say(port, &greeting) {
            continue; // the client has gone; it greets again if it comes back
        }
        let (done, ended) = oneshot::channel();
        let port = port.try_clone()?;
        if clients.blocking_send(Greeted { port, done }).is_err() {
            return Ok(()); // the runtime ends, and the machine with it
        }
        next = ended.blocking_recv().unwrap_or_default();
    }
}

/// Drops everything else.
fn await_greeting(mut port: &File, epoll: &Epoll) -> io::Result<Greeting> {
    let mut buffer = [0; 4096];
    loop {
        match port.read(&mut buffer) {
            // Nobody is there, or nothing is said: until that changes.
            Ok(0) => wait(epoll),
            Ok(length) => {
                let heard = buffer.get(..length).unwrap_or_default();
                if let Some(greeting) = lane::as_greeting(heard) {
                    return Ok(greeting);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait(epoll),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// That the host is there may be known a moment after what it said.
fn say(mut port: &File, greeting: &Greeting) -> bool {
    let end = Instant::now() + SAY_LIMIT;
    loop {
        match port.write(greeting) {
            Ok(length) => return length == greeting.len(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < end => {
                let _ = poll(&mut [], SAY_AGAIN);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

fn wait(epoll: &Epoll) {
    let _ = epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::NONE);
}

impl Greeted {
    pub(in crate::ssh) fn enter(self) -> io::Result<PortStream> {
        let Self { port, done } = self;
        Ok(PortStream { port: register(port)?, next: None, done: Some(done) })
    }
}

fn register(port: File) -> io::Result<AsyncFd<File>> {
    // SAFETY: a File always gives the same descriptor, open for as long as it lives.
    #[allow(unsafe_code, reason = "registers a descriptor with the reactor")]
    Ok(unsafe { AsyncFd::register(port) }?)
}

/// The port as one session sees it: it ends when the host leaves, or greets anew.
#[derive(Debug)]
pub(in crate::ssh) struct PortStream {
    port: AsyncFd<File>,
    next: Next,
    done: Option<oneshot::Sender<Next>>,
}

impl Drop for PortStream {
    fn drop(&mut self) {
        if let Some(done) = self.done.take() {
            let _ = done.send(self.next);
        }
    }
}

impl AsyncRead for PortStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.next.is_some() {
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
        loop {
            let mut ready = ready!(this.port.poll_read_ready(cx))?;
            let room = buffer.initialize_unfilled();
            match ready.try_io(|port| port.get_ref().read(room)) {
                Ok(Ok(length)) => {
                    // A greeting is the beginning of what its client says, and so of a read.
                    this.next = lane::as_greeting(room.get(..length).unwrap_or_default());
                    if this.next.is_none() {
                        buffer.advance(length);
                    }
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for PortStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.port.poll_write_ready(cx))?;
            // A hang-up is for good, and a port that nobody holds never takes anything.
            if ready.ready().is_write_closed() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            match ready.try_io(|port| port.get_ref().write(data)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
