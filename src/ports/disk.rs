//! A VM's private files.

use std::path::{Path, PathBuf};

use super::{BaseImage, PortFuture};
use crate::model::{
    DiskBackend, DiskChoice, DiskUsage, HostSeen, OpId, RootDisk, SavedBy, Size, VmId, VmSpec,
};

/// Where everything of one VM lives: two directories named after its id. Pure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmPaths {
    /// `<state>/vms/<id>`: lives as long as the VM.
    pub dir: PathBuf,
    /// `<run>/<short id>`: lives as long as its process. Short, because sockets live here and a
    /// Unix socket's path ends at 108 bytes.
    pub run: PathBuf,
}

impl VmPaths {
    #[must_use]
    pub fn new(vms: &Path, run: &Path, vm: VmId) -> Self {
        Self { dir: vms.join(vm.to_string()), run: run.join(vm.short()) }
    }

    #[must_use]
    pub fn overlay(&self) -> PathBuf {
        self.dir.join("overlay.ext4")
    }

    /// A root disk that is a clone of its image.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.dir.join("root.ext4")
    }

    /// What a guest changed of a root disk that is a device over its image.
    #[must_use]
    pub fn changes(&self) -> PathBuf {
        self.dir.join("root.cow")
    }

    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.dir.join("work.ext4")
    }

    /// The configuration drive: see `banger_agent::contract::drive`.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("config.img")
    }

    /// The guest's serial console, capped in size; `serial.log.1` holds what came before.
    #[must_use]
    pub fn serial_log(&self) -> PathBuf {
        self.dir.join("serial.log")
    }

    /// What was said of the disk that was checked last and found damaged.
    #[must_use]
    pub fn check_log(&self) -> PathBuf {
        self.dir.join("check.log")
    }

    /// What the VMM itself printed.
    #[must_use]
    pub fn vmm_log(&self) -> PathBuf {
        self.dir.join("vmm.log")
    }

    /// What is being written of a guest's memory. Its two files are there before anybody writes,
    /// for a VMM may be able to open files that it was given, and to make none.
    #[must_use]
    pub fn saving(&self) -> SavedPaths {
        SavedPaths::within(self.dir.join("saving"))
    }

    /// A suspended guest's memory, whole.
    #[must_use]
    pub fn saved(&self) -> SavedPaths {
        SavedPaths::within(self.dir.join("saved"))
    }

    /// What a VMM in a jail has of the run directory. The daemon reaches it by its group.
    #[must_use]
    pub fn sockets(&self) -> PathBuf {
        self.run.join("s")
    }

    /// QEMU's API, QMP.
    #[must_use]
    pub fn api_socket(&self) -> PathBuf {
        self.run.join("api.sock")
    }

    /// Firecracker's API. That it is there is how a VM's VMM is told when all else is lost.
    #[must_use]
    pub fn firecracker_socket(&self) -> PathBuf {
        self.sockets().join("fc.sock")
    }

    /// Where Firecracker takes connections to the guest's vsock ports.
    #[must_use]
    pub fn vsock_socket(&self) -> PathBuf {
        self.sockets().join("vsock.sock")
    }

    /// Where it brings connections that the guest makes to a vsock port of the host.
    #[must_use]
    pub fn vsock_listener(&self, port: u32) -> PathBuf {
        self.sockets().join(format!("vsock.sock_{port}"))
    }

    /// What Firecracker counted, which it goes on writing.
    #[must_use]
    pub fn firecracker_metrics(&self) -> PathBuf {
        self.sockets().join("metrics")
    }

    /// The sums of what it counted and was given back.
    #[must_use]
    pub fn firecracker_sums(&self) -> PathBuf {
        self.run.join("metrics.sums")
    }

    /// The agent's control port, where it is a virtio-serial port.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.run.join("control.sock")
    }

    /// The guest's lane, for one client at a time, who holds a lock on the directory.
    #[must_use]
    pub fn lane_socket(&self) -> PathBuf {
        self.run.join("lane.sock")
    }
}

/// What there is of a guest whose memory was written out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedPaths {
    pub dir: PathBuf,
    pub memory: PathBuf,
    /// The devices' state, where the VMM keeps it apart.
    pub state: PathBuf,
    /// Who wrote it: a [`crate::model::SavedBy`] in words.
    pub by: PathBuf,
}

