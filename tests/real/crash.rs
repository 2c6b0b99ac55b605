//! Whatever dies, nothing is lost and nothing is left.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{new_host, until};

pub(crate) fn kill_hard(pid: u64) {
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
}

#[test]
fn a_vmm_killed_is_noticed_told_and_cleaned_up() {
    let host = new_host!();
    let before = host.world();
    host.banger(&["vm", "run", "-d", "--name", "web", "--nat"]).ok();
    let say = "echo last-words > /dev/console";
    host.banger(&["vm", "exec", "web", "--", "sh", "-c", say]).ok();
    let mut attached = host.banger_command(&["vm", "exec", "web", "--", "sleep", "1000"]);
    let mut attached = attached.stderr(std::process::Stdio::piped()).spawn().unwrap();
    until("the command runs", Duration::from_secs(30), || {
        let ps = host.banger(&["vm", "exec", "web", "--", "ps"]).stdout;
        ps.contains("sleep 1000")
    });
    kill_hard(host.show("web")["pid"].as_u64().unwrap());
    let noticed = Instant::now();
    until("crashed", Duration::from_secs(5), || host.show("web")["state"] == "crashed");
    assert!(noticed.elapsed() < Duration::from_secs(2), "{:?}", noticed.elapsed());
    // Whoever was in the guest learns it as fast.
    let mut ended = None;
    until("the attached command ends", Duration::from_secs(5), || {
        ended = attached.try_wait().unwrap();
        ended.is_some()
    });
    assert_eq!(ended.and_then(|status| status.code()), Some(125));
    let shown = host.show("web");
    assert!(shown["last_failure"]["detail"].to_string().contains("last-words"), "{shown:#}");
    assert_eq!(shown["last_exit"]["how"], "killed by SIGKILL");
    until("its things are gone", Duration::from_secs(10), || {
        let links = host.inside("ip", &["-br", "link"]).ok();
        let rules = host.inside("nft", &["list", "ruleset"]).stdout;
        host.guests().is_empty()
            && links.matches("bgt").count() == 4
            && !rules.contains("10.77.0.2")
    });
    host.banger(&["vm", "exec", "web", "--", "true"]).expect(125);
    host.banger(&["vm", "start", "web"]).ok();
    host.banger(&["vm", "exec", "web", "--", "true"]).ok();
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

#[test]
fn daemon_and_helper_may_be_killed_under_a_running_guest() {
    let mut host = new_host!();
    let before = host.world();
    host.banger(&["vm", "run", "-d", "--name", "web"]).ok();
    let boot = host.show("web")["guest_boot_id"].clone();
    let pid = host.show("web")["pid"].clone();
    host.kill_daemon();
    host.kill_helper();
    assert_eq!(host.guests().len(), 1, "the guest lives on");
    host.start_helper();
    host.start_daemon();
    let shown = host.show("web");
    assert_eq!(shown["state"], "running");
    assert_eq!((&shown["guest_boot_id"], &shown["pid"]), (&boot, &pid));
    let id = ["vm", "exec", "web", "--", "cat", "/proc/sys/kernel/random/boot_id"];
    let now = host.banger(&id).ok();
    assert_eq!(boot.as_str().unwrap().replace('-', ""), now.trim().replace('-', ""));
    let dig = ["@127.0.0.1", "-p", "42069", "+short", "+time=2", "web.vm", "A"];
    let address = shown["address"].as_str().unwrap();
    assert_eq!(host.inside("dig", &dig).ok().trim(), address, "its name is answered again");
    host.banger(&["vm", "stop", "web"]).ok();
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

#[test]
fn a_guest_that_dies_while_nobody_watches_is_found_dead() {
    let mut host = new_host!();
    let before = host.world();
    host.banger(&["vm", "run", "-d", "--name", "web", "--nat"]).ok();
    let pid = host.show("web")["pid"].as_u64().unwrap();
    host.kill_daemon();
    kill_hard(pid);
    host.start_daemon();
    let shown = host.show("web");
    assert_eq!(shown["state"], "crashed", "{shown:#}");
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_start_takes_it_back() {
    let mut host = new_host!();
    let before = host.world();
    let mut running = host.banger_command(&["vm", "run", "-d", "--name", "web"]).spawn().unwrap();
    until("the VMM runs", Duration::from_secs(30), || !host.guests().is_empty());
    host.kill_daemon();
    assert!(!running.wait().unwrap().success());
    host.start_daemon();
    assert_eq!(host.show("web")["state"], "stopped");
    assert!(host.guests().is_empty(), "what was begun is taken back");
    host.banger(&["vm", "start", "web"]).ok();
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}
