//! Runs one program or shell in a guest and carries its streams.
//!
//! Three movements share one channel: input flows in, output flows out, controls interrupt. The
//! end of the output decides; the other two are dropped with it.

use banger_agent::contract::exec::{self as contract, ExecRequest};
use russh::ChannelWriteHalf;
use russh::client::Msg;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::program::{Control, ExecSpec, ExitKind, GuestIo, Program};
use super::pump::{Output, feed, steer};
use super::{GuestError, GuestSsh};

impl GuestSsh {
    /// Ends when the program has ended and all it wrote is written. `controls` may be closed.
    pub async fn exec<I, O, E>(
        &self,
        spec: ExecSpec,
        io: GuestIo<I, O, E>,
        controls: mpsc::Receiver<Control>,
    ) -> Result<ExitKind, GuestError>
    where
        I: AsyncRead + Unpin,
        O: AsyncWrite + Unpin,
        E: AsyncWrite + Unpin,
    {
        let start = Start::from_spec(spec)?;
        let opening = self.handle.0.channel_open_session();
        let channel = opening.await.map_err(|error| self.refused("a session", error))?;
        let (mut from_guest, to_guest) = channel.split();
        let expected = start
            .send(&to_guest)
            .await
            .map_err(|error| self.lost("starting the program", Some(error)))?;

        // Input and controls are sent without waiting for the answers: the guest reads them in
        // order, and a whole round trip is saved.
        let mut output = Output::new(self, expected, io.stdout, io.stderr);
        let ended = {
            let collecting = output.collect(&mut from_guest);
            let feeding = feed(&to_guest, io.stdin);
            let steering = steer(&to_guest, controls);
            tokio::pin!(collecting, feeding, steering);
            let (mut fed, mut steered) = (false, false);
            loop {
                tokio::select! {
                    ended = &mut collecting => break ended,
                    input = &mut feeding, if !fed => match input {
                        Ok(()) => fed = true,
                        Err(error) => break Err(GuestError::Input(error)),
                    },
                    () = &mut steering, if !steered => steered = true,
                }
            }
        };
        if ended.is_err() {
            // The program must not run on unheard.
            output.hang_up(&to_guest, &mut from_guest).await;
        }
        ended
    }
}

/// The requests that start a program, in the order in which they are sent.
struct Start {
    tty: Option<super::Pty>,
    agent: bool,
    env: Vec<(String, String)>,
    what: What,
}

enum What {
    Exec(Vec<u8>),
    Shell,
}

impl Start {
    fn from_spec(spec: ExecSpec) -> Result<Self, GuestError> {
        let ExecSpec { program, env, op_id, tty, agent } = spec;
        let start = |env, what| Self { tty, agent, env, what };
        Ok(match program {
            Program::Argv { argv, cwd } => {
                let request = ExecRequest { argv, env, cwd, op_id: op_id.0 };
                let bytes = contract::encode(&request).map_err(GuestError::Request)?;
                start(Vec::new(), What::Exec(bytes))
            }
            Program::Line(line) => start(env, What::Exec(line.into_bytes())),
            Program::Shell => start(env, What::Shell),
        })
    }

    /// Answers what the guest's answers will be about, in their order.
    async fn send(self, to: &ChannelWriteHalf<Msg>) -> Result<Vec<&'static str>, russh::Error> {
        let mut expected = Vec::with_capacity(2);
        if let Some(tty) = self.tty {
            to.request_pty(true, &tty.term, tty.cols, tty.rows, 0, 0, &[]).await?;
            expected.push("make a terminal");
        }
        if self.agent {
            to.agent_forward(true).await?;
            expected.push("offer your agent to the program");
        }
        for (name, value) in self.env {
            // Servers may refuse names they do not know; the program runs all the same.
            to.set_env(false, name, value).await?;
        }
        match self.what {
            What::Exec(command) => {
                to.exec(true, command).await?;
                expected.push("run the program");
            }
            What::Shell => {
                to.request_shell(true).await?;
                expected.push("run a shell");
            }
        }
        Ok(expected)
    }
}
