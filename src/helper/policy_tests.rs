//! Whatever passes names only what the configuration allows.

use proptest::prelude::*;

use super::*;
use crate::helper::config::tests::config;
use crate::wire::helper::{WireJailFile, WireProcess, WireSubnet, vm_uuid};

const VM: [u8; 16] = [0xab; 16];

fn ask(body: HelperBody) -> Result<Plan, Denied> {
    policy(&config(), 1000, &HelperRequest { op_id: [1; 16], body })
}

fn spawn() -> SpawnVmm {
    SpawnVmm {
        vm: VM,
        program: "/usr/bin/qemu".into(),
        args: vec!["-uuid".into(), vm_uuid(VM)],
        log: "/var/lib/banger/vms/x/vmm.log".into(),
    }
}

fn snapshot(base: &str, changes: &str, bytes: u64) -> HelperBody {
    HelperBody::EnsureSnapshot { vm: VM, base: base.into(), changes: changes.into(), bytes }
}

#[test]
fn snapshots_are_of_files_that_are_the_vms() {
    let own = format!("/var/lib/banger/vms/{}/root.cow", VmId(VM));
    let others = format!("/var/lib/banger/vms/{}/root.cow", VmId([1; 16]));
    for body in [
        snapshot("/etc/shadow", &own, 4096),
        snapshot("/var/lib/banger/../b", &own, 4096),
        snapshot("/var/lib/banger/b", &others, 4096),
        snapshot("/var/lib/banger/b", "/dev/vda", 4096),
        snapshot("/var/lib/banger/b", &own, 0),
        snapshot("/var/lib/banger/b", &own, u64::MAX),
    ] {
        assert!(ask(body.clone()).is_err(), "{body:?}");
    }
}

#[test]
fn only_disks_of_the_vm_itself_are_checked() {
    let check = |path: &str, log: &str| {
        let (path, log) = (path.to_owned(), log.to_owned());
        ask(HelperBody::CheckDisk { vm: VM, path, repair: false, log })
    };
    let log = "/var/lib/banger/check.log";
    let own = format!("/var/lib/banger/vms/{}/work.ext4", VmId(VM));
    let device = format!("/dev/banger/{}", VmId(VM));
    for path in [&own, &device] {
        let Ok(Plan::Check(plan)) = check(path, log) else { panic!("{path} is not checked") };
        assert_eq!(plan.path, Path::new(path));
    }
    for path in [
        format!("/var/lib/banger/vms/{}/work.ext4", VmId([1; 16])),
        format!("/dev/banger/{}", VmId([1; 16])),
        format!("/dev/banger/../{}/x", VmId(VM)),
        format!("/srv/{}/work.ext4", VmId(VM)),
        "/dev/vda".to_owned(),
    ] {
        assert!(check(&path, log).is_err(), "{path}");
    }
    assert!(check(&own, "/etc/passwd").is_err());
}

fn jail() -> WireJail {
    let file = |path: &str, name: &str, access| WireJailFile {
        path: path.into(),
        name: name.into(),
        access,
    };
    WireJail {
        tap: "bgtap3".into(),
        sockets: "/run/banger/abababababab/s".into(),
        files: vec![
            file("/var/lib/banger/images/a", "d0", WireAccess::Shared),
            file(&format!("/dev/banger/{}", VmId(VM)), "d1", WireAccess::Writable),
        ],
    }
}

fn start() -> StartVmm {
    StartVmm {
        vm: VM,
        program: "/usr/bin/qemu".into(),
        args: vec!["--api-sock".into(), "/s/fc.sock".into()],
        log: "/var/lib/banger/vms/x/vmm.log".into(),
        limits: WireLimits { memory_bytes: 512 << 20, cpus: 2, tasks: 64 },
        jail: Some(jail()),
    }
}

fn jailed(change: impl FnOnce(&mut WireJail)) -> HelperBody {
    let mut jail = jail();
    change(&mut jail);
    HelperBody::StartVmm(StartVmm { jail: Some(jail), ..start() })
}

