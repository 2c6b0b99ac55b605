//! The porch of a jail: what the helper starts itself as, so that the jailer finds a root
//! directory with all that its VM needs and nothing else.
//!
//! ```text
//! helper ──fork, exec──> porch ──exec──> jailer ──exec──> VMM        one process, one pid
//!                          └ mount namespace of its own: a tmpfs, what was named bound into it
//! ```
//!
//! What is made lies in that namespace alone and goes with the process, however that ends: there
//! is nothing to sweep. Stdin is a socket of the helper's: the order comes in by it, and what went
//! wrong goes back; that it closes without a word says that the jailer was executed.

use std::fs::{DirBuilder, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, SFlag, mknod, umask};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::beneath;
use super::error::Trouble;
use super::snapshot::DEVICES;
use crate::model::Code;

/// The first argument of a helper that is one. The second and third name the VM.
pub const PORCH: &str = "porch";

/// The VMM's program is copied into it; besides there are directories and names only.
const SIZE: &str = "mode=0755,size=64m,nr_inodes=1k";
const MAX_ORDER: u64 = 1 << 20;

/// Everything it needs to know; nothing of it is asked of the host again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) id: String,
    pub(super) jailer: PathBuf,
    pub(super) program: PathBuf,
    /// The VMM's own.
    pub(super) args: Vec<String>,
    /// An empty directory of root's.
    pub(super) dir: PathBuf,
    pub(super) uid: u32,
    pub(super) owner_uid: u32,
    pub(super) owner_gid: u32,
    /// Of the whole jail range.
    pub(super) uids: (u32, u32),
    pub(super) state_dir: PathBuf,
    pub(super) vm_run_dir: PathBuf,
    pub(super) sockets: PathBuf,
    pub(super) files: Vec<OrderFile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OrderFile {
    pub(super) path: PathBuf,
    pub(super) name: String,
    /// Given to the VM's user.
    pub(super) given: bool,
    pub(super) writable: bool,
}

/// Ends as another program, or badly.
#[must_use]
pub fn porch() -> ExitCode {
    let mut told = match Told::take() {
        Ok(told) => told,
        Err(_) => return ExitCode::FAILURE,
    };
    let Err(trouble) = told.order().and_then(|order| build(&order).and_then(|()| enter(&order)));
    told.say(&trouble);
    ExitCode::FAILURE
}

enum Never {}

struct Told(File);

impl Told {
    /// Takes the socket from stdin and leaves nothing there.
    fn take() -> io::Result<Self> {
        let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(io::stdin(), 3)?;
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self(File::from(socket)))
    }

    fn order(&mut self) -> Result<Order, Trouble> {
        let failed = |error| Trouble::io("read", "the jail's order", error);
        let mut text = vec![];
        (&self.0).take(MAX_ORDER).read_to_end(&mut text).map_err(failed)?;
        serde_json::from_slice(&text).map_err(|error| failed(error.into()))
    }

    fn say(&mut self, trouble: &Trouble) {
        drop(self.0.write_all(format!("{}\n{}", trouble.code, trouble.message()).as_bytes()));
    }
}

fn build(order: &Order) -> Result<(), Trouble> {
    let root = order.root();
    let at_dir = |what| {
        let dir = order.dir.display().to_string();
        move |error: io::Error| Trouble::io(what, dir, error)
    };
    umask(Mode::from_bits_truncate(0o077));
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|error| at_dir("make a mount namespace for")(error.into()))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mounted(None, Path::new("/"), None, private, None)
        .map_err(at_dir("keep mounts to itself for"))?;
    // Devices and the VMM's program are in it.
    let flags = MsFlags::MS_NOSUID;
    mounted(Some(Path::new("jail")), &order.dir, Some("tmpfs"), flags, Some(SIZE))
        .map_err(at_dir("mount"))?;
    make_dir(&root)?;
    bring_sockets(order, &root)?;
    order.files.iter().try_for_each(|file| bring(order, file, &root))
}

fn enter(order: &Order) -> Result<Never, Trouble> {
    let uid = order.uid.to_string();
    #[allow(clippy::disallowed_methods, reason = "becoming the jailer is what the porch is for")]
    let mut jailer = Command::new(&order.jailer);
    jailer.args(["--id", &order.id, "--uid", &uid, "--gid", &uid]);
    jailer.arg("--exec-file").arg(&order.program).arg("--chroot-base-dir").arg(&order.dir);
    jailer.arg("--").args(&order.args).env_clear().current_dir("/");
    // Sockets that the VMM makes are for the owner's group.
    umask(Mode::from_bits_truncate(0o007));
    Err(Trouble::io("start", order.jailer.display().to_string(), jailer.exec()))
}

