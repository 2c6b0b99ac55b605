//! The pull of an image: one operation of the images' actor, however many wait for it.
//!
//! ```text
//! intent ──> fetch (blobs into the cache) ──> make-files ──> row ──> outcome
//! ```
//!
//! To a pull the end of the daemon is what a crash is: the operation stays open, what came of the
//! blobs stays, and whoever asks the next daemon goes on there. Only a cancel takes parts away.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::images::Work;
use super::solo::{Done, Solo};
use crate::model::{Code, EventKind, Failure, ImageRecord, ImageRef, OpKind, Outcome};
use crate::ports::{Fetched, ImageRecipe, PullSink};

/// Steps; their names are in the journal.
pub(super) const FETCH: &str = "fetch";
pub(super) const MAKE_FILES: &str = "make-files";

/// Which step ended it.
pub(super) type Ended<T> = Result<T, (&'static str, Failure)>;

pub(super) async fn pull(work: &Work, image: &ImageRef, cancel: &CancellationToken, done: &Done) {
    let Some(mut op) = work.begin(OpKind::PullImage, done).await else { return };
    let pull = Pull { work, image, cancel };
    match pull.run(&mut op).await {
        Ok(outcome) => op.end(outcome, None, done).await,
        Err((step, failure)) => {
            let (step, cause) = (step.to_owned(), failure.message.clone());
            op.end(Outcome::RolledBack { step, cause }, Some(failure), done).await;
        }
    }
}

struct Pull<'a> {
    work: &'a Work,
    image: &'a ImageRef,
    cancel: &'a CancellationToken,
}

impl Pull<'_> {
    async fn run(&self, op: &mut Solo) -> Ended<Outcome> {
        let mut fetched = None;
        let fetching = async {
            let brought = self.fetch().await?;
            fetched = Some(brought);
            Ok(format!("sha256:{}", brought.root))
        };
        op.step(FETCH, fetching).await.map_err(|failure| (FETCH, failure))?;
        let Some(fetched @ Fetched { manifest: Some(_), .. }) = fetched else {
            return Ok(Outcome::Unchanged("it is what the registry has".to_owned()));
        };
        let making = async {
            match self.make(fetched).await {
                // Blobs that were damaged while they lay in the cache are gone from there now.
                Err(failure) if matches!(failure.code, Code::Corrupt | Code::NotFound) => {
                    let again = self.fetch().await?;
                    self.make(again).await
                }
                made => made,
            }
        };
        op.step(MAKE_FILES, making).await.map_err(|failure| (MAKE_FILES, failure))?;
        Ok(Outcome::Done)
    }

    async fn fetch(&self) -> Result<Fetched, Failure> {
        let Pull { work, image, cancel } = self;
        let known = self.known().await?;
        let images = &work.deps.images;
        let fetched = images.fetch_image(work.op_id, image, known, sink(work), cancel).await;
        fetched.map_err(|error| Failure::from(&error))
    }

    /// What the reference stood for when it was pulled last, if that is still here.
    async fn known(&self) -> Result<Option<crate::model::Digest>, Failure> {
        let store = &self.work.deps.store;
        let here = store.image(self.work.name.as_str()).map_err(|error| Failure::from(&error))?;
        let Some(here) = here else { return Ok(None) };
        let base = self.work.deps.images.base(self.work.op_id, here.digest).await;
        let source = here.source.parse::<ImageRef>().ok().filter(|_| base.is_ok());
        Ok(source.and_then(|source| source.digest()))
    }

    async fn make(&self, fetched: Fetched) -> Result<String, Failure> {
        let Pull { work, image, cancel } = self;
        let Fetched { root, manifest: Some(manifest) } = fetched else { return Ok(String::new()) };
        let recipe = ImageRecipe::Fetched { image: (*image).clone(), root, manifest };
        let images = &work.deps.images;
        let made = images.make_image(work.op_id, &recipe, work.progress(), cancel).await;
        let file = made.map_err(|error| Failure::from(&error))?;
        let record = ImageRecord {
            name: work.name.clone(),
            digest: file.digest,
            uuid: file.uuid,
            size: file.size,
            source: file.source,
            created_unix_ms: work.deps.clock.unix_ms(),
        };
        let kept = work.deps.store.put_pulled(record, file.config).await;
        kept.map(|record| record.digest.to_string()).map_err(|error| Failure::from(&error))
    }
}

/// Tells those who follow the operation how far it is.
pub(super) fn sink(work: &Work) -> PullSink {
    let (events, op_id) = (work.deps.events.clone(), work.op_id);
    let transfer = Arc::new(move |seen| {
        events.publish(Some(op_id), None, EventKind::Transfer(seen));
    });
    PullSink { progress: work.progress(), transfer }
}
