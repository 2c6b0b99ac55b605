//! All of an image comes into the cache: documents from the reference down, then what they name.
//!
//! Whole blobs stay, whatever becomes of the pull. Parts stay after a failure and after the daemon's
//! end, for the next pull goes on there; with a cancel they go.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::cache::Cache;
use super::client::Registry;
use super::fetch::{Fetch, Origin, short};
use super::meter::Meter;
use super::trouble::{Patience, Tries, Trouble};
use crate::host::files::blocking;
use crate::host::image::import::ImportError;
use crate::host::image::oci::{
    Descriptor, Document, DocumentError, MAX_DOCUMENT, MAX_STEPS, Manifest, check, choose, parse,
};
use crate::model::{Code, Digest, ImageLimits, ImageRef, RegistrySettings, Size, Transfer, chain};
use crate::ports::{Fetched, HostError, PullSink};

const WHAT: &str = "pull";
/// How long a cancelled pull waits for its own writers.
const WRITERS_END: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub(in crate::host::image) struct Puller {
    pub(super) cache: Cache,
    pub(super) settings: Arc<RegistrySettings>,
    pub(super) limits: ImageLimits,
    pub(super) patience: Patience,
    pub(super) lanes: Arc<Semaphore>,
}

struct Pull<'a> {
    puller: &'a Puller,
    registry: Registry,
    image: &'a ImageRef,
    sink: &'a PullSink,
}

/// What a manifest names, and where it stands among the layers.
struct Wanted {
    digest: Digest,
    size: u64,
    number: Option<u32>,
}

impl Puller {
    pub(in crate::host::image) fn new(
        cache: Cache,
        settings: RegistrySettings,
        limits: ImageLimits,
    ) -> Self {
        let lanes = Arc::new(Semaphore::new(settings.parallel.max(1)));
        let patience = Patience::new(settings.tries);
        Self { cache, settings: Arc::new(settings), limits, patience, lanes }
    }

    pub(in crate::host::image) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(in crate::host::image) fn settings(&self) -> &RegistrySettings {
        &self.settings
    }

    /// What is to go of the cache, while nothing is pulled.
    pub(in crate::host::image) fn surplus(&self) -> Result<Vec<PathBuf>, HostError> {
        let found = self.cache.surplus(self.settings.cache_size);
        found.map_err(|error| {
            HostError::io("look at the cache", self.cache.dir().display().to_string(), error)
        })
    }

    /// Afterwards all of the image is in the cache, unless it is `known` already.
    pub(in crate::host::image) async fn pull(
        &self,
        image: &ImageRef,
        known: Option<Digest>,
        sink: &PullSink,
        cancel: &CancellationToken,
    ) -> Result<Fetched, HostError> {
        let cancelled = || HostError::new(Code::Cancelled, WHAT, image.to_string());
        let documents = async {
            let registry = Registry::of(image, &self.settings, self.patience).await?;
            let pull = Pull { puller: self, registry, image, sink };
            let found = pull.documents(known).await?;
            Ok::<_, HostError>((pull, found))
        };
        let (pull, (fetched, manifest)) = tokio::select! {
            found = documents => found?,
            () = cancel.cancelled() => return Err(cancelled()),
        };
        let Some(manifest) = manifest else { return Ok(fetched) };
        let wanted = pull.wanted(&manifest)?;
        let fetching = pull.fetch(&wanted);
        tokio::select! {
            done = fetching => done.map(|()| fetched),
            () = cancel.cancelled() => {
                self.forget(&wanted).await;
                Err(cancelled())
            }
        }
    }

    /// Parts that nobody else waits for.
    async fn forget(&self, wanted: &[Wanted]) {
        let each: Vec<_> = wanted.iter().map(|one| self.forget_one(one.digest)).collect();
        futures::future::join_all(each).await;
    }

    pub(super) async fn forget_one(&self, digest: Digest) {
        let lock = tokio::time::timeout(WRITERS_END, self.cache.lock(digest)).await;
        let Ok(lock) = lock else { return };
        if let Err(error) = self.cache.forget(digest, &lock) {
            tracing::warn!(%digest, %error, "a part of a blob stays");
        }
    }
}

