//! One command or shell in one guest, from the connection to the exit status.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::forward::Forwards;
use super::input;
use super::terminal::{self, RawMode};
use super::vigil;
use super::way::{self, Way};
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::Interrupts;
use crate::cli::ui::text;
use crate::host::guest::ssh::{Control, ExecSpec, ExitKind, GuestError, GuestIo, Program, Pty};
use crate::model::OpId;

/// How long the daemon may take to notice what the lane has noticed.
pub(super) const NEWS_LIMIT: Duration = Duration::from_secs(2);
/// What a command that ran out of time gets for its farewell.
const FAREWELL: Duration = Duration::from_secs(5);
/// Signals and sizes that wait for the connection.
const CONTROLS: usize = 16;
const SIGINT: u8 = 2;
const SIGHUP: u8 = 1;

#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) op: OpId,
    pub(crate) what: What,
    pub(crate) tty: bool,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) workdir: Option<String>,
    pub(crate) timeout: Option<Duration>,
    /// Without it the program's standard input is empty.
    pub(crate) input: bool,
    /// The program may use the keys of the user's agent.
    pub(crate) agent: bool,
}

#[derive(Debug)]
pub(crate) enum What {
    Command(Vec<String>),
    Shell,
}

/// A guest that answered.
#[derive(Debug)]
pub(crate) struct Guest {
    way: Way,
    vm_id: String,
    name: String,
    env: Vec<(String, String)>,
}

impl Guest {
    /// Asks the daemon for the way and goes it. The lane is for plain commands, without a
    /// terminal; what may stay open for days leaves it to them.
    pub(crate) async fn dial(
        client: &mut Client,
        op: OpId,
        vm: &str,
        plain: bool,
    ) -> Result<Self, CliError> {
        Self::dial_with(client, op, vm, None, plain, Forwards::default()).await
    }

    /// As another user, and with what else the connection is to carry, which only SSH can.
    pub(crate) async fn dial_with(
        client: &mut Client,
        op: OpId,
        vm: &str,
        user: Option<&str>,
        plain: bool,
        forwards: Forwards,
    ) -> Result<Self, CliError> {
        let endpoint = client.endpoint(op, vm).await?;
        let (vm_id, name) = (endpoint.vm_id.clone(), endpoint.name.clone());
        let env = endpoint.env.clone();
        let user = user.unwrap_or(way::ROOT);
        let plain = plain && user == way::ROOT && forwards.is_empty();
        let way = Way::go(client, op, endpoint, user, plain, forwards).await?;
        Ok(Self { way, vm_id, name, env })
    }

