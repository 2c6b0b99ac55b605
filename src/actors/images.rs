//! Owns the making and deleting of images and kernels: one piece of work per name however many
//! ask, and no file removed while another is being made.
//!
//! ```text
//! intent ──> files made (lock shared) ──> row ──> outcome
//! row deleted ──> files that no row names are swept (lock exclusive, else when work ends)
//! ```
//!
//! Files without a row are rubbish by definition, so a crash at any point leaves nothing that the
//! next sweep does not take. What must not be done here: remove a file because its row went; other
//! names may have the same contents.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::downloads;
use super::envelope::{CallError, Command, Lane, OpCtx, Req};
use super::events::EventSink;
use super::handle::Handle;
use super::kernel_pulls;
use super::mint::Mint;
use super::pulls;
use super::service::{self, DeathBell};
use super::solo::{Desk, Done, Solo};
use super::vm::Ticket;
use crate::model::{
    Code, DebianKernel, Digest, EventKind, Failure, ImageRecord, ImageRef, ImageSaid, Name, OpId,
    OpKind, OpRecord, Outcome,
};
use crate::ports::{Clock, Download, ImageHost, ImageRecipe, KernelRecipe, WarmHost};
use crate::store::Store;

const SLOTS: usize = 64;
/// Steps; their names are in the journal.
const MAKE_FILES: &str = "make-files";
const REMOVE_NAME: &str = "remove-name";
const ADD_NAME: &str = "add-name";
const REMOVE_BLOBS: &str = "remove-blobs";
const SWEEP_ENDS: Duration = Duration::from_secs(2);
/// What the journal calls the cache.
const CACHE: &str = "blobs";

#[derive(Clone, Debug)]
pub struct ImagesDeps {
    pub store: Store,
    pub images: Arc<dyn ImageHost>,
    pub warm: Arc<dyn WarmHost>,
    pub clock: Arc<dyn Clock>,
    pub events: EventSink,
    pub mint: Mint,
    pub tasks: TaskTracker,
    pub cancel: CancellationToken,
}

#[derive(Debug)]
pub struct ImagesActor {
    bell: DeathBell,
    deps: ImagesDeps,
    files: Arc<RwLock<()>>,
    making: HashMap<(Kind, Name), Making>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Image,
    Kernel,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipe {
    Image(ImageRecipe),
    Kernel(KernelRecipe),
    /// From its registry, under the name that it has there.
    Pull(ImageRef),
    /// A bundle, from where a URL says.
    Download(Kind, Download),
    /// By the name of its package.
    PullKernel(DebianKernel),
}

#[derive(Debug)]
struct Making {
    recipe: Recipe,
    ticket: Ticket,
    cancel: CancellationToken,
    /// Under which ids it was asked for.
    wanted_by: Vec<OpId>,
}

impl Making {
    /// The notice of its end comes after the sweep that follows it.
    fn goes_on(&self) -> bool {
        self.ticket.ended.borrow().is_none()
    }
}

/// Makes an image or kernel under a name.
#[derive(Clone, Debug)]
pub struct Make {
    pub name: Name,
    pub recipe: Recipe,
    pub request_hash: u64,
}

impl Command for Make {
    type Reply = Ticket;
    const NAME: &'static str = "images.make";
}

/// Deletes a name, and its files if no other name has them.
#[derive(Clone, Debug)]
pub struct Delete {
    pub name: Name,
    pub kind: Kind,
    pub request_hash: u64,
}

impl Command for Delete {
    type Reply = Ticket;
    const NAME: &'static str = "images.delete";
}

/// Gives an image one more name.
#[derive(Clone, Debug)]
pub struct Tag {
    pub image: Name,
    pub tag: Name,
    pub request_hash: u64,
}

impl Command for Tag {
    type Reply = Ticket;
    const NAME: &'static str = "images.tag";
}

/// Keeps nothing of what came from registries; refused while something is made.
#[derive(Clone, Copy, Debug)]
pub struct EmptyCache {
    pub request_hash: u64,
}

impl Command for EmptyCache {
    type Reply = Ticket;
    const NAME: &'static str = "images.empty_cache";
}

/// Sweeps files that nothing names, as the end of any work here does; replies how many went.
#[derive(Clone, Copy, Debug)]
pub(super) struct SweepLeftovers;

impl Command for SweepLeftovers {
    type Reply = u32;
    const NAME: &'static str = "images.sweep";
}

/// Cancels the work of this operation; replies whether there was any.
#[derive(Clone, Copy, Debug)]
pub struct CancelMaking(pub OpId);

impl Command for CancelMaking {
    type Reply = bool;
    const NAME: &'static str = "images.cancel";

