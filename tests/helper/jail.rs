//! VMMs in jails: what they see, what they are, what is left of them. A played jailer does what
//! Firecracker's does with what the helper prepared; with `FIRECRACKER_BIN` and `JAILER_BIN` set
//! the real ones are tried as well.

use std::fs::Permissions;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use banger::model::{Code, ProcessIdentity, Size, TapName, VmId, chain};
use banger::ports::{
    Jail, JailAccess, JailFile, LogKind, NetHost, ProcessHost, SpawnRequest, VmmCommand, VmmLimits,
};
use nix::sys::signal::Signal;

use crate::support::{BUSYBOX, Host, OP, OWNER, STRANGER, can_jail, new_vm, run, wait_for};

const FIRST_UID: u32 = 1_900_000_000;
/// Inside: the program itself is all there is to run.
const LOOK: &str = r#"
    b=/busybox
    $b echo "user $($b id -u):$($b id -g) groups $($b id -G)"
    $b echo "there: $($b echo /*)"
    $b echo "d0 is $($b cat /d0)"
    ($b echo spoiled > /d0) 2>&1 || $b echo "d0 cannot be written"
    ($b echo spoiled > /d1) 2>&1 || $b echo "d1 cannot be written"
    $b echo written > /d2
    $b touch /s/made
    $b echo ready
    while :; do $b sleep 1000; done"#;
const STAY: &str = "while :; do /busybox sleep 1000; done";

struct Rig {
    host: Host,
    before: String,
}

impl Rig {
    async fn new() -> Self {
        Self::on(Host::new()).await
    }

    async fn on(host: Host) -> Self {
        let net = host.net();
        net.ensure_bridge(OP).await.unwrap();
        for slot in [3, 4] {
            net.ensure_tap(OP, &TapName::new("bgtap", slot)).await.unwrap();
        }
        let before = host.leavings();
        Self { host, before }
    }

    fn file(&self, name: &str, mode: u32) -> PathBuf {
        let path = self.host.path("state").join(name);
        std::fs::write(&path, name).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(OWNER), Some(OWNER)).unwrap();
        path
    }

    fn sockets(&self, vm: VmId) -> PathBuf {
        let run = self.host.path("vmrun").join(vm.short());
        let sockets = run.join("s");
        for dir in [&run, &sockets] {
            std::fs::create_dir_all(dir).unwrap();
            std::fs::set_permissions(dir, Permissions::from_mode(0o700)).unwrap();
            chown(dir, Some(OWNER), Some(OWNER)).unwrap();
        }
        sockets
    }

    fn request(&self, vm: VmId, slot: u16, script: &str) -> SpawnRequest {
        let file = |name: &str, as_name: &str, mode, access| JailFile {
            path: self.file(&format!("{name}-{slot}"), mode),
            name: as_name.to_owned(),
            access,
        };
        let jail = Jail {
            tap: TapName::new("bgtap", slot),
            sockets: self.sockets(vm),
            files: vec![
                file("base", "d0", 0o444, JailAccess::Shared),
                file("config", "d1", 0o600, JailAccess::Private),
                file("work", "d2", 0o600, JailAccess::Writable),
            ],
        };
        let limits = VmmLimits { memory: Size::from_mib(64), cpus: 2, tasks: 16 };
        let (program, args) = (BUSYBOX.into(), vec![script.to_owned()]);
        let command = VmmCommand { program, args, prints: LogKind::Vmm, limits, jail: Some(jail) };
        SpawnRequest { vm, command, log: self.log(slot) }
    }

    fn log(&self, slot: u16) -> PathBuf {
        self.host.path("state").join(format!("vmm-{slot}.log"))
    }

    fn said(&self, slot: u16) -> String {
        std::fs::read_to_string(self.log(slot)).unwrap_or_default()
    }

    fn tap_owner(&self, slot: u16) -> String {
        let text = self.host.ns.sh("ip", &["-d", "-j", "link", "show", &format!("bgtap{slot}")]);
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        let data = &links[0]["linkinfo"]["info_data"];
        data["user"].as_str().map_or_else(|| data["user"].to_string(), str::to_owned)
    }

    fn nothing_is_left(&self) {
        assert_eq!(self.host.leavings(), self.before);
        assert_eq!(std::fs::read_dir(self.host.path("run/jail")).unwrap().count(), 0);
    }
}

