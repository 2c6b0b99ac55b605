//! One request, one connection. Requests are idempotent, so a helper that restarts half-way costs
//! a repetition and nothing else.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::Instant;

use crate::model::{Code, OpId};
use crate::ports::HostError;
use crate::wire::helper::{
    FrameError, Frames, HELPER, HelperBody, HelperOk, HelperReply, HelperRequest, MAX_FRAME_BYTES,
    PermitReport, StatusReport,
};

/// How long a helper may be away: its own restart takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);
/// Longer than the helper bears with peers that say nothing and keep others waiting.
const GREETING_LIMIT: Duration = Duration::from_secs(15);
/// Longer than any request takes: checking a disk is the longest.
const REPLY_LIMIT: Duration = Duration::from_secs(60);

const BUSY: &str = "what keeps banger-helper busy? see its log";

#[derive(Clone, Debug)]
pub struct HelperClient {
    socket: PathBuf,
}

/// The helper's own words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

enum Attempt {
    Final(HostError),
    /// The helper was not there, or went away before it answered.
    Again(HostError),
}

impl HelperClient {
    #[must_use]
    pub fn new(socket: PathBuf) -> Self {
        Self { socket }
    }

    pub async fn status(&self, op: OpId) -> Result<StatusReport, HostError> {
        match self.call(op, HelperBody::Status).await? {
            HelperOk::Status(status) => Ok(status),
            other => Err(unexpected("status", &other)),
        }
    }

    /// What it may be asked to start.
    pub async fn permits(&self, op: OpId) -> Result<PermitReport, HostError> {
        match self.call(op, HelperBody::Permits).await? {
            HelperOk::Permits(report) => Ok(report),
            other => Err(unexpected("permits", &other)),
        }
    }

    /// For who looks again and again: asked once, and not waited for.
    pub(super) async fn call_once(
        &self,
        op: OpId,
        body: HelperBody,
        limit: Duration,
    ) -> Result<HelperOk, HostError> {
        let request = HelperRequest { op_id: op.0, body };
        match tokio::time::timeout(limit, self.attempt(&request)).await {
            Ok(Ok(ok)) => Ok(ok),
            Ok(Err(Attempt::Final(error) | Attempt::Again(error))) => Err(error),
            Err(_) => {
                let late = FrameError::Late { what: "reply", limit };
                let object = self.socket.display().to_string();
                let slow = HostError::new(Code::HelperUnreachable, "talk to helper", object);
                Err(slow.because(late).hint(BUSY))
            }
        }
    }

    pub async fn call(&self, op: OpId, body: HelperBody) -> Result<HelperOk, HostError> {
        let request = HelperRequest { op_id: op.0, body };
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.attempt(&request).await {
                Ok(ok) => return Ok(ok),
                Err(Attempt::Final(error)) => return Err(error),
                Err(Attempt::Again(error)) if Instant::now() >= give_up => return Err(error),
                Err(Attempt::Again(_)) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn attempt(&self, request: &HelperRequest) -> Result<HelperOk, Attempt> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreachable(e))?;
        let frames = Frames::connect(stream, HELPER, GREETING_LIMIT).await;
        let mut frames = frames.map_err(|error| self.lost(error))?.limited(MAX_FRAME_BYTES);
        // A helper that refuses may answer without having read: its answer counts, not this error.
        let sent = frames.send(request).await;
        let reply = match tokio::time::timeout(REPLY_LIMIT, frames.receive()).await {
            Ok(Ok(Some(reply))) => reply,
            Ok(Ok(None)) => return Err(self.lost(sent.err().unwrap_or(FrameError::Closed))),
            Ok(Err(error)) => return Err(self.lost(error)),
            Err(_) => {
                let late = FrameError::Late { what: "reply", limit: REPLY_LIMIT };
                let error = HostError::new(Code::Deadline, "ask the helper for", name(request));
                return Err(Attempt::Final(error.because(late).hint(BUSY)));
            }
        };
        let (code, said) = match reply {
            HelperReply::Ok(ok) => return Ok(ok),
            HelperReply::Denied { reason } => (Code::Denied, reason),
            HelperReply::Failed { code, message } => (parse_code(&code), message),
        };
        let error = HostError::new(code, "ask the helper for", name(request)).because(Said(said));
        Err(Attempt::Final(if code == Code::Denied {
            error.hint("daemon and helper must be configured alike; see `banger doctor`")
        } else {
            error
        }))
    }

    fn unreachable(&self, error: io::Error) -> Attempt {
        let refused = error.kind() == io::ErrorKind::PermissionDenied;
        let object = self.socket.display().to_string();
        let code = if refused { Code::Denied } else { Code::HelperUnreachable };
        let failed = HostError::new(code, "connect to helper", object).because(error);
        if refused {
            let hint = "the helper serves another user: see its --owner";
            return Attempt::Final(failed.hint(hint));
        }
        Attempt::Again(failed.hint("is banger-helper running? see `banger doctor`"))
    }

