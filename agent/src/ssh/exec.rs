//! Starting a program: a login shell, a line for the shell, or an argv that no shell sees.
//!
//! What must not be done here: nothing between fork and exec that allocates or locks.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use banger_agent::contract::exec::{AGENT, ExecRequest};
use nix::errno::Errno;
use nix::libc;
use nix::unistd::{AccessFlags, Pid, access};
use tokio::process::Command;

use super::account::{self, Account};
use super::directory::Directory;
use super::environment::Environment;
use super::process::{Running, Story, Streams};
use super::pty::{Master, Terminal};

pub(super) enum Program {
    LoginShell,
    Line(Vec<u8>),
    Argv(ExecRequest),
    /// This program, with these arguments.
    Agent(&'static [&'static str]),
}

/// The standard library starts a program in a directory by `posix_spawn` only where it finds this
/// function at run time, and a static program has nothing that is not asked for by name. Without it
/// each command costs a copy of this process's page tables, half of what it takes to run one.
#[used]
static LINKED: unsafe extern "C" fn(
    *mut libc::posix_spawn_file_actions_t,
    *const libc::c_char,
) -> libc::c_int = libc::posix_spawn_file_actions_addchdir_np;

/// The file that this process runs, wherever it lies: a guest's root file system does not have it.
const OWN_PROGRAM: &str = "/proc/self/exe";

pub(super) struct Launch<'a> {
    pub(super) account: &'a Account,
    pub(super) env: Environment,
    pub(super) program: Program,
    pub(super) terminal: Option<Terminal>,
}

/// A program that did not start, as a shell would tell it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) message: String,
    /// 127 not found, 126 found and not executable.
    pub(super) status: u32,
}

