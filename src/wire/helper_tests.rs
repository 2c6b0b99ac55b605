//! The bytes of every variant are frozen. A new variant gets its file by a run with
//! `BANGER_BLESS=1`; a file once committed never changes.

use std::fmt::Debug;
use std::path::PathBuf;

use super::*;
use crate::wire::codec::{decode, encode};

const VM: [u8; 16] = [0xab; 16];

fn process() -> WireProcess {
    WireProcess { pid: 4711, start_ticks: 123_456, host_boot_id: "boot".into() }
}

fn bodies() -> Vec<HelperBody> {
    use HelperBody as B;
    let bridge = || "br-fc".to_owned();
    vec![
        B::Status,
        B::EnsureBridge {
            bridge: bridge(),
            subnet: WireSubnet { network: [172, 16, 0, 0], prefix_len: 24 },
        },
        B::RemoveBridge { bridge: bridge() },
        B::EnsureTap { bridge: bridge(), tap: "bgtap0".into() },
        B::RemoveTap { tap: "bgtap0".into() },
        B::ListTaps { bridge: bridge() },
        B::EnsureNat { bridge: bridge(), vm: VM, address: [172, 16, 0, 2] },
        B::RemoveNat { bridge: bridge(), vm: VM, address: [172, 16, 0, 2] },
        B::ListNat { bridge: bridge() },
        B::SpawnVmm(SpawnVmm {
            vm: VM,
            program: "/usr/bin/qemu".into(),
            args: vec!["-uuid".into(), vm_uuid(VM)],
            log: "/var/lib/banger/vmm.log".into(),
        }),
        B::FindVmm { vm: VM },
        B::SignalVmm { vm: VM, process: process(), signal: 15 },
        B::EndVmm { vm: VM },
        B::ExitStatus { vm: VM, process: process() },
        B::AttachLoop { path: "/var/lib/banger/x.img".into(), read_only: true },
        B::DetachLoop { path: "/var/lib/banger/x.img".into() },
        B::ListLoops,
        B::EnsureSnapshot {
            vm: VM,
            base: "/var/lib/banger/images/a.ext4".into(),
            changes: "/var/lib/banger/vms/b/root.cow".into(),
            bytes: 1 << 30,
        },
        B::RemoveSnapshot { vm: VM },
        B::ListSnapshots,
        B::StartVmm(start()),
        B::Permits,
        B::SurveyNetwork { bridge: bridge() },
        B::CheckDisk {
            vm: VM,
            path: "/var/lib/banger/vms/b/work.ext4".into(),
            repair: true,
            log: "/var/lib/banger/vms/b/check.log".into(),
        },
        B::SurveyHost { after: Some(VM) },
    ]
}

fn start() -> StartVmm {
    let file = |path: &str, name: &str, access| WireJailFile {
        path: path.into(),
        name: name.into(),
        access,
    };
    StartVmm {
        vm: VM,
        program: "/usr/bin/firecracker".into(),
        args: vec!["--api-sock".into(), "/s/fc.sock".into()],
        log: "/var/lib/banger/vmm.log".into(),
        limits: WireLimits { memory_bytes: 512 << 20, cpus: 2, tasks: 64 },
        jail: Some(WireJail {
            tap: "bgtap3".into(),
            sockets: "/run/banger/abababababab/s".into(),
            files: vec![
                file("/var/lib/banger/base", "d0", WireAccess::Shared),
                file("/var/lib/banger/config", "d1", WireAccess::Private),
                file("/var/lib/banger/work", "d2", WireAccess::Writable),
            ],
        }),
    }
}

