//! The bytes of every variant, frozen. A failing line here means that running guests could no
//! longer be spoken to: add a variant or a version instead of changing one.

use std::net::Ipv4Addr;

use super::codec::{self, Decode, Encode};
use super::config::{Control, GuestConfig, NetConfig, RootLayout};
use super::control::{
    Adoption, CheckEnd, Fresh, GuestEvent, HostBody, HostRequest, ReadyInfo, ShutdownMode,
};
use super::exec::ExecRequest;
use super::image::{ImageStart, Init, Main};
use super::job::{JobInfo, JobReply, JobRequest, JobState, StartJob};
use super::{drive, exec};

pub(super) fn sample_config() -> GuestConfig {
    GuestConfig {
        vm_id: [1; 16],
        hostname: "vm".into(),
        net: Some(NetConfig {
            mac: [2, 0, 0, 0, 0, 5],
            address: Ipv4Addr::new(172, 16, 0, 2),
            prefix_len: 24,
            gateway: Ipv4Addr::new(172, 16, 0, 1),
            dns: vec![Ipv4Addr::new(1, 1, 1, 1)],
            search: Some("vm".into()),
        }),
        authorized_keys: vec!["k".into()],
        host_key: "h".into(),
        root: RootLayout::Overlay { base: [3; 16], overlay: [4; 16] },
        work: Some([5; 16]),
        env: vec![("A".into(), "b".into())],
        op_id: [6; 16],
        control: Control::VirtioSerial { name: "p".into() },
        ssh_port: 22,
    }
}

pub(super) fn sample_image() -> ImageStart {
    let main = Main {
        argv: vec!["a".into(), "b c".into()],
        cwd: Some("/srv".into()),
        user: "u".into(),
        stop_signal: Some("QUIT".into()),
    };
    ImageStart { init: Init::Systemd, directories: vec!["/srv".into()], main: Some(main) }
}

pub(super) fn sample_boot() -> drive::Boot {
    drive::Boot { guest: sample_config(), image: sample_image() }
}

const SAMPLE_IMAGE_HEX: &str = "0101042f737276010201610362206301042f7372760175010451554954";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `n` copies of a byte, in hex.
fn run(byte: &str, n: usize) -> String {
    byte.repeat(n)
}

#[track_caller]
fn golden<T: Encode + Decode<()> + PartialEq + std::fmt::Debug>(value: &T, expected: &str) {
    let bytes = codec::encode(value).unwrap();
    assert_eq!(hex(&bytes), expected);
    assert_eq!(&codec::decode::<T>(&bytes).unwrap(), value);
}

#[test]
fn host_requests() {
    let op = run("0a", 16);
    let case =
        |body, tail: &str| golden(&HostRequest { op_id: [10; 16], body }, &format!("{op}{tail}"));
    case(HostBody::Hello { contract: 1 }, "0001");
    case(HostBody::Ping, "01");
    case(HostBody::Sync, "02");
    case(HostBody::Shutdown { mode: ShutdownMode::PowerOff, grace_ms: 20_000 }, "0300fb204e");
    case(HostBody::Shutdown { mode: ShutdownMode::Reboot, grace_ms: 0 }, "030100");
    case(HostBody::SetClock { unix_nanos: 1 << 60 }, "04fd0000000000000010");
    case(HostBody::Resumed { unix_nanos: 1, entropy: [9; 64] }, &format!("0501{}", run("09", 64)));
    let fresh = Fresh { entropy: [9; 64], unix_nanos: 7 };
    let adoption = Adoption { config: sample_config(), fresh };
    let tail = format!("06{}{}07", sample_config_hex(), run("09", 64));
    case(HostBody::Adopt(Box::new(adoption.clone())), &tail);
    case(HostBody::Check { command: "c".into(), limit_ms: 5 }, "07016305");
    let tail = format!("08{}{}07{SAMPLE_IMAGE_HEX}", sample_config_hex(), run("09", 64));
    let adoption = Box::new(adoption);
    case(HostBody::AdoptFor { adoption, image: sample_image() }, &tail);
}

