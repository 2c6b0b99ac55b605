//! The command line, and what of it is refused before anything is done.

use std::path::{Component, Path, PathBuf};

#[derive(Debug)]
pub(crate) struct Jail {
    pub(crate) id: String,
    /// Canonical, as the base is.
    pub(crate) exec: PathBuf,
    pub(crate) base: PathBuf,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Of version 2; without a value for any file the process itself moves there.
    pub(crate) parent_cgroup: Option<PathBuf>,
    /// For the program in the jail.
    pub(crate) rest: Vec<String>,
}

impl Jail {
    pub(crate) fn parse(args: &[String]) -> Result<Self, String> {
        let (mut id, mut exec, mut uid, mut gid) = (None, None, None, None);
        let mut base = "/srv/jailer".to_owned();
        let (mut version, mut parent_cgroup) = ("1".to_owned(), None);
        let mut args = args.iter();
        let mut rest = vec![];
        while let Some(arg) = args.next() {
            if arg == "--" {
                rest = args.by_ref().cloned().collect();
                break;
            }
            let name = arg.strip_prefix("--").unwrap_or(arg);
            let unknown = || format!("Failed to parse arguments: Found argument '{name}'");
            if !KNOWN.contains(&name) {
                return Err(unknown());
            }
            let value = args.next().cloned().ok_or_else(|| {
                format!("Failed to parse arguments: The argument '{name}' requires a value.")
            })?;
            match name {
                "id" => id = Some(value),
                "exec-file" => exec = Some(value),
                "uid" => uid = Some(value),
                "gid" => gid = Some(value),
                "chroot-base-dir" => base = value,
                "cgroup-version" => version = value,
                "parent-cgroup" => parent_cgroup = Some(value),
                "resource-limit" => check_limit(&value)?,
                _ => return Err(unknown()),
            }
        }
        let needed = |name: &str, value: Option<String>| {
            let missing =
                format!("Failed to parse arguments: Argument '{name}' required, but not found.");
            value.ok_or(missing)
        };
        let exec = canonical(&needed("exec-file", exec)?)?;
        let id = needed("id", id)?;
        let base = canonical(&base)?;
        if let Some((at, c)) =
            id.char_indices().find(|(_, c)| !c.is_ascii_alphanumeric() && *c != '-')
        {
            return Err(format!("Invalid instance ID: Invalid char ({c}) at position {at}"));
        }
        if id.is_empty() || id.len() > 64 {
            return Err(format!("Invalid instance ID: Invalid len ({})", id.len()));
        }
        let number = |what: &str, value: String| {
            value.parse().map_err(|_| format!("Invalid {what}: {value}"))
        };
        if !matches!(version.as_str(), "1" | "2") {
            return Err(format!("{version} is an invalid cgroup version specifier"));
        }
        let parent_cgroup = parent_cgroup.map(PathBuf::from);
        let plain =
            |path: &Path| path.components().all(|part| matches!(part, Component::Normal(_)));
        if parent_cgroup.as_deref().is_some_and(|path| !plain(path)) {
            return Err("Parent cgroup path is invalid. Path should not be absolute or contain \
                        '..' or '.'"
                .into());
        }
        Ok(Self {
            uid: number("uid", needed("uid", uid)?)?,
            gid: number("gid", needed("gid", gid)?)?,
            parent_cgroup: parent_cgroup.filter(|_| version == "2"),
            id,
            exec,
            base,
            rest,
        })
    }
}

const KNOWN: [&str; 8] = [
    "id",
    "exec-file",
    "uid",
    "gid",
    "chroot-base-dir",
    "cgroup-version",
    "parent-cgroup",
    "resource-limit",
];

fn canonical(path: &str) -> Result<PathBuf, String> {
    let found = Path::new(path).canonicalize();
    found.map_err(|error| format!("Failed to canonicalize path {path}: {error}"))
}

fn check_limit(limit: &str) -> Result<(), String> {
    let (resource, value) = limit
        .split_once('=')
        .ok_or_else(|| format!("Invalid format for resources limits: {limit}"))?;
    if !matches!(resource, "fsize" | "no-file") {
        return Err(format!("Invalid resource argument: {resource}"));
    }
    match value.parse::<u64>() {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("Invalid limit value for resource: {value}: {error}")),
    }
}