fn limited(change: impl FnOnce(&mut WireLimits)) -> HelperBody {
    let mut start = start();
    change(&mut start.limits);
    HelperBody::StartVmm(start)
}

fn process(pid: u32) -> WireProcess {
    WireProcess { pid, start_ticks: 5, host_boot_id: "1b2c-3d".into() }
}

#[test]
fn only_root_and_the_owner_may_ask() {
    let request = HelperRequest { op_id: [1; 16], body: HelperBody::Status };
    for (uid, allowed) in [(0, true), (1000, true), (1001, false), (65534, false)] {
        assert_eq!(policy(&config(), uid, &request).is_ok(), allowed, "{uid}");
        assert_eq!(admit(&config(), uid).is_ok(), allowed, "{uid}");
    }
}

#[test]
fn what_the_daemon_asks_passes() {
    let bridge = || "br-fc".to_owned();
    let subnet = WireSubnet { network: [172, 16, 0, 0], prefix_len: 24 };
    for body in [
        HelperBody::EnsureBridge { bridge: bridge(), subnet },
        HelperBody::RemoveBridge { bridge: bridge() },
        HelperBody::EnsureTap { bridge: bridge(), tap: "bgtap0".into() },
        HelperBody::RemoveTap { tap: "bgtap65535".into() },
        HelperBody::EnsureNat { bridge: bridge(), vm: VM, address: [172, 16, 0, 254] },
        HelperBody::SpawnVmm(spawn()),
        HelperBody::SpawnVmm(SpawnVmm { program: "/opt/q/qemu".into(), ..spawn() }),
        HelperBody::SignalVmm { vm: VM, process: process(77), signal: 15 },
        HelperBody::AttachLoop { path: "/var/lib/banger/a.img".into(), read_only: false },
        snapshot("/var/lib/banger/i.ext4", &format!("/var/lib/banger/vms/{}/c", VmId(VM)), 4096),
        HelperBody::StartVmm(start()),
        HelperBody::StartVmm(StartVmm { args: spawn().args, jail: None, ..start() }),
        jailed(|jail| jail.tap = "bgtap4094".into()),
        HelperBody::Permits,
        HelperBody::SurveyNetwork { bridge: bridge() },
        HelperBody::SurveyHost { after: Some(VM) },
        HelperBody::SignalVmm { vm: VM, process: process(77), signal: 18 },
    ] {
        assert!(ask(body.clone()).is_ok(), "{body:?}: {:?}", ask(body.clone()));
    }
}

#[test]
fn what_is_not_ours_is_denied() {
    let bridge = || "br-fc".to_owned();
    let tap = |tap: &str| HelperBody::EnsureTap { bridge: bridge(), tap: tap.into() };
    let nat = |address| HelperBody::EnsureNat { bridge: bridge(), vm: VM, address };
    let signal = |pid, signal| HelperBody::SignalVmm { vm: VM, process: process(pid), signal };
    let subnet = |network, prefix_len| HelperBody::EnsureBridge {
        bridge: bridge(),
        subnet: WireSubnet { network, prefix_len },
    };
    let args = |args: Vec<String>| HelperBody::SpawnVmm(SpawnVmm { args, ..spawn() });
    let log = |log: &str| HelperBody::SpawnVmm(SpawnVmm { log: log.into(), ..spawn() });
    let program =
        |program: &str| HelperBody::SpawnVmm(SpawnVmm { program: program.into(), ..spawn() });
    let attach = |path: &str| HelperBody::AttachLoop { path: path.into(), read_only: true };
    for body in [
        HelperBody::RemoveBridge { bridge: "docker0".into() },
        subnet([10, 0, 0, 0], 24),
        subnet([172, 16, 0, 0], 25),
        subnet([172, 16, 0, 0], 99),
        tap("eth0"),
        tap("bgtap"),
        tap("bgtap+1"),
        tap("bgtap01"),
        tap("bgtap65536"),
        tap("bgtap1\0"),
        tap("bgtap1/../x"),
        nat([172, 16, 0, 0]),
        nat([172, 16, 0, 1]),
        nat([172, 16, 0, 255]),
        nat([8, 8, 8, 8]),
        signal(77, 19),
        signal(77, 0),
        signal(77, -9),
        signal(1, 15),
        signal(0, 15),
        signal(u32::MAX, 15),
        args(vec![]),
        args(vec!["-uuid".into(), vm_uuid([1; 16])]),
        args(vec!["x\0".into(), vm_uuid(VM)]),
        args(vec!["x".repeat(9000), vm_uuid(VM)]),
        args(vec![vm_uuid(VM); 513]),
        log("/etc/passwd"),
        log("/var/lib/banger"),
        log("/var/lib/banger/../x"),
        log("/var/lib/banger/vms/../../../../etc/shadow"),
        log("/var/lib/bangerx/a.log"),
        log("vmm.log"),
        program("/bin/sh"),
        program("/usr/bin//qemu"),
        program("/usr/bin/../bin/qemu"),
        program("qemu"),
        attach("/dev/vda"),
        attach("/var/lib/banger/"),
        HelperBody::DetachLoop { path: "/srv/other.img".into() },
    ] {
        assert!(ask(body.clone()).is_err(), "{body:?}");
    }
}

