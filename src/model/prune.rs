//! Which names of images and kernels nobody needs, and why the others stay. Pure.

use super::image::{ImageRecord, KernelRecord};
use super::vm::VmRecord;

/// What has names, and VMs that are made of it.
pub trait Prunable {
    const WHAT: &'static str;
    fn name(&self) -> &str;
    fn is_of(&self, vm: &VmRecord) -> bool;
}

impl Prunable for ImageRecord {
    const WHAT: &'static str = "image";
    fn name(&self) -> &str {
        self.name.as_str()
    }
    fn is_of(&self, vm: &VmRecord) -> bool {
        vm.image == self.digest
    }
}

impl Prunable for KernelRecord {
    const WHAT: &'static str = "kernel";
    fn name(&self) -> &str {
        self.name.as_str()
    }
    fn is_of(&self, vm: &VmRecord) -> bool {
        vm.kernel == self.digest
    }
}

/// What becomes of a name when what is unused is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PruneVerdict<T> {
    pub row: T,
    /// Why it stays; a name without a reason goes.
    pub kept: Option<String>,
}

/// `default` is the one of VMs that name none.
#[must_use]
pub fn prune<T: Prunable>(rows: Vec<T>, vms: &[VmRecord], default: &str) -> Vec<PruneVerdict<T>> {
    let verdict = |row: T| {
        let users = vms.iter().filter(|vm| row.is_of(vm));
        let mut users: Vec<_> = users.map(|vm| vm.spec.name.as_str()).collect();
        users.sort_unstable();
        let kept = match &users[..] {
            _ if row.name() == default => Some(format!("it is the default {}", T::WHAT)),
            [] => None,
            [one] => Some(format!("used by {one}")),
            [one, two] => Some(format!("used by {one} and {two}")),
            [one, two, more @ ..] => Some(format!("used by {one}, {two} and {} more", more.len())),
        };
        PruneVerdict { row, kept }
    };
    rows.into_iter().map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Digest, Name, Size};

    fn image(name: &str, content: u8) -> ImageRecord {
        ImageRecord {
            name: Name::artefact(name).unwrap(),
            digest: Digest([content; 32]),
            uuid: [content; 16],
            size: Size::from_mib(1),
            source: String::new(),
            created_unix_ms: 0,
        }
    }

    #[test]
    fn the_default_stays_and_the_rest_goes_without_vms() {
        let images = vec![image("debian", 1), image("other", 2), image("twin", 1)];
        let verdicts = prune(images, &[], "debian");
        let kept: Vec<_> = verdicts.iter().map(|one| one.kept.is_some()).collect();
        assert_eq!(kept, [true, false, false]);
    }
}
