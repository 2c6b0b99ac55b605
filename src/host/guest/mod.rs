//! The guest's side of the host, and the only place outside `agent/` that speaks SSH.
//!
//! Two separate ways into a guest: [`AgentLink`], the daemon's own (readiness, health, shutdown
//! over the control port), and [`ssh`], by which the CLI runs users' commands. Neither keeps
//! anything that a restart of the daemon would lose.

mod control;
mod keys;
mod link;
mod setup;
pub mod ssh;

pub use keys::make_keys;
pub use link::AgentLink;
pub use setup::SSH_PORT;
