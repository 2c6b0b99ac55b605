//! A Debian root file system by mmdebstrap, streamed into the importer.
//!
//! As an ordinary user mmdebstrap works in a user namespace, which takes the setuid program
//! `newuidmap` and a range of subordinate ids for the user. The files it makes on the way belong
//! to those ids, so its work directory is not below our private state but in `/var/tmp`, and what
//! a killed mmdebstrap leaves is removed from such a namespace too.

use std::fs::{self, Permissions};
use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use nix::unistd::{User, geteuid};
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use super::apt_sources;
use super::child;
use super::draft::Draft;
use super::workdir::{self, WorkDir};
use crate::host::files::{SYSTEM_PATH, blocking};
use crate::model::Code;
use crate::ports::{HostError, ImageFile, ProgressSink};

/// What a newcomer reaches for and minbase lacks.
const INCLUDE: [&str; 5] = ["ca-certificates", "iproute2", "iputils-ping", "less", "procps"];

/// Files get no later time than this, so the same packages give the same bytes.
const EPOCH: &str = "1686355200";

/// This host's name, resolver and way to its mirror are not the guest's business, and would make
/// the image differ from host to host.
const FORGET: &str = "cd \"$1\"/etc && rm -f resolv.conf hostname apt/apt.conf.d/99mmdebstrap";

const SCRATCH: &str = "/var/tmp";

/// What to build; checked, for all of it becomes arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    suite: String,
    include: Vec<String>,
    mirror: Option<String>,
}

