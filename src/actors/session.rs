//! One client's connection: requests in, replies out, one at a time.
//!
//! A session owns nothing. When it ends, whatever it started goes on; the same op id on another
//! connection finds it again.

use std::path::PathBuf;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::answers::{self, Wishes};
use super::envelope::CallError;
use super::events::Tail;
use super::exports;
use super::follow;
use super::house::House;
use super::image_names;
use super::images::{Delete, EmptyCache, Kind, Make, Recipe, Tag};
use super::kernels;
use super::remedy;
use super::shelves;
use super::stats;
use super::supervisor::{BringUp, CreateVm};
use super::vm::{Asker, Changes, Ended, OpRequest, RunOp, Ticket};
use super::workspaces::{self, Upload};
use crate::config::OnShutdown;
use crate::model::{
    CUT_SHORT, Code, Condition, DebianKernel, Digest, DiskChoice, EventKind, Failure, Name, OpId,
    OpKind, Outcome, Size, Verb, VmView, admits,
};
use crate::ports::{Containerfile, Download, ImageRecipe, KernelRecipe};
use crate::wire::codec;
use crate::wire::frame::{FrameError, Frames};
use crate::wire::reply::{Answer, Reply, VmInfo};
use crate::wire::request::{
    self as wire, Envelope, EventsOf, ImageSource, KernelSource, Request, Since,
};

/// A frame that has begun must be whole by then.
const FRAME_LIMIT: Duration = Duration::from_secs(10);

/// Ends when the client has gone or the daemon stops.
pub(super) async fn serve(mut frames: Frames, house: House, stop: CancellationToken) {
    let mut manifest = Upload::default();
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = frames.receive_within::<Envelope>(FRAME_LIMIT) => received,
        };
        let envelope = match received {
            Ok(Some(envelope)) => envelope,
            Ok(None) => return,
            Err(error) => {
                tracing::info!(error = %crate::model::chain(&error), "request not understood");
                let failure = Failure::from_error(Code::Protocol, &error);
                drop(frames.send(&Reply::Failed((&failure).into())).await); // a courtesy
                return;
            }
        };
        let op_id = OpId(envelope.op_id);
        let mut session = Session {
            frames: &mut frames,
            house: &house,
            op_id,
            stop: &stop,
            manifest: &mut manifest,
        };
        let replied = session.answer(envelope).await;
        if let Err(error) = replied {
            tracing::debug!(%op_id, error = %crate::model::chain(&error), "client gone");
            return;
        }
    }
}

pub(super) struct Session<'a> {
    pub(super) frames: &'a mut Frames,
    pub(super) house: &'a House,
    pub(super) op_id: OpId,
    /// The daemon takes its leave.
    pub(super) stop: &'a CancellationToken,
    pub(super) manifest: &'a mut Upload,
}

/// What a request comes to: an answer at once, an operation to follow, or already streamed.
pub(super) enum Response {
    Now(Answer),
    /// Pieces of a list; the last goes out as `Done`.
    Parts(Vec<Answer>),
    Follow(Ticket),
    Streamed,
}