    fn lane(&self) -> Lane {
        Lane::Urgent
    }
}

/// Who asked under this id does not want it any more: what nobody else wants is cancelled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Withdraw(pub(super) OpId);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Withdrawn {
    /// Nobody else wanted it.
    Cancelled,
    /// It goes on for so many others.
    Others(usize),
    NotThere,
}

impl Command for Withdraw {
    type Reply = Withdrawn;
    const NAME: &'static str = "images.withdraw";

    fn lane(&self) -> Lane {
        Lane::Urgent
    }
}

#[derive(Message)]
#[rtype(result = "()")]
struct Made(Kind, Name, OpId);

impl Recipe {
    fn kind(&self) -> Kind {
        match self {
            Self::Image(_) | Self::Pull(_) => Kind::Image,
            Self::Kernel(_) | Self::PullKernel(_) => Kind::Kernel,
            Self::Download(kind, _) => *kind,
        }
    }

    fn op_kind(&self) -> OpKind {
        match self {
            Self::Image(ImageRecipe::Debian { .. } | ImageRecipe::Containerfile(_)) => {
                OpKind::BuildImage
            }
            Self::Image(ImageRecipe::Root { .. }) => OpKind::CommitVm,
            Self::Image(_) | Self::Download(Kind::Image, _) => OpKind::ImportImage,
            Self::Kernel(_) | Self::Download(Kind::Kernel, _) => OpKind::ImportKernel,
            Self::Pull(_) => OpKind::PullImage,
            Self::PullKernel(_) => OpKind::PullKernel,
        }
    }
}

impl ImagesActor {
    #[must_use]
    pub fn launch(deps: ImagesDeps) -> Handle<Self> {
        let files = Arc::new(RwLock::new(()));
        service::keep("images", SLOTS, Some(deps.events.clone()), move |bell| {
            let (deps, files) = (deps.clone(), Arc::clone(&files));
            Self { bell, deps, files, making: HashMap::new() }.start()
        })
    }
}

impl Actor for ImagesActor {
    type Context = Context<Self>;

    fn stopped(&mut self, _: &mut Self::Context) {
        self.bell.ring();
    }
}

impl Handler<Req<Make>> for ImagesActor {
    type Result = Result<Ticket, CallError>;

    fn handle(&mut self, req: Req<Make>, ctx: &mut Self::Context) -> Self::Result {
        let Req {
            ctx: OpCtx { op_id, span, .. }, cmd: Make { name, recipe, request_hash }, ..
        } = req;
        let key = (recipe.kind(), name.clone());
        match self.making.get_mut(&key).filter(|making| making.goes_on()) {
            Some(making) if making.recipe == recipe => {
                if !making.wanted_by.contains(&op_id) {
                    making.wanted_by.push(op_id);
                    let with = making.ticket.op_id;
                    tracing::info!(%op_id, %with, %name, "waits for the same");
                }
                return Ok(making.ticket.clone());
            }
            Some(making) => {
                let holder = making.ticket.op_id;
                let message = format!("{name} is being made by another operation, {holder}");
                return Err(Failure::new(Code::Busy, message).of(op_id).into());
            }
            None => {}
        }
        // The end of the daemon cancels no pull: see there.
        let (cancel, left) = match &recipe {
            Recipe::Pull(_) | Recipe::Download(..) => {
                (CancellationToken::new(), self.deps.cancel.clone())
            }
            _ => (self.deps.cancel.child_token(), CancellationToken::new()),
        };
        let (done, ended) = watch::channel(None);
        let ticket = Ticket { op_id, ended };
        let making = Making {
            recipe: recipe.clone(),
            ticket: ticket.clone(),
            cancel: cancel.clone(),
            wanted_by: vec![op_id],
        };
        self.making.insert(key, making);
        let notices = ctx.address().downgrade().recipient::<Made>();
        let (kind, files) = (recipe.kind(), Arc::clone(&self.files));
        let op = Work { op_id, request_hash, name: name.clone(), deps: self.deps.clone() };
        let span =
            tracing::info_span!(parent: &span, "op", %op_id, kind = recipe.op_kind().as_str());
        let task = async move {
            let make = async {
                let _shared = files.read().await; // no sweep while files have no row yet
                op.make(&recipe, &cancel, &done).await;
            };
            tokio::select! {
                () = make => {}
                () = left.cancelled() => return,
            }
            op.sweep(&files).await;
            if let Some(actor) = notices.upgrade() {
                actor.do_send(Made(kind, name, op_id));
            }
        };
        self.deps.tasks.spawn(task.instrument(span));
        Ok(ticket)
    }
}

