//! A conversation with the agent about a workspace: its standard streams are one stream here.

use banger_agent::contract::exec::{AGENT, NOTHING};
use banger_agent::contract::workspace::{Refusal, VERB};
use tokio::io::DuplexStream;
use tokio::sync::mpsc;

use super::session::Guest;
use super::way;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::Interrupts;
use crate::host::guest::ssh::{ExecSpec, ExitKind, GuestIo, Program};
use crate::host::workspace::WorkspaceError;
use crate::model::OpId;

const BUFFER: usize = 256 << 10;
/// What an agent says that does not know the conversation, or how to have any.
const UNKNOWN: [u8; 2] = [2, 127];
const NOT_STARTED: u8 = 126;

impl Guest {
    pub(crate) async fn converse<T, F>(
        &mut self,
        op: OpId,
        talk: impl FnOnce(DuplexStream) -> F,
    ) -> Result<T, CliError>
    where
        F: Future<Output = Result<T, WorkspaceError>>,
    {
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let (stdin, stdout) = tokio::io::split(theirs);
        let (_, controls) = mpsc::channel(1);
        let argv = vec![AGENT.to_owned(), VERB.to_owned()];
        let program = Program::Argv { argv, cwd: Some("/".to_owned()) };
        let spec = ExecSpec { program, env: vec![], op_id: op, tty: None, agent: false };
        let mut interrupts = Interrupts::new()?;
        let name = self.name().to_owned();
        let io = GuestIo { stdin, stdout, stderr: tokio::io::sink() };
        // Whoever ends first lets go of its end, and so ends the other.
        let both =
            Box::pin(async { tokio::join!(self.way().exec(spec, io, controls), talk(ours)) });
        let (ended, told) = tokio::select! {
            both = both => both,
            number = interrupts.next() => {
                return Err(CliError::new(Exit::Interrupted(number), "interrupted"));
            }
        };
        match (told, ended) {
            (Ok(told), _) => Ok(told),
            (Err(WorkspaceError::Ended), Err(lost)) => Err(way::explain(&name, &lost)),
            (Err(WorkspaceError::Ended), Ok(ExitKind::Code(code))) if UNKNOWN.contains(&code) => {
                let failure = format!("{name}: the guest's agent is older than workspaces");
                let hint = format!("a restart brings the present one: banger vm restart {name}");
                Err(CliError::failed(failure).hint(hint))
            }
            (Err(error), _) => Err(explain(&name, error)),
        }
    }
}

impl Guest {
    /// A command that is of no interest but for its end; `None` if it could not be run.
    pub(crate) async fn run_quietly(
        &mut self,
        op: OpId,
        argv: Vec<String>,
        env: Vec<(String, String)>,
    ) -> Option<Exit> {
        self.quietly(op, Program::Argv { argv, cwd: None }, env).await
    }

    /// Whether the user that this is may go there.
    pub(crate) async fn may_enter(&mut self, op: OpId, directory: &str) -> bool {
        let argv = [AGENT, NOTHING].map(str::to_owned).to_vec();
        let program = Program::Argv { argv, cwd: Some(directory.to_owned()) };
        let ended = self.quietly(op, program, vec![]).await;
        !matches!(ended, Some(Exit::Guest(NOT_STARTED)))
    }

    async fn quietly(
        &mut self,
        op: OpId,
        program: Program,
        env: Vec<(String, String)>,
    ) -> Option<Exit> {
        let (_, controls) = mpsc::channel(1);
        let spec = ExecSpec { program, env, op_id: op, tty: None, agent: false };
        let (stdin, stdout, stderr) = (tokio::io::empty(), tokio::io::sink(), tokio::io::sink());
        match self.way().exec(spec, GuestIo { stdin, stdout, stderr }, controls).await {
            Ok(ended) => Some(Exit::Guest(ended.status())),
            Err(_) => None,
        }
    }
}

/// With what helps, on this side or over there.
pub(crate) fn explain(name: &str, error: WorkspaceError) -> CliError {
    use WorkspaceError as W;
    let mut failure = CliError::failed(crate::model::chain(&error));
    match &error {
        W::GitMissing => failure.hint("install it: apt-get install git"),
        W::NotRepository { .. } => failure
            .hint("make it one: git init && git add -A && git commit")
            .hint("to copy plain files: banger vm cp"),
        W::NoCommits { .. } => failure.hint("make one: git add -A && git commit"),
        W::Bare { .. } => failure.hint("name a clone of it that has files"),
        W::InProgress { what, .. } => {
            failure.hint(format!("finish it, or give it up: git {what} --abort"))
        }
        W::Partial { .. } => {
            failure.hint("have git fetch what is missing: git fetch --refetch --no-filter")
        }
        W::Unmerged { .. } => failure.hint("resolve them and git add them"),
        W::Submodules { .. } => failure.hint("take their files along: --mode full_copy"),
        W::Unreadable { .. } => {
            failure.hint("make them readable, or leave them out with --exclude or .bangerignore")
        }
        W::Changed { .. } => failure.hint("the guest has what it had; try again"),
        W::InUse { .. } => failure
            .hint("choose another: --guest-path DIR")
            .hint(format!("or move it away: banger vm exec --no-workspace {name} -- mv ...")),
        W::GuestChanged { lines, .. } => {
            failure.detail.clone_from(lines);
            failure
                .hint(format!("bring them back first: banger vm workspace export {name}"))
                .hint("or give them up: --discard-guest")
        }
        W::NotPrepared { .. } => {
            failure.hint(format!("prepare it: banger vm workspace prepare {name} PATH"))
        }
        W::DoesNotApply { lines, .. } => {
            failure.detail.clone_from(lines);
            failure.hint("nothing was changed; as a patch: banger vm workspace export")
        }
        W::BranchTaken { .. } => failure.hint("choose another name"),
        W::Refused { code: Refusal::Busy, .. } => failure.hint("try again when it is done"),
        W::Refused { code: Refusal::NoSpace, .. } => failure
            .hint("the guest has what it had")
            .hint(format!("make room: banger vm set {name} --work-disk-size SIZE, when stopped")),
        _ => failure,
    }
}