impl Session<'_> {
    async fn answer(&mut self, envelope: Envelope) -> Result<(), FrameError> {
        let hash = request_hash(&envelope.request);
        // Before the operation begins, so that no event of it is missed.
        let tail = match is_operation(&envelope.request) {
            true => Some(self.tail().await),
            false => None,
        };
        match self.respond(envelope.request, hash).await {
            Ok(Response::Now(answer)) => self.frames.send(&Reply::Done(answer)).await,
            Ok(Response::Parts(parts)) => self.send_parts(parts).await,
            Ok(Response::Follow(ticket)) => self.follow(ticket, tail).await,
            Ok(Response::Streamed) => Ok(()),
            Err(Refusal::Gone(error)) => Err(error),
            Err(Refusal::Said(failure)) => self.fail(*failure).await,
        }
    }

    /// From the operation's beginning, if it is asked for again.
    async fn tail(&self) -> Tail {
        let store = &self.house.store;
        let known = matches!(store.op(self.op_id), Ok(Some(_)));
        let beginning = match known {
            true => follow::beginning_of(self.house, self.op_id).await.ok().flatten(),
            false => None,
        };
        beginning.map_or_else(|| Tail::from_now(store), |seq| Tail::from(store, seq))
    }

    async fn respond(&mut self, request: Request, hash: u64) -> Result<Response, Refusal> {
        let house = self.house;
        match request {
            Request::Ping => Ok(Response::Now(Answer::Nothing)),
            Request::Status => answers::status(house, self.op_id).await,
            Request::Doctor => Ok(Response::Now(Answer::Checks((house.checks)(self.op_id).await))),
            Request::CreateVm(create) => {
                self.create(create, DiskChoice::Auto, Wishes::default(), hash).await
            }
            Request::CreateVmOn { create, disk, console, warm } => {
                let wishes = Wishes { console, warm, ..Wishes::default() };
                self.create(create, disk.into(), wishes, hash).await
            }
            Request::CreateVmKept { create, disk, console, warm, upkeep } => {
                let wishes = Wishes { console, warm, upkeep, ..Wishes::default() };
                self.create(create, disk.into(), wishes, hash).await
            }
            Request::ShowDisk { vm } => answers::disk(house, self.op_id, &vm).await,
            Request::SetVm { vm, vcpu, memory_mib, disk_bytes, work_disk_bytes } => {
                let (disk, work_disk) =
                    (disk_bytes.map(Size::from_bytes), work_disk_bytes.map(Size::from_bytes));
                let changes = Changes { vcpu, memory_mib, disk, work_disk, ..Changes::default() };
                self.vm_op(&vm, OpRequest::Set(changes), hash).await
            }
            Request::SetVmKept { vm, vcpu, memory_mib, disk_bytes, work_disk_bytes, upkeep } => {
                let changes = Changes {
                    vcpu,
                    memory_mib,
                    disk: disk_bytes.map(Size::from_bytes),
                    work_disk: work_disk_bytes.map(Size::from_bytes),
                    restart: upkeep.restart.map(Into::into),
                    health: upkeep.health.map(Into::into),
                };
                self.vm_op(&vm, OpRequest::Set(changes), hash).await
            }
            Request::ShowUpkeep { vms } => answers::upkeep(house, self.op_id, &vms).await,
            Request::StartVm { vm } => self.vm_op(&vm, OpRequest::Start, hash).await,
            Request::StopVm { vm, grace_ms } => {
                let request = OpRequest::Stop { grace: self.grace(grace_ms) };
                self.vm_op(&vm, request, hash).await
            }
            Request::KillVm { vm, signal } => {
                self.vm_op(&vm, OpRequest::Kill { signal }, hash).await
            }
            Request::RestartVm { vm, grace_ms } => {
                let request = OpRequest::Restart { grace: self.grace(grace_ms) };
                self.vm_op(&vm, request, hash).await
            }
            Request::PutAwayVm { vm, stop } => self.put_away(&vm, stop, hash).await,
            Request::SuspendVm { vm } => self.vm_op(&vm, OpRequest::Suspend, hash).await,
            Request::ResumeVm { vm } => self.vm_op(&vm, OpRequest::Resume, hash).await,
            Request::StartVmCold { vm } => self.vm_op(&vm, OpRequest::StartCold, hash).await,
            Request::StartVmRepaired { vm } => {
                self.vm_op(&vm, OpRequest::StartRepaired, hash).await
            }
            Request::DeleteVm { vm } => self.vm_op(&vm, OpRequest::Delete, hash).await,
            Request::ListVms => answers::list_vms(house, self.op_id).await,
            Request::ShowVm { vm } => {
                let view = house.find(self.op_id, &vm).await?.view;
                Ok(Response::Now(Answer::Vms(vec![VmInfo::from(&view)])))
            }
            Request::Endpoint { vm } => {
                let view = self.entered(&vm).await?;
                answers::endpoint(house, &view)
            }
            Request::Lane { vm } => {
                let view = self.entered(&vm).await?;
                Ok(Response::Now(answers::lane(house, &view)))
            }
            Request::Stats { vms } => stats::stats(house, self.op_id, &vms).await,
            Request::Logs(logs) => answers::logs(self, logs).await,
            Request::BuildDebian { name, suite, include, mirror } => {
                let recipe = ImageRecipe::Debian { suite, include, mirror };
                self.make(&name, Recipe::Image(recipe), hash).await
            }
            Request::ImportImage { name, source } => {
                let recipe = match source {
                    ImageSource::Tar { path } => {
                        Recipe::Image(ImageRecipe::Tar { path: path.into() })
                    }
                    ImageSource::Directory { path } => {
                        Recipe::Image(ImageRecipe::Directory { path: path.into() })
                    }
                    ImageSource::Containerfile { context, file, target, arguments } => {
                        Recipe::Image(ImageRecipe::Containerfile(Containerfile {
                            context: context.into(),
                            file: file.map(PathBuf::from),
                            target,
                            arguments,
                        }))
                    }
                    ImageSource::Url { url, sha256 } => download(Kind::Image, url, sha256),
                };
                self.make(&name, recipe, hash).await
            }
            Request::ListImages => shelves::images(house, None),
            Request::ShowImage { name } => shelves::images(house, Some(&name)),
            Request::DeleteImage { name } => {
                let name = image_names::resolve(&house.store, &name)?;
                self.delete(name, Kind::Image, hash).await
            }
            Request::ImportKernel { name, source } => {
                let recipe = match source {
                    KernelSource::Url { url, sha256 } => {
                        let recipe = download(Kind::Kernel, url, sha256);
                        return self.make(&name, recipe, hash).await;
                    }
                    KernelSource::Deb { path } => {
                        KernelRecipe::Packages { paths: vec![path.into()] }
                    }
                    KernelSource::Packages { paths } => KernelRecipe::Packages {
                        paths: paths.into_iter().map(Into::into).collect(),
                    },
                    KernelSource::Files { kernel, modules } => KernelRecipe::Files {
                        kernel: kernel.into(),
                        modules: modules.map(Into::into),
                    },
                };
                self.make(&name, Recipe::Kernel(recipe), hash).await
            }
            Request::ListKernels => kernels::kernels(house, None),
            Request::ShowKernel { name } => kernels::kernels(house, Some(&name)),
            Request::DeleteKernel { name } => {
                self.delete(artefact(&name)?, Kind::Kernel, hash).await
            }
            Request::ListOps { limit } => answers::list_ops(house, limit),
            Request::ListOpenOps => answers::list_open_ops(house),
            Request::ShowOp { op } => answers::show_op(house, &op),
            Request::WatchOp { op } => follow::watch_op(self, &op).await,
            Request::CancelOp { op } => answers::cancel_op(house, self.op_id, &op).await,
            Request::Events { since, follow } => {
                let since = Since::Seq(since);
                follow::events(self, EventsOf { since, vm: None, op: None, follow }).await
            }
            Request::EventsOf(asked) => follow::events(self, asked).await,
            Request::ShowLedger { vm } => remedy::ledger(house, self.op_id, vm.as_deref()).await,
            Request::FindGarbage => remedy::find_garbage(house, self.op_id).await,
            Request::CollectGarbage => remedy::collect_garbage(house, self.op_id, hash).await,
            Request::DiagnoseVm { vm } => remedy::diagnosis(house, self.op_id, &vm).await,
            Request::RecoverVm { vm } => remedy::recover(house, self.op_id, &vm, hash).await,
            Request::ManifestPiece { bytes } => workspaces::take(self, &bytes),
            Request::RecordWorkspace { vm, workspace } => {
                workspaces::record(self, &vm, workspace).await
            }
            Request::ShowWorkspaces { vms } => workspaces::show(house, self.op_id, &vms).await,
            Request::ShowManifest { vm } => workspaces::manifest(self, &vm).await,
            Request::CreateVmRun { create, disk, console, warm, upkeep, runs } => {
                self.create(create, disk.into(), Wishes { console, warm, upkeep, runs }, hash).await
            }
            Request::ShowProgram { vm } => {
                answers::program(house, &house.find(self.op_id, &vm).await?.view)
            }
            Request::ShowImageConfig { name } => shelves::image_config(house, &name),
            Request::TagImage { name, tag } => {
                let (image, tag) = (image_names::resolve(&house.store, &name)?, artefact(&tag)?);
                let tag = Tag { image, tag, request_hash: hash };
                Ok(Response::Follow(house.images.call(house.ctx(self.op_id), tag).await?))
            }
            Request::ImageUsage => shelves::usage(house, self.op_id).await,
            Request::ListBlobs => shelves::blobs(house, self.op_id).await,
            Request::EmptyCache => {
                let empty = EmptyCache { request_hash: hash };
                Ok(Response::Follow(house.images.call(house.ctx(self.op_id), empty).await?))
            }
            Request::PullImage { image, when } => {
                image_names::pull(house, self.op_id, &image, when, hash).await
            }
            Request::WithdrawOp { op } => answers::withdraw(house, self.op_id, &op).await,
            Request::CommitVm { vm, image } => {
                let recipe = shelves::root_of(house, self.op_id, &vm).await?;
                self.make(&image, Recipe::Image(recipe), hash).await
            }
            Request::ShowKernelFeatures { name } => kernels::features(house, &name),
            Request::ExportImage { name } => exports::layout(self, &name).await,
            Request::ExportImageBundle { name, kernel } => {
                exports::image(self, &name, kernel.as_deref()).await
            }
            Request::ExportKernel { name } => exports::kernel(self, &name).await,
            Request::ShowDefaultKernel => kernels::default(house),
            Request::SetDefaultKernel { name } => kernels::set_default(house, name).await,
            Request::KernelUsage => kernels::usage(house, self.op_id).await,
            Request::PullKernel { package, suite, name } => {
                let asked = DebianKernel::new(&package, suite.as_deref());
                let asked = asked.map_err(|error| Failure::from_error(Code::Invalid, &error))?;
                let name = name.unwrap_or(package);
                self.make(&name, Recipe::PullKernel(asked), hash).await
            }
        }
    }

    async fn create(
        &self,
        create: wire::CreateVm,
        disk: DiskChoice,
        wishes: Wishes,
        hash: u64,
    ) -> Result<Response, Refusal> {
        let house = self.house;
        let disk = match disk {
            DiskChoice::Auto => house.config.disk_backend,
            chosen => chosen,
        };
        let (start, runs) = (create.start, wishes.runs);
        let spec = answers::fill_spec(house, create, wishes)?;
        let create = CreateVm { spec, disk, start, runs, request_hash: hash };
        let ctx = house.ctx(self.op_id);
        Ok(Response::Follow(house.supervisor.call(ctx, create).await?))
    }

    fn grace(&self, asked_ms: Option<u64>) -> Duration {
        asked_ms.map_or(self.house.config.stop_grace, Duration::from_millis)
    }

    async fn put_away(&self, vm: &str, stop: bool, hash: u64) -> Result<Response, Refusal> {
        let config = &self.house.config;
        let request = match (stop, config.on_shutdown) {
            (false, OnShutdown::Suspend) => OpRequest::Suspend,
            // Half of the time is for those that have to be ended in another way after that.
            _ => OpRequest::Stop { grace: config.stop_grace.min(config.shutdown_limit / 2) },
        };
        self.vm_op_by(Asker::Host, vm, request, hash).await
    }

    async fn vm_op(&self, vm: &str, request: OpRequest, hash: u64) -> Result<Response, Refusal> {
        self.vm_op_by(Asker::Owner, vm, request, hash).await
    }

    async fn vm_op_by(
        &self,
        by: Asker,
        vm: &str,
        request: OpRequest,
        request_hash: u64,
    ) -> Result<Response, Refusal> {
        let (ctx, brings_up) = (self.house.ctx(self.op_id), request.brings_up());
        let cmd = RunOp { request, request_hash, by };
        let ticket = if brings_up {
            let bring_up = BringUp { vm: vm.to_owned(), cmd };
            self.house.supervisor.call(ctx, bring_up).await?
        } else {
            let found = self.house.find(self.op_id, vm).await?;
            found.handle?.call(ctx, cmd).await?
        };
        Ok(Response::Follow(ticket))
    }

    /// A VM that can be entered, or why not.
    async fn entered(&self, vm: &str) -> Result<VmView, Refusal> {
        let view = self.house.find(self.op_id, vm).await?.view;
        match admits(view.record.state, Verb::Enter) {
            Ok(()) => match view.standstill() {
                None => Ok(view),
                Some(Condition { kind, reason, exit, .. }) => {
                    let text = format!("{}: {kind}: {reason}", view.record.spec.name);
                    Err(Failure::new(Code::Refused, text).hint(exit.clone()).into())
                }
            },
            Err(refused) => {
                let name = &view.record.spec.name;
                let failure = Failure::new(Code::Refused, format!("{name}: {refused}"))
                    .hint(format!("start it with `banger vm start {name}`"));
                Err(failure.into())
            }
        }
    }

    async fn make(&self, name: &str, recipe: Recipe, hash: u64) -> Result<Response, Refusal> {
        let name = artefact(name)?;
        let make = Make { name, recipe, request_hash: hash };
        Ok(Response::Follow(self.house.images.call(self.house.ctx(self.op_id), make).await?))
    }

    async fn delete(&self, name: Name, kind: Kind, hash: u64) -> Result<Response, Refusal> {
        let delete = Delete { name, kind, request_hash: hash };
        Ok(Response::Follow(self.house.images.call(self.house.ctx(self.op_id), delete).await?))
    }

    async fn send_parts(&mut self, mut parts: Vec<Answer>) -> Result<(), FrameError> {
        let last = parts.pop().unwrap_or(Answer::Nothing);
        for part in parts {
            self.frames.send(&Reply::Part(part)).await?;
        }
        self.frames.send(&Reply::Done(last)).await
    }

    pub(super) async fn fail(&mut self, failure: Failure) -> Result<(), FrameError> {
        let failure = if failure.op_id.is_some() { failure } else { failure.of(self.op_id) };
        tracing::info!(op_id = %self.op_id, code = %failure.code, %failure, "request failed");
        self.frames.send(&Reply::Failed((&failure).into())).await
    }

    /// Streams the operation's events, then its end, which is written together with the last.
    async fn follow(&mut self, mut ticket: Ticket, tail: Option<Tail>) -> Result<(), FrameError> {
        let op = ticket.op_id;
        self.frames.send(&Reply::Accepted { op_id: op.0 }).await?;
        let known = ticket.ended.borrow().is_some();
        if let (Some(mut tail), false) = (tail, known) {
            loop {
                let event = tokio::select! {
                    event = tail.next() => event,
                    _ = ticket.end() => tail.ready(),
                };
                match event {
                    Ok(Some(event)) if event.op_id == Some(op) => {
                        let last = matches!(event.kind, EventKind::OpEnded { .. });
                        self.frames.send(&Reply::Event((&event).into())).await?;
                        if last {
                            break;
                        }
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        // The operation goes on, and its end is known without them.
                        tracing::warn!(%op, error = %crate::model::chain(&error), "events not read");
                        break;
                    }
                }
            }
        }
        match ticket.end().await {
            Some(ended) => self.end(ended).await,
            None => {
                let message = format!("operation {op} was cut short; it is settled by recovery");
                self.fail(Failure::new(Code::Internal, message).of(op)).await
            }
        }
    }

    async fn end(&mut self, ended: Ended) -> Result<(), FrameError> {
        match failed(&ended) {
            Some(failure) => self.fail(failure).await,
            None => {
                let op = Box::new((&ended.op, [].as_slice()).into());
                let vm = ended.view.as_ref().map(|view| Box::new(view.into()));
                self.frames.send(&Reply::Done(Answer::Ended { op, vm })).await
            }
        }
    }
}