impl Pull<'_> {
    /// From the reference, through indexes, to the manifest for this platform; none if what the
    /// reference stands for is known.
    async fn documents(
        &self,
        known: Option<Digest>,
    ) -> Result<(Fetched, Option<Manifest>), HostError> {
        let (root, mut bytes) = self.document(self.image.digest()).await?;
        let mut digest = root;
        if known == Some(root) {
            return Ok((Fetched { root, manifest: None }, None));
        }
        for _ in 0..MAX_STEPS {
            match parse(&bytes).map_err(|error| self.odd(error))? {
                Document::Manifest(manifest) => {
                    return Ok((Fetched { root, manifest: Some(digest) }, Some(manifest)));
                }
                Document::Index(list) => {
                    let chosen = choose(&list).and_then(Descriptor::digest);
                    let chosen = chosen.map_err(|error| self.odd(error))?;
                    (digest, bytes) = self.document(Some(chosen)).await?;
                }
            }
        }
        Err(HostError::new(Code::Invalid, WHAT, self.image.to_string())
            .because("its indexes lead nowhere"))
    }

    /// A document with its digest; one that is known by that may be at hand.
    async fn document(&self, wanted: Option<Digest>) -> Result<(Digest, Vec<u8>), HostError> {
        if let Some(wanted) = wanted
            && let Some(bytes) = self.at_hand(wanted).await?
        {
            return Ok((wanted, bytes));
        }
        let mut tries = Tries::new(self.puller.patience);
        let (digest, bytes) = loop {
            let trouble = match self.registry.document(wanted).await {
                Err(trouble) => trouble,
                Ok(said) => {
                    let right = wanted.or(said.digest);
                    let bytes = said.bytes;
                    // Where no digest is known, what makes no sense may be a part.
                    let checked = match right {
                        Some(right) => check(&bytes, right, "manifest"),
                        None => parse(&bytes).map(drop),
                    };
                    match checked {
                        Ok(()) => break (Digest(Sha256::digest(&bytes).into()), bytes),
                        Err(error) => Trouble::passing(self.odd(error)),
                    }
                }
            };
            let (pause, error) = tries.after(trouble)?;
            let why = chain(&error);
            tracing::info!(image = %self.image, ?pause, %why, "a manifest is tried again");
            (self.sink.progress)(format!("{why}; trying again"));
            tokio::time::sleep(pause).await;
        };
        let (cache, kept) = (self.puller.cache.clone(), bytes.clone());
        let lock = cache.lock(digest).await;
        self.on_disk(move || cache.put(digest, &kept, lock)).await?;
        Ok((digest, bytes))
    }

    async fn at_hand(&self, wanted: Digest) -> Result<Option<Vec<u8>>, HostError> {
        let cache = self.puller.cache.clone();
        let read = move || match cache.find(wanted) {
            Some(len) if len <= MAX_DOCUMENT => std::fs::read(cache.path(wanted)).map(Some),
            _ => Ok(None),
        };
        let found = self.on_disk(read).await?;
        Ok(found.filter(|bytes| check(bytes, wanted, "manifest").is_ok()))
    }

    /// Each blob once, the configuration first.
    fn wanted(&self, manifest: &Manifest) -> Result<Vec<Wanted>, HostError> {
        let mut wanted: Vec<Wanted> = vec![];
        let mut total = 0_u64;
        for blob in [&manifest.config].into_iter().chain(&manifest.layers) {
            let digest = blob.digest().map_err(|error| self.odd(error))?;
            // The configuration is none of the layers.
            let number = u32::try_from(wanted.len()).ok().filter(|number| *number > 0);
            total = total.saturating_add(blob.size);
            if wanted.iter().all(|known| known.digest != digest) {
                wanted.push(Wanted { digest, size: blob.size, number });
            }
        }
        let limit = self.puller.limits.size;
        if total > limit.bytes() {
            let why = format!(
                "it takes {}, more than {limit}, the limit `image_size`",
                Size::from_bytes(total)
            );
            return Err(HostError::new(Code::Invalid, WHAT, self.image.to_string())
                .because(why)
                .hint("if you trust the image, raise the limit in [limits]"));
        }
        Ok(wanted)
    }

    /// Refuses to begin what cannot be kept.
    async fn room(&self, wanted: &[Wanted]) -> Result<(), HostError> {
        let cache = self.puller.cache.clone();
        let blobs: Vec<_> = wanted.iter().map(|one| (one.digest, one.size)).collect();
        let look = move || Ok((cache.missing(&blobs), cache.room()?));
        let (missing, room) = self.on_disk(look).await?;
        if missing <= room {
            return Ok(());
        }
        let [missing, room] = [missing, room].map(Size::from_bytes);
        Err(HostError::new(Code::NoSpace, WHAT, self.image.to_string())
            .because(format!("{missing} are to come, and the disk has room for {room}"))
            .hint("make room: banger image prune, banger image prune --cache"))
    }

    async fn fetch(&self, wanted: &[Wanted]) -> Result<(), HostError> {
        self.room(wanted).await?;
        let of = u32::try_from(wanted.iter().filter(|one| one.number.is_some()).count());
        let of = of.unwrap_or(u32::MAX);
        let total = Size::from_bytes(wanted.iter().map(|one| one.size).sum());
        let layers = if of == 1 { "layer" } else { "layers" };
        (self.sink.progress)(format!("{of} {layers}, {total}"));
        let each: Vec<_> = wanted.iter().map(|one| self.one(one, of)).collect();
        let each = futures::stream::iter(each);
        each.buffer_unordered(self.puller.settings.parallel.max(1)).try_collect().await
    }

    async fn one(&self, one: &Wanted, of: u32) -> Result<(), HostError> {
        let sink = match one.number {
            Some(_) => Arc::clone(&self.sink.transfer),
            None => Arc::new(|_| {}),
        };
        let seen = Transfer {
            blob: short(one.digest),
            number: one.number.unwrap_or(0),
            of,
            bytes: 0,
            size: one.size,
            bytes_per_second: 0,
            left_ms: None,
        };
        let fetch = Fetch {
            from: Origin::Registry(&self.registry),
            cache: &self.puller.cache,
            object: &self.image.to_string(),
            what: "pull a layer of",
            digest: one.digest,
            size: one.size,
            patience: self.puller.patience,
            lanes: &self.puller.lanes,
            progress: &self.sink.progress,
        };
        fetch.run(&mut Meter::new(sink, seen)).await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
    ) -> Result<T, HostError> {
        let named = self.image.to_string();
        blocking(WHAT, move || work().map_err(|error| HostError::io(WHAT, named, error))).await
    }

    fn odd(&self, error: DocumentError) -> HostError {
        ImportError::from(error).on(WHAT, &self.image.to_string())
    }
}
