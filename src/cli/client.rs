//! One connection to the daemon, and the questions that it answers at once. Operations, which take
//! their time and tell of it, are in [`super::operation`].

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;

use super::error::CliError;
use super::exit::Exit;
use crate::model::OpId;
use crate::wire::frame::{FrameError, Frames};
use crate::wire::hello::{DAEMON, HelloError};
use crate::wire::reply::{
    Answer, BlobInfo, CheckInfo, DefaultKernelInfo, DiagnosisInfo, DiskInfo, EndpointInfo,
    GarbageInfo, ImageConfigInfo, ImageInfo, ImageUsageInfo, KernelFeatureInfo, KernelInfo,
    KernelUsageInfo, LedgerInfo, OpInfo, ProgramInfo, Reply, StatsInfo, StatusInfo, UpkeepInfo,
    VmInfo, WorkspaceInfo,
};
use crate::wire::request::{Envelope, Request, Workspace};

const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// For what the daemon knows by heart.
const QUERY_LIMIT: Duration = Duration::from_secs(30);
/// Well below what a frame may have.
const MANIFEST_PIECE: usize = 512 << 10;
/// The doctor looks at many things.
const DOCTOR_LIMIT: Duration = Duration::from_secs(120);
/// The daemon keeps to the limit it was given; this much later it must be hanging.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct Client {
    frames: Frames,
    socket: PathBuf,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot reach the daemon at {}", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the daemon at {} did not greet", socket.display())]
    Greet { socket: PathBuf, source: FrameError },
    #[error("this banger speaks protocol {ours}, the daemon at {} {theirs}", socket.display())]
    Version { socket: PathBuf, ours: String, theirs: String },
    #[error("what listens at {} is not banger's daemon", socket.display())]
    Stranger { socket: PathBuf },
}

impl From<ConnectError> for CliError {
    fn from(error: ConnectError) -> Self {
        let message = crate::model::chain(&error);
        let failure = Self::new(Exit::Unreachable, message);
        match &error {
            ConnectError::Connect { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    failure.hint("the socket belongs to the user who runs the daemon: be that user")
                }
                _ => failure
                    .hint("start the daemon: bangerd (and, as root, banger-helper)")
                    .hint("or name its socket with --socket or BANGER_SOCKET"),
            },
            ConnectError::Greet { .. } => {
                failure.hint("the daemon may be overloaded or stopping; see its log")
            }
            ConnectError::Version { .. } => {
                failure.hint("use banger and bangerd of the same release; restart the daemon")
            }
            ConnectError::Stranger { .. } => {
                failure.hint("name the right socket with --socket or BANGER_SOCKET")
            }
        }
    }
}

