//! What a user asks for when creating a VM, and the checks that need no host.

use super::disk::RootDisk;
use super::health::{HealthCheck, HealthError};
use super::name::Name;
use super::restart::RestartPolicy;
use super::size::Size;

/// A complete, checked specification; the daemon makes it from what was asked and its defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmSpec {
    pub name: Name,
    /// Name of an image in the image store.
    pub image: String,
    /// Name of a kernel in the kernel store.
    pub kernel: String,
    pub vcpu: u32,
    pub memory_mib: u32,
    /// What can be written to `/` beside what the shared image holds.
    pub disk: Size,
    /// Size of the work disk mounted at `/root`.
    pub work_disk: Size,
    pub nat: bool,
    /// Given to every command that runs in the guest.
    pub env: Vec<(String, String)>,
    pub vmm: VmmChoice,
    pub root: RootDisk,
    /// A serial console also where it costs speed: QEMU's guests always have one.
    pub console: bool,
    /// Its first start may begin from the memory of a guest that has booted: see `ops/warm`. Only
    /// a start in the same operation as the creation does.
    pub warm: bool,
    /// Whether it is started again when it ends though nobody asked for it.
    pub restart: RestartPolicy,
    pub health: Option<HealthCheck>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum VmmChoice {
    #[default]
    Auto,
    Qemu,
    Firecracker,
}

/// Which VMM runs a VM, once that is settled: a choice that is never left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmmKind {
    Qemu,
    Firecracker,
    /// None: the host is simulated.
    Sim,
}

impl VmmKind {
    pub const ALL: [Self; 3] = [Self::Qemu, Self::Firecracker, Self::Sim];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
            Self::Sim => "sim",
        }
    }

    /// The kind that a VMM's description, as users see it and the store keeps it, begins with.
    #[must_use]
    pub fn described(text: &str) -> Option<Self> {
        let word = text.split_ascii_whitespace().next()?;
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecDefaults {
    pub image: String,
    /// Empty: the newest kernel in the store.
    pub kernel: String,
    pub vcpu: u32,
    pub memory_mib: u32,
    pub disk: Size,
    pub work_disk: Size,
    pub warm: bool,
    pub restart: RestartPolicy,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("vcpu must be at least 1")]
    NoCpu,
    #[error("{asked} vcpu asked for, at most {max} allowed")]
    TooManyCpus { asked: u32, max: u32 },
    #[error("memory of {asked} MiB is below the least that boots, {min} MiB")]
    MemoryTooSmall { asked: u32, min: u32 },
    #[error("{what} of {asked} is below the least possible, {min}")]
    DiskTooSmall { what: &'static str, asked: Size, min: Size },
    #[error("{what} of {asked} is above the ceiling of {max}")]
    DiskTooLarge { what: &'static str, asked: Size, max: Size },
    #[error("environment variable {0:?} is not NAME=value with a name of letters, digits and _")]
    Environment(String),
    #[error("{0} environment variables or more than 64 KiB of them")]
    EnvironmentTooLarge(usize),
    #[error(transparent)]
    Health(#[from] HealthError),
}

pub(super) const MIN_MEMORY_MIB: u32 = 96;
pub(super) const MIN_DISK: Size = Size::from_mib(16);
pub(super) const MAX_DISK: Size = Size::from_bytes(128 << 30);
pub(super) const MAX_VCPU: u32 = 32;
const MAX_ENV_BYTES: usize = 64 << 10;

impl SpecDefaults {
    /// A quarter of the CPUs (1 to 4), an eighth of the memory (up to 8 GiB), 8 GiB disks.
    #[must_use]
    pub fn for_host(cpus: u32, memory_mib: u64) -> Self {
        let eighth = u32::try_from(memory_mib / 8).unwrap_or(u32::MAX);
        Self {
            image: "debian-bookworm".to_owned(),
            kernel: String::new(),
            vcpu: (cpus / 4).clamp(1, 4),
            memory_mib: eighth.clamp(256, 8192),
            disk: Size::from_bytes(8 << 30),
            work_disk: Size::from_bytes(8 << 30),
            warm: false,
            restart: RestartPolicy::No,
        }
    }
}

impl VmSpec {
    /// Everything that can be refused without looking at the host.
    pub fn check(&self) -> Result<(), SpecError> {
        match self.vcpu {
            0 => return Err(SpecError::NoCpu),
            asked if asked > MAX_VCPU => {
                return Err(SpecError::TooManyCpus { asked, max: MAX_VCPU });
            }
            _ => {}
        }
        if self.memory_mib < MIN_MEMORY_MIB {
            let (asked, min) = (self.memory_mib, MIN_MEMORY_MIB);
            return Err(SpecError::MemoryTooSmall { asked, min });
        }
        for (what, asked) in [("disk size", self.disk), ("work disk size", self.work_disk)] {
            if asked < MIN_DISK {
                return Err(SpecError::DiskTooSmall { what, asked, min: MIN_DISK });
            }
            if asked > MAX_DISK {
                return Err(SpecError::DiskTooLarge { what, asked, max: MAX_DISK });
            }
        }
        if let Some(health) = &self.health {
            health.check()?;
        }
        self.check_env()
    }

    fn check_env(&self) -> Result<(), SpecError> {
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for (name, value) in &self.env {
            let starts_well = name.starts_with(|c: char| word(c) && !c.is_ascii_digit());
            if !starts_well || !name.chars().all(word) || value.contains('\0') {
                return Err(SpecError::Environment(name.clone()));
            }
        }
        let bytes: usize = self.env.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.env.len() > 1024 || bytes > MAX_ENV_BYTES {
            return Err(SpecError::EnvironmentTooLarge(self.env.len()));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec(name: &str) -> VmSpec {
        VmSpec {
            name: name.parse().unwrap(),
            image: "debian".to_owned(),
            kernel: "debian".to_owned(),
            vcpu: 1,
            memory_mib: 256,
            disk: Size::from_bytes(8 << 30),
            work_disk: Size::from_bytes(8 << 30),
            nat: false,
            env: vec![],
            vmm: VmmChoice::Auto,
            root: RootDisk::default(),
            console: false,
            warm: false,
            restart: RestartPolicy::No,
            health: None,
        }
    }

    #[test]
    fn bounds_are_checked() {
        assert_eq!(spec("a").check(), Ok(()));
        assert_eq!(VmSpec { vcpu: 0, ..spec("a") }.check(), Err(SpecError::NoCpu));
        assert!(VmSpec { vcpu: 33, ..spec("a") }.check().is_err());
        assert!(VmSpec { memory_mib: 0, ..spec("a") }.check().is_err());
        assert!(VmSpec { disk: Size::from_bytes(1), ..spec("a") }.check().is_err());
        assert!(VmSpec { work_disk: Size::from_bytes(u64::MAX), ..spec("a") }.check().is_err());
    }

    #[test]
    fn environment_names_are_words() {
        let with = |name: &str, value: &str| {
            VmSpec { env: vec![(name.to_owned(), value.to_owned())], ..spec("a") }.check()
        };
        assert_eq!(with("PATH_2", "x=y z"), Ok(()));
        for bad in ["", "1A", "A B", "A=", "Ä"] {
            assert!(with(bad, "x").is_err(), "{bad:?}");
        }
        assert!(with("A", "x\0").is_err());
        assert!(with("A", &"x".repeat(70_000)).is_err());
    }
}
