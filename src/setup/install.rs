//! Puts everything in its place, or says what it would do. Done again, it does nothing.

use std::path::{Path, PathBuf};

use super::account::{self, Account};
use super::error::SetupError;
use super::files::{Change, Did, Item, apply};
use super::look::unit;
use super::places::{DEFAULT_PREFIX, PROGRAMS, Places};
use super::record::Record;
use super::systemd::{Systemd, UNITS};
use super::units::{self, Facts};
use crate::config::{Config, HostFacts, Overrides};

const CONFIG: &str = include_str!("../../packaging/config.toml");
const QEMU: &str = "qemu-system-x86_64";
/// Where programs of the system lie, beside those in PATH.
const USUAL: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/usr/sbin"];

/// What was asked for; what is not said stays as it was installed, or is found.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    pub owner: Option<String>,
    pub prefix: Option<PathBuf>,
    /// Programs that the helper may start.
    pub vmm: Vec<PathBuf>,
    pub jailer: Option<PathBuf>,
    /// Where the programs are taken from: the directory of one of them.
    pub from: PathBuf,
    pub dry: bool,
}

/// Tells `say` of every step as it is done. The units run afterwards, unless it was a dry run or
/// there is no systemd; whether the daemon answers is for the caller to see.
pub fn install(
    root: &Path,
    systemd: Systemd,
    wish: &Wish,
    say: &mut dyn FnMut(Change),
) -> Result<Record, SetupError> {
    let known = Record::read(&Places::new(root, Path::new(DEFAULT_PREFIX)))?;
    let of_package = Places::of_package(root, &wish.from);
    let prefix = wish.prefix.clone().or(of_package);
    let record = settle(&Wish { prefix, ..wish.clone() }, known.as_ref())?;
    let places = Places::new(root, &record.prefix);
    let config = configuration(&places)?;
    let programs = programs(&wish.from, &places)?;
    // What units cannot say is refused before anything is made.
    unit_items(&places, &config, &Account::unknown(&record.owner), &record)?;
    let (owner, made) = owner(&record.owner, &config, wish.dry)?;
    if made {
        say(Change::new(Did::Made, format!("user {}", owner.name)));
    }
    let mut changed = false;
    for item in directories(&places, &config, &owner)
        .into_iter()
        .chain([Item::FirstFile { path: places.at(&Places::config()), text: CONFIG.to_owned() }])
    {
        say(apply(&item, wish.dry)?);
    }
    for item in programs.into_iter().chain(unit_items(&places, &config, &owner, &record)?) {
        let change = apply(&item, wish.dry)?;
        changed |= change.did != Did::Kept;
        say(change);
    }
    // Last: what is recorded is all there.
    let path = places.at(&Places::record());
    say(apply(&Item::File { path, text: record.text()? }, wish.dry)?);
    start(systemd, changed, wish.dry, say)?;
    Ok(record)
}

fn settle(wish: &Wish, known: Option<&Record>) -> Result<Record, SetupError> {
    let owner = match (&wish.owner, known) {
        (Some(owner), Some(known)) if *owner != known.owner => {
            let why = format!("banger is installed for {}, not {owner}", known.owner);
            return Err(SetupError::refused(why).hint("first: banger system uninstall"));
        }
        (Some(owner), _) => owner.clone(),
        (None, Some(known)) => known.owner.clone(),
        (None, None) => {
            return Err(SetupError::refused("whose VMs will they be? --owner is missing")
                .hint("banger system install --owner USER"));
        }
    };
    let prefix = match (&wish.prefix, known) {
        (Some(prefix), Some(known)) if *prefix != known.prefix => {
            let why = format!("banger is installed in {}", known.prefix.display());
            return Err(SetupError::refused(why)
                .hint("first: banger system uninstall, which keeps the VMs"));
        }
        (Some(prefix), _) => prefix.clone(),
        (None, Some(known)) => known.prefix.clone(),
        (None, None) => PathBuf::from(DEFAULT_PREFIX),
    };
    let vmm = match (wish.vmm.as_slice(), known) {
        ([], Some(known)) => known.vmm.clone(),
        (given, _) => given.to_vec(),
    };
    let jailer = wish.jailer.clone().or_else(|| known?.jailer.clone());
    let version = env!("CARGO_PKG_VERSION").to_owned();
    Ok(Record { version, owner, prefix, vmm, jailer })
}

