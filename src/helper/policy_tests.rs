//! Whatever passes names only what the configuration allows.

use proptest::prelude::*;

use super::*;
use crate::helper::config::tests::config;
use crate::wire::helper::{WireProcess, WireSubnet, vm_uuid};

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

/// Words that an attacker would try, besides random ones.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("br-fc".to_owned()),
        Just("bgtap3".to_owned()),
        Just("/usr/bin/qemu".to_owned()),
        Just("/var/lib/banger/vms/a/vmm.log".to_owned()),
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
        (vm(), identity(), -70..70_i32).prop_map(|(vm, process, signal)| B::SignalVmm {
            vm,
            process,
            signal
        }),
        (vm(), identity()).prop_map(|(vm, process)| B::ExitStatus { vm, process }),
        (word(), any::<bool>()).prop_map(|(path, read_only)| B::AttachLoop { path, read_only }),
        word().prop_map(|path| B::DetachLoop { path }),
    ]
}

fn assert_below_state(path: &Path) {
    assert!(path.starts_with("/var/lib/banger/") && path != Path::new("/var/lib/banger"));
    let text = path.to_str().unwrap();
    assert!(!text.contains("..") || !text.split('/').any(|part| part == ".."), "{text}");
    assert!(!text.contains('\0'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

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
                prop_assert!(["/usr/bin/qemu", "/opt/q/qemu"].contains(&program));
                prop_assert!(spawn.args.iter().all(|arg| !arg.contains('\0')));
                assert_below_state(&spawn.log);
            }
            Plan::Signal { process, signal, .. } => {
                prop_assert!(process.pid > 1 && SIGNALS.contains(&signal));
            }
            Plan::AttachLoop { path, .. } | Plan::DetachLoop { path } => assert_below_state(&path),
            _ => {}
        }
    }
}
