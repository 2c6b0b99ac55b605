//! What the CLI asks the daemon. Append only: a changed payload is a new variant at the end.

use super::codec::{Decode, Encode};

/// One request. The op id is the idempotency key: sent again with the same contents it answers
/// with what is known, sent again with other contents it is refused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Envelope {
    pub op_id: [u8; 16],
    /// How long the caller waits for an answer. It never ends an operation. Zero: no limit.
    pub deadline_ms: u64,
    pub request: Request,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Request {
    Ping,
    Status,
    Doctor,
    /// Operations: they answer `Accepted`, then events, then `Done`.
    CreateVm(CreateVm),
    StartVm {
        vm: String,
    },
    StopVm {
        vm: String,
        grace_ms: Option<u64>,
    },
    KillVm {
        vm: String,
        signal: i32,
    },
    RestartVm {
        vm: String,
        grace_ms: Option<u64>,
    },
    DeleteVm {
        vm: String,
    },
    ListVms,
    ShowVm {
        vm: String,
    },
    /// How to dial the guest: refused unless the VM runs.
    Endpoint {
        vm: String,
    },
    Logs(Logs),
    BuildDebian {
        name: String,
        suite: String,
        include: Vec<String>,
        mirror: Option<String>,
    },
    ImportImage {
        name: String,
        source: ImageSource,
    },
    ListImages,
    ShowImage {
        name: String,
    },
    DeleteImage {
        name: String,
    },
    ImportKernel {
        name: String,
        source: KernelSource,
    },
    ListKernels,
    ShowKernel {
        name: String,
    },
    DeleteKernel {
        name: String,
    },
    ListOps {
        limit: u32,
    },
    /// By id or unique prefix of it.
    ShowOp {
        op: String,
    },
    /// Replays the operation's events, then follows it to its end.
    WatchOp {
        op: String,
    },
    CancelOp {
        op: String,
    },
    /// Events from `since` (a sequence number) on, those to come if there is no such number yet; with
    /// `follow` the stream does not end.
    Events {
        since: u64,
        follow: bool,
    },
    /// Where the guest's lane is, the VM owner's short way to run a command in it: refused unless
    /// the VM runs. The socket may be missing.
    Lane {
        vm: String,
    },
    /// What these VMs take of the host, or, if none is named, all that run.
    Stats {
        vms: Vec<String>,
    },
    /// As `CreateVm`, with words on how its root disk and its guest are made.
    CreateVmOn {
        create: CreateVm,
        disk: DiskBackend,
        /// Whether it gets a serial console where that costs speed.
        console: bool,
        /// Whether it may start from the memory of a guest that has booted; if not given, as the
        /// daemon's configuration says.
        warm: Option<bool>,
    },
    /// How a VM's root disk is made, and how it does.
    ShowDisk {
        vm: String,
    },
    SuspendVm {
        vm: String,
    },
    ResumeVm {
        vm: String,
    },
    /// Starts a VM from its disks, also one that is suspended: what it had in memory is lost.
    StartVmCold {
        vm: String,
    },
    /// An operation. What is not given stays.
    SetVm {
        vm: String,
        vcpu: Option<u32>,
        memory_mib: Option<u32>,
        disk_bytes: Option<u64>,
        work_disk_bytes: Option<u64>,
    },
    EventsOf(EventsOf),
    /// As `CreateVmOn`, with words on how it is kept running.
    CreateVmKept {
        create: CreateVm,
        disk: DiskBackend,
        console: bool,
        warm: Option<bool>,
        upkeep: Upkeep,
    },
    /// As `SetVm`, with what is to be different of how it is kept running.
    SetVmKept {
        vm: String,
        vcpu: Option<u32>,
        memory_mib: Option<u32>,
        disk_bytes: Option<u64>,
        work_disk_bytes: Option<u64>,
        upkeep: Upkeep,
    },
    /// How these VMs, or, if none is named, all, are kept running, and how they do.
    ShowUpkeep {
        vms: Vec<String>,
    },
    /// Those that have not ended, newest first.
    ListOpenOps,
    /// Starts a VM after a repair of its disks, at the price of what cannot be kept of them.
    StartVmRepaired {
        vm: String,
    },
    /// An operation: the host goes down, and the VM is stopped or suspended as the daemon's
    /// configuration says; with `stop` it is stopped anyway. What its owner wants of it stays.
    PutAwayVm {
        vm: String,
        stop: bool,
    },
    /// What VMs, or this one, hold of the host by the ledger, and the taps.
    ShowLedger {
        vm: Option<String>,
    },
    /// What ledger and host disagree on. Changes nothing.
    FindGarbage,
    /// An operation: deals with what `FindGarbage` finds, where that is banger's to do.
    CollectGarbage,
    /// What is wrong with a VM, and what `RecoverVm` would do. Changes nothing.
    DiagnoseVm {
        vm: String,
    },
    /// Does what `DiagnoseVm` says. An operation, if that takes one.
    RecoverVm {
        vm: String,
    },
    /// A piece of a manifest, for the `RecordWorkspace` that follows on the same connection.
    ManifestPiece {
        bytes: Vec<u8>,
    },
    /// What was prepared in the VM, in place of what was before.
    RecordWorkspace {
        vm: String,
        workspace: Workspace,
    },
    /// Of these VMs, or, if none is named, of all that have one.
    ShowWorkspaces {
        vms: Vec<String>,
    },
    /// Answered by bytes, as they were sent.
    ShowManifest {
        vm: String,
    },
    /// As `CreateVmKept`, with whether the program of its image runs from every start on.
    CreateVmRun {
        create: CreateVm,
        disk: DiskBackend,
        console: bool,
        warm: Option<bool>,
        upkeep: Upkeep,
        runs: bool,
    },
    /// What the image of a VM says of how commands run in it.
    ShowProgram {
        vm: String,
    },
    /// What an image says of how it is run.
    ShowImageConfig {
        name: String,
    },
    /// An operation: one more name for an image.
    TagImage {
        name: String,
        tag: String,
    },
    /// What images take, and which of their names nobody needs.
    ImageUsage,
    /// An operation, unless nothing is to be done: the image comes from its registry. Who asks while
    /// it comes is told of the operation that is under way.
    PullImage {
        image: String,
        when: PullWhen,
    },
    /// Whoever asked under this operation id does not want it any more. It is cancelled if nobody
    /// else does, else refused.
    WithdrawOp {
        op: String,
    },
    /// An operation: the root of a VM that is stopped becomes an image.
    CommitVm {
        vm: String,
        image: String,
    },
    /// Answered by bytes: an OCI layout in one archive.
    ExportImage {
        name: String,
    },
    /// What guests of a kernel have.
    ShowKernelFeatures {
        name: String,
    },
    /// What came from registries and is kept for later pulls.
    ListBlobs,
    /// An operation: nothing of that is kept.
    EmptyCache,
    /// Answered by bytes: the image as a bundle, which says that it wants this kernel, or the one that
    /// is known.
    ExportImageBundle {
        name: String,
        kernel: Option<String>,
    },
    /// Answered by bytes: the kernel as a bundle.
    ExportKernel {
        name: String,
    },
    /// Which kernel VMs boot whose owners name none.
    ShowDefaultKernel,
    /// Without a name it is the newest.
    SetDefaultKernel {
        name: Option<String>,
    },
    /// What kernels take, and which of their names nobody needs.
    KernelUsage,
    /// An operation: a kernel of Debian's packages, through the host's sources.
    PullKernel {
        package: String,
        suite: Option<String>,
        /// The package's, if not given.
        name: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum PullWhen {
    /// Whatever is here; what its registry has is compared.
    Always,
    /// Nothing of that name is here.
    Missing,
}

/// A repository that was sent into a VM.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Workspace {
    pub guest_path: String,
    pub host_path: String,
    pub head: String,
    pub branch: Option<String>,
    /// `shallow`, `full_copy`.
    pub mode: String,
    pub include_untracked: bool,
    pub exclude: Vec<String>,
    pub include_ignored: Vec<String>,
    pub files: u64,
    pub bytes: u64,
    /// SHA-256 of the manifest's pieces.
    pub manifest: [u8; 32],
}

/// What is not given comes from the daemon's configuration, or stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Upkeep {
    pub restart: Option<Restart>,
    pub health: Option<Health>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Restart {
    No,
    OnFailure { max: Option<u32> },
    Always,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Health {
    /// For `sh -c` in the guest; empty ends the checks.
    pub command: Option<String>,
    pub interval_ms: Option<u64>,
    pub timeout_ms: Option<u64>,
    pub retries: Option<u32>,
    pub start_period_ms: Option<u64>,
}

/// Whatever is not given comes from the daemon's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct CreateVm {
    pub name: Option<String>,
    pub image: Option<String>,
    pub kernel: Option<String>,
    pub vcpu: Option<u32>,
    pub memory_mib: Option<u32>,
    pub disk_bytes: Option<u64>,
    pub work_disk_bytes: Option<u64>,
    pub nat: bool,
    pub env: Vec<(String, String)>,
    pub vmm: Vmm,
    /// Boot it in the same operation.
    pub start: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Vmm {
    #[default]
    Auto,
    Qemu,
    Firecracker,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum DiskBackend {
    #[default]
    Auto,
    Reflink,
    DmSnapshot,
    Overlay,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Logs {
    pub vm: String,
    pub source: LogSource,
    /// The last so many lines; all of them if not given.
    pub tail: Option<u32>,
    pub follow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum LogSource {
    Serial,
    Vmm,
}

/// Paths are absolute and read by the daemon, as its own user.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum ImageSource {
    Tar {
        path: String,
    },
    Directory {
        path: String,
    },
    /// A bundle with this digest.
    Url {
        url: String,
        sha256: [u8; 32],
    },
    /// Built by buildah; paths are absolute.
    Containerfile {
        context: String,
        file: Option<String>,
        target: Option<String>,
        arguments: Vec<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum KernelSource {
    /// One package; [`Self::Packages`] says the same.
    Deb {
        path: String,
    },
    Files {
        kernel: String,
        modules: Option<String>,
    },
    /// Of one kernel, of Debian's form or RPM's; or one bundle.
    Packages {
        paths: Vec<String>,
    },
    /// A bundle with this digest.
    Url {
        url: String,
        sha256: [u8; 32],
    },
}

/// Events from `since` on, of one VM or one operation if named; with `follow` the stream does not
/// end. Numbers have no gap over restarts of the daemon, so a reader goes on with the number after
/// the last that it has seen.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct EventsOf {
    pub since: Since,
    /// By name, also of VMs that are gone, or by id.
    pub vm: Option<String>,
    /// By id or unique prefix of it.
    pub op: Option<String>,
    pub follow: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Since {
    /// 0: whatever is kept. A number that there is not yet: what comes.
    Seq(u64),
    UnixMs(u64),
}