impl Client {
    pub(crate) async fn connect(socket: &Path) -> Result<Self, ConnectError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|source| ConnectError::Connect { socket: socket.to_owned(), source })?;
        let socket = socket.to_owned();
        match Frames::connect(stream, DAEMON, GREETING_LIMIT).await {
            Ok(frames) => Ok(Self { frames, socket }),
            Err(FrameError::Hello(HelloError::Version { ours, theirs })) => {
                let (ours, theirs) = (ours.to_string(), theirs.to_string());
                Err(ConnectError::Version { socket, ours, theirs })
            }
            Err(FrameError::Hello(HelloError::NotBanger)) => Err(ConnectError::Stranger { socket }),
            Err(source) => Err(ConnectError::Greet { socket, source }),
        }
    }

    /// The same daemon, or the one that took its place.
    pub(crate) async fn reconnect(&mut self) -> Result<(), ConnectError> {
        *self = Self::connect(&self.socket).await?;
        Ok(())
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn protocol(&self) -> u16 {
        self.frames.version
    }

    pub(crate) async fn send(
        &mut self,
        op: OpId,
        limit: Option<Duration>,
        request: &Request,
    ) -> Result<(), FrameError> {
        let deadline_ms = limit.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(0));
        let envelope = Envelope { op_id: op.0, deadline_ms, request: request.clone() };
        // A daemon that turns us away says why and closes; the write may fail, the reason is there.
        match self.frames.send(&envelope).await {
            Err(FrameError::Io(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent,
        }
    }

    /// Cancel-safe. The end of the connection is an error here: every request has a last reply.
    pub(crate) async fn receive(&mut self) -> Result<Reply, FrameError> {
        self.frames.receive().await?.ok_or(FrameError::Closed)
    }

    /// The next reply of a stream; failures and lost connections are errors.
    pub(crate) async fn stream(&mut self) -> Result<Reply, CliError> {
        match self.receive().await {
            Ok(Reply::Failed(failure)) => Err(failure.into()),
            Ok(reply) => Ok(reply),
            Err(error) => Err(lost(&error)),
        }
    }

    /// One question, one answer.
    pub(crate) async fn ask(&mut self, op: OpId, request: Request) -> Result<Answer, CliError> {
        let looks = matches!(request, Request::Doctor | Request::FindGarbage);
        let limit = if looks { DOCTOR_LIMIT } else { QUERY_LIMIT };
        let answer = async {
            self.send(op, Some(limit), &request).await.map_err(|error| lost(&error))?;
            let mut parts = None;
            loop {
                match self.stream().await? {
                    Reply::Part(part) => parts = Some(join(parts, part)?),
                    Reply::Done(last) => return join(parts, last),
                    Reply::Accepted { .. } | Reply::Event(_) => {}
                    other @ (Reply::Bytes(_) | Reply::Failed(_)) => {
                        return Err(CliError::unexpected("an answer", &other));
                    }
                }
            }
        };
        let late = || CliError::failed(format!("the daemon gave no answer within {limit:?}"));
        let answer = tokio::time::timeout(limit + PATIENCE, answer).await;
        answer.unwrap_or_else(|_| Err(late())).map_err(|error| error.of(op))
    }

    pub(crate) async fn status(&mut self, op: OpId) -> Result<StatusInfo, CliError> {
        match self.ask(op, Request::Status).await? {
            Answer::Status(status) => Ok(*status),
            other => Err(CliError::unexpected("a status", &other).of(op)),
        }
    }

    pub(crate) async fn checks(&mut self, op: OpId) -> Result<Vec<CheckInfo>, CliError> {
        match self.ask(op, Request::Doctor).await? {
            Answer::Checks(checks) => Ok(checks),
            other => Err(CliError::unexpected("checks", &other).of(op)),
        }
    }

    pub(crate) async fn vms(&mut self, op: OpId) -> Result<Vec<VmInfo>, CliError> {
        match self.ask(op, Request::ListVms).await? {
            Answer::Vms(vms) => Ok(vms),
            other => Err(CliError::unexpected("VMs", &other).of(op)),
        }
    }

    pub(crate) async fn vm(&mut self, op: OpId, vm: &str) -> Result<VmInfo, CliError> {
        match self.ask(op, Request::ShowVm { vm: vm.to_owned() }).await? {
            Answer::Vms(vms) => only(vms, "a VM").map_err(|error| error.of(op)),
            other => Err(CliError::unexpected("a VM", &other).of(op)),
        }
    }

    pub(crate) async fn disk(&mut self, op: OpId, vm: &str) -> Result<DiskInfo, CliError> {
        match self.ask(op, Request::ShowDisk { vm: vm.to_owned() }).await? {
            Answer::Disk(disk) => Ok(*disk),
            other => Err(CliError::unexpected("a disk", &other).of(op)),
        }
    }

    /// Of these VMs, or, if none is named, of all.
    pub(crate) async fn upkeep(
        &mut self,
        op: OpId,
        vms: Vec<String>,
    ) -> Result<Vec<UpkeepInfo>, CliError> {
        match self.ask(op, Request::ShowUpkeep { vms }).await? {
            Answer::Upkeep(upkeep) => Ok(upkeep),
            other => Err(CliError::unexpected("how VMs are kept", &other).of(op)),
        }
    }

    pub(crate) async fn ledger(&mut self, op: OpId, vm: &str) -> Result<Vec<LedgerInfo>, CliError> {
        match self.ask(op, Request::ShowLedger { vm: Some(vm.to_owned()) }).await? {
            Answer::Ledger(rows) => Ok(rows),
            other => Err(CliError::unexpected("the ledger", &other).of(op)),
        }
    }

    pub(crate) async fn garbage(&mut self, op: OpId) -> Result<Vec<GarbageInfo>, CliError> {
        match self.ask(op, Request::FindGarbage).await? {
            Answer::Garbage(found) => Ok(found),
            other => Err(CliError::unexpected("what was found", &other).of(op)),
        }
    }

    pub(crate) async fn diagnosis(
        &mut self,
        op: OpId,
        vm: &str,
    ) -> Result<DiagnosisInfo, CliError> {
        match self.ask(op, Request::DiagnoseVm { vm: vm.to_owned() }).await? {
            Answer::Diagnosis(diagnosis) => Ok(*diagnosis),
            other => Err(CliError::unexpected("what is wrong", &other).of(op)),
        }
    }

    /// Of these VMs, or, if none is named, of all.
    pub(crate) async fn workspaces(
        &mut self,
        op: OpId,
        vms: Vec<String>,
    ) -> Result<Vec<WorkspaceInfo>, CliError> {
        match self.ask(op, Request::ShowWorkspaces { vms }).await? {
            Answer::Workspaces(workspaces) => Ok(workspaces),
            other => Err(CliError::unexpected("workspaces", &other).of(op)),
        }
    }

    pub(crate) async fn manifest(&mut self, op: OpId, vm: &str) -> Result<Vec<u8>, CliError> {
        let request = Request::ShowManifest { vm: vm.to_owned() };
        self.send(op, Some(QUERY_LIMIT), &request).await.map_err(|error| lost(&error))?;
        let mut manifest = vec![];
        loop {
            match self.stream().await.map_err(|error| error.of(op))? {
                Reply::Bytes(piece) => manifest.extend(piece),
                Reply::Done(_) => return Ok(manifest),
                other => return Err(CliError::unexpected("a manifest", &other).of(op)),
            }
        }
    }

    pub(crate) async fn record_workspace(
        &mut self,
        op: OpId,
        vm: &str,
        workspace: Workspace,
        manifest: &[u8],
    ) -> Result<(), CliError> {
        for piece in manifest.chunks(MANIFEST_PIECE) {
            self.ask(op, Request::ManifestPiece { bytes: piece.to_vec() }).await?;
        }
        let request = Request::RecordWorkspace { vm: vm.to_owned(), workspace };
        self.ask(op, request).await.map(drop)
    }

    pub(crate) async fn endpoint(&mut self, op: OpId, vm: &str) -> Result<EndpointInfo, CliError> {
        match self.ask(op, Request::Endpoint { vm: vm.to_owned() }).await? {
            Answer::Endpoint(endpoint) => Ok(*endpoint),
            other => Err(CliError::unexpected("an endpoint", &other).of(op)),
        }
    }

    /// How commands run in a VM if nobody says otherwise, as its image says.
    pub(crate) async fn program(
        &mut self,
        op: OpId,
        vm: &str,
    ) -> Result<Option<ProgramInfo>, CliError> {
        match self.ask(op, Request::ShowProgram { vm: vm.to_owned() }).await? {
            Answer::Program(program) => Ok(program.map(|program| *program)),
            other => Err(CliError::unexpected("an image's program", &other).of(op)),
        }
    }

    /// How an image is run, if it says so.
    pub(crate) async fn image_config(
        &mut self,
        op: OpId,
        name: &str,
    ) -> Result<Option<ImageConfigInfo>, CliError> {
        match self.ask(op, Request::ShowImageConfig { name: name.to_owned() }).await? {
            Answer::ImageConfig(config) => Ok(config.map(|config| *config)),
            other => Err(CliError::unexpected("how an image is run", &other).of(op)),
        }
    }

    pub(crate) async fn lane(&mut self, op: OpId, vm: &str) -> Result<PathBuf, CliError> {
        match self.ask(op, Request::Lane { vm: vm.to_owned() }).await? {
            Answer::Lane { socket } => Ok(socket.into()),
            other => Err(CliError::unexpected("a lane", &other).of(op)),
        }
    }

    pub(crate) async fn stats(
        &mut self,
        op: OpId,
        vms: Vec<String>,
    ) -> Result<Vec<StatsInfo>, CliError> {
        match self.ask(op, Request::Stats { vms }).await? {
            Answer::Stats(stats) => Ok(stats),
            other => Err(CliError::unexpected("statistics", &other).of(op)),
        }
    }

    pub(crate) async fn images(
        &mut self,
        op: OpId,
        request: Request,
    ) -> Result<Vec<ImageInfo>, CliError> {
        match self.ask(op, request).await? {
            Answer::Images(images) => Ok(images),
            other => Err(CliError::unexpected("images", &other).of(op)),
        }
    }

    pub(crate) async fn image_usage(&mut self, op: OpId) -> Result<Vec<ImageUsageInfo>, CliError> {
        match self.ask(op, Request::ImageUsage).await? {
            Answer::ImageUsage(usage) => Ok(usage),
            other => Err(CliError::unexpected("what images take", &other).of(op)),
        }
    }

    pub(crate) async fn blobs(&mut self, op: OpId) -> Result<Vec<BlobInfo>, CliError> {
        match self.ask(op, Request::ListBlobs).await? {
            Answer::Blobs(blobs) => Ok(blobs),
            other => Err(CliError::unexpected("what is cached", &other).of(op)),
        }
    }

    pub(crate) async fn kernel_usage(
        &mut self,
        op: OpId,
    ) -> Result<Vec<KernelUsageInfo>, CliError> {
        match self.ask(op, Request::KernelUsage).await? {
            Answer::KernelUsage(usage) => Ok(usage),
            other => Err(CliError::unexpected("what kernels take", &other).of(op)),
        }
    }

    pub(crate) async fn default_kernel(
        &mut self,
        op: OpId,
        request: Request,
    ) -> Result<Option<DefaultKernelInfo>, CliError> {
        match self.ask(op, request).await? {
            Answer::DefaultKernel(default) => Ok(default.map(|default| *default)),
            other => Err(CliError::unexpected("the default kernel", &other).of(op)),
        }
    }

    pub(crate) async fn kernel_features(
        &mut self,
        op: OpId,
        name: &str,
    ) -> Result<Vec<KernelFeatureInfo>, CliError> {
        match self.ask(op, Request::ShowKernelFeatures { name: name.to_owned() }).await? {
            Answer::KernelFeatures(features) => Ok(features),
            other => Err(CliError::unexpected("features", &other).of(op)),
        }
    }

    pub(crate) async fn kernels(
        &mut self,
        op: OpId,
        request: Request,
    ) -> Result<Vec<KernelInfo>, CliError> {
        match self.ask(op, request).await? {
            Answer::Kernels(kernels) => Ok(kernels),
            other => Err(CliError::unexpected("kernels", &other).of(op)),
        }
    }

    pub(crate) async fn ops(
        &mut self,
        op: OpId,
        request: Request,
    ) -> Result<Vec<OpInfo>, CliError> {
        match self.ask(op, request).await? {
            Answer::Ops(ops) => Ok(ops),
            other => Err(CliError::unexpected("operations", &other).of(op)),
        }
    }
}

/// The one object that was asked for.
pub(crate) fn only<T: std::fmt::Debug>(list: Vec<T>, what: &str) -> Result<T, CliError> {
    let mut list = list.into_iter();
    match (list.next(), list.next()) {
        (Some(one), None) => Ok(one),
        (first, second) => Err(CliError::unexpected(what, &(first, second))),
    }
}

pub(crate) fn lost(error: &FrameError) -> CliError {
    CliError::from_error("lost the daemon", error).hint("see how it is: banger daemon status")
}

/// Pieces of a long list, put together again.
fn join(before: Option<Answer>, next: Answer) -> Result<Answer, CliError> {
    let Some(before) = before else { return Ok(next) };
    Ok(match (before, next) {
        (Answer::Vms(a), Answer::Vms(b)) => Answer::Vms(concat(a, b)),
        (Answer::Images(a), Answer::Images(b)) => Answer::Images(concat(a, b)),
        (Answer::ImageUsage(a), Answer::ImageUsage(b)) => Answer::ImageUsage(concat(a, b)),
        (Answer::Blobs(a), Answer::Blobs(b)) => Answer::Blobs(concat(a, b)),
        (Answer::Kernels(a), Answer::Kernels(b)) => Answer::Kernels(concat(a, b)),
        (Answer::KernelUsage(a), Answer::KernelUsage(b)) => Answer::KernelUsage(concat(a, b)),
        (Answer::Ops(a), Answer::Ops(b)) => Answer::Ops(concat(a, b)),
        (Answer::Stats(a), Answer::Stats(b)) => Answer::Stats(concat(a, b)),
        (Answer::Upkeep(a), Answer::Upkeep(b)) => Answer::Upkeep(concat(a, b)),
        (Answer::Ledger(a), Answer::Ledger(b)) => Answer::Ledger(concat(a, b)),
        (Answer::Garbage(a), Answer::Garbage(b)) => Answer::Garbage(concat(a, b)),
        (Answer::Workspaces(a), Answer::Workspaces(b)) => Answer::Workspaces(concat(a, b)),
        (Answer::Checks(a), Answer::Checks(b)) => Answer::Checks(concat(a, b)),
        (before, Answer::Nothing) => before,
        (_, other) => return Err(CliError::unexpected("the rest of a list", &other)),
    })
}

fn concat<T>(mut a: Vec<T>, b: Vec<T>) -> Vec<T> {
    a.extend(b);
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::hello::Protocol;

    #[tokio::test]
    async fn another_protocol_version_is_told_by_both_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = tokio::net::UnixListener::bind(&socket).unwrap();
        let newer = Protocol { min: 7, max: 9, ..DAEMON };
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            Frames::accept(stream, newer, GREETING_LIMIT).await.unwrap_err()
        };
        let (client, _) = tokio::join!(Client::connect(&socket), server);
        let error = CliError::from(client.unwrap_err());
        assert_eq!(error.exit, Exit::Unreachable);
        assert!(error.message.contains("protocol version 1, "), "{error}");
        assert!(error.message.contains("versions 7 to 9"), "{error}");
    }

    #[tokio::test]
    async fn nobody_there_is_told_with_the_path_and_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("none.sock");
        let error = CliError::from(Client::connect(&socket).await.unwrap_err());
        assert!(error.message.contains("none.sock: No such file"), "{error}");
        assert_eq!(error.hints.len(), 2);
    }

    #[test]
    fn parts_of_one_kind_join() {
        let joined = join(Some(Answer::Ops(vec![])), Answer::Nothing).unwrap();
        assert_eq!(joined, Answer::Ops(vec![]));
        assert!(join(Some(Answer::Ops(vec![])), Answer::Vms(vec![])).is_err());
    }
}
