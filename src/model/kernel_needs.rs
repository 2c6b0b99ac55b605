//! What a guest's kernel must have, by what the VM is made of. Pure.
//!
//! Each rule is what the agent and the devices of that VMM do: a guest without it does not come up.
//! What would be welcome only is no rule.

use super::disk::DiskBackend;
use super::kernel_features::{KernelFeature as F, KernelFeatures, KernelSupport};
use super::spec::VmmKind;

/// Of a VM, what decides what its kernel must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pub vmm: VmmKind,
    pub root: DiskBackend,
    /// Else devices are told by a device tree, and there is no PVH.
    pub x86: bool,
}

/// Guests have the host's processor.
pub const HOST_IS_X86: bool = cfg!(target_arch = "x86_64");

impl Machine {
    #[must_use]
    pub fn here(vmm: VmmKind, root: DiskBackend) -> Self {
        Self { vmm, root, x86: HOST_IS_X86 }
    }
}

/// Which VMs a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    Every,
    Vmm(VmmKind),
    Root(DiskBackend),
}

/// One of these options must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Need {
    any_of: &'static [F],
    on: On,
    x86_only: bool,
}

const fn every(any_of: &'static [F]) -> Need {
    Need { any_of, on: On::Every, x86_only: false }
}

const fn on(on: On, any_of: &'static [F]) -> Need {
    Need { any_of, on, x86_only: false }
}

const fn x86(need: Need) -> Need {
    Need { x86_only: true, ..need }
}

const NEEDS: [Need; 14] = [
    every(&[F::Initrd]),
    every(&[F::Devtmpfs]),
    every(&[F::UnixSockets]),
    every(&[F::Inet]),
    every(&[F::VirtioMmio]),
    every(&[F::VirtioBlk]),
    every(&[F::VirtioNet]),
    every(&[F::Ext4]),
    x86(on(On::Vmm(VmmKind::Qemu), &[F::Acpi])),
    x86(on(On::Vmm(VmmKind::Qemu), &[F::Pvh])),
    on(On::Vmm(VmmKind::Qemu), &[F::VirtioConsole]),
    // Firecracker tells of its devices in both ways.
    x86(on(On::Vmm(VmmKind::Firecracker), &[F::Acpi, F::VirtioMmioArguments])),
    on(On::Vmm(VmmKind::Firecracker), &[F::VirtioVsock]),
    on(On::Root(DiskBackend::Overlay), &[F::Overlay]),
];

impl On {
    fn is_for(self, machine: Machine) -> bool {
        match self {
            Self::Every => true,
            Self::Vmm(vmm) => vmm == machine.vmm,
            Self::Root(root) => root == machine.root,
        }
    }

    /// Of whom it is said that they need it.
    fn whose(self) -> &'static str {
        match self {
            Self::Every => "every VM",
            Self::Vmm(VmmKind::Qemu) => "VMs on QEMU",
            Self::Vmm(VmmKind::Firecracker) => "VMs on Firecracker",
            Self::Vmm(VmmKind::Sim) => "simulated VMs",
            Self::Root(DiskBackend::Overlay) => "VMs with an overlay root",
            Self::Root(DiskBackend::Reflink) => "VMs with a reflink root",
            Self::Root(DiskBackend::DmSnapshot) => "VMs with a snapshot root",
        }
    }
}

impl Need {
    fn is_for(self, machine: Machine) -> bool {
        self.on.is_for(machine) && (machine.x86 || !self.x86_only)
    }

    fn is_met(self, features: &KernelFeatures) -> bool {
        self.any_of.iter().any(|feature| features.of(*feature).may_be_there())
    }
}

/// What is missing, and who needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    need: Need,
    /// It is a module that is not where guests load it from.
    left_out: bool,
}

/// What this kernel lacks for such a VM. What is not known is not lacking.
#[must_use]
pub fn lacking(features: &KernelFeatures, machine: Machine) -> Vec<Lack> {
    lacks(features, NEEDS.into_iter().filter(|need| need.is_for(machine)))
}

/// What it lacks for any VM at all.
#[must_use]
pub fn lacking_for_every(features: &KernelFeatures) -> Vec<Lack> {
    lacks(features, NEEDS.into_iter().filter(|need| need.on == On::Every && !need.x86_only))
}

/// What it lacks for some VM.
#[must_use]
pub fn lacking_for_some(features: &KernelFeatures, x86: bool) -> Vec<Lack> {
    lacks(features, NEEDS.into_iter().filter(|need| x86 || !need.x86_only))
}

fn lacks(features: &KernelFeatures, needs: impl Iterator<Item = Need>) -> Vec<Lack> {
    let unmet = needs.filter(|need| !need.is_met(features));
    let left_out = |need: Need| {
        need.any_of.iter().any(|feature| features.of(*feature) == KernelSupport::LeftOut)
    };
    unmet.map(|need| Lack { need, left_out: left_out(need) }).collect()
}

/// Who cannot do without this option; empty if it is welcome only.
#[must_use]
pub fn needed_by(feature: F, x86: bool) -> Vec<&'static str> {
    let needs = NEEDS.into_iter().filter(|need| x86 || !need.x86_only);
    let with = needs.filter(|need| need.any_of.contains(&feature));
    with.map(|need| need.on.whose()).collect()
}

