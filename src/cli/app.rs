//! From the process's arguments to its exit status: completion, arguments, one command, its error,
//! its log lines.

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::args::Cli;
use super::client::Client;
use super::error::CliError;
use super::exit::Exit;
use super::log::{Run, Story};
use super::output::Output;
use super::{clock, commands, complete, log, socket};
use crate::model::OpId;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) out: Output,
    pub(crate) socket: PathBuf,
    /// What the first operation is to be called.
    given: Cell<Option<OpId>>,
    stories: RefCell<Vec<Story>>,
}

pub fn main() -> ExitCode {
    if complete::asked() {
        return ExitCode::from(complete::answer().code());
    }
    let began = Instant::now();
    let args: Vec<OsString> = std::env::args_os().collect();
    let parsed = Cli::command().try_get_matches_from(&args).and_then(|matches| {
        let command = command_name(&matches);
        Cli::from_arg_matches(&matches).map(|cli| (cli, command))
    });
    let (cli, command) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            drop(error.print()); // Where to would one complain?
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Ok };
            return ExitCode::from(exit.of_command(enters_guest(&args)).code());
        }
    };
    let app = App {
        out: Output::new(cli.global.color, cli.global.quiet, cli.global.verbose),
        socket: cli.global.socket.clone().unwrap_or_else(socket::default_path),
        given: Cell::new(cli.global.op_id),
        stories: RefCell::default(),
    };
    app.out.verbose(format!("socket {}", app.socket.display()));
    let exit = match run(&app, cli) {
        Ok(exit) => exit,
        Err(error) => {
            let error = app.fail(error);
            app.out.error(&error);
            error.exit
        }
    };
    let exit = exit.of_command(enters_guest(&args));
    app.write_log(command, exit, began);
    ExitCode::from(exit.code())
}

/// One thread: a command waits for others far more than it works, and must start at once.
fn run(app: &App, cli: Cli) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| CliError::from_error("start the runtime", &error))?;
    let result = runtime.block_on(commands::run(app, cli.command));
    // A thread may sit in a read of the terminal for ever; it is not waited for.
    runtime.shutdown_background();
    result
}

/// `vm start`.
fn command_name(matches: &ArgMatches) -> String {
    let mut names = vec![];
    let mut level = matches;
    while let Some((name, below)) = level.subcommand() {
        names.push(name);
        level = below;
    }
    names.join(" ")
}

/// Whether the command ends with the status of something in a guest. Looks at the words alone,
/// because the question comes up for arguments that do not parse, too.
fn enters_guest(args: &[OsString]) -> bool {
    let mut words =
        args.iter().skip(1).filter_map(|arg| arg.to_str()).take_while(|arg| *arg != "--");
    let mut next = || loop {
        match words.next()? {
            "--socket" | "--color" | "--op-id" => drop(words.next()),
            option if option.starts_with('-') => {}
            word => return Some(word),
        }
    };
    let command = match next() {
        Some("vm") => next(),
        other => other,
    };
    matches!(command, Some("run" | "exec" | "ssh"))
}

impl App {
    /// A new operation of this command. Whatever is asked of the daemon has one.
    pub(crate) fn op(&self, subject: Option<&str>) -> Result<OpId, CliError> {
        let op = self.given.take().map_or_else(clock::new_op_id, Ok)?;
        let subject = subject.map(str::to_owned);
        self.stories.borrow_mut().push(Story { op, subject, code: None, error: None });
        self.out.verbose(format!("operation {op}"));
        Ok(op)
    }

    pub(crate) async fn client(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&self.socket).await?)
    }

    /// Shows a failure that does not end the command.
    pub(crate) fn failed(&self, error: &CliError) {
        self.out.error(error);
        self.remember(error);
    }

    /// The error that ended the command; it gets the last operation's id if it has none.
    fn fail(&self, error: CliError) -> CliError {
        if error.is_silent() {
            return error;
        }
        let last = self.stories.borrow().last().map(|story| story.op);
        let error = match last.or_else(|| self.op(None).ok()) {
            Some(op) => error.of(op),
            None => error,
        };
        self.remember(&error);
        error
    }

    fn remember(&self, error: &CliError) {
        let mut stories = self.stories.borrow_mut();
        let named = |story: &&mut Story| Some(story.op) == error.op;
        if let Some(story) = stories.iter_mut().find(named) {
            story.error = Some(error.message.clone());
            story.code.clone_from(&error.code);
        }
    }

    fn write_log(&self, command: String, exit: Exit, began: Instant) {
        let stories = self.stories.borrow();
        let Some(dir) = log::directory().filter(|_| !stories.is_empty()) else { return };
        let now = i64::try_from(clock::unix_ms()).unwrap_or(0);
        let run = Run {
            time: jiff::Timestamp::from_millisecond(now).unwrap_or_default().to_string(),
            command,
            exit: exit.code(),
            elapsed_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
        };
        if let Err(error) = log::append(&dir, &run, &stories) {
            self.out.verbose(format!("cannot write the log in {}: {error}", dir.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_enter_a_guest_are_seen_even_in_nonsense() {
        let enters =
            |line: &str| enters_guest(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in [
            "banger vm exec web --bogus -- true",
            "banger run --bogus",
            "banger --socket vm --color auto -q run",
            "banger vm --socket=x ssh",
        ] {
            assert!(enters(line), "{line}");
        }
        for line in [
            "banger",
            "banger ps -- exec",
            "banger vm stop run",
            "banger --socket run ps",
            "banger vm",
            "banger -- run",
        ] {
            assert!(!enters(line), "{line}");
        }
    }
}
