//! One test's host: a network namespace with helper, daemon and stock in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::hardware;
use super::process::{Outcome, Running, until};
use super::stock;
use super::vmm::Vmm;

/// The ordinary user that daemon and guests run as: nobody.
pub(crate) const OWNER: u32 = 65534;
const UP: Duration = Duration::from_secs(60);

/// What differs from the usual host.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Lines for the daemon's configuration.
    pub(crate) config: String,
    /// Import kernel and image, so that VMs can be made at once.
    pub(crate) stocked: bool,
    pub(crate) helper: bool,
    /// Another VMM than QEMU, and the faults that the fake one plays.
    pub(crate) firecracker: Option<(Vmm, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { config: String::new(), stocked: true, helper: true, firecracker: None }
    }
}

pub(crate) struct Host {
    pub(crate) dir: PathBuf,
    pub(crate) netns: String,
    settings: Settings,
    daemon: Option<Running>,
    helper: Option<Running>,
}

impl Host {
    /// `None`, with a line that says why, where real guests cannot run.
    pub(crate) fn start(settings: Settings) -> Option<Self> {
        let missing = |what: &str| eprintln!("skipped: {what}");
        if !nix::unistd::geteuid().is_root() {
            missing("real guests need root for the helper");
            return None;
        }
        let Some(agent) = stock::agent() else {
            missing("the static agent is not built (scripts/test.sh builds it)");
            return None;
        };
        let Some(kernel) = stock::kernel_package() else {
            missing("no kernel package (scripts/test.sh fetches it)");
            return None;
        };
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bgt-{}-{number}", std::process::id());
        let dir = Path::new("/var/tmp").join(&name);
        let mut host = Self { dir, netns: name, settings, daemon: None, helper: None };
        host.prepare(&agent);
        if host.settings.helper {
            host.start_helper();
        }
        host.start_daemon();
        if host.settings.stocked {
            host.copy_in(&kernel, "kernel.deb");
            host.copy_in(&stock::busybox_tar(), "busybox.tar");
            let path = |name: &str| host.dir.join(name).display().to_string();
            host.banger(&["kernel", "import", "debian", &path("kernel.deb")]).ok();
            host.banger(&["image", "import", "tiny", &path("busybox.tar")]).ok();
        }
        Some(host)
    }