fn replies() -> Vec<(&'static str, HelperReply)> {
    use HelperOk as O;
    let exit = |how| O::Exit(Some(WireExit { unix_ms: 1_700_000_000_000, how }));
    let ok = |name, ok| (name, HelperReply::Ok(ok));
    vec![
        ok("done", O::Done),
        ok(
            "status",
            O::Status(StatusReport {
                version: "0.1.0".into(),
                pid: 1,
                uptime_ms: 2,
                owner_uid: 1000,
                capabilities: vec!["NET_ADMIN".into()],
                bridge: "br-fc".into(),
                tap_prefix: "bgtap".into(),
                table: "banger".into(),
                subnet: WireSubnet { network: [172, 16, 0, 0], prefix_len: 24 },
                vmms: vec![
                    VmmProgram { path: "/usr/bin/qemu".into(), refused: None },
                    VmmProgram { path: "/x".into(), refused: Some("missing".into()) },
                ],
                state_dir: "/var/lib/banger".into(),
                cgroup: Some("/sys/fs/cgroup".into()),
            }),
        ),
        ok("bridge", O::Bridge { forwarding_turned_on: true }),
        ok("bridge-removed", O::BridgeRemoved { ports_left: 3 }),
        ok("taps", O::Taps(vec!["bgtap0".into()])),
        ok("snapshots", O::Snapshots(vec![VM])),
        ok("nat", O::Nat(vec![NatEntry { vm: Some(VM), address: [172, 16, 0, 2] }])),
        ok("process", O::Process(Some(process()))),
        ok("no-process", O::Process(None)),
        ok("exit-unknown", exit(WireExitHow::Unknown)),
        ok("exit-status", exit(WireExitHow::Status(1))),
        ok("exit-signal", exit(WireExitHow::Signal(9))),
        ok("loop", O::Loop { device: "/dev/loop0".into() }),
        ok(
            "loops",
            O::Loops(vec![LoopEntry {
                device: "/dev/loop0".into(),
                path: "/x".into(),
                read_only: true,
            }]),
        ),
        ok(
            "permits",
            O::Permits(PermitReport {
                vmms: vec![VmmProgram { path: "/usr/bin/qemu".into(), refused: None }],
                jailer: Some(VmmProgram { path: "/usr/bin/jailer".into(), refused: None }),
                first_uid: 1_900_000_000,
                last_uid: 1_900_004_095,
            }),
        ),
        ok(
            "network",
            O::Network(NetworkReport {
                version: "0.1.0".into(),
                bridge: true,
                forwarding: true,
                table: false,
                taps: vec![TapReport { name: "bgtap0".into(), attached: true, used: false }],
                nat: vec![NatEntry { vm: Some(VM), address: [172, 16, 0, 2] }],
                drops: vec!["ip filter FORWARD".into()],
            }),
        ),
        ok("checked", O::Checked { status: 1 }),
        ok(
            "host",
            O::Host(HostReport {
                version: "0.1.0".into(),
                cgroups: true,
                vms: vec![VmReport {
                    vm: VM,
                    process: Some(WireSeen { pid: 4711, start_ticks: 123_456 }),
                    jailed: true,
                    cgroup: true,
                    device: false,
                    marked: true,
                }],
                more: true,
                loops: vec![LoopEntry {
                    device: "/dev/loop0".into(),
                    path: "/var/lib/banger/x.img".into(),
                    read_only: true,
                }],
            }),
        ),
        ("denied", HelperReply::Denied { reason: "no".into() }),
        ("failed", HelperReply::Failed { code: "host".into(), message: "m".into() }),
    ]
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/helper")
}

fn golden<T: Encode + Decode<()> + PartialEq + Debug>(name: &str, value: &T) {
    let path = fixtures().join(format!("{name}.hex"));
    let hex: String =
        encode(value).unwrap().iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    if std::env::var_os("BANGER_BLESS").is_some() && !path.exists() {
        std::fs::create_dir_all(fixtures()).unwrap();
        std::fs::write(&path, &hex).unwrap();
    }
    let kept = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("no golden bytes {}: {error}", path.display()));
    assert_eq!(hex, kept, "{name} is encoded differently");
    let bytes: Vec<u8> = (0..kept.trim().len() / 2)
        .map(|i| u8::from_str_radix(&kept[2 * i..2 * i + 2], 16).unwrap())
        .collect();
    assert_eq!(decode::<T>(&bytes).unwrap(), *value, "{name} is decoded differently");
}

#[test]
fn requests_have_their_golden_bytes() {
    for body in bodies() {
        let name = format!("request-{}", body.name());
        golden(&name, &HelperRequest { op_id: [7; 16], body });
    }
}

#[test]
fn replies_have_their_golden_bytes() {
    for (name, reply) in replies() {
        golden(&format!("reply-{name}"), &reply);
    }
}

#[test]
fn no_variant_is_without_golden_bytes() {
    // The variant's number is the second part of a request and the first of a reply: a number
    // that decodes and is not among the samples is a variant that nobody froze.
    let seen: Vec<u8> = bodies().iter().map(|body| encode(body).unwrap()[0]).collect();
    let count = u8::try_from(seen.len()).unwrap();
    assert_eq!(seen, (0..count).collect::<Vec<_>>());
    let beyond = [vec![count], vec![0; 200]].concat();
    let error = format!("{:?}", decode::<HelperBody>(&beyond));
    assert!(error.contains("UnexpectedVariant"), "{error}");
}

#[test]
fn the_greeting_is_frozen() {
    assert_eq!(HELPER.greeting().encode(), *b"BNGRHLPR\x01\x00\x01\x00\x00\x00\x00\x00");
}

#[test]
fn a_command_line_names_its_vm() {
    let uuid = vm_uuid(VM);
    assert_eq!(uuid, "abababab-abab-abab-abab-abababababab");
    let hex = "ab".repeat(16);
    assert!(names_vm(["-uuid", &uuid], VM));
    assert!(names_vm(["--id", &hex], VM));
    assert!(names_vm([format!("guest={hex},debug-threads=on").as_str()], VM));
    assert!(!names_vm([format!("/vms/{hex}/serial.log").as_str()], VM));
    assert!(!names_vm([format!("{hex}0").as_str()], VM));
    assert!(!names_vm([], VM));
    let upper = uuid.to_ascii_uppercase();
    let other = format!("guest={},x", "cd".repeat(16));
    let args = ["-uuid", &upper, &hex, &other, "/vms/y", "abab"];
    assert_eq!(named_vms(args), [VM, [0xcd; 16]]);
}
