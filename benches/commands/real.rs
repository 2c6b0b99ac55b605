//! Real guests: banger beside the same QEMU started by hand, and beside OpenSSH.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger::wire::reply::{Answer, Reply, VmInfo};
use banger::wire::request::{CreateVm, Request};
use banger_agent::contract::control::{
    FrameReader, GuestEvent, HostBody, HostRequest, encode_frame,
};

use super::openssh::Openssh;
use super::simulated::{ask, connect};
use super::table::{Table, median, ms, quantile};

const RUNS: usize = 24;
const EXECS: usize = 20;
const DEATHS: usize = 9;
const COPIES: usize = 3;
const COPIED: u64 = 256 << 20;
const LIMIT: Duration = Duration::from_secs(60);
const PEER: &str = "bench-peer";

pub(crate) async fn measure(table: &mut Table, socket: &str) {
    let client = &mut connect(Path::new(socket)).await;
    let mut op = 0_u64;
    let mut unique = || {
        op += 1;
        (u64::from(std::process::id()) << 32) | op
    };
    match std::env::var("BANGER_BENCH_SSH_IMAGE") {
        Ok(image) => {
            let create = CreateVm {
                name: Some(PEER.to_owned()),
                start: true,
                image: Some(image),
                ..CreateVm::default()
            };
            started(ask(client, unique(), Request::CreateVm(create)).await);
            let asked = Request::Endpoint { vm: PEER.to_owned() };
            let endpoint = match ask(client, unique(), asked).await {
                Reply::Done(Answer::Endpoint(endpoint)) => *endpoint,
                other => panic!("{other:?}"),
            };
            let peer = Openssh::serve(PEER, &endpoint);
            execs(table, &peer);
            copies(table, &peer);
            super::workspaces::measure(table, PEER, &peer);
            drop(peer);
            ask(client, unique(), Request::DeleteVm { vm: PEER.to_owned() }).await;
        }
        Err(_) => {
            eprintln!("OpenSSH: skipped, BANGER_BENCH_SSH_IMAGE names no image with its server")
        }
    }
    let create = CreateVm { name: Some(PEER.to_owned()), start: true, ..CreateVm::default() };
    let vm = started(ask(client, unique(), Request::CreateVm(create)).await);
    let bare = Bare::copy(&vm);
    ask(client, unique(), Request::DeleteVm { vm: PEER.to_owned() }).await;
    runs(table, &bare);
    deaths(table);
    helper(table);
}

fn started(reply: Reply) -> VmInfo {
    match reply {
        Reply::Done(Answer::Ended { vm: Some(vm), .. }) => *vm,
        other => panic!("the VM to measure against did not start: {other:?}"),
    }
}

fn banger(args: &[&str]) -> Duration {
    let began = Instant::now();
    let ended = Command::new(env!("CARGO_BIN_EXE_banger"))
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(ended.success(), "banger {args:?}: {ended}");
    began.elapsed()
}

/// A whole process each: `banger vm exec`, `ssh` with a fresh connection and by one that is there
/// already, in turn.
fn execs(table: &mut Table, peer: &Openssh) {
    let (mut ours, mut fresh, mut mastered) = (vec![], vec![], vec![]);
    let master = peer.master();
    for _ in 0..EXECS {
        ours.push(banger(&["vm", "exec", PEER, "--", "true"]));
        fresh.push(peer.fresh());
        mastered.push(master.exec());
    }
    let spread = quantile(&ours, 95);
    for (theirs, how, most) in
        [(&fresh, "a fresh connection", 0.2), (&mastered, "a ControlMaster", 0.5)]
    {
        let (ours, theirs) = (median(&ours), median(theirs));
        let ratio = ours.as_secs_f64() / theirs.as_secs_f64();
        let measured = format!("{} (p95 {}); ssh {}", ms(ours), ms(spread), ms(theirs));
        let goal = format!("<= {most} of ssh with {how} (is {ratio:.2})");
        table.row("vm exec NAME -- true, whole process", measured, goal, ratio <= most);
    }
}

/// One file that nothing makes shorter, both ways, in turn with scp.
fn copies(table: &mut Table, peer: &Openssh) {
    let dir = tempfile::tempdir().unwrap();
    let (file, back) = (dir.path().join("file"), dir.path().join("back"));
    let mut source = std::fs::File::open("/dev/urandom").unwrap().take(COPIED);
    std::io::copy(&mut source, &mut std::fs::File::create(&file).unwrap()).unwrap();
    let (here, place) = (file.display().to_string(), format!("{PEER}:/root/copied"));
    let returned = back.display().to_string();
    let clear = || banger(&["vm", "exec", PEER, "--", "rm", "-f", "/root/copied"]);
    let (mut to, mut from) = ((vec![], vec![]), (vec![], vec![]));
    for _ in 0..COPIES {
        clear();
        to.1.push(peer.copy_to(&file, "/root/copied"));
        from.1.push(peer.copy_from("/root/copied", &back));
        clear();
        std::fs::remove_file(&back).unwrap();
        to.0.push(banger(&["vm", "cp", &here, &place]));
        from.0.push(banger(&["vm", "cp", &place, &returned]));
        std::fs::remove_file(&back).unwrap();
    }
    clear();
    for (what, (ours, theirs)) in [("into", to), ("out of", from)] {
        let (ours, theirs) = (median(&ours), median(&theirs));
        let speed = |time: Duration| COPIED as f64 / 1e6 / time.as_secs_f64();
        let ratio = speed(ours) / speed(theirs);
        let measured = format!("{:.0} MB/s; scp {:.0} MB/s", speed(ours), speed(theirs));
        let goal = format!(">= 1.0 of scp with AES-128-GCM (is {ratio:.2})");
        let what = format!("vm cp, {} MiB {what} a guest", COPIED >> 20);
        table.row(&what, measured, goal, ratio >= 1.0);
    }
}