#[test]
fn guest_events() {
    let op = run("0b", 16);
    let ready = || ReadyInfo {
        contract: 1,
        agent_version: "a".into(),
        boot_id: "b".into(),
        kernel_release: "k".into(),
        os_name: "o".into(),
        ssh_port: 22,
        vsock: Some(22),
        boot_millis: 900,
    };
    golden(&GuestEvent::Ready(ready()), "000101610162016b016f160116fb8403");
    golden(
        &GuestEvent::Ready(ReadyInfo { vsock: None, ..ready() }),
        "000101610162016b016f1600fb8403",
    );
    golden(
        &GuestEvent::Adopted { op_id: [11; 16], ready: ready() },
        &format!("07{op}0101610162016b016f160116fb8403"),
    );
    golden(&GuestEvent::NotReady { stage: "s".into(), error: None }, "01017300");
    golden(&GuestEvent::NotReady { stage: "s".into(), error: Some("e".into()) }, "010173010165");
    golden(&GuestEvent::Pong { op_id: [11; 16] }, &format!("02{op}"));
    golden(&GuestEvent::Synced { op_id: [11; 16] }, &format!("03{op}"));
    golden(&GuestEvent::ShuttingDown { op_id: [11; 16] }, &format!("04{op}"));
    golden(&GuestEvent::Failed { op_id: [11; 16], message: "m".into() }, &format!("05{op}016d"));
    golden(&GuestEvent::CheckRuns { op_id: [11; 16] }, &format!("08{op}"));
    for (end, tail) in [
        (CheckEnd::Exited(-1), "0001"),
        (CheckEnd::Exited(1), "0002"),
        (CheckEnd::Killed(9), "0112"),
        (CheckEnd::TimedOut, "02"),
        (CheckEnd::NotStarted("n".into()), "03016e"),
    ] {
        let checked = GuestEvent::Checked { op_id: [11; 16], end, output: vec![7, 8] };
        golden(&checked, &format!("09{op}{tail}020708"));
    }
    golden(&GuestEvent::Resumed { op_id: [11; 16], boot_id: "b".into() }, &format!("06{op}0162"));
}

#[test]
fn config_variants() {
    golden(
        &RootLayout::Overlay { base: [3; 16], overlay: [4; 16] },
        &format!("00{}{}", run("03", 16), run("04", 16)),
    );
    golden(&RootLayout::Plain { disk: [3; 16] }, &format!("01{}", run("03", 16)));
    golden(&Control::VirtioSerial { name: "p".into() }, "000170");
    golden(&Control::Vsock { port: 1024 }, "01fb0004");
    golden(&Init::Any, "00");
    golden(&Init::Systemd, "01");
    golden(&Init::Program("/init".into()), "02052f696e6974");
    golden(&sample_image(), SAMPLE_IMAGE_HEX);
}

fn sample_config_hex() -> String {
    [
        &*run("01", 16),
        "02766d",
        "01020000000005ac10000218ac10000101010101010102766d",
        "01016b",
        "0168",
        &format!("00{}{}", run("03", 16), run("04", 16)),
        &format!("01{}", run("05", 16)),
        "0101410162",
        &run("06", 16),
        "000170",
        "16",
    ]
    .concat()
}

#[test]
fn config_drive() {
    let drive = |payload: &str, sum: &str| {
        let length = u32::try_from(payload.len() / 2).unwrap().to_le_bytes();
        format!("{}{}{payload}{sum}", hex(b"BNGRCFG1"), hex(&length))
    };
    let expected = drive(&format!("01{}{SAMPLE_IMAGE_HEX}", sample_config_hex()), "16bb5bb8");
    let bytes = drive::encode(&sample_boot()).unwrap();
    let (used, padding) = bytes.split_at(expected.len() / 2);
    assert_eq!(hex(used), expected);
    assert!(padding.iter().all(|byte| *byte == 0));
    // As it was written before images said how they are run.
    let first = drive(&format!("00{}", sample_config_hex()), "a641932e");
    let byte = |at: usize| u8::from_str_radix(&first[at..at + 2], 16).unwrap();
    let first: Vec<u8> = (0..first.len()).step_by(2).map(byte).collect();
    assert_eq!(drive::decode(&first).unwrap(), sample_config().into());
}

#[test]
fn exec_request() {
    let request = ExecRequest {
        argv: vec!["a".into(), "b c".into()],
        env: vec![("A".into(), "b".into())],
        cwd: Some("/".into()),
        op_id: [12; 16],
    };
    let expected = format!("{}0002016103622063010141016201012f{}", hex(exec::MARK), run("0c", 16));
    assert_eq!(hex(&exec::encode(&request).unwrap()), expected);
}

#[test]
fn jobs() {
    let start = StartJob {
        argv: vec!["a".into()],
        env: vec![("A".into(), "b".into())],
        cwd: Some("/".into()),
        user: "u".into(),
        op_id: [12; 16],
    };
    golden(&JobRequest::Start(start), &format!("00010161010141016201012f0175{}", run("0c", 16)));
    golden(&JobRequest::List, "01");
    golden(&JobRequest::Output { id: 7, follow: true }, "020701");
    golden(&JobReply::Started { id: 7 }, "0007");
    for (state, tail) in [
        (JobState::Running, "00"),
        (JobState::Exited(-1), "0101"),
        (JobState::Killed(9), "0212"),
        (JobState::Lost, "03"),
    ] {
        let job = JobInfo {
            id: 1,
            argv: vec!["a".into()],
            user: "u".into(),
            pid: 2,
            started_unix_ms: 3,
            ended_unix_ms: Some(4),
            state,
        };
        golden(&JobReply::Jobs(vec![job]), &format!("010101010161017502030104{tail}"));
    }
}