    fn prepare(&self, agent: &Path) {
        for (name, mode, owner) in [
            ("", 0o711, 0),
            ("bin", 0o711, 0),
            ("h", 0o711, 0),
            ("log", 0o755, 0),
            ("s", 0o700, OWNER),
            ("r", 0o700, OWNER),
        ] {
            let path = self.dir.join(name);
            fs::create_dir_all(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            chown(&path, Some(owner), Some(owner)).unwrap();
        }
        // The owner must be able to run them, wherever this was built.
        let programs = stock::programs();
        for (from, name) in [
            (&programs.join("banger"), "banger"),
            (&programs.join("bangerd"), "bangerd"),
            (&programs.join("banger-helper"), "banger-helper"),
            (&agent.to_owned(), "banger-agent"),
        ] {
            let to = self.dir.join("bin").join(name);
            fs::copy(from, &to).unwrap();
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let mut vmm = "vmm = \"qemu\"".to_owned();
        if let Some((firecracker, faults)) = &self.settings.firecracker {
            let program = self.dir.join("bin/firecracker");
            for (from, to) in [
                (firecracker.firecracker(), &program),
                (firecracker.jailer(), &self.dir.join("bin/jailer")),
            ] {
                fs::copy(from, to).unwrap();
                fs::set_permissions(to, fs::Permissions::from_mode(0o755)).unwrap();
            }
            self.plan_faults(faults);
            vmm = format!("vmm = \"firecracker\"\nfirecracker_bin = \"{}\"", program.display());
        }
        let config = format!(
            "state_dir = \"{dir}/s\"\nrun_dir = \"{dir}/r\"\nhelper_socket = \"{dir}/h/helper.sock\"\n\
             agent_bin = \"{dir}/bin/banger-agent\"\n{vmm}\ndefault_image_name = \"tiny\"\n{extra}\n\
             [vm_defaults]\nvcpu = 1\nmemory_mib = 192\ndisk_size = \"1G\"\nwork_disk_size = \"1G\"\n\
             [network]\nbridge = \"br-test\"\ntap_prefix = \"bgt\"\ncidr = \"10.77.0.0/24\"\n",
            dir = self.dir.display(),
            extra = self.settings.config,
        );
        fs::write(self.dir.join("config.toml"), config).unwrap();
        self.run(Command::new("ip").args(["netns", "add", &self.netns])).ok();
        self.inside("ip", &["link", "set", "lo", "up"]).ok();
    }

    /// What the fake Firecracker plays from its next start on.
    pub(crate) fn plan_faults(&self, faults: &str) {
        fs::write(self.dir.join("bin/firecracker.faults"), faults).unwrap();
    }

    pub(crate) fn start_helper(&mut self) {
        let dir = self.dir.display().to_string();
        let qemu = which("qemu-system-x86_64");
        let args = [
            "--socket",
            &format!("{dir}/h/helper.sock"),
            "--owner",
            &OWNER.to_string(),
            "--state-dir",
            &format!("{dir}/s"),
            "--run-dir",
            &format!("{dir}/h"),
            "--bridge",
            "br-test",
            "--tap-prefix",
            "bgt",
            "--table",
            "banger_test",
            "--subnet",
            "10.77.0.0/24",
            "--vmm",
            &qemu,
            "--audit-log",
            &format!("{dir}/log/audit.jsonl"),
        ];
        let [firecracker, jailer, run] =
            ["bin/firecracker", "bin/jailer", "r"].map(|name| format!("{dir}/{name}"));
        let mut args = args.to_vec();
        if self.settings.firecracker.is_some() {
            args.extend(["--vmm", &firecracker, "--jailer", &jailer, "--vm-run-dir", &run]);
        }
        let mut command = self.command(&format!("{dir}/bin/banger-helper"), &args);
        self.log_to(&mut command, "helper.log");
        self.helper = Some(Running::start(&mut command));
        let socket = self.dir.join("h/helper.sock");
        until("the helper listens", UP, || {
            std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
    }

    pub(crate) fn start_daemon(&mut self) {
        let dir = self.dir.display().to_string();
        let owner = OWNER.to_string();
        let pretended = match &self.settings.firecracker {
            Some((Vmm::Fake, _)) => hardware::pretend(&self.dir).to_vec(),
            _ => vec![],
        };
        let args = [
            "setpriv",
            "--reuid",
            &owner,
            "--regid",
            &owner,
            "--clear-groups",
            "env",
            &format!("HOME={dir}/s"),
            "BANGER_LOG_LEVEL=debug",
            &format!("{dir}/bin/bangerd"),
            "--config",
            &format!("{dir}/config.toml"),
        ];
        let args = pretended.iter().map(String::as_str).chain(args).collect::<Vec<_>>();
        let mut command = self.command(args[0], &args[1..]);
        self.log_to(&mut command, "bangerd.log");
        self.daemon = Some(Running::start(&mut command));
        until("the daemon answers", UP, || self.banger(&["daemon", "status"]).code == Some(0));
    }

    fn log_to(&self, command: &mut Command, name: &str) {
        let path = self.dir.join("log").join(name);
        let log = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    }

    /// As `kill -9` does; guests live on.
    pub(crate) fn kill_daemon(&mut self) {
        self.daemon = None;
    }

    pub(crate) fn kill_helper(&mut self) {
        self.helper = None;
    }

    fn copy_in(&self, from: &Path, name: &str) {
        let to = self.dir.join(name);
        fs::copy(from, &to).unwrap();
        fs::set_permissions(&to, fs::Permissions::from_mode(0o644)).unwrap();
    }

    /// A command inside the host's network namespace.
    pub(crate) fn command(&self, program: &str, args: &[&str]) -> Command {
        self.cli().command(program, args)
    }

    /// For whoever uses the host while another has it in hand.
    pub(crate) fn cli(&self) -> Cli {
        Cli { dir: self.dir.clone(), netns: self.netns.clone() }
    }

    pub(crate) fn inside(&self, program: &str, args: &[&str]) -> Outcome {
        self.run(&mut self.command(program, args))
    }

    /// The CLI, its input closed.
    pub(crate) fn banger(&self, args: &[&str]) -> Outcome {
        let program = self.dir.join("bin/banger").display().to_string();
        self.run(self.command(&program, args).stdin(Stdio::null()))
    }

    /// The CLI as a process to talk to.
    pub(crate) fn banger_command(&self, args: &[&str]) -> Command {
        self.command(&self.dir.join("bin/banger").display().to_string(), args)
    }

    fn run(&self, command: &mut Command) -> Outcome {
        Outcome::of(command.output().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// One field of `vm show`.
    pub(crate) fn show(&self, vm: &str) -> serde_json::Value {
        let shown = self.banger(&["vm", "show", vm]).ok();
        let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
        match value {
            serde_json::Value::Array(mut rows) => rows.remove(0),
            row => row,
        }
    }

    pub(crate) fn log(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join("log").join(name)).unwrap_or_default()
    }

    /// Everything that must be as before when all VMs are gone.
    pub(crate) fn world(&self) -> String {
        let mut state: Vec<_> = walk(&self.dir.join("s"));
        state.retain(|path| !path.contains("/store/") && !path.contains("/initrd"));
        state.retain(|path| !path.contains("/templates/") && !path.contains("/warm/"));
        let nft = self.inside("nft", &["list", "ruleset"]).stdout;
        let counters = |line: &&str| !line.contains("counter");
        format!(
            "links:\n{}\nrules:\n{}\nloops:\n{}\nguests:\n{:?}\nfiles:\n{}\nsockets:\n{}",
            self.links(),
            nft.lines().filter(counters).collect::<Vec<_>>().join("\n"),
            self.inside("losetup", &["-a"]).stdout,
            self.guests(),
            state.join("\n"),
            walk(&self.dir.join("r")).join("\n"),
        )
    }

    /// The pool makes up for a tap that it lent a while after, which changes the world.
    pub(crate) fn until_taps_are_ready(&self) {
        until("a full pool of taps", Duration::from_secs(20), || {
            let status = self.banger(&["daemon", "status", "--json"]).ok();
            let status: serde_json::Value = serde_json::from_str(&status).unwrap();
            status["taps_ready"] == 4
        });
    }

    /// Names of links and who they belong to; indices and carrier differ from run to run.
    fn links(&self) -> String {
        let links = self.inside("ip", &["-j", "link"]).ok();
        let links: serde_json::Value = serde_json::from_str(&links).unwrap();
        let mut names: Vec<_> = links
            .as_array()
            .unwrap()
            .iter()
            .map(|link| format!("{} {}", link["ifname"], link["master"]))
            .collect();
        names.sort();
        names.join("\n")
    }

    /// Pids of VMMs that belong to this host: those in its network.
    pub(crate) fn guests(&self) -> Vec<u32> {
        use std::os::unix::fs::MetadataExt;
        let inode = |path: &Path| fs::metadata(path).map(|meta| meta.ino()).ok();
        let mine = inode(&Path::new("/run/netns").join(&self.netns));
        let mut pids = vec![];
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line);
            let program = line.split('\0').next().unwrap_or_default();
            let vmm = program.contains("qemu-system") || program.ends_with("/firecracker");
            // The daemon asks a VMM which one it is before it starts a guest with it.
            let vmm = vmm && !line.split('\0').any(|arg| arg == "--version");
            if vmm && mine.is_some() && inode(&entry.path().join("ns/net")) == mine {
                pids.push(pid);
            }
        }
        pids.sort_unstable();
        pids
    }
}

/// The command line of a host, which may be used by many.
#[derive(Clone, Debug)]
pub(crate) struct Cli {
    dir: PathBuf,
    netns: String,
}

impl Cli {
    fn command(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.netns, program]).args(args);
        command.env("BANGER_SOCKET", self.dir.join("r/bangerd.sock"));
        command.env("BANGER_LOG_DIR", self.dir.join("log"));
        command.env("XDG_CACHE_HOME", self.dir.join("cache"));
        command.env_remove("BANGER_CONFIG");
        command
    }

    /// Ends after so many seconds at the latest, then with exit code 124.
    pub(crate) fn banger(&self, seconds: u32, args: &[&str]) -> Outcome {
        let (limit, program) = (seconds.to_string(), self.dir.join("bin/banger"));
        let program = program.display().to_string();
        let all = [&["-k", "5", &limit, &program], args].concat();
        let mut command = self.command("timeout", &all);
        let output = command.stdin(Stdio::null()).output();
        Outcome::of(output.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let tail = |name: &str| {
                let log = self.log(name);
                let lines: Vec<_> = log.lines().rev().take(40).collect();
                lines.into_iter().rev().collect::<Vec<_>>().join("\n")
            };
            eprintln!(
                "--- bangerd ---\n{}\n--- helper ---\n{}",
                tail("bangerd.log"),
                tail("helper.log")
            );
        }
        self.daemon = None;
        self.helper = None;
        for pid in self.guests() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
            // It may have ended by itself.
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap_or_default();
        }
        drop(Command::new("ip").args(["netns", "delete", &self.netns]).status());
        drop(fs::remove_dir_all(&self.dir));
    }
}

fn which(program: &str) -> String {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|dir| dir.join(program))
        .find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{program} is installed")).display().to_string()
}

fn walk(dir: &Path) -> Vec<String> {
    let mut found = vec![];
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        if path.is_dir() {
            found.extend(walk(&path));
        }
        found.push(path.display().to_string());
    }
    found.sort();
    found
}
