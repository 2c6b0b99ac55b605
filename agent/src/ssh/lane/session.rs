//! One client's program: asked for, fed, signalled, and hung up when the client leaves.

use std::sync::Arc;
use std::time::Duration;

use banger_agent::contract::exec::{self, ExecRequest};
use banger_agent::contract::lane::{self, GuestKind, HEADER_BYTES, HostKind, WINDOW};
use bytes::BytesMut;
use russh::Sig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::log;
use crate::ssh::account::Account;
use crate::ssh::backlog::Backlog;
use crate::ssh::environment::Environment;
use crate::ssh::exec::{Launch, Program};
use crate::ssh::process::{self, Control, Outlet};
use crate::ssh::session::Guest;
use crate::ssh::signals;
use crate::ssh::sink::Sink;

/// The user of every program; others are SSH's.
const USER: &str = "root";
/// Frames on their way to the client.
const FRAMES: usize = 4;
/// Input that the program has not read: above this no more is granted.
const HIGH: usize = WINDOW as usize / 2;
const READ: usize = 64 << 10;
/// A client greets as soon as it is connected.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// A client with a connection of its own: its greeting is the first that it says.
pub(in crate::ssh) async fn greet<S>(mut stream: S, guest: &Guest)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut said = [0; lane::GREETING_BYTES];
    let heard = tokio::time::timeout(GREETING_LIMIT, stream.read_exact(&mut said)).await;
    let (Ok(Ok(_)), Some(greeting)) = (heard, lane::as_greeting(&said)) else { return };
    if stream.write_all(&greeting).await.is_ok() {
        serve(stream, guest).await;
    }
}

/// Ends when the program has and its client was told, or when the client leaves.
pub(in crate::ssh) async fn serve<S>(stream: S, guest: &Guest)
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    let (from, to) = tokio::io::split(stream);
    let (frames, queue) = mpsc::channel(FRAMES);
    let writing = tokio::spawn(write(to, queue));
    let mut client = Client { from, heard: BytesMut::new() };
    let Some((HostKind::Request, request)) = client.frame().await else { return };
    match exec::decode(&request) {
        Ok(Some(request)) => run(request, client, frames, writing, guest).await,
        Ok(None) => {}
        Err(error) => log::line(format_args!("lane: {}", crate::error::Chain(&error))),
    }
}

async fn run<S: AsyncRead>(
    request: ExecRequest,
    mut client: Client<S>,
    frames: mpsc::Sender<Vec<u8>>,
    mut writing: JoinHandle<()>,
    guest: &Guest,
) {
    let Some(account) = Account::find(USER) else { return };
    let mut env = Environment::of(&account);
    env.extend(&guest.env);
    let program = Program::Argv(request);
    let launch = Launch { account: &account, env, program, terminal: None };
    let (open, input) = (watch::channel(()).0, Backlog::new(HIGH));
    let (sink, activity) = (Sink::Lane(frames.clone()), Arc::default());
    let outlet = Outlet { sink, activity, open: open.subscribe() };
    let control = match launch.spawn() {
        Ok(running) => {
            let control = running.control();
            drop(tokio::spawn(process::supervise(running, input.clone(), outlet)));
            Some(control)
        }
        Err(failure) => {
            input.abandon();
            drop(tokio::spawn(process::refuse(failure, outlet)));
            None
        }
    };
    // The queue ends when the program has let go of it, after its last word.
    let grants = frames.downgrade();
    drop(frames);
    tokio::select! {
        _ = &mut writing => {}
        () = attend(&mut client, control.as_deref(), &input, &grants) => writing.abort(),
    }
    drop(open); // hangs the program up, if it still runs
}

/// Hears the client until it leaves.
async fn attend<S: AsyncRead>(
    client: &mut Client<S>,
    control: Option<&Control>,
    input: &Backlog,
    grants: &mpsc::WeakSender<Vec<u8>>,
) {
    let mut taken = 0; // and not granted again yet
    loop {
        let due = taken > 0 && input.len() <= HIGH;
        tokio::select! {
            frame = client.frame() => match frame {
                Some((HostKind::Data, data)) => {
                    taken += u32::try_from(data.len()).unwrap_or(u32::MAX);
                    if taken > WINDOW {
                        return log::line("lane: a client sends more than it was granted");
                    }
                    input.push(&data);
                }
                Some((HostKind::End, _)) => input.end(),
                Some((HostKind::Signal, name)) => signal(control, &name),
                Some((HostKind::Request, _)) => {}
                None => return,
            },
            () = input.drained(), if taken > 0 && !due => {}
            () = grant(grants, taken), if due => taken = 0,
        }
    }
}

