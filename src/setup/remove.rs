//! Takes everything away that an installation put there; with a purge also what came to be since.
//!
//! Whoever calls has seen to it that no VM runs. What belongs to somebody else stays: other files in
//! the directories, a user that was there before.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::account;
use super::error::SetupError;
use super::files::{self, Change, Did};
use super::install::configuration;
use super::places::{PROGRAMS, Places};
use super::systemd::{Systemd, UNITS, run};

/// Where the helper makes nodes for root disks; they go with their VMs.
const DEVICES: &str = "/dev/banger";

/// Stops the units, takes the helper's links and rules out of the kernel, removes units and
/// programs. Data, configuration and logs stay.
pub fn remove(
    places: &Places,
    systemd: Systemd,
    say: &mut dyn FnMut(Change),
) -> Result<(), SetupError> {
    let config = configuration(places)?;
    for unit in UNITS.iter().rev() {
        if !places.at(&Places::unit(unit)).exists() {
            continue;
        }
        if unit.starts_with("banger-helper") && systemd.is_active(unit)? {
            let helper = places.program("banger-helper").display().to_string();
            let socket = config.helper_socket.display().to_string();
            run(&helper, &["--teardown", "--socket", &socket])?;
            say(Change::new(Did::Removed, "taps, rules and bridge"));
        }
        systemd.call(&["disable", "--quiet", "--now", unit])?;
        say(Change::new(Did::Stopped, unit));
    }
    for unit in UNITS {
        remove_file(&places.at(&Places::unit(unit)), say)?;
    }
    systemd.call(&["daemon-reload"])?;
    // Preserved while units come and go, for the sake of VMs that run.
    let helper_dir = config.helper_socket.parent();
    for dir in [Some(config.run_dir.as_path()), helper_dir].into_iter().flatten() {
        remove_tree(&places.at(dir), say)?;
    }
    if !places.packaged() {
        for (name, _) in PROGRAMS {
            remove_file(&places.at(&places.program(name)), say)?;
        }
        remove_empty(&places.at(&places.lib()), say)?;
    }
    remove_empty(&places.at(Path::new(DEVICES)), say)?;
    remove_file(&places.at(&Places::record()), say)
}

/// Removes VMs, images, kernels, configuration and logs, and the owner's account where it was made
/// for them.
pub fn purge(places: &Places, say: &mut dyn FnMut(Change)) -> Result<(), SetupError> {
    let state = places.at(&configuration(places)?.state_dir);
    if !is_state(&state).map_err(SetupError::io("look into", &state))? {
        let why = format!("{} does not look like banger's state", state.display());
        return Err(SetupError::refused(why).hint("remove it by hand, if it is what you think"));
    }
    let owner = fs::metadata(&state).ok().and_then(|meta| account::made(meta.uid()));
    remove_tree(&state, say)?;
    // A directory above that was made for it alone.
    if let Some(above) = state.parent().filter(|dir| dir.file_name() == Some("banger".as_ref())) {
        remove_empty(above, say)?;
    }
    for dir in [Places::log(), Places::etc()] {
        remove_tree(&places.at(&dir), say)?;
    }
    if let Some(owner) = owner {
        account::remove(&owner)?;
        say(Change::new(Did::Removed, format!("user {owner}")));
    }
    Ok(())
}

/// Nothing, an empty directory, or one with what the daemon makes first. A configuration with a
/// wrong line must not cost somebody a home directory.
fn is_state(dir: &Path) -> std::io::Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none() || dir.join("bangerd.lock").is_file()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

fn remove_file(path: &Path, say: &mut dyn FnMut(Change)) -> Result<(), SetupError> {
    if files::remove(path).map_err(SetupError::io("remove", path))? {
        say(Change::new(Did::Removed, path.display()));
    }
    Ok(())
}

