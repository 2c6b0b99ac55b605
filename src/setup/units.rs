//! The units, made from the templates in `packaging/systemd` and the configuration.
//!
//! What the helper may touch is said in its arguments, so a network or directory that is changed in
//! the configuration counts for it when the units are written again.

use std::path::{Path, PathBuf};

use super::account::Account;
use super::error::SetupError;
use super::places::Places;
use crate::config::Config;

const TEMPLATES: [(&str, &str); 3] = [
    ("banger-helper.service", include_str!("../../packaging/systemd/banger-helper.service")),
    ("bangerd.service", include_str!("../../packaging/systemd/bangerd.service")),
    ("banger-guests.service", include_str!("../../packaging/systemd/banger-guests.service")),
];

/// Beyond the limit for all VMs: what ends one that did not stop by itself takes seconds.
const STOP_SLACK_S: u64 = 30;

/// What the units are made from.
pub(super) struct Facts<'a> {
    pub(super) places: &'a Places,
    pub(super) config: &'a Config,
    pub(super) owner: &'a Account,
    pub(super) groups: &'a [String],
    pub(super) vmms: &'a [PathBuf],
    pub(super) jailer: Option<&'a Path>,
}

/// Name and text of each.
pub(super) fn render(facts: &Facts<'_>) -> Result<Vec<(&'static str, String)>, SetupError> {
    let Facts { places, config, owner, groups, .. } = facts;
    let helper_dir = config.helper_socket.parent().unwrap_or_else(|| Path::new("/"));
    let groups = match groups {
        [] => String::new(),
        groups => format!("SupplementaryGroups={}", groups.join(" ")),
    };
    let limit = config.shutdown_limit.as_secs();
    let values = [
        ("@BIN@", plain(&places.bin())?),
        ("@LIB@", plain(&places.lib())?),
        ("@CONFIG@", plain(&Places::config())?),
        ("@STATE@", plain(&config.state_dir)?),
        ("@SOCKET@", plain(&config.socket)?),
        ("@RUN_NAME@", below_run("run_dir", &config.run_dir)?),
        ("@HELPER_RUN@", below_run("helper_socket's directory", helper_dir)?),
        ("@HELPER_ARGS@", helper_args(facts, helper_dir)?),
        ("@OWNER@", owner.name.clone()),
        ("@GROUPS@", groups),
        ("@LIMIT@", format!("{limit}s")),
        ("@STOP_LIMIT@", format!("{}s", limit + STOP_SLACK_S)),
    ];
    let fill = |template: &str| {
        values.iter().fold(template.to_owned(), |text, (mark, value)| text.replace(mark, value))
    };
    Ok(TEMPLATES.iter().map(|(name, template)| (*name, fill(template))).collect())
}

fn helper_args(facts: &Facts<'_>, run_dir: &Path) -> Result<String, SetupError> {
    let Facts { config, owner, vmms, jailer, .. } = facts;
    let network = &config.network;
    let mut args = vec![
        format!("--owner {}", owner.uid),
        format!("--socket {}", plain(&config.helper_socket)?),
        format!("--run-dir {}", plain(run_dir)?),
        format!("--state-dir {}", plain(&config.state_dir)?),
        format!("--vm-run-dir {}", plain(&config.run_dir)?),
        format!("--bridge {}", network.bridge),
        format!("--tap-prefix {}", network.tap_prefix),
        format!("--subnet {}", network.subnet),
    ];
    for vmm in *vmms {
        args.push(format!("--vmm {}", plain(vmm)?));
    }
    if let Some(jailer) = jailer {
        args.push(format!("--jailer {}", plain(jailer)?));
    }
    Ok(args.join(" \\\n    "))
}

/// A path that means in a unit what it says: systemd splits at blanks and knows `%`, `$` and quotes.
fn plain(path: &Path) -> Result<String, SetupError> {
    let text = path.to_string_lossy();
    let known = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    match path.is_absolute() && text.chars().all(known) {
        true => Ok(text.into_owned()),
        false => Err(SetupError::refused(format!("{text:?} cannot be written in a unit"))
            .hint("use absolute paths of letters, digits and / . _ - +")),
    }
}

/// systemd makes and keeps these directories, and only below `/run`.
fn below_run(what: &str, path: &Path) -> Result<String, SetupError> {
    let text = plain(path)?;
    match text.strip_prefix("/run/").filter(|name| !name.is_empty()) {
        Some(name) => Ok(name.to_owned()),
        None => Err(SetupError::refused(format!("{what} {text} is not below /run"))
            .hint("an installed banger has its sockets below /run: change the configuration")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostFacts, Overrides};

    fn rendered(
        config: &str,
        groups: &[String],
    ) -> Result<Vec<(&'static str, String)>, SetupError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, config).unwrap();
        let host = HostFacts { cpus: 1, memory_mib: 1024 };
        let config = Config::load(Some(&path), Overrides::default(), host).unwrap();
        render(&Facts {
            places: &Places::new("/".as_ref(), "/usr/local".as_ref()),
            config: &config,
            owner: &Account { name: "alice".into(), uid: 1000, gid: 1000 },
            groups,
            vmms: &["/usr/bin/qemu-system-x86_64".into(), "/usr/bin/firecracker".into()],
            jailer: Some("/usr/bin/jailer".as_ref()),
        })
    }

    #[test]
    fn units_say_what_the_configuration_says() {
        let config = "shutdown_limit = \"60s\"\n[network]\ncidr = \"10.9.0.0/24\"";
        let units = rendered(config, &["kvm".into()]).unwrap();
        let [(_, helper), (_, daemon), (_, guests)] = units.as_slice() else { panic!("three") };
        for words in ["--owner 1000", "--subnet 10.9.0.0/24", "--vmm /usr/bin/firecracker"] {
            assert!(helper.contains(words), "{words}\n{helper}");
        }
        assert!(helper.contains("--jailer /usr/bin/jailer\n"), "{helper}");
        assert!(daemon.contains("\nUser=alice\nSupplementaryGroups=kvm\n"), "{daemon}");
        assert!(daemon.contains("ReadWritePaths=/var/lib/banger "), "{daemon}");
        assert!(guests.contains("stop-guests --limit 60s\n"), "{guests}");
        assert!(guests.contains("TimeoutStopSec=90s"), "{guests}");
        let is_mark = |part: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_uppercase() || c == '_')
        };
        for (name, text) in &units {
            assert!(!text.split('@').any(is_mark), "{name} is not filled in:\n{text}");
        }
        let units = rendered("", &[]).unwrap();
        assert!(!units.iter().any(|(_, text)| text.contains("SupplementaryGroups")));
    }

    /// VMs outlive both, whatever systemd is told about the units.
    #[test]
    fn neither_units_end_is_a_vms() {
        for (name, text) in rendered("", &[]).unwrap().iter().take(2) {
            for line in ["KillMode=process", "RuntimeDirectoryPreserve=yes", "Type=notify"] {
                assert!(text.lines().any(|found| found == line), "{name} lacks {line}");
            }
        }
    }

    #[test]
    fn what_a_unit_cannot_say_is_refused() {
        for config in ["state_dir = \"/var/lib/my vms\"", "run_dir = \"/var/run-banger\""] {
            assert!(rendered(config, &[]).unwrap_err().way_out().is_some(), "{config}");
        }
    }
}
