//! A jailer without a copy: the same command line, refusals and jail as Firecracker's, for the
//! fake Firecracker of `tests/fakes/firecracker`.
//!
//! It differs where the fake does: the program is linked dynamically and large, so it and its
//! libraries are bound into the jail instead of copied, and its planned faults beside it. What the
//! helper does not use (`--cgroup`, `--netns`, `--daemonize`, `--new-pid-ns`) is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "it is part of the tests")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program of its own")]
#![allow(clippy::disallowed_methods, reason = "it becomes another program")]

mod arguments;
mod jail;

use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args == ["--version"] {
        println!("Jailer v1.17.0\n");
        return ExitCode::SUCCESS;
    }
    let why = match arguments::Jail::parse(&args) {
        Ok(jail) => jail.enter(),
        Err(why) => why,
    };
    eprintln!("{why}");
    ExitCode::FAILURE
}
