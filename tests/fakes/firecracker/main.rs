//! A Firecracker without guests: the same command line, API, sockets, files and exit codes, and
//! faults where a test plans them.
//!
//! What it answers was compared with the real one's answers, request by request; the contract
//! tests in `tests/real/contract` do so again wherever a real one is at hand. Behind its vsock
//! device plays a guest that speaks the agent's control protocol, for the VM that the
//! configuration drive names, so that daemon and helper start and stop it like any other.
//!
//! Faults are lines of the file `<program>.faults`, beside the program as it was called: see
//! `faults`. It knows nothing of banger but the agent's contract.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "it is part of the tests")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]
#![allow(clippy::exit, reason = "it ends as the real one does, from whatever thread")]
#![allow(clippy::disallowed_methods, reason = "threads and the wall clock are all it has")]

mod arguments;
mod bodies;
mod configure;
mod devices;
mod faults;
mod guest;
mod http;
mod life;
mod machine;
mod metrics;
mod snapshot;
mod vsock;

use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};

use arguments::Asked;
use faults::Faults;
use machine::Machine;
use nix::sys::signal::{SigSet, Signal};

/// Of a version that guests of ours run on, unless the faults name another.
const VERSION: &str = "1.17.0";
const SNAPSHOT_VERSION: &str = "11.0.0";
const GENERIC_ERROR: i32 = 1;
const BAD_ARGUMENTS: i32 = 153;
const HUNG_UP: i32 = 156;

fn main() {
    let mut args = std::env::args();
    let program = args.next().expect("a program's name");
    let faults = Faults::read(&format!("{program}.faults"));
    let run = match arguments::parse(args) {
        Ok(Asked::Run(run)) => run,
        Ok(Asked::Version) => {
            println!("Firecracker v{}\n", faults.version);
            log("anonymous-instance", "Firecracker exiting successfully. exit_code=0");
            return;
        }
        Ok(Asked::SnapshotVersion) => return println!("v{SNAPSHOT_VERSION}"),
        Err(why) => {
            log("anonymous-instance", &format!("Arguments parsing error: {why}"));
            std::process::exit(BAD_ARGUMENTS);
        }
    };
    if let Some((at, bad)) = run.id.char_indices().find(|(_, c)| !is_id(*c)) {
        eprintln!("Invalid instance ID: InvalidChar({bad:?}, {at})");
        std::process::abort();
    }
    log(&run.id, &format!("Running Firecracker v{}", faults.version));
    let Ok(listener) = UnixListener::bind(&run.api_sock) else {
        let socket = run.api_sock.display();
        log(&run.id, &format!("Failed to open the API socket at: {socket}."));
        std::process::exit(GENERIC_ERROR);
    };
    log(&run.id, "API server started.");
    end_with_the_terminal();
    let machine = Arc::new(Mutex::new(Machine::new(run, faults)));
    metrics::flush_every_minute(&machine);
    http::serve(&listener, &move |request| machine::answer(&machine, request));
}

/// SIGHUP has an exit code of its own; SIGTERM has no handler, there as here.
fn end_with_the_terminal() {
    let hangup = SigSet::from(Signal::SIGHUP);
    hangup.thread_block().expect("before there are threads");
    std::thread::spawn(move || {
        hangup.wait().expect("a signal");
        std::process::exit(HUNG_UP);
    });
}

fn is_id(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-'
}

fn log(id: &str, words: &str) {
    println!("{} [{id}:main] {words}", metrics::now_ms());
}
