//! `banger vm`.

pub(crate) mod commit;
pub(crate) mod cp;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod exec;
mod guest_args;
pub(crate) mod health;
pub(crate) mod jobs;
pub(crate) mod kill;
pub(crate) mod list;
pub(crate) mod logs;
mod program;
pub(crate) mod recover;
pub(crate) mod restart;
pub(crate) mod resume;
pub(crate) mod run;
pub(crate) mod set;
pub(crate) mod show;
mod spec;
pub(crate) mod ssh;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod suspend;
mod upkeep;
pub(crate) mod workspace;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Create a VM and start it
    Create(create::Args),
    /// Create a VM and enter it or run a command in it
    Run(Box<run::Args>),
    /// Start stopped or suspended VMs
    Start(start::Args),
    /// Stop VMs; their disks stay
    Stop(stop::Args),
    /// Stop VMs and start them again
    Restart(restart::Args),
    /// Write the memory of running VMs to disk and free it
    Suspend(suspend::Args),
    /// Let suspended VMs go on
    Resume(resume::Args),
    /// Change what VMs have and how they are kept running
    Set(set::Args),
    /// End VMs at once, like pulling the plug
    Kill(kill::Args),
    /// Stop VMs and remove their disks for good
    #[command(visible_alias = "rm")]
    Delete(delete::Args),
    /// List all VMs
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Print all that is known of a VM, as JSON
    Show(show::Args),
    /// Run a command in a running VM
    Exec(exec::Args),
    /// Open a shell in a running VM
    Ssh(ssh::Args),
    /// Bring a repository of this host into a VM and its changes back
    #[command(subcommand)]
    Workspace(workspace::Command),
    /// Make an image of a stopped VM's root
    Commit(commit::Args),
    /// List the background jobs of a running VM
    Jobs(jobs::Args),
    /// Copy files and trees to or from a running VM
    Cp(cp::Args),
    /// Print a VM's console, also when it has stopped or failed, or what a job in it wrote
    Logs(logs::Args),
    /// Print how a VM's health checks have gone
    Health(health::Args),
    /// Say what is wrong with a VM and how to leave it, or do it
    Recover(recover::Args),
    /// Print what VMs take of the host: CPU, memory, disk
    Stats(stats::Args),
}
