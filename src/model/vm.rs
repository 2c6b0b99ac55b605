//! A VM as kept (record), as observed (handles) and as published (view).

use std::net::Ipv4Addr;

use super::condition::Condition;
use super::failure::Failure;
use super::health::Health;
use super::ids::{Digest, OpId, VmId};
use super::lifecycle::VmState;
use super::network::{Mac, TapName};
use super::op::OpKind;
use super::restart::{Decision, Exit, RestartHistory, Wanted, decide};
use super::spec::VmSpec;

/// The durable record: what was asked, what was decided once, and the identities that teardown
/// needs. It holds nothing that a restart of the host makes untrue.
///
/// Teardown finds a VM's process by its id (cgroup and command line carry it), its tap by the
/// lease, its NAT element by the address, its disks by the directory named after the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmRecord {
    pub id: VmId,
    pub spec: VmSpec,
    pub state: VmState,
    /// Kept for the VM's whole life.
    pub address: Ipv4Addr,
    pub image: Digest,
    pub kernel: Digest,
    pub keys: VmKeys,
    pub created_unix_ms: u64,
    /// Why the VM is in `error` or `crashed`, or why its last operation was undone.
    pub last_failure: Option<Failure>,
    pub last_exit: Option<ExitReport>,
    pub wanted: Wanted,
    pub restarts: RestartHistory,
}

impl VmRecord {
    /// Lets the policy decide what follows, and keeps it in the history.
    pub fn ended(&mut self, exit: Exit, now_unix_ms: u64) -> Decision {
        let decision = decide(self.spec.restart, self.wanted, &self.restarts, exit, now_unix_ms);
        self.restarts = self.restarts.after(exit, decision, now_unix_ms);
        decision
    }

    /// The owner's word: what a policy had in mind before does not count any more.
    pub fn want(&mut self, wanted: Wanted) {
        self.wanted = wanted;
        self.restarts = RestartHistory::default();
    }

    #[must_use]
    pub fn mac(&self) -> Mac {
        Mac::for_address(self.address)
    }
}

/// What exists only while the VM runs. Losing it leaks nothing: see [`VmRecord`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmHandles {
    pub process: Option<ProcessIdentity>,
    pub tap: Option<TapName>,
    /// Which VMM runs it, and why that one: `qemu (tcg: the CPU shows neither svm nor vmx)`.
    pub vmm: Option<String>,
    /// The guest kernel's boot id, as the agent reported it.
    pub guest_boot_id: Option<String>,
}

/// A pid alone names nothing: it is reused. All three together name one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessIdentity {
    pub pid: u32,
    /// Clock ticks since boot, field 22 of `/proc/<pid>/stat` (proc_pid_stat(5)).
    pub start_ticks: u64,
    /// `/proc/sys/kernel/random/boot_id` of the host.
    pub host_boot_id: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExitReport {
    pub unix_ms: u64,
    /// `exit status 1`, `killed by SIGKILL`; `unknown` when nobody could collect it.
    pub how: String,
}

/// The VM's own keys, all ed25519 in OpenSSH's text forms. Made at creation, so that the host key
/// is known before the first boot and never needs to be trusted on first use.
#[derive(Clone, PartialEq, Eq)]
pub struct VmKeys {
    pub host_private: String,
    pub host_public: String,
    pub client_private: String,
    pub client_public: String,
}

impl std::fmt::Debug for VmKeys {
    /// Private keys must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmKeys").field("host_public", &self.host_public).finish_non_exhaustive()
    }
}

/// What the rest of the daemon, and users, see of a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmView {
    pub record: VmRecord,
    pub handles: VmHandles,
    /// Goes up with every change.
    pub generation: u64,
    pub busy: Option<(OpId, OpKind)>,
    pub conditions: Vec<Condition>,
    /// Of a VM that runs and is checked.
    pub health: Option<Health>,
}

impl VmView {
    /// Why its guest stands still, if it does.
    #[must_use]
    pub fn standstill(&self) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.kind.stands_still())
    }
}
