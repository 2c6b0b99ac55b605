//! Everything that an operation may reach.

use std::sync::Arc;

use super::{
    Clock, DiskHost, GuestLink, Hypervisor, ImageHost, NameSink, NetHost, ProcessHost, TapSource,
    WarmHost,
};

/// One of each port. Put together once, by the composition root; cheap to clone.
#[derive(Clone, Debug)]
pub struct Ports {
    pub hypervisor: Arc<dyn Hypervisor>,
    pub process: Arc<dyn ProcessHost>,
    pub net: Arc<dyn NetHost>,
    pub taps: Arc<dyn TapSource>,
    pub disk: Arc<dyn DiskHost>,
    pub guest: Arc<dyn GuestLink>,
    pub images: Arc<dyn ImageHost>,
    pub names: Arc<dyn NameSink>,
    pub warm: Arc<dyn WarmHost>,
    pub clock: Arc<dyn Clock>,
}
