//! `banger image`.

pub(crate) mod build;
pub(crate) mod delete;
pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod show;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Build an image from a distribution's packages
    #[command(subcommand)]
    Build(build::Command),
    /// Make an image from a tar file, a directory or an OCI layout
    Import(import::Args),
    /// List images
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Print all that is known of an image, as JSON
    Show(show::Args),
    /// Delete images that no VM uses
    #[command(visible_alias = "rm")]
    Delete(delete::Args),
}
