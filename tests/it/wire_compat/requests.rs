//! Samples of every request.

use banger::wire::request::{
    CreateVm, DiskBackend, Envelope, EventsOf, Health, ImageSource, KernelSource, LogSource, Logs,
    PullWhen, Request, Restart, Since, Upkeep, Vmm, Workspace,
};

use super::{check, every};

every!(request: Request {
    Ping Status Doctor CreateVm StartVm StopVm KillVm RestartVm DeleteVm ListVms ShowVm Endpoint
    Logs BuildDebian ImportImage ListImages ShowImage DeleteImage ImportKernel ListKernels
    ShowKernel DeleteKernel ListOps ShowOp WatchOp CancelOp Events Lane Stats CreateVmOn ShowDisk
    SuspendVm ResumeVm StartVmCold SetVm EventsOf CreateVmKept SetVmKept ShowUpkeep ListOpenOps
    StartVmRepaired PutAwayVm ShowLedger FindGarbage CollectGarbage DiagnoseVm RecoverVm
    ManifestPiece RecordWorkspace ShowWorkspaces ShowManifest CreateVmRun ShowProgram
    ShowImageConfig TagImage ImageUsage PullImage WithdrawOp CommitVm ExportImage
    ShowKernelFeatures ListBlobs EmptyCache ExportImageBundle ExportKernel ShowDefaultKernel
    SetDefaultKernel KernelUsage PullKernel
});
every!(disk: DiskBackend { Auto Reflink DmSnapshot Overlay });
every!(since: Since { Seq UnixMs });
every!(restart: Restart { No OnFailure Always });
every!(pull_when: PullWhen { Always Missing });
every!(vmm: Vmm { Auto Qemu Firecracker });
every!(log_source: LogSource { Serial Vmm });
every!(image_source: ImageSource { Tar Directory Url Containerfile });
every!(kernel_source: KernelSource { Deb Files Packages Url });

fn s(text: &str) -> String {
    text.to_owned()
}

fn upkeep() -> Upkeep {
    let health = Health {
        command: Some(s("curl -f localhost")),
        interval_ms: Some(5000),
        timeout_ms: None,
        retries: Some(2),
        start_period_ms: None,
    };
    Upkeep { restart: Some(Restart::OnFailure { max: Some(3) }), health: Some(health) }
}

#[test]
fn restarts() {
    let samples = [Restart::No, Restart::OnFailure { max: None }, Restart::Always];
    check("restart", restart::ALL, restart::name, &samples);
}

