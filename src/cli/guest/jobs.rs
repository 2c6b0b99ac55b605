//! Jobs in a guest: asked of its agent as a program, by whatever way leads there.

use banger_agent::contract::codec;
use banger_agent::contract::exec::AGENT;
use banger_agent::contract::job::{JobInfo, JobReply, JobRequest, JobState, StartJob, VERB};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;

use super::session::Guest;
use super::way;
use super::words::Words;
use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::operation::Interrupts;
use crate::host::guest::ssh::{ExecSpec, ExitKind, GuestIo, Program};
use crate::model::OpId;

impl Guest {
    /// The number of the new job. One that cannot be started is an error with the guest's status.
    pub(crate) async fn start_job(
        &mut self,
        op: OpId,
        argv: Vec<String>,
        env: Vec<(String, String)>,
        cwd: Option<String>,
        user: Option<String>,
    ) -> Result<u32, CliError> {
        let env = self.env().iter().cloned().chain(env).collect();
        let user = user.unwrap_or_else(|| way::ROOT.to_owned());
        let start = StartJob { argv, env, cwd, user, op_id: op.0 };
        let (mut out, mut err) = (Words::default(), Words::default());
        match self.ask(op, &JobRequest::Start(start), &mut out, &mut err).await? {
            0 => match codec::decode(out.bytes()) {
                Ok(JobReply::Started { id }) => Ok(id),
                other => Err(CliError::unexpected("the number of a job", &other)),
            },
            127 if err.last().starts_with(AGENT) => Err(older(self.name())),
            status @ (126 | 127) => {
                let exit = Exit::Guest(status);
                Err(CliError::new(exit, format!("{}: {}", self.name(), err.last())))
            }
            _ => Err(CliError::failed(format!("{}: {}", self.name(), err.last()))),
        }
    }

    pub(crate) async fn jobs(&mut self, op: OpId) -> Result<Vec<JobInfo>, CliError> {
        let (mut out, mut err) = (Words::default(), Words::default());
        match self.ask(op, &JobRequest::List, &mut out, &mut err).await? {
            0 => match codec::decode(out.bytes()) {
                Ok(JobReply::Jobs(jobs)) => Ok(jobs),
                other => Err(CliError::unexpected("jobs", &other)),
            },
            _ => Err(CliError::failed(format!("{}: {}", self.name(), err.last()))),
        }
    }

    /// How it ended. What it wrote is where jobs leave it.
    pub(crate) async fn await_job(&mut self, op: OpId, id: u32) -> Result<JobState, CliError> {
        let request = JobRequest::Output { id, follow: true };
        self.ask(op, &request, tokio::io::sink(), tokio::io::sink()).await?;
        let job = self.jobs(op).await?.into_iter().find(|job| job.id == id);
        Ok(job.map_or(JobState::Lost, |job| job.state))
    }

    /// To this process's own streams, which stay apart.
    pub(crate) async fn job_output(
        &mut self,
        op: OpId,
        id: u32,
        follow: bool,
    ) -> Result<(), CliError> {
        let request = JobRequest::Output { id, follow };
        let (out, err) = (tokio::io::stdout(), tokio::io::stderr());
        match self.ask(op, &request, out, err).await? {
            0 => Ok(()),
            _ => {
                let failure = CliError::new(Exit::NotFound, format!("{}: no output", self.name()));
                Err(failure.hint(format!("which jobs are there? banger vm jobs {}", self.name())))
            }
        }
    }

    async fn ask<O, E>(
        &mut self,
        op: OpId,
        asked: &JobRequest,
        stdout: O,
        stderr: E,
    ) -> Result<u8, CliError>
    where
        O: AsyncWrite + Unpin,
        E: AsyncWrite + Unpin,
    {
        let request = codec::encode(asked)
            .map_err(|error| CliError::from_error("write what is asked of the guest", &error))?;
        let argv = [AGENT, VERB].map(str::to_owned).to_vec();
        let program = Program::Argv { argv, cwd: None };
        let spec = ExecSpec { program, env: vec![], op_id: op, tty: None, agent: false };
        let io = GuestIo { stdin: request.as_slice(), stdout, stderr };
        let name = self.name().to_owned();
        let mut interrupts = Interrupts::new()?;
        let ended = tokio::select! {
            ended = self.way().exec(spec, io, mpsc::channel(1).1) => ended,
            number = interrupts.next() => {
                return Err(CliError::new(Exit::Interrupted(number), "interrupted"));
            }
        };
        match ended {
            Ok(ExitKind::Code(2)) => Err(older(&name)),
            // Not the job's: the agent has no such name for itself.
            Ok(ExitKind::Code(127)) if !matches!(asked, JobRequest::Start(_)) => Err(older(&name)),
            Ok(ended) => Ok(ended.status()),
            Err(error) => Err(way::explain(&name, &error)),
        }
    }
}

/// An agent of before.
fn older(name: &str) -> CliError {
    let why = format!("{name}: the agent in it is of an older release, which knows no jobs");
    let way_out = format!("a guest keeps the agent of its start: banger vm restart {name}");
    CliError::failed(why).hint(way_out)
}