    fn lost(&self, error: FrameError) -> Attempt {
        let object = self.socket.display().to_string();
        match error {
            FrameError::Closed | FrameError::Silent | FrameError::Io(_) => {
                let lost = HostError::new(Code::HelperUnreachable, "talk to helper", object);
                let hint = "is banger-helper running? see `banger doctor`";
                Attempt::Again(lost.because(error).hint(hint))
            }
            FrameError::Late { .. } => {
                let late = HostError::new(Code::HelperUnreachable, "talk to helper", object);
                Attempt::Final(late.because(error))
            }
            FrameError::Hello(_) | FrameError::Codec(_) => {
                let foreign = HostError::new(Code::Protocol, "talk to helper", object);
                let hint = "daemon and helper are of different versions; install both anew";
                Attempt::Final(foreign.because(error).hint(hint))
            }
        }
    }
}

fn name(request: &HelperRequest) -> String {
    request.body.name().to_owned()
}

/// A newer helper may know codes that this daemon does not.
fn parse_code(code: &str) -> Code {
    Code::ALL.into_iter().find(|known| known.as_str() == code).unwrap_or(Code::Host)
}

pub(super) fn unexpected(asked: &str, got: &HelperOk) -> HostError {
    let said = Said(format!("unexpected answer {got:?}"));
    HostError::new(Code::Protocol, "ask the helper for", asked).because(said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::chain;
    use tokio::net::UnixListener;

    const OP: OpId = OpId([7; 16]);

    #[test]
    fn codes_come_back() {
        for code in Code::ALL {
            assert_eq!(parse_code(code.as_str()), code);
        }
        assert_eq!(parse_code("from-the-future"), Code::Host);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_helper_there_is_a_hint() {
        let dir = tempfile::tempdir().unwrap();
        let client = HelperClient::new(dir.path().join("helper.sock"));
        let before = Instant::now();
        let error = client.call(OP, HelperBody::Status).await.unwrap_err();
        assert!(before.elapsed() >= PATIENCE);
        assert_eq!(error.code, Code::HelperUnreachable);
        assert!(error.hints[0].contains("banger-helper"), "{error:?}");
    }

    #[tokio::test]
    async fn a_helper_that_dies_half_way_is_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("helper.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            for round in 0..3 {
                let (stream, _) = listener.accept().await.unwrap();
                if round == 0 {
                    continue; // gone before the greeting
                }
                let mut frames = Frames::accept(stream, HELPER, GREETING_LIMIT).await.unwrap();
                let request: HelperRequest = frames.receive().await.unwrap().unwrap();
                assert_eq!(request.op_id, OP.0);
                if round == 2 {
                    frames.send(&HelperReply::Ok(HelperOk::Done)).await.unwrap();
                }
            }
        });
        let client = HelperClient::new(path);
        assert_eq!(client.call(OP, HelperBody::ListLoops).await.unwrap(), HelperOk::Done);
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("helper.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut frames = Frames::accept(stream, HELPER, GREETING_LIMIT).await.unwrap();
            frames.send(&HelperReply::Denied { reason: "not yours".into() }).await.unwrap();
        });
        let client = HelperClient::new(path);
        let error = client.call(OP, HelperBody::ListLoops).await.unwrap_err();
        assert_eq!(error.code, Code::Denied);
        assert_eq!(chain(&error), "ask the helper for list-loops: not yours");
        server.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_is_not_waited_for_by_who_only_looks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("helper.sock");
        let _listener = UnixListener::bind(&path).unwrap(); // takes connections, says nothing
        let (client, before) = (HelperClient::new(path), Instant::now());
        let limit = Duration::from_secs(5);
        let error = client.call_once(OP, HelperBody::ListLoops, limit).await.unwrap_err();
        assert_eq!((error.code, before.elapsed()), (Code::HelperUnreachable, limit));
        assert!(chain(&error).contains("reply") && !error.hints.is_empty(), "{error:?}");
    }

    #[tokio::test]
    async fn another_version_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("helper.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let newer = crate::wire::hello::Protocol { min: 7, max: 8, ..HELPER };
        let server = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            Frames::accept(stream, newer, GREETING_LIMIT).await.unwrap_err();
        });
        let client = HelperClient::new(path);
        let error = client.call(OP, HelperBody::Status).await.unwrap_err();
        assert_eq!(error.code, Code::Protocol);
        assert!(chain(&error).contains("versions 7 to 8"), "{error:?}");
        server.await.unwrap();
    }
}
