//! What the service manager is told: that the daemon serves, how many VMs it has, that it lives.
//!
//! Its watchdog is fed by an answer of the supervisor, not by a timer: a daemon whose actors hang is
//! killed and started again, and its VMs do not notice. Without a service manager nothing is told.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use crate::actors::{House, ListVms, OpCtx};
use crate::model::VmState;
use crate::wire::frame::Frames;
use crate::wire::hello::DAEMON;

/// How often the status line is brought up to date where there is no watchdog to feed.
const UPDATE: Duration = Duration::from_secs(10);
const DOOR_LIMIT: Duration = Duration::from_secs(5);

/// Tells that the daemon serves, once its door opens and its supervisor answers, and goes on telling
/// that it lives until `stop`.
pub(super) async fn serve(house: &House, stop: &CancellationToken) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    // Three in the time after which it counts as dead: one may come late.
    let interval = sd_notify::watchdog_enabled().map_or(UPDATE, |limit| limit / 3);
    knock(house).await;
    let (house, stop) = (house.clone(), stop.clone());
    tokio::spawn(async move {
        let mut ready = false;
        loop {
            let news = if ready { NotifyState::Watchdog } else { NotifyState::Ready };
            ready |= beat(&house, interval, news).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(interval) => {}
            }
        }
    });
}

pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// As a client would. That it fails is told in the log; systemd must not wait for ever.
async fn knock(house: &House) {
    let greeted = async {
        let stream = UnixStream::connect(&house.config.socket).await.map_err(|e| e.to_string())?;
        let frames = Frames::connect(stream, DAEMON, DOOR_LIMIT).await;
        frames.map(drop).map_err(|error| crate::model::chain(&error))
    };
    if let Err(error) = greeted.await {
        tracing::error!(error, "the daemon's own socket does not answer");
    }
}

/// Says `news` and how many VMs there are, if the supervisor answers within `limit`.
async fn beat(house: &House, limit: Duration, news: NotifyState<'_>) -> bool {
    let asking = OpCtx::within(house.mint.op(), limit);
    match house.supervisor.call(asking, ListVms).await {
        Ok(vms) => {
            let running = vms.iter().filter(|vm| vm.record.state == VmState::Running).count();
            let status = format!("{} VMs, {running} running", vms.len());
            tell(&[news, NotifyState::Status(&status)]);
            true
        }
        Err(error) => {
            tracing::warn!(error = %crate::model::chain(&error), "the supervisor is late");
            false
        }
    }
}

fn tell(news: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(news) {
        tracing::warn!(%error, "the service manager was not told");
    }
}
