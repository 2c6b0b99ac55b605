//! What the service manager is told: that the helper serves, and that it lives.
//!
//! The helper has one thread, and its watchdog is fed by a request carried out on it. Without a
//! service manager nothing is told.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use super::policy::Plan;
use super::server::Executor;

/// Tells it now, as the socket is bound already, and goes on until `stop`.
pub fn serving(executor: Arc<dyn Executor>, stop: CancellationToken) {
    tell(&[NotifyState::Ready]);
    // Three in the time after which it counts as dead: one may come late.
    let Some(interval) = sd_notify::watchdog_enabled().map(|limit: Duration| limit / 3) else {
        return;
    };
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
            match executor.execute(Plan::Status).await {
                Ok(_) => tell(&[NotifyState::Watchdog]),
                Err(error) => tracing::warn!(error = error.message(), "no status of its own"),
            }
        }
    });
}

fn tell(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::warn!(%error, "the service manager was not told");
    }
}
