//! Names of the guest's network, for port forwarding: literals, `/etc/hosts`, and a question to
//! the servers of `/etc/resolv.conf`. The libc's resolver is not there in a static binary.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;

const ANSWER_LIMIT: Duration = Duration::from_secs(3);
const TYPE_A: u16 = 1;
const TYPE_AAAA: u16 = 28;
const HEADER_BYTES: usize = 12;

/// In the order in which they should be tried; empty if the name is unknown.
pub(super) async fn lookup(host: &str) -> Vec<IpAddr> {
    let host = host.trim_matches(['[', ']']);
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    if host.is_empty() || host.eq_ignore_ascii_case("localhost") {
        return vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    let known = in_hosts(host, &fs::read_to_string("/etc/hosts").unwrap_or_default());
    if !known.is_empty() {
        return known;
    }
    let resolv = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    for server in servers(&resolv) {
        let (four, six) = tokio::join!(ask(server, host, TYPE_A), ask(server, host, TYPE_AAAA));
        let found: Vec<IpAddr> = [four, six].into_iter().flatten().flatten().collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

fn in_hosts(host: &str, hosts: &str) -> Vec<IpAddr> {
    let lines = hosts.lines().map(|line| line.split('#').next().unwrap_or_default());
    lines
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
        })
        .collect()
}

fn servers(resolv: &str) -> Vec<IpAddr> {
    resolv
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok())
        .collect()
}

async fn ask(server: IpAddr, host: &str, kind: u16) -> io::Result<Vec<IpAddr>> {
    let question = question(kind, host, kind).ok_or(io::ErrorKind::InvalidInput)?;
    let local: IpAddr =
        if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(local, 0)).await?;
    socket.connect(SocketAddr::new(server, 53)).await?;
    socket.send(&question).await?;
    let mut buffer = [0; 1500];
    let length = tokio::time::timeout(ANSWER_LIMIT, socket.recv(&mut buffer)).await??;
    Ok(answers(buffer.get(..length).unwrap_or_default(), kind, kind))
}

fn question(id: u16, host: &str, kind: u16) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(HEADER_BYTES + host.len() + 6);
    out.extend(id.to_be_bytes());
    // Recursion desired; one question, nothing else.
    out.extend([0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in host.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        out.push(length);
        out.extend(label.bytes());
    }
    out.push(0);
    out.extend(kind.to_be_bytes());
    out.extend([0, 1]);
    Some(out)
}

/// The addresses of an answer; what else it holds is skipped. Anything damaged ends the reading.
fn answers(message: &[u8], id: u16, kind: u16) -> Vec<IpAddr> {
    let u16_at =
        |at: usize| message.get(at..at + 2)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    let mut found = Vec::new();
    let mut read = || -> Option<()> {
        if u16_at(0)? != id {
            return None;
        }
        let (questions, records) = (u16_at(4)?, u16_at(6)?);
        let mut at = HEADER_BYTES;
        for _ in 0..questions {
            at = after_name(message, at)? + 4;
        }
        for _ in 0..records {
            at = after_name(message, at)?;
            let (this, length) = (u16_at(at)?, usize::from(u16_at(at + 8)?));
            let data = message.get(at + 10..at + 10 + length)?;
            if this == kind {
                found.extend(address(data));
            }
            at += 10 + length;
        }
        Some(())
    };
    let _ = read();
    found
}

fn address(data: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(data) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(data).ok().map(|six| Ipv6Addr::from(six).into())
}

/// A name ends with an empty label or with a pointer to the rest of it.
fn after_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length >= 0xC0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_servers_are_read() {
        let hosts = "127.0.0.1 localhost\n10.0.0.2 db.internal db # the store\n# 10.0.0.3 db\n";
        assert_eq!(in_hosts("DB", hosts), [IpAddr::from([10, 0, 0, 2])]);
        assert!(in_hosts("store", hosts).is_empty());
        assert_eq!(
            servers("search vm\nnameserver 1.1.1.1\nnameserver x\n"),
            [IpAddr::from([1, 1, 1, 1])]
        );
    }

    #[test]
    fn an_answer_with_an_alias_gives_its_addresses() {
        let mut message = question(1, "a.example", TYPE_A).unwrap();
        message[2..8].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 2]);
        message.extend([0xC0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xC0, 12]);
        message.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 10, 1, 2, 3]);
        assert_eq!(answers(&message, 1, TYPE_A), [IpAddr::from([10, 1, 2, 3])]);
        assert!(answers(&message, 2, TYPE_A).is_empty());
        for cut in 0..message.len() {
            drop(answers(&message[..cut], 1, TYPE_A));
        }
    }

    #[test]
    fn impossible_names_are_not_asked_for() {
        assert_eq!(question(1, "a..b", TYPE_A), None);
        assert_eq!(question(1, &"x".repeat(64), TYPE_A), None);
    }
}
