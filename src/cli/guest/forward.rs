//! Ports carried over a connection to a guest: `-L`, `-R`, `-D`, and the user's agent for keys.
//!
//! Each connection has a task; all end with the way that they go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::way;
use crate::cli::error::CliError;
use crate::host::guest::ssh::{FromGuests, GuestSsh, Incoming};

/// `[BIND:]PORT:HOST:HOSTPORT`; addresses with colons are in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forward {
    bind: Option<String>,
    port: u16,
    host: String,
    host_port: u16,
}

/// `[BIND:]PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Socks {
    bind: Option<String>,
    port: u16,
}

/// What a connection is to carry beside its program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forwards {
    pub(crate) to_guest: Vec<Forward>,
    pub(crate) from_guest: Vec<Forward>,
    pub(crate) socks: Vec<Socks>,
    /// Where the user's agent answers.
    pub(crate) agent: Option<PathBuf>,
}

impl FromStr for Forward {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let syntax = || format!("{text:?} is not [BIND:]PORT:HOST:HOSTPORT");
        let words = split(text);
        let (bind, [listen, host, host_port]) = match words.as_slice() {
            [a, b, c] => (None, [a, b, c]),
            [bind, a, b, c] => (Some(bind.clone()), [a, b, c]),
            _ => return Err(syntax()),
        };
        let number = |word: &String| word.parse().map_err(|_| syntax());
        let (port, host_port) = (number(listen)?, number(host_port)?);
        if host.is_empty() || host_port == 0 {
            return Err(syntax());
        }
        Ok(Self { bind, port, host: host.clone(), host_port })
    }
}

impl FromStr for Socks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let syntax = || format!("{text:?} is not [BIND:]PORT");
        let (bind, port) = match split(text).as_slice() {
            [port] => (None, port.clone()),
            [bind, port] => (Some(bind.clone()), port.clone()),
            _ => return Err(syntax()),
        };
        Ok(Self { bind, port: port.parse().map_err(|_| syntax())? })
    }
}

/// At colons that are in no brackets, which are left away.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut inside) = (vec![String::new()], false);
    for c in text.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            ':' if !inside => words.push(String::new()),
            c => words.last_mut().into_iter().for_each(|word| word.push(c)),
        }
    }
    words
}

impl Forwards {
    pub(crate) fn is_empty(&self) -> bool {
        self.to_guest.is_empty()
            && self.from_guest.is_empty()
            && self.socks.is_empty()
            && self.agent.is_none()
    }

    /// Ends when all that was asked for is listened on; what comes then goes on by itself.
    pub(super) async fn begin(
        self,
        ssh: &GuestSsh,
        from_guest: FromGuests,
        name: &str,
    ) -> Result<(), CliError> {
        for forward in self.to_guest {
            let listener = listen(forward.bind.as_deref(), forward.port).await?;
            let ssh = ssh.clone();
            tokio::spawn(accept(listener, move |stream| {
                let (ssh, host) = (ssh.clone(), forward.host.clone());
                async move { join(stream, ssh.direct_tcpip(&host, forward.host_port).await).await }
            }));
        }
        for socks in self.socks {
            let listener = listen(socks.bind.as_deref(), socks.port).await?;
            let ssh = ssh.clone();
            tokio::spawn(accept(listener, move |stream| serve_socks(stream, ssh.clone())));
        }
        let mut ports = vec![];
        for forward in self.from_guest {
            let address = forward.bind.as_deref().unwrap_or("localhost");
            let port = ssh.listen(address, forward.port).await;
            let port = port.map_err(|error| {
                way::explain(name, &error).about(&format!("port {}", forward.port))
            })?;
            ports.push((port, forward));
        }
        tokio::spawn(take(from_guest, ports, self.agent));
        Ok(())
    }
}

/// On this host alone unless an address is named; `*` is all of them.
async fn listen(bind: Option<&str>, port: u16) -> Result<TcpListener, CliError> {
    let bound = match bind {
        None | Some("localhost") => TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await,
        Some("*" | "") => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
        Some(address) => TcpListener::bind((address, port)).await,
    };
    bound.map_err(|error| CliError::from_error(format!("listen on port {port}"), &error))
}

async fn accept<F: Future<Output = ()> + 'static + Send>(
    listener: TcpListener,
    serve: impl Fn(TcpStream) -> F,
) {
    while let Ok((stream, _)) = listener.accept().await {
        drop(stream.set_nodelay(true));
        tokio::spawn(serve(stream));
    }
}

async fn join<S, E: std::error::Error>(mut here: TcpStream, there: Result<S, E>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match there {
        // How either side ended, the other has seen.
        Ok(mut there) => drop(copy_bidirectional(&mut here, &mut there).await),
        Err(error) => tracing::debug!(%error, "a forward leads nowhere"),
    }
}

