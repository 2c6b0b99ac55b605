//! What a test of real guests stands on.

mod hardware;
mod host;
pub(crate) mod oci;
mod process;
mod stock;
mod vmm;

pub(crate) use host::{Cli, Host, OWNER, Settings};
pub(crate) use process::{Outcome, Running, until};
pub(crate) use stock::{busybox_tar, busybox_with, cache, kernel_package, noise, sha256};
pub(crate) use vmm::{Process, Vmm, answer};

/// A host for this test, or the end of the test where there can be none.
macro_rules! new_host {
    () => {
        new_host!($crate::support::Settings::default())
    };
    ($settings:expr) => {
        match $crate::support::Host::start($settings) {
            Some(host) => host,
            None => return,
        }
    };
}
pub(crate) use new_host;
