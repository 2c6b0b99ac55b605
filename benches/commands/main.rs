//! Whole commands against their peers, in one run, as a table.
//!
//! The simulated part needs nothing. The real part needs root and a daemon that serves on
//! `BANGER_SOCKET` with an image and a kernel (`scripts/bench.sh` sees to that). Every figure
//! stands beside what it is compared with, measured alternately, for the machine may be noisy.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on should stop")]
#![allow(clippy::expect_used, reason = "a benchmark that cannot go on should stop")]
#![allow(clippy::print_stdout, reason = "the table is the result")]
#![allow(clippy::print_stderr, reason = "progress")]
#![allow(clippy::disallowed_methods, reason = "it measures whole processes")]

mod adopt;
mod images;
mod openssh;
mod real;
mod simulated;
mod table;
mod workspaces;

use table::Table;

fn main() {
    // `cargo bench` hands its own flags on; `cargo test` only wants to see it build.
    if std::env::args().any(|arg| arg == "--test") {
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut table = Table::default();
    runtime.block_on(simulated::measure(&mut table));
    simulated::adoption(&mut table);
    images::measure(&mut table);
    match std::env::var("BANGER_SOCKET") {
        Ok(socket) => {
            runtime.block_on(real::measure(&mut table, &socket));
            if let Ok(file) = std::env::var("BANGER_BENCH_DAEMON_PID_FILE") {
                runtime.block_on(adopt::measure(&mut table, socket.as_ref(), file.as_ref()));
            }
        }
        Err(_) => {
            eprintln!("real guests: skipped, BANGER_SOCKET is not set (see scripts/bench.sh)")
        }
    }
    println!("{}", table.render());
}
