//! A command or a shell in a guest: this process's terminal, signals and streams on one side, the
//! guest's agent on the other, by its lane or by SSH. The daemon is not needed once it has said how the
//! guest is dialled, so its restart cuts nothing; it is only listened to for the VM's end.

mod carry;
mod copy;
mod escape;
mod forward;
mod input;
mod jobs;
mod session;
mod terminal;
mod vigil;
mod way;
mod words;
mod workspace;

pub(crate) use carry::carry;
pub(crate) use copy::{Copied, Copy};
pub(crate) use forward::{Forward, Forwards, Socks, own_agent};
pub(crate) use session::{Guest, Task, What};
pub(crate) use terminal::TtyChoice;
pub(crate) use way::ROOT;
pub(crate) use workspace::explain;
