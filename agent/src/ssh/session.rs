//! One connection: russh's callbacks, and the state of its channels.
//!
//! What must not be done here: no waiting. While a callback runs the connection stands still, in
//! both directions; all that takes time is a task of its own. The one exception is the brake of
//! [`super::backlog`], which is bounded.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use banger_agent::contract::exec as request;
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, Pty, Sig};
use tokio::sync::{Notify, watch};

use super::account::Account;
use super::auth::Keys;
use super::backlog::{self, Backlog};
use super::environment::Environment;
use super::exec::{Launch, Program};
use super::forward::{self, Target};
use super::process::{self, Control, Outlet};
use super::pty::Terminal;
use super::reverse::Reverse;
use super::signals;
use super::sink::Sink;

const FULL_WINDOW: u32 = 2 << 20;
/// How long a braked channel may hold up its connection, per few bytes.
const BRAKE: Duration = Duration::from_millis(20);
/// Enough for any editor's remote mode, and short of using up descriptors.
const MAX_CHANNELS: usize = 256;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) keys: Keys,
    pub(super) env: Vec<(String, String)>,
}

pub(super) struct Connection {
    guest: Arc<Guest>,
    account: Option<Account>,
    authenticated: Arc<AtomicBool>,
    channels: HashMap<ChannelId, Line>,
    /// Told when output is about to be sent, so that a brake lets it pass.
    activity: Arc<Notify>,
    reverse: Reverse,
}

/// An open channel. Dropping it (the client closed it, or the connection ended) is what tells
/// its task to end.
struct Line {
    writer: Option<ChannelWriteHalf<Msg>>,
    input: Backlog,
    env: Vec<(String, String)>,
    terminal: Option<Terminal>,
    /// The program may use the client's keys.
    agent: bool,
    control: Option<Arc<Control>>,
    open: watch::Sender<()>,
}

impl Connection {
    pub(super) fn new(guest: Arc<Guest>) -> Self {
        Self {
            guest,
            account: None,
            authenticated: Arc::default(),
            channels: HashMap::new(),
            activity: Arc::default(),
            reverse: Reverse::default(),
        }
    }

    pub(super) fn authenticated(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.authenticated)
    }

    /// Registers a channel, unless there are too many.
    fn admit(&mut self, channel: Channel<Msg>) -> Option<&mut Line> {
        if self.channels.len() >= MAX_CHANNELS {
            // Forwards that never came about have left their line behind.
            self.channels.retain(|_, line| line.writer.is_some() || !line.open.is_closed());
        }
        if self.channels.len() >= MAX_CHANNELS {
            return None;
        }
        let id = channel.id();
        // Input comes by callback. With its reading half gone, a channel never holds russh up.
        let (_, writer) = channel.split();
        let line = Line {
            writer: Some(writer),
            input: Backlog::default(),
            env: Vec::new(),
            terminal: None,
            agent: false,
            control: None,
            open: watch::channel(()).0,
        };
        Some(self.channels.entry(id).insert_entry(line).into_mut())
    }

    fn start(
        &mut self,
        id: ChannelId,
        program: Program,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let (Some(account), Some(line)) = (&self.account, self.channels.get_mut(&id)) else {
            return session.channel_failure(id);
        };
        // A channel runs one program; a second request finds the writer gone.
        let Some(writer) = line.writer.take() else {
            return session.channel_failure(id);
        };
        let mut env = Environment::of(account);
        env.extend(&self.guest.env);
        env.extend(&line.env);
        if line.agent {
            let (activity, open) = (Arc::clone(&self.activity), line.open.subscribe());
            match self.reverse.offer_agent(account, session.handle(), activity, open) {
                Ok(path) => env.set("SSH_AUTH_SOCK", &path.to_string_lossy()),
                Err(error) => crate::log::line(format_args!("offer the client's agent: {error}")),
            }
        }
        let launch = Launch { account, env, program, terminal: line.terminal.take() };
        let outlet = Outlet {
            sink: Sink::Channel { writer, handle: session.handle() },
            activity: Arc::clone(&self.activity),
            open: line.open.subscribe(),
        };
        session.channel_success(id)?;
        match launch.spawn() {
            Ok(running) => {
                line.control = Some(running.control());
                tokio::spawn(process::supervise(running, line.input.clone(), outlet));
            }
            Err(failure) => {
                line.input.abandon();
                tokio::spawn(process::refuse(failure, outlet));
            }
        }
        Ok(())
    }

    async fn forward(&mut self, channel: Channel<Msg>, target: Target, reply: ChannelOpenHandle) {
        let activity = Arc::clone(&self.activity);
        let Some(line) = self.admit(channel) else {
            return reply.reject(ChannelOpenFailure::ResourceShortage).await;
        };
        if let Some(writer) = line.writer.take() {
            let (input, open) = (line.input.clone(), line.open.subscribe());
            tokio::spawn(forward::run(target, reply, writer, input, open, activity));
        }
    }

    /// True if a client with this key may be this user.
    fn admits(&self, user: &str, key: &russh::keys::PublicKey) -> bool {
        self.guest.keys.contains(key) && Account::find(user).is_some()
    }
}