fn field(pid: u32, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let meta = std::fs::metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

/// What any process in a jail must be.
fn is_confined(process: &ProcessIdentity, uid: u32) {
    let (pid, same) = (process.pid, [uid; 4].map(|uid| uid.to_string()).join(" "));
    assert_eq!((field(pid, "Uid:"), field(pid, "Gid:")), (same.clone(), same));
    assert_eq!(field(pid, "Groups:"), "");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(pid, set), "0000000000000000", "{set}");
    }
    assert_eq!(field(pid, "NoNewPrivs:"), "1");
    let session = run("ps", &["-o", "sid=", "-p", &pid.to_string()]);
    assert_eq!(String::from_utf8_lossy(&session.stdout).trim(), pid.to_string());
    let link = |what: &str| std::fs::read_link(format!("/proc/{what}")).unwrap();
    assert_ne!(link(&format!("{pid}/ns/mnt")), link("self/ns/mnt"));
    let root = std::fs::metadata(format!("/proc/{pid}/root/.")).unwrap();
    assert_ne!(root.ino(), std::fs::metadata("/").unwrap().ino());
    assert_eq!((root.uid(), root.mode() & 0o777), (uid, 0o700));
    assert_eq!(link(&format!("{pid}/fd/0")).to_str(), Some("/dev/null"));
}

#[tokio::test]
async fn a_vmm_in_a_jail_sees_what_is_its_own() {
    if !can_jail() {
        return;
    }
    let mut rig = Rig::new().await;
    let (vm, process) = (new_vm(), rig.host.process());
    let request = rig.request(vm, 3, LOOK);
    let started = process.ensure_spawned(OP, &request).await.unwrap();
    wait_for("the VMM's words", || rig.said(3).ends_with("ready\n"));
    let uid = FIRST_UID + 3;
    let said = rig.said(3);
    for words in [
        &format!("user {uid}:{uid} groups {uid}\n"),
        "there: /busybox /d0 /d1 /d2 /s\n",
        "d0 is base-3\n",
        "d0 cannot be written\n",
        "d1 cannot be written\n",
    ] {
        assert!(said.contains(words), "{words:?} is missing in\n{said}");
    }
    is_confined(&started, uid);
    let files = &request.command.jail.as_ref().unwrap().files;
    assert_eq!(owner_and_mode(&files[0].path), (OWNER, OWNER, 0o444));
    assert_eq!(owner_and_mode(&files[1].path), (uid, OWNER, 0o660));
    assert_eq!(owner_and_mode(&files[2].path), (uid, OWNER, 0o660));
    assert_eq!(owner_and_mode(&rig.sockets(vm).join("made")).1, OWNER, "the daemon's group");
    assert_eq!(std::fs::read_to_string(&files[2].path).unwrap(), "written\n");
    assert_eq!(owner_and_mode(&rig.log(3)), (OWNER, OWNER, 0o600));
    assert_eq!(rig.tap_owner(3), uid.to_string());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&rig.host.text("run/jail")), "mounts of a jail are its own");

    // Whoever asks, it is this one.
    assert_eq!(process.ensure_spawned(OP, &request).await.unwrap(), started);
    rig.host.stop(Signal::SIGKILL);
    rig.host.start();
    assert_eq!(process.find(OP, vm).await.unwrap(), Some(started.clone()));
    assert_eq!(process.ensure_spawned(OP, &request).await.unwrap(), started);
    let stranger = process.signal(OP, new_vm(), &started, 9).await.unwrap_err();
    assert_eq!(stranger.code, Code::Denied);
    process.ensure_gone(OP, vm).await.unwrap();
    assert!(!process.is_alive(&started));
    rig.host.net().ensure_tap(OP, &TapName::new("bgtap", 3)).await.unwrap();
    assert_eq!(rig.tap_owner(3), "nobody", "the tap is the owner's again");
    rig.nothing_is_left();
    // A second start, with another user: files go from hand to hand.
    let mut again = SpawnRequest { log: rig.log(4), ..request.clone() };
    again.command.jail.as_mut().unwrap().tap = TapName::new("bgtap", 4);
    process.ensure_spawned(OP, &again).await.unwrap();
    wait_for("the second VMM's words", || rig.said(4).ends_with("ready\n"));
    assert_eq!(owner_and_mode(&files[2].path), (FIRST_UID + 4, OWNER, 0o660));
    process.ensure_gone(OP, vm).await.unwrap();
}

