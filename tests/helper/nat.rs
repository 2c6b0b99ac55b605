//! What a guest reaches with NAT and without: a namespace stands for the guest, one for the world.

use std::net::Ipv4Addr;

use banger::ports::NetHost;

use crate::support::{Host, NetNs, OP, is_root, new_vm};

/// Joins two namespaces by a pair of links, `a` in the first and `b` in the second.
fn cable(first: &NetNs, a: &str, second: &NetNs, b: &str) {
    let add = ["link", "add", a, "type", "veth", "peer", "name", b, "netns", &second.0];
    first.sh("ip", &add);
    first.sh("ip", &["link", "set", a, "up"]);
    second.sh("ip", &["link", "set", b, "up"]);
}

fn guest(host: &Host, link: &str, address: &str) -> NetNs {
    let ns = NetNs::new("g");
    cable(&host.ns, link, &ns, "eth0");
    host.ns.sh("ip", &["link", "set", link, "master", "bgbr0"]);
    ns.sh("ip", &["address", "add", &format!("{address}/24"), "dev", "eth0"]);
    ns.sh("ip", &["route", "add", "default", "via", "172.16.0.1"]);
    ns
}

#[tokio::test]
async fn a_guest_reaches_the_world_only_with_nat() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let net = host.net();
    net.ensure_bridge(OP).await.unwrap();
    let first = guest(&host, "guest1", "172.16.0.2");
    let second = guest(&host, "guest2", "172.16.0.3");
    let outside = NetNs::new("o");
    cable(&host.ns, "uplink", &outside, "eth0");
    host.ns.sh("ip", &["address", "add", "203.0.113.1/24", "dev", "uplink"]);
    outside.sh("ip", &["address", "add", "203.0.113.2/24", "dev", "eth0"]);
    // The world knows the way back: without the rules plain forwarding would do.
    outside.sh("ip", &["route", "add", "172.16.0.0/24", "via", "203.0.113.1"]);
    let (world, address) = ("203.0.113.2", Ipv4Addr::new(172, 16, 0, 2));

    assert!(first.pings("172.16.0.1"), "the host");
    assert!(first.pings("172.16.0.3"), "the other guest");
    assert!(!first.pings(world), "no NAT yet");
    assert!(outside.pings("172.16.0.2"), "answers to the world are let out");

    let vm = new_vm();
    net.ensure_nat(OP, vm, address).await.unwrap();
    assert!(first.pings(world), "with NAT\n{}", host.world());
    assert!(!second.pings(world), "the other guest has none");
    // Hidden behind the host's address: without a way back it must still work.
    outside.sh("ip", &["route", "del", "172.16.0.0/24"]);
    assert!(first.pings(world));
    outside.sh("ip", &["route", "add", "172.16.0.0/24", "via", "203.0.113.1"]);

    net.remove_nat(OP, vm, address).await.unwrap();
    assert!(!first.pings(world), "NAT was taken away");
    assert!(first.pings("172.16.0.1"));
}

#[tokio::test]
async fn taking_nat_away_cuts_what_runs() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let net = host.net();
    net.ensure_bridge(OP).await.unwrap();
    let first = guest(&host, "guest1", "172.16.0.2");
    let outside = NetNs::new("o");
    cable(&host.ns, "uplink", &outside, "eth0");
    host.ns.sh("ip", &["address", "add", "203.0.113.1/24", "dev", "uplink"]);
    outside.sh("ip", &["address", "add", "203.0.113.2/24", "dev", "eth0"]);
    let (vm, address) = (new_vm(), Ipv4Addr::new(172, 16, 0, 2));
    net.ensure_nat(OP, vm, address).await.unwrap();
    // The same identifier is the same connection to conntrack.
    let ping = || first.run("ping", &["-c1", "-W1", "-n", "-e", "77", "203.0.113.2"]);
    assert!(ping().status.success());
    net.remove_nat(OP, vm, address).await.unwrap();
    assert!(!ping().status.success());
}
