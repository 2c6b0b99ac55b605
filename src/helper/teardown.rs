//! The last request to a running helper, for those who uninstall: taps, table and bridge away.
//!
//! A client like the daemon, and subject to the same policy. Nothing is removed that the helper
//! does not call its own.

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;

use super::error::Trouble;
use crate::model::Code;
use crate::wire::helper::{
    Frames, HELPER, HelperBody, HelperOk, HelperReply, HelperRequest, MAX_FRAME_BYTES,
};

const LIMIT: Duration = Duration::from_secs(30);

/// Answers what was removed, for the log.
pub async fn teardown(socket: &Path) -> Result<(usize, u32), Trouble> {
    let HelperOk::Status(status) = ask(socket, HelperBody::Status).await? else {
        return Err(unexpected());
    };
    let bridge = status.bridge;
    let list = HelperBody::ListTaps { bridge: bridge.clone() };
    let HelperOk::Taps(taps) = ask(socket, list).await? else { return Err(unexpected()) };
    let count = taps.len();
    for tap in taps {
        ask(socket, HelperBody::RemoveTap { tap }).await?;
    }
    match ask(socket, HelperBody::RemoveBridge { bridge }).await? {
        HelperOk::BridgeRemoved { ports_left } => Ok((count, ports_left)),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> Trouble {
    Trouble::new(Code::Protocol, "understand the answer of", "helper")
}

async fn ask(socket: &Path, body: HelperBody) -> Result<HelperOk, Trouble> {
    let name = body.name();
    let failed = |code| Trouble::new(code, "ask the helper for", name);
    let object = socket.display().to_string();
    let stream = UnixStream::connect(socket).await;
    let stream = stream.map_err(|error| Trouble::io("connect to helper", object, error))?;
    let frames = Frames::connect(stream, HELPER, LIMIT).await;
    let mut frames =
        frames.map_err(|error| failed(Code::Protocol).because(error))?.limited(MAX_FRAME_BYTES);
    let exchange = async {
        frames.send(&HelperRequest { op_id: [0; 16], body }).await?;
        frames.receive::<HelperReply>().await
    };
    match tokio::time::timeout(LIMIT, exchange).await {
        Ok(Ok(Some(HelperReply::Ok(ok)))) => Ok(ok),
        Ok(Ok(Some(HelperReply::Denied { reason }))) => Err(failed(Code::Denied).because(reason)),
        Ok(Ok(Some(HelperReply::Failed { message, .. }))) => {
            Err(failed(Code::Host).because(message))
        }
        Ok(Ok(None)) => Err(failed(Code::Protocol).because("no answer")),
        Ok(Err(error)) => Err(failed(Code::Protocol).because(error)),
        Err(late) => Err(failed(Code::Deadline).because(late)),
    }
}