/// What went wrong, if the operation did not do what it was asked to.
fn failed(ended: &Ended) -> Option<Failure> {
    let (code, message) = match ended.op.outcome.as_ref()? {
        Outcome::Done | Outcome::Unchanged(_) => return None,
        Outcome::RolledBack { step, cause } => {
            let code = match cause.as_str() {
                "cancelled" => Code::Cancelled,
                CUT_SHORT => Code::Interrupted,
                _ => Code::Host,
            };
            (code, format!("{} {}: {step}: {cause}", ended.op.kind.as_str(), ended.op.subject))
        }
        Outcome::Stuck { step, cause, undo } => {
            let subject = &ended.op.subject;
            let kind = ended.op.kind.as_str();
            (Code::Stuck, format!("{kind} {subject}: {step}: {cause}; taking it back: {undo}"))
        }
    };
    let mut failure = Failure::new(code, message).of(ended.op.id);
    if let Some(known) = &ended.failure {
        failure.code = if code == Code::Stuck { code } else { known.code };
        failure.hints.clone_from(&known.hints);
        failure.detail.clone_from(&known.detail);
        failure.retryable = known.retryable;
    }
    if let (OpKind::CreateVm, Some(view)) = (ended.op.kind, &ended.view) {
        let name = &view.record.spec.name;
        let kept = format!(
            "{name} is kept, stopped: try again with `banger vm start {name}`, \
             or remove it with `banger vm delete {name}`"
        );
        failure.hints.push(kept);
    }
    if code == Code::Stuck {
        failure.hints.push(format!("`banger ops show {}` shows where it stands", ended.op.id));
    }
    Some(failure)
}