#[tokio::test]
async fn two_at_once_share_nothing() {
    if !can_jail() {
        return;
    }
    let rig = Rig::new().await;
    let (process, vms) = (rig.host.process(), [(new_vm(), 3), (new_vm(), 4)]);
    let requests = vms.map(|(vm, slot)| rig.request(vm, slot, LOOK));
    let started =
        futures::future::try_join_all(requests.iter().map(|one| process.ensure_spawned(OP, one)));
    let started = started.await.unwrap();
    for ((vm, slot), process) in vms.iter().zip(&started) {
        wait_for("its words", || rig.said(*slot).ends_with("ready\n"));
        assert!(rig.said(*slot).contains(&format!("d0 is base-{slot}\n")), "{vm}");
        is_confined(process, FIRST_UID + u32::from(*slot));
    }
    // One dies, badly; the other does not notice.
    process.signal(OP, vms[0].0, &started[0], 9).await.unwrap();
    assert_eq!(process.exited(vms[0].0, &started[0]).await.unwrap().how, "killed by SIGKILL");
    assert!(process.is_alive(&started[1]));
    for (vm, _) in vms {
        process.ensure_gone(OP, vm).await.unwrap();
    }
    rig.nothing_is_left();
}

#[tokio::test]
async fn its_walls_are_its_cgroups() {
    if !can_jail() {
        return;
    }
    let rig = Rig::new().await;
    let (vm, process) = (new_vm(), rig.host.process());
    process.ensure_spawned(OP, &rig.request(vm, 3, STAY)).await.unwrap();
    let group = rig.host.cgroup_root.join(format!("banger-{OWNER}/vm-{vm}"));
    let values = [("memory.max", "67108864"), ("cpu.max", "200000 100000"), ("pids.max", "16")];
    for (name, value) in values {
        match std::fs::read_to_string(group.join(name)) {
            Ok(found) => assert_eq!(found.trim(), value, "{name}"),
            // A host that keeps the controller elsewhere runs VMMs without that wall.
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{name}"),
        }
    }
    process.ensure_gone(OP, vm).await.unwrap();
    rig.nothing_is_left();
}

#[tokio::test]
async fn without_cgroups_it_is_found_and_ended_by_what_it_is() {
    if !can_jail() {
        return;
    }
    let mut rig = Rig::on(Host::with_cgroups(false)).await;
    let (vm, process) = (new_vm(), rig.host.process());
    let started = process.ensure_spawned(OP, &rig.request(vm, 3, LOOK)).await.unwrap();
    wait_for("the VMM's words", || rig.said(3).ends_with("ready\n"));
    rig.host.stop(Signal::SIGKILL);
    rig.host.start();
    assert_eq!(process.find(OP, vm).await.unwrap(), Some(started.clone()));
    assert_eq!(process.find(OP, new_vm()).await.unwrap(), None);
    process.ensure_gone(OP, vm).await.unwrap();
    assert!(!process.is_alive(&started));
    rig.nothing_is_left();
}

