//! The guest binary. As PID 1 it is the initramfs's init: it readies the machine, leaves an SSH
//! server behind as a child process and hands PID 1 to the image's own init, or stays as init
//! where the image has none. Started by hand as `banger-agent serve FILE`, with a config drive's
//! content in FILE, it is the SSH server alone. The server starts this program anew for what it does
//! by itself with a client's rights, such as `sftp`.
//!
//! ```text
//! PID 1  mounts, modules, disks, network, identity --fork--> SSH server and control link
//!        `-- exec image's init | reaper
//! ```
//!
//! What must not be done here: no name service of libc (a static glibc has none), no printing
//! but through `log`, no work before readiness that could be done after it.

mod control;
mod copy;
mod dial;
mod error;
mod git;
mod init;
mod jobs;
mod log;
mod main_program;
mod port;
mod serve;
mod sftp;
mod ssh;
mod standard;
mod workspace;

use std::process::ExitCode;

use banger_agent::contract;

fn main() -> ExitCode {
    if std::process::id() == 1 {
        init::run();
    }
    let args: Vec<String> = std::env::args().collect();
    match args.get(1..) {
        Some([verb]) if verb == banger_agent::contract::workspace::VERB => workspace::run(),
        Some([verb]) if verb == "sftp" => sftp::run(),
        Some([verb]) if verb == "dial" => dial::run(),
        Some([verb]) if verb == "copy" => copy::run(),
        Some([verb]) if verb == contract::exec::NOTHING => ExitCode::SUCCESS,
        Some([verb]) if verb == "git-identity" => git::run(),
        Some([verb]) if verb == contract::job::VERB => jobs::run(),
        Some([verb, id]) if verb == jobs::KEEP => jobs::keep(id),
        Some([verb, file]) if verb == "serve" => serve::stand_alone(std::path::Path::new(file)),
        _ => {
            log::to_stderr();
            log::line(format_args!("version {}", env!("CARGO_PKG_VERSION")));
            log::line("is the init of a guest; by hand: banger-agent serve CONFIG-DRIVE");
            ExitCode::from(2)
        }
    }
}
