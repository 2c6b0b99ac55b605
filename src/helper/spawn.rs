//! Starting a VMM so that it depends on nobody: its own session and cgroup, the owner's rights and
//! no others, stdio to its log, no way to gain privilege.
//!
//! Order in the child: join the cgroup while still root; new session; groups, gid, uid; only then
//! open the log, so that the owner's rights decide what it may be; then exec. The porch of a jail
//! stays root and has the owner's rights for the log alone; what becomes another user has them for
//! the log before it does. Between fork and exec nothing allocates.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::libc;

use super::config::Config;
use super::error::Trouble;
use crate::model::{Code, VmId};

const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// What the child was doing when it failed; told through a pipe, one byte.
const STAGES: [&str; 6] = [
    "join the cgroup of",
    "make a session for",
    "take the owner's rights for",
    "forbid new privileges to",
    "open the log of",
    "start",
];

/// What to start.
pub(super) struct Start<'a> {
    pub(super) vm: VmId,
    pub(super) program: &'a Path,
    pub(super) args: &'a [String],
    pub(super) log: &'a Path,
    pub(super) rights: Rights,
    pub(super) stdin: Stdio,
    /// The file through which it joins.
    pub(super) cgroup: Option<File>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    Owner,
    Root,
    /// A user with no group but its own.
    User(u32),
}

/// Everything the child needs, made before the fork.
struct Prepared {
    rights: Rights,
    cgroup: Option<File>,
    groups: Vec<libc::gid_t>,
    uid: libc::uid_t,
    gid: libc::gid_t,
    /// Whose eyes look at the log.
    owner: (libc::uid_t, libc::gid_t),
    log: CString,
    stage: OwnedFd,
}

/// Returns once the program has been executed.
pub(super) fn spawn(config: &Config, start: Start<'_>) -> Result<Child, Trouble> {
    let Start { vm, program, args, log, rights, stdin, cgroup } = start;
    let object = format!("{} of VM {vm}", program.display());
    let failed = |error| Trouble::io("prepare to start", object.clone(), error);
    let (stage_read, stage_write) = pipe().map_err(failed)?;
    let log_name = CString::new(log.as_os_str().as_bytes())
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let (groups, uid, gid) = match rights {
        Rights::User(id) => (vec![], id, id),
        Rights::Owner | Rights::Root => (config.groups.clone(), config.owner_uid, config.owner_gid),
    };
    let prepared = Prepared {
        rights,
        cgroup,
        groups,
        uid,
        gid,
        owner: (config.owner_uid, config.owner_gid),
        log: log_name,
        stage: stage_write,
    };
    #[allow(clippy::disallowed_methods, reason = "starting VMMs is what the helper is for")]
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", PATH).current_dir("/");
    command.stdin(stdin).stdout(Stdio::null()).stderr(Stdio::null());
    #[allow(unsafe_code, reason = "uid, session and cgroup are set between fork and exec")]
    // SAFETY: `become_vmm` makes system calls only, on values that were made before the fork; it
    // neither allocates nor takes a lock.
    unsafe {
        command.pre_exec(move || prepared.become_vmm());
    }
    let spawned = command.spawn();
    // The parent's copy of the pipe's end goes with the closure; then the read ends.
    drop(command);
    spawned.map_err(|error| {
        let stage = read_stage(stage_read).unwrap_or(STAGES.len() - 1);
        let text = STAGES.get(stage).copied().unwrap_or("start");
        let mut trouble = Trouble::io(text, object, error);
        if text == "open the log of" {
            trouble.object = format!("VM {vm}: {}", log.display());
        }
        // Not the VM is missing but its program, whatever the errno says.
        if trouble.code == Code::NotFound && text == "start" {
            trouble.code = Code::VmmMissing;
        }
        trouble
    })
}

impl Prepared {
    fn become_vmm(&self) -> io::Result<()> {
        type Stage = (u8, fn(&Prepared) -> io::Result<()>);
        let rights: Stage = (2, Self::take_rights);
        let log: Stage = (4, Self::open_log);
        // The owner's log is not for another user to open.
        let (fourth, last) = match self.rights {
            Rights::User(_) => (log, rights),
            Rights::Owner | Rights::Root => (rights, log),
        };
        let steps: [Stage; 5] = [
            (0, Self::join_cgroup),
            (1, Self::leave_session),
            (3, Self::forbid_privileges),
            fourth,
            last,
        ];
        for (stage, step) in steps {
            if let Err(error) = step(self) {
                let _ = nix::unistd::write(&self.stage, &[stage]);
                return Err(error);
            }
        }
        Ok(())
    }

