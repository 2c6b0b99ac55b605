//! `banger vm workspace`: a repository of the host, in a VM.

pub(crate) mod enter;
pub(crate) mod export;
pub(crate) mod prepare;
pub(crate) mod source;
pub(crate) mod status;
pub(crate) mod tools;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Bring a repository, with its history and uncommitted edits, into a running VM
    Prepare(prepare::Args),
    /// Bring what was done in the VM back: as a patch, into the files here, as a branch
    Export(export::Args),
    /// Tell what is prepared in a VM and whether the repository has changed since
    Status(status::Args),
}
