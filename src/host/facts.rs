//! What this host has: processors, memory, and whether the processor can virtualise.
//!
//! Whether `/dev/kvm` exists is the wrong question: it opens on hosts whose processor shows neither
//! `svm` nor `vmx` (a VM without nesting, say) and then runs guests at a crawl, or not at all. On
//! ARM64 it is the only one: no flag tells of EL2, and without it the kernel makes no such device.

use std::fs;
use std::io;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostFacts {
    /// Processors this process may use.
    pub cpus: u32,
    /// Memory of the whole host.
    pub memory_mib: u64,
    pub cpu: CpuFacts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuFacts {
    /// Which hardware virtualisation the flags show.
    pub virtualisation: Option<Virtualisation>,
    /// The time stamp counter ticks at one rate, whatever the processor's frequency and sleep.
    pub steady_tsc: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Virtualisation {
    /// AMD's.
    Svm,
    /// Intel's.
    Vmx,
    /// ARM64's exception level of hypervisors, which nothing but `/dev/kvm` tells of.
    El2,
}

impl Virtualisation {
    /// What the processor says of it, for a sentence.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Svm => "the CPU shows svm",
            Self::Vmx => "the CPU shows vmx",
            Self::El2 => "the CPU is an ARM64 one",
        }
    }
}

impl HostFacts {
    /// Small reads of procfs: no need for a blocking thread.
    pub fn read() -> io::Result<Self> {
        let cpus = std::thread::available_parallelism()?.get();
        let memory = fs::read_to_string("/proc/meminfo")?;
        Ok(Self {
            cpus: u32::try_from(cpus).unwrap_or(u32::MAX),
            memory_mib: parse_memory_mib(&memory).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "/proc/meminfo has no MemTotal")
            })?,
            cpu: CpuFacts::read()?,
        })
    }
}

impl CpuFacts {
    pub fn read() -> io::Result<Self> {
        Ok(Self::parse(&fs::read_to_string("/proc/cpuinfo")?))
    }

    /// Takes the text of `/proc/cpuinfo`; the first processor speaks for all.
    #[must_use]
    pub fn parse(cpuinfo: &str) -> Self {
        let flags = cpuinfo
            .lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.trim() == "flags")
            .map_or("", |(_, flags)| flags);
        let has = |wanted: &str| flags.split_whitespace().any(|flag| flag == wanted);
        let virtualisation = match (has("svm"), has("vmx")) {
            (true, _) => Some(Virtualisation::Svm),
            (false, true) => Some(Virtualisation::Vmx),
            (false, false) if cfg!(target_arch = "aarch64") => Some(Virtualisation::El2),
            (false, false) => None,
        };
        Self { virtualisation, steady_tsc: has("constant_tsc") && has("nonstop_tsc") }
    }
}

/// Takes the text of `/proc/meminfo`.
#[must_use]
pub fn parse_memory_mib(meminfo: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_whole_words() {
        let cpu = |flags: &str| {
            CpuFacts::parse(&format!("processor\t: 0\nbugs\t: vmx\nflags\t\t: {flags}\n"))
        };
        assert_eq!(cpu("fpu svm_lock vmxx").virtualisation, None);
        assert_eq!(cpu("fpu svm lm").virtualisation, Some(Virtualisation::Svm));
        assert_eq!(cpu("vmx lm").virtualisation, Some(Virtualisation::Vmx));
        assert!(cpu("constant_tsc nonstop_tsc").steady_tsc);
        assert!(!cpu("constant_tsc").steady_tsc);
        assert_eq!(CpuFacts::parse(""), CpuFacts::default());
    }

    #[test]
    fn memory_is_read_in_mib() {
        assert_eq!(parse_memory_mib("Foo: 1 kB\nMemTotal:   24683520 kB\n"), Some(24105));
        assert_eq!(parse_memory_mib("MemFree: 1 kB\n"), None);
        assert_eq!(parse_memory_mib("MemTotal: many kB\n"), None);
    }

    #[test]
    fn this_host_can_be_read() {
        let facts = HostFacts::read().unwrap();
        assert!(facts.cpus >= 1 && facts.memory_mib >= 64);
    }
}
