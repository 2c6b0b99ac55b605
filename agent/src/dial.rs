//! A connection to this guest's own SSH server, for a client that reaches the guest by the lane
//! alone: standard input and output are its other end.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use crate::standard::standard;

/// Where a guest's server listens.
const PORT: u16 = 22;
const BUFFER: usize = 128 << 10;

pub(crate) fn run() -> ExitCode {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).and_then(carry) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "dial port {PORT}: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// To the end of what the server says; what the client says may end before.
fn carry(server: TcpStream) -> io::Result<()> {
    server.set_nodelay(true)?;
    let twin = |stream: &TcpStream| stream.try_clone().map(|copy| File::from(OwnedFd::from(copy)));
    let (mut from, mut to) = (twin(&server)?, twin(&server)?);
    std::thread::Builder::new().name("to the server".into()).spawn(move || {
        drop(copy(&mut standard(0), &mut to));
        server.shutdown(Shutdown::Write)
    })?;
    copy(&mut from, &mut standard(1))
}

/// By reading and writing: the library's own asks the kernel to splice, which may hang between a pipe
/// and a socket.
fn copy(from: &mut File, to: &mut File) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => to.write_all(buffer.get(..length).unwrap_or_default())?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
