//! The GuestLink port: what the daemon asks of the agent in a guest.

use std::time::Duration;

use banger_agent::contract::CONTRACT_VERSION;
use banger_agent::contract::control::{
    Adoption, CHECKS_SINCE, CheckEnd, ENTROPY_BYTES, Fresh, GuestEvent, HostBody, ReadyInfo,
    ShutdownMode,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::control::{Control, ControlError, hello_when_there};
use super::furnish::Furniture;
use super::line::{Door, Line};
use super::{keys, setup};
use crate::model::{Code, OpId, VmKeys};
use crate::ports::{GuestCheck, GuestLink, GuestReady, GuestSetup, HostError, PortFuture, VmPaths};

/// The agent answers before it begins to shut down.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);
/// It touches memory that comes from a file as it is touched; on an emulated host that takes long.
const ADOPT_LIMIT: Duration = Duration::from_secs(15);
/// For an agent to answer, besides what the command may take.
const CHECK_MARGIN: Duration = Duration::from_secs(5);
/// Until a check is asked after again, at first; then twice as long each time.
const CHECK_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_CHECK_PAUSE: Duration = Duration::from_millis(500);
/// Between connections that the VMM closes at once.
const RECONNECT: Duration = Duration::from_millis(20);

const WAIT: &str = "wait for the guest at";

/// What it tells guests of their owner is the same for all.
#[derive(Clone, Debug, Default)]
pub struct AgentLink {
    furniture: Furniture,
    /// Public keys that open every guest, besides its own.
    owner_keys: Vec<String>,
}

impl AgentLink {
    #[must_use]
    pub fn new(furniture: Furniture, owner_keys: Vec<String>) -> Self {
        Self { furniture, owner_keys }
    }
}

impl GuestLink for AgentLink {
    fn make_keys(&self) -> PortFuture<'_, VmKeys> {
        Box::pin(async { keys::make_keys() })
    }

    fn config_drive(&self, op: OpId, guest: &GuestSetup) -> Result<Vec<u8>, HostError> {
        setup::config_drive(op, guest, &self.owner_keys)
    }

    fn blank_drive(&self, op: OpId, guest: &GuestSetup) -> Result<Vec<u8>, HostError> {
        setup::blank_drive(op, guest)
    }

    fn ssh_port(&self) -> u16 {
        setup::SSH_PORT
    }

    fn await_ready<'a>(
        &'a self,
        op: OpId,
        paths: &'a VmPaths,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, GuestReady> {
        Box::pin(async move {
            let line = Line::of(paths);
            let ready = async {
                match &line {
                    Line::Port { .. } => ready(op, &line).await,
                    Line::Vsock { listener, .. } => {
                        let failed =
                            |error| HostError::io(WAIT, listener.display().to_string(), error);
                        told(op, &Door::open(listener.clone()).map_err(failed)?, &line).await
                    }
                }
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => {
                    Err(HostError::new(Code::Cancelled, WAIT, line.to_string()))
                }
                ready = ready => ready,
            }
        })
    }

    fn adopt<'a>(
        &'a self,
        op: OpId,
        paths: &'a VmPaths,
        guest: &'a GuestSetup,
        unix_ms: u64,
    ) -> PortFuture<'a, GuestReady> {
        Box::pin(async move {
            let what = "tell the guest who it is, at";
            let line = Line::of(paths);
            let mut entropy = [0; ENTROPY_BYTES];
            getrandom::fill(&mut entropy).map_err(|error| {
                HostError::new(Code::Host, "draw random numbers for", line.to_string())
                    .because(error.to_string())
            })?;
            let fresh = Fresh { entropy, unix_nanos: nanos(unix_ms) };
            let adoption =
                Adoption { config: setup::guest_config(op, guest, &self.owner_keys), fresh };
            let image = setup::image_start(guest);
            let question = HostBody::AdoptFor { adoption: Box::new(adoption), image };
            within(ADOPT_LIMIT, what, &line, adopted(op, &line, &question)).await
        })
    }

    fn furnish<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, Vec<String>> {
        Box::pin(async move {
            match self.furniture.is_empty() {
                true => Ok(vec![]),
                false => self.furniture.bring(op, paths).await,
            }
        })
    }

    fn shutdown<'a>(&'a self, op: OpId, paths: &'a VmPaths, grace: Duration) -> PortFuture<'a, ()> {
        Box::pin(async move {
            let what = "ask the guest to shut down at";
            let line = Line::of(paths);
            let grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
            // A reboot ends every VMM's process; a power-off does not end all of them.
            let question = HostBody::Shutdown { mode: ShutdownMode::Reboot, grace_ms };
            let answer = answered(op, &line, question, |event| match event {
                GuestEvent::ShuttingDown { op_id } if op_id == op.0 => Some(()),
                _ => None,
            });
            match timeout(SHUTDOWN_LIMIT, answer).await {
                // The VMM was faster than the answer: the guest is down.
                Ok(Ok(()) | Err(Unanswered::Link(ControlError::Closed))) => Ok(()),
                Ok(Err(why)) => Err(why.into_host_error(what, &line)),
                Err(_) => Err(silent(what, &line)),
            }
        })
    }

    fn ping<'a>(&'a self, op: OpId, paths: &'a VmPaths, limit: Duration) -> PortFuture<'a, ()> {
        Box::pin(async move {
            let pong = pong(op);
            asked(op, "ping the guest at", paths, HostBody::Ping, limit, pong).await
        })
    }

    fn check<'a>(
        &'a self,
        op: OpId,
        paths: &'a VmPaths,
        command: &'a str,
        limit: Duration,
    ) -> PortFuture<'a, GuestCheck> {
        Box::pin(async move {
            let what = "check the health of the guest at";
            let line = Line::of(paths);
            let answer = checked(op, &line, command, limit);
            let check = within(limit + CHECK_MARGIN, what, &line, answer).await?;
            check.ok_or_else(|| {
                HostError::new(Code::Refused, what, line.to_string())
                    .because("its agent is of a time before there were checks")
                    .hint("a guest has the agent that it was started with: restart it")
            })
        })
    }

    fn sync<'a>(&'a self, op: OpId, paths: &'a VmPaths, limit: Duration) -> PortFuture<'a, ()> {
        Box::pin(async move {
            let synced = move |event| match event {
                GuestEvent::Synced { op_id } if op_id == op.0 => Some(()),
                _ => None,
            };
            asked(op, "ask the guest to sync at", paths, HostBody::Sync, limit, synced).await
        })
    }

    fn set_clock<'a>(&'a self, op: OpId, paths: &'a VmPaths, unix_ms: u64) -> PortFuture<'a, ()> {
        Box::pin(async move {
            let line = Line::of(paths);
            let failed =
                |error: Unanswered| error.into_host_error("set the guest's clock at", &line);
            let unix_nanos = nanos(unix_ms);
            let control = Control::ask(&line, op, HostBody::SetClock { unix_nanos }).await;
            let mut control = control.map_err(|error| failed(error.into()))?;
            // It is not answered, and a connection that ends too early may take it along.
            let pinged = control.go_on(HostBody::Ping).await;
            pinged.map_err(|error| failed(error.into()))?;
            heard(op, &mut control, pong(op)).await.map_err(failed)
        })
    }

    fn resumed<'a>(
        &'a self,
        op: OpId,
        paths: &'a VmPaths,
        unix_ms: u64,
        limit: Duration,
    ) -> PortFuture<'a, String> {
        Box::pin(async move {
            let what = "tell the guest that it goes on at";
            let mut entropy = [0; ENTROPY_BYTES];
            getrandom::fill(&mut entropy).map_err(|error| {
                HostError::new(Code::Host, "draw random bytes for", paths.run.display().to_string())
                    .because(error.to_string())
            })?;
            let question = HostBody::Resumed { unix_nanos: nanos(unix_ms), entropy };
            let resumed = move |event| match event {
                GuestEvent::Resumed { op_id, boot_id } if op_id == op.0 => Some(boot_id),
                _ => None,
            };
            asked(op, what, paths, question, limit, resumed).await
        })
    }
}