impl Order {
    pub(super) fn new(
        suite: &str,
        include: &[String],
        mirror: Option<&str>,
    ) -> Result<Self, HostError> {
        let refused = |what: &str, why: &str| {
            Err(HostError::new(Code::Invalid, "build image", what).because(why.to_owned()))
        };
        let plain = |text: &str, more: &str| {
            text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
                && text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !plain(suite, "-.") {
            return refused(&format!("{suite:?}"), "a suite is a word such as bookworm");
        }
        for package in include {
            if !plain(package, "+-.:") {
                return refused(&format!("{package:?}"), "this is not the name of a package");
            }
        }
        if let Some(mirror) = mirror
            && (!["http://", "https://"].iter().any(|scheme| mirror.starts_with(scheme))
                || mirror.contains(|c: char| c.is_whitespace() || c.is_control()))
        {
            return refused(&format!("{mirror:?}"), "a mirror is an http or https address");
        }
        Ok(Self {
            suite: suite.to_owned(),
            include: include.to_vec(),
            mirror: mirror.map(str::to_owned),
        })
    }

    fn arguments(&self, sources: &[String], apt: &[String]) -> Vec<String> {
        let mut include: Vec<&str> = INCLUDE.to_vec();
        include.extend(self.include.iter().map(String::as_str));
        let mut arguments = vec![
            "--variant=minbase".to_owned(),
            "--mode=auto".to_owned(),
            "--format=tar".to_owned(),
            format!("--include={}", include.join(",")),
        ];
        arguments.extend(apt.iter().map(|option| format!("--aptopt={option}")));
        arguments.push(format!("--customize-hook={FORGET}"));
        arguments.extend([self.suite.clone(), "-".to_owned()]);
        match &self.mirror {
            Some(mirror) => arguments.push(mirror.clone()),
            None => arguments.extend(sources.iter().cloned()),
        }
        arguments
    }
}

/// Builds, imports and publishes. Runs as a task of its own: when the caller drops this future,
/// `stop` is cancelled, and the task still ends mmdebstrap and cleans up.
pub(super) async fn build(
    order: Order,
    draft: Draft,
    progress: ProgressSink,
    stop: CancellationToken,
) -> Result<ImageFile, HostError> {
    let task = tokio::spawn(run(order, draft, progress, stop));
    task.await
        .unwrap_or_else(|died| Err(HostError::new(Code::Internal, "build", "image").because(died)))
}

async fn run(
    order: Order,
    mut draft: Draft,
    progress: ProgressSink,
    stop: CancellationToken,
) -> Result<ImageFile, HostError> {
    let suite = order.suite.clone();
    let (scratch, mut child, tar) = blocking("start mmdebstrap", move || start(&order)).await?;
    let stderr = child.stderr.take();
    let told = tokio::spawn(child::tell(stderr, progress, stage));
    let mut import = tokio::task::spawn_blocking(move || {
        let done = draft.tar(BufReader::with_capacity(1 << 18, tar));
        (draft, done)
    });
    // Whichever ends first decides; the end of mmdebstrap's output ends the import.
    let imported = tokio::select! {
        imported = &mut import => Some(imported),
        () = stop.cancelled() => None,
    };
    let failed_early = !matches!(&imported, Some(Ok((_, Ok(())))));
    if failed_early {
        child::terminate(&mut child).await;
    }
    let status = child.wait().await;
    let imported = match imported {
        Some(imported) => imported,
        None => import.await,
    };
    let last = told.await.unwrap_or_default();
    blocking("clean up", move || {
        remove_scratch(scratch.path());
        Ok(())
    })
    .await?;
    if stop.is_cancelled() {
        return Err(HostError::new(Code::Cancelled, "build", "image"));
    }
    let status = status.map_err(|error| HostError::io("wait for", "mmdebstrap", error))?;
    let (draft, done) =
        imported.map_err(|died| HostError::new(Code::Internal, "build", "image").because(died))?;
    match done {
        Err(error) if !is_cut_short(&error) => return Err(error),
        _ if !status.success() => return Err(story(&status.to_string(), last)),
        done => done?,
    }
    blocking("publish image", move || draft.publish(format!("mmdebstrap {suite}"))).await
}

/// What the import says when mmdebstrap failed and left it without an archive or with half of one;
/// then mmdebstrap has the better story.
fn is_cut_short(error: &HostError) -> bool {
    error.code == Code::Corrupt || crate::model::chain(error).contains("not a tar archive")
}

fn story(status: &str, last: Vec<String>) -> HostError {
    let all = last.join("\n");
    let mut error = HostError::new(Code::Host, "build image with", "mmdebstrap").because(
        last.iter().rev().find(|line| line.starts_with("E: ")).map_or_else(
            || format!("it ended with {status}"),
            |line| line.trim_start_matches("E: ").to_owned(),
        ),
    );
    if all.contains("No space left on device") {
        error.code = Code::NoSpace;
        error = error.hint(format!("make room in {SCRATCH}, where mmdebstrap works"));
    }
    for (sign, hint) in [
        ("Could not resolve", "this host cannot resolve the mirror's name"),
        ("Failed to fetch", "see whether the mirror is reachable and has this suite"),
        ("does not have a Release file", "see whether the mirror is reachable and has this suite"),
        ("Unable to locate package", "see whether the suite has the package"),
        ("unshare", "see whether ordinary users may make user namespaces on this host"),
    ] {
        if all.contains(sign) {
            error = error.hint(hint);
            break;
        }
    }
    error.with_detail(last)
}

type Started = (WorkDir, Child, io::PipeReader);

fn start(order: &Order) -> Result<Started, HostError> {
    may_build()?;
    let scratch = WorkDir::named(Path::new(SCRATCH), &prefix())?;
    // The namespace's root is another user to this directory.
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o711))
        .map_err(|error| HostError::io("open up", scratch.path().display().to_string(), error))?;
    let (tar, output) = io::pipe().map_err(|error| HostError::io("make", "a pipe", error))?;
    let sources = apt_sources::of_host(Path::new("/etc/apt"), &order.suite);
    #[allow(clippy::disallowed_methods, reason = "host/ starts the host's programs")]
    let mut command = Command::new("mmdebstrap");
    command
        .args(order.arguments(&sources, &apt_options()))
        .env_clear()
        .env("PATH", SYSTEM_PATH)
        .env("HOME", scratch.path())
        .env("LC_ALL", "C.UTF-8")
        .env("TMPDIR", scratch.path())
        .env("SOURCE_DATE_EPOCH", EPOCH)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    for name in child::PROXIES {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    let child = command.spawn().map_err(|error| {
        HostError::io("run", "mmdebstrap", error).hint("install the package mmdebstrap")
    })?;
    // Dropping the command closes our end of its output; else the archive would never end.
    drop(command);
    Ok((scratch, child, tar))
}