#[test]
fn a_jail_holds_only_what_is_the_vms() {
    let name = |name: &str| jailed(|jail| jail.files[0].name = name.into());
    let path = |path: &str| jailed(|jail| jail.files[0].path = path.into());
    let sockets = |path: &str| jailed(|jail| jail.sockets = path.into());
    let tap = |tap: &str| jailed(|jail| jail.tap = tap.into());
    for body in [
        HelperBody::StartVmm(StartVmm { jail: None, ..start() }),
        HelperBody::StartVmm(StartVmm { program: "/bin/sh".into(), ..start() }),
        HelperBody::StartVmm(StartVmm { log: "/etc/x".into(), ..start() }),
        HelperBody::StartVmm(StartVmm { args: vec!["x\0".into()], ..start() }),
        limited(|limits| limits.memory_bytes = 0),
        limited(|limits| limits.cpus = 0),
        limited(|limits| limits.tasks = 0),
        limited(|limits| limits.tasks = u32::MAX),
        // Beyond the range of users, and its last.
        tap("bgtap4095"),
        tap("bgtap4096"),
        tap("eth0"),
        name(""),
        name("."),
        name(".."),
        name("a/b"),
        name("../x"),
        name("a\0"),
        name("s"),
        name("dev"),
        name("run"),
        // The program's own copy, and the jailer's note of its pid; by its real name.
        name("qemu"),
        name("qemu.pid"),
        // Twice the same.
        name("d1"),
        name(&"x".repeat(33)),
        path("/etc/shadow"),
        path("/var/lib/banger"),
        path("/var/lib/banger/../../../etc/shadow"),
        path("/dev/vda"),
        path("/dev/banger/../vda"),
        // Another VM's device.
        path(&format!("/dev/banger/{}", VmId([1; 16]))),
        sockets("/run/banger"),
        sockets("/run/bangerx/s"),
        sockets("/run/banger/../../etc"),
        sockets("/var/lib/banger/s"),
        jailed(|jail| jail.files = vec![jail.files[0].clone(); 65]),
    ] {
        assert!(ask(body.clone()).is_err(), "{body:?}");
    }
    let config = Config { jails: None, ..config() };
    let request = HelperRequest { op_id: [1; 16], body: HelperBody::StartVmm(start()) };
    assert!(policy(&config, 1000, &request).unwrap_err().0.contains("no jailer"));
}

#[test]
fn each_tap_has_a_user_of_its_own() {
    for (tap, uid) in [("bgtap0", 1_900_000_000), ("bgtap4094", 1_900_004_094)] {
        let Ok(Plan::Spawn(plan)) = ask(jailed(|jail| jail.tap = tap.into())) else {
            panic!("{tap} refused")
        };
        assert_eq!(plan.jail.unwrap().uid, uid);
    }
}

