//! The sftp subsystem: version 3 of the protocol with OpenSSH's extensions, as stock `sftp`, `scp`
//! and libraries speak it. A process of its own per client, with the rights of the client's user:
//! what is asked is done in order and may block, and nothing of it is in the server's memory.
//!
//! ```text
//! stdin ──> Requests (packets, whole) ──> Server::answer ──> Replies ──> stdout
//!                                            files, attributes, listing, extended
//! ```
//!
//! What must not be done here: no answer without its request's id, no rights checked by ourselves
//! (the kernel does), no reading ahead of what was asked.

mod attributes;
mod extended;
mod files;
mod listing;
mod packet;
mod server;

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::mem::ManuallyDrop;
use std::process::ExitCode;

use packet::{MAX_PACKET, Requests};
use server::Server;

use crate::standard::standard;

/// Replies are written when this much has gathered, or when there is nothing left to answer.
const FLUSH: usize = 256 << 10;

/// Ends with its client.
pub(crate) fn run() -> ExitCode {
    match serve(standard(0), standard(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            drop(writeln!(io::stderr(), "sftp: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(mut from: ManuallyDrop<File>, mut to: ManuallyDrop<File>) -> io::Result<()> {
    let mut requests = Requests::default();
    let mut server = Server::default();
    let mut replies = Vec::new();
    let mut buffer = vec![0; MAX_PACKET];
    loop {
        while let Some(request) = requests.next()? {
            server.answer(&request, &mut replies)?;
            if replies.len() >= FLUSH {
                to.write_all(&replies)?;
                replies.clear();
            }
        }
        to.write_all(&replies)?;
        replies.clear();
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => requests.push(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
