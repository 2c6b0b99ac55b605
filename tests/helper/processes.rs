//! VMMs: started with the owner's rights and nobody's help, found again, told apart, ended whole.

use std::os::unix::fs::{MetadataExt, symlink};

use banger::model::{Code, ProcStat, ProcessIdentity, Size, VmId, chain};
use banger::ports::{LogKind, ProcessHost, SpawnRequest, VmmCommand, VmmLimits};
use nix::sys::signal::Signal;

use crate::support::{Host, OP, OWNER, SHELL, is_root, new_vm, run, script, wait_for};

/// Ignores hang-ups, keeps a child, ends on TERM with status 7.
const VMM: &str = "echo started; trap '' HUP; trap 'exit 7' TERM; sleep 1000 & wait";
/// The same without a child.
const LONELY: &str = "kill -STOP $$";

fn request(host: &Host, vm: VmId, text: &str) -> SpawnRequest {
    let limits = VmmLimits { memory: Size::from_mib(64), cpus: 1, tasks: 64 };
    let (program, args) = (SHELL.into(), script(vm, text));
    let command = VmmCommand { program, args, prints: LogKind::Vmm, limits, jail: None };
    SpawnRequest { vm, command, log: host.path("state/vmm.log") }
}

fn field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn log(host: &Host) -> String {
    std::fs::read_to_string(host.path("state/vmm.log")).unwrap_or_default()
}

#[tokio::test]
async fn a_vmm_outlives_its_helper_and_is_found_again() {
    if !is_root() {
        return;
    }
    let mut host = Host::new();
    let (before, vm) = (host.world(), new_vm());
    let process = host.process();
    let request = request(&host, vm, VMM);
    let started = process.ensure_spawned(OP, &request).await.unwrap();
    assert_eq!(process.ensure_spawned(OP, &request).await.unwrap(), started, "started twice");
    assert!(process.is_alive(&started));
    wait_for("the log", || log(&host) == "started\n");

    let pid = started.pid;
    let uid = format!("{OWNER} {OWNER} {OWNER} {OWNER}");
    assert_eq!(field(pid, "Uid:"), uid);
    assert_eq!(field(pid, "NoNewPrivs:"), "1");
    assert_eq!(field(pid, "CapEff:"), "0000000000000000");
    assert_eq!(field(pid, "CapBnd:").len(), 16);
    let session = run("ps", &["-o", "sid=", "-p", &pid.to_string()]);
    assert_eq!(String::from_utf8_lossy(&session.stdout).trim(), pid.to_string());
    let environ = std::fs::read_to_string(format!("/proc/{pid}/environ")).unwrap();
    assert!(environ.starts_with("PATH=") && environ.matches('=').count() == 1, "{environ}");
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/"));
    let meta = std::fs::metadata(host.path("state/vmm.log")).unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o777), (OWNER, 0o600));
    for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let number: u32 = fd.unwrap().file_name().to_str().unwrap().parse().unwrap();
        assert!(!(3..10).contains(&number), "descriptor {number} was inherited");
    }

    host.stop(Signal::SIGKILL);
    assert!(process.is_alive(&started));
    host.start();
    assert_eq!(process.find(OP, vm).await.unwrap(), Some(started.clone()));
    assert_eq!(process.ensure_spawned(OP, &request).await.unwrap(), started);
    assert!(host.stop(Signal::SIGTERM), "told to stop");
    assert!(process.is_alive(&started));
    host.start();

    let watch = tokio::spawn({
        let (process, started) = (host.process(), started.clone());
        async move { process.exited(vm, &started).await }
    });
    // Not this helper's child: that it ended is certain, how is not.
    let exit = process.ensure_gone(OP, vm).await.unwrap().unwrap();
    assert_eq!(exit.how, "unknown");
    assert_eq!(watch.await.unwrap().unwrap().how, "unknown");
    assert!(!process.is_alive(&started));
    assert_eq!(process.ensure_gone(OP, vm).await.unwrap(), None);
    assert_eq!(process.find(OP, vm).await.unwrap(), None);
    assert_eq!(host.world(), before);
}

#[tokio::test]
async fn how_it_ended_is_told() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let process = host.process();
    for (signal, how) in [(15, "exit status 7"), (9, "killed by SIGKILL")] {
        let vm = new_vm();
        let started = process.ensure_spawned(OP, &request(&host, vm, VMM)).await.unwrap();
        std::fs::remove_file(host.path("state/vmm.log")).unwrap_or_default();
        let watched = {
            let (process, started) = (host.process(), started.clone());
            tokio::spawn(async move { process.exited(vm, &started).await })
        };
        // The trap is set before the child is started.
        wait_for("the VMM's child", || {
            run("pgrep", &["-P", &started.pid.to_string()]).status.success()
        });
        process.signal(OP, vm, &started, signal).await.unwrap();
        assert_eq!(watched.await.unwrap().unwrap().how, how);
        // Gone already is success, and its child goes with the cgroup.
        process.signal(OP, vm, &started, signal).await.unwrap();
        assert_eq!(process.exited(vm, &started).await.unwrap().how, how);
        assert_eq!(process.ensure_gone(OP, vm).await.unwrap().unwrap().how, how);
    }
    assert!(!host.world().contains("banger-65534"));
}