/// As the daemon will read it.
pub(super) fn configuration(places: &Places) -> Result<Config, SetupError> {
    let path = places.at(&Places::config());
    let path = path.exists().then_some(path);
    // Only directories and the network are looked at, which no fact of the host decides.
    let host = HostFacts { cpus: 1, memory_mib: 1024 };
    Config::load(path.as_deref(), Overrides::default(), host).map_err(|error| {
        SetupError::refused(crate::model::chain(&error)).hint("correct it, then try again")
    })
}

/// From beside `from`, or from where they are installed when that is the installed `banger`.
pub(super) fn programs(from: &Path, places: &Places) -> Result<Vec<Item>, SetupError> {
    if places.packaged() && places.at(&places.bin()) != from {
        let why = format!("the programs in {} are a package's", places.prefix().display());
        return Err(SetupError::refused(why)
            .hint("install its new version, or choose a place of your own: --prefix /usr/local"));
    }
    let find = |name: &str| -> Result<Item, SetupError> {
        let beside = [from.join(name), from.join("../lib/banger").join(name)];
        let found = beside.into_iter().find(|path| path.is_file());
        let from = found.ok_or_else(|| {
            SetupError::refused(format!("{name} is not in {}", from.display()))
                .hint("put all four programs into one directory, or name it with --from")
        })?;
        Ok(Item::Program { from, path: places.at(&places.program(name)) })
    };
    PROGRAMS.iter().map(|(name, _)| find(name)).collect()
}

fn owner(name: &str, config: &Config, dry: bool) -> Result<(Account, bool), SetupError> {
    let ordinary = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.starts_with('-') || !name.chars().all(ordinary) {
        return Err(SetupError::refused(format!("{name:?} is no user's name")));
    }
    if let Some(account) = account::find(name)? {
        return Ok((account, false));
    }
    if dry {
        return Ok((Account::unknown(name), true));
    }
    account::make(name, &config.state_dir.display().to_string()).map(|account| (account, true))
}

fn directories(places: &Places, config: &Config, owner: &Account) -> Vec<Item> {
    let dir = |path: &Path, mode, owner| Item::Dir { path: places.at(path), mode, owner };
    vec![
        dir(&places.bin(), 0o755, None),
        dir(&places.lib(), 0o755, None),
        dir(&Places::etc(), 0o755, None),
        dir(&Places::log(), 0o711, None),
        dir(&Places::units(), 0o755, None),
        dir(&config.state_dir, 0o700, Some((owner.uid, owner.gid))),
    ]
}

pub(super) fn unit_items(
    places: &Places,
    config: &Config,
    owner: &Account,
    record: &Record,
) -> Result<Vec<Item>, SetupError> {
    let vmms = match record.vmm.as_slice() {
        [] => known_vmms(config),
        given => given.to_vec(),
    };
    let jailer = record.jailer.clone().or_else(|| in_path("jailer"));
    let facts = Facts {
        places,
        config,
        owner,
        groups: &account::groups(),
        vmms: &vmms,
        jailer: jailer.as_deref(),
    };
    let units = units::render(&facts)?.into_iter();
    Ok(units
        .map(|(name, text)| Item::File { path: places.at(&Places::unit(name)), text })
        .collect())
}

/// What the configuration names, else what is there. A helper that may start nothing does not
/// start; one whose VMM is missing says so when it is needed.
fn known_vmms(config: &Config) -> Vec<PathBuf> {
    let either = |given: &Option<PathBuf>, name| given.clone().or_else(|| in_path(name));
    let found = [either(&config.qemu_bin, QEMU), either(&config.firecracker_bin, "firecracker")];
    let found: Vec<_> = found.into_iter().flatten().collect();
    if found.is_empty() { vec![Path::new("/usr/bin").join(QEMU)] } else { found }
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(USUAL.map(PathBuf::from));
    dirs.map(|dir| dir.join(name)).find(|file| file.is_absolute() && file.is_file())
}

/// Puts the units into force. What runs already goes on unless something changed.
fn start(
    systemd: Systemd,
    changed: bool,
    dry: bool,
    say: &mut dyn FnMut(Change),
) -> Result<(), SetupError> {
    if systemd == Systemd::Absent {
        return Ok(());
    }
    if changed && !dry {
        systemd.call(&["daemon-reload"])?;
    }
    for unit in UNITS {
        let shown = super::look::unit(unit, systemd)?;
        let active = shown.state == "active";
        // Whoever called may have replaced the programs; the guests' unit runs one only at its stop.
        let stale = (changed || shown.outdated) && unit != "banger-guests.service";
        let did = match (active, stale) {
            (true, true) => Did::Restarted,
            (true, false) => Did::Kept,
            (false, _) => Did::Started,
        };
        if !dry {
            if !shown.enabled {
                systemd.call(&["enable", "--quiet", unit])?;
            }
            match did {
                Did::Restarted => systemd.call(&["restart", unit])?,
                Did::Started => systemd.call(&["start", unit])?,
                _ => {}
            }
        }
        say(Change::new(did, unit));
    }
    Ok(())
}

