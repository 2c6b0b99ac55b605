//! `banger system`: banger as a part of this host.

pub(crate) mod host;
pub(crate) mod install;
pub(crate) mod restart;
pub(crate) mod status;
pub(crate) mod stop_guests;
pub(crate) mod uninstall;
pub(crate) mod upgrade;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Install banger on this host, as units of systemd; done again it mends and adapts
    Install(install::Args),
    /// Show how the installation does: units, programs, sockets
    Status(status::Args),
    /// Make changes of the configuration count; VMs run on
    Restart(restart::Args),
    /// Put other programs in place under running VMs, or go back if they do not serve
    Upgrade(upgrade::Args),
    /// Remove units and programs; data stays
    Uninstall(uninstall::Args),
    /// Stop or suspend all VMs, as when the host goes down
    StopGuests(stop_guests::Args),
}