/// Words that an attacker would try, besides random ones.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("br-fc".to_owned()),
        Just("bgtap3".to_owned()),
        Just("/usr/bin/qemu".to_owned()),
        Just("/var/lib/banger/vms/a/vmm.log".to_owned()),
        Just(format!("/var/lib/banger/vms/{}/changes", VmId(VM))),
        Just("/run/banger/a/s".to_owned()),
        Just(vm_uuid(VM)),
        "(br-fc|bgtap|eth|docker)[0-9+./ ]{0,12}",
        "/var/lib/banger(/|x|\\.\\.|[a-z]{0,3}|\0){0,8}",
        "[/.a-z\0]{0,24}",
        any::<String>(),
    ]
}

fn vm() -> impl Strategy<Value = [u8; 16]> {
    prop_oneof![Just(VM), any::<[u8; 16]>()]
}

fn identity() -> impl Strategy<Value = WireProcess> {
    (any::<u32>(), any::<u64>(), "[0-9a-f-]{0,70}|.{0,9}")
        .prop_map(|(pid, start_ticks, host_boot_id)| WireProcess { pid, start_ticks, host_boot_id })
}

fn address() -> impl Strategy<Value = [u8; 4]> {
    prop_oneof![any::<[u8; 4]>(), any::<u8>().prop_map(|last| [172, 16, 0, last])]
}

fn start_body() -> impl Strategy<Value = HelperBody> {
    let file = (word(), "(d0|s|dev|qemu|[a-z./\0]{0,4})").prop_map(|(path, name)| WireJailFile {
        path,
        name,
        access: WireAccess::Writable,
    });
    let jail = (word(), word(), proptest::collection::vec(file, 0..4))
        .prop_map(|(tap, sockets, files)| WireJail { tap, sockets, files });
    let jail = proptest::option::of(jail);
    (vm(), word(), word(), any::<u64>(), any::<u32>(), jail).prop_map(
        |(vm, program, log, memory_bytes, tasks, jail)| {
            let limits = WireLimits { memory_bytes, cpus: 1, tasks };
            HelperBody::StartVmm(StartVmm { vm, program, args: vec![], log, limits, jail })
        },
    )
}

fn body() -> impl Strategy<Value = HelperBody> {
    use HelperBody as B;
    let subnet =
        (address(), 0..40_u8).prop_map(|(network, prefix_len)| WireSubnet { network, prefix_len });
    let spawn = (vm(), word(), proptest::collection::vec(word(), 0..6), word())
        .prop_map(|(vm, program, args, log)| SpawnVmm { vm, program, args, log });
    prop_oneof![
        (word(), subnet).prop_map(|(bridge, subnet)| B::EnsureBridge { bridge, subnet }),
        word().prop_map(|bridge| B::RemoveBridge { bridge }),
        (word(), word()).prop_map(|(bridge, tap)| B::EnsureTap { bridge, tap }),
        word().prop_map(|tap| B::RemoveTap { tap }),
        (word(), vm(), address()).prop_map(|(bridge, vm, address)| B::EnsureNat {
            bridge,
            vm,
            address
        }),
        (word(), vm(), address()).prop_map(|(bridge, vm, address)| B::RemoveNat {
            bridge,
            vm,
            address
        }),
        spawn.prop_map(B::SpawnVmm),
        start_body(),
        (vm(), identity(), -70..70_i32).prop_map(|(vm, process, signal)| B::SignalVmm {
            vm,
            process,
            signal
        }),
        (vm(), identity()).prop_map(|(vm, process)| B::ExitStatus { vm, process }),
        (word(), any::<bool>()).prop_map(|(path, read_only)| B::AttachLoop { path, read_only }),
        word().prop_map(|path| B::DetachLoop { path }),
        (vm(), word(), word(), any::<u64>()).prop_map(|(vm, base, changes, bytes)| {
            B::EnsureSnapshot { vm, base, changes, bytes }
        }),
        (vm(), word(), any::<bool>(), word())
            .prop_map(|(vm, path, repair, log)| { B::CheckDisk { vm, path, repair, log } }),
        vm().prop_map(|vm| B::SurveyHost { after: Some(vm) }),
    ]
}

