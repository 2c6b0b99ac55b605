//! Whether guests run on hardware virtualisation, and why or why not. The reason is shown to users, so it names the evidence.

use std::fs::OpenOptions;
use std::io;

use crate::host::facts::{CpuFacts, Virtualisation};
use crate::ports::HostError;

const KVM: &str = "/dev/kvm";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    Kvm,
    Tcg,
}

impl Accelerator {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// Looks at this host. Done at each start: a kernel module may come or go.
    pub fn probe() -> Result<(Self, String), HostError> {
        let cpu =
            CpuFacts::read().map_err(|error| HostError::io("read", "/proc/cpuinfo", error))?;
        // Without the flag the device says nothing, so it is not even opened.
        let device = match cpu.virtualisation {
            Some(_) => OpenOptions::new().read(true).write(true).open(KVM).map(drop),
            None => Ok(()),
        };
        Ok(Self::choose(cpu.virtualisation, device))
    }

    fn choose(flag: Option<Virtualisation>, device: io::Result<()>) -> (Self, String) {
        match (flag, device) {
            (None, _) => (Self::Tcg, "the CPU shows neither svm nor vmx".to_owned()),
            (Some(flag), Ok(())) => (Self::Kvm, format!("{} and {KVM} opens", flag.as_str())),
            (Some(flag), Err(error)) => {
                (Self::Tcg, format!("{}, but {KVM} does not open: {error}", flag.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_needs_both_the_flag_and_the_device() {
        let denied = || Err(io::Error::from(io::ErrorKind::PermissionDenied));
        let choose = Accelerator::choose;
        assert_eq!(choose(Some(Virtualisation::Svm), Ok(())).0, Accelerator::Kvm);
        assert_eq!(
            choose(None, Ok(())),
            (Accelerator::Tcg, "the CPU shows neither svm nor vmx".to_owned())
        );
        let (accelerator, why) = choose(Some(Virtualisation::Vmx), denied());
        assert_eq!(accelerator, Accelerator::Tcg);
        assert_eq!(why, "the CPU shows vmx, but /dev/kvm does not open: permission denied");
    }
}