/// What the guest opens.
async fn take(mut from_guest: FromGuests, ports: Vec<(u32, Forward)>, agent: Option<PathBuf>) {
    while let Some(opened) = from_guest.recv().await {
        match opened.what {
            Incoming::Agent => {
                let Some(agent) = agent.clone() else { continue };
                tokio::spawn(async move {
                    if let Ok(mut here) = UnixStream::connect(agent).await {
                        drop(copy_bidirectional(&mut here, &mut opened.into_stream()).await);
                    }
                });
            }
            Incoming::Port(port) => {
                let Some((_, forward)) = ports.iter().find(|(known, _)| *known == port) else {
                    continue;
                };
                let target = (forward.host.clone(), forward.host_port);
                tokio::spawn(async move {
                    if let Ok(mut here) = TcpStream::connect(target).await {
                        drop(here.set_nodelay(true));
                        drop(copy_bidirectional(&mut here, &mut opened.into_stream()).await);
                    }
                });
            }
        }
    }
}

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const NONE_ACCEPTABLE: u8 = 0xff;
const CONNECT: u8 = 1;
const DONE: u8 = 0;
const REFUSED: u8 = 5;
const UNKNOWN: u8 = 7;

/// Version 5, connections alone, without a login (RFC 1928). Names are the guest's to resolve.
async fn serve_socks(mut client: TcpStream, ssh: GuestSsh) {
    match asked(&mut client).await {
        Ok(Some((host, port))) => {
            let there = ssh.direct_tcpip(&host, port).await;
            let answer = if there.is_ok() { DONE } else { REFUSED };
            if client.write_all(&reply(answer)).await.is_ok() {
                join(client, there).await;
            }
        }
        Ok(None) => drop(client.write_all(&reply(UNKNOWN)).await),
        Err(error) => tracing::debug!(%error, "this is no SOCKS"),
    }
}

fn reply(code: u8) -> [u8; 10] {
    [VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0]
}

/// Where the client wants to go; `None` if it wants something else.
async fn asked(
    client: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> std::io::Result<Option<(String, u16)>> {
    let bad = || std::io::Error::from(std::io::ErrorKind::InvalidData);
    let [version, methods] = [client.read_u8().await?, client.read_u8().await?];
    let mut offered = vec![0; usize::from(methods)];
    client.read_exact(&mut offered).await?;
    if version != VERSION || !offered.contains(&NO_LOGIN) {
        client.write_all(&[VERSION, NONE_ACCEPTABLE]).await?;
        return Err(bad());
    }
    client.write_all(&[VERSION, NO_LOGIN]).await?;
    let mut head = [0; 4];
    client.read_exact(&mut head).await?;
    let [_, command, _, kind] = head;
    let host = match kind {
        1 => IpAddr::from(Ipv4Addr::from(client.read_u32().await?)).to_string(),
        3 => {
            let mut name = vec![0; usize::from(client.read_u8().await?)];
            client.read_exact(&mut name).await?;
            String::from_utf8(name).map_err(|_| bad())?
        }
        4 => IpAddr::from(Ipv6Addr::from(client.read_u128().await?)).to_string(),
        _ => return Ok(None),
    };
    let port = client.read_u16().await?;
    Ok((command == CONNECT).then_some((host, port)))
}

/// Of the environment.
pub(crate) fn own_agent() -> Result<PathBuf, CliError> {
    match std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()) {
        Some(path) => Ok(path.into()),
        None => Err(CliError::failed("there is no agent to forward: SSH_AUTH_SOCK is not set")
            .hint("start one: eval $(ssh-agent) && ssh-add")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwards_are_written_as_for_ssh() {
        let forward = |bind: Option<&str>, port, host: &str, host_port| Forward {
            bind: bind.map(str::to_owned),
            port,
            host: host.to_owned(),
            host_port,
        };
        for (text, expected) in [
            ("80:db:5432", forward(None, 80, "db", 5432)),
            ("*:80:db:5432", forward(Some("*"), 80, "db", 5432)),
            ("[::1]:80:[fe80::2]:1", forward(Some("::1"), 80, "fe80::2", 1)),
            ("0:localhost:1", forward(None, 0, "localhost", 1)),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for bad in ["", "80", "80:db", "80::1", "x:db:1", "80:db:0", "80:db:99999", "a:b:c:d:e"] {
            assert!(bad.parse::<Forward>().is_err(), "{bad}");
        }
        assert_eq!("1080".parse(), Ok(Socks { bind: None, port: 1080 }));
        assert_eq!("*:1080".parse(), Ok(Socks { bind: Some("*".into()), port: 1080 }));
        assert!("x".parse::<Socks>().is_err());
    }

    #[tokio::test]
    async fn socks_tells_where_its_client_wants_to_go() {
        let ask = async |said: &[u8]| {
            let (mut client, mut server) = tokio::io::duplex(1024);
            client.write_all(said).await.unwrap();
            drop(client.shutdown().await);
            asked(&mut server).await
        };
        let name = [&[5, 1, 0, 5, 1, 0, 3, 7][..], b"db.test", &[0, 80]].concat();
        assert_eq!(ask(&name).await.unwrap(), Some(("db.test".to_owned(), 80)));
        let four = [5, 2, 2, 0, 5, 1, 0, 1, 10, 0, 0, 7, 1, 0];
        assert_eq!(ask(&four).await.unwrap(), Some(("10.0.0.7".to_owned(), 256)));
        let bind = [5, 1, 0, 5, 2, 0, 1, 10, 0, 0, 7, 1, 0];
        assert_eq!(ask(&bind).await.unwrap(), None);
        assert!(ask(&[4, 1, 0, 80]).await.is_err());
        assert!(ask(&[5, 1, 2]).await.is_err(), "a login is wanted");
    }
}
