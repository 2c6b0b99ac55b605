//! `banger kernel`.

pub(crate) mod default;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod rm;
pub(crate) mod show;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Make a guest kernel from packages (.deb, .rpm), from files or from a bundle
    Import(import::Args),
    /// Pull a kernel of Debian's packages
    Pull(pull::Args),
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
    /// Delete kernels that no VM uses, and say why the rest stays
    Prune(prune::Args),
    /// Print or set the kernel of VMs that name none
    Default(default::Args),
}
