//! Learns from the daemon that a guest's VM has ended, while a command runs in it.
//!
//! SSH alone finds out only when its keepalives stay unanswered, for nothing on the network says
//! that a machine is gone. Without a daemon there is no vigil, and SSH has the last word.

use crate::cli::client::Client;
use crate::model::OpId;
use crate::wire::reply::{EventKindInfo, Reply};
use crate::wire::request::Request;

/// Ends when the VM has ended, and says how; never, if the daemon cannot say. Connecting is part of
/// it, so that no command waits for it.
pub(crate) async fn ended(
    daemon: impl Future<Output = Option<Client>>,
    op: OpId,
    vm_id: String,
) -> String {
    if let Some(how) = watch(daemon.await, op, &vm_id).await {
        return how;
    }
    std::future::pending().await
}

async fn watch(client: Option<Client>, op: OpId, vm_id: &str) -> Option<String> {
    let mut client = client?;
    let to_come = Request::Events { since: u64::MAX, follow: true };
    client.send(op, None, &to_come).await.ok()?;
    loop {
        let Reply::Event(event) = client.stream().await.ok()? else { continue };
        match event.kind {
            EventKindInfo::VmExited { how, .. } if event.vm_id.as_deref() == Some(vm_id) => {
                return Some(how);
            }
            // Ended on purpose.
            EventKindInfo::VmChanged { state, .. }
                if event.vm_id.as_deref() == Some(vm_id) && has_ended(&state) =>
            {
                return Some(state);
            }
            _ => {}
        }
    }
}

fn has_ended(state: &str) -> bool {
    matches!(state, "stopped" | "crashed" | "error" | "suspended")
}
