//! One blob comes into the cache, however often the network breaks.
//!
//! ```text
//! lock ─> whole? ─ no ─> [ ask for what is missing ─> bytes to disk, hashed ]*  ─> digest right? ─> whole
//!                            ^                 └ broke: wait, go on there     └ wrong: begin again
//! ```
//!
//! What came is kept at every break, and with the daemon's end. Nothing that a server says of lengths
//! and ranges is relied on: the size of the descriptor ends the reading, the digest decides.

use std::io;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc};

use super::cache::{Cache, Partial, Published};
use super::client::Registry;
use super::http::{Body, Part};
use super::meter::Meter;
use super::trouble::{Patience, Tries, Trouble};
use super::web::Web;
use crate::host::files::blocking;
use crate::model::{Code, Digest};
use crate::ports::{HostError, ProgressSink};

/// Of a blob whose bytes came and were not right.
const WRONG_TRIES: u32 = 5;
/// Less is no success that more tries are granted for.
const WORTH: u64 = 4 << 10;
/// What must come in twice the time that silence is borne for, or it counts as broken.
const PACE: u64 = 64 << 10;
/// Chunks between network and disk.
const QUEUE: usize = 16;

pub(super) struct Fetch<'a> {
    pub(super) from: Origin<'a>,
    pub(super) cache: &'a Cache,
    /// What it belongs to, in messages.
    pub(super) object: &'a str,
    /// As its beginning is called in messages: `pull a layer of`.
    pub(super) what: &'static str,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) patience: Patience,
    /// How many of all pulls may come at one time.
    pub(super) lanes: &'a Semaphore,
    pub(super) progress: &'a ProgressSink,
}

/// Where it comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    Registry(&'a Registry),
    Web(&'a Web),
}

impl Origin<'_> {
    async fn part(self, digest: Digest, offset: u64) -> Result<Part, Trouble> {
        match self {
            Self::Registry(registry) => registry.blob(digest, offset).await,
            Self::Web(web) => web.part(offset).await,
        }
    }
}

/// How an attempt ended.
enum Came {
    All,
    /// Not from there on; from its beginning it may.
    NoRange,
}

