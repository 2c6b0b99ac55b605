//! `banger daemon`.

pub(crate) mod status;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Show where the daemon runs and what it holds
    Status(status::Args),
}
