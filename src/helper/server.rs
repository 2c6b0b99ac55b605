//! The socket: one idempotent request a connection, audited whatever becomes of it.
//!
//! Per connection: peer's uid, greeting, frame, policy, execution, reply. The peer is judged
//! before anything it sent is decoded. A request that was begun is finished, whether or not the
//! client waits for it and whether or not the helper has been told to stop.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use nix::fcntl::{Flock, FlockArg};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::audit::{Audit, Line, unix_ms};
use super::config::Config;
use super::error::Trouble;
use super::policy::{self, Plan};
use crate::model::{Code, OpId};
use crate::wire::helper::{
    FrameError, Frames, HELPER, HelperOk, HelperReply, HelperRequest, MAX_FRAME_BYTES,
};

const READ_LIMIT: Duration = Duration::from_secs(5);
const SURVEY: &str = "survey-network";
const MAX_CONNECTIONS: usize = 32;
/// Longer than any request takes: checking a disk is the longest.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Carries out what the policy has allowed.
pub trait Executor: Send + Sync + 'static {
    fn execute(&self, plan: Plan) -> BoxFuture<'_, Result<HelperOk, Trouble>>;
}

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("another helper runs already ({0} is locked)")]
    Locked(PathBuf),
    #[error("{0} is there and is not a socket")]
    NotASocket(PathBuf),
    #[error("{operation} {path}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The bound socket; the lock keeps a second helper from the same run directory.
#[derive(Debug)]
pub struct Listening {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
    _lock: Flock<File>,
}

impl Listening {
    pub fn bind(config: &Config) -> Result<Self, ServeError> {
        let path = config.socket.clone();
        let at = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| ServeError::Io { operation, path, source }
        };
        let lock_path = config.run_dir.join("helper.lock");
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false);
        let file = options.open(&lock_path).map_err(at("open", &lock_path))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| ServeError::Locked(lock_path))?;
        match std::fs::symlink_metadata(&path) {
            Ok(meta) if meta.file_type().is_socket() => {
                // Under the lock it is a leftover.
                std::fs::remove_file(&path).map_err(at("remove", &path))?;
            }
            Ok(_) => return Err(ServeError::NotASocket(path)),
            Err(_) => {}
        }
        // Born without rights for anybody, then given to the owner.
        let before = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o777));
        let bound = UnixListener::bind(&path);
        nix::sys::stat::umask(before);
        let listener = bound.map_err(at("bind", &path))?;
        let (uid, gid) = (config.owner_uid, config.owner_gid);
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid)).map_err(at("chown", &path))?;
        }
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(&path, mode).map_err(at("chmod", &path))?;
        let inode = std::fs::symlink_metadata(&path).map_err(at("look at", &path))?.ino();
        Ok(Self { listener, path, inode, _lock: lock })
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let same = |meta: std::fs::Metadata| meta.ino() == self.inode;
        if std::fs::symlink_metadata(&self.path).is_ok_and(same) {
            drop(std::fs::remove_file(&self.path));
        }
    }
}

struct Service {
    config: Arc<Config>,
    audit: Audit,
    executor: Arc<dyn Executor>,
}

/// Serves until told to stop; then finishes what was begun.
pub async fn serve(
    listening: Listening,
    config: Arc<Config>,
    audit: Audit,
    executor: Arc<dyn Executor>,
    stop: CancellationToken,
) {
    let service = Arc::new(Service { config, audit, executor });
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let tasks = TaskTracker::new();
    loop {
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = Arc::clone(&permits).acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let stream = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listening.listener.accept() => accepted,
        };
        match stream {
            Ok((stream, _)) => {
                let service = Arc::clone(&service);
                tasks.spawn(async move {
                    service.connection(stream).await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors or memory: the next connection would fail at once as well.
                tracing::error!(%error, "connection cannot be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // No new ones; the socket goes first, so that clients retry at the next helper.
    drop(listening);
    tasks.close();
    if tokio::time::timeout(STOP_LIMIT, tasks.wait()).await.is_err() {
        tracing::error!(left = tasks.len(), "requests did not end in time");
    }
}

impl Service {
    async fn connection(&self, stream: UnixStream) {
        let started = Instant::now();
        let Ok(peer) = stream.peer_cred() else { return };
        let peer_pid = peer.pid().unwrap_or(0);
        let mut line =
            Line { unix_ms: unix_ms(), peer_uid: peer.uid(), peer_pid, ..Line::default() };
        line.request = "-";
        self.answer(stream, peer.uid(), &mut line).await;
        line.elapsed_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        // Asked every few seconds and changing nothing, it would push everything else out of the log.
        if (line.request, line.verdict) != (SURVEY, "ok") {
            self.audit.write(&line);
        }
    }

    async fn answer(&self, stream: UnixStream, peer_uid: u32, line: &mut Line) {
        let mut frames = match Frames::accept(stream, HELPER, READ_LIMIT).await {
            Ok(frames) => frames.limited(MAX_FRAME_BYTES),
            Err(error) => return unheard(line, &error),
        };
        if let Err(refused) = policy::admit(&self.config, peer_uid) {
            line.verdict = "denied";
            line.error = Some("peer is neither root nor the owner".to_owned());
            reply(&mut frames, &HelperReply::Denied { reason: refused.0 }).await;
            return;
        }
        let request = match tokio::time::timeout(READ_LIMIT, frames.receive()).await {
            Ok(Ok(Some(request))) => request,
            Ok(Ok(None)) => return unheard(line, &FrameError::Silent),
            Ok(Err(error)) => {
                unheard(line, &error);
                let message = line.error.clone().unwrap_or_default();
                let code = Code::Protocol.to_string();
                return reply(&mut frames, &HelperReply::Failed { code, message }).await;
            }
            Err(_) => {
                return unheard(line, &FrameError::Late { what: "request", limit: READ_LIMIT });
            }
        };
        let answer = self.decide(peer_uid, &request, line).await;
        reply(&mut frames, &answer).await;
    }

    async fn decide(&self, peer_uid: u32, request: &HelperRequest, line: &mut Line) -> HelperReply {
        line.op_id = OpId(request.op_id).to_string();
        line.request = request.body.name();
        let plan = match policy::policy(&self.config, peer_uid, request) {
            Ok(plan) => plan,
            Err(refused) => {
                line.verdict = "denied";
                line.error = Some(refused.0.clone());
                return HelperReply::Denied { reason: refused.0 };
            }
        };
        line.object = plan.object();
        match self.executor.execute(plan).await {
            Ok(ok) => {
                line.verdict = "ok";
                HelperReply::Ok(ok)
            }
            Err(trouble) => {
                line.verdict = "failed";
                let (code, message) = (trouble.code.to_string(), trouble.message());
                line.error = Some(message.clone());
                HelperReply::Failed { code, message }
            }
        }
    }
}

/// A peer that asked for nothing did nothing wrong: it may have looked whether somebody listens.
fn unheard(line: &mut Line, error: &FrameError) {
    line.verdict = match error {
        FrameError::Silent | FrameError::Late { .. } => "silent",
        _ => "malformed",
    };
    line.error = Some(crate::model::chain(error));
}

/// A client that has gone, or does not read, is no trouble of the request's.
async fn reply(frames: &mut Frames, answer: &HelperReply) {
    match tokio::time::timeout(READ_LIMIT, frames.send(answer)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "reply not sent"),
        Err(_) => tracing::warn!("reply not taken"),
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
