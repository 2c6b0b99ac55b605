//! A helper of its own for each test, in its own network namespace; all of it goes with the value,
//! also when the test panics.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use banger::host::helper_client::{HelperClient, HelperNet, HelperProcess};
use banger::model::{OpId, VmId};
use banger::wire::helper::vm_uuid;

/// `nobody`, the owner; `daemon`, a stranger.
pub(crate) const OWNER: u32 = 65534;
pub(crate) const STRANGER: u32 = 1;
pub(crate) const OP: OpId = OpId([0x42; 16]);
pub(crate) const SHELL: &str = "/bin/sh";
pub(crate) const BUSYBOX: &str = "/bin/busybox";
/// Does what Firecracker's does, as far as a shell can. The VMM's first argument is the script that
/// it runs inside.
const JAILER: &str = r#"#!/bin/sh
set -e
while [ "$1" != -- ]; do
    case $1 in
        --id) id=$2 ;;
        --uid) uid=$2 ;;
        --gid) gid=$2 ;;
        --exec-file) program=$2 ;;
        --chroot-base-dir) base=$2 ;;
        *) exit 99 ;;
    esac
    shift 2
done
name=${program##*/}
root=$base/$name/$id/root
cp "$program" "$root/$name"
chown "$uid:$gid" "$root" "$root/$name"
chmod 0700 "$root"
exec chroot --userspec="$uid:$gid" --groups= "$root" "/$name" sh -c "$2" sh --id "$id"
"#;
const PATIENCE: Duration = Duration::from_secs(20);

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Runs to its end, and must succeed.
pub(crate) fn sh(program: &str, args: &[&str]) -> String {
    let output = run(program, args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[allow(clippy::disallowed_methods, reason = "tests look at the host with its own programs")]
pub(crate) fn run(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).stdin(Stdio::null()).output().unwrap()
}

#[allow(clippy::print_stderr, reason = "a test that does nothing must say so")]
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// Whether jails can be tried: root, and a program that needs no other files to run.
#[allow(clippy::print_stderr, reason = "a test that does nothing must say so")]
pub(crate) fn can_jail() -> bool {
    if !is_root() {
        return false;
    }
    let stands_alone = Path::new(BUSYBOX).exists() && !run("ldd", &[BUSYBOX]).status.success();
    if !stands_alone {
        eprintln!("skipped: needs busybox-static");
    }
    stands_alone
}

/// Waits for a condition, never for a time.
#[allow(clippy::disallowed_methods, reason = "conditions of other processes have no event")]
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < give_up, "gave up waiting for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Debug)]
pub(crate) struct NetNs(pub(crate) String);

impl NetNs {
    pub(crate) fn new(tag: &str) -> Self {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bgh{tag}-{}-{count}", std::process::id());
        sh("ip", &["netns", "add", &name]);
        let ns = Self(name);
        ns.sh("ip", &["link", "set", "lo", "up"]);
        ns
    }

    fn enter(&self) -> String {
        format!("--net=/run/netns/{}", self.0)
    }

    /// A program inside. `nsenter`, for `ip netns exec` would hide the cgroups behind a new /sys.
    pub(crate) fn run(&self, program: &str, args: &[&str]) -> Output {
        let enter = self.enter();
        run("nsenter", &[&[enter.as_str(), "--", program], args].concat())
    }

    pub(crate) fn sh(&self, program: &str, args: &[&str]) -> String {
        let enter = self.enter();
        sh("nsenter", &[&[enter.as_str(), "--", program], args].concat())
    }

    pub(crate) fn pings(&self, address: &str) -> bool {
        self.run("ping", &["-c1", "-W1", "-n", address]).status.success()
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        let _gone = run("ip", &["netns", "del", &self.0]);
    }
}

pub(crate) struct Host {
    pub(crate) ns: NetNs,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) cgroup_root: PathBuf,
    jailer: PathBuf,
    firecracker: Option<PathBuf>,
    helper: Option<Child>,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self::with_cgroups(true)
    }

    /// With the real Firecracker and its jailer, if the environment names them.
    #[allow(clippy::print_stderr, reason = "a test that does nothing must say so")]
    pub(crate) fn with_firecracker() -> Option<Self> {
        let named = |name| std::env::var_os(name).filter(|path| !path.is_empty());
        let (Some(firecracker), Some(jailer)) = (named("FIRECRACKER_BIN"), named("JAILER_BIN"))
        else {
            eprintln!("skipped: FIRECRACKER_BIN and JAILER_BIN name none");
            return None;
        };
        let mut host = Self::new();
        // Where nobody but root can change them.
        for (name, from) in [("firecracker", firecracker), ("jailer", jailer)] {
            std::fs::copy(from, host.path(name)).unwrap();
        }
        host.stop(nix::sys::signal::Signal::SIGTERM);
        host.jailer = host.path("jailer");
        host.firecracker = Some(host.path("firecracker"));
        host.start();
        Some(host)
    }

    pub(crate) fn firecracker(&self) -> PathBuf {
        self.firecracker.clone().unwrap()
    }

    /// Keeps the tap open as a VMM would, until it is dropped.
    pub(crate) fn hold_tap(&self, name: &str) -> Held {
        #[allow(clippy::disallowed_methods, reason = "holds what a VMM would")]
        let mut holder = Command::new("nsenter")
            .args([&self.ns.enter(), "--", "socat", "-u"])
            .args([&format!("TUN,tun-name={name},tun-type=tap,iff-no-pi,iff-up"), "-"])
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_for("the tap's carrier", || {
            assert!(holder.try_wait().unwrap().is_none(), "the tap was not opened");
            self.ns.sh("ip", &["link", "show", name]).contains("LOWER_UP")
        });
        Held(holder)
    }

    /// Without cgroups the helper has command lines only to find VMMs by.
    pub(crate) fn with_cgroups(cgroups: bool) -> Self {
        let ns = NetNs::new("h");
        let dir = tempfile::Builder::new().prefix("banger-helper-").tempdir().unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o711)).unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        chown(&state, Some(OWNER), Some(OWNER)).unwrap();
        let vmrun = dir.path().join("vmrun");
        std::fs::create_dir(&vmrun).unwrap();
        std::fs::set_permissions(&vmrun, PermissionsExt::from_mode(0o700)).unwrap();
        chown(&vmrun, Some(OWNER), Some(OWNER)).unwrap();
        let jailer = dir.path().join("played-jailer");
        std::fs::write(&jailer, JAILER).unwrap();
        std::fs::set_permissions(&jailer, PermissionsExt::from_mode(0o755)).unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let cgroup2 = mounts.lines().find(|line| line.contains(" - cgroup2 "));
        let mut cgroup_root = dir.path().join("no-cgroups");
        if let Some(mount) = cgroup2.filter(|_| cgroups) {
            cgroup_root = Path::new(mount.split(' ').nth(4).unwrap()).join(&ns.0);
        }
        std::fs::create_dir(&cgroup_root).unwrap();
        let mut host = Self { ns, dir, cgroup_root, jailer, firecracker: None, helper: None };
        host.start();
        host
    }

    pub(crate) fn has_cgroups(&self) -> bool {
        self.cgroup_root.join("cgroup.procs").exists()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self) -> Command {
        #[allow(clippy::disallowed_methods, reason = "the helper under test")]
        let mut command = Command::new("nsenter");
        command.args([&self.ns.enter(), "--", env!("CARGO_BIN_EXE_banger-helper")]);
        command.args(["--owner", &OWNER.to_string()]);
        for (flag, name) in [
            ("--run-dir", "run"),
            ("--socket", "run/helper.sock"),
            ("--state-dir", "state"),
            ("--audit-log", "log/audit.jsonl"),
        ] {
            command.args([flag, &self.text(name)]);
        }
        command.args(["--bridge", "bgbr0", "--tap-prefix", "bgtap", "--table", "banger_test"]);
        command.args(["--subnet", "172.16.0.0/24", "--vmm", SHELL, "/nonexistent/vmm", BUSYBOX]);
        command.args(&self.firecracker);
        command.arg("--jailer").arg(&self.jailer);
        command.args(["--vm-run-dir", &self.text("vmrun")]);
        command.args(["--cgroup-root", self.cgroup_root.to_str().unwrap()]);
        let mut options = std::fs::File::options();
        let log = options.append(true).create(true).open(self.path("helper.log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command
    }

    pub(crate) fn start(&mut self) {
        let socket = self.path("run/helper.sock");
        let log = self.path("helper.log");
        let mut child = self.command().spawn().unwrap();
        let mut ended = false;
        wait_for("the helper's socket", || {
            ended = child.try_wait().unwrap().is_some();
            ended || std::os::unix::net::UnixStream::connect(&socket).is_ok()
        });
        self.helper = Some(child);
        assert!(!ended, "{}", std::fs::read_to_string(log).unwrap());
    }

    /// One more helper with the same arguments; it must end by itself.
    pub(crate) fn start_another(&self) -> bool {
        self.command().status().unwrap().success()
    }

    pub(crate) fn helper_pid(&self) -> u32 {
        self.helper.as_ref().unwrap().id()
    }

    pub(crate) fn helper_is_up(&mut self) -> bool {
        self.helper.as_mut().unwrap().try_wait().unwrap().is_none()
    }

    /// Whether it ended well.
    pub(crate) fn stop(&mut self, signal: nix::sys::signal::Signal) -> bool {
        let mut child = self.helper.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
        child.wait().unwrap().success()
    }

    pub(crate) fn client(&self) -> HelperClient {
        HelperClient::new(self.path("run/helper.sock"))
    }

    pub(crate) fn net(&self) -> HelperNet {
        HelperNet::new(self.client(), "bgbr0".into(), "172.16.0.0/24".parse().unwrap())
    }

    pub(crate) fn process(&self) -> HelperProcess {
        HelperProcess::new(self.client())
    }

    /// Everything a helper could leave behind, as text to compare.
    pub(crate) fn world(&self) -> String {
        let links = without_timers(&self.ns.sh("ip", &["-d", "address"]));
        let rules = self.ns.sh("nft", &["list", "ruleset"]);
        format!("{links}\n{rules}\n{}", self.leavings())
    }

    /// What of it is no network: there taps show who had them last.
    pub(crate) fn leavings(&self) -> String {
        let mut cgroups = vec![];
        if let Ok(entries) = std::fs::read_dir(&self.cgroup_root) {
            for entry in entries.map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    cgroups.push(entry.file_name());
                }
            }
        }
        let loops = sh("losetup", &["-a"]);
        let ours = self.dir.path().to_str().unwrap();
        let loops: Vec<_> = loops.lines().filter(|line| line.contains(ours)).collect();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let mounts: Vec<_> = mounts.lines().filter(|line| line.contains(ours)).collect();
        format!("{cgroups:?}\n{loops:?}\n{mounts:?}")
    }

    /// The lines of the audit log.
    pub(crate) fn audit(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.path("log/audit.jsonl")).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// A process of a test's own, ended with the value.