/// How many are made up: some ten thousand, or what `BANGER_POLICY_REQUESTS` says.
fn requests() -> u32 {
    let told = std::env::var("BANGER_POLICY_REQUESTS").ok();
    told.map_or(20_000, |text| text.parse().unwrap())
}

fn assert_below_state(path: &Path) {
    assert!(path.starts_with("/var/lib/banger/") && path != Path::new("/var/lib/banger"));
    let text = path.to_str().unwrap();
    assert!(!text.contains("..") || !text.split('/').any(|part| part == ".."), "{text}");
    assert!(!text.contains('\0'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(requests()))]

    #[test]
    fn a_plan_names_only_what_is_allowed(body in body()) {
        let Ok(plan) = ask(body) else { return Ok(()) };
        match plan {
            Plan::EnsureTap { tap } | Plan::RemoveTap { tap } => {
                let digits = tap.0.strip_prefix("bgtap").unwrap();
                prop_assert!(tap.0.len() <= 15 && !digits.is_empty());
                prop_assert!(digits.chars().all(|c| c.is_ascii_digit()));
            }
            Plan::EnsureNat { address, .. } | Plan::RemoveNat { address, .. } => {
                prop_assert!(config().subnet.guests().any(|guest| guest == address));
            }
            Plan::Spawn(spawn) => {
                let program = spawn.program.to_str().unwrap();
                prop_assert_eq!(program, "/opt/q/qemu");
                prop_assert!(spawn.args.iter().all(|arg| !arg.contains('\0')));
                assert_below_state(&spawn.log);
                if let Some(jail) = spawn.jail {
                    let slot = jail.tap.slot("bgtap").unwrap();
                    prop_assert_eq!(jail.uid, 1_900_000_000 + u32::from(slot));
                    prop_assert!(jail.sockets.starts_with("/run/banger/"));
                    for file in &jail.files {
                        if file.path != snapshot::path(spawn.vm) {
                            assert_below_state(&file.path);
                        }
                        prop_assert!(!["s", "dev", "qemu", ".", ".."].contains(&&*file.name));
                        prop_assert!(!file.name.contains(['/', '\0']));
                    }
                }
            }
            Plan::Signal { process, signal, .. } => {
                prop_assert!(process.pid > 1 && SIGNALS.contains(&signal));
            }
            Plan::AttachLoop { path, .. } | Plan::DetachLoop { path } => assert_below_state(&path),
            Plan::EnsureSnapshot(SnapshotPlan { vm, base, changes, bytes }) => {
                assert_below_state(&base);
                assert_below_state(&changes);
                let vm = vm.to_string();
                prop_assert!(changes.components().any(|part| part.as_os_str() == vm.as_str()));
                prop_assert!(bytes > 0 && bytes <= MAX_DISK_BYTES);
            }
            Plan::Check(CheckPlan { vm, path, log, .. }) => {
                assert_below_state(&log);
                if path != snapshot::path(vm) {
                    assert_below_state(&path);
                }
            }
            // They name the bridge, the table and the VMs of this helper, or nothing.
            Plan::Status
            | Plan::EnsureBridge
            | Plan::RemoveBridge
            | Plan::ListTaps
            | Plan::ListNat
            | Plan::Find { .. }
            | Plan::End { .. }
            | Plan::Exit { .. }
            | Plan::ListLoops
            | Plan::RemoveSnapshot { .. }
            | Plan::ListSnapshots
            | Plan::Survey
            | Plan::SurveyHost { .. }
            | Plan::Permits => {}
        }
    }
}
