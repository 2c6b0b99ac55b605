//! Checking a disk whose guest did not leave it clean. What is on it a guest wrote, so the program
//! that reads it is a way out of the guest if it has a fault: it runs as nobody who could do
//! anything with that.
//!
//! It is given the disk as its standard input and opens it by that, so it needs no way to it. With
//! that descriptor it holds a lock, whoever has started it may be gone: the disk is not checked
//! twice at a time, and who has the lock knows that nobody checks.

use std::fs::{File, Permissions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::beneath;
use super::config::{Config, trusted_program};
use super::error::Trouble;
use super::policy::CheckPlan;
use super::process::hold;
use super::snapshot::DEVICES;
use super::spawn::{self, Rights, Start};
use crate::model::Code;

/// Shorter than the daemon waits for an answer.
const LIMIT: Duration = Duration::from_secs(50);
const PAUSE: Duration = Duration::from_millis(20);
const PROGRAMS: [&str; 4] =
    ["/usr/sbin/e2fsck", "/sbin/e2fsck", "/usr/local/sbin/e2fsck", "/usr/bin/e2fsck"];
/// What has the disk for its standard input finds it here.
const DISK: &str = "/proc/self/fd/0";

/// Answers with the program's exit status.
pub(super) async fn check(config: &Config, plan: &CheckPlan) -> Result<i32, Trouble> {
    let object = || plan.path.display().to_string();
    let give_up = Instant::now() + LIMIT;
    let program = program()?;
    let disk = open(config, &plan.path)?;
    lock(&disk, give_up, &plan.path).await?;
    let rights = match config.jails.as_ref() {
        // The last of the range is no VM's: see the policy.
        Some(jails) => Rights::User(*jails.uids.end()),
        // Here VMMs run as the owner too.
        None => Rights::Owner,
    };
    if let Rights::User(uid) = rights {
        give(config, &disk, uid).map_err(|error| Trouble::io("give away", object(), error))?;
    }
    let how = if plan.repair { "-fy" } else { "-p" };
    let start = Start {
        vm: plan.vm,
        program: &program,
        args: &[how.to_owned(), DISK.to_owned()],
        log: &plan.log,
        rights,
        stdin: Stdio::from(disk),
        cgroup: None,
    };
    let mut child = spawn::spawn(config, start)?;
    // None: it has ended already.
    if let Some(held) = hold(child.id()) {
        let left = give_up.saturating_duration_since(Instant::now());
        if !held.ended(left).await? {
            drop(child.kill());
            drop(child.wait());
            let why = format!("e2fsck was not done within {} s", LIMIT.as_secs());
            return Err(Trouble::new(Code::Deadline, "check", object()).because(why));
        }
    }
    let ended = child.wait().map_err(|error| Trouble::io("wait for e2fsck of", object(), error))?;
    let killed = || Trouble::new(Code::Host, "check", object()).because("e2fsck was killed");
    ended.code().ok_or_else(killed)
}

fn program() -> Result<PathBuf, Trouble> {
    let found = PROGRAMS.iter().map(Path::new).find(|path| path.exists());
    let missing =
        || Trouble::new(Code::NotFound, "find", "e2fsck").because("the package e2fsprogs has it");
    let program = found.ok_or_else(missing)?.canonicalize();
    let program = program.map_err(|error| Trouble::io("look at", "e2fsck", error))?;
    trusted_program(&program).map_err(|why| {
        Trouble::new(Code::Denied, "start", program.display().to_string()).because(why)
    })?;
    Ok(program)
}

fn open(config: &Config, path: &Path) -> Result<File, Trouble> {
    let failed = |error| Trouble::io("open", path.display().to_string(), error);
    if path.starts_with(DEVICES) {
        // Only root makes any there.
        let device = File::options().read(true).write(true).open(path).map_err(failed)?;
        let kind = device.metadata().map_err(failed)?.file_type();
        return match kind.is_block_device() {
            true => Ok(device),
            false => Err(beneath::refused(path, "not a block device")),
        };
    }
    let file = beneath::open(&config.state_dir, path, OFlags::RDWR)?;
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() || !config.is_owners(meta.uid()) {
        return Err(beneath::refused(path, "not a regular file of the owner"));
    }
    Ok(file)
}

/// Waits for a check that another helper has begun.
async fn lock(disk: &File, give_up: Instant, path: &Path) -> Result<(), Trouble> {
    let failed = |error: Errno| Trouble::io("lock", path.display().to_string(), error.into());
    loop {
        match flock(disk, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < give_up => {
                tokio::time::sleep(PAUSE).await;
            }
            done => return done.map_err(failed),
        }
    }
}

/// As to a jail: the daemon keeps its access by the owner's group.
fn give(config: &Config, disk: &File, uid: u32) -> std::io::Result<()> {
    fchown(disk, Some(uid), Some(config.owner_gid))?;
    disk.set_permissions(Permissions::from_mode(0o660))
}
