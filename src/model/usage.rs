//! What a VM takes of its host, as counters: whoever wants a rate asks twice.

/// A VMM's process and all that it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessUsage {
    /// CPU time since the process began, in microseconds.
    pub cpu_us: u64,
    /// Memory of the process that is in RAM, in bytes: the guest's as far as it was touched, and
    /// the VMM's own.
    pub resident_bytes: u64,
    /// What its cgroup is charged for, in bytes, the host's cache of its disks included; where
    /// cgroups count memory.
    pub cgroup_bytes: Option<u64>,
}

/// Bytes that files of a VM take on the host's disk. Less than their size: they are sparse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    pub root_bytes: u64,
    pub work_bytes: u64,
}

/// What went through a guest's devices since its VMM was started, as the VMM counts it. In and out
/// are the guest's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    pub net_in_bytes: u64,
    pub net_out_bytes: u64,
    pub net_in_packets: u64,
    pub net_out_packets: u64,
    pub disk_read_bytes: u64,
    pub disk_written_bytes: u64,
    pub disk_reads: u64,
    pub disk_writes: u64,
    pub disk_flushes: u64,
    pub vsock_in_bytes: u64,
    pub vsock_out_bytes: u64,
}
