//! What the owner wants in every guest, brought there when it has started: files of the host and who
//! commits with git. By the lane, which nobody else can have before the VM counts as running.

use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::time::Duration;

use banger_agent::contract::exec::{AGENT, ExecRequest};
use banger_copy::{CopyError, Item, Task, send_items, write_task};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Lane;
use super::ssh::{ExitKind, GuestIo};
use crate::model::{Code, FileSync, OpId, chain};
use crate::ports::{HostError, VmPaths};

const WHAT: &str = "bring the owner's files to";
/// Of names and times alone; what is in files may take longer.
const LIMIT: Duration = Duration::from_secs(60);

/// The same for all guests.
#[derive(Clone, Debug, Default)]
pub struct Furniture {
    pub files: Vec<FileSync>,
    /// Name and address.
    pub git: Option<(String, String)>,
}

impl Furniture {
    /// Answers with what is not there to be brought.
    pub(super) async fn bring(&self, op: OpId, paths: &VmPaths) -> Result<Vec<String>, HostError> {
        let failed =
            |why: String| HostError::new(Code::GuestUnreachable, WHAT, "the guest").because(why);
        let brought = async {
            let mut missing = vec![];
            if let Some((name, address)) = &self.git {
                let words = format!("{name}\0{address}");
                self.ask(op, paths, "git-identity", words.as_bytes()).await.map_err(failed)?;
            }
            let mut items = vec![];
            for file in &self.files {
                match file.host.exists() {
                    true => items.push(Item {
                        path: file.host.clone(),
                        name: file.guest.clone(),
                        mode: file.mode,
                    }),
                    false => missing.push(format!("{} is not there", file.host.display())),
                }
            }
            if !items.is_empty() {
                self.copy(op, paths, items).await.map_err(failed)?;
            }
            Ok(missing)
        };
        timeout(LIMIT, brought).await.unwrap_or_else(|_| Err(failed("it takes too long".into())))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.git.is_none()
    }

    async fn ask(&self, op: OpId, paths: &VmPaths, verb: &str, said: &[u8]) -> Result<(), String> {
        let io = GuestIo { stdin: said, stdout: tokio::io::sink(), stderr: tokio::io::sink() };
        let request = request(op, verb);
        let mut lane = lane(paths).await.map_err(|error| error.to_string())?;
        match lane.exec(&request, io, mpsc::channel(1).1).await {
            // An agent of before has nothing to tell it to.
            Ok(ExitKind::Code(0 | 2 | 127)) => Ok(()),
            Ok(ended) => Err(format!("{verb} ended with {}", ended.status())),
            Err(error) => Err(chain(&error)),
        }
    }

    async fn copy(&self, op: OpId, paths: &VmPaths, items: Vec<Item>) -> Result<(), String> {
        let pair = StdStream::pair().and_then(|(ours, theirs)| {
            theirs.set_nonblocking(true)?;
            Ok((ours, UnixStream::from_std(theirs)?))
        });
        let (ours, theirs) = pair.map_err(|error| error.to_string())?;
        let (stdin, stdout) = theirs.into_split();
        let half = tokio::task::spawn_blocking(move || {
            write_task(&Task::Receive(PathBuf::new()), &ours)?;
            send_items(&items, &ours, &ours, &mut |_| {}).map(drop)
        });
        let io = GuestIo { stdin, stdout, stderr: tokio::io::sink() };
        let request = request(op, "copy");
        let mut lane = lane(paths).await.map_err(|error| error.to_string())?;
        let ended = lane.exec(&request, io, mpsc::channel(1).1).await;
        let half =
            half.await.unwrap_or_else(|error| Err(CopyError::Broken(io::Error::other(error))));
        match (half, ended) {
            (Ok(()), Ok(_)) => Ok(()),
            (_, Ok(ExitKind::Code(2 | 127))) => {
                Err("its agent is of an older release, which cannot copy".to_owned())
            }
            (Err(error), _) => Err(chain(&error)),
            (_, Err(error)) => Err(chain(&error)),
        }
    }
}

async fn lane(paths: &VmPaths) -> io::Result<Lane> {
    let socket = paths.vsock_socket();
    match socket.exists() {
        true => Lane::dial(&socket).await,
        false => Lane::take(&paths.lane_socket()).await,
    }
}

fn request(op: OpId, verb: &str) -> ExecRequest {
    let argv = [AGENT, verb].map(str::to_owned).to_vec();
    ExecRequest { argv, env: vec![], cwd: None, op_id: op.0 }
}
