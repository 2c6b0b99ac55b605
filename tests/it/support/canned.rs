//! A daemon that says what it was told to say: for what the CLI does with an answer, however
//! unlikely. What the real daemon answers is tested with `bangerd --sim`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use banger::wire::frame::{FrameError, Frames};
use banger::wire::hello::{DAEMON, Protocol};
use banger::wire::reply::Reply;
use banger::wire::request::{Envelope, Request};
use tokio::net::{UnixListener, UnixStream};

const LIMIT: Duration = Duration::from_secs(20);

/// What the daemon does about one request.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    Reply(Reply),
    /// Goes on when a request that fits has come, on whichever connection.
    Await(fn(&Request) -> bool),
    /// Ends the connection.
    HangUp,
    /// Says nothing more.
    Silence,
}

type Script = dyn Fn(&Envelope) -> Vec<Say> + Send + Sync;
type Seen = Arc<(Mutex<Vec<Envelope>>, Condvar)>;

pub(crate) struct Canned {
    dir: tempfile::TempDir,
    seen: Seen,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Canned {
    pub(crate) fn new(script: impl Fn(&Envelope) -> Vec<Say> + Send + Sync + 'static) -> Self {
        Self::speaking(DAEMON, script)
    }

    pub(crate) fn speaking(
        protocol: Protocol,
        script: impl Fn(&Envelope) -> Vec<Say> + Send + Sync + 'static,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let seen = Seen::default();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let socket = socket_in(dir.path());
        let (script, theirs): (Arc<Script>, _) = (Arc::new(script), Arc::clone(&seen));
        let (listening, ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = UnixListener::bind(socket).unwrap();
                listening.send(()).unwrap();
                let serve = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        let (script, seen) = (Arc::clone(&script), Arc::clone(&theirs));
                        tokio::spawn(async move {
                            drop(converse(stream, protocol, &*script, &seen).await);
                        });
                    }
                };
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        });
        ready.recv().unwrap();
        Self { dir, seen, stop: Some(stop), thread: Some(thread) }
    }

    /// The same replies to everything.
    pub(crate) fn always(replies: Vec<Reply>) -> Self {
        Self::new(move |_| replies.iter().cloned().map(Say::Reply).collect())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.dir.path())
    }

    /// Every request so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.envelopes().into_iter().map(|envelope| envelope.request).collect()
    }

    pub(crate) fn envelopes(&self) -> Vec<Envelope> {
        self.seen.0.lock().unwrap().clone()
    }

    /// Waits for a request that fits.
    pub(crate) fn wait_for(&self, fits: impl Fn(&Request) -> bool) {
        let (lock, changed) = &*self.seen;
        let missing = |seen: &mut Vec<Envelope>| !seen.iter().any(|e| fits(&e.request));
        let (seen, late) =
            changed.wait_timeout_while(lock.lock().unwrap(), LIMIT, missing).unwrap();
        assert!(!late.timed_out(), "no such request among {:?}", *seen);
    }
}

impl Drop for Canned {
    fn drop(&mut self) {
        drop(self.stop.take());
        drop(self.thread.take().map(std::thread::JoinHandle::join));
    }
}

fn socket_in(dir: &Path) -> PathBuf {
    dir.join("bangerd.sock")
}

async fn converse(
    stream: UnixStream,
    protocol: Protocol,
    script: &Script,
    seen: &Seen,
) -> Result<(), FrameError> {
    let mut frames = Frames::accept(stream, protocol, LIMIT).await?;
    while let Some(envelope) = frames.receive::<Envelope>().await? {
        seen.0.lock().unwrap().push(envelope.clone());
        seen.1.notify_all();
        for say in script(&envelope) {
            match say {
                Say::Reply(reply) => frames.send(&reply).await?,
                Say::HangUp => return Ok(()),
                Say::Silence => std::future::pending().await,
                Say::Await(fits) => {
                    while !seen.0.lock().unwrap().iter().any(|e| fits(&e.request)) {
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                }
            }
        }
    }
    Ok(())
}
