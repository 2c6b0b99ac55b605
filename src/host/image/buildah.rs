//! An image of a Containerfile, built by buildah as the daemon's own user and taken in as an OCI archive.
//!
//! buildah's storage is that of its user, as if he had called it: layers that a build made serve the next
//! one, and `buildah prune` is his. What is ours is the work directory, which goes with the build. What must
//! not be done here: read the context or the file; both are buildah's to judge.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::child;
use super::workdir::WorkDir;
use crate::host::files::{SYSTEM_PATH, blocking};
use crate::model::Code;
use crate::ports::{Containerfile, HostError, ProgressSink};

const PROGRAM: &str = "buildah";
/// Programs that run containers; without one buildah still can, in a chroot.
const RUNTIMES: [&str; 3] = ["crun", "runc", "kata-runtime"];

/// Answers the archive, which is in `work`. When the caller drops this future, `stop` is cancelled, and the
/// task still ends buildah, and only then lets go of `work`.
pub(super) async fn build(
    order: Containerfile,
    work: WorkDir,
    progress: ProgressSink,
    stop: CancellationToken,
) -> Result<(WorkDir, PathBuf), HostError> {
    let named = order.context.display().to_string();
    let task = tokio::spawn(run(order, work, progress, stop));
    task.await.unwrap_or_else(|died| Err(failed(Code::Internal, &named).because(died)))
}

async fn run(
    order: Containerfile,
    work: WorkDir,
    progress: ProgressSink,
    stop: CancellationToken,
) -> Result<(WorkDir, PathBuf), HostError> {
    let (id, archive) = (work.file("id"), work.file("image.tar"));
    let buildah = Buildah { context: &order.context, scratch: &work, progress, stop };
    buildah.call(&build_arguments(&order, &id)).await?;
    let read = {
        let id = id.clone();
        move || {
            let named = id.display().to_string();
            std::fs::read_to_string(&id).map_err(|error| HostError::io("read", named, error))
        }
    };
    let built = blocking("read what was built", read).await?;
    let to = format!("oci-archive:{}", archive.display());
    let push = ["push", "--quiet", built.trim(), &to].map(str::to_owned);
    buildah.call(&push).await?;
    Ok((work, archive))
}

fn build_arguments(order: &Containerfile, id: &Path) -> Vec<String> {
    let isolation = if RUNTIMES.into_iter().any(child::in_path) { "rootless" } else { "chroot" };
    let mut arguments = vec![
        "build".to_owned(),
        "--layers".to_owned(),
        "--format=oci".to_owned(),
        format!("--isolation={isolation}"),
        format!("--iidfile={}", id.display()),
    ];
    arguments.extend(order.file.iter().map(|file| format!("--file={}", file.display())));
    arguments.extend(order.target.iter().map(|target| format!("--target={target}")));
    arguments.extend(order.arguments.iter().map(|argument| format!("--build-arg={argument}")));
    arguments.extend(["--".to_owned(), order.context.display().to_string()]);
    arguments
}

struct Buildah<'a> {
    /// Of errors.
    context: &'a Path,
    scratch: &'a WorkDir,
    progress: ProgressSink,
    stop: CancellationToken,
}

