//! The ledger on a real host: what leaks by hand is found and taken away, and nothing else; an error is
//! left with the data intact.

use std::collections::BTreeSet;
use std::os::unix::fs::chown;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Host, OWNER, Running, new_host, until};

const GONE: &str = "0ddba11d0ddba11d0ddba11d0ddba11d";
const UUID: &str = "0ddba11d-0ddb-a11d-0ddb-a11d0ddba11d";

fn gc(host: &Host) -> BTreeSet<(String, String)> {
    let found: Value = serde_json::from_str(&host.banger(&["gc", "--json"]).ok()).unwrap();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    let found = found.as_array().unwrap().iter();
    found.map(|one| (text(one, "kind"), text(one, "name"))).collect()
}

fn dir(host: &Host, name: &str) -> String {
    let path = host.dir.join(name);
    std::fs::create_dir(&path).unwrap();
    chown(&path, Some(OWNER), Some(OWNER)).unwrap();
    path.display().to_string()
}

/// A VMM of no VM, as the helper would have started it.
fn stray_vmm(host: &Host) -> Running {
    let (owner, qmp) = (OWNER.to_string(), host.dir.join("s/stray.sock"));
    let qmp = format!("unix:{},server=on,wait=off", qmp.display());
    let args = ["--reuid", &owner, "--regid", &owner, "--clear-groups", "setsid"];
    let vmm = ["qemu-system-x86_64", "-uuid", UUID, "-machine", "none", "-display", "none", "-S"];
    let all = [&args[..], &vmm, &["-qmp", &qmp]].concat();
    let mut command = host.command("setpriv", &all);
    let stray = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    until("the stray VMM runs", Duration::from_secs(20), || {
        host.guests().contains(&stray.0.id()) && host.dir.join("s/stray.sock").exists()
    });
    stray
}

#[test]
fn what_leaked_by_hand_is_found_and_taken_away_and_nothing_else() {
    let host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "web", "--nat"]).ok();
    host.banger(&["vm", "create", "--no-start", "--name", "off"]).ok();
    until("ledger and host agree", Duration::from_secs(20), || gc(&host).is_empty());
    let doctor = || host.banger(&["doctor"]).stdout;
    assert!(doctor().contains("and they agree"), "{}", doctor());
    host.until_taps_are_ready();
    let (web, before) = (host.show("web"), host.world());
    let held: Vec<_> = web["ledger"].as_array().unwrap().iter().collect();
    for kind in ["tap", "nat-rule", "process", "run-dir", "vm-dir", "config-drive"] {
        assert!(held.iter().any(|row| row["kind"] == kind), "{kind}: {held:#?}");
    }

    host.inside("ip", &["tuntap", "add", "dev", "bgt77", "mode", "tap"]).ok();
    host.inside("ip", &["link", "set", "bgt77", "alias", "banger:tap", "master", "br-test"]).ok();
    // One without our mark is somebody's.
    host.inside("ip", &["tuntap", "add", "dev", "bgt78", "mode", "tap"]).ok();
    let element = format!("{{ 10.77.0.200 comment \"{GONE}\" }}");
    host.inside("nft", &["add", "element", "inet", "banger_test", "nat", &element]).ok();
    let id = host.show("off")["id"].as_str().unwrap().to_owned();
    let disk = host.dir.join(format!("s/vms/{id}/work.ext4")).display().to_string();
    host.inside("losetup", &["-r", "-f", &disk]).ok();
    let vm_dir = dir(&host, &format!("s/vms/{GONE}"));
    std::fs::write(format!("{vm_dir}/work.ext4"), "x").unwrap();
    dir(&host, &format!("r/{}", &GONE[..12]));
    let leftover = dir(&host, "s/tmp/1-0");
    dir(&host, "s/vms/mine");
    let stray = stray_vmm(&host);
    let name = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
    let planted = BTreeSet::from([
        name("tap", "bgt77"),
        name("loop", &disk),
        name("vm-dir", GONE),
        name("run-dir", &GONE[..12]),
        name("leftover", &leftover),
        name("process", GONE),
    ]);
    let mut found = gc(&host);
    // It is also taken away by who watches the network, some seconds later.
    found.remove(&name("nat-rule", "10.77.0.200"));
    assert_eq!(found, planted);
    let told = doctor();
    assert!(told.contains("orphan") && told.contains("banger gc --yes"), "{told}");
    let dry = host.banger(&["gc"]).expect(0);
    assert!(dry.stdout.contains("there is no VM 0ddba11d0ddb"), "{}", dry.stdout);
    assert!(dry.stderr.contains("nothing was changed"), "{}", dry.stderr);

    let done = host.banger(&["gc", "--yes"]).expect(0);
    assert!(done.stderr.contains("banger ops show "), "{}", done.stderr);
    assert!(gc(&host).is_empty(), "{:?}", gc(&host));
    let ops = host.banger(&["ops", "list"]).ok();
    let op = ops.lines().find(|line| line.contains(" gc ")).unwrap().split(' ').next().unwrap();
    let steps = host.banger(&["ops", "show", op]).ok();
    assert!(steps.contains("remove tap bgt77") && steps.contains("remove process"), "{steps}");
    host.inside("ip", &["link", "show", "bgt78"]).ok();
    host.inside("ip", &["link", "del", "bgt78"]).ok();
    std::fs::remove_dir(host.dir.join("s/vms/mine")).unwrap();
    drop(stray);
    drop(std::fs::remove_file(host.dir.join("s/stray.sock")));
    until("all else is as before", Duration::from_secs(20), || host.world() == before);
    let same = host.show("web");
    assert_eq!((&same["pid"], &same["guest_boot_id"]), (&web["pid"], &web["guest_boot_id"]));
    assert_eq!(host.banger(&["vm", "exec", "web", "--", "echo", "well"]).ok(), "well\n");
}

#[test]
fn a_vm_in_error_is_recovered_with_what_is_on_its_disks() {
    let mut host = new_host!();
    host.banger(&["vm", "run", "-d", "--name", "web"]).ok();
    let write = "echo kept > /root/marker; sync";
    host.banger(&["vm", "exec", "web", "--", "sh", "-c", write]).ok();
    let well = host.banger(&["vm", "recover", "web"]).expect(0);
    assert!(well.stdout.contains("nothing is wrong"), "{}", well.stdout);
    host.kill_helper();
    host.banger(&["vm", "stop", "web"]).expect(1);
    assert_eq!(host.show("web")["state"], "error");
    let said = host.banger(&["vm", "recover", "web"]).expect(1);
    for part in ["is stuck at ", "`--yes` would:", "check its disks", "afterwards, or instead: "] {
        assert!(said.stdout.contains(part), "{part}: {}", said.stdout);
    }
    host.start_helper();
    let done = host.banger(&["vm", "recover", "web", "--yes"]).expect(0);
    assert!(done.stdout.ends_with("web: stopped\n"), "{}", done.stdout);
    assert!(gc(&host).is_empty(), "{:?}", gc(&host));
    host.banger(&["vm", "start", "web"]).ok();
    let read = ["vm", "exec", "web", "--", "cat", "/root/marker"];
    assert_eq!(host.banger(&read).ok(), "kept\n");
}