impl Handler for Connection {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(if self.admits(user, offer.public_key) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        if !self.guest.keys.contains(key.public_key) {
            return Ok(Auth::reject());
        }
        let Some(account) = Account::find(user) else {
            return Ok(Auth::reject());
        };
        self.account = Some(account);
        self.authenticated.store(true, Ordering::Relaxed);
        Ok(Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.admit(channel) {
            Some(_) => reply.accept().await,
            None => reply.reject(ChannelOpenFailure::ResourceShortage).await,
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        match u16::try_from(port) {
            Ok(port) => self.forward(channel, Target::Tcp(host.to_owned(), port), reply).await,
            Err(_) => reply.reject(ChannelOpenFailure::ConnectFailed).await,
        }
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        self.forward(channel, Target::Unix(path.into()), reply).await;
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        self.channels.remove(&id);
        Ok(())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        if let Some(line) = self.channels.get(&id) {
            line.input.end();
        }
        Ok(())
    }

    async fn data(
        &mut self,
        id: ChannelId,
        data: &[u8],
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let Some(line) = self.channels.get(&id) else {
            return Ok(());
        };
        line.input.push(data);
        let trickles = u32::try_from(data.len()).is_ok_and(|length| length <= backlog::TRICKLE);
        if trickles && line.input.len() > backlog::HIGH {
            tokio::select! {
                () = line.input.drained() => {}
                () = self.activity.notified() => {}
                () = tokio::time::sleep(BRAKE) => {}
            }
        }
        Ok(())
    }

    fn adjust_window(&mut self, id: ChannelId, _: u32) -> u32 {
        let held = self.channels.get(&id).map(|line| line.input.len());
        let held = held.or_else(|| self.reverse.held(id)).unwrap_or(0);
        let all_braked = || self.channels.values().any(|line| line.input.len() > backlog::CAP);
        if held > backlog::HIGH || all_braked() { backlog::TRICKLE } else { FULL_WINDOW }
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channels.get_mut(&id) {
            Some(line) if line.writer.is_some() => {
                let size = super::pty::size(columns, rows, width, height);
                line.terminal =
                    Some(Terminal { term: term.to_owned(), size, modes: modes.to_vec() });
                session.channel_success(id)
            }
            _ => session.channel_failure(id),
        }
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let size = super::pty::size(columns, rows, width, height);
        if let Some(line) = self.channels.get_mut(&id) {
            if let Some(control) = &line.control {
                control.resize(size);
            } else if let Some(terminal) = &mut line.terminal {
                terminal.size = size;
            }
        }
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match self.channels.get_mut(&id) {
            Some(line) => {
                line.env.push((name.to_owned(), value.to_owned()));
                session.channel_success(id)
            }
            None => session.channel_failure(id),
        }
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(id, Program::LoginShell, session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        line: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match request::decode(line) {
            Ok(Some(request)) => self.start(id, Program::Argv(request), session),
            Ok(None) => self.start(id, Program::Line(line.to_vec()), session),
            Err(error) => {
                crate::log::line(format_args!("exec refused: {}", crate::error::Chain(&error)));
                session.channel_failure(id)
            }
        }
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        match name {
            "sftp" => self.start(id, Program::Agent(&["sftp"]), session),
            _ => session.channel_failure(id),
        }
    }

    async fn agent_request(&mut self, id: ChannelId, _: &mut Session) -> Result<bool, Self::Error> {
        Ok(self.channels.get_mut(&id).map(|line| line.agent = true).is_some())
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut Session,
    ) -> Result<bool, Self::Error> {
        let (Some(account), Ok(asked)) = (&self.account, u16::try_from(*port)) else {
            return Ok(false);
        };
        let (handle, activity) = (session.handle(), Arc::clone(&self.activity));
        match self.reverse.listen(address, asked, account, handle, activity).await {
            Ok(listens) => {
                *port = u32::from(listens);
                Ok(true)
            }
            Err(error) => {
                crate::log::line(format_args!("listen on port {asked} for a client: {error}"));
                Ok(false)
            }
        }
    }

    async fn cancel_tcpip_forward(
        &mut self,
        _: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, Self::Error> {
        Ok(u16::try_from(port).is_ok_and(|port| self.reverse.unlisten(port)))
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let control = self.channels.get(&id).and_then(|line| line.control.as_ref());
        if let (Some(control), Some(signal)) = (control, signals::from_ssh(&signal)) {
            control.signal(signal);
        }
        Ok(())
    }
}