#[test]
fn requests() {
    let create = CreateVm {
        name: Some(s("web")),
        image: Some(s("debian-bookworm")),
        kernel: None,
        vcpu: Some(2),
        memory_mib: Some(1024),
        disk_bytes: Some(8 << 30),
        work_disk_bytes: None,
        nat: true,
        env: vec![(s("A"), s("b c"))],
        vmm: Vmm::Qemu,
        start: true,
    };
    let logs = Logs { vm: s("web"), source: LogSource::Serial, tail: Some(20), follow: true };
    let samples = [
        Request::Ping,
        Request::Status,
        Request::Doctor,
        Request::CreateVm(create.clone()),
        Request::StartVm { vm: s("web") },
        Request::StopVm { vm: s("web"), grace_ms: Some(20_000) },
        Request::KillVm { vm: s("web"), signal: 9 },
        Request::RestartVm { vm: s("web"), grace_ms: None },
        Request::DeleteVm { vm: s("web") },
        Request::ListVms,
        Request::ShowVm { vm: s("web") },
        Request::Endpoint { vm: s("web") },
        Request::Logs(logs),
        Request::BuildDebian {
            name: s("dev"),
            suite: s("bookworm"),
            include: vec![s("git"), s("curl")],
            mirror: Some(s("http://deb.debian.org/debian")),
        },
        Request::ImportImage { name: s("mine"), source: ImageSource::Tar { path: s("/r.tar") } },
        Request::ListImages,
        Request::ShowImage { name: s("mine") },
        Request::DeleteImage { name: s("mine") },
        Request::ImportKernel { name: s("k"), source: KernelSource::Deb { path: s("/k.deb") } },
        Request::ListKernels,
        Request::ShowKernel { name: s("k") },
        Request::DeleteKernel { name: s("k") },
        Request::ListOps { limit: 20 },
        Request::ShowOp { op: s("op-01") },
        Request::WatchOp { op: s("op-01") },
        Request::CancelOp { op: s("op-01") },
        Request::Events { since: 7, follow: true },
        Request::Lane { vm: s("web") },
        Request::Stats { vms: vec![s("web"), s("db")] },
        Request::CreateVmOn {
            create,
            disk: DiskBackend::DmSnapshot,
            console: true,
            warm: Some(true),
        },
        Request::ShowDisk { vm: s("web") },
        Request::SuspendVm { vm: s("web") },
        Request::ResumeVm { vm: s("web") },
        Request::StartVmCold { vm: s("web") },
        Request::SetVm {
            vm: s("web"),
            vcpu: Some(2),
            memory_mib: None,
            disk_bytes: Some(1 << 30),
            work_disk_bytes: None,
        },
        Request::EventsOf(EventsOf {
            since: Since::Seq(7),
            vm: Some(s("web")),
            op: Some(s("op-01")),
            follow: true,
        }),
        Request::CreateVmKept {
            create: CreateVm::default(),
            disk: DiskBackend::Auto,
            console: false,
            warm: Some(true),
            upkeep: upkeep(),
        },
        Request::SetVmKept {
            vm: s("web"),
            vcpu: None,
            memory_mib: Some(512),
            disk_bytes: None,
            work_disk_bytes: None,
            upkeep: Upkeep { health: None, ..upkeep() },
        },
        Request::ShowUpkeep { vms: vec![s("web")] },
        Request::ListOpenOps,
        Request::StartVmRepaired { vm: s("web") },
        Request::PutAwayVm { vm: s("web"), stop: true },
        Request::ShowLedger { vm: Some(s("web")) },
        Request::FindGarbage,
        Request::CollectGarbage,
        Request::DiagnoseVm { vm: s("web") },
        Request::RecoverVm { vm: s("web") },
        Request::ManifestPiece { bytes: vec![1, 2, 3] },
        Request::RecordWorkspace {
            vm: s("web"),
            workspace: Workspace {
                guest_path: s("/root/repo"),
                host_path: s("/home/me/repo"),
                head: s("1a2b"),
                branch: Some(s("main")),
                mode: s("shallow"),
                include_untracked: true,
                exclude: vec![s("*.o")],
                include_ignored: vec![s("dist/**")],
                files: 3,
                bytes: 1_000_000,
                manifest: [3; 32],
            },
        },
        Request::ShowWorkspaces { vms: vec![s("web")] },
        Request::ShowManifest { vm: s("web") },
        Request::CreateVmRun {
            create: CreateVm { image: Some(s("nginx")), ..CreateVm::default() },
            disk: DiskBackend::Overlay,
            console: true,
            warm: Some(true),
            upkeep: upkeep(),
            runs: true,
        },
        Request::ShowProgram { vm: s("web") },
        Request::ShowImageConfig { name: s("nginx") },
        Request::TagImage { name: s("web"), tag: s("web-before") },
        Request::ImageUsage,
        Request::PullImage { image: s("python:3.12"), when: PullWhen::Missing },
        Request::WithdrawOp { op: s("op-01") },
        Request::CommitVm { vm: s("web"), image: s("web-base") },
        Request::ExportImage { name: s("web") },
        Request::ShowKernelFeatures { name: s("debian") },
        Request::ListBlobs,
        Request::EmptyCache,
        Request::ExportImageBundle { name: s("web"), kernel: Some(s("debian-6.1")) },
        Request::ExportKernel { name: s("debian-6.1") },
        Request::ShowDefaultKernel,
        Request::SetDefaultKernel { name: Some(s("debian")) },
        Request::KernelUsage,
        Request::PullKernel {
            package: s("linux-image-cloud-amd64"),
            suite: Some(s("bookworm-backports")),
            name: Some(s("next")),
        },
    ];
    check("request", request::ALL, request::name, &samples);
}

#[test]
fn parts_of_requests() {
    check("since", since::ALL, since::name, &[Since::Seq(7), Since::UnixMs(1_700_000_000_000)]);
    let whens = [PullWhen::Always, PullWhen::Missing];
    check("pull-when", pull_when::ALL, pull_when::name, &whens);
    check("vmm", vmm::ALL, vmm::name, &[Vmm::Auto, Vmm::Qemu, Vmm::Firecracker]);
    let backends =
        [DiskBackend::Auto, DiskBackend::Reflink, DiskBackend::DmSnapshot, DiskBackend::Overlay];
    check("disk", disk::ALL, disk::name, &backends);
    let sources = [LogSource::Serial, LogSource::Vmm];
    check("log-source", log_source::ALL, log_source::name, &sources);
    let sources = [
        ImageSource::Tar { path: s("/rootfs.tar") },
        ImageSource::Directory { path: s("/rootfs") },
        ImageSource::Url { url: s("https://example.org/web"), sha256: [7; 32] },
        ImageSource::Containerfile {
            context: s("/src"),
            file: Some(s("/src/Dockerfile")),
            target: Some(s("release")),
            arguments: vec![s("VERSION=1")],
        },
    ];
    check("image-source", image_source::ALL, image_source::name, &sources);
    let sources = [
        KernelSource::Deb { path: s("/linux.deb") },
        KernelSource::Files { kernel: s("/vmlinux"), modules: Some(s("/modules")) },
        KernelSource::Packages { paths: vec![s("/linux.rpm"), s("/modules.rpm")] },
        KernelSource::Url { url: s("https://example.org/k"), sha256: [8; 32] },
    ];
    check("kernel-source", kernel_source::ALL, kernel_source::name, &sources);
}

#[test]
fn the_envelope() {
    let envelope = Envelope { op_id: [7; 16], deadline_ms: 30_000, request: Request::Ping };
    super::golden("envelope", &envelope);
}
