//! How an installation does, as the host tells it. Changes nothing.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};
use serde::Serialize;

use super::error::SetupError;
use super::install::configuration;
use super::places::{PROGRAMS, Places};
use super::record::Record;
use super::systemd::{Systemd, UNITS, run};

/// What there is, and where to ask for more.
#[derive(Clone, Debug, Serialize)]
pub struct Installed {
    pub version: String,
    pub owner: String,
    pub prefix: PathBuf,
    pub state_dir: PathBuf,
    pub units: Vec<Unit>,
    pub programs: Vec<Program>,
    pub sockets: Vec<Socket>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Unit {
    pub name: String,
    /// `active`, `failed`, `activating`, …; empty where there is no systemd.
    pub state: String,
    pub enabled: bool,
    pub pid: Option<u32>,
    /// How often it was started again by itself.
    pub restarts: u32,
    /// What it says of itself.
    pub status: String,
    /// Whether it runs a program that was replaced since; it needs a restart.
    pub outdated: bool,
}

#[derive(Clone, Debug, Serialize)]
pub struct Program {
    pub path: PathBuf,
    /// None: it is missing, or does not run.
    pub version: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub struct Socket {
    pub path: PathBuf,
    /// None: it is not there.
    pub owner: Option<String>,
    /// Octal.
    pub mode: Option<String>,
    /// Whether it is the owner's alone.
    pub private: bool,
}

/// The record and its places; a hint where there is none.
pub fn installed(root: &Path) -> Result<(Places, Record), SetupError> {
    let any = Places::new(root, Path::new(super::places::DEFAULT_PREFIX));
    let record = Record::read(&any)?.ok_or_else(|| {
        SetupError::refused("banger is not installed on this host")
            .hint("as root: banger system install --owner USER")
    })?;
    Ok((Places::new(root, &record.prefix), record))
}

pub fn look(places: &Places, record: &Record, systemd: Systemd) -> Result<Installed, SetupError> {
    let config = configuration(places)?;
    let units = UNITS.iter().map(|name| unit(name, systemd)).collect::<Result<_, _>>()?;
    let programs = PROGRAMS.iter().map(|(name, _)| program(places, name)).collect();
    let sockets = [&config.socket, &config.helper_socket].map(|path| socket(path, &record.owner));
    Ok(Installed {
        version: record.version.clone(),
        owner: record.owner.clone(),
        prefix: record.prefix.clone(),
        state_dir: config.state_dir,
        units,
        programs,
        sockets: sockets.to_vec(),
    })
}

/// The daemon's and the helper's.
pub fn sockets(places: &Places) -> Result<(PathBuf, PathBuf), SetupError> {
    let config = configuration(places)?;
    Ok((config.socket, config.helper_socket))
}

/// How many processes of VMs there are, for when nobody else can say.
pub fn left_running(record: &Record) -> Result<usize, SetupError> {
    let Some(owner) = super::account::find(&record.owner)? else { return Ok(0) };
    let dir = PathBuf::from(format!("/sys/fs/cgroup/banger-{}", owner.uid));
    let groups = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let processes = groups.map(|group| fs::read_to_string(group.path().join("cgroup.procs")));
    Ok(processes.map(|text| text.unwrap_or_default().lines().count()).sum())
}

pub fn unit(name: &str, systemd: Systemd) -> Result<Unit, SetupError> {
    let mut shown = systemd.show(name)?;
    let mut take = |key: &str| shown.remove(key).unwrap_or_default();
    let pid = take("MainPID").parse().ok().filter(|pid| *pid != 0);
    Ok(Unit {
        name: name.to_owned(),
        state: take("ActiveState"),
        enabled: take("UnitFileState") == "enabled",
        pid,
        restarts: take("NRestarts").parse().unwrap_or(0),
        status: take("StatusText"),
        outdated: pid.is_some_and(is_outdated),
    })
}

/// The kernel says so of a program whose file has another's in its place.
fn is_outdated(pid: u32) -> bool {
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    exe.to_string_lossy().ends_with(" (deleted)")
}

/// The agent runs in guests, not here.
fn program(places: &Places, name: &str) -> Program {
    let path = places.at(&places.program(name));
    let said = match name {
        "banger-agent" => path.is_file().then(String::new),
        _ => run(&path.display().to_string(), &["--version"]).ok(),
    };
    let version = said.map(|said| match said.split_whitespace().nth(1) {
        Some(version) => version.to_owned(),
        None => "present".to_owned(),
    });
    Program { path, version }
}

fn socket(path: &Path, owner: &str) -> Socket {
    let meta = fs::symlink_metadata(path).ok().filter(|meta| meta.file_type().is_socket());
    let name = |uid: u32| match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    };
    let whose = meta.as_ref().map(|meta| name(meta.uid()));
    let mode = meta.as_ref().map(|meta| meta.mode() & 0o7777);
    Socket {
        path: path.to_owned(),
        private: whose.as_deref() == Some(owner) && mode == Some(0o600),
        owner: whose,
        mode: mode.map(|mode| format!("{mode:04o}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_of_others_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        assert!(!socket(&path, "x").private);
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let me = User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
        let mode = |mode| {
            let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
            fs::set_permissions(&path, permissions).unwrap();
            socket(&path, &me)
        };
        assert!(mode(0o600).private);
        let open = mode(0o666);
        assert_eq!((open.private, open.mode.as_deref()), (false, Some("0666")));
        assert!(!socket(&path, "somebody-else").private);
    }

    #[test]
    fn nothing_installed_is_said_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let error = installed(dir.path()).unwrap_err();
        assert!(error.way_out().is_some_and(|hint| hint.contains("system install")));
    }
}
