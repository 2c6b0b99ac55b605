//! That the fake refuses what the real host refuses, and wakes who waits.

use std::sync::Arc;
use std::time::Duration;

use super::{At, Fault, SimOptions, SimWorld, World, ports};
use crate::model::{Code, OpId, Size, TapName, VmId, VmmChoice, VmmKind};
use crate::ports::{
    BaseImage, BootPlan, DiskHost, DiskPlan, GuestLink, HostError, Hypervisor, NameHost, NetHost,
    ProcessHost, RootPlan, SpawnRequest, TapSource, VmmCommand,
};

const OP: OpId = OpId([1; 16]);
const VM: VmId = VmId([2; 16]);

fn host() -> Arc<SimWorld> {
    ports(SimOptions::new("172.16.0.0/24".parse().unwrap())).1
}

fn code<T>(result: Result<T, HostError>) -> Option<Code> {
    result.err().map(|error| error.code)
}

fn plan(tap: &TapName, host: &SimWorld) -> BootPlan {
    BootPlan {
        resume: false,
        memory_is_shared: false,
        vm: VM,
        name: "web".to_owned(),
        vcpu: 1,
        memory_mib: 256,
        kernel: "/k".into(),
        initrd: "/i".into(),
        disks: vec![],
        tap: tap.clone(),
        mac: crate::model::Mac([2; 6]),
        console: false,
        paths: host.paths(VM),
    }
}

async fn spawn(host: &SimWorld, tap: &TapName) -> Result<crate::model::ProcessIdentity, HostError> {
    let command: VmmCommand = host.command(VmmKind::Sim, &plan(tap, host)).await?;
    host.ensure_spawned(OP, &SpawnRequest { vm: VM, command, log: "/l".into() }).await
}

async fn with_files(host: &SimWorld) -> TapName {
    let root = RootPlan::Overlay { size: Size::from_mib(64), uuid: [1; 16] };
    let disks = DiskPlan { root, work: Size::from_mib(64), work_uuid: [2; 16] };
    let base =
        BaseImage { path: "/b".into(), uuid: [3; 16], size: Size::from_mib(64), growable: true };
    host.ensure_vm_disks(OP, VM, &disks, &base, None).await.unwrap();
    host.write_config(OP, VM, vec![1]).await.unwrap();
    host.ensure_run_dir(OP, VM).await.unwrap();
    host.lease(OP, VM).await.unwrap()
}

#[tokio::test]
async fn nothing_starts_without_its_files() {
    let tap = with_files(&host()).await;
    for missing in ["disks", "config", "run-dir", "tap"] {
        let host = host();
        with_files(&host).await;
        host.edit(|world| match missing {
            "disks" => world.disks.clear(),
            "config" => world.configs.clear(),
            "run-dir" => world.run_dirs.clear(),
            _ => world.taps.clear(),
        });
        assert_eq!(code(spawn(&host, &tap).await), Some(Code::NotFound), "{missing}");
    }
    let host = host();
    with_files(&host).await;
    let first = spawn(&host, &tap).await.unwrap();
    assert_eq!(spawn(&host, &tap).await.unwrap(), first, "the one that runs already");
}

#[tokio::test]
async fn bad_names_and_addresses_are_refused() {
    let host = host();
    for bad in ["", "sixteen-letters-", "UP", "a/b"] {
        let tap = TapName(bad.to_owned());
        assert_eq!(code(host.ensure_tap(OP, &tap).await), Some(Code::Invalid), "{bad:?}");
    }
    for bad in [[172, 16, 0, 1], [172, 16, 0, 0], [10, 0, 0, 5]] {
        assert_eq!(code(host.ensure_nat(OP, VM, bad.into()).await), Some(Code::Invalid));
    }
    host.edit(|world| world.bridge = false);
    let tap = TapName("t0".to_owned());
    assert_eq!(code(host.ensure_tap(OP, &tap).await), Some(Code::NotFound));
    assert_eq!(code(host.describe(VmmChoice::Firecracker).await), Some(Code::VmmMissing));
    assert_eq!(host.world(), World::default());
}

#[tokio::test]
async fn an_exit_wakes_who_waits() {
    let host = host();
    let tap = with_files(&host).await;
    let process = spawn(&host, &tap).await.unwrap();
    let watch = tokio::spawn({
        let (host, process) = (Arc::clone(&host), process.clone());
        async move { host.exited(VM, &process).await.unwrap() }
    });
    while host.calls_of("process.exited") == 0 {
        tokio::task::yield_now().await;
    }
    assert!(host.is_alive(&process) && !watch.is_finished());
    assert!(host.crash(VM));
    assert_eq!(watch.await.unwrap().how, "killed by SIGKILL");
    assert!(!host.is_alive(&process) && !host.crash(VM));
    // A process of the same VM that came later is another one.
    let second = spawn(&host, &tap).await.unwrap();
    assert_ne!(second, process);
    assert_eq!(host.exited(VM, &process).await.unwrap().how, "unknown");
    host.signal(OP, VM, &process, 9).await.unwrap();
    assert!(host.is_alive(&second), "the signal was for the first");
}

#[tokio::test(start_paused = true)]
async fn a_guest_is_ready_once_its_process_runs() {
    let host = host();
    let tap = with_files(&host).await;
    let paths = host.paths(VM);
    let cancel = tokio_util::sync::CancellationToken::new();
    let waits =
        tokio::time::timeout(Duration::from_secs(60), host.await_ready(OP, &paths, &cancel));
    assert!(waits.await.is_err(), "nothing runs");
    spawn(&host, &tap).await.unwrap();
    let ready = host.await_ready(OP, &paths, &cancel).await.unwrap();
    assert_eq!(ready.boot_id, "sim-boot-1");
    host.shutdown(OP, &paths, Duration::ZERO).await.unwrap();
    assert_eq!(host.find(OP, VM).await.unwrap(), None);
    assert_eq!(code(host.ping(OP, &paths, Duration::ZERO).await), Some(Code::GuestUnreachable));
    cancel.cancel();
    assert_eq!(code(host.await_ready(OP, &paths, &cancel).await), Some(Code::Cancelled));
}

#[tokio::test(start_paused = true)]
async fn faults_do_what_they_say() {
    let host = host();
    let tap = TapName("t0".to_owned());
    let nth = |n| At::Nth("net.ensure_tap".to_owned(), n);
    host.plan(nth(0), Fault::Refuse);
    host.plan(nth(1), Fault::NoSpace);
    host.plan(nth(2), Fault::Delay(Duration::from_secs(5)));
    host.plan(At::Call(3), Fault::HalfDone);
    assert_eq!(code(host.ensure_tap(OP, &tap).await), Some(Code::Host));
    assert_eq!(code(host.ensure_tap(OP, &tap).await), Some(Code::NoSpace));
    assert!(host.world().taps.is_empty());
    let began = tokio::time::Instant::now();
    host.ensure_tap(OP, &tap).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(5));
    assert!(host.remove_tap(OP, &tap).await.is_err());
    assert!(host.world().taps.is_empty(), "half done is done, and reported as failed");
    assert_eq!((host.calls(), host.calls_of("net.ensure_tap")), (4, 3));
}

#[tokio::test]
async fn the_name_server_and_the_sink_share_a_table() {
    let host = host();
    let name = "web".parse().unwrap();
    host.set(&name, [172, 16, 0, 2].into());
    assert_eq!(host.world().names.len(), 1);
    NameHost::remove(host.as_ref(), &name);
    assert!(host.world().names.is_empty());
}