impl Buildah<'_> {
    /// To a good end, or an error that says how it ended.
    async fn call(&self, arguments: &[String]) -> Result<(), HostError> {
        let named = self.context.display().to_string();
        #[allow(clippy::disallowed_methods, reason = "host/ starts the host's programs")]
        let mut command = Command::new(PROGRAM);
        // HOME is where the user's storage is, and what he is known by to registries.
        command
            .args(arguments)
            .env("PATH", SYSTEM_PATH)
            .env("LC_ALL", "C.UTF-8")
            .env("TMPDIR", self.scratch.path())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        // A service has no directory of its user's session; without one buildah would make some in /tmp.
        if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
            command.env("XDG_RUNTIME_DIR", self.scratch.path());
        }
        let mut child = command.spawn().map_err(|error| {
            HostError::io("run", PROGRAM, error).hint(
                "install the package buildah, or build elsewhere and `banger image import` it",
            )
        })?;
        // Steps are told on its output, what is wrong beside it.
        let quiet: ProgressSink = Arc::new(|_| {});
        let steps = tokio::spawn(child::tell(child.stdout.take(), self.progress.clone(), stage));
        let told = tokio::spawn(child::tell(child.stderr.take(), quiet, |_| None));
        let status = tokio::select! {
            status = child.wait() => Some(status),
            () = self.stop.cancelled() => None,
        };
        let Some(status) = status else {
            child::terminate(&mut child).await;
            // Whoever is killed leaves no zombie.
            drop(child.wait().await);
            return Err(failed(Code::Cancelled, &named));
        };
        let status = status.map_err(|error| HostError::io("wait for", PROGRAM, error))?;
        let last = told.await.unwrap_or_default();
        steps.await.unwrap_or_default();
        if status.success() { Ok(()) } else { Err(story(status, &named, last)) }
    }
}

fn failed(code: Code, context: &str) -> HostError {
    HostError::new(code, "build image of", context)
}

fn story(status: ExitStatus, context: &str, last: Vec<String>) -> HostError {
    let said = last.iter().rev().find_map(|line| line.strip_prefix("Error: "));
    let why = match (said, status.signal()) {
        (Some(said), _) => said.to_owned(),
        (None, Some(signal)) => format!("{PROGRAM} was ended by signal {signal}"),
        (None, None) => format!("{PROGRAM} ended with {status}"),
    };
    let all = last.join("\n");
    let mut error = failed(Code::Host, context).because(why);
    if all.contains("no space left on device") {
        error.code = Code::NoSpace;
    }
    for (sign, hint) in [
        ("no such file or directory", "name the file with --file; paths in it are the context's"),
        ("newuidmap", "an ordinary user needs the package uidmap, and a range in /etc/subuid"),
        ("no subuid ranges", "give the daemon's user a range in /etc/subuid and /etc/subgid"),
        ("unauthorized", "log in as the daemon's user: buildah login REGISTRY"),
    ] {
        if all.contains(sign) {
            error = error.hint(hint);
            break;
        }
    }
    error.with_detail(last)
}

/// `STEP 2/7: COPY root /`, of several stages `[1/2] STEP 2/7: COPY root /`.
fn stage(line: &str) -> Option<String> {
    let step = line.strip_prefix('[').and_then(|rest| rest.split_once("] "));
    let step = step.map_or(line, |(_, step)| step);
    let worth = step.starts_with("STEP ") || line.starts_with("Trying to pull");
    worth.then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_said_becomes_an_option() {
        let order = Containerfile {
            context: "/srv/--help".into(),
            file: Some("/srv/-f".into()),
            target: Some("--stage".to_owned()),
            arguments: vec!["--A=b c".to_owned()],
        };
        let arguments = build_arguments(&order, Path::new("/tmp/id"));
        assert_eq!(
            arguments[4..],
            [
                "--iidfile=/tmp/id",
                "--file=/srv/-f",
                "--target=--stage",
                "--build-arg=--A=b c",
                "--",
                "/srv/--help",
            ]
        );
    }

    #[test]
    fn steps_are_told_and_nothing_else() {
        assert!(stage("STEP 1/2: FROM x").is_some() && stage("[1/2] STEP 1/2: FROM x").is_some());
        assert!(stage("--> Using cache 12").is_none() && stage("[1/2] COMMIT").is_none());
    }

    #[test]
    fn what_buildah_says_last_is_why() {
        let last = ["STEP 1/2: FROM x", "Error: building at STEP \"RUN x\": exit status 3"];
        let error = story(ExitStatus::from_raw(256), "/srv", last.map(str::to_owned).into());
        let text = crate::model::chain(&error);
        assert!(text.contains("/srv") && text.contains("exit status 3"), "{text}");
        let killed = story(ExitStatus::from_raw(9), "/srv", vec![]);
        assert!(crate::model::chain(&killed).contains("signal 9"));
    }
}
