//! The command tree. Each command's own arguments are beside the command.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueHint};

use super::commands::{
    completion, daemon, doctor, events, gc, image, kernel, ops, ssh_config, ssh_proxy, system,
    version, vm,
};
use super::output::ColorChoice;
use crate::model::OpId;

const AFTER: &str = "\
Examples:
  banger run --rm -- uname -a        run one command in a throwaway VM
  banger run --name web -d           start a VM and leave it running
  banger exec web -- apt-get update  run a command in it
  banger ssh web                     get a shell in it
  banger vm stop web                 stop it; its disks stay
  banger doctor                      find out why something does not work

Exit status: 0 ok, 1 refused or failed, 2 wrong usage, 3 daemon unreachable, 4 not found,
5 busy. Of run, exec and ssh: the command's or the shell's, 128+N if signal N killed it, 126
or 127 if the guest could not run or find it, 125 if banger itself failed.";

/// Real virtual machines on this host, in seconds
#[derive(Debug, Parser)]
#[command(
    name = "banger",
    version,
    after_help = AFTER,
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// The daemon's socket [default: /run/banger/bangerd.sock, else
    /// $XDG_RUNTIME_DIR/banger/bangerd.sock]
    #[arg(
        long, global = true, env = "BANGER_SOCKET", hide_env = true, value_name = "PATH",
        value_hint = ValueHint::FilePath
    )]
    pub(crate) socket: Option<PathBuf>,
    /// Colours in the output; auto: on a terminal, unless NO_COLOR is set
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub(crate) color: ColorChoice,
    /// No progress and no notices; lists print ids or names only
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// The id of the operation that this command begins; the same command with the same id again
    /// finds that operation, running or ended, and begins nothing
    #[arg(long, global = true, value_name = "OP", hide_short_help = true)]
    pub(crate) op_id: Option<OpId>,
    /// Tell more on stderr: the socket, operation ids
    #[arg(long, global = true)]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, start, stop, enter and delete VMs
    #[command(subcommand)]
    Vm(vm::Command),
    /// Create a VM and enter it or run a command in it (same as `vm run`)
    Run(Box<vm::run::Args>),
    /// Run a command in a running VM (same as `vm exec`)
    Exec(vm::exec::Args),
    /// Open a shell in a running VM (same as `vm ssh`)
    Ssh(vm::ssh::Args),
    /// List running VMs
    Ps(vm::list::PsArgs),
    /// Build, import and delete images
    #[command(subcommand)]
    Image(image::Command),
    /// Import and delete guest kernels
    #[command(subcommand)]
    Kernel(kernel::Command),
    /// See what the daemon did and does
    #[command(subcommand)]
    Ops(ops::Command),
    /// Print events of VMs and operations
    Events(events::Args),
    /// Let stock ssh, scp, sftp and rsync reach VMs as NAME.vm
    SshConfig(ssh_config::Args),
    #[command(hide = true)]
    SshProxy(ssh_proxy::Args),
    /// Check this host and the daemon
    Doctor(doctor::Args),
    /// Compare the host with the ledger; take away what is nobody's
    Gc(gc::Args),
    /// Ask about the daemon itself
    #[command(subcommand)]
    Daemon(daemon::Command),
    /// Install, upgrade and remove banger on this host
    #[command(subcommand)]
    System(system::Command),
    /// Print a script that completes banger's commands and names in your shell
    Completion(completion::Args),
    /// Print the version
    Version(version::Args),
}