#[tokio::test]
async fn a_jail_that_cannot_be_built_leaves_nothing() {
    if !can_jail() {
        return;
    }
    let rig = Rig::new().await;
    let (vm, process) = (new_vm(), rig.host.process());
    let good = rig.request(vm, 3, STAY);
    let state = rig.host.path("state");
    let foreign = rig.file("foreign", 0o644);
    chown(&foreign, Some(STRANGER), Some(STRANGER)).unwrap();
    let closed = rig.file("closed", 0o600);
    symlink("/etc/shadow", state.join("link")).unwrap();
    symlink("/etc", state.join("dir")).unwrap();
    nix::unistd::mkfifo(&state.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o666))
        .unwrap();
    chown(state.join("fifo"), Some(OWNER), Some(OWNER)).unwrap();
    let roots = rig.host.path("vmrun/roots");
    std::fs::create_dir(&roots).unwrap();
    symlink("/etc", rig.host.path("vmrun/link")).unwrap();

    type Change<'a> = &'a dyn Fn(&mut Jail);
    let file = |path: PathBuf, access| {
        move |jail: &mut Jail| {
            jail.files[0].path.clone_from(&path);
            jail.files[0].access = access;
        }
    };
    use JailAccess::{Private, Shared, Writable};
    let changes: [(&str, Change<'_>); 12] = [
        ("missing", &file(state.join("missing"), Shared)),
        ("link", &file(state.join("link"), Shared)),
        ("dir/shadow", &file(state.join("dir/shadow"), Shared)),
        ("foreign", &file(foreign.clone(), Shared)),
        ("foreign", &file(foreign.clone(), Writable)),
        ("foreign", &file(foreign.clone(), Private)),
        ("closed", &file(closed, Shared)),
        ("fifo", &file(state.join("fifo"), Writable)),
        ("/dev/banger/", &file(Path::new("/dev/banger").join(vm.to_string()), Writable)),
        ("vmrun/roots", &|jail| jail.sockets.clone_from(&roots)),
        ("vmrun/link", &|jail| jail.sockets = rig.host.path("vmrun/link")),
        ("bgtap7", &|jail| jail.tap = TapName::new("bgtap", 7)),
    ];
    for (what, change) in changes {
        let mut request = good.clone();
        change(request.command.jail.as_mut().unwrap());
        let error = process.ensure_spawned(OP, &request).await.unwrap_err();
        assert!(chain(&error).contains(what), "{what}: {error:?}");
        assert_eq!(process.find(OP, vm).await.unwrap(), None, "{what}");
    }
    assert_eq!(owner_and_mode(&foreign), (STRANGER, STRANGER, 0o644));
    assert_eq!(std::fs::metadata("/etc/shadow").unwrap().uid(), 0);
    assert_eq!(owner_and_mode(&roots).0, 0);
    // A tap that a VMM has open is not taken away from it.
    let other = new_vm();
    let _open = rig.host.hold_tap("bgtap4");
    let error = process.ensure_spawned(OP, &rig.request(other, 4, STAY)).await.unwrap_err();
    assert!(chain(&error).contains("bgtap4"), "{error:?}");
    rig.nothing_is_left();
}

/// The real ones; a guest needs `/dev/kvm`, this does not.
#[tokio::test]
async fn firecracker_in_its_jailer_serves_the_owner_alone() {
    if !can_jail() {
        return;
    }
    let Some(host) = Host::with_firecracker() else { return };
    let firecracker = host.firecracker();
    let rig = Rig::on(host).await;
    let (vm, process) = (new_vm(), rig.host.process());
    let mut request = rig.request(vm, 3, "");
    request.command.program = firecracker;
    request.command.args = vec!["--api-sock".into(), "/s/fc.sock".into()];
    let started = process.ensure_spawned(OP, &request).await.unwrap();
    let socket = rig.sockets_of(vm).join("fc.sock");
    wait_for("the API", || ask(&socket).contains("Not started"));
    assert!(ask(&socket).contains(&vm.to_string()));
    assert!(rig.may_connect(OWNER, &socket) && !rig.may_connect(STRANGER, &socket));
    is_confined(&started, FIRST_UID + 3);
    process.ensure_gone(OP, vm).await.unwrap();
    rig.nothing_is_left();
    // What an old one left is in nobody's way.
    let sockets = rig.sockets_of(vm);
    std::fs::remove_file(sockets.join("fc.sock")).unwrap();
    let again = process.ensure_spawned(OP, &request).await.unwrap();
    assert_ne!(again, started);
    wait_for("the API again", || ask(&socket).contains("Not started"));
    process.ensure_gone(OP, vm).await.unwrap();
}

impl Rig {
    fn sockets_of(&self, vm: VmId) -> PathBuf {
        self.host.path("vmrun").join(vm.short()).join("s")
    }

    /// Whether that user may connect.
    fn may_connect(&self, uid: u32, socket: &Path) -> bool {
        let (id, socket) = (uid.to_string(), socket.to_str().unwrap());
        let user = ["--reuid", &id, "--regid", &id, "--clear-groups"];
        run("setpriv", &[&user, ["test", "-w", socket].as_slice()].concat()).status.success()
    }
}

/// The API's answer to a question for its state, as far as it comes at once.
fn ask(socket: &Path) -> String {
    let Ok(mut stream) = UnixStream::connect(socket) else { return String::new() };
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let (mut heard, mut more) = (vec![], [0; 4096]);
    while !heard.ends_with(b"}") {
        match stream.read(&mut more) {
            Ok(0) | Err(_) => break,
            Ok(length) => heard.extend_from_slice(&more[..length]),
        }
    }
    String::from_utf8_lossy(&heard).into_owned()
}
