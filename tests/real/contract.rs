//! What is relied on of Firecracker, asked of the fake one and of a real one alike: so the fake
//! one is known to be right. None of it needs KVM, for no guest is started; what comes after a
//! start is asked of the fake one, and of the real one by the daemon in `firecracker`.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use banger_agent::contract::config::{Control, GuestConfig, RootLayout};
use banger_agent::contract::control::{
    ENTROPY_BYTES, FrameReader, GuestEvent, HostBody, HostRequest, ShutdownMode, VSOCK_PORT,
    encode_frame,
};
use banger_agent::contract::drive;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{Process, Vmm, answer, until};

/// Both of them, or the fake one and a line about the other.
fn each(test: impl Fn(&Vmm)) {
    test(&Vmm::Fake);
    match Vmm::real() {
        Some(real) => test(&real),
        None => eprintln!("skipped with a real Firecracker: FIRECRACKER_BIN is not set"),
    }
}

const FAULTS: &str = "version 1.17.0";

fn fault(words: &str) -> (u16, Value) {
    (400, json!({ "fault_message": words }))
}

#[test]
fn requests_are_taken_or_refused_in_the_same_words() {
    let fine = || (204, Value::Null);
    let missing = "No such file or directory (os error 2)";
    let parse = |words: &str| {
        fault(&format!("An error occurred when deserializing the json body of a request: {words}."))
    };
    let early = || fault("The requested operation is not supported before starting the microVM.");
    let drive = r#"{"drive_id":"d0","path_on_host":"disk","is_root_device":false,"is_read_only":true,"cache_type":"Writeback","io_engine":"Sync"}"#;
    let vsock = |path: &str| format!(r#"{{"guest_cid":3,"uds_path":"{path}"}}"#);
    let vsock_fault = |why: &str| {
        fault(&format!(
            "Vsock config error: Cannot create backend for vsock device: Error binding to the \
             host-side Unix socket: {why}"
        ))
    };
    #[rustfmt::skip]
    let table: Vec<(&str, &str, String, (u16, Value))> = vec![
        ("GET", "/nope", "".into(), fault("Invalid request method and/or path: GET nope.")),
        ("GET", "/version", "{}".into(), fault("GET request cannot have a body.")),
        ("PUT", "/vsock", "".into(), fault("Empty PUT request.")),
        ("PUT", "/actions", r#"{"action_type":"InstanceStart"}"#.into(), fault("Start microvm error: Cannot start microvm without kernel configuration.")),
        ("PUT", "/actions", r#"{"action_type":"FlushMetrics"}"#.into(), early()),
        ("PUT", "/actions", r#"{"action_type":"SendCtrlAltDel"}"#.into(), early()),
        ("PUT", "/actions", r#"{"action_type":"Nope"}"#.into(), parse("unknown variant `Nope`, expected one of `FlushMetrics`, `InstanceStart`, `SendCtrlAltDel` at line 1 column 21")),
        ("PATCH", "/vm", r#"{"state":"Paused"}"#.into(), early()),
        ("PUT", "/snapshot/create", r#"{"snapshot_path":"s","mem_file_path":"m"}"#.into(), early()),
        ("PUT", "/boot-source", r#"{"kernel_image_path":"nope"}"#.into(), fault(&format!("Boot source error: The kernel file cannot be opened: {missing}"))),
        ("PUT", "/boot-source", r#"{"kernel_image_path":"kernel","initrd_path":"nope"}"#.into(), fault(&format!("Boot source error: The initrd file cannot be opened due to invalid path or invalid permissions. {missing}"))),
        ("PUT", "/boot-source", r#"{"kernel_image_path":"kernel","colour":1}"#.into(), parse("unknown field `colour`, expected one of `kernel_image_path`, `initrd_path`, `boot_args` at line 1 column 38")),
        ("PUT", "/boot-source", r#"{"kernel_image_path":"kernel","boot_args":"quiet"}"#.into(), fine()),
        ("PUT", "/machine-config", r#"{"vcpu_count":33,"mem_size_mib":128}"#.into(), fault("Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is enabled.")),
        ("PUT", "/machine-config", r#"{"vcpu_count":1}"#.into(), parse("missing field `mem_size_mib` at line 1 column 16")),
        ("PUT", "/machine-config", r#"{"vcpu_count":3,"mem_size_mib":128}"#.into(), fine()),
        ("PUT", "/drives/a-b", drive.into(), fault("API Resource IDs can only contain alphanumeric characters and underscores.")),
        ("PUT", "/drives/d1", drive.into(), fault("The id from the path does not match the id from the body!")),
        ("PUT", "/drives/d0", drive.replace("disk", "nope"), fault(&format!("Drive config error: Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: {missing} nope"))),
        ("PUT", "/drives/d0", drive.into(), fine()),
        ("PUT", "/drives/d0", drive.into(), fine()),
        ("PUT", "/network-interfaces/net0", r#"{"iface_id":"net1","host_dev_name":"x"}"#.into(), fault("The id from the path [net0] does not match the id from the body [net1]!")),
        ("PUT", "/network-interfaces/net0", r#"{"iface_id":"net0","host_dev_name":"a-name-that-is-too-long"}"#.into(), fault("Network config error: Could not create the network device: Open tap device failed: Invalid interface name")),
        ("PUT", "/vsock", vsock("/nonexistent/v"), vsock_fault(missing)),
        ("PUT", "/vsock", vsock("disk"), vsock_fault("Address already in use (os error 98)")),
        ("PUT", "/vsock", vsock(&"v".repeat(120)), vsock_fault("path must be shorter than SUN_LEN")),
        ("PUT", "/vsock", vsock("v.sock"), fine()),
        ("PUT", "/vsock", vsock("v.sock"), fine()),
        ("PUT", "/entropy", "{}".into(), fine()),
        ("PUT", "/serial", r#"{"serial_out_path":"serial"}"#.into(), fine()),
        ("PUT", "/metrics", r#"{"metrics_path":"metrics"}"#.into(), fine()),
        ("PUT", "/metrics", r#"{"metrics_path":"metrics"}"#.into(), fault("Metrics error: Cannot initialize the metrics system due to bad user input: Reinitialization of metrics not allowed.")),
        ("PUT", "/snapshot/load", r#"{"snapshot_path":"s","mem_backend":{"backend_type":"File","backend_path":"m"}}"#.into(), fault("Load snapshot error: Loading a microVM snapshot not allowed after configuring boot-specific resources.")),
        ("GET", "/machine-config", "".into(), (200, json!({"vcpu_count":3,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,"huge_pages":"None"}))),
    ];
    each(|vmm| {
        let process = Process::start(vmm, FAULTS);
        for (method, path, body, expected) in &table {
            let said = process.ask(method, path, body);
            assert_eq!(said, *expected, "{method} {path} {body} of {vmm:?}");
        }
        let (_, info) = process.ask("GET", "/", "");
        assert_eq!((&info["id"], &info["state"]), (&json!("a-vm"), &json!("Not started")));
        let (_, version) = process.ask("GET", "/version", "");
        assert_eq!(info["vmm_version"], version["firecracker_version"]);
        assert!(process.dir.path().join("v.sock").exists(), "{vmm:?}");
    });
}

#[test]
fn the_http_layer_has_its_limits() {
    each(|vmm| {
        let process = Process::start(vmm, FAULTS);
        let put = "PUT /entropy HTTP/1.1\r\nHost: localhost\r\n";
        let chunked = process.say(&format!("{put}Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n"));
        assert_eq!(chunked.0, 400, "{vmm:?}");
        assert!(chunked.1.to_string().contains("Invalid request."), "{chunked:?}");
        let long = process.say(&format!("{put}Content-Length: 51201\r\n\r\n{}", " ".repeat(51201)));
        assert!(long.1.to_string().contains("51201 is larger than the limit of 51200"), "{long:?}");
        let (status, _) = process.ask("POST", "/entropy", "{}");
        assert_eq!(status, 400, "{vmm:?}");
        // One connection takes one request after the other.
        let mut stream = UnixStream::connect(process.socket()).unwrap();
        for _ in 0..2 {
            let request = format!("{put}Content-Length: 2\r\n\r\n{{}}");
            stream.write_all(request.as_bytes()).unwrap();
            assert_eq!(answer(&mut stream).0, 204, "{vmm:?}");
        }
    });
}

#[test]
fn processes_end_with_the_same_codes_and_leave_their_sockets() {
    each(|vmm| {
        let process = Process::prepare(vmm, FAULTS);
        let version = process.run(&["--version"]).expect(0).stdout;
        let first = version.lines().next().unwrap();
        assert!(first.starts_with("Firecracker v1."), "{first}");
        assert!(process.run(&["--snapshot-version"]).expect(0).stdout.starts_with('v'));
        process.run(&["--colour", "red"]).expect(153);
        process.run(&["--api-sock"]).expect(153);
        process.run(&["--id", "a_b", "--api-sock", "x.sock"]);
        std::fs::write(process.socket(), "").unwrap();
        let in_the_way = process.run(&["--api-sock", "api.sock", "--id", "a"]).expect(1);
        assert!(in_the_way.stdout.contains("Failed to open the API socket"), "{in_the_way:?}");

        for (signal, code, by) in
            [(Signal::SIGHUP, Some(156), None), (Signal::SIGTERM, None, Some(15))]
        {
            let mut process = Process::start(vmm, FAULTS);
            kill(Pid::from_raw(process.pid()), signal).unwrap();
            let status = process.ended();
            assert_eq!((status.code(), status.signal()), (code, by), "{vmm:?}");
            assert!(process.socket().exists(), "{vmm:?} leaves its socket");
        }
    });
}

/// Of all that a snapshot can be refused for, one that is not there needs no guest.
#[test]
fn a_snapshot_that_cannot_be_loaded_ends_the_process() {
    let load = r#"{"snapshot_path":"s","mem_backend":{"backend_type":"File","backend_path":"m"}}"#;
    each(|vmm| {
        let mut process = Process::start(vmm, FAULTS);
        let said = process.ask("PUT", "/snapshot/load", load);
        let words = "Load snapshot error: Failed to restore from snapshot: Failed to get snapshot \
                     state from file: Failed to open snapshot file: No such file or directory \
                     (os error 2)";
        assert_eq!(said, fault(words), "{vmm:?}");
        assert_eq!(process.ended().code(), Some(1), "{vmm:?}");
    });
}

/// A fake one whose guest was started, and the event by which that guest told of itself.
fn started(faults: &str) -> (Process, GuestEvent) {
    let process = Process::start(&Vmm::Fake, faults);
    let config = GuestConfig {
        vm_id: [1; 16],
        hostname: "played".into(),
        net: None,
        authorized_keys: vec![],
        host_key: String::new(),
        root: RootLayout::Plain { disk: [0; 16] },
        work: None,
        env: vec![],
        op_id: [2; 16],
        control: Control::Vsock { port: VSOCK_PORT },
        ssh_port: 22,
    };
    fs::write(process.dir.path().join("disk"), drive::encode(&config.into()).unwrap()).unwrap();
    let listener = UnixListener::bind(process.dir.path().join("v.sock_1024")).unwrap();
    for (path, body) in [
        ("/boot-source", r#"{"kernel_image_path":"kernel","boot_args":"console=ttyS0"}"#),
        ("/drives/d0", r#"{"drive_id":"d0","path_on_host":"disk","is_root_device":false}"#),
        ("/vsock", r#"{"guest_cid":3,"uds_path":"v.sock"}"#),
        ("/metrics", r#"{"metrics_path":"metrics"}"#),
        ("/actions", r#"{"action_type":"InstanceStart"}"#),
    ] {
        assert_eq!(process.ask("PUT", path, body), (204, Value::Null), "{path}");
    }
    let event = next_event(&mut listener.accept().unwrap().0);
    (process, event)
}

fn next_event(stream: &mut UnixStream) -> GuestEvent {
    let mut frames = FrameReader::default();
    loop {
        if let Some(event) = frames.next_message().unwrap() {
            return event;
        }
        let mut bytes = [0; 1024];
        let length = stream.read(&mut bytes).unwrap();
        assert_ne!(length, 0, "the guest hung up");
        frames.push(&bytes[..length]);
    }
}

/// Connects to a port of the guest's: its stream, and what was said before it.
fn connected(process: &Process, port: u32) -> (UnixStream, String) {
    let mut stream = UnixStream::connect(process.dir.path().join("v.sock")).unwrap();
    stream.write_all(format!("CONNECT {port}\n").as_bytes()).unwrap();
    let mut line = vec![];
    let mut byte = [0];
    while stream.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.push(byte[0]);
    }
    (stream, String::from_utf8(line).unwrap())
}

fn asked(stream: &mut UnixStream, body: HostBody) -> GuestEvent {
    let request = HostRequest { op_id: [7; 16], body };
    stream.write_all(&encode_frame(&request).unwrap()).unwrap();
    next_event(stream)
}

#[test]
fn the_fake_ones_guest_tells_of_itself_answers_and_ends() {
    let (mut process, ready) = started(FAULTS);
    assert!(matches!(ready, GuestEvent::Ready(_)), "{ready:?}");
    assert_eq!(connected(&process, 22).1, "", "nobody listens, so it hangs up");
    let (mut stream, line) = connected(&process, VSOCK_PORT);
    assert!(line.starts_with("OK 10737"), "{line}");
    assert_eq!(asked(&mut stream, HostBody::Ping), GuestEvent::Pong { op_id: [7; 16] });
    let off = HostBody::Shutdown { mode: ShutdownMode::PowerOff, grace_ms: 0 };
    assert_eq!(asked(&mut stream, off), GuestEvent::ShuttingDown { op_id: [7; 16] });
    until("nobody listens any more", Duration::from_secs(5), || {
        connected(&process, VSOCK_PORT).1.is_empty()
    });
    assert_eq!(process.ask("GET", "/", "").1["state"], "Running", "a power-off leaves the VMM");
    let key = r#"{"action_type":"SendCtrlAltDel"}"#;
    assert_eq!(process.ask("PUT", "/actions", key).0, 204);
    assert_eq!(process.ended().code(), Some(0));
    assert!(process.dir.path().join("v.sock").exists());
}

#[test]
fn the_fake_ones_metrics_are_what_came_since_the_last() {
    let (process, _) = started(FAULTS);
    let flush = r#"{"action_type":"FlushMetrics"}"#;
    for _ in 0..2 {
        assert_eq!(process.ask("PUT", "/actions", flush).0, 204);
    }
    let text = fs::read_to_string(process.dir.path().join("metrics")).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let read: Vec<_> = lines.iter().map(|line| &line["block_d0"]["read_bytes"]).collect();
    assert_eq!(read, [&json!(4096), &json!(0)]);
}

#[test]
fn the_fake_one_writes_snapshots_and_loads_what_fits() {
    let (process, ready) = started(FAULTS);
    let create = r#"{"snapshot_path":"state","mem_file_path":"memory"}"#;
    assert_eq!(process.ask("PUT", "/snapshot/create", create).0, 400, "it runs");
    assert_eq!(process.ask("PATCH", "/vm", r#"{"state":"Paused"}"#).0, 204);
    assert_eq!(process.ask("GET", "/", "").1["state"], "Paused");
    assert_eq!(process.ask("PUT", "/snapshot/create", create).0, 204);
    let dir = process.dir.path().to_owned();
    assert_eq!(fs::metadata(dir.join("memory")).unwrap().len(), 128 << 20);

    let load = |resume: bool| {
        format!(
            r#"{{"snapshot_path":"{0}/state","mem_backend":{{"backend_type":"File","backend_path":"{0}/memory"}},"resume_vm":{resume}}}"#,
            dir.display()
        )
    };
    let other = Process::start(&Vmm::Fake, FAULTS);
    fs::copy(dir.join("disk"), other.dir.path().join("disk")).unwrap();
    assert_eq!(other.ask("PUT", "/snapshot/load", &load(true)), (204, Value::Null));
    let (mut stream, _) = connected(&other, VSOCK_PORT);
    let on = HostBody::Resumed { unix_nanos: 1, entropy: [3; ENTROPY_BYTES] };
    let GuestEvent::Ready(ready) = ready else { panic!("{ready:?}") };
    let went_on = GuestEvent::Resumed { op_id: [7; 16], boot_id: ready.boot_id };
    assert_eq!(asked(&mut stream, on), went_on, "the same boot");

    // Memory that is not the state's, and a socket that an old process left, do not fit.
    fs::File::options().write(true).open(dir.join("memory")).unwrap().set_len(1).unwrap();
    let mut third = Process::start(&Vmm::Fake, FAULTS);
    assert_eq!(third.ask("PUT", "/snapshot/load", &load(false)).0, 400);
    assert_eq!(third.ended().code(), Some(1));
}

#[test]
fn planned_faults_are_played() {
    let faults = "refuse /entropy no entropy today\nslow /version 300\ndie /serial 148\n\
                  guest fails disks: no such disk\nlose socket";
    let (mut process, event) = started(faults);
    let failed = GuestEvent::NotReady { stage: "disks".into(), error: Some("no such disk".into()) };
    assert_eq!(event, failed);
    assert!(!process.socket().exists(), "lost");
    drop(process);

    process = Process::start(&Vmm::Fake, &faults.replace("lose socket", ""));
    assert_eq!(process.ask("PUT", "/entropy", "{}"), fault("no entropy today"));
    let asked = std::time::Instant::now();
    assert_eq!(process.ask("GET", "/version", "").0, 200);
    assert!(asked.elapsed() >= Duration::from_millis(300), "{:?}", asked.elapsed());
    let mut stream = UnixStream::connect(process.socket()).unwrap();
    let put = "PUT /serial HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
    stream.write_all(put.as_bytes()).unwrap();
    assert_eq!(process.ended().code(), Some(148));
}