fn download(kind: Kind, url: String, sha256: [u8; 32]) -> Recipe {
    Recipe::Download(kind, Download { url, digest: Digest(sha256), size: None })
}

pub(super) fn artefact(name: &str) -> Result<Name, Refusal> {
    Name::artefact(name).map_err(|error| Failure::from_error(Code::Invalid, &error).into())
}

fn is_operation(request: &Request) -> bool {
    matches!(
        request,
        Request::CreateVm(_)
            | Request::CreateVmOn { .. }
            | Request::CreateVmKept { .. }
            | Request::CreateVmRun { .. }
            | Request::SetVm { .. }
            | Request::SetVmKept { .. }
            | Request::StartVm { .. }
            | Request::StopVm { .. }
            | Request::KillVm { .. }
            | Request::RestartVm { .. }
            | Request::DeleteVm { .. }
            | Request::SuspendVm { .. }
            | Request::ResumeVm { .. }
            | Request::StartVmCold { .. }
            | Request::StartVmRepaired { .. }
            | Request::PutAwayVm { .. }
            | Request::BuildDebian { .. }
            | Request::ImportImage { .. }
            | Request::DeleteImage { .. }
            | Request::TagImage { .. }
            | Request::CommitVm { .. }
            | Request::ImportKernel { .. }
            | Request::DeleteKernel { .. }
            | Request::CollectGarbage
            | Request::EmptyCache
            | Request::RecoverVm { .. }
            | Request::PullImage { .. }
            | Request::PullKernel { .. }
    )
}

/// FNV-1a (64 bit) of the encoded request: stable across restarts, and collisions only matter
/// between two requests under one id.
fn request_hash(request: &Request) -> u64 {
    let bytes = codec::encode(request).unwrap_or_default();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Why there is no response: something to say to the client, or no client.
pub(super) enum Refusal {
    Said(Box<Failure>),
    Gone(FrameError),
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Said(Box::new(failure))
    }
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        Failure::from(error).into()
    }
}

impl From<FrameError> for Refusal {
    fn from(error: FrameError) -> Self {
        Self::Gone(error)
    }
}
