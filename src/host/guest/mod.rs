//! The guest's side of the host, and the only place outside `agent/` that speaks SSH.
//!
//! Separate ways into a guest: [`AgentLink`], the daemon's own (readiness, health, shutdown over
//! the control port), and two by which the CLI runs users' commands: [`ssh`], which can do
//! everything, and [`Lane`], which is quick. None keeps anything that a restart of the daemon would
//! lose.

mod control;
mod furnish;
mod keys;
mod lane;
mod line;
mod link;
mod owner;
mod setup;
pub mod ssh;

pub use furnish::Furniture;
pub use keys::make_keys;
pub use lane::Lane;
pub use link::AgentLink;
pub use owner::{git_identity, owner_key};
pub use setup::SSH_PORT;