impl Handler<Req<Delete>> for ImagesActor {
    type Result = Result<Ticket, CallError>;

    fn handle(&mut self, req: Req<Delete>, _: &mut Self::Context) -> Self::Result {
        let Req {
            ctx: OpCtx { op_id, span, .. }, cmd: Delete { name, kind, request_hash }, ..
        } = req;
        let (done, ended) = watch::channel(None);
        let ticket = Ticket { op_id, ended };
        let op = Work { op_id, request_hash, name, deps: self.deps.clone() };
        let files = Arc::clone(&self.files);
        let task = async move {
            op.delete(kind, &done).await;
            op.sweep(&files).await;
        };
        self.deps.tasks.spawn(task.instrument(span));
        Ok(ticket)
    }
}

impl Handler<Req<Tag>> for ImagesActor {
    type Result = Result<Ticket, CallError>;

    fn handle(&mut self, req: Req<Tag>, _: &mut Self::Context) -> Self::Result {
        let Req { ctx: OpCtx { op_id, span, .. }, cmd: Tag { image, tag, request_hash }, .. } = req;
        let (done, ended) = watch::channel(None);
        let ticket = Ticket { op_id, ended };
        let op = Work { op_id, request_hash, name: tag, deps: self.deps.clone() };
        let task = async move { op.tag(image, &done).await };
        self.deps.tasks.spawn(task.instrument(span));
        Ok(ticket)
    }
}

impl Handler<Req<EmptyCache>> for ImagesActor {
    type Result = Result<Ticket, CallError>;

    fn handle(&mut self, req: Req<EmptyCache>, _: &mut Self::Context) -> Self::Result {
        let Req { ctx: OpCtx { op_id, span, .. }, cmd: EmptyCache { request_hash }, .. } = req;
        let (done, ended) = watch::channel(None);
        let ticket = Ticket { op_id, ended };
        let name = Name::image(CACHE).map_err(|_| Failure::new(Code::Internal, CACHE).of(op_id))?;
        let op = Work { op_id, request_hash, name, deps: self.deps.clone() };
        let files = Arc::clone(&self.files);
        let task = async move { op.empty_cache(&files, &done).await };
        self.deps.tasks.spawn(task.instrument(span));
        Ok(ticket)
    }
}

impl Handler<Req<CancelMaking>> for ImagesActor {
    type Result = Result<bool, CallError>;

    fn handle(&mut self, req: Req<CancelMaking>, _: &mut Self::Context) -> Self::Result {
        let is_it = |making: &&Making| making.ticket.op_id == req.cmd.0 && making.goes_on();
        let making = self.making.values().find(is_it);
        Ok(making.map(|making| making.cancel.cancel()).is_some())
    }
}

impl Handler<Req<Withdraw>> for ImagesActor {
    type Result = Result<Withdrawn, CallError>;

    fn handle(&mut self, req: Req<Withdraw>, _: &mut Self::Context) -> Self::Result {
        let op = req.cmd.0;
        let mut making = self.making.values_mut().filter(|making| making.goes_on());
        let Some(making) = making.find(|making| making.wanted_by.contains(&op)) else {
            return Ok(Withdrawn::NotThere);
        };
        making.wanted_by.retain(|other| *other != op);
        if making.wanted_by.is_empty() {
            making.cancel.cancel();
            return Ok(Withdrawn::Cancelled);
        }
        Ok(Withdrawn::Others(making.wanted_by.len()))
    }
}

