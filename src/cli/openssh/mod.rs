//! Stock OpenSSH at home in guests: what it is told in the user's configuration, and what it finds
//! of a VM when it asks for one.
//!
//! ```text
//! ~/.ssh/config ── Include (block) ──> ~/.config/banger/ssh_config ── exec, proxy ──> banger ssh-proxy
//!                                          │ IdentityFile, UserKnownHostsFile              │ writes
//!                                          └──────────> ~/.local/state/banger/ssh/web.vm <─┘
//! ```
//!
//! A VM's key and host key are told by the daemon each time that somebody connects, before ssh looks
//! for them (a `Match exec`, for ssh reads keys sooner than its proxy could write them): so a VM made anew under an old name is known as well as the old one was, and nobody is
//! ever asked. Of the user's files one block of one file is ours, and nothing else is written.

mod block;
mod files;
mod places;
mod table;

pub(crate) use block::Block;
pub(crate) use files::replace;
pub(crate) use places::{DOMAIN, Places};
pub(crate) use table::{known_host, settings};
