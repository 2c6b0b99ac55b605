//! How soon a daemon that starts under real VMs has adopted them all and answers.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger::wire::request::{CreateVm, Request};

use super::simulated::{ask, connect, list};
use super::table::{Table, median, ms};

const VMS: usize = 20;
const ROUNDS: usize = 5;
const LIMIT: Duration = Duration::from_secs(180);
/// Of one processor, of all VMMs together: emulated guests that wait use some.
const IDLE: f64 = 0.3;

/// The daemon is the one whose pid lies in `pid_file`; the last one started here stays, and is named there.
pub(crate) async fn measure(table: &mut Table, socket: &Path, pid_file: &Path) {
    let mut client = connect(socket).await;
    let name = |n: usize| format!("bench-many{n}");
    for n in 0..VMS {
        let create = CreateVm {
            name: Some(name(n)),
            vcpu: Some(1),
            memory_mib: Some(128),
            start: true,
            ..CreateVm::default()
        };
        ask(&mut client, op(n), Request::CreateVm(create)).await;
    }
    let vms = list(&mut client).await;
    let on = |vm: &&banger::wire::reply::VmInfo| {
        vm.name.starts_with("bench-many") && vm.state == "running"
    };
    let pids: Vec<u32> = vms.iter().filter(on).filter_map(|vm| vm.pid).collect();
    assert_eq!(pids.len(), VMS, "all run");
    wait_until_idle(&pids);
    let (mut times, mut mine): (_, Option<Child>) = (vec![], None);
    for _ in 0..ROUNDS {
        let pid = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
        let mut again = Again::of(pid);
        kill(pid);
        if let Some(mut ended) = mine.take() {
            ended.wait().unwrap();
        }
        let began = Instant::now();
        let child = mine.insert(again.command.spawn().unwrap());
        let mut client = connect(socket).await;
        let vms = list(&mut client).await;
        times.push(began.elapsed());
        fs::write(pid_file, child.id().to_string()).unwrap();
        let adopted: Vec<u32> = vms.iter().filter(on).filter_map(|vm| vm.pid).collect();
        assert_eq!(adopted, pids, "the same processes");
    }
    let mut client = connect(socket).await;
    for n in 0..VMS {
        ask(&mut client, op(VMS + n), Request::DeleteVm { vm: name(n) }).await;
    }
    let middle = median(&times);
    let what = format!("daemon start to {VMS} real VMs adopted and told");
    table.row(&what, ms(middle), "< 500 ms", middle < Duration::from_millis(500));
}

fn op(n: usize) -> u64 {
    (u64::from(std::process::id()) << 32) | (1 << 31) | u64::try_from(n).unwrap()
}

/// The same daemon once more: as the same user, with the same words, writing to the same file.
struct Again {
    command: Command,
}

impl Again {
    fn of(pid: u32) -> Self {
        let at = |what: &str| format!("/proc/{pid}/{what}");
        let words = |what: &str| -> Vec<String> {
            let bytes = fs::read(at(what)).unwrap();
            let parts = bytes.split(|byte| *byte == 0).filter(|part| !part.is_empty());
            parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect()
        };
        let status = fs::read_to_string(at("status")).unwrap();
        let id = |key: &str| -> u32 {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        let log = fs::read_link(at("fd/2")).unwrap();
        let log = fs::File::options().append(true).open(log).unwrap();
        let line = words("cmdline");
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &id("Uid:").to_string(), "--regid", &id("Gid:").to_string()]);
        command.arg("--init-groups").args(line).env_clear();
        for variable in words("environ") {
            if let Some((name, value)) = variable.split_once('=') {
                command.env(name, value);
            }
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).process_group(0);
        Self { command }
    }
}

/// And sees it gone.
fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let stat = format!("/proc/{pid}/stat");
    // A child of ours stays a zombie, which holds nothing.
    while fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")) {
        std::thread::yield_now();
    }
}

fn wait_until_idle(pids: &[u32]) {
    let began = Instant::now();
    let used = || -> u64 { pids.iter().map(|pid| ticks(*pid)).sum() };
    loop {
        let before = used();
        std::thread::sleep(Duration::from_secs(1));
        let ticks = u32::try_from(used() - before).unwrap();
        if f64::from(ticks) / 100.0 < IDLE {
            return;
        }
        if began.elapsed() > LIMIT {
            return eprintln!("the guests are not idle: {ticks} ticks in a second");
        }
    }
}

/// User's and system's, hundredths of a second.
fn ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after = stat.rsplit(')').next().unwrap();
    let fields: Vec<&str> = after.split_whitespace().collect();
    [11, 12].iter().map(|at| fields[*at].parse::<u64>().unwrap()).sum()
}
