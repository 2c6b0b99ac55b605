//! The host's side of workspaces: a git repository of the owner's, read and never changed, and the
//! guest's end spoken to over plain streams.
//!
//! ```text
//! repository  which one, and why not
//! select      which of its files are meant
//! scan        their stat and content, in parallel, beneath its root
//! history     git's own files for the guest: packs, HEAD, index
//! index       what is staged, in git's words
//! manifest    what was sent, as kept by the daemon
//! plan        all that can be known before there is a VM
//! talk        frames to and from the guest's agent
//! prepare     from a plan to a tree in the guest
//! changes     what the guest has changed by itself, without what is ignored
//! compare     whether the host is still as it was sent
//! export      the guest's work: as a patch, applied here, as a branch
//! ```
//!
//! Used by the CLI, in its user's surroundings. What must not be done here: reading outside of the
//! repository, following its links, writing to it except where the user asked for it, printing.

mod changes;
mod compare;
mod error;
mod export;
mod git;
mod history;
mod index;
mod manifest;
mod plan;
mod prepare;
mod repository;
mod scan;
mod select;
mod talk;

pub use compare::{Compared, compare};
pub use error::WorkspaceError;
pub use export::{Applied, Branched, Patch, Work, fetch};
pub use plan::{Plan, PlanOptions, plan};
pub use prepare::{Prepared, prepare};
pub use repository::Repository;
