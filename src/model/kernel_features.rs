//! Which options a guest's kernel has. Pure: what a kernel's configuration says, and what a guest
//! will have of it, which depends on the modules that go with it.

use std::collections::BTreeMap;

/// An option that guests need or have use for. Stored by its name; append only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KernelFeature {
    Initrd,
    Devtmpfs,
    UnixSockets,
    Inet,
    Acpi,
    Pvh,
    VirtioMmio,
    VirtioMmioArguments,
    VirtioPci,
    VirtioBlk,
    VirtioNet,
    VirtioConsole,
    VirtioVsock,
    VirtioRng,
    VirtioBalloon,
    VirtioMem,
    Ext4,
    Overlay,
    Squashfs,
    Erofs,
    SerialConsole,
    VmGenId,
    KvmGuest,
    ControlGroups,
}

/// What a guest has of an option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelSupport {
    BuiltIn,
    /// In the initramfs, loaded at boot.
    Module,
    /// A module that guests do not get.
    LeftOut,
    No,
    /// The kernel does not say.
    #[default]
    Unknown,
}

impl KernelFeature {
    pub const ALL: [Self; 24] = [
        Self::Initrd,
        Self::Devtmpfs,
        Self::UnixSockets,
        Self::Inet,
        Self::Acpi,
        Self::Pvh,
        Self::VirtioMmio,
        Self::VirtioMmioArguments,
        Self::VirtioPci,
        Self::VirtioBlk,
        Self::VirtioNet,
        Self::VirtioConsole,
        Self::VirtioVsock,
        Self::VirtioRng,
        Self::VirtioBalloon,
        Self::VirtioMem,
        Self::Ext4,
        Self::Overlay,
        Self::Squashfs,
        Self::Erofs,
        Self::SerialConsole,
        Self::VmGenId,
        Self::KvmGuest,
        Self::ControlGroups,
    ];

    /// As in the kernel's configuration, its module if it can be one, what a guest has it for.
    const fn known(self) -> (&'static str, Option<&'static str>, &'static str) {
        match self {
            Self::Initrd => ("CONFIG_BLK_DEV_INITRD", None, "the initramfs with the agent"),
            Self::Devtmpfs => ("CONFIG_DEVTMPFS", None, "/dev"),
            Self::UnixSockets => ("CONFIG_UNIX", Some("unix"), "sockets of the agent"),
            Self::Inet => ("CONFIG_INET", None, "the guest's address"),
            Self::Acpi => ("CONFIG_ACPI", None, "finding devices on x86"),
            Self::Pvh => ("CONFIG_PVH", None, "the entry by which QEMU's microvm starts it"),
            Self::VirtioMmio => ("CONFIG_VIRTIO_MMIO", Some("virtio_mmio"), "all devices"),
            Self::VirtioMmioArguments => (
                "CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES",
                None,
                "finding devices without ACPI on Firecracker",
            ),
            Self::VirtioPci => ("CONFIG_VIRTIO_PCI", Some("virtio_pci"), "devices on PCI"),
            Self::VirtioBlk => ("CONFIG_VIRTIO_BLK", Some("virtio_blk"), "disks"),
            Self::VirtioNet => ("CONFIG_VIRTIO_NET", Some("virtio_net"), "the network"),
            Self::VirtioConsole => {
                ("CONFIG_VIRTIO_CONSOLE", Some("virtio_console"), "QEMU's way to the agent")
            }
            Self::VirtioVsock => (
                "CONFIG_VIRTIO_VSOCKETS",
                Some("vmw_vsock_virtio_transport"),
                "Firecracker's way to the agent",
            ),
            Self::VirtioRng => ("CONFIG_HW_RANDOM_VIRTIO", Some("virtio_rng"), "entropy"),
            Self::VirtioBalloon => {
                ("CONFIG_VIRTIO_BALLOON", Some("virtio_balloon"), "memory given back")
            }
            Self::VirtioMem => ("CONFIG_VIRTIO_MEM", Some("virtio_mem"), "memory added later"),
            Self::Ext4 => ("CONFIG_EXT4_FS", Some("ext4"), "every disk"),
            Self::Overlay => ("CONFIG_OVERLAY_FS", Some("overlay"), "overlay roots, containers"),
            Self::Squashfs => ("CONFIG_SQUASHFS", Some("squashfs"), "squashfs mounts"),
            Self::Erofs => ("CONFIG_EROFS_FS", Some("erofs"), "EROFS mounts"),
            Self::SerialConsole => {
                ("CONFIG_SERIAL_8250_CONSOLE", None, "`vm logs`, what the kernel says")
            }
            Self::VmGenId => ("CONFIG_VMGENID", Some("vmgenid"), "new randomness after a snapshot"),
            Self::KvmGuest => ("CONFIG_KVM_GUEST", None, "a steady clock under KVM"),
            Self::ControlGroups => ("CONFIG_CGROUPS", None, "limits of containers"),
        }
    }

