//! The command line. All options of the real one are known; most of them say nothing here.

use std::path::PathBuf;

#[derive(Debug)]
pub(crate) enum Asked {
    Run(Run),
    Version,
    SnapshotVersion,
}

#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) id: String,
    pub(crate) api_sock: PathBuf,
    pub(crate) metrics: Option<PathBuf>,
}

const SWITCHES: [&str; 6] =
    ["show-level", "show-log-origin", "no-seccomp", "no-api", "enable-pci", "boot-timer"];
const OPTIONS: [&str; 11] = [
    "log-path",
    "level",
    "module",
    "seccomp-filter",
    "config-file",
    "http-api-max-payload-size",
    "mmds-size-limit",
    "metadata",
    "start-time-us",
    "start-time-cpu-us",
    "parent-cpu-time-us",
];

pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Asked, String> {
    let mut run = Run {
        id: "anonymous-instance".to_owned(),
        api_sock: "/run/firecracker.socket".into(),
        metrics: None,
    };
    while let Some(arg) = args.next() {
        let name = arg.strip_prefix("--").unwrap_or(&arg).to_owned();
        let mut value = || {
            let missing = format!(
                "The argument '{name}' requires a value, but none was supplied. \
                 \n\nFor more information try --help."
            );
            args.next().ok_or(missing)
        };
        match name.as_str() {
            "version" => return Ok(Asked::Version),
            "snapshot-version" => return Ok(Asked::SnapshotVersion),
            "id" => run.id = value()?,
            "api-sock" => run.api_sock = value()?.into(),
            "metrics-path" => run.metrics = Some(value()?.into()),
            other if SWITCHES.contains(&other) => {}
            other if OPTIONS.contains(&other) => drop(value()?),
            other => {
                return Err(format!(
                    "Found argument '{other}' which wasn't expected, or isn't valid in this \
                     context. \n\nFor more information try --help."
                ));
            }
        }
    }
    Ok(Asked::Run(run))
}