fn remove_tree(path: &Path, say: &mut dyn FnMut(Change)) -> Result<(), SetupError> {
    match fs::remove_dir_all(path) {
        Ok(()) => say(Change::new(Did::Removed, path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(SetupError::io("remove", path)(error)),
    }
    Ok(())
}

fn remove_empty(path: &Path, say: &mut dyn FnMut(Change)) -> Result<(), SetupError> {
    match fs::remove_dir(path) {
        Ok(()) => say(Change::new(Did::Removed, path.display())),
        Err(error)
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) => {}
        Err(error) => return Err(SetupError::io("remove", path)(error)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::account::tests::somebody;
    use crate::setup::{Wish, install};

    #[test]
    fn what_was_installed_goes_and_data_goes_with_a_purge_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (root, from) = (dir.path().join("root"), dir.path().join("release"));
        fs::create_dir_all(&from).unwrap();
        fs::create_dir_all(root.join("usr/local/bin")).unwrap();
        fs::write(root.join("usr/local/bin/other"), "").unwrap();
        for (name, _) in PROGRAMS {
            fs::write(from.join(name), name).unwrap();
        }
        let wish = Wish { owner: Some(somebody()), from, ..Wish::default() };
        let record = install(&root, Systemd::Absent, &wish, &mut |_| ()).unwrap();
        let places = Places::new(&root, &record.prefix);
        let state = root.join("var/lib/banger");
        fs::write(state.join("bangerd.lock"), "").unwrap();

        remove(&places, Systemd::Absent, &mut |_| ()).unwrap();
        let left = |path: &str| fs::read_dir(root.join(path)).unwrap().count();
        assert_eq!((left("usr/local/bin"), left("usr/local/lib")), (1, 0));
        assert_eq!((left("etc/systemd/system"), left("etc/banger")), (0, 1));
        assert!(state.join("bangerd.lock").is_file());

        purge(&places, &mut |_| ()).unwrap();
        assert!(!state.exists() && !root.join("etc/banger").exists());
        remove(&places, Systemd::Absent, &mut |_| ()).unwrap();
        purge(&places, &mut |_| ()).unwrap();
    }

    #[test]
    fn a_packages_programs_are_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (root, other) = (dir.path().join("root"), dir.path().join("release"));
        let package = Places::new(&root, "/usr".as_ref());
        for (name, _) in PROGRAMS {
            for path in [package.at(&package.program(name)), other.join(name)] {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, name).unwrap();
            }
        }
        let own =
            Wish { owner: Some(somebody()), from: package.at(&package.bin()), ..Wish::default() };
        let put = |wish: &Wish| install(&root, Systemd::Absent, wish, &mut |_| ());
        let foreign = Wish { from: other, prefix: Some("/usr".into()), ..own.clone() };
        let error = put(&foreign).unwrap_err();
        assert!(error.to_string().contains("are a package's"), "{error}");
        let record = put(&own).unwrap();
        assert_eq!(record.prefix, Path::new("/usr"), "found without being told");
        let unit = fs::read_to_string(root.join("etc/systemd/system/bangerd.service")).unwrap();
        assert!(unit.contains("ExecStart=/usr/lib/banger/bangerd --config"), "{unit}");
        put(&Wish { owner: None, ..own }).unwrap();

        remove(&package, Systemd::Absent, &mut |_| ()).unwrap();
        assert!(!root.join("etc/systemd/system/bangerd.service").exists());
        for (name, _) in PROGRAMS {
            assert!(package.at(&package.program(name)).is_file(), "{name}");
        }
    }

    #[test]
    fn a_purge_does_not_believe_every_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::new(dir.path(), "/usr/local".as_ref());
        let home = dir.path().join("home/alice");
        fs::create_dir_all(&home).unwrap();
        fs::write(home.join("thesis"), "").unwrap();
        fs::create_dir_all(dir.path().join("etc/banger")).unwrap();
        let config = "state_dir = \"/home/alice\"";
        fs::write(dir.path().join("etc/banger/config.toml"), config).unwrap();
        let error = purge(&places, &mut |_| ()).unwrap_err();
        assert!(error.to_string().contains("does not look like"), "{error}");
        assert!(home.join("thesis").is_file() && dir.path().join("etc/banger").is_dir());
    }
}
