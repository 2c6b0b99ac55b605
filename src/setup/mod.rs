//! What root does to a host so that banger is a part of it: programs, units, configuration,
//! directories, a user; to put there, to renew and to take away.
//!
//! ```text
//! install ──> account ─ files ─ units ─ systemd        each says what it changed, or would
//! renew   ──> files (kept aside until the new ones serve)
//! remove  ──> systemd ─ helper's teardown ─ files ─ account
//! look    ──> systemd ─ /proc ─ sockets                changes nothing
//! ```
//!
//! It owns no running state: what is installed is read from `/etc/banger/install.toml` and from the
//! configuration. Nothing here asks the daemon anything; whoever calls does.

mod account;
mod error;
mod files;
mod install;
mod look;
mod places;
mod record;
mod remove;
mod renew;
mod systemd;
mod units;

pub use error::SetupError;
pub use files::{Change, Did};
pub use install::{Wish, install, restart, restart_units};
pub use look::{Installed, Program, Socket, Unit, installed, left_running, look, sockets, unit};
pub use places::{PROGRAMS, Places};
pub use record::Record;
pub use remove::{purge, remove};
pub use renew::Renewal;
pub use systemd::{Systemd, UNITS};