/// All that is lacking in one sentence: `lacks CONFIG_OVERLAY_FS, which VMs with an overlay root need`.
#[must_use]
pub fn lack_text(lacks: &[Lack]) -> String {
    let mut groups: Vec<(On, bool, Vec<String>)> = vec![];
    for Lack { need, left_out } in lacks {
        let options: Vec<_> = need.any_of.iter().map(|feature| feature.option()).collect();
        let options = options.join(" or ");
        match groups.iter_mut().find(|(on, out, _)| (on, out) == (&need.on, left_out)) {
            Some((.., group)) => group.push(options),
            None => groups.push((need.on, *left_out, vec![options])),
        }
    }
    let said = |(on, left_out, options): &(On, bool, Vec<String>)| {
        let (one, need) = (options.len() == 1, if *on == On::Every { "needs" } else { "need" });
        let why = match (left_out, one) {
            (false, _) => "",
            (true, true) => " (a module that did not come with it)",
            (true, false) => " (modules that did not come with it)",
        };
        format!("{}{why}, which {} {need}", options.join(", "), on.whose())
    };
    let all: Vec<_> = groups.iter().map(said).collect();
    format!("lacks {}", all.join("; and "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machines() -> Vec<Machine> {
        let mut all = vec![];
        for vmm in VmmKind::ALL {
            for root in DiskBackend::ALL {
                all.extend([true, false].map(|x86| Machine { vmm, root, x86 }));
            }
        }
        all
    }

    fn with_all() -> KernelFeatures {
        let mut features = KernelFeatures::default();
        for feature in F::ALL {
            features.set(feature, KernelSupport::BuiltIn);
        }
        features
    }

    fn without(gone: &[F], how: KernelSupport) -> KernelFeatures {
        let mut features = with_all();
        gone.iter().for_each(|feature| features.set(*feature, how));
        features
    }

    #[test]
    fn nothing_is_refused_for_what_is_not_known() {
        for machine in machines() {
            assert_eq!(lacking(&KernelFeatures::default(), machine), []);
            assert_eq!(lacking(&with_all(), machine), []);
        }
    }

    /// Every option, every machine: the whole table, said anew.
    #[test]
    fn each_machine_needs_its_own() {
        use DiskBackend as D;
        use VmmKind as V;
        for machine in machines() {
            let Machine { vmm, root, x86 } = machine;
            for feature in F::ALL {
                let needs = match feature {
                    F::Initrd
                    | F::Devtmpfs
                    | F::UnixSockets
                    | F::Inet
                    | F::VirtioMmio
                    | F::VirtioBlk
                    | F::VirtioNet
                    | F::Ext4 => true,
                    F::Acpi | F::Pvh => vmm == V::Qemu && x86,
                    F::VirtioConsole => vmm == V::Qemu,
                    F::VirtioVsock => vmm == V::Firecracker,
                    F::Overlay => root == D::Overlay,
                    F::VirtioMmioArguments
                    | F::VirtioPci
                    | F::VirtioRng
                    | F::VirtioBalloon
                    | F::VirtioMem
                    | F::Squashfs
                    | F::Erofs
                    | F::SerialConsole
                    | F::VmGenId
                    | F::KvmGuest
                    | F::ControlGroups => false,
                };
                for how in KernelSupport::ALL {
                    let lacks = lacking(&without(&[feature], how), machine);
                    let expected = needs && !how.may_be_there();
                    assert_eq!(!lacks.is_empty(), expected, "{feature:?} {how:?} {machine:?}");
                    let said = lack_text(&lacks);
                    assert!(!expected || said.contains(feature.option()), "{said}");
                    let left_out = how == KernelSupport::LeftOut;
                    assert!(lacks.iter().all(|lack| lack.left_out == left_out), "{said}");
                }
            }
            let neither = without(&[F::Acpi, F::VirtioMmioArguments], KernelSupport::No);
            let expected = usize::from(vmm != V::Sim && x86);
            assert_eq!(lacking(&neither, machine).len(), expected, "{machine:?}");
        }
    }

    #[test]
    fn what_is_lacking_is_said_with_who_needs_it() {
        let said = |gone: &[F], how, vmm| {
            let machine = Machine { vmm, root: DiskBackend::Overlay, x86: true };
            lack_text(&lacking(&without(gone, how), machine))
        };
        assert_eq!(
            said(&[F::Overlay], KernelSupport::No, VmmKind::Qemu),
            "lacks CONFIG_OVERLAY_FS, which VMs with an overlay root need"
        );
        assert_eq!(
            said(&[F::VirtioBlk, F::Pvh], KernelSupport::LeftOut, VmmKind::Qemu),
            "lacks CONFIG_VIRTIO_BLK (a module that did not come with it), which every VM needs; \
             and CONFIG_PVH (a module that did not come with it), which VMs on QEMU need"
        );
        let several = [F::VirtioBlk, F::Ext4, F::Overlay];
        assert_eq!(
            said(&several, KernelSupport::LeftOut, VmmKind::Sim),
            "lacks CONFIG_VIRTIO_BLK, CONFIG_EXT4_FS (modules that did not come with it), which \
             every VM needs; and CONFIG_OVERLAY_FS (a module that did not come with it), which VMs \
             with an overlay root need"
        );
        assert_eq!(
            said(&[F::Acpi, F::VirtioMmioArguments], KernelSupport::No, VmmKind::Firecracker),
            "lacks CONFIG_ACPI or CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES, which VMs on Firecracker need"
        );
        assert_eq!(needed_by(F::Overlay, true), ["VMs with an overlay root"]);
        assert_eq!(needed_by(F::Acpi, true), ["VMs on QEMU", "VMs on Firecracker"]);
        assert_eq!(needed_by(F::Acpi, false), [""; 0]);
        assert_eq!(needed_by(F::Squashfs, true), [""; 0]);
        let every = without(&[F::Ext4, F::Overlay, F::Pvh], KernelSupport::No);
        assert_eq!(lacking_for_every(&every).len(), 1);
        assert_eq!(lacking_for_some(&every, true).len(), 3);
        assert_eq!(lacking_for_some(&every, false).len(), 2);
    }
}
