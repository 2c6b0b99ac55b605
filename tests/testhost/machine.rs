//! The emulated machine: started cold or from a saved state, ended with the value.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::arguments::arguments;
use crate::qmp::Qmp;
use crate::state;

pub(crate) const QEMU: &str = "qemu-system-x86_64";
const BOOT: Duration = Duration::from_secs(300);
const RESTORE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// What was deleted and is free should hold nothing: zeros are not saved.
const FORGET: &str = "fstrim -a; sync; echo 3 > /proc/sys/vm/drop_caches
    mount -t tmpfs -o size=100% zeros /mnt
    awk '/^MemAvailable/ { print $2 - 131072 }' /proc/meminfo |
        xargs -I KIB head -c KIBK /dev/zero > /mnt/zeros
    umount /mnt";

/// How a boot of the host comes to its end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BootEnd {
    /// As the administrator ends it.
    Orderly,
    /// What was not written to the disk is lost.
    PowerCut,
}

#[derive(Debug)]
pub(crate) struct Machine {
    child: Child,
    qmp: Qmp,
    pub(crate) agent: Agent,
    /// Sockets and logs, and the disk of a machine that keeps nothing.
    dir: RunDir,
}

fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// What is not written to `at` is read from `over`. In the cache they find each other wherever it is
/// moved to: one lies in the directory above the other's.
pub(crate) fn overlay(over: &Path, format: &str, at: &Path) {
    let above = at.parent().and_then(Path::parent);
    let over = match over.file_name() {
        Some(name) if over.parent() == above => Path::new("..").join(name),
        _ => over.to_path_buf(),
    };
    let mut make = Command::new("qemu-img");
    make.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]).arg(over).arg(at);
    assert!(make.status().unwrap().success(), "{make:?}");
}

impl Machine {
    /// From power on until everything is up. What it writes goes to `disk`.
    pub(crate) fn boot(image: &Path, disk: &Path) -> Self {
        let dir = RunDir::new();
        let arguments = arguments(&dir.0, image, disk);
        let mut machine = Self::start(dir, arguments);
        machine.wait_until_up();
        machine
    }

    fn wait_until_up(&mut self) {
        self.wait_for_agent(Instant::now() + BOOT);
        let up = self.run("systemctl is-system-running --wait || systemctl --failed", BOOT);
        assert_eq!(up.output, "running\n");
    }

    /// Ends this boot and waits until all is up in the next one. Its disk stays.
    pub(crate) fn restart(&mut self, end: BootEnd) {
        // The clock was set when the state was restored; the next boot reads it from the hardware.
        self.run("hwclock --systohc", RESTORE).ok();
        self.ask("set-action", json!({"reboot": "reset"}));
        // A host that goes down may reset itself more than once.
        self.qmp.forget_events();
        let begun = Instant::now();
        match end {
            BootEnd::Orderly => self.let_run(&["/usr/bin/systemctl", "--no-block", "reboot"]),
            BootEnd::PowerCut => drop(self.ask("system_reset", json!({}))),
        }
        self.agent.hang_up();
        self.qmp.await_event("RESET", BOOT).unwrap_or_else(|error| panic!("{error}"));
        eprintln!("the host was down after {:.1?}", begun.elapsed());
        self.wait_until_up();
        eprintln!("and up again after {:.1?}", begun.elapsed());
    }

    /// Goes on where the state was saved. What it writes goes to `disk`, or is lost.
    pub(crate) fn restore(image: &Path, saved: &Path, disk: Option<&Path>) -> Self {
        let dir = RunDir::new();
        let disk = disk.map_or_else(|| dir.0.join("disk.qcow2"), Path::to_path_buf);
        overlay(&state::disk(saved), "qcow2", &disk);
        let mut arguments = arguments(&dir.0, image, &disk);
        let memory = format!("exec:cat {}", quoted(&state::memory(saved)));
        arguments.extend(["-incoming".to_owned(), memory]);
        let mut machine = Self::start(dir, arguments);
        let deadline = Instant::now() + RESTORE;
        // Until all is read it is `inmigrate`; a `cont` then would be lost for ever.
        while machine.ask("query-status", json!({}))["status"] != "paused" {
            machine.poll(deadline, "the state to be read");
        }
        machine.ask("cont", json!({}));
        machine.wait_for_agent(deadline);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        machine.run(&format!("date -s @{} > /dev/null", now.as_secs()), RESTORE).ok();
        machine
    }