impl Launch<'_> {
    pub(super) fn spawn(mut self) -> Result<Running, Failure> {
        if let Program::Argv(request) = &mut self.program {
            super::mise::settle(&mut request.argv, &self.env);
        }
        let terminal = self.terminal.take().map(|terminal| self.open(&terminal)).transpose()?;
        let (master, slave) = terminal.unzip();
        let (mut command, directory) = self.command()?;
        let plain = slave.is_none() && self.is_own_user();
        if plain {
            // Nothing has to be done between fork and exec, so none is needed: the standard
            // library starts it by posix_spawn, without a copy of this process.
            command.process_group(0).current_dir(directory.path());
        } else {
            self.become_user(&mut command, slave.is_some(), directory.clone());
        }
        let (stdin, stdout, stderr) = standard_streams(slave)?;
        command.stdin(stdin).stdout(stdout).stderr(stderr);
        let mut child = command.spawn().map_err(|error| self.failure(&error, &directory))?;
        // The command holds the slave; while it lives, the terminal never ends.
        drop(command);
        let pid = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map_or(Pid::from_raw(0), Pid::from_raw);
        if plain {
            // The server's protection from the out-of-memory killer is not its commands'.
            drop(std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0"));
        }
        let streams = match master {
            Some(master) => Streams::Terminal(master),
            None => Streams::Pipes(child.stdin.take(), child.stdout.take(), child.stderr.take()),
        };
        Ok(Running::new(child, pid, streams, self.story()))
    }

    fn open(&mut self, terminal: &Terminal) -> Result<(Master, OwnedFd), Failure> {
        let (master, slave, name) = terminal.open(self.account.uid).map_err(|error| Failure {
            message: format!("cannot open a terminal: {error}"),
            status: 126,
        })?;
        self.env.set("TERM", &terminal.term);
        self.env.set("SSH_TTY", &name);
        Ok((master, slave))
    }

    /// And where it is to start.
    fn command(&mut self) -> Result<(Command, Directory), Failure> {
        let shell = self.shell();
        let mut directory = Directory::home(self.account);
        let mut command = match &self.program {
            Program::LoginShell => {
                let mut command = Command::new(&shell);
                command.arg0(login_name(&shell));
                command
            }
            Program::Line(line) => {
                let mut command = Command::new(&shell);
                command.arg0(shell.file_name().unwrap_or(shell.as_os_str()));
                command.arg("-c").arg(OsStr::from_bytes(line));
                command
            }
            Program::Argv(request) => {
                self.env.extend(&request.env);
                if let Some(cwd) = &request.cwd {
                    let asked_for = Directory::asked_for(cwd);
                    directory = asked_for.map_err(|message| Failure { message, status: 126 })?;
                }
                let mut words = request.argv.iter();
                let program = words.next().map(OsStr::new).unwrap_or_default();
                let mut command = match program == AGENT {
                    true => Command::new(OWN_PROGRAM),
                    false => Command::new(self.env.find(program)),
                };
                command.arg0(program).args(words);
                command
            }
            Program::Agent(words) => {
                let mut command = Command::new(OWN_PROGRAM);
                command.arg0(AGENT).args(*words);
                command
            }
        };
        command.env_clear().envs(self.env.iter());
        Ok((command, directory))
    }

    /// The server's own user, with the server's own rights.
    fn is_own_user(&self) -> bool {
        let Account { uid, gid, ref groups, .. } = *self.account;
        let (own_uid, own_gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
        uid == own_uid.as_raw()
            && gid == own_gid.as_raw()
            && groups.iter().all(|group| *group == gid)
    }

    /// Its own session, so that a hang-up reaches all of it and nothing else.
    fn become_user(&self, command: &mut Command, has_terminal: bool, directory: Directory) {
        let Account { uid, gid, .. } = *self.account;
        let groups = self.account.groups.clone();
        let is_root = nix::unistd::geteuid().is_root();
        let prepare = move || {
            // SAFETY: between fork and exec only system calls are made, on memory made before.
            #[allow(unsafe_code, reason = "runs between fork and exec")]
            unsafe {
                libc::setsid();
                if has_terminal && libc::ioctl(0, libc::TIOCSCTTY, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                if is_root {
                    reset_oom_score();
                    account::become_user(uid, gid, &groups)?;
                }
                directory.enter()
            }
        };
        // SAFETY: the closure makes only async-signal-safe calls.
        #[allow(unsafe_code, reason = "runs between fork and exec")]
        unsafe {
            command.pre_exec(prepare);
        }
    }

    fn shell(&self) -> PathBuf {
        let shell = &self.account.shell;
        if access(shell, AccessFlags::X_OK).is_ok() { shell.clone() } else { "/bin/sh".into() }
    }

    fn failure(&self, error: &io::Error, directory: &Directory) -> Failure {
        if let Some(message) = directory.why_not(error) {
            return Failure { message, status: 126 };
        }
        let program = match &self.program {
            Program::Argv(request) => request.argv.first().cloned().unwrap_or_default(),
            Program::LoginShell | Program::Line(_) => self.shell().display().to_string(),
            Program::Agent(_) => AGENT.to_owned(),
        };
        if error.kind() == io::ErrorKind::NotFound {
            return Failure { message: format!("{program}: not found"), status: 127 };
        }
        let why = error
            .raw_os_error()
            .map_or_else(|| error.to_string(), |code| Errno::from_raw(code).desc().to_owned());
        Failure { message: format!("{program}: {why}"), status: 126 }
    }

    fn story(&self) -> Option<Story> {
        match &self.program {
            Program::Argv(request) => {
                Some(Story::new(request.op_id, request.argv.first().cloned().unwrap_or_default()))
            }
            Program::LoginShell | Program::Line(_) | Program::Agent(_) => None,
        }
    }
}

fn standard_streams(slave: Option<OwnedFd>) -> Result<(Stdio, Stdio, Stdio), Failure> {
    let Some(slave) = slave else {
        return Ok((Stdio::piped(), Stdio::piped(), Stdio::piped()));
    };
    let copy = || {
        slave.try_clone().map_err(|error| Failure {
            message: format!("cannot use the terminal: {error}"),
            status: 126,
        })
    };
    Ok((copy()?.into(), copy()?.into(), slave.into()))
}

/// `-bash`: how a shell knows that it is a login shell.
fn login_name(shell: &Path) -> OsString {
    let name = shell.file_name().unwrap_or_default().as_bytes();
    OsString::from_vec([b"-", name].concat())
}

/// The server's protection from the out-of-memory killer is not its commands'.
///
/// # Safety
/// Only system calls on constants: may run between fork and exec.
#[allow(unsafe_code, reason = "runs between fork and exec")]
unsafe fn reset_oom_score() {
    // SAFETY: the strings are constants and the descriptor is our own.
    unsafe {
        let file =
            libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if file >= 0 {
            libc::write(file, c"0".as_ptr().cast(), 1);
            libc::close(file);
        }
    }
}