/// QEMU as banger started it, with its own copies of the disks, made anew for each run.
struct Bare {
    program: String,
    args: Vec<String>,
    dir: tempfile::TempDir,
    vm_dir: PathBuf,
    run_dir: PathBuf,
    tap: Tap,
}

/// A tap of our own on the bridge of the VM it copies, removed at the end.
struct Tap(String);

impl Tap {
    fn beside(other: &str) -> Self {
        let ip = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success());
        let master = format!("/sys/class/net/{other}/master");
        let bridge = std::fs::read_link(master).expect("the VM's tap is on a bridge");
        let bridge = bridge.file_name().unwrap().to_string_lossy().into_owned();
        let name = format!("bgbench{}", std::process::id() % 10_000);
        ip(&["tuntap", "add", &name, "mode", "tap", "vnet_hdr"]);
        ip(&["link", "set", &name, "master", &bridge, "up"]);
        Self(name)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        drop(Command::new("ip").args(["link", "delete", &self.0]).status());
    }
}

impl Bare {
    fn copy(vm: &VmInfo) -> Self {
        let pid = vm.pid.expect("it runs");
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        let mut words =
            line.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into_owned());
        let program = words.next().unwrap();
        let args: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        let after = |marker: &str, end: char| {
            let word = args.iter().find(|word| word.contains(marker)).unwrap();
            let from = word.find(marker).unwrap() + marker.len();
            PathBuf::from(word[from..].split(end).next().unwrap())
        };
        let overlay = args.iter().find(|word| word.contains("overlay.ext4")).unwrap();
        let overlay = overlay.split(',').find_map(|part| part.strip_prefix("file=")).unwrap();
        let vm_dir = Path::new(overlay).parent().unwrap().to_owned();
        let run_dir = after("unix:", ',').parent().unwrap().to_owned();
        let dir = tempfile::tempdir().unwrap();
        // A new VM's disks, as they are before the first boot.
        banger(&["vm", "create", "--no-start", "--name", "bench-fresh"]);
        let fresh = vm_dir.parent().unwrap();
        let newest = std::fs::read_dir(fresh).unwrap().filter_map(Result::ok);
        let newest =
            newest.map(|e| e.path()).filter(|p| *p != vm_dir && p.join("work.ext4").exists());
        let newest = newest.max_by_key(|p| p.metadata().unwrap().modified().unwrap()).unwrap();
        for (from, name) in [
            (newest.join("overlay.ext4"), "overlay.ext4"),
            (newest.join("work.ext4"), "work.ext4"),
            (vm_dir.join("config.img"), "config.img"),
        ] {
            sparse_copy(&from, &dir.path().join(format!("fresh-{name}")));
        }
        // The configuration names the disks of the VM it was made for.
        for name in ["overlay.ext4", "work.ext4"] {
            copy_uuid(&vm_dir.join(name), &dir.path().join(format!("fresh-{name}")));
        }
        banger(&["vm", "delete", "bench-fresh"]);
        let tap = Tap::beside(vm.tap.as_deref().unwrap());
        let mut bare = Self { program, args, dir, vm_dir, run_dir, tap };
        bare.point_at_copies(vm.tap.as_deref().unwrap());
        bare
    }

    fn point_at_copies(&mut self, tap: &str) {
        let here = self.dir.path().display().to_string();
        let moved = [
            (self.vm_dir.display().to_string(), here.clone()),
            (self.run_dir.display().to_string(), here),
            (format!("ifname={tap},"), format!("ifname={},", self.tap.0)),
        ];
        for arg in &mut self.args {
            for (from, to) in &moved {
                *arg = arg.replace(from, to);
            }
        }
    }

    /// From the start of the process until the agent reports.
    fn run(&self) -> Duration {
        for name in ["overlay.ext4", "work.ext4", "config.img"] {
            let fresh = self.dir.path().join(format!("fresh-{name}"));
            sparse_copy(&fresh, &self.dir.path().join(name));
        }
        let began = Instant::now();
        let child = Command::new(&self.program)
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let guest = Ended(child);
        await_ready(&self.dir.path().join("control.sock"), began);
        let elapsed = began.elapsed();
        drop(guest);
        elapsed
    }
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn sparse_copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--sparse=always").arg(from).arg(to).status().unwrap();
    assert!(copied.success());
}