    fn join_cgroup(&self) -> io::Result<()> {
        match &self.cgroup {
            None => Ok(()),
            // 0 is the writer itself (cgroups(7)).
            Some(procs) => nix::unistd::write(procs, b"0").map(drop).map_err(io::Error::from),
        }
    }

    fn leave_session(&self) -> io::Result<()> {
        nix::unistd::setsid()?;
        write_if_there(c"/proc/self/oom_score_adj", b"0");
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        #[allow(unsafe_code, reason = "no allocation between fork and exec")]
        // SAFETY: the limit outlives the call. A guest's memory must not end in a core file.
        check(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) })
    }

    fn take_rights(&self) -> io::Result<()> {
        if self.rights == Rights::Root {
            return Ok(());
        }
        #[allow(unsafe_code, reason = "no allocation between fork and exec")]
        // SAFETY: plain system calls on values that outlive them. The raw ones: glibc's wrappers
        // would signal other threads, and there are none.
        unsafe {
            check(libc::setgroups(self.groups.len(), self.groups.as_ptr()))?;
            check(libc::setresgid(self.gid, self.gid, self.gid))?;
            check(libc::setresuid(self.uid, self.uid, self.uid))?;
        }
        Ok(())
    }

    fn forbid_privileges(&self) -> io::Result<()> {
        #[allow(unsafe_code, reason = "no allocation between fork and exec")]
        // SAFETY: plain system calls. Descriptors are not closed but marked, for the standard
        // library still reports the exec's outcome through one of them.
        unsafe {
            check(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            let marked = libc::syscall(
                libc::SYS_close_range,
                3_u32,
                libc::c_uint::MAX,
                libc::CLOSE_RANGE_CLOEXEC,
            );
            // Older kernels lack it; every descriptor of ours is marked anyway.
            let _ = marked;
        }
        Ok(())
    }

    fn open_log(&self) -> io::Result<()> {
        let flags = libc::O_WRONLY
            | libc::O_CREAT
            | libc::O_APPEND
            | libc::O_NOFOLLOW
            | libc::O_NOCTTY
            | libc::O_NONBLOCK
            | libc::O_CLOEXEC;
        #[allow(unsafe_code, reason = "no allocation between fork and exec")]
        // SAFETY: the path is a C string that outlives the call; the descriptors are this
        // process's own. O_NONBLOCK keeps a FIFO in the log's place from hanging the helper, which
        // waits for the exec; it is taken off for the VMM.
        unsafe {
            libc::umask(0o077);
            // Root looks at files with the owner's eyes; without effect for who has them anyway.
            libc::setfsgid(self.owner.1);
            libc::setfsuid(self.owner.0);
            let log = libc::open(self.log.as_ptr(), flags, 0o600);
            let opened = check(log);
            libc::setfsuid(libc::geteuid());
            libc::setfsgid(libc::getegid());
            opened?;
            check(libc::fcntl(log, libc::F_SETFL, libc::O_APPEND))?;
            check(libc::dup2(log, libc::STDOUT_FILENO))?;
            check(libc::dup2(log, libc::STDERR_FILENO))?;
        }
        Ok(())
    }
}

fn check(result: RawFd) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn write_if_there(path: &std::ffi::CStr, bytes: &[u8]) {
    #[allow(unsafe_code, reason = "no allocation between fork and exec")]
    // SAFETY: path and bytes outlive the calls. That the file is missing or refuses is no reason
    // not to start.
    unsafe {
        let fd = libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if fd >= 0 {
            libc::write(fd, bytes.as_ptr().cast(), bytes.len());
            libc::close(fd);
        }
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC | nix::fcntl::OFlag::O_NONBLOCK)?)
}

fn read_stage(read: OwnedFd) -> Option<usize> {
    let mut byte = [0_u8];
    debug_assert!(read.as_raw_fd() >= 0);
    match nix::unistd::read(&read, &mut byte) {
        Ok(1) => Some(byte[0].into()),
        _ => None,
    }
}
