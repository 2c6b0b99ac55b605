//! Starting a VMM in a jail: the parent's half of [`porch`](super::porch).

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::config::{Config, Jails};
use super::error::Trouble;
use super::policy::{JailPlan, SpawnPlan};
use super::porch::{Order, OrderFile, PORCH};
use super::spawn::{self, Rights, Start};
use crate::model::Code;
use crate::wire::helper::WireAccess;

/// A porch only mounts and opens; what takes longer hangs.
const LIMIT: Duration = Duration::from_secs(10);
const SELF: &str = "/proc/self/exe";

/// Returns once the jailer has been executed. Whether it liked what it was told is seen in the log
/// and by its end.
pub(super) async fn spawn(
    config: &Config,
    jails: &Jails,
    plan: &SpawnPlan,
    jail: &JailPlan,
    cgroup: Option<std::fs::File>,
) -> Result<Child, Trouble> {
    let object = format!("VM {}", plan.vm);
    let failed = |error| Trouble::io("build the jail of", object.clone(), error);
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let theirs = theirs.into_std().map_err(failed)?;
    // The porch reads and waits.
    theirs.set_nonblocking(false).map_err(failed)?;
    let id = plan.vm.to_string();
    let args = [PORCH.to_owned(), "--id".to_owned(), id];
    let start = Start {
        vm: plan.vm,
        program: Path::new(SELF),
        args: &args,
        log: &plan.log,
        rights: Rights::Root,
        stdin: Stdio::from(OwnedFd::from(theirs)),
        cgroup,
    };
    let mut child = spawn::spawn(config, start)?;
    let order = serde_json::to_vec(&order(config, jails, plan, jail))
        .map_err(|error| failed(error.into()))?;
    let talk = async {
        ours.write_all(&order).await?;
        ours.shutdown().await?;
        let mut said = String::new();
        ours.read_to_string(&mut said).await.map(|_| said)
    };
    let trouble = match timeout(LIMIT, talk).await {
        Ok(Ok(said)) if said.is_empty() => return Ok(child),
        Ok(Ok(said)) => Trouble::told(object, &said),
        Ok(Err(error)) => failed(error),
        Err(late) => Trouble::new(Code::Deadline, "build the jail of", object).because(late),
    };
    // It ends by itself or is made to, and is nobody's business any more.
    drop(child.kill());
    drop(child.wait());
    Err(trouble)
}

fn order(config: &Config, jails: &Jails, plan: &SpawnPlan, jail: &JailPlan) -> Order {
    let file = |file: &super::policy::JailFile| OrderFile {
        path: file.path.clone(),
        name: file.name.clone(),
        given: file.access != WireAccess::Shared,
        writable: file.access == WireAccess::Writable,
    };
    Order {
        id: plan.vm.to_string(),
        jailer: jails.jailer.canonical.clone(),
        program: plan.program.clone(),
        args: plan.args.clone(),
        dir: config.jail_dir(),
        uid: jail.uid,
        owner_uid: config.owner_uid,
        owner_gid: config.owner_gid,
        uids: (*jails.uids.start(), *jails.uids.end()),
        state_dir: config.state_dir.clone(),
        vm_run_dir: jails.vm_run_dir.clone(),
        sockets: jail.sockets.clone(),
        files: jail.files.iter().map(file).collect(),
    }
}
