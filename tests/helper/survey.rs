//! What the helper sees of VMs: its own by mark and name, whoever started them, and nobody else's as ours.

use std::os::unix::fs::chown;
use std::path::Path;

use banger::model::{HostSeen, ResourceKind as K, Size, Thing, VmId};
use banger::ports::{LogKind, ProcessHost, SpawnRequest, VmmCommand, VmmLimits};
use banger::wire::helper::{HelperBody, HelperOk, HostReport};

use crate::support::{Host, OP, OWNER, SHELL, is_root, new_vm, script, sh};

const VMM: &str = "trap 'exit 7' TERM; sleep 1000 & wait";

fn thing(kind: K, vm: VmId) -> Thing {
    Thing { kind, name: vm.to_string(), vm: Some(vm) }
}

async fn report(host: &Host, after: Option<VmId>) -> HostReport {
    let body = HelperBody::SurveyHost { after: after.map(|vm| vm.0) };
    match host.client().call(OP, body).await.unwrap() {
        HelperOk::Host(report) => report,
        other => panic!("{other:?}"),
    }
}

async fn survey(host: &Host) -> HostSeen {
    host.process().survey(OP).await.unwrap()
}

async fn start(host: &Host, vm: VmId) -> u32 {
    let limits = VmmLimits { memory: Size::from_mib(64), cpus: 1, tasks: 64 };
    let (program, args) = (SHELL.into(), script(vm, VMM));
    let command = VmmCommand { program, args, prints: LogKind::Vmm, limits, jail: None };
    let request = SpawnRequest { vm, command, log: host.path("state/vmm.log") };
    host.process().ensure_spawned(OP, &request).await.unwrap().pid
}

fn leak_cgroup(host: &Host, vm: VmId, mark: Option<&Path>) {
    let dir = host.cgroup_root.join(format!("banger-{OWNER}/vm-{vm}"));
    std::fs::create_dir_all(&dir).unwrap();
    if let Some(mark) = mark {
        let value = mark.as_os_str().as_encoded_bytes();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&dir, "trusted.banger", value, flags).unwrap();
    }
}

#[tokio::test]
async fn what_there_is_of_vms_is_seen_and_told_apart_by_mark() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let (before, vm, leaked, other, bare) = (host.world(), new_vm(), new_vm(), new_vm(), new_vm());
    let empty = survey(&host).await;
    assert!(empty.things.is_empty() && empty.blind.contains(&K::Cgroup) != host.has_cgroups());
    let pid = start(&host, vm).await;
    let seen = survey(&host).await;
    // Other tests run VMMs as the same owner, which are seen too, and are nobody's here.
    let of = |report: HostReport| report.vms.into_iter().find(|of| of.vm == vm.0);
    let own = of(report(&host, None).await).unwrap();
    assert_eq!(own.process.map(|seen| seen.pid), Some(pid));
    assert!(!own.jailed && !own.device);
    if host.has_cgroups() {
        assert_eq!(seen.things, [thing(K::Process, vm), thing(K::Cgroup, vm)].into());
        leak_cgroup(&host, leaked, Some(&host.path("state")));
        leak_cgroup(&host, other, Some(Path::new("/var/lib/another")));
        leak_cgroup(&host, bare, None);
        let seen = survey(&host).await;
        assert!(seen.things.contains(&thing(K::Cgroup, leaked)), "{seen:?}");
        for vm in [other, bare] {
            let foreign = thing(K::Cgroup, vm);
            let apart = seen.unmarked.contains(&foreign) && !seen.things.contains(&foreign);
            assert!(apart, "another daemon's, or nobody's: {seen:?}");
        }
        for vm in [leaked, other, bare] {
            host.process().ensure_gone(OP, vm).await.unwrap();
        }
    }
    // The rest of the pages is what comes after.
    assert!(of(report(&host, Some(vm)).await).is_none());
    host.process().ensure_gone(OP, vm).await.unwrap();
    assert_eq!((survey(&host).await.things, host.world()), (empty.things, before));
}

#[tokio::test]
async fn without_cgroups_a_process_is_ours_by_the_files_that_it_names() {
    if !is_root() {
        return;
    }
    let host = Host::with_cgroups(false);
    let (vm, named) = (new_vm(), new_vm());
    start(&host, vm).await;
    let mut args = script(named, VMM);
    args.push(format!("file={}/vms/x", host.text("state")));
    let limits = VmmLimits { memory: Size::from_mib(64), cpus: 1, tasks: 64 };
    let command =
        VmmCommand { program: SHELL.into(), args, prints: LogKind::Vmm, limits, jail: None };
    let request = SpawnRequest { vm: named, command, log: host.path("state/vmm.log") };
    host.process().ensure_spawned(OP, &request).await.unwrap();
    let seen = survey(&host).await;
    assert_eq!(seen.things, [thing(K::Process, named)].into());
    // Others that this machine's tests run as the same owner are there too, and nobody's either.
    assert!(seen.unmarked.contains(&thing(K::Process, vm)), "{seen:?}");
    for vm in [vm, named] {
        host.process().ensure_gone(OP, vm).await.unwrap();
    }
}

#[tokio::test]
async fn loops_that_stay_are_seen_and_those_of_others_are_not() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let before = host.world();
    for name in ["state/disk.img", "other.img"] {
        std::fs::File::create(host.path(name)).unwrap().set_len(1 << 20).unwrap();
        chown(host.path(name), Some(OWNER), Some(OWNER)).unwrap();
    }
    let devices = ["state/disk.img", "other.img"]
        .map(|name| sh("losetup", &["-f", "--show", &host.text(name)]).trim().to_owned());
    let loops = report(&host, None).await.loops;
    assert_eq!(loops.len(), 1, "{loops:?}");
    let path = host.text("state/disk.img");
    assert_eq!((&loops[0].device, &loops[0].path), (&devices[0], &path));
    host.client().call(OP, HelperBody::DetachLoop { path }).await.unwrap();
    assert!(report(&host, None).await.loops.is_empty());
    sh("losetup", &["-d", &devices[1]]);
    assert_eq!(host.world(), before);
}
