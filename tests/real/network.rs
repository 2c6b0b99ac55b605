//! Addresses, names and the way out.

use crate::support::{Host, new_host};

fn guest(host: &Host, name: &str, command: &[&str]) -> crate::support::Outcome {
    let mut args = vec!["vm", "exec", name, "--"];
    args.extend(command);
    host.banger(&args)
}

#[test]
fn guests_reach_each_other_and_the_host_and_have_names() {
    let host = new_host!(crate::support::Settings {
        config: String::new(),
        ..crate::support::Settings::default()
    });
    for name in ["left", "right"] {
        host.banger(&["vm", "run", "-d", "--name", name]).ok();
    }
    let address = |name: &str| host.show(name)["address"].as_str().unwrap().to_owned();
    let (left, right) = (address("left"), address("right"));
    assert_ne!(left, right);
    guest(&host, "left", &["ping", "-c", "1", "-W", "5", &right]).ok();
    guest(&host, "right", &["ping", "-c", "1", "-W", "5", &left]).ok();
    guest(&host, "left", &["ping", "-c", "1", "-W", "5", "10.77.0.1"]).ok();
    host.inside("ping", &["-c", "1", "-W", "5", &left]).ok();
    // Names follow start and stop.
    let dig = |args: &[&str]| {
        let mut all = vec!["@127.0.0.1", "-p", "42069", "+short", "+time=2", "+tries=1"];
        all.extend(args);
        host.inside("dig", &all).stdout.trim().to_owned()
    };
    assert_eq!(dig(&["left.vm", "A"]), left);
    assert_eq!(dig(&["-x", &left]), "left.vm.");
    host.banger(&["vm", "stop", "left"]).ok();
    assert_eq!(dig(&["left.vm", "A"]), "");
    host.banger(&["vm", "start", "left"]).ok();
    assert_eq!(dig(&["left.vm", "A"]), left, "the address is kept for life");
}

/// A second namespace stands for the outside world.
#[test]
fn only_with_nat_a_guest_reaches_what_lies_behind_the_host() {
    let host = new_host!();
    let _outside = Outside::behind(&host);
    let rules = || host.inside("nft", &["list", "ruleset"]).stdout;
    host.banger(&["vm", "run", "-d", "--name", "in"]).ok();
    host.banger(&["vm", "run", "-d", "--name", "out", "--nat"]).ok();
    let ping = ["ping", "-c", "1", "-W", "3", "192.0.2.2"];
    guest(&host, "out", &ping).ok();
    guest(&host, "in", &ping).expect(1);
    let address = host.show("out")["address"].as_str().unwrap().to_owned();
    assert!(rules().contains(&address), "{}", rules());
    host.banger(&["vm", "stop", "out"]).ok();
    assert!(!rules().contains(&address), "{}", rules());
    host.banger(&["vm", "start", "out"]).ok();
    guest(&host, "out", &ping).ok();
}

struct Outside(String);

impl Outside {
    fn behind(host: &Host) -> Self {
        let name = format!("{}-o", host.netns);
        let ip = |args: &[&str]| {
            let done = std::process::Command::new("ip").args(args).status().unwrap();
            assert!(done.success(), "ip {args:?}");
        };
        ip(&["netns", "add", &name]);
        let outside = Self(name.clone());
        let veth = ["link", "add", "up0", "netns", &host.netns, "type", "veth"];
        let peer = ["peer", "name", "up1", "netns", &name];
        ip(&[veth.as_slice(), &peer].concat());
        ip(&["-n", &host.netns, "addr", "add", "192.0.2.1/24", "dev", "up0"]);
        ip(&["-n", &host.netns, "link", "set", "up0", "up"]);
        ip(&["-n", &name, "addr", "add", "192.0.2.2/24", "dev", "up1"]);
        ip(&["-n", &name, "link", "set", "up1", "up"]);
        outside
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        drop(std::process::Command::new("ip").args(["netns", "delete", &self.0]).status());
    }
}

#[test]
fn taps_are_warm_and_come_back() {
    let host = new_host!();
    host.until_taps_are_ready();
    host.banger(&["vm", "run", "-d", "--name", "a"]).ok();
    host.until_taps_are_ready();
    host.banger(&["vm", "delete", "a"]).ok();
    host.until_taps_are_ready();
    let links = host.inside("ip", &["-br", "link"]).ok();
    assert_eq!(links.matches("bgt").count(), 4, "{links}");
}
