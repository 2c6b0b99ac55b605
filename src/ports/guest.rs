//! The daemon's own link to the agent in the guest: readiness, health, shutdown. Users' commands
//! do not pass here; the CLI dials the guest itself.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{DiskPlan, PortFuture, VmPaths};
use crate::model::{ImageUse, OpId, Subnet, VmKeys, VmRecord, VmmKind};

/// What goes on the configuration drive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestSetup {
    pub record: VmRecord,
    /// Of an image that says how it is run.
    pub image: Option<ImageUse>,
    pub subnet: Subnet,
    pub dns: Vec<Ipv4Addr>,
    pub base_uuid: [u8; 16],
    pub disks: DiskPlan,
    /// What it will run on decides how the agent is spoken to.
    pub vmm: VmmKind,
}

/// What the agent reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestReady {
    pub boot_id: String,
    pub kernel_release: String,
    pub os_name: String,
    pub agent_version: String,
}

/// How a health check ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestCheck {
    pub healthy: bool,
    /// `exit status 1`, `killed by signal 9`, `no end within 5s`.
    pub how: String,
    /// The end of what it printed.
    pub output: String,
}

pub trait GuestLink: Send + Sync + std::fmt::Debug {
    /// Fresh ed25519 keys for one VM.
    fn make_keys(&self) -> PortFuture<'_, VmKeys>;

    /// Where the agent's SSH server listens in every guest.
    fn ssh_port(&self) -> u16;

    /// The bytes of the configuration drive. Pure.
    fn config_drive(&self, op: OpId, setup: &GuestSetup) -> Result<Vec<u8>, super::HostError>;

    /// The bytes of a drive that tells nothing but how to boot: the guest is nobody, runs nothing
    /// of its image and waits for [`Self::adopt`]. Pure.
    fn blank_drive(&self, op: OpId, setup: &GuestSetup) -> Result<Vec<u8>, super::HostError>;

    /// Ends when the agent has reported that it serves, by an event and not by polling. Fails when
    /// the agent reports a failed boot; `cancel` ends the wait. The time limit is the caller's.
    fn await_ready<'a>(
        &'a self,
        op: OpId,
        paths: &'a VmPaths,
        cancel: &'a CancellationToken,
    ) -> PortFuture<'a, GuestReady>;

    /// Makes a blank guest the one of `setup`: its keys, names, addresses, and random numbers and a
    /// boot id that no copy of it has. Ends when it serves. One that fails is good for nothing.
    fn adopt<'a>(
        &'a self,
        op: OpId,
        paths: &'a VmPaths,
        setup: &'a GuestSetup,
        unix_ms: u64,
    ) -> PortFuture<'a, GuestReady>;

    /// Brings the guest what its owner wants in every one, before anybody else is let in. Answers
    /// with what is not there to be brought.
    fn furnish<'a>(&'a self, op: OpId, paths: &'a VmPaths) -> PortFuture<'a, Vec<String>>;

    /// Asks the agent to sync and power off; returns when it has said that it will. The end of the
    /// process is seen elsewhere.
    fn shutdown<'a>(&'a self, op: OpId, paths: &'a VmPaths, grace: Duration) -> PortFuture<'a, ()>;

    /// Asks the agent to flush the guest's file systems; returns when it has.
    fn sync<'a>(&'a self, op: OpId, paths: &'a VmPaths, limit: Duration) -> PortFuture<'a, ()>;

    /// Tells the agent what time it is, after its guest was paused; does not wait for it to listen.
    fn set_clock<'a>(&'a self, op: OpId, paths: &'a VmPaths, unix_ms: u64) -> PortFuture<'a, ()>;

    /// Tells the agent, once, that its guest stood still and goes on: the time, fresh entropy, and
    /// that nobody is left at the other end of its connections. Answers with the guest's boot id.
    fn resumed<'a>(
        &'a self,
        op: OpId,
        paths: &'a VmPaths,
        unix_ms: u64,
        limit: Duration,
    ) -> PortFuture<'a, String>;

    /// Runs a health check in the guest by its shell, beside all else that is asked of the agent, and
    /// ends it there after `limit`. Fails when the agent does not answer, and with `Refused` when it is of
    /// a time before there were checks.
    fn check<'a>(
        &'a self,
        op: OpId,
        paths: &'a VmPaths,
        command: &'a str,
        limit: Duration,
    ) -> PortFuture<'a, GuestCheck>;

    /// Whether the agent answers within `limit`.
    fn ping<'a>(&'a self, op: OpId, paths: &'a VmPaths, limit: Duration) -> PortFuture<'a, ()>;
}
