//! The SSH server: one runtime on one thread, for a guest often has one slow CPU.
//!
//! ```text
//! server   listens; whose server it is
//! accept   takes clients in: a session per connection
//! lane     one program per client on a channel of the VMM's, without SSH
//! sink     where a program's output goes: SSH or the lane
//! session  russh's callbacks: what a client asks for, by channel
//! backlog  what a client sent and a program has not read yet; flow control
//! process  a command's life: output, exit, hang-up
//! exec, pty, environment, directory, account, user, mise   how a command is started, and as whom
//! forward  connections into the guest's network; reverse  out of it to the client
//! ```

mod accept;
mod account;
mod auth;
mod backlog;
mod directory;
mod environment;
mod exec;
mod forward;
mod lane;
mod mise;
mod process;
mod pty;
mod resolve;
mod reverse;
mod server;
mod session;
mod sessions;
mod signals;
mod sink;
mod user;

pub(crate) use account::home_of;
pub(crate) use server::{Adopted, Blank, Who, blank, serve};
pub(crate) use sessions::Sessions;
pub(crate) use user::user_command;
