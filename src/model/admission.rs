//! Whether the host has room for one more VM. Checked before anything is made; the refusal says
//! the numbers.

use super::size::Size;
use super::spec::VmSpec;

/// What the host has and what is spoken for, measured just before the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostBudget {
    pub memory_mib: u64,
    /// Sum over VMs that run or start, with what their VMMs need.
    pub memory_committed_mib: u64,
    /// What the VMM of one more VM needs besides the guest's memory.
    pub overhead_mib: u64,
    pub cpus: u32,
    pub vms: usize,
    pub max_vms: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "{asked} MiB of memory asked for ({overhead} MiB more for the VMM), \
         the host has {total} MiB of which {committed} MiB are taken"
    )]
    Memory { asked: u32, overhead: u64, total: u64, committed: u64 },
    #[error("{asked} vcpu asked for, the host has {cpus}")]
    Cpus { asked: u32, cpus: u32 },
    #[error("{free} free on the state directory's disk, {reserve} must stay free")]
    Disk { free: Size, reserve: Size },
    #[error("{max} VMs exist, which is the limit")]
    Count { max: usize },
}

/// Admits the VM or says which budget it breaks. `starts` tells whether it will run at once.
pub fn admit(spec: &VmSpec, host: &HostBudget, starts: bool) -> Result<(), Refusal> {
    if host.vms >= host.max_vms {
        return Err(Refusal::Count { max: host.max_vms });
    }
    // CPUs are shared in time, so one VM may not have more than there are, but all together may.
    if spec.vcpu > host.cpus {
        return Err(Refusal::Cpus { asked: spec.vcpu, cpus: host.cpus });
    }
    let committed = if starts { host.memory_committed_mib } else { 0 };
    let HostBudget { memory_mib: total, overhead_mib: overhead, .. } = *host;
    if u64::from(spec.memory_mib) + overhead + committed > total {
        return Err(Refusal::Memory { asked: spec.memory_mib, overhead, total, committed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::tests::spec;

    const HOST: HostBudget = HostBudget {
        memory_mib: 1024,
        memory_committed_mib: 480,
        overhead_mib: 32,
        cpus: 2,
        vms: 0,
        max_vms: 10,
    };

    #[test]
    fn each_budget_refuses_by_itself() {
        let vm = VmSpec { memory_mib: 512, ..spec("a") };
        assert_eq!(admit(&vm, &HOST, true), Ok(()));
        let big = VmSpec { memory_mib: 513, ..spec("a") };
        assert!(matches!(admit(&big, &HOST, true), Err(Refusal::Memory { .. })));
        assert_eq!(admit(&big, &HOST, false), Ok(()));
        let wide = VmSpec { vcpu: 3, ..spec("a") };
        assert!(matches!(admit(&wide, &HOST, true), Err(Refusal::Cpus { .. })));
        let full = HostBudget { vms: 10, ..HOST };
        assert_eq!(admit(&vm, &full, true), Err(Refusal::Count { max: 10 }));
    }
}
