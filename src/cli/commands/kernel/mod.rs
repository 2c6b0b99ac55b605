//! `banger kernel`.

pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod rm;
pub(crate) mod show;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a guest kernel from packages (.deb, .rpm), from files or from a bundle
    Import(import::Args),
    /// Write a kernel as a bundle
    Export(export::Args),
    /// List kernels
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Print what is known of a kernel, and which features its guests have
    Show(show::Args),
    /// Delete kernels that no VM uses
    #[command(visible_alias = "delete")]
    Rm(rm::Args),
}