    #[must_use]
    pub fn option(self) -> &'static str {
        self.known().0
    }

    #[must_use]
    pub fn module(self) -> Option<&'static str> {
        self.known().1
    }

    #[must_use]
    pub fn purpose(self) -> &'static str {
        self.known().2
    }

    #[must_use]
    pub fn named(option: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.option() == option)
    }
}

impl KernelSupport {
    pub const ALL: [Self; 5] =
        [Self::BuiltIn, Self::Module, Self::LeftOut, Self::No, Self::Unknown];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BuiltIn => "yes",
            Self::Module => "module",
            Self::LeftOut => "module-left-out",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }

    /// What is not known may be there.
    #[must_use]
    pub fn may_be_there(self) -> bool {
        matches!(self, Self::BuiltIn | Self::Module | Self::Unknown)
    }
}

/// What is known of one kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KernelFeatures(BTreeMap<KernelFeature, KernelSupport>);

impl KernelFeatures {
    #[must_use]
    pub fn of(&self, feature: KernelFeature) -> KernelSupport {
        self.0.get(&feature).copied().unwrap_or_default()
    }

    /// Only what is known is kept.
    pub fn set(&mut self, feature: KernelFeature, support: KernelSupport) {
        match support {
            KernelSupport::Unknown => self.0.remove(&feature),
            known => self.0.insert(feature, known),
        };
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn known(&self) -> impl Iterator<Item = (KernelFeature, KernelSupport)> {
        self.0.iter().map(|(feature, support)| (*feature, *support))
    }
}

/// What a configuration says of an option; what it does not name is not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    BuiltIn,
    Module,
    Unset,
}

/// A kernel's configuration, as far as it counts here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelConfig(BTreeMap<KernelFeature, Setting>);

impl KernelConfig {
    /// `None` of a text that sets no option at all.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (mut set, mut is_one) = (BTreeMap::new(), false);
        for line in text.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("# ")
                && let Some(option) = rest.strip_suffix(" is not set")
                && let Some(feature) = KernelFeature::named(option)
            {
                set.insert(feature, Setting::Unset);
            }
            let Some((option, value)) = line.split_once('=') else { continue };
            is_one |= option.starts_with("CONFIG_");
            let Some(feature) = KernelFeature::named(option) else { continue };
            let setting = match value {
                "y" => Setting::BuiltIn,
                "m" => Setting::Module,
                _ => Setting::Unset,
            };
            set.insert(feature, setting);
        }
        is_one.then_some(Self(set))
    }

    #[must_use]
    pub fn of(&self, feature: KernelFeature) -> Setting {
        self.0.get(&feature).copied().unwrap_or(Setting::Unset)
    }
}

/// Where the modules of a kernel are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModuleSeen {
    /// Guests load it.
    Kept,
    /// It came with the kernel, and guests do not get it.
    LeftOut,
    BuiltIn,
    /// The kernel says what is built in, and this is neither that nor a module that came with it.
    Nowhere,
    Unknown,
}