impl SavedPaths {
    fn within(dir: PathBuf) -> Self {
        let [memory, state, by] = ["memory", "state", "by"].map(|name| dir.join(name));
        Self { dir, memory, state, by }
    }
}

/// What disks a VM gets. The UUIDs are those that fresh ext4 file systems get; they are derived from
/// the VM's id ([`DiskPlan::for_vm`]), so that a repeated step makes the same disks. A disk that is
/// a copy of another has that one's: ask [`DiskHost::as_made`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskPlan {
    pub root: RootPlan,
    pub work: Size,
    pub work_uuid: [u8; 16],
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RootPlan {
    /// An empty disk; the guest lays it over the image.
    Overlay { size: Size, uuid: [u8; 16] },
    /// A clone of the image, so much larger than it. Its UUID is the image's.
    Reflink { room: Size },
    /// A device over the image, so much larger than it, that is opened for each run. Its UUID is the
    /// image's.
    DmSnapshot { room: Size },
}

impl DiskPlan {
    #[must_use]
    pub fn for_vm(vm: VmId, spec: &VmSpec) -> Self {
        let tagged = |tag: u8| {
            let mut uuid = vm.0;
            uuid[15] ^= tag;
            uuid
        };
        let root = match spec.root.backend {
            DiskBackend::Overlay => RootPlan::Overlay { size: spec.disk, uuid: tagged(1) },
            DiskBackend::Reflink => RootPlan::Reflink { room: spec.disk },
            DiskBackend::DmSnapshot => RootPlan::DmSnapshot { room: spec.disk },
        };
        Self { root, work: spec.work_disk, work_uuid: tagged(2) }
    }
}

/// A disk that was not left clean, and is sound now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckedDisk {
    pub path: PathBuf,
    /// Why it was checked.
    pub why: &'static str,
    /// What had to be put right besides replaying the journal, in the words of who did it.
    pub corrected: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    Serial,
    Vmm,
}

pub trait DiskHost: Send + Sync + std::fmt::Debug {
    fn paths(&self, vm: VmId) -> VmPaths;

