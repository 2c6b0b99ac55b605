//! Whether the host has room for one more VM. Checked before anything is made; the refusal says
//! the numbers.

use super::size::Size;
use super::spec::VmSpec;

/// What the host has and what is spoken for, measured just before the check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostBudget {
    pub memory_mib: u64,
    /// Sum over VMs that run or start.
    pub memory_committed_mib: u64,
    pub cpus: u32,
    pub disk_free: Size,
    /// Disks are sparse, so sizes are not added up; this much must stay free.
    pub disk_reserve: Size,
    pub addresses_left: usize,
    pub vms: usize,
    pub max_vms: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "{asked} MiB of memory asked for, the host has {total} MiB of which {committed} MiB are taken"
    )]
    Memory { asked: u32, total: u64, committed: u64 },
    #[error("{asked} vcpu asked for, the host has {cpus}")]
    Cpus { asked: u32, cpus: u32 },
    #[error("{free} free on the state directory's disk, {reserve} must stay free")]
    Disk { free: Size, reserve: Size },
    #[error("no address is left in the subnet")]
    Addresses,
    #[error("{max} VMs exist, which is the limit")]
    Count { max: usize },
}

/// Admits the VM or says which budget it breaks. `starts` tells whether it will run at once.
pub fn admit(spec: &VmSpec, host: &HostBudget, starts: bool) -> Result<(), Refusal> {
    if host.vms >= host.max_vms {
        return Err(Refusal::Count { max: host.max_vms });
    }
    if host.addresses_left == 0 {
        return Err(Refusal::Addresses);
    }
    if host.disk_free < host.disk_reserve {
        return Err(Refusal::Disk { free: host.disk_free, reserve: host.disk_reserve });
    }
    // CPUs are shared in time, so one VM may not have more than there are, but all together may.
    if spec.vcpu > host.cpus {
        return Err(Refusal::Cpus { asked: spec.vcpu, cpus: host.cpus });
    }
    let committed = if starts { host.memory_committed_mib } else { 0 };
    if u64::from(spec.memory_mib) + committed > host.memory_mib {
        return Err(Refusal::Memory { asked: spec.memory_mib, total: host.memory_mib, committed });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::spec::tests::spec;

    const HOST: HostBudget = HostBudget {
        memory_mib: 1024,
        memory_committed_mib: 512,
        cpus: 2,
        disk_free: Size::from_mib(4096),
        disk_reserve: Size::from_mib(1024),
        addresses_left: 1,
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
        let cases = [
            HostBudget { addresses_left: 0, ..HOST },
            HostBudget { vms: 10, ..HOST },
            HostBudget { disk_free: Size::from_mib(1), ..HOST },
        ];
        assert!(cases.iter().all(|host| admit(&vm, host, true).is_err()));
    }
}
