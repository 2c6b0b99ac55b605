//! Which modules a guest needs, and in which order they load.
//!
//! Packages carry no `modules.dep` (depmod makes it when they are installed), so each module is
//! asked itself what it depends on.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::elf::{Elf, ElfError};
use crate::model::ModuleSeen;

/// In loading order, as far as dependencies leave a choice.
const WANTED: [&str; 18] = [
    "unix",
    "virtio",
    "virtio_ring",
    "virtio_mmio",
    "virtio_pci",
    "crc32c_generic",
    "crc32c_intel",
    "ext4",
    "virtio_blk",
    "overlay",
    "squashfs",
    "failover",
    "net_failover",
    "virtio_net",
    "vsock",
    "vmw_vsock_virtio_transport",
    "virtio_console",
    "virtio_rng",
];

/// What is known of the modules of one kernel.
#[derive(Debug, Default)]
pub(super) struct Catalogue<K> {
    /// By name; the key finds the file again.
    modules: BTreeMap<String, (K, Vec<String>)>,
    builtin: BTreeSet<String>,
    knows_builtin: bool,
}

impl<K: Clone> Catalogue<K> {
    pub(super) fn new() -> Self {
        Self { modules: BTreeMap::new(), builtin: BTreeSet::new(), knows_builtin: false }
    }

    /// Takes a module's file, unpacked.
    pub(super) fn add(&mut self, path: &str, key: K, contents: &[u8]) -> Result<(), ElfError> {
        let depends = depends(contents)?;
        self.modules.insert(name_of(path), (key, depends));
        Ok(())
    }

    /// Takes the text of `modules.builtin`.
    pub(super) fn built_in(&mut self, text: &str) {
        self.knows_builtin = true;
        self.builtin.extend(text.lines().map(name_of));
    }

    /// Names and keys in loading order.
    pub(super) fn order(&self) -> Vec<(String, K)> {
        let (mut order, mut seen) = (Vec::new(), BTreeSet::new());
        for name in WANTED {
            self.visit(name, &mut order, &mut seen);
        }
        order
    }

    fn visit(&self, name: &str, order: &mut Vec<(String, K)>, seen: &mut BTreeSet<String>) {
        let Some((key, depends)) = self.modules.get(name) else { return };
        if !seen.insert(name.to_owned()) {
            return;
        }
        for depend in depends {
            self.visit(depend, order, seen);
        }
        order.push((name.to_owned(), key.clone()));
    }

    /// Where a module is, by its name.
    pub(super) fn seen(&self, name: &str) -> ModuleSeen {
        if self.modules.contains_key(name) {
            // All that is wanted and there is kept.
            return if WANTED.contains(&name) { ModuleSeen::Kept } else { ModuleSeen::LeftOut };
        }
        match self.builtin.contains(name) {
            true => ModuleSeen::BuiltIn,
            false if self.knows_builtin => ModuleSeen::Nowhere,
            false => ModuleSeen::Unknown,
        }
    }
}

/// `kernel/drivers/block/virtio-blk.ko.xz` is `virtio_blk`.
pub(super) fn name_of(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.split_once(".ko").map_or(name, |(name, _)| name).replace('-', "_")
}

/// Whether this path names a module, packed or not.
pub(super) fn is_module(path: &str) -> bool {
    [".ko", ".ko.xz", ".ko.gz", ".ko.zst"].iter().any(|end| path.ends_with(end))
}

/// A module's contents, unpacked. None is larger than 64 MiB.
pub(super) fn unpacked(packed: Vec<u8>) -> Result<Vec<u8>, super::super::unpack::UnpackError> {
    use super::super::unpack::{UnpackError, unpack};
    let mut contents = Vec::new();
    let mut from = unpack(std::io::Cursor::new(packed))?.from.take(64 << 20);
    from.read_to_end(&mut contents).map_err(UnpackError::Read)?;
    Ok(contents)
}

fn depends(module: &[u8]) -> Result<Vec<String>, ElfError> {
    let info = Elf::parse(module)?.section(".modinfo")?.ok_or(ElfError::Damaged)?;
    let field = info.split(|byte| *byte == 0).find_map(|line| line.strip_prefix(b"depends="));
    let text = String::from_utf8_lossy(field.unwrap_or_default()).into_owned();
    Ok(text.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect())
}

#[cfg(test)]
pub(in crate::host::image) mod tests {
    use super::super::elf::MACHINE;
    use super::*;

    /// An ELF file with this `.modinfo`, for tests.
    pub(in crate::host::image) fn module(depends: &str) -> Vec<u8> {
        let info = format!("license=GPL\0depends={depends}\0name=x\0");
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut elf = vec![0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18..20].copy_from_slice(&MACHINE.to_le_bytes());
        let info_at = elf.len() as u64;
        elf.extend(info.as_bytes());
        let names_at = elf.len() as u64;
        elf.extend(names);
        let table = elf.len() as u64;
        for (name, kind, at, len) in [
            (0_u32, 0_u32, 0, 0),
            (1, 1, info_at, info.len() as u64),
            (10, 3, names_at, names.len() as u64),
        ] {
            let mut header = vec![0; 64];
            header[..4].copy_from_slice(&name.to_le_bytes());
            header[4..8].copy_from_slice(&kind.to_le_bytes());
            header[24..32].copy_from_slice(&at.to_le_bytes());
            header[32..40].copy_from_slice(&len.to_le_bytes());
            elf.extend(header);
        }
        elf[40..48].copy_from_slice(&table.to_le_bytes());
        elf[60] = 3;
        elf[62] = 2;
        elf
    }

    #[test]
    fn dependencies_come_first() {
        let mut all = Catalogue::new();
        for (path, depends) in [
            ("k/virtio_blk.ko", "virtio,virtio_ring"),
            ("k/virtio-ring.ko.xz", ""),
            ("k/virtio.ko", "virtio-ring"),
            ("k/unrelated.ko", "virtio"),
            ("k/net_failover.ko", "failover"),
            ("k/failover.ko", ""),
        ] {
            all.add(path, path.to_owned(), &module(depends)).unwrap();
        }
        let order: Vec<_> = all.order().into_iter().map(|(name, _)| name).collect();
        assert_eq!(order, ["virtio_ring", "virtio", "virtio_blk", "failover", "net_failover"]);
        assert_eq!(all.seen("overlay"), ModuleSeen::Unknown);
        all.built_in("kernel/fs/ext4/ext4.ko\nkernel/fs/overlayfs/overlay.ko\n");
        assert_eq!(all.seen("overlay"), ModuleSeen::BuiltIn);
        assert_eq!(all.seen("virtio_blk"), ModuleSeen::Kept);
        assert_eq!(all.seen("unrelated"), ModuleSeen::LeftOut);
        assert_eq!(all.seen("virtio_net"), ModuleSeen::Nowhere);
    }

    #[test]
    fn a_circle_ends() {
        let mut all = Catalogue::new();
        all.add("virtio.ko", (), &module("virtio_ring")).unwrap();
        all.add("virtio_ring.ko", (), &module("virtio")).unwrap();
        assert_eq!(all.order().len(), 2);
    }

    #[test]
    fn a_file_that_is_no_module_is_an_error() {
        assert_eq!(Catalogue::new().add("x.ko", (), b"junk"), Err(ElfError::NotElf));
    }
}
