//! `banger ops`.

pub(crate) mod cancel;
mod ladder;
pub(crate) mod list;
pub(crate) mod show;
pub(crate) mod watch;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// List operations, the newest first
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Show the steps of one operation with their times
    Show(show::Args),
    /// Follow an operation to its end
    Watch(watch::Args),
    /// Take a running operation back
    Cancel(cancel::Args),
}