pub(crate) struct Held(Child);

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(mut helper) = self.helper.take() {
            drop(helper.kill());
            drop(helper.wait());
        }
        self.kill_what_is_left();
        // Directories of cgroups only: nothing else can be removed from there.
        let base = self.cgroup_root.join(format!("banger-{OWNER}"));
        let entries = std::fs::read_dir(&base).into_iter().flatten().flatten();
        for vm in entries.filter(|entry| entry.path().is_dir()) {
            drop(std::fs::write(vm.path().join("cgroup.kill"), "1"));
            let give_up = Instant::now() + PATIENCE;
            while std::fs::remove_dir(vm.path()).is_err()
                && vm.path().exists()
                && Instant::now() < give_up
            {
                std::thread::yield_now();
            }
        }
        drop(std::fs::remove_dir(base));
        drop(std::fs::remove_dir(&self.cgroup_root));
    }
}

impl Host {
    /// VMMs of a failed test: those that write to a log in this test's directory.
    fn kill_what_is_left(&self) {
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let output = std::fs::read_link(entry.path().join("fd/1"));
            if output.is_ok_and(|path| path.starts_with(self.dir.path())) {
                let pid = nix::unistd::Pid::from_raw(pid);
                let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            }
        }
    }
}

/// Timers of bridges count whatever happens.
fn without_timers(links: &str) -> String {
    let mut words = links.split(' ');
    let mut kept = vec![];
    while let Some(word) = words.next() {
        if word.ends_with("_timer") {
            // Its value comes after some blanks.
            let _value = words.find(|value| !value.is_empty());
        } else {
            kept.push(word);
        }
    }
    kept.join(" ")
}

/// A VM id that no other test uses.
pub(crate) fn new_vm() -> VmId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&std::process::id().to_be_bytes());
    id[4..8].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    id[15] = 0xbb;
    VmId(id)
}

/// A shell script that stands for a VMM of this VM.
pub(crate) fn script(vm: VmId, text: &str) -> Vec<String> {
    vec!["-c".into(), text.into(), "-uuid".into(), vm_uuid(vm.0)]
}