fn nanos(unix_ms: u64) -> u64 {
    unix_ms.saturating_mul(1_000_000)
}

fn pong(op: OpId) -> impl Fn(GuestEvent) -> Option<()> {
    move |event| matches!(event, GuestEvent::Pong { op_id } if op_id == op.0).then_some(())
}

/// Asks over a connection of its own, and waits at most `limit` for what `pick` takes.
async fn asked<T>(
    op: OpId,
    what: &'static str,
    paths: &VmPaths,
    question: HostBody,
    limit: Duration,
    pick: impl Fn(GuestEvent) -> Option<T>,
) -> Result<T, HostError> {
    let line = Line::of(paths);
    within(limit, what, &line, answered(op, &line, question, pick)).await
}

/// What is asked for, if it comes within `limit`.
async fn within<T>(
    limit: Duration,
    what: &'static str,
    line: &Line,
    answer: impl Future<Output = Result<T, Unanswered>>,
) -> Result<T, HostError> {
    match timeout(limit, answer).await {
        Ok(answer) => answer.map_err(|why| why.into_host_error(what, line)),
        Err(_) => Err(silent(what, line)),
    }
}

/// Asks a port. Waits for as long as the caller lets it.
async fn ready(op: OpId, line: &Line) -> Result<GuestReady, HostError> {
    loop {
        let mut control = hello_when_there(line, op)
            .await
            .map_err(|error| HostError::new(Code::Host, WAIT, line.to_string()).because(error))?;
        match heard_ready(op, &mut control).await {
            Ok(info) => return Ok(info.into()),
            Err(Unanswered::Failed(message)) => {
                return Err(
                    HostError::new(Code::GuestDied, WAIT, line.to_string()).because(message)
                );
            }
            // The VMM ended, or the port was reset: whoever watches the process knows which.
            Err(Unanswered::Link(error)) => {
                tracing::debug!(op_id = %op, %error, "lost the agent's port; connecting again");
                sleep(RECONNECT).await;
            }
        }
    }
}

