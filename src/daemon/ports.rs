//! Which adapters stand behind the ports: the host's, or the simulated ones.

use std::path::PathBuf;
use std::sync::Arc;

use super::DaemonError;
use crate::config::{Config, HostFacts};
use crate::host;
use crate::ports::{
    Clock, DiskHost, GuestLink, Hypervisor, ImageHost, NameHost, NetHost, ProcessHost,
};

/// The ports as adapters, before actors stand between: taps and names are leased and published
/// through actors.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) hypervisor: Arc<dyn Hypervisor>,
    pub(super) process: Arc<dyn ProcessHost>,
    pub(super) net: Arc<dyn NetHost>,
    pub(super) disk: Arc<dyn DiskHost>,
    pub(super) guest: Arc<dyn GuestLink>,
    pub(super) images: Arc<dyn ImageHost>,
    pub(super) names: Arc<dyn NameHost>,
    pub(super) clock: Arc<dyn Clock>,
}
