//! The command line: a client of the daemon's socket and, for commands in a guest, of the guest's
//! own SSH server.
//!
//! ```text
//! app ── args ──> commands/<group>/<verb> ── client ──> bangerd
//!                     │        └── operation (events, Ctrl-C) ── ui/progress
//!                     └── guest (session, terminal) ── SSH ──> banger-agent
//! ```
//!
//! It owns no state; what it keeps of its own is a log and copies. It never opens the store, starts a VMM or touches the network of the host;
//! whatever it shows was told by the daemon. Every write to a terminal goes through `output`.

mod app;
mod args;
mod client;
mod clock;
mod commands;
mod complete;
mod error;
mod exit;
mod guest;
mod log;
mod manifests;
mod openssh;
mod operation;
mod output;
mod socket;
mod ui;

pub use app::main;