    /// How the root disk of a VM over this image will be made, and why so; a choice that this host
    /// or this image does not have is refused.
    fn choose<'a>(
        &'a self,
        op: OpId,
        choice: DiskChoice,
        base: &'a BaseImage,
    ) -> PortFuture<'a, RootDisk>;

    /// Makes the VM's directory and its two sparse disks of the planned sizes. Disks that are there
    /// already are left alone. `seed`: what the work disk is a copy of, see
    /// [`super::ImageHost::work_seed`]; without one it is empty.
    fn ensure_vm_disks<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        base: &'a BaseImage,
        seed: Option<&'a Path>,
    ) -> PortFuture<'a, ()>;

    /// Opens the root disk for a run, where it is a device, and answers with its path.
    fn open_root<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        base: &'a BaseImage,
    ) -> PortFuture<'a, PathBuf>;

    /// Checks those of the VM's disks that its last guest did not leave clean; of the others no more
    /// is read than says so. `root`: where [`Self::open_root`] has the root disk, if it is a device.
    /// With `repair` everything is put right that can be, at the price of what cannot be kept;
    /// otherwise only what costs nothing. What is still damaged is an error of the code `corrupt`.
    /// Nobody may have a disk open, and no memory may know what is on it.
    fn check_disks<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        root: Option<&'a Path>,
        repair: bool,
    ) -> PortFuture<'a, Vec<CheckedDisk>>;

    /// Takes that device away; what was written to it stays. Without one nothing happens.
    fn close_root(&self, op: OpId, vm: VmId) -> PortFuture<'_, ()>;

    /// VMs whose root disk is open, known to the store or not.
    fn open_roots(&self, op: OpId) -> PortFuture<'_, Vec<VmId>>;

    /// Copies the VM's disks into `to`, for [`Self::ensure_copied_disks`]. They are whole only if
    /// nobody writes to them meanwhile.
    fn copy_disks<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        to: &'a Path,
    ) -> PortFuture<'a, ()>;

    /// As [`Self::ensure_vm_disks`], but copies of those in `from`, UUIDs included.
    fn ensure_copied_disks<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        from: &'a Path,
    ) -> PortFuture<'a, ()>;

    /// The plan with the UUIDs that the disks have.
    fn as_made<'a>(&'a self, vm: VmId, plan: &'a DiskPlan) -> PortFuture<'a, DiskPlan>;

    /// What a guest's changes of its root disk take, where that is a device: what it wrote and the
    /// host holds in memory is written out first.
    fn root_fill(&self, vm: VmId) -> PortFuture<'_, Size>;

    /// Makes disks that are there as large as planned, never smaller. A guest that runs sees it when
    /// it is started next.
    fn grow<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        plan: &'a DiskPlan,
        base: &'a BaseImage,
    ) -> PortFuture<'a, ()>;

    /// Writes the configuration drive, replacing it by rename.
    fn write_config<'a>(&'a self, op: OpId, vm: VmId, image: Vec<u8>) -> PortFuture<'a, ()>;

    fn remove_config<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()>;

    /// Makes the empty run directory, and the one for sockets in it; stale sockets go.
    fn ensure_run_dir<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()>;

    fn remove_run_dir<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()>;

    /// Makes the empty files that a guest's memory is written to, emptying those that are there.
    /// Refused where the file system has no room for `most` more, unless that is nothing.
    fn ensure_saving<'a>(&'a self, op: OpId, vm: VmId, most: Size) -> PortFuture<'a, ()>;

    /// Makes what was written durable, and the VM's disks with it, and then the VM's saved memory.
    /// `root`: where [`Self::open_root`] has the VM's root disk, if it is a device.
    fn keep_saved<'a>(
        &'a self,
        op: OpId,
        vm: VmId,
        by: &'a SavedBy,
        root: Option<&'a Path>,
    ) -> PortFuture<'a, ()>;

    /// Takes [`Self::keep_saved`] back: what was written is still there, but nobody's memory.
    fn unkeep_saved<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()>;

    /// What was written and is not kept goes; the files stay, for the VMM may hold them open.
    fn discard_saving<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()>;

    /// Copies what was written of the guest's memory into `to`.
    fn copy_saving<'a>(&'a self, op: OpId, vm: VmId, to: &'a Path) -> PortFuture<'a, ()>;

    /// Makes the memory in `from`, where [`Self::copy_saving`] left it, the VM's saved memory: the
    /// same files, which nobody writes to. [`Self::remove_saved`] takes it away again.
    fn link_saved<'a>(&'a self, op: OpId, vm: VmId, from: &'a Path) -> PortFuture<'a, ()>;

    /// Who can read the VM's saved memory, if there is one.
    fn saved_by(&self, vm: VmId) -> PortFuture<'_, Option<SavedBy>>;

    /// Removes the saved memory, durably: it must never be read again once its guest went on.
    /// A VMM that has read it keeps what it holds open.
    fn remove_saved<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()>;

    /// Removes what [`Self::ensure_saving`] made.
    fn remove_saving<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()>;

    /// Removes the VM's directory for good.
    fn remove_vm<'a>(&'a self, op: OpId, vm: VmId) -> PortFuture<'a, ()>;

    /// VMs that have a directory, known to the store or not.
    fn list(&self) -> PortFuture<'_, Vec<VmId>>;

    /// The directories, devices and loops of VMs that there are, known or not, and what a crash left
    /// of half-made disks.
    fn survey(&self, op: OpId) -> PortFuture<'_, HostSeen>;

    /// Removes a run directory by its name, for who does not know its VM's whole id.
    fn remove_run_dir_named<'a>(&'a self, op: OpId, name: &'a str) -> PortFuture<'a, ()>;

    /// Takes loop devices away from a file below the state directory.
    fn detach_loop<'a>(&'a self, op: OpId, file: &'a Path) -> PortFuture<'a, ()>;

    /// Free space where the disks live.
    fn free(&self) -> PortFuture<'_, Size>;

    /// What the VM's disks take of the host's.
    fn usage(&self, vm: VmId) -> PortFuture<'_, DiskUsage>;

    /// Keeps the VM's logs and metrics below their cap: what is above moves to `<log>.1`. The VMM writes in
    /// append mode, so cutting the file is safe at any time.
    fn cap_logs(&self, vm: VmId) -> PortFuture<'_, ()>;

    /// What the log holds from byte `from` on, at most 64 KiB of it, and where to go on. A log
    /// that was cut since is read from its new beginning. A log that is not there is empty.
    fn read_log<'a>(&'a self, vm: VmId, log: LogKind, from: u64) -> PortFuture<'a, (Vec<u8>, u64)>;

    /// The last lines of the console, oldest first.
    fn console_tail<'a>(&'a self, vm: VmId, lines: usize) -> PortFuture<'a, Vec<String>>;
}