    fn start(dir: RunDir, arguments: Vec<String>) -> Self {
        // The kernel ends QEMU with the thread that started it, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", QEMU]).args(arguments);
        let log = File::create(dir.0.join("qemu.log")).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut child = command.spawn().unwrap();
        let deadline = Instant::now() + RESTORE;
        let qmp = loop {
            match Qmp::connect(&dir.0.join("qmp.sock")) {
                Ok(qmp) => break qmp,
                Err(error) if child.try_wait().unwrap().is_some() || Instant::now() > deadline => {
                    drop(child.kill());
                    drop(child.wait());
                    panic!("QEMU: {error}\n{}", tail(&dir.0.join("qemu.log"), 10));
                }
                Err(_) => std::thread::sleep(POLL),
            }
        };
        let agent = Agent::new(dir.0.join("agent.sock"));
        Self { dir, child, qmp, agent }
    }

    fn wait_for_agent(&mut self, deadline: Instant) {
        while self.agent.greet().is_err() {
            self.poll(deadline, "the guest agent");
        }
    }

    /// One turn of waiting, unless there is nothing to wait for.
    fn poll(&mut self, deadline: Instant, what: &str) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("QEMU ended ({status}) while waiting for {what}");
        }
        assert!(Instant::now() < deadline, "gave up waiting for {what}");
        std::thread::sleep(POLL);
    }

    pub(crate) fn ask(&mut self, command: &str, arguments: Value) -> Value {
        self.try_ask(command, arguments).unwrap_or_else(|error| panic!("{error}"))
    }

    pub(crate) fn try_ask(&mut self, command: &str, arguments: Value) -> Result<Value, String> {
        self.qmp.call(command, arguments)
    }

    /// One of the machine's files, gone with it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.dir.0.join(name)
    }

    /// What the machine has written so far to one of its files.
    pub(crate) fn log(&self, name: &str) -> Vec<u8> {
        fs::read(self.file(name)).unwrap_or_default()
    }

    /// Writes the machine's memory into `file` and ends it. Its disk is complete then.
    pub(crate) fn save(mut self, file: &Path) {
        self.run(FORGET, RESTORE).ok();
        self.agent.hang_up();
        self.ask("stop", json!({}));
        self.ask("migrate-set-parameters", json!({"max-bandwidth": 10_000_000_000_u64}));
        self.ask("migrate", json!({"uri": format!("exec:cat > {}", quoted(file))}));
        let deadline = Instant::now() + RESTORE;
        loop {
            let status = self.ask("query-migrate", json!({}))["status"].clone();
            assert_ne!(status, "failed", "the state cannot be saved");
            if status == "completed" {
                break;
            }
            self.poll(deadline, "the state to be saved");
        }
        self.ask("quit", json!({}));
        assert!(self.child.wait().unwrap().success(), "QEMU quits");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let (console, qemu) = (self.dir.0.join("console.log"), self.dir.0.join("qemu.log"));
            eprintln!("--- serial line ---\n{}", tail(&console, 60));
            eprintln!("--- QEMU ---\n{}", tail(&qemu, 10));
        }
    }
}

/// Of one machine; its name is short for the sockets' sake.
#[derive(Debug)]
struct RunDir(PathBuf);

impl RunDir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let parent = Path::new("/var/tmp");
        // A test that was killed could not remove its own.
        for entry in fs::read_dir(parent).unwrap().filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let pid = name.strip_prefix("bgth-").and_then(|rest| rest.split('-').next());
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                drop(fs::remove_dir_all(entry.path()));
            }
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = parent.join(format!("bgth-{}-{number}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        Self(dir)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn tail(path: &Path, count: usize) -> String {
    last_lines(&String::from_utf8_lossy(&fs::read(path).unwrap_or_default()), count)
}
