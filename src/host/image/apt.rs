//! Kernels of Debian's packages, by name, through the host's own package sources.
//!
//! apt itself asks the mirrors, checks signatures and digests, and knows the host's keys, proxies and
//! preferences. Ours are only the directories that it works in: `<state>/apt` keeps the lists, so that to
//! ask again costs little, and what it downloads goes into the work directory of who wants it. It runs as
//! the daemon's user, and nothing is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::child;
use super::kernel::field;
use crate::host::files::{SYSTEM_PATH, blocking, ensure_private_dir};
use crate::model::{Code, DebianKernel, KernelOffer, is_package, is_version};
use crate::ports::{HostError, ProgressSink};

/// What is said of a package is shorter.
const LONGEST: usize = 1 << 20;
/// A package that stands for a package that stands for one.
const DEPTH: usize = 4;
/// An apt that a killed daemon left behind still has the lists; it ends by itself.
const LOCKED: &str = "Could not get lock";
const LOCK_LIMIT: Duration = Duration::from_secs(60);
const LOCK_PAUSE: Duration = Duration::from_millis(200);

/// What the host's administrator has apt run after an update is about the host's own lists.
const CONFIG: &str = "\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
";

#[derive(Debug)]
pub(super) struct Apt {
    dir: PathBuf,
    /// Configuration besides the host's.
    config: Option<PathBuf>,
    /// Where programs are looked for.
    path: &'static str,
    /// apt would not wait for another one that has its lists.
    turn: Mutex<()>,
}

/// How a program ended, and what it said.
struct Said {
    status: ExitStatus,
    out: String,
    last: Vec<String>,
}

impl Apt {
    pub(super) fn new(state: &Path) -> Self {
        Self { dir: state.join("apt"), config: None, path: SYSTEM_PATH, turn: Mutex::new(()) }
    }

    pub(super) fn with_config(&self, config: Option<PathBuf>) -> Self {
        Self { dir: self.dir.clone(), config, path: self.path, turn: Mutex::new(()) }
    }

    /// What the sources have of it now.
    pub(super) async fn find(
        &self,
        asked: &DebianKernel,
        progress: &ProgressSink,
        stop: &CancellationToken,
    ) -> Result<KernelOffer, HostError> {
        let _turn = tokio::select! {
            turn = self.turn.lock() => turn,
            () = stop.cancelled() => return Err(cancelled(asked.package())),
        };
        self.prepare().await?;
        self.update(asked, progress, stop).await?;
        let mut name = asked.package().to_owned();
        for _ in 0..DEPTH {
            let record = self.record(&name, asked, stop).await?;
            let depends = record.depends();
            // A package that only stands for the current kernel's says which that is.
            match depends.iter().find(|package| package.starts_with("linux-image-")) {
                Some(real) => name.clone_from(real),
                None => {
                    let modules = |package: &String| package.starts_with("linux-modules-");
                    let others = depends.into_iter().filter(modules).collect();
                    return Ok(KernelOffer { package: name, version: record.version, others });
                }
            }
        }
        Err(HostError::new(Code::Invalid, "find kernel", asked.package())
            .because("it stands for a package that stands for another, without end"))
    }

    /// The offer's packages, each verified by apt.
    pub(super) async fn download(
        &self,
        offer: &KernelOffer,
        into: &Path,
        progress: &ProgressSink,
        stop: &CancellationToken,
    ) -> Result<Vec<PathBuf>, HostError> {
        let mut command = self.command("apt-get");
        command.args(["-q", "-o", "APT::Status-Fd=1", "download"]);
        command.arg(format!("{}={}", offer.package, offer.version)).args(&offer.others);
        command.current_dir(into);
        let what = format!("downloading {} {}", offer.package, offer.version);
        progress(what.clone());
        let said = run(command, &offer.package, progress, Meter::new(what), stop).await?;
        if !said.status.success() {
            return Err(story("download kernel", &offer.package, said));
        }
        let (dir, package) = (into.to_owned(), offer.package.clone());
        blocking("find download", move || packages_in(&dir, &package)).await
    }

