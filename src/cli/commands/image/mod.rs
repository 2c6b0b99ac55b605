//! `banger image`.

pub(crate) mod build;
mod cache;
pub(crate) mod containerfile;
pub(crate) mod delete;
pub(crate) mod df;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod list;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod show;
pub(crate) mod tag;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Build an image from a distribution's packages or a Containerfile
    #[command(subcommand)]
    Build(build::Command),
    /// Make an image from a tar file, a directory, a container image or a bundle
    Import(import::Args),
    /// Pull an image from a registry
    Pull(pull::Args),
    /// List images
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Print all that is known of an image, as JSON
    Show(show::Args),
    /// Delete images that no VM uses
    #[command(visible_alias = "rm")]
    Delete(delete::Args),
    /// Give an image one more name
    Tag(tag::Args),
    /// Write an image as an OCI layout, or as a bundle
    Export(export::Args),
    /// Show what images take of the disk
    Df(df::Args),
    /// Delete images that no VM uses, all at once
    Prune(prune::Args),
}
