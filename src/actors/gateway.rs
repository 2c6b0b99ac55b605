//! The daemon's door: accepts connections, checks who is there, starts a session for each.
//!
//! A plain task, not an actor. Two bounds: connections at once, and the time of a greeting. The
//! caller's uid is checked before a single byte of the caller's is decoded.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::house::House;
use super::session;
use crate::model::{Code, Failure};
use crate::wire::frame::{FrameError, Frames};
use crate::wire::hello::DAEMON;
use crate::wire::reply::Reply;

const GREETING_LIMIT: Duration = Duration::from_secs(5);
/// After a failed accept (no descriptors left, say), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`; sessions finish on `sessions`.
pub async fn serve(
    listener: UnixListener,
    house: House,
    sessions: TaskTracker,
    stop: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(house.config.limits.max_connections));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (house, stop) = (house.clone(), stop.clone());
        let permit = Arc::clone(&permits).try_acquire_owned();
        sessions.spawn(async move {
            let refusal = match (&permit, admitted(&stream, house.owner_uid)) {
                (_, Err(refusal)) => Some(refusal),
                (Err(_), Ok(())) => Some(Failure::new(
                    Code::Overloaded,
                    "the daemon serves as many connections as it may",
                )),
                (Ok(_), Ok(())) => None,
            };
            let frames = match Frames::accept(stream, DAEMON, GREETING_LIMIT).await {
                Ok(frames) => frames,
                // Not worth more: port scanners, old clients (told both versions), the doctor.
                Err(error @ (FrameError::Hello(_) | FrameError::Closed | FrameError::Silent)) => {
                    tracing::debug!(%error, "greeting refused");
                    return;
                }
                Err(error) => {
                    tracing::info!(error = %crate::model::chain(&error), "greeting failed");
                    return;
                }
            };
            match refusal {
                Some(failure) => refuse(frames, &failure).await,
                None => session::serve(frames, house, stop).await,
            }
        });
    }
}

/// The owner and root.
fn admitted(stream: &UnixStream, owner: u32) -> Result<(), Failure> {
    let denied = |why: String| {
        Failure::new(Code::Denied, why).hint("run banger as the daemon's owner, or as root")
    };
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == owner || peer.uid() == 0 => Ok(()),
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), pid = peer.pid(), "connection refused: wrong user");
            Err(denied(format!("uid {} may not use this daemon", peer.uid())))
        }
        Err(error) => Err(denied(format!("who is calling is unknown: {error}"))),
    }
}

async fn refuse(mut frames: Frames, failure: &Failure) {
    drop(frames.send(&Reply::Failed(failure.into())).await); // it may have gone already
}
