//! What there is of VMs' files, whoever knows of them. Changes nothing.

use std::fs;
use std::io;
use std::path::Path;

use crate::model::{HostSeen, ResourceKind, VmId};
use crate::ports::VmPaths;

/// Only names that are of the form that we give count: whatever else lies there is somebody's.
pub(super) fn files(vms: &Path, run: &Path) -> io::Result<HostSeen> {
    let mut seen = HostSeen::default();
    for name in dirs(vms)? {
        let Ok(vm) = name.parse::<VmId>() else { continue };
        let paths = VmPaths::new(vms, run, vm);
        let held = [
            (ResourceKind::VmDir, true),
            (ResourceKind::Config, paths.config().exists()),
            (ResourceKind::Memory, paths.saved().dir.exists()),
        ];
        for (kind, _) in held.into_iter().filter(|(_, there)| *there) {
            seen.add(kind, vm.to_string(), Some(vm));
        }
    }
    let ours = |name: &String| is_run_dir(name);
    for name in dirs(run)?.into_iter().filter(ours) {
        seen.add(ResourceKind::RunDir, name, None);
    }
    Ok(seen)
}

/// As [`VmId::short`] writes it.
pub(super) fn is_run_dir(name: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    name.len() == 12 && name.chars().all(hex)
}

/// Real ones, no links.
fn dirs(of: &Path) -> io::Result<Vec<String>> {
    let mut names = vec![];
    for entry in fs::read_dir(of)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Thing;

    #[test]
    fn what_has_our_names_is_seen_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (vms, run) = (dir.path().join("vms"), dir.path().join("run"));
        let vm = VmId([0xab; 16]);
        let paths = VmPaths::new(&vms, &run, vm);
        for dir in [&paths.dir, &paths.run, &vms.join("mine"), &run.join("mine")] {
            fs::create_dir_all(dir).unwrap();
        }
        fs::write(paths.config(), "x").unwrap();
        fs::write(run.join("bangerd.sock"), "x").unwrap();
        std::os::unix::fs::symlink(dir.path(), run.join("cdcdcdcdcdcd")).unwrap();
        let seen = files(&vms, &run).unwrap();
        let thing = |kind, name, vm| Thing { kind, name, vm };
        let all = [
            thing(ResourceKind::RunDir, vm.short(), None),
            thing(ResourceKind::VmDir, vm.to_string(), Some(vm)),
            thing(ResourceKind::Config, vm.to_string(), Some(vm)),
        ];
        assert_eq!(seen.things, all.into());
    }
}