    pub(crate) fn vm_id(&self) -> &str {
        &self.vm_id
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn env(&self) -> &[(String, String)] {
        &self.env
    }

    pub(super) fn way(&mut self) -> &mut Way {
        &mut self.way
    }

    /// Nothing but what the connection carries beside: until it ends, or somebody ends it.
    pub(crate) async fn stay(
        &mut self,
        op: OpId,
        daemon: impl Future<Output = Option<Client>>,
    ) -> Result<Exit, CliError> {
        let mut interrupts = Interrupts::new()?;
        tokio::select! {
            number = interrupts.next() => Ok(Exit::Interrupted(number)),
            how = vigil::ended(daemon, op, self.vm_id.clone()) => Err(gone(&self.name, &how)),
        }
    }

    /// The status is the guest's; an error is banger's own. `daemon` is, or becomes, a connection to
    /// learn from that the VM has ended.
    pub(crate) async fn run(
        &mut self,
        task: Task,
        daemon: impl Future<Output = Option<Client>>,
    ) -> Result<Exit, CliError> {
        let (controls, theirs) = mpsc::channel(CONTROLS);
        let failed =
            |what: &'static str| move |error: std::io::Error| CliError::from_error(what, &error);
        let mut sizes =
            signal(SignalKind::window_change()).map_err(failed("listen for signals"))?;
        let mut interrupts = Interrupts::new()?;
        let tty = task.tty;
        let raw = if tty { RawMode::enter().map_err(failed("set up the terminal"))? } else { None };
        let (stdin, mut leave) = match task.input {
            true => input::stdin(raw.is_some()).map_err(failed("read stdin"))?,
            false => input::none(),
        };
        let (stdout, stderr) = (tokio::io::stdout(), tokio::io::stderr());
        let mut clock = Clock::new(task.timeout);
        let mut interrupted = false;
        let mut vigil = Box::pin(vigil::ended(daemon, task.op, self.vm_id.clone()));

        let spec = self.spec(task);
        let exec = self.way.exec(spec, GuestIo { stdin, stdout, stderr }, theirs);
        let mut exec = Box::pin(exec);
        let ended = loop {
            // A full queue means that the guest does not even take signals; nothing is lost then.
            let tell = |control| drop(controls.try_send(control));
            tokio::select! {
                // The lane ends with its VM, and what becomes of the VM is told a moment later.
                ended = &mut exec => match ended {
                    Err(GuestError::Lost { .. }) => {
                        match timeout(NEWS_LIMIT, &mut vigil).await {
                            Ok(how) => return Err(gone(&self.name, &how)),
                            Err(_) => break ended,
                        }
                    }
                    ended => break ended,
                },
                _ = sizes.recv(), if tty => {
                    let (cols, rows) = terminal::size();
                    tell(Control::Resize { cols, rows });
                }
                () = left(&mut leave) => {
                    return Err(CliError::new(Exit::Interrupted(SIGINT), "left the guest"));
                }
                number = interrupts.next() => {
                    // With a terminal Ctrl-C is a byte like others: a signal is meant for us.
                    if tty || interrupted || number == SIGHUP {
                        return Err(CliError::new(Exit::Interrupted(number), "interrupted"));
                    }
                    interrupted = true;
                    let name = if number == SIGINT { "INT" } else { "TERM" };
                    tell(Control::Signal(name.to_owned()));
                }
                how = &mut vigil => return Err(gone(&self.name, &how)),
                () = clock.ran_out() => match clock.next() {
                    Some(signal) => tell(Control::Signal(signal.to_owned())),
                    None => return Err(clock.late(&self.name)),
                },
            }
        };
        drop(raw);
        if clock.expired() {
            return Err(clock.late(&self.name));
        }
        match ended {
            Ok(ExitKind::Code(code)) => Ok(Exit::Guest(code)),
            Ok(signal @ ExitKind::Signal(_)) => Ok(Exit::GuestSignal(signal.status() - 128)),
            Err(GuestError::OutputClosed) => Err(CliError::stdout_closed()),
            Err(error) => Err(way::explain(&self.name, &error)),
        }
    }

    fn spec(&self, task: Task) -> ExecSpec {
        let program = match task.what {
            What::Command(argv) => Program::Argv { argv, cwd: task.workdir },
            What::Shell => Program::Shell,
        };
        let tty = task.tty.then(|| {
            let term = std::env::var("TERM").ok().filter(|term| !term.is_empty());
            let (cols, rows) = terminal::size();
            Pty { term: term.unwrap_or_else(|| "xterm".to_owned()), cols, rows }
        });
        let env = self.env.iter().cloned().chain(task.env).collect();
        ExecSpec { program, env, op_id: task.op, tty, agent: task.agent }
    }
}

pub(super) fn gone(name: &str, how: &str) -> CliError {
    let failure = CliError::failed(format!("{name}: the VM ended: {how}"));
    failure.hint(format!("why? banger vm show {name}"))
}

/// Ends when the user has typed the escape; never, if the input ends without it.
async fn left(leave: &mut Option<tokio::sync::oneshot::Receiver<()>>) {
    if let Some(asked) = leave {
        let asked = asked.await;
        *leave = None;
        if asked.is_ok() {
            return;
        }
    }
    std::future::pending().await
}

/// The user's time limit: at its end TERM, a while later KILL, then nobody waits any longer.
#[derive(Debug)]
struct Clock {
    limit: Option<Duration>,
    until: Option<Instant>,
    stage: u8,
}

impl Clock {
    fn new(limit: Option<Duration>) -> Self {
        Self { limit, until: limit.map(|limit| Instant::now() + limit), stage: 0 }
    }

    async fn ran_out(&self) {
        match self.until {
            Some(until) => sleep_until(until).await,
            None => std::future::pending().await,
        }
    }

    /// The signal that is due.
    fn next(&mut self) -> Option<&'static str> {
        self.until = Some(Instant::now() + FAREWELL);
        self.stage += 1;
        match self.stage {
            1 => Some("TERM"),
            2 => Some("KILL"),
            _ => None,
        }
    }

    fn expired(&self) -> bool {
        self.stage > 0
    }

    fn late(&self, name: &str) -> CliError {
        let limit = text::elapsed(self.limit.unwrap_or_default());
        CliError::failed(format!("{name}: the command did not end within {limit}"))
    }
}