impl Order {
    /// As the jailer puts it together.
    fn root(&self) -> PathBuf {
        let program = self.program.file_name().unwrap_or_default();
        self.dir.join(program).join(&self.id).join("root")
    }

    fn is_owners(&self, uid: u32) -> bool {
        uid == self.owner_uid || (self.uids.0..=self.uids.1).contains(&uid)
    }
}

fn bring_sockets(order: &Order, root: &Path) -> Result<(), Trouble> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = beneath::open(&order.vm_run_dir, &order.sockets, flags)?;
    give(order, &dir, &order.sockets)?;
    let target = root.join("s");
    make_dir(&target)?;
    bind(&dir, &target, true)
}

fn bring(order: &Order, file: &OrderFile, root: &Path) -> Result<(), Trouble> {
    let target = root.join(&file.name);
    if file.path.starts_with(DEVICES) {
        return make_device(order, &file.path, &target);
    }
    let failed = |error| Trouble::io("look at", file.path.display().to_string(), error);
    let source = beneath::open(&order.state_dir, &file.path, OFlags::RDONLY)?;
    let meta = source.metadata().map_err(failed)?;
    if file.given {
        give(order, &source, &file.path)?;
    } else if !order.is_owners(meta.uid()) || meta.mode() & 0o004 == 0 {
        return Err(beneath::refused(&file.path, "not a file of the owner that all may read"));
    }
    if meta.is_dir() {
        make_dir(&target)?;
    } else {
        let made = File::options().write(true).create_new(true).open(&target);
        made.map_err(|error| Trouble::io("make", target.display().to_string(), error))?;
    }
    bind(&source, &target, file.writable)
}

/// To the VM's user, and to the owner's group: the daemon keeps its access.
fn give(order: &Order, file: &File, path: &Path) -> Result<(), Trouble> {
    let failed = |error| Trouble::io("give to the jail", path.display().to_string(), error);
    let meta = file.metadata().map_err(failed)?;
    if !order.is_owners(meta.uid()) || !(meta.is_file() || meta.is_dir()) {
        return Err(beneath::refused(path, "not a file or directory of the owner"));
    }
    fchown(file, Some(order.uid), Some(order.owner_gid)).map_err(failed)?;
    // What is made in a directory belongs to its group.
    let mode = if meta.is_dir() { 0o2770 } else { 0o660 };
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed)
}

/// A node of the jail's own: the one in `/dev` stays as it is. Only root makes any there.
fn make_device(order: &Order, device: &Path, target: &Path) -> Result<(), Trouble> {
    let failed = |error| Trouble::io("make device", device.display().to_string(), error);
    let meta = std::fs::symlink_metadata(device).map_err(failed)?;
    if !meta.file_type().is_block_device() {
        return Err(beneath::refused(device, "not a block device"));
    }
    let mode = Mode::from_bits_truncate(0o600);
    mknod(target, SFlag::S_IFBLK, mode, meta.rdev()).map_err(|error| failed(error.into()))?;
    std::os::unix::fs::lchown(target, Some(order.uid), Some(order.uid)).map_err(failed)
}

fn bind(source: &File, target: &Path, writable: bool) -> Result<(), Trouble> {
    let failed = |error| Trouble::io("bind", target.display().to_string(), error);
    // By the descriptor: it is that file which was looked at.
    let source = PathBuf::from(format!("/proc/self/fd/{}", source.as_raw_fd()));
    mounted(Some(&source), target, None, MsFlags::MS_BIND, None).map_err(failed)?;
    let mut flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT;
    flags |= MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if !writable {
        flags |= MsFlags::MS_RDONLY;
    }
    mounted(None, target, None, flags, None).map_err(failed)
}

fn mounted(
    source: Option<&Path>,
    target: &Path,
    kind: Option<&str>,
    flags: MsFlags,
    data: Option<&str>,
) -> io::Result<()> {
    mount(source, target, kind, flags, data).map_err(io::Error::from)
}

fn make_dir(path: &Path) -> Result<(), Trouble> {
    let made = DirBuilder::new().recursive(true).mode(0o755).create(path);
    made.map_err(|error| Trouble::io("make directory", path.display().to_string(), error))
}

impl Trouble {
    /// As a porch told it.
    pub(super) fn told(object: String, said: &str) -> Self {
        let (code, message) = said.split_once('\n').unwrap_or(("", said));
        let code = Code::ALL.into_iter().find(|known| known.as_str() == code).unwrap_or(Code::Host);
        Self::new(code, "build the jail of", object).because(message.to_owned())
    }
}