/// What guests will have, from what the kernel's configuration says, if it is known, and where
/// its modules are.
#[must_use]
pub fn kernel_features(
    config: Option<&KernelConfig>,
    module: impl Fn(&str) -> ModuleSeen,
) -> KernelFeatures {
    use KernelSupport as S;
    let mut features = KernelFeatures::default();
    for feature in KernelFeature::ALL {
        let seen = feature.module().map_or(ModuleSeen::Unknown, &module);
        let support = match (config.map(|config| config.of(feature)), seen) {
            // What is at hand counts, whatever a configuration says: it may be another's.
            (_, ModuleSeen::Kept) => S::Module,
            (Some(Setting::BuiltIn), _) | (_, ModuleSeen::BuiltIn) => S::BuiltIn,
            (Some(Setting::Module), _) | (None, ModuleSeen::LeftOut) => S::LeftOut,
            (Some(Setting::Unset), _) => S::No,
            // Newer kernels cannot have this one as a module, and no list of modules has it then.
            (None, ModuleSeen::Nowhere) if feature == KernelFeature::UnixSockets => S::Unknown,
            (None, ModuleSeen::Nowhere) => S::No,
            (None, ModuleSeen::Unknown) => S::Unknown,
        };
        features.set(feature, support);
    }
    features
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_told_apart_and_have_one_name_each() {
        let names: std::collections::BTreeSet<_> =
            KernelFeature::ALL.map(KernelFeature::option).into();
        assert_eq!(names.len(), KernelFeature::ALL.len());
        for feature in KernelFeature::ALL {
            assert_eq!(KernelFeature::named(feature.option()), Some(feature));
        }
        assert_eq!(KernelFeature::named("CONFIG_OVERLAY_FS_INDEX"), None);
    }

    #[test]
    fn a_configuration_says_what_is_set_and_all_else_is_not() {
        let text = "#\n# Linux/x86 6.1.0 Kernel Configuration\n#\nCONFIG_EXT4_FS=y\r\n\
                    CONFIG_OVERLAY_FS=m\n# CONFIG_SQUASHFS is not set\nCONFIG_LOCALVERSION=\"-x=y\"\n\
                    CONFIG_VIRTIO_BLK=n\nCONFIG_EXT4_FS_POSIX_ACL=y\n";
        let config = KernelConfig::parse(text).unwrap();
        use KernelFeature as F;
        for (feature, setting) in [
            (F::Ext4, Setting::BuiltIn),
            (F::Overlay, Setting::Module),
            (F::Squashfs, Setting::Unset),
            (F::VirtioBlk, Setting::Unset),
            (F::VirtioNet, Setting::Unset),
        ] {
            assert_eq!(config.of(feature), setting, "{feature:?}");
        }
        for none in ["", "junk", "# CONFIG_SQUASHFS is not set", "a=b\n\0\u{fffd}", "=\n=="] {
            assert_eq!(KernelConfig::parse(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_module_counts_where_guests_get_it() {
        use ModuleSeen as M;
        let overlay = |config: Option<&str>, seen| {
            let config = config.map(|text| KernelConfig::parse(text).unwrap());
            kernel_features(config.as_ref(), |_| seen).of(KernelFeature::Overlay).as_str()
        };
        let (y, m, n) = ("CONFIG_OVERLAY_FS=y", "CONFIG_OVERLAY_FS=m", "CONFIG_X=y");
        for (config, seen, said) in [
            (Some(y), M::Unknown, "yes"),
            (Some(y), M::Nowhere, "yes"),
            (Some(m), M::Kept, "module"),
            (Some(m), M::LeftOut, "module-left-out"),
            (Some(m), M::Nowhere, "module-left-out"),
            (Some(m), M::Unknown, "module-left-out"),
            (Some(n), M::Unknown, "no"),
            (Some(n), M::Kept, "module"),
            (Some(n), M::BuiltIn, "yes"),
            (None, M::Kept, "module"),
            (None, M::LeftOut, "module-left-out"),
            (None, M::BuiltIn, "yes"),
            (None, M::Nowhere, "no"),
            (None, M::Unknown, "unknown"),
        ] {
            assert_eq!(overlay(config, seen), said, "{config:?} {seen:?}");
        }
        // What is never a module only a configuration knows.
        let acpi = |config: Option<&KernelConfig>| {
            kernel_features(config, |_| M::Nowhere).of(KernelFeature::Acpi)
        };
        assert_eq!(acpi(None), KernelSupport::Unknown);
        assert_eq!(acpi(KernelConfig::parse(n).as_ref()), KernelSupport::No);
        assert!(kernel_features(None, |_| M::Unknown).is_empty());
    }
}
