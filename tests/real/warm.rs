//! VMs that go on from one memory are as different as any others.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::{Host, Settings, busybox_with, new_host, until};

fn warm() -> Settings {
    Settings { config: "warm = true".to_owned(), ..Settings::default() }
}

fn exec(host: &Host, vm: &str, line: &str) -> String {
    host.banger(&["vm", "exec", vm, "--", "sh", "-c", line]).ok()
}

/// How a VM's creation got its guest, as its steps tell.
fn came(host: &Host, vm: &str) -> String {
    let id = host.show(vm)["id"].as_str().unwrap().to_owned();
    let log = host.log("bangerd.log");
    let done = |step: &str| {
        let lines = log.lines().filter(|line| line.contains(&id) && line.contains("step done"));
        let mut of = lines.filter(|line| line.contains(&format!("\"{step}\"")));
        of.next().unwrap_or_default().to_owned()
    };
    match () {
        () if done("keep-snapshot").contains("\"kept\"") => "kept its memory".to_owned(),
        () if done("ensure-disks").contains("snapshot") => "went on".to_owned(),
        () => "booted".to_owned(),
    }
}

fn snapshots(host: &Host) -> Vec<PathBuf> {
    let dir = host.dir.join("s/warm");
    std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

/// What no two machines may share, in one line each.
const WHO: &str = "hostname; cat /etc/machine-id; cat /proc/sys/kernel/random/boot_id; \
    cat /sys/class/net/eth0/address; ip -4 -o addr show eth0 | awk '{print $4}'; \
    head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid";

#[test]
fn guests_from_one_memory_are_different_machines() {
    let host = new_host!(warm());
    let before = host.world();
    let names = ["one", "two", "three"];
    for name in names {
        host.banger(&["vm", "run", "-d", "--name", name]).ok();
    }
    assert_eq!(names.map(|name| came(&host, name)), ["kept its memory", "went on", "went on"]);
    assert_eq!(snapshots(&host).len(), 1);
    let who: Vec<String> = names.iter().map(|name| exec(&host, name, WHO)).collect();
    let lines: Vec<&str> = who.iter().flat_map(|said| said.lines()).collect();
    assert_eq!(lines.len(), 3 * 7, "{who:?}");
    assert_eq!(lines.iter().collect::<BTreeSet<_>>().len(), lines.len(), "{who:?}");
    let mut host_keys = BTreeSet::new();
    for (name, said) in names.iter().zip(&who) {
        let shown = host.show(name);
        let text = |field: &str| shown[field].as_str().unwrap().to_owned();
        let told = [text("name"), text("id"), text("guest_boot_id"), text("mac")];
        assert_eq!(said.lines().take(4).collect::<Vec<_>>(), told);
        assert!(said.contains(&format!("{}/24", text("address"))), "{said}");
        host_keys.insert(text("host_key"));
        host.inside("ping", &["-c", "1", "-W", "10", &text("address")]).ok();
        // By SSH, which takes no other host key than this VM's.
        let mut ssh = host.banger_command(&["vm", "ssh", name]);
        ssh.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut ssh = ssh.spawn().unwrap();
        std::io::Write::write_all(&mut ssh.stdin.take().unwrap(), b"hostname\n").unwrap();
        let said = ssh.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&said.stdout), format!("{name}\n"));
        let clock: u64 = exec(&host, name, "date +%s").trim().parse().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        assert!(now.as_secs().abs_diff(clock) < 10, "{clock}");
    }
    assert_eq!(host_keys.len(), 3);
    // They see each other, and are VMs like all others from here on.
    let address = host.show("three")["address"].as_str().unwrap().to_owned();
    exec(&host, "two", &format!("ping -c 1 -W 10 {address}"));
    exec(&host, "two", "echo kept > /root/marker; echo kept > /etc/marker");
    host.banger(&["vm", "stop", "two"]).ok();
    host.banger(&["vm", "start", "two"]).ok();
    let again = exec(&host, "two", "cat /root/marker /etc/marker; hostname; cat /etc/machine-id");
    let id = host.show("two")["id"].as_str().unwrap().to_owned();
    assert_eq!(again, format!("kept\nkept\ntwo\n{id}\n"));
    host.banger(&["vm", "delete", "one", "two", "three"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
    host.banger(&["image", "delete", "tiny"]).ok();
    until("its snapshot is gone", Duration::from_secs(20), || snapshots(&host).is_empty());
}

#[test]
fn what_does_not_fit_boots_and_says_why() {
    let host = new_host!(warm());
    let run = |name: &str, more: &[&str]| {
        let mut args = vec!["vm", "run", "-d", "--name", name];
        args.extend(more);
        host.banger(&args).expect(0).stderr
    };
    run("cold", &["--no-warm"]);
    assert_eq!((came(&host, "cold").as_str(), snapshots(&host).len()), ("booted", 0));
    run("first", &[]);
    assert_eq!(came(&host, "first"), "kept its memory");
    // As large as it was, so that it is found out only when a guest is to go on from it.
    let memory = snapshots(&host)[0].join("memory");
    let bytes = std::fs::metadata(&memory).unwrap().len();
    std::fs::write(&memory, "").unwrap();
    std::fs::OpenOptions::new().write(true).open(&memory).unwrap().set_len(bytes).unwrap();
    let said = run("second", &[]);
    assert!(said.contains("starts cold: "), "{said}");
    assert_eq!(exec(&host, "second", "hostname"), "second\n");
    assert_eq!(snapshots(&host).len(), 0);
    run("third", &["--vcpu", "2"]);
    run("fourth", &[]);
    let came = ["third", "fourth"].map(|name| came(&host, name));
    assert_eq!(came, ["kept its memory", "kept its memory"]);
    assert_eq!(snapshots(&host).len(), 2);
    host.banger(&["vm", "delete", "cold", "first", "second", "third", "fourth"]).ok();
}

/// What an image's own init reads when it starts is this machine's.
const INIT: &str = "#!/bin/sh
cat /etc/machine-id /proc/sys/kernel/random/boot_id > /run/read-by-init
hostname >> /run/read-by-init
while :; do sleep 1000; done
";

#[test]
fn an_image_with_an_init_of_its_own_goes_on_before_its_init_runs() {
    let host = new_host!(warm());
    let tar = host.dir.join("own.tar");
    busybox_with(&[("sbin/init", INIT)], &tar);
    host.banger(&["image", "import", "own", &tar.display().to_string()]).ok();
    for name in ["one", "two"] {
        host.banger(&["vm", "run", "-d", "--name", name, "--image", "own"]).ok();
        let shown = host.show(name);
        let text = |field: &str| shown[field].as_str().unwrap().to_owned();
        let expected = format!("{}\n{}\n{name}\n", text("id"), text("guest_boot_id"));
        until("init has read it", Duration::from_secs(60), || {
            exec(&host, name, "cat /run/read-by-init || true") == expected
        });
        assert_eq!(exec(&host, name, "cat /proc/1/comm"), "init\n");
    }
    assert_eq!(came(&host, "two"), "went on");
    host.banger(&["vm", "delete", "one", "two"]).ok();
}
