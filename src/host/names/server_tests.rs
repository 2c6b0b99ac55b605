//! Over real sockets: messages written byte by byte, and `dig` where it is installed.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::timeout;

use super::*;
use crate::model::{Code, chain};

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const LIMIT: Duration = Duration::from_secs(30);

async fn started() -> (DnsServer, SocketAddr) {
    let server = DnsServer::new("127.0.0.1:0".parse().unwrap(), "172.16.0.0/24".parse().unwrap());
    let bound = server.serve().await.unwrap();
    server.set(&Name::vm("web").unwrap(), Ipv4Addr::new(172, 16, 0, 2));
    (server, bound)
}

/// A query as RFC 1035 writes it; with `edns`, an OPT record too.
fn query(name: &str, kind: u16, edns: bool) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    if edns {
        // Root name, OPT, payload 4096, version 0, no options.
        bytes.extend([0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0]);
    }
    bytes
}

async fn ask_udp(server: SocketAddr, message: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(message, server).await.unwrap();
    let mut answer = vec![0; 2048];
    let n = timeout(LIMIT, socket.recv(&mut answer)).await.unwrap().unwrap();
    answer.truncate(n);
    answer
}

async fn ask_tcp(server: SocketAddr, message: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_u16(u16::try_from(message.len()).unwrap()).await.unwrap();
    stream.write_all(message).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

/// The answer's code, and how many answers and additional records it has.
fn summary(answer: &[u8]) -> (u8, u8, u8) {
    assert_eq!(answer[..2], [0x12, 0x34], "not our answer");
    (answer[3] & 15, answer[7], answer[11])
}

#[tokio::test]
async fn addresses_are_answered_over_udp_and_tcp() {
    let (server, bound) = started().await;
    let message = query("wEb.Vm", A, false);
    for answer in [ask_udp(bound, &message).await, ask_tcp(bound, &message).await] {
        assert_eq!(summary(&answer), (0, 1, 0));
        assert_ne!(answer[2] & 4, 0, "authoritative");
        assert!(answer.ends_with(&[0, 0, 0, 5, 0, 4, 172, 16, 0, 2]), "TTL and address");
    }
    let back = ask_udp(bound, &query("2.0.16.172.in-addr.arpa", PTR, false)).await;
    assert_eq!(summary(&back), (0, 1, 0));
    assert!(back.ends_with(b"\x03web\x02vm\0"), "{back:?}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn each_kind_of_no_is_its_own() {
    let (server, bound) = started().await;
    let codes = [("web.vm", AAAA, 0), ("db.vm", A, 3), ("example.com", A, 5)];
    for (name, kind, code) in codes {
        let answer = ask_udp(bound, &query(name, kind, false)).await;
        assert_eq!(summary(&answer), (code, 0, 0), "{name}");
    }
    let name = Name::vm("web").unwrap();
    server.remove(&name);
    let gone = ask_udp(bound, &query("web.vm", A, false)).await;
    assert_eq!(summary(&gone), (3, 0, 0));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn edns_is_echoed_in_every_answer() {
    let (server, bound) = started().await;
    for (name, code, answers) in [("web.vm", 0, 1), ("db.vm", 3, 0), ("example.com", 5, 0)] {
        let answer = ask_udp(bound, &query(name, A, true)).await;
        assert_eq!(summary(&answer), (code, answers, 1), "{name}");
    }
    // A version that does not exist yet: BADVERS (16), whose high bits are in the OPT record.
    let mut message = query("web.vm", A, true);
    let version = message.len() - 5;
    message[version] = 9;
    let answer = ask_udp(bound, &message).await;
    let opt = answer.len() - 11;
    assert_eq!((summary(&answer), answer[opt + 5]), ((0, 0, 1), 1));
    server.stop().await.unwrap();
}

#[tokio::test]
async fn nonsense_does_not_stop_the_server() {
    let (server, bound) = started().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let good = query("web.vm", A, false);
    let mut pointer_loop = good[..12].to_vec();
    pointer_loop.extend([0xc0, 12, 0, 1, 0, 1]);
    let two_questions = [&good[..5], &[2], &good[6..], &good[12..]].concat();
    let nonsense =
        [vec![], vec![0], vec![0xff; 512], good[..20].to_vec(), pointer_loop, two_questions];
    for message in &nonsense {
        socket.send_to(message, bound).await.unwrap();
    }
    // A length that promises more than comes, and one that comes without a query.
    let mut half = TcpStream::connect(bound).await.unwrap();
    half.write_all(&[0xff, 0xff, 1, 2, 3]).await.unwrap();
    let mut empty = TcpStream::connect(bound).await.unwrap();
    empty.write_all(&[0, 0]).await.unwrap();
    assert_eq!(summary(&ask_udp(bound, &good).await), (0, 1, 0));
    assert_eq!(summary(&ask_tcp(bound, &good).await), (0, 1, 0));
    // Other requests than queries.
    let mut update = good.clone();
    update[2] = 5 << 3;
    assert_eq!(ask_udp(bound, &update).await[3] & 15, 4);
    server.stop().await.unwrap();
}

#[tokio::test]
async fn the_port_is_freed_and_taken_again_with_the_table_kept() {
    let (server, bound) = started().await;
    assert_eq!(server.serve().await.unwrap(), bound, "serving already");
    let second = DnsServer::new(bound, "172.16.0.0/24".parse().unwrap());
    let error = second.serve().await.unwrap_err();
    assert_eq!(error.code, Code::Host);
    assert!(chain(&error).contains(&bound.to_string()), "{error:?}");
    server.stop().await.unwrap();
    server.stop().await.unwrap();
    assert_eq!(second.serve().await.unwrap(), bound);
    second.stop().await.unwrap();
    let again = server.serve().await.unwrap();
    assert_eq!(summary(&ask_udp(again, &query("web.vm", A, false)).await), (0, 1, 0));
    server.stop().await.unwrap();
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
async fn dig_agrees() {
    let (server, bound) = started().await;
    let dig = async |words: &[&str]| {
        let port = bound.port().to_string();
        let mut command = Command::new("dig");
        command.args(["@127.0.0.1", "-p", &port]).args(words).stdin(Stdio::null());
        command.output().await.map(|output| String::from_utf8(output.stdout).unwrap())
    };
    let Ok(short) = dig(&["+short", "web.vm"]).await else {
        eprintln!("skipped: dig is not installed");
        return;
    };
    assert_eq!(short, "172.16.0.2\n");
    assert_eq!(dig(&["+short", "+tcp", "WEB.vm"]).await.unwrap(), "172.16.0.2\n");
    assert_eq!(dig(&["+short", "-x", "172.16.0.2"]).await.unwrap(), "web.vm.\n");
    let refused = dig(&["example.org", "AAAA"]).await.unwrap();
    assert!(refused.contains("status: REFUSED") && refused.contains("udp: 1232"), "{refused}");
    assert!(!refused.contains("Warning"), "{refused}");
    server.stop().await.unwrap();
}