/// Waits for a place among the frames: a client that does not take its output gets no grants
/// either, but its signals are heard.
async fn grant(frames: &mpsc::WeakSender<Vec<u8>>, bytes: u32) {
    let Some(frames) = frames.upgrade() else { return std::future::pending().await };
    if let (Ok(place), Ok(frame)) =
        (frames.reserve().await, lane::frame(GuestKind::Grant, &bytes.to_le_bytes()))
    {
        place.send(frame);
    }
}

fn signal(control: Option<&Control>, name: &[u8]) {
    let name = String::from_utf8_lossy(name).into_owned();
    if let (Some(control), Some(signal)) = (control, signals::from_ssh(&Sig::Custom(name))) {
        control.signal(signal);
    }
}

struct Client<S> {
    from: ReadHalf<S>,
    heard: BytesMut,
}

impl<S: AsyncRead> Client<S> {
    /// The next frame; `None` when the client has left or makes no sense. Cancel-safe.
    async fn frame(&mut self) -> Option<(HostKind, BytesMut)> {
        loop {
            if let Some(length) = lane::first_frame(&self.heard).ok()?
                && self.heard.len() >= length
            {
                let mut frame = self.heard.split_to(length);
                let kind = HostKind::try_from(*frame.first()?).ok()?;
                return Some((kind, frame.split_off(HEADER_BYTES)));
            }
            self.heard.reserve(READ);
            match self.from.read_buf(&mut self.heard).await {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }
}

async fn write<S: AsyncWrite>(mut to: WriteHalf<S>, mut frames: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = frames.recv().await {
        if to.write_all(&frame).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;
    use tokio::task::JoinHandle;

    use super::*;
    use crate::ssh::auth::Keys;

    const NONCE: [u8; lane::NONCE_BYTES] = [9; lane::NONCE_BYTES];

    fn client() -> (DuplexStream, JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(READ);
        let env = vec![("FROM_CONFIG".to_owned(), "config".to_owned())];
        let guest = Guest { keys: Keys::parse(&[]).unwrap(), env };
        (ours, tokio::spawn(async move { greet(theirs, &guest).await }))
    }

    #[tokio::test]
    async fn whoever_greets_has_a_program_run_and_is_told_its_end() {
        let (mut client, served) = client();
        let greeting = lane::greeting(NONCE);
        let argv = ["sh", "-c", "read word; echo $word $FROM_CONFIG; exit 7"].map(str::to_owned);
        let request =
            ExecRequest { argv: argv.to_vec(), env: vec![], cwd: Some("/".into()), op_id: [7; 16] };
        let request = exec::encode(&request).unwrap();
        let said = [
            greeting.to_vec(),
            lane::frame(HostKind::Request, &request).unwrap(),
            lane::frame(HostKind::Data, b"hello\n").unwrap(),
        ];
        client.write_all(&said.concat()).await.unwrap();
        let mut heard = vec![];
        client.read_to_end(&mut heard).await.unwrap();
        let (answer, mut frames) = heard.split_at(lane::GREETING_BYTES);
        assert_eq!(answer, greeting);
        let (mut out, mut exit) = (vec![], None);
        while let Some(length) = lane::first_frame(frames).unwrap() {
            let (frame, rest) = frames.split_at(length);
            match GuestKind::try_from(frame[0]).unwrap() {
                GuestKind::Out => out.extend_from_slice(&frame[HEADER_BYTES..]),
                GuestKind::Exit => exit = lane::number(&frame[HEADER_BYTES..]),
                _ => {}
            }
            frames = rest;
        }
        assert_eq!(String::from_utf8(out).unwrap(), "hello config\n");
        assert_eq!(exit, Some(7));
        served.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_is_not_heard() {
        let nonsense = [b'x'; lane::GREETING_BYTES];
        for said in [&nonsense[..], &lane::greeting(NONCE)[1..], b""] {
            let (mut client, served) = client();
            client.write_all(said).await.unwrap();
            let mut heard = vec![];
            client.read_to_end(&mut heard).await.unwrap();
            assert!(heard.is_empty(), "{heard:?}");
            served.await.unwrap();
        }
    }
}
