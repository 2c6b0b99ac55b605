//! `banger system` on a host where nothing is installed.

use super::simulated::{json, place};
use crate::support::banger::{Finish, Surroundings};
use crate::support::simulated::Simulated;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn a_dry_run_says_what_would_be_done_to_whom_it_may_concern() {
    if std::path::Path::new("/etc/banger").exists() {
        return;
    }
    let here = Surroundings::new();
    let none = here.path().join("none.sock");
    // All four are beside each other in a release.
    let release = here.path().join("release");
    std::fs::create_dir(&release).unwrap();
    for name in ["banger", "bangerd", "banger-helper", "banger-agent"] {
        std::fs::write(release.join(name), "").unwrap();
    }
    let line = format!("system install --dry-run --owner nobody --from {}", release.display());
    let said = here.banger(&none, &line).said();
    assert_eq!(said.code, 0, "{}", said.err);
    for path in ["/usr/local/lib/banger/bangerd", "/etc/systemd/system/banger-guests.service"] {
        assert!(said.out.contains(&format!("made       {path}\n")), "{}", said.out);
    }
    assert!(said.err.contains("nothing was done"), "{}", said.err);
    assert!(!std::path::Path::new("/etc/banger").exists());

    let said = here.banger(&none, "system install --dry-run --owner root").said();
    assert_eq!(said.code, 1);
    let line = format!("system install --dry-run --from {}", release.display());
    let said = here.banger(&none, &line).said();
    assert!(said.err.contains("--owner is missing"), "{}", said.err);
    assert!(said.err.contains("hint: banger system install --owner USER"), "{}", said.err);
}

#[test]
fn where_nothing_is_installed_that_is_said() {
    if std::path::Path::new("/etc/banger").exists() {
        return;
    }
    let here = Surroundings::new();
    let none = here.path().join("none.sock");
    for line in ["system status", "system restart", "system upgrade", "system uninstall"] {
        let said = here.banger(&none, line).said();
        assert_eq!(said.code, 1, "{line}");
        let why = match line {
            "system status" => "is not installed on this host",
            _ if is_root() => "is not installed on this host",
            _ => "needs root",
        };
        assert!(said.err.contains(why), "{line}: {}", said.err);
    }
}

#[test]
fn when_the_host_goes_down_vms_are_put_away_as_configured() {
    let (daemon, here) = place("");
    let run = |socket: &std::path::Path, line: &str| here.banger(socket, line).said();
    let socket = daemon.socket();
    for line in
        ["vm create --name a -q", "vm create --name b -q", "vm create --no-start --name c -q"]
    {
        assert_eq!(run(&socket, line).code, 0);
    }
    let states = |socket: &std::path::Path| -> Vec<String> {
        let list = json(&run(socket, "vm list --json"));
        let states = list.as_array().unwrap().iter();
        states.map(|vm| vm["state"].as_str().unwrap().to_owned()).collect()
    };
    let said = run(&socket, "system stop-guests");
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.starts_with("2 VMs to put away\n"), "{}", said.out);
    assert!(said.out.contains("a: stopped after ") && said.out.contains("b: stopped after "));
    assert_eq!(states(&socket), ["stopped", "stopped", "created"]);
    assert!(run(&socket, "system stop-guests").out.starts_with("0 VMs"));
}

#[test]
fn where_it_is_configured_vms_sleep_while_the_host_is_down() {
    let mut daemon = Simulated::start("");
    daemon.kill();
    let config = "on_shutdown = \"suspend\"\n[network]\ndns_listen = \"off\"\n";
    std::fs::write(daemon.path().join("config.toml"), config).unwrap();
    daemon.run();
    let here = Surroundings::new();
    std::fs::write(here.path().join("k.deb"), "").unwrap();
    for line in ["image build debian -q", "kernel import k k.deb -q", "vm create --name d -q"] {
        let said = here.banger(&daemon.socket(), line).current_dir(here.path()).said();
        assert_eq!(said.code, 0, "{line}: {}", said.err);
    }
    let said = here.banger(&daemon.socket(), "system stop-guests --limit 20s").said();
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.contains("d: suspended after "), "{}", said.out);
}