impl Fetch<'_> {
    pub(super) async fn run(&self, meter: &mut Meter) -> Result<(), HostError> {
        let lock = self.cache.lock(self.digest).await;
        if self.is_there().await? {
            meter.whole();
            return Ok(());
        }
        let _lane = self.lanes.acquire().await; // never closed
        let (cache, digest, size) = (self.cache.clone(), self.digest, self.size);
        let begin = move |lock| {
            let mut partial = cache.continue_blob(digest, lock)?;
            if partial.len() > size {
                partial.start_over()?;
            }
            Ok(partial)
        };
        let again = begin.clone();
        let mut partial = self.on_disk(move || begin(lock)).await?;
        meter.begin(partial.len());
        let (mut tries, mut wrong, mut ranged) = (Tries::new(self.patience), 0, true);
        loop {
            let before = partial.len();
            let trouble;
            (partial, trouble) = match self.attempt(partial, ranged, meter).await? {
                (partial, Ok(Came::NoRange)) => {
                    ranged = false;
                    (partial, None)
                }
                (partial, Err(trouble)) => {
                    if partial.len() >= before + WORTH {
                        tries.renew();
                    }
                    (partial, Some(trouble))
                }
                (partial, Ok(Came::All)) => match self.on_disk(move || partial.publish()).await? {
                    Published::Whole => {
                        meter.whole();
                        return Ok(());
                    }
                    Published::Wrong(lock) => {
                        wrong += 1;
                        let error = self.error(Code::Corrupt);
                        let error =
                            error.because(format!("what came is not sha256:{}", self.digest));
                        if wrong >= WRONG_TRIES {
                            return Err(error);
                        }
                        let again = again.clone();
                        let partial = self.on_disk(move || again(lock)).await?;
                        (partial, Some(Trouble::passing(error)))
                    }
                },
            };
            if let Some(trouble) = trouble {
                let (pause, error) = tries.after(trouble)?;
                let why = crate::model::chain(&error);
                tracing::info!(digest = %self.digest, ?pause, %why, "a blob is tried again");
                (self.progress)(format!("{}: {why}; trying again", short(self.digest)));
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Whether all of it is in the cache, and as long as it should be.
    async fn is_there(&self) -> Result<bool, HostError> {
        let (cache, digest, size) = (self.cache.clone(), self.digest, self.size);
        let found = self.on_disk(move || match cache.find(digest) {
            None => Ok(None),
            Some(len) if len == size => Ok(Some(len)),
            Some(_) if cache.remove_if_damaged(digest)? => Ok(None),
            other => Ok(other),
        });
        match found.await? {
            None => Ok(false),
            Some(len) if len == size => Ok(true),
            Some(len) => Err(self.error(Code::Invalid).because(format!(
                "sha256:{digest} is said to have {size} bytes, and it has {len}"
            ))),
        }
    }

    /// One answer's worth of it. What came is in the partial either way.
    async fn attempt(
        &self,
        mut partial: Partial,
        ranged: bool,
        meter: &mut Meter,
    ) -> Result<(Partial, Result<Came, Trouble>), HostError> {
        if partial.len() == self.size {
            return Ok((partial, Ok(Came::All)));
        }
        let offset = if ranged { partial.len() } else { 0 };
        let body = match self.from.part(self.digest, offset).await {
            Err(trouble) => return Ok((partial, Err(trouble))),
            Ok(Part::Unsatisfiable) => return Ok((partial, Ok(Came::NoRange))),
            Ok(Part::Body(body)) => body,
        };
        if let Some(said) = body.size.filter(|said| *said != self.size) {
            let why = format!("there are {said} bytes of it instead of {}", self.size);
            let error = self.error(Code::Corrupt).because(why);
            return Ok((partial, Err(Trouble::passing(error))));
        }
        let mut at = partial.len();
        let (chunks, mut queue) = mpsc::channel::<Bytes>(QUEUE);
        let write = move || {
            let mut written = Ok(());
            while let (Ok(()), Some(chunk)) = (&written, queue.blocking_recv()) {
                written = partial.push(&chunk);
            }
            Ok((partial, written))
        };
        let feed = self.feed(body, &mut at, chunks, meter);
        let (fed, written) = tokio::join!(feed, self.on_disk(write));
        let (partial, written) = written?;
        written.map_err(|error| HostError::io(self.what, self.object, error))?;
        let came = fed.map(|()| Came::All);
        Ok((partial, came))
    }

    /// Hands on what is not there yet, up to the blob's size.
    async fn feed(
        &self,
        mut body: Body,
        at: &mut u64,
        chunks: mpsc::Sender<Bytes>,
        meter: &mut Meter,
    ) -> Result<(), Trouble> {
        let mut skip = *at - body.offset;
        let (mut since, mut from, mut read) = (Instant::now(), 0, 0);
        while *at < self.size {
            let broke = |why: String| Trouble::passing(self.error(Code::Host).because(why));
            let chunk = body.next().await.map_err(broke)?;
            let Some(mut chunk) = chunk else {
                return Err(broke(format!("it ended {} bytes early", self.size - *at)));
            };
            read += chunk.len() as u64;
            if since.elapsed() > 2 * self.patience.silence {
                if read - from < PACE {
                    return Err(broke(format!(
                        "{} bytes came in {:?}",
                        read - from,
                        since.elapsed()
                    )));
                }
                (since, from) = (Instant::now(), read);
            }
            let known = skip.min(chunk.len() as u64);
            skip -= known;
            drop(chunk.split_to(usize::try_from(known).unwrap_or(chunk.len())));
            chunk.truncate(usize::try_from(self.size - *at).unwrap_or(usize::MAX));
            if chunk.is_empty() {
                continue;
            }
            *at += chunk.len() as u64;
            meter.at(*at);
            if chunks.send(chunk).await.is_err() {
                return Ok(()); // the disk says why
            }
        }
        Ok(())
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, HostError> {
        let (what, object) = (self.what, self.object.to_owned());
        blocking(what, move || work().map_err(|error| HostError::io(what, object, error))).await
    }

    fn error(&self, code: Code) -> HostError {
        HostError::new(code, self.what, self.object)
    }
}

/// As it is shown.
pub(super) fn short(digest: Digest) -> String {
    format!("sha256:{}", digest.short())
}