/// Lets the agent come and tell. Waits for as long as the caller lets it.
async fn told(op: OpId, door: &Door, line: &Line) -> Result<GuestReady, HostError> {
    loop {
        let stream = door.accept().await;
        let stream = stream.map_err(|error| HostError::io(WAIT, line.to_string(), error))?;
        match heard_ready(op, &mut Control::hear(stream, op)).await {
            Ok(info) => return Ok(info.into()),
            Err(Unanswered::Failed(message)) => {
                return Err(
                    HostError::new(Code::GuestDied, WAIT, line.to_string()).because(message)
                );
            }
            Err(Unanswered::Link(error)) => {
                tracing::debug!(op_id = %op, %error, "lost the agent; it comes again");
            }
        }
    }
}

async fn heard_ready(op: OpId, control: &mut Control) -> Result<ReadyInfo, Unanswered> {
    loop {
        match control.event().await? {
            GuestEvent::Ready(info) => return Ok(info),
            GuestEvent::NotReady { stage, error: Some(error) } => {
                return Err(Unanswered::Failed(format!("boot failed at {stage}: {error}")));
            }
            GuestEvent::NotReady { stage, error: None } => {
                tracing::debug!(op_id = %op, stage, "the guest boots");
            }
            // Answers to somebody who is gone.
            _ => {}
        }
    }
}

/// Connections of a guest that has just gone on from memory may be reset with those that it had when
/// its memory was saved; being told twice does it no harm.
async fn adopted(op: OpId, line: &Line, question: &HostBody) -> Result<GuestReady, Unanswered> {
    loop {
        let said = answered(op, line, question.clone(), |event| match event {
            GuestEvent::Adopted { op_id, ready } if op_id == op.0 => Some(ready.into()),
            _ => None,
        });
        match said.await {
            Err(Unanswered::Link(ControlError::Frame(error))) => {
                return Err(Unanswered::Link(ControlError::Frame(error)));
            }
            Err(Unanswered::Link(error)) => {
                tracing::debug!(op_id = %op, %error, "lost the blank guest; telling it again");
                sleep(RECONNECT).await;
            }
            said => return said,
        }
    }
}