impl Handler<Req<SweepLeftovers>> for ImagesActor {
    type Result = ResponseFuture<Result<u32, CallError>>;

    fn handle(&mut self, req: Req<SweepLeftovers>, _: &mut Self::Context) -> Self::Result {
        let (deps, files, op) = (self.deps.clone(), Arc::clone(&self.files), req.ctx.op_id);
        Box::pin(async move {
            let Ok(_exclusive) = files.try_write() else {
                let message = "sweep leftovers: an image or kernel is being made";
                let failure = Failure::new(Code::Busy, message);
                return Err(failure.hint("its end sweeps them").into());
            };
            Ok(sweep(&deps.store, &*deps.images, &*deps.warm, op).await)
        })
    }
}

impl Handler<Made> for ImagesActor {
    type Result = ();

    fn handle(&mut self, Made(kind, name, op_id): Made, _: &mut Self::Context) {
        let key = (kind, name);
        if self.making.get(&key).is_some_and(|making| making.ticket.op_id == op_id) {
            self.making.remove(&key);
        }
    }
}

/// One operation on its own task.
pub(super) struct Work {
    pub(super) op_id: OpId,
    request_hash: u64,
    pub(super) name: Name,
    pub(super) deps: ImagesDeps,
}

impl Work {
    async fn make(&self, recipe: &Recipe, cancel: &CancellationToken, done: &Done) {
        match recipe {
            Recipe::Pull(image) => pulls::pull(self, image, cancel, done).await,
            Recipe::Download(kind, download) => {
                let of = recipe.op_kind();
                downloads::download(self, of, *kind, download, cancel, done).await;
            }
            Recipe::PullKernel(asked) => kernel_pulls::pull(self, asked, cancel, done).await,
            Recipe::Image(image) => {
                self.only_make(recipe.op_kind(), self.make_image(image, cancel), done).await;
            }
            Recipe::Kernel(kernel) => {
                self.only_make(recipe.op_kind(), self.make_kernel(kernel, cancel), done).await;
            }
        }
    }

    async fn only_make(
        &self,
        kind: OpKind,
        making: impl Future<Output = Result<Digest, Failure>>,
        done: &Done,
    ) {
        let Some(op) = self.begin(kind, done).await else { return };
        let making = async { making.await.map(|digest| digest.to_string()) };
        op.only_step(MAKE_FILES, making, done).await;
    }

    pub(super) async fn make_image(
        &self,
        recipe: &ImageRecipe,
        cancel: &CancellationToken,
    ) -> Result<Digest, Failure> {
        let images = &self.deps.images;
        let made = images.make_image(self.op_id, recipe, self.progress(), cancel).await;
        let file = made.map_err(|error| Failure::from(&error))?;
        let record = ImageRecord {
            name: self.name.clone(),
            digest: file.digest,
            uuid: file.uuid,
            size: file.size,
            source: file.source,
            created_unix_ms: self.deps.clock.unix_ms(),
        };
        let said = ImageSaid { config: file.config, kernel: file.kernel };
        let kept = self.deps.store.put_image(record, said).await;
        kept.map(|record| record.digest).map_err(|error| Failure::from(&error))
    }

    pub(super) async fn make_kernel(
        &self,
        recipe: &KernelRecipe,
        cancel: &CancellationToken,
    ) -> Result<Digest, Failure> {
        let images = &self.deps.images;
        let made = images.make_kernel(self.op_id, recipe, self.progress(), cancel).await;
        let file = made.map_err(|error| Failure::from(&error))?;
        let (record, features) = self.kernel_record(file);
        let kept = self.deps.store.put_kernel(record, features).await;
        kept.map(|record| record.digest).map_err(|error| Failure::from(&error))
    }

    async fn delete(&self, kind: Kind, done: &Done) {
        let op_kind = match kind {
            Kind::Image => OpKind::DeleteImage,
            Kind::Kernel => OpKind::DeleteKernel,
        };
        let Some(op) = self.begin(op_kind, done).await else { return };
        let removing = async {
            let removed = match kind {
                Kind::Image => self.deps.store.delete_image(self.name.clone()).await,
                Kind::Kernel => self.deps.store.delete_kernel(self.name.clone()).await,
            };
            removed.map(|()| String::new()).map_err(|error| Failure::from(&error))
        };
        op.only_step(REMOVE_NAME, removing, done).await;
    }