    async fn update(
        &self,
        asked: &DebianKernel,
        progress: &ProgressSink,
        stop: &CancellationToken,
    ) -> Result<(), HostError> {
        let until = Instant::now() + LOCK_LIMIT;
        loop {
            let mut command = self.command("apt-get");
            command.args(["-q", "-o", "APT::Status-Fd=1", "update"]);
            let meter = Meter::new("reading lists of packages".to_owned());
            let said = run(command, asked.package(), progress, meter, stop).await?;
            if said.status.success() {
                return Ok(());
            }
            if !said.last.iter().any(|line| line.contains(LOCKED)) || Instant::now() > until {
                return Err(story("find kernel", asked.package(), said));
            }
            tokio::select! {
                () = tokio::time::sleep(LOCK_PAUSE) => {}
                () = stop.cancelled() => return Err(cancelled(asked.package())),
            }
        }
    }

    async fn record(
        &self,
        name: &str,
        asked: &DebianKernel,
        stop: &CancellationToken,
    ) -> Result<Record, HostError> {
        let mut command = self.command("apt-cache");
        if let Some(suite) = asked.suite() {
            command.args(["-o", &format!("APT::Default-Release={suite}")]);
        }
        command.args(["show", "--no-all-versions", name]);
        let quiet: ProgressSink = std::sync::Arc::new(|_| {});
        let said = run(command, name, &quiet, Meter::new(String::new()), stop).await?;
        if !said.status.success() {
            return Err(story("find kernel", name, said));
        }
        Record::parse(&said.out).ok_or_else(|| {
            HostError::new(Code::Corrupt, "find kernel", name).because("apt says nothing of it")
        })
    }

    async fn prepare(&self) -> Result<(), HostError> {
        let dir = self.dir.clone();
        blocking("make directories of apt", move || {
            for part in ["", "lists", "lists/partial", "cache", "cache/archives/partial"] {
                ensure_private_dir(&dir.join(part))?;
            }
            // As if nothing were installed: what the host runs is not the guest's business.
            for (name, text) in [("status", ""), ("apt.conf", CONFIG)] {
                let path = dir.join(name);
                fs::write(&path, text)
                    .map_err(|error| HostError::io("write", path.display().to_string(), error))?;
            }
            Ok(())
        })
        .await
    }

    fn command(&self, program: &str) -> Command {
        #[allow(clippy::disallowed_methods, reason = "host/ starts the host's programs")]
        let mut command = Command::new(program);
        command.env_clear().env("PATH", self.path).env("HOME", &self.dir).env("LC_ALL", "C.UTF-8");
        for name in child::PROXIES {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        if let Some(config) = &self.config {
            command.env("APT_CONFIG", config);
        }
        let at = |name: &str, path: &str| format!("{name}={}", self.dir.join(path).display());
        command.arg("-c").arg(self.dir.join("apt.conf"));
        for option in [
            at("Dir::State", ""),
            at("Dir::State::lists", "lists"),
            at("Dir::State::status", "status"),
            at("Dir::Cache", "cache"),
            at("Dir::Cache::archives", "cache/archives"),
            // Of use to root only, who would have it work as a user that cannot get here.
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.current_dir("/");
        command
    }
}

/// The first paragraph that `apt-cache show` prints.
struct Record {
    version: String,
    depends: String,
}

impl Record {
    fn parse(text: &str) -> Option<Self> {
        let first = text.split("\n\n").next()?;
        let version = field(first, "Version").filter(|version| is_version(version))?;
        let depends = field(first, "Depends").unwrap_or_default();
        Some(Self { version: version.to_owned(), depends: depends.to_owned() })
    }

    /// Names alone: `linux-image-6.1.0-50-cloud-amd64 (= 6.1.192-2), kmod | x`.
    fn depends(&self) -> Vec<String> {
        let words = self.depends.split([',', '|']);
        let names = words.filter_map(|one| one.split_whitespace().next());
        let names = names.filter(|name| is_package(name));
        names.map(str::to_owned).collect()
    }
}

/// Turns `dlstatus:1:45.2:Retrieving file 1 of 1` into a line for each tenth.
struct Meter {
    what: String,
    tenth: u32,
}

impl Meter {
    fn new(what: String) -> Self {
        Self { what, tenth: 0 }
    }

    fn line(&mut self, said: &str) -> Option<String> {
        let percent = said.strip_prefix("dlstatus:")?.split(':').nth(1)?;
        let percent: u32 = percent.split('.').next()?.parse().ok()?;
        let tenth = percent.min(100) / 10;
        (tenth != self.tenth).then(|| {
            self.tenth = tenth;
            format!("{}: {} %", self.what, tenth * 10)
        })
    }
}

async fn run(
    mut command: Command,
    object: &str,
    progress: &ProgressSink,
    meter: Meter,
    stop: &CancellationToken,
) -> Result<Said, HostError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let started = command.spawn();
    let mut child = started.map_err(|error| {
        HostError::io("run", program.clone(), error)
            .hint("kernels are pulled with apt; where there is none, import a kernel's package")
    })?;
    let out = tokio::spawn(hear(child.stdout.take(), progress.clone(), meter));
    let err = tokio::spawn(child::tell(child.stderr.take(), progress.clone(), warning));
    let status = tokio::select! {
        status = child.wait() => status,
        () = stop.cancelled() => {
            child::terminate(&mut child).await;
            return Err(cancelled(object));
        }
    };
    let status = status.map_err(|error| HostError::io("wait for", program, error))?;
    let (out, last) = (out.await.unwrap_or_default(), err.await.unwrap_or_default());
    Ok(Said { status, out, last })
}

/// All that is said besides how far it is, as far as it is kept.
async fn hear(
    from: Option<impl AsyncRead + Unpin>,
    progress: ProgressSink,
    mut meter: Meter,
) -> String {
    let Some(from) = from else { return String::new() };
    let (mut lines, mut text) = (BufReader::new(from).split(b'\n'), String::new());
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        if let Some(far) = meter.line(&line) {
            progress(far);
        }
        if text.len() + line.len() < LONGEST {
            text.extend([&line, "\n"]);
        }
    }
    text
}

