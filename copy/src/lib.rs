//! Files and trees from one machine to another, over any byte stream: one half runs at each end, in
//! the CLI and in the guest's agent, and the two are the same code.
//!
//! ```text
//! sender                          receiver
//! Entry …, List end  ───────────>  makes the directories
//!                    <───────────  Want: a file, and what of it is here already, with its digest
//! Begin, Data, Hole, End ──────>   writes beside the file, then renames
//!                    <───────────  Done
//! ```
//!
//! The receiver asks and the sender answers, in order; a few questions are on their way ahead. What the
//! receiver has with the same digest is not sent: whole files that are the same, and the beginning of
//! one whose copying was broken off, which stays beside it as a part. A file gets its name when all
//! of it is there; one that fails takes its part along.
//!
//! Everything blocks: each half has a thread or a process of its own. Neither trusts the other. A
//! receiver never leaves the place that it was told, whatever names and links it hears of.
//!
//! What must not be done here: no printing, no choosing of places by rules of the command line, no
//! owners (they mean nothing on another machine).

mod entry;
mod error;
mod frame;
mod list;
mod place;
mod receive;
mod send;
mod stream;
mod task;
mod write;

pub use error::CopyError;
pub use list::Item;
pub use receive::{Receiver, receive};
pub use send::{send, send_items};
pub use stream::{receive_stream, send_stream};
pub use task::{Task, read_task, write_task};

/// How far a copy is, in bytes of content: what was sent and what needed not be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub done: u64,
    /// 0 while it is not known.
    pub total: u64,
    /// Of `done`, what was there already.
    pub kept: u64,
}

/// Told now and then how far it is.
pub type Watch<'a> = &'a mut dyn FnMut(Progress);