/// What an ordinary user needs, said before mmdebstrap says it less clearly.
fn may_build() -> Result<(), HostError> {
    if geteuid().is_root() || (child::in_path("fakeroot") && child::in_path("fakechroot")) {
        return Ok(());
    }
    let denied =
        |why: String| HostError::new(Code::Denied, "build image with", "mmdebstrap").because(why);
    if !child::in_path("newuidmap") || !child::in_path("newgidmap") {
        return Err(denied("an ordinary user needs newuidmap for it".into())
            .hint("install the package uidmap"));
    }
    let name = User::from_uid(geteuid()).ok().flatten().map(|user| user.name);
    let name = name.unwrap_or_else(|| geteuid().to_string());
    for file in ["/etc/subuid", "/etc/subgid"] {
        if !has_range(&fs::read_to_string(file).unwrap_or_default(), &name, geteuid().as_raw()) {
            return Err(denied(format!("user {name} has no subordinate ids in {file}")).hint(
                format!("as root: usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}"),
            ));
        }
    }
    Ok(())
}

/// `name:first:count`, at least as many as a system has users.
fn has_range(text: &str, name: &str, uid: u32) -> bool {
    text.lines().any(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next().unwrap_or_default();
        let count = fields.nth(1).and_then(|count| count.parse::<u64>().ok());
        (owner == name || owner == uid.to_string()) && count.is_some_and(|count| count >= 65536)
    })
}

/// How this host's apt reaches its mirrors: proxies, and leniency with their dates.
fn apt_options() -> Vec<String> {
    #[allow(clippy::disallowed_methods, reason = "host/ starts the host's programs")]
    let output = std::process::Command::new("apt-config")
        .arg("dump")
        .env("PATH", SYSTEM_PATH)
        .stdin(Stdio::null())
        .output();
    let Ok(output) = output else { return vec![] };
    let wanted = [
        "Acquire::http::Proxy",
        "Acquire::https::Proxy",
        "Acquire::Check-Valid-Until",
        "Acquire::Check-Date",
    ];
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| wanted.iter().any(|name| line.starts_with(name)))
        .map(|line| line.trim_end_matches(';').to_owned())
        .collect()
}

/// `I: running apt-get update...`, but not what is only of interest to mmdebstrap's author.
fn stage(line: &str) -> Option<String> {
    let stage = line.strip_prefix("I: ")?.trim_end_matches("...");
    let noise = [
        "automatically chosen",
        "tempdir",
        "success in",
        "done",
        "chroot architecture",
        "--customize-hook",
    ];
    (!noise.iter().any(|word| stage.contains(word))).then(|| stage.to_owned())
}

fn prefix() -> String {
    format!("banger-build-{}-", geteuid())
}

/// Removes what builds of a daemon that was killed left behind.
pub(super) fn sweep() -> u32 {
    let remove = |path: &Path| {
        remove_scratch(path);
        Ok(())
    };
    workdir::sweep(Path::new(SCRATCH), &prefix(), remove).unwrap_or(0)
}

/// Removes what is in the directory, the namespace's files too. As root a chroot may still have
/// host directories mounted in it, so with a mount below nothing is touched.
fn remove_scratch(path: &Path) {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let below = format!("{}/", path.display());
    if mounts.lines().any(|line| line.split(' ').nth(4).is_some_and(|at| at.starts_with(&below))) {
        tracing::warn!(path = %path.display(), "something is still mounted below; it stays");
        return;
    }
    if fs::remove_dir_all(path).is_ok() || !path.exists() || geteuid().is_root() {
        return;
    }
    #[allow(clippy::disallowed_methods, reason = "host/ starts the host's programs")]
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-auto", "--map-root-user", "--", "rm", "-rf", "--"])
        .arg(path)
        .env("PATH", SYSTEM_PATH)
        .stdin(Stdio::null())
        .output();
    if path.exists() {
        tracing::warn!(path = %path.display(), ?output, "leftovers of a build stay");
    }
}

#[cfg(test)]
#[path = "debian_tests.rs"]
mod tests;