/// A mirror that is not there need not be the one with the kernel; so it is told, and not more.
fn warning(line: &str) -> Option<String> {
    line.strip_prefix("W: ").map(|warning| format!("apt: {warning}"))
}

fn cancelled(object: &str) -> HostError {
    HostError::new(Code::Cancelled, "pull kernel", object)
}

fn story(operation: &'static str, object: &str, said: Said) -> HostError {
    let errors: Vec<_> = said.last.iter().filter_map(|line| line.strip_prefix("E: ")).collect();
    let why = match &errors[..] {
        [] => format!("apt ended with {}", said.status),
        // The first is the cause, what follows came of it.
        [first, ..] => (*first).to_owned(),
    };
    let all = said.last.join("\n");
    let (mut code, mut hints) = (Code::Host, vec![]);
    for (sign, means, hint) in [
        ("No packages found", Code::NotFound, "`apt-cache search linux-image` shows what there is"),
        (
            "is not available in the sources",
            Code::NotFound,
            "see the suites of /etc/apt/sources.list",
        ),
        ("No space left on device", Code::NoSpace, "make room in the daemon's state directory"),
        ("enough free space", Code::NoSpace, "make room in the daemon's state directory"),
        ("Could not resolve", Code::Host, "this host cannot resolve the mirror's name"),
        (
            "is not signed",
            Code::Refused,
            "the host's sources are trusted by their keys, see sources.list(5)",
        ),
        (
            "Hash Sum mismatch",
            Code::Corrupt,
            "the mirror is being changed or damaged; try again later",
        ),
        ("Failed to fetch", Code::Host, "see whether the mirror is reachable"),
        (LOCKED, Code::Busy, "another apt works in the daemon's lists; see whether it goes on"),
    ] {
        if all.contains(sign) {
            (code, hints) = (means, vec![hint]);
            break;
        }
    }
    let error = HostError::new(code, operation, object).because(why);
    hints.into_iter().fold(error, HostError::hint).with_detail(said.last)
}

/// What apt put there.
fn packages_in(dir: &Path, package: &str) -> Result<Vec<PathBuf>, HostError> {
    let failed = |error| HostError::io("list", dir.display().to_string(), error);
    let entries = fs::read_dir(dir).map_err(failed)?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.map_err(failed)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "deb"));
    paths.sort();
    if paths.is_empty() {
        return Err(HostError::new(Code::Host, "download kernel", package)
            .because("apt said that it did, and nothing is there"));
    }
    Ok(paths)
}

#[cfg(test)]
#[path = "apt_tests.rs"]
mod tests;