    /// One write, which is done or not; no file is touched.
    async fn tag(&self, image: Name, done: &Done) {
        let Some(mut op) = self.begin(OpKind::TagImage, done).await else { return };
        let named = async {
            let now = self.deps.clock.unix_ms();
            let tagged = self.deps.store.tag_image(image.clone(), self.name.clone(), now).await;
            tagged.map(|new| new.to_string()).map_err(|error| Failure::from(&error))
        };
        match op.step(ADD_NAME, named).await {
            Ok(new) if new == "true" => op.end(Outcome::Done, None, done).await,
            Ok(_) => op.end(Outcome::Unchanged(format!("is {image} already")), None, done).await,
            Err(failure) => {
                let (step, cause) = (ADD_NAME.to_owned(), failure.message.clone());
                op.end(Outcome::RolledBack { step, cause }, Some(failure), done).await;
            }
        }
    }

    /// Each blob is there or not: what is cut short is ended by asking again.
    async fn empty_cache(&self, files: &RwLock<()>, done: &Done) {
        let Some(op) = self.begin(OpKind::EmptyCache, done).await else { return };
        let emptying = async {
            // What has just ended still sweeps; what goes on may go on for an hour.
            let exclusive = tokio::time::timeout(SWEEP_ENDS, files.write()).await;
            let Ok(_exclusive) = exclusive else {
                let message = "empty the cache: an image or kernel is being made";
                return Err(Failure::new(Code::Busy, message).hint("`banger ops list` shows it"));
            };
            let emptied = self.deps.images.empty_cache(self.op_id).await;
            emptied.map(|()| String::new()).map_err(|error| Failure::from(&error))
        };
        op.only_step(REMOVE_BLOBS, emptying, done).await;
    }

    pub(super) async fn begin(&self, kind: OpKind, done: &Done) -> Option<Solo> {
        let ImagesDeps { store, clock, events, .. } = self.deps.clone();
        let intent = OpRecord {
            id: self.op_id,
            kind,
            vm: None,
            subject: self.name.to_string(),
            request_hash: self.request_hash,
            started_unix_ms: clock.unix_ms(),
            ended_unix_ms: None,
            outcome: None,
        };
        Solo::begin(Desk { store, clock, events }, intent, done).await
    }

    /// Removes files without a row, unless something is being made: then its end does it.
    async fn sweep(&self, files: &RwLock<()>) {
        let Ok(_exclusive) = files.try_write() else { return };
        sweep(&self.deps.store, &*self.deps.images, &*self.deps.warm, self.op_id).await;
    }

    pub(super) fn progress(&self) -> crate::ports::ProgressSink {
        let (events, op_id) = (self.deps.events.clone(), self.op_id);
        Arc::new(move |text| events.publish(Some(op_id), None, EventKind::Progress { text }))
    }
}

/// Also called once before the daemon listens. Answers how many went.
pub async fn sweep(store: &Store, images: &dyn ImageHost, warm: &dyn WarmHost, op: OpId) -> u32 {
    let (Ok(known), Ok(kernels)) = (store.images(), store.kernels()) else { return 0 };
    let mut digests: Vec<_> = known.iter().map(|image| image.digest).collect();
    digests.extend(kernels.iter().map(|kernel| kernel.digest));
    let mut count = 0;
    match images.sweep(op, &digests).await {
        Ok(0) => {}
        Ok(removed) => {
            count += removed;
            tracing::info!(removed, "swept files that no image or kernel names");
        }
        Err(error) => tracing::warn!(error = %crate::model::chain(&error), "files not swept"),
    }
    match warm.sweep(op, &digests).await {
        Ok(0) => {}
        Ok(removed) => {
            count += removed;
            tracing::info!(removed, "swept snapshots that nothing can start from");
        }
        Err(error) => tracing::warn!(error = %crate::model::chain(&error), "snapshots not swept"),
    }
    count
}

#[cfg(test)]
#[path = "kernel_pulls_tests.rs"]
mod kernel_pulls_tests;
#[cfg(test)]
#[path = "pulls_tests.rs"]
mod pulls_tests;
#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