/// Through `tune2fs`, which also sees to the checksums.
fn copy_uuid(from: &Path, to: &Path) {
    let listing = Command::new("dumpe2fs").arg("-h").arg(from).output().unwrap();
    let listing = String::from_utf8_lossy(&listing.stdout).into_owned();
    let uuid = listing.lines().find_map(|line| line.strip_prefix("Filesystem UUID:")).unwrap();
    let set = Command::new("tune2fs").args(["-U", uuid.trim()]).arg(to).output().unwrap();
    assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
}

fn await_ready(socket: &Path, began: Instant) {
    let mut stream = loop {
        if let Ok(stream) = UnixStream::connect(socket) {
            break stream;
        }
        assert!(began.elapsed() < LIMIT, "QEMU did not come up");
        std::thread::sleep(Duration::from_millis(5));
    };
    let hello = HostRequest { op_id: [0; 16], body: HostBody::Hello { contract: 1 } };
    stream.write_all(&encode_frame(&hello).unwrap()).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut reader = FrameReader::default();
    let mut buffer = [0; 4096];
    loop {
        let n = stream.read(&mut buffer).unwrap();
        assert!(n > 0, "the guest ended");
        reader.push(&buffer[..n]);
        while let Some(event) = reader.next_message::<GuestEvent>().unwrap() {
            if matches!(event, GuestEvent::Ready(_)) {
                return;
            }
        }
    }
}

/// Whose turn it is: the Thue-Morse sequence, in which neither side always follows the other.
///
/// A boot takes a sixth more or less depending on what the host did with the memory that the last
/// one left, so strict alternation makes one side win by the timing alone.
fn fairly_first(n: usize) -> bool {
    n.count_ones().is_multiple_of(2)
}

fn runs(table: &mut Table, bare: &Bare) {
    let (mut ours, mut theirs) = (vec![], vec![]);
    for n in 0..2 * RUNS {
        if fairly_first(n) {
            theirs.push(bare.run());
        } else {
            ours.push(banger(&["vm", "run", "--rm", "--", "true"]));
        }
    }
    let (spread, ours, theirs) = (quantile(&ours, 95), median(&ours), median(&theirs));
    let added = ours.saturating_sub(theirs);
    let percent = 100.0 * added.as_secs_f64() / theirs.as_secs_f64();
    let measured = format!("{} (p95 {}); bare QEMU {}", ms(ours), ms(spread), ms(theirs));
    let goal = format!("adds <= 150 ms and <= 10 % (adds {}, {percent:.1} %)", ms(added));
    let met = added <= Duration::from_millis(150) && percent <= 10.0;
    table.row(&format!("vm run --rm -- true, n={RUNS}"), measured, goal, met);
}

/// From the death of a VMM until a script that follows the events has read of it.
fn deaths(table: &mut Table) {
    const NAME: &str = "bench-dies";
    banger(&["vm", "create", "--name", NAME]);
    let mut follow = Command::new(env!("CARGO_BIN_EXE_banger"))
        .args(["events", "-f", "--json", "--vm", NAME])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut events = BufReader::new(follow.stdout.take().unwrap()).lines();
    let follow = Ended(follow);
    let mut heard = |what: &str| while !events.next().unwrap().unwrap().contains(what) {};
    let mut times = vec![];
    for n in 0..DEATHS {
        if n > 0 {
            banger(&["vm", "start", NAME]);
        }
        heard("\"running\"");
        let pid = pid_of(NAME);
        let began = Instant::now();
        kill(pid);
        heard("vm-exited");
        times.push(began.elapsed());
    }
    drop(follow);
    banger(&["vm", "delete", NAME]);
    let (middle, spread) = (median(&times), quantile(&times, 95));
    let measured = format!("{} (p95 {})", ms(middle), ms(spread));
    let what = format!("VMM killed until its event is read, n={DEATHS}");
    table.row(&what, measured, "< 20 ms", middle < Duration::from_millis(20));
}

fn pid_of(name: &str) -> i32 {
    let shown = Command::new(env!("CARGO_BIN_EXE_banger")).args(["vm", "show", name]).output();
    let shown: serde_json::Value = serde_json::from_slice(&shown.unwrap().stdout).unwrap();
    shown["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("it runs")
}

/// Behind the daemon's back, and without a process of its own, which would count.
fn kill(pid: i32) {
    let pid = nix::unistd::Pid::from_raw(pid);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

/// The helper that serves this daemon, if its pid is told.
fn helper(table: &mut Table) {
    let Ok(pid) = std::env::var("BANGER_BENCH_HELPER_PID") else { return };
    let kib = super::table::resident_kib(pid.parse().unwrap());
    let measured = format!("{}.{} MiB", kib / 1024, kib % 1024 * 10 / 1024);
    table.row("helper, idle, resident", measured, "< 8 MiB", kib < 8 << 10);
}