#[tokio::test]
async fn everything_in_the_cgroup_ends() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    if !host.has_cgroups() {
        return;
    }
    let (process, vm) = (host.process(), new_vm());
    let text = "trap '' TERM; setsid sleep 1234 & sleep 1234 & wait";
    let started = process.ensure_spawned(OP, &request(&host, vm, text)).await.unwrap();
    let cgroup = host.cgroup_root.join(format!("banger-{OWNER}/vm-{vm}"));
    let procs = || std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    wait_for("its children", || procs().lines().count() == 3);
    let pids: Vec<u32> = procs().lines().map(|pid| pid.parse().unwrap()).collect();
    // The VMM gone, what it started is left; a new start must not run beside it.
    process.signal(OP, vm, &started, 9).await.unwrap();
    process.exited(vm, &started).await.unwrap();
    assert!(procs().lines().count() == 2);
    let again = process.ensure_spawned(OP, &request(&host, vm, LONELY)).await.unwrap();
    assert_ne!(again, started);
    assert_eq!(procs().trim(), again.pid.to_string());
    assert_eq!(process.ensure_gone(OP, vm).await.unwrap().unwrap().how, "killed by SIGKILL");
    assert!(!cgroup.exists());
    for pid in pids {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(!ProcStat::parse(&stat).is_some_and(ProcStat::runs), "{pid} is left");
    }
}

#[tokio::test]
async fn another_process_is_never_hit() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (process, vm) = (host.process(), new_vm());
    let started = process.ensure_spawned(OP, &request(&host, vm, LONELY)).await.unwrap();
    // A pid that has been reused since: the same number, another start.
    let earlier = ProcessIdentity { start_ticks: started.start_ticks - 1, ..started.clone() };
    process.signal(OP, vm, &earlier, 9).await.unwrap();
    let boot = ProcessIdentity {
        host_boot_id: "00000000-0000-0000-0000-000000000000".into(),
        ..started.clone()
    };
    process.signal(OP, vm, &boot, 9).await.unwrap();
    assert!(process.is_alive(&started));
    // Another VM's process, and one that is no VMM at all.
    let error = process.signal(OP, new_vm(), &started, 9).await.unwrap_err();
    assert_eq!(error.code, Code::Denied);
    let helper = std::fs::read_to_string(format!("/proc/{}/stat", host.helper_pid())).unwrap();
    let helper = ProcessIdentity {
        pid: host.helper_pid(),
        start_ticks: ProcStat::parse(&helper).unwrap().start_ticks,
        ..started.clone()
    };
    assert_eq!(process.signal(OP, vm, &helper, 9).await.unwrap_err().code, Code::Denied);
    assert!(process.is_alive(&started) && process.is_alive(&helper));
    process.ensure_gone(OP, vm).await.unwrap();
}

#[tokio::test]
async fn a_failed_start_leaves_nothing() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (before, vm, process) = (host.world(), new_vm(), host.process());
    let good = request(&host, vm, VMM);
    let missing = VmmCommand { program: "/nonexistent/vmm".into(), ..good.command.clone() };
    let error =
        process.ensure_spawned(OP, &SpawnRequest { command: missing, ..good.clone() }).await;
    let error = error.unwrap_err();
    assert_eq!(error.code, Code::VmmMissing);
    assert!(chain(&error).contains("/nonexistent/vmm"), "{error:?}");

    // The log is opened with the owner's rights and never through a link.
    let victim = host.path("victim");
    std::fs::write(&victim, "root's").unwrap();
    symlink(&victim, host.path("state/link.log")).unwrap();
    std::fs::create_dir(host.path("state/roots")).unwrap();
    nix::unistd::mkfifo(&host.path("state/fifo"), nix::sys::stat::Mode::from_bits_truncate(0o666))
        .unwrap();
    for name in ["state/link.log", "state/roots/vmm.log", "state/missing/vmm.log", "state/fifo"] {
        let log = host.path(name);
        let error = process.ensure_spawned(OP, &SpawnRequest { log, ..good.clone() }).await;
        let text = chain(&error.unwrap_err());
        assert!(text.contains("open the log of") && text.contains(name), "{text}");
    }
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "root's");
    assert_eq!(process.find(OP, vm).await.unwrap(), None);
    assert_eq!(host.world(), before);
}

#[tokio::test]
async fn without_cgroups_the_command_line_does() {
    if !is_root() {
        return;
    }
    let mut host = Host::with_cgroups(false);
    let (process, vm) = (host.process(), new_vm());
    let request = request(&host, vm, LONELY);
    let started = process.ensure_spawned(OP, &request).await.unwrap();
    host.stop(Signal::SIGKILL);
    host.start();
    assert_eq!(host.client().status(OP).await.unwrap().cgroup, None);
    assert_eq!(process.find(OP, vm).await.unwrap(), Some(started.clone()));
    assert_eq!(process.ensure_spawned(OP, &request).await.unwrap(), started);
    process.ensure_gone(OP, vm).await.unwrap();
    assert!(!process.is_alive(&started));
    assert_eq!(process.find(OP, vm).await.unwrap(), None);
}

#[tokio::test]
async fn one_start_however_many_ask() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (process, vm) = (host.process(), new_vm());
    let request = request(&host, vm, LONELY);
    let asked = (0..12).map(|_| process.ensure_spawned(OP, &request));
    let started = futures::future::try_join_all(asked).await.unwrap();
    assert!(started.iter().all(|one| *one == started[0]), "{started:?}");
    process.ensure_gone(OP, vm).await.unwrap();
}