/// Asks over a connection of its own, for as long as the caller lets it.
async fn answered<T>(
    op: OpId,
    line: &Line,
    question: HostBody,
    pick: impl Fn(GuestEvent) -> Option<T>,
) -> Result<T, Unanswered> {
    heard(op, &mut Control::ask(line, op, question).await?, pick).await
}

/// Asks again and again over short connections, for the link is everybody's. None: the agent does not
/// know of checks.
async fn checked(
    op: OpId,
    line: &Line,
    command: &str,
    limit: Duration,
) -> Result<Option<GuestCheck>, Unanswered> {
    let hello = HostBody::Hello { contract: CONTRACT_VERSION };
    let mut control = Control::ask(line, op, hello).await?;
    let info = heard_ready(op, &mut control).await?;
    if info.contract < CHECKS_SINCE {
        return Ok(None);
    }
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    let question = HostBody::Check { command: command.to_owned(), limit_ms };
    control.go_on(question.clone()).await?;
    let mut pause = CHECK_PAUSE;
    loop {
        let said = heard(op, &mut control, |event| match event {
            GuestEvent::CheckRuns { op_id } if op_id == op.0 => Some(None),
            GuestEvent::Checked { op_id, end, output } if op_id == op.0 => {
                Some(Some(told_check(end, &output, limit)))
            }
            _ => None,
        });
        if let Some(check) = said.await? {
            return Ok(Some(check));
        }
        drop(control);
        sleep(pause).await;
        pause = (2 * pause).min(LONGEST_CHECK_PAUSE);
        control = Control::ask(line, op, question.clone()).await?;
    }
}

fn told_check(end: CheckEnd, output: &[u8], limit: Duration) -> GuestCheck {
    let healthy = end == CheckEnd::Exited(0);
    let how = match end {
        CheckEnd::Exited(status) => format!("exit status {status}"),
        CheckEnd::Killed(signal) => format!("killed by signal {signal}"),
        CheckEnd::TimedOut => format!("no end within {limit:?}"),
        CheckEnd::NotStarted(why) => format!("not started: {why}"),
    };
    let output = String::from_utf8_lossy(output).into_owned();
    GuestCheck { healthy, how, output }
}

/// Skips all that answers somebody else.
async fn heard<T>(
    op: OpId,
    control: &mut Control,
    pick: impl Fn(GuestEvent) -> Option<T>,
) -> Result<T, Unanswered> {
    loop {
        match control.event().await? {
            GuestEvent::Failed { op_id, message } if op_id == op.0 => {
                return Err(Unanswered::Failed(message));
            }
            event => {
                if let Some(answer) = pick(event) {
                    return Ok(answer);
                }
            }
        }
    }
}

#[derive(Debug)]
enum Unanswered {
    Link(ControlError),
    /// The agent answered that it could not.
    Failed(String),
}

impl From<ControlError> for Unanswered {
    fn from(error: ControlError) -> Self {
        Self::Link(error)
    }
}

impl Unanswered {
    fn into_host_error(self, operation: &'static str, line: &Line) -> HostError {
        let error = HostError::new(Code::GuestUnreachable, operation, line.to_string());
        match self {
            Self::Link(link) => error.because(link),
            Self::Failed(message) => error.because(message),
        }
    }
}

fn silent(operation: &'static str, line: &Line) -> HostError {
    HostError::new(Code::GuestUnreachable, operation, line.to_string())
        .because("the agent does not answer")
}

impl From<ReadyInfo> for GuestReady {
    fn from(info: ReadyInfo) -> Self {
        Self {
            boot_id: info.boot_id,
            kernel_release: info.kernel_release,
            os_name: info.os_name,
            agent_version: info.agent_version,
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