/// Writes the units again, as the configuration is now, and restarts what runs by them.
pub fn restart(
    places: &Places,
    record: &Record,
    systemd: Systemd,
    say: &mut dyn FnMut(Change),
) -> Result<Vec<u32>, SetupError> {
    let config = configuration(places)?;
    let owner = account::find(&record.owner)?.ok_or_else(|| {
        SetupError::refused(format!("the owner {} does not exist any more", record.owner))
    })?;
    for item in unit_items(places, &config, &owner, record)? {
        say(apply(&item, false)?);
    }
    restart_units(systemd)
}

/// Has the daemon and the helper restarted, and does not wait for it: they may hang. Answers who ran
/// before.
pub fn restart_units(systemd: Systemd) -> Result<Vec<u32>, SetupError> {
    let [helper, daemon, _] = UNITS;
    let mut before = vec![];
    for name in [helper, daemon] {
        before.extend(unit(name, systemd)?.pid);
    }
    systemd.call(&["daemon-reload"])?;
    systemd.call(&["restart", "--no-block", helper, daemon])?;
    Ok(before)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::account::tests::somebody;

    fn release(dir: &Path) -> PathBuf {
        let from = dir.join("release");
        std::fs::create_dir_all(&from).unwrap();
        for (name, _) in PROGRAMS {
            std::fs::write(from.join(name), name).unwrap();
        }
        from
    }

    fn put(root: &Path, wish: &Wish) -> Result<Vec<Change>, SetupError> {
        let mut changes = vec![];
        install(root, Systemd::Absent, wish, &mut |change| changes.push(change))?;
        Ok(changes)
    }

    #[test]
    fn an_installation_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let from = release(dir.path());
        let wish = Wish { owner: Some(somebody()), from, ..Wish::default() };
        let first = put(&root, &Wish { dry: true, ..wish.clone() }).unwrap();
        assert!(first.iter().all(|change| change.did == Did::Made), "{first:?}");
        assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "a dry run touches nothing");

        assert_eq!(put(&root, &wish).unwrap(), first);
        let again = put(&root, &wish).unwrap();
        assert!(again.iter().all(|change| change.did == Did::Kept), "{again:?}");

        let daemon = root.join("usr/local/lib/banger/bangerd");
        assert_eq!(std::fs::read_to_string(daemon).unwrap(), "bangerd");
        let unit = std::fs::read_to_string(root.join("etc/systemd/system/bangerd.service"));
        assert!(unit.unwrap().contains("ExecStart=/usr/local/lib/banger/bangerd --config"));

        // From its own place, and with what was said before.
        let own = Wish { from: root.join("usr/local/bin"), ..Wish::default() };
        let again = put(&root, &own).unwrap();
        assert!(again.iter().all(|change| change.did == Did::Kept), "{again:?}");
        let changed = "[network]\ncidr = \"10.8.0.0/24\"\n";
        std::fs::write(root.join("etc/banger/config.toml"), changed).unwrap();
        let again = put(&root, &own).unwrap();
        let replaced: Vec<_> = again.iter().filter(|one| one.did != Did::Kept).collect();
        assert_eq!(replaced.len(), 1, "{again:?}");
        assert!(replaced[0].what.ends_with("banger-helper.service"), "{replaced:?}");
    }

    #[test]
    fn what_cannot_be_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir(&root).unwrap();
        let from = release(dir.path());
        let wish = Wish { owner: Some(somebody()), from: from.clone(), ..Wish::default() };
        let refused = |wish: &Wish, why: &str| {
            let error = put(&root, wish).unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(std::fs::read_dir(&root).unwrap().count(), 0, "{why}");
        };
        refused(&Wish { owner: None, ..wish.clone() }, "--owner is missing");
        refused(&Wish { owner: Some("root".into()), ..wish.clone() }, "must not be root");
        refused(&Wish { owner: Some("a b".into()), ..wish.clone() }, "no user's name");
        refused(&Wish { from: dir.path().into(), ..wish.clone() }, "is not in");

        put(&root, &wish).unwrap();
        let other = Wish { owner: Some("games".into()), ..wish };
        assert!(put(&root, &other).unwrap_err().to_string().contains("installed for "));
    }
}
