//! A guest behind Firecracker's vsock socket, which is played: who goes to which of its ports.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use banger_agent::contract::lane::{
    GREETING_BYTES, GuestKind, HEADER_BYTES, VSOCK_PORT, first_frame, frame,
};

use super::guests::daemon_with;
use crate::support::banger::{Finish, Surroundings};
use crate::support::guest::AgentGuest;

/// Answers `CONNECT` as Firecracker does; SSH's port leads to the agent.
struct Vsock {
    asked: Arc<Mutex<Vec<u32>>>,
}

impl Vsock {
    fn listen(path: &Path, ssh: u16, has_lane: bool) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let asked: Arc<Mutex<Vec<u32>>> = Arc::default();
        let ports = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().map(Result::unwrap) {
                let mut line = String::new();
                // The greeting may follow at once and must stay where it is.
                while !line.ends_with('\n') {
                    let mut byte = [0];
                    (&stream).read_exact(&mut byte).unwrap();
                    line.push(byte[0].into());
                }
                let port = line.trim().strip_prefix("CONNECT ").unwrap().parse().unwrap();
                ports.lock().unwrap().push(port);
                match port {
                    VSOCK_PORT if !has_lane => {} // nobody listens: it hangs up
                    VSOCK_PORT => drop(std::thread::spawn(move || play_lane(stream))),
                    port if port == u32::from(ssh) => lead(stream, ssh),
                    other => panic!("port {other}"),
                }
            }
        });
        Self { asked }
    }

    fn asked(&self) -> Vec<u32> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

/// A program that says a word and exits with 7.
fn play_lane(mut stream: UnixStream) {
    stream.write_all(b"OK 1073741824\n").unwrap();
    let mut greeting = [0; GREETING_BYTES];
    stream.read_exact(&mut greeting).unwrap();
    stream.write_all(&greeting).unwrap();
    let mut request = [0; HEADER_BYTES];
    stream.read_exact(&mut request).unwrap();
    let payload = first_frame(&request).unwrap().unwrap() - HEADER_BYTES;
    stream.read_exact(&mut vec![0; payload]).unwrap();
    stream.write_all(&frame(GuestKind::Out, b"by the lane\n").unwrap()).unwrap();
    stream.write_all(&frame(GuestKind::Exit, &7_u32.to_le_bytes()).unwrap()).unwrap();
    // Until the client has heard it all and leaves.
    drop(stream.read_to_end(&mut vec![]));
}

fn lead(stream: UnixStream, to: u16) {
    (&stream).write_all(b"OK 1073741825\n").unwrap();
    let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
    let (mut from, mut up) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut up));
        drop(up.shutdown(Shutdown::Write));
    });
    std::thread::spawn(move || {
        drop(std::io::copy(&mut &server, &mut &stream));
        drop(stream.shutdown(Shutdown::Write));
    });
}

#[test]
fn a_plain_command_goes_by_the_lane_and_all_else_by_ssh() {
    let Some(guest) = AgentGuest::start(&[]) else { return };
    let here = Surroundings::new();
    for has_lane in [true, false] {
        let path = here.path().join(format!("vsock-{has_lane}"));
        let mut endpoint = guest.endpoint();
        let ssh = endpoint.port;
        let vsock = Vsock::listen(&path, ssh, has_lane);
        endpoint.address = path.display().to_string();
        let daemon = daemon_with(endpoint, None);
        let said = |line: &str| here.bash(&daemon.socket(), line).said();

        let plain = said("banger exec web -- sh -c 'echo by SSH; exit 7' < /dev/null");
        let (words, ports) = match has_lane {
            true => ("by the lane\n", vec![VSOCK_PORT]),
            false => ("by SSH\n", vec![VSOCK_PORT, ssh.into()]),
        };
        assert_eq!((plain.code, plain.out.as_str()), (7, words), "{}", plain.err);
        assert_eq!(vsock.asked(), ports);

        let shell = said("echo 'echo a shell; exit 3' | banger ssh web");
        assert_eq!((shell.code, shell.out.as_str()), (3, "a shell\n"), "{}", shell.err);
        let terminal = said("banger exec -t web -- sh -c 'exit 4' < /dev/null");
        assert_eq!(terminal.code, 4, "{}", terminal.err);
        assert_eq!(vsock.asked(), [u32::from(ssh); 2]);
    }
}
