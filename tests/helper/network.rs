//! Bridge, taps and the table: made once, found half-made, refused when somebody else's, undone.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use banger::model::{Code, NetAmiss, NetOf, NetSeen, TapName, TapSeen, chain};
use banger::ports::NetHost;
use banger::wire::helper::HelperBody;

use crate::support::{Host, OP, OWNER, is_root, new_vm};

fn tap(slot: u16) -> TapName {
    TapName::new("bgtap", slot)
}

#[tokio::test]
async fn everything_twice_then_undone_twice() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let net = host.net();
    let before = host.world();
    let (vm, guest) = (new_vm(), Ipv4Addr::new(172, 16, 0, 2));
    let mut worlds = vec![];
    for _ in 0..2 {
        net.ensure_bridge(OP).await.unwrap();
        net.ensure_tap(OP, &tap(0)).await.unwrap();
        net.ensure_tap(OP, &tap(7)).await.unwrap();
        net.ensure_nat(OP, vm, guest).await.unwrap();
        let mut taps = net.list_taps(OP).await.unwrap();
        taps.sort();
        assert_eq!(taps, [tap(0), tap(7)]);
        worlds.push(host.world());
    }
    assert_eq!(worlds[0], worlds[1], "the second time changed something");
    let world = &worlds[0];
    for part in [
        "inet 172.16.0.1/24",
        "alias banger:bridge",
        "alias banger:tap",
        "vnet_hdr on",
        &format!("user {}", if OWNER == 65534 { "nobody" } else { "?" }),
        "table inet banger_test",
        &format!("172.16.0.2 comment \"{vm}\""),
        "masquerade",
    ] {
        assert!(world.contains(part), "{part} is not in {world}");
    }
    assert_eq!(host.ns.sh("cat", &["/proc/sys/net/ipv4/ip_forward"]).trim(), "1");

    // Another VM's request does not take this VM's element.
    net.remove_nat(OP, new_vm(), guest).await.unwrap();
    assert_eq!(host.world(), worlds[1]);
    // While a port is left the bridge stays.
    for _ in 0..2 {
        net.remove_nat(OP, vm, guest).await.unwrap();
        net.remove_tap(OP, &tap(0)).await.unwrap();
    }
    net.remove_bridge(OP).await.unwrap();
    assert!(host.world().contains("bgbr0"));
    for _ in 0..2 {
        net.remove_tap(OP, &tap(7)).await.unwrap();
        net.remove_bridge(OP).await.unwrap();
    }
    assert_eq!(host.world(), before);
    assert!(net.list_taps(OP).await.unwrap().is_empty());
    let lines = host.audit();
    assert!(lines.iter().all(|line| line["verdict"] == "ok" || line["request"] == "-"));
    assert!(lines.iter().filter(|line| line["op_id"] == OP.to_string()).count() > 10);
}

#[tokio::test]
async fn what_is_half_made_is_finished() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let net = host.net();
    let ip = |args: &[&str]| drop(host.ns.sh("ip", args));
    // As a helper leaves it that dies after the first message.
    ip(&["link", "add", "bgbr0", "address", "02:ba:ac:10:00:01", "type", "bridge"]);
    net.ensure_bridge(OP).await.unwrap();
    assert!(host.world().contains("alias banger:bridge"));
    ip(&["tuntap", "add", "dev", "bgtap3", "mode", "tap"]);
    net.ensure_tap(OP, &tap(3)).await.unwrap();
    let world = host.world();
    assert!(world.contains("vnet_hdr on") && world.contains("master bgbr0"), "{world}");
    // Somebody took it off, brought it down, flushed the rules.
    let whole = host.world();
    ip(&["link", "set", "bgtap3", "nomaster", "down"]);
    drop(host.ns.sh("nft", &["flush", "chain", "inet", "banger_test", "forward"]));
    let vm = new_vm();
    net.ensure_nat(OP, vm, Ipv4Addr::new(172, 16, 0, 9)).await.unwrap();
    net.ensure_bridge(OP).await.unwrap();
    net.ensure_tap(OP, &tap(3)).await.unwrap();
    net.remove_nat(OP, vm, Ipv4Addr::new(172, 16, 0, 9)).await.unwrap();
    assert_eq!(host.world(), whole);
}

#[tokio::test]
async fn a_replaced_table_keeps_who_has_nat() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let net = host.net();
    net.ensure_bridge(OP).await.unwrap();
    let vm = new_vm();
    net.ensure_nat(OP, vm, Ipv4Addr::new(172, 16, 0, 9)).await.unwrap();
    let whole = host.world();
    drop(host.ns.sh("nft", &["delete", "chain", "inet", "banger_test", "forward"]));
    net.ensure_bridge(OP).await.unwrap();
    assert_eq!(host.world(), whole);
}

#[tokio::test]
async fn what_is_somebody_elses_is_refused_and_left_alone() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let net = host.net();
    let ip = |args: &[&str]| drop(host.ns.sh("ip", args));
    ip(&["link", "add", "bgbr0", "type", "bridge"]);
    let before = host.world();
    let error = net.ensure_bridge(OP).await.unwrap_err();
    assert_eq!(error.code, Code::Conflict);
    assert!(chain(&error).contains("bgbr0"), "{error:?}");
    net.remove_bridge(OP).await.unwrap();
    assert_eq!(host.world(), before);
    ip(&["link", "del", "bgbr0"]);

    drop(host.ns.sh("nft", &["add", "table", "inet", "banger_test"]));
    let before = host.world();
    let error = net.ensure_bridge(OP).await.unwrap_err();
    assert!(chain(&error).contains("banger_test"), "{error:?}");
    assert_eq!(host.world(), before);
    drop(host.ns.sh("nft", &["delete", "table", "inet", "banger_test"]));

    net.ensure_bridge(OP).await.unwrap();
    ip(&["link", "add", "bgtap1", "type", "veth", "peer", "name", "other"]);
    let before = host.world();
    for error in [
        net.ensure_tap(OP, &tap(1)).await.unwrap_err(),
        net.remove_tap(OP, &tap(1)).await.unwrap_err(),
    ] {
        assert_eq!(error.code, Code::Conflict);
        assert!(chain(&error).contains("bgtap1"), "{error:?}");
    }
    assert_eq!(host.world(), before);

    ip(&["address", "add", "10.9.9.9/24", "dev", "bgbr0"]);
    let error = net.ensure_bridge(OP).await.unwrap_err();
    assert!(chain(&error).contains("10.9.9.9/24"), "{error:?}");
}

#[tokio::test]
async fn a_subnet_in_use_is_refused_by_name() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    for (link, address) in [("uplink", "172.16.0.130/25"), ("vpn", "172.16.44.1/16")] {
        host.ns.sh("ip", &["link", "add", link, "type", "veth", "peer", "name", "peer"]);
        host.ns.sh("ip", &["address", "add", address, "dev", link]);
        let before = host.world();
        let error = host.net().ensure_bridge(OP).await.unwrap_err();
        assert_eq!(error.code, Code::Conflict);
        let text = chain(&error);
        assert!(text.contains(link) && text.contains("172.16.0.0/24"), "{text}");
        assert_eq!(host.world(), before);
        host.ns.sh("ip", &["link", "del", link]);
    }
    host.net().ensure_bridge(OP).await.unwrap();
}

#[tokio::test]
async fn a_tap_without_its_bridge_is_refused_and_the_daemon_makes_both() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let body = HelperBody::EnsureTap { bridge: "bgbr0".into(), tap: tap(0).0 };
    let error = host.client().call(OP, body).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    assert!(chain(&error).contains("bgbr0"), "{error:?}");
    host.net().ensure_tap(OP, &tap(0)).await.unwrap();
    assert_eq!(host.net().list_taps(OP).await.unwrap(), [tap(0)]);
}

#[test]
fn teardown_leaves_the_host_as_before() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let before = host.world();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        host.net().ensure_bridge(OP).await.unwrap();
        host.net().ensure_tap(OP, &tap(0)).await.unwrap();
    });
    let helper = env!("CARGO_BIN_EXE_banger-helper");
    crate::support::sh(helper, &["--teardown", "--socket", &host.text("run/helper.sock")]);
    assert_eq!(host.world(), before);
}

#[tokio::test]
async fn a_survey_says_what_is_amiss_and_changes_nothing() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let net = host.net();
    let (vm, guest) = (new_vm(), Ipv4Addr::new(172, 16, 0, 2));
    let amiss = |seen: &NetSeen| {
        let of = NetOf { vm, tap: tap(3), address: guest, nat: true };
        seen.amiss(&[of], &[])
    };
    let bare = net.survey(OP).await.unwrap();
    assert!(!bare.bridge && !bare.table && bare.taps.is_empty() && bare.nat.is_empty());
    assert!(!bare.helper.is_empty());
    net.ensure_bridge(OP).await.unwrap();
    net.ensure_tap(OP, &tap(3)).await.unwrap();
    net.ensure_nat(OP, vm, guest).await.unwrap();
    let idle = net.survey(OP).await.unwrap();
    assert_eq!(idle.taps, BTreeMap::from([(tap(3), TapSeen { attached: true, used: false })]));
    let held = host.hold_tap("bgtap3");
    let whole = host.world();
    assert_eq!(amiss(&net.survey(OP).await.unwrap()), NetAmiss::default());
    assert_eq!(host.world(), whole);

    // By hand, one after the other, each repaired by what makes it.
    let ip = |args: &[&str]| drop(host.ns.sh("ip", args));
    drop(host.ns.sh("nft", &["flush", "ruleset"]));
    let seen = amiss(&net.survey(OP).await.unwrap());
    assert_eq!((seen.shared, seen.nat), (vec!["the nftables table"], vec![(vm, guest)]));
    net.ensure_nat(OP, vm, guest).await.unwrap();
    ip(&["link", "del", "bgbr0"]);
    let seen = amiss(&net.survey(OP).await.unwrap());
    assert_eq!((seen.shared, seen.loose, seen.lost), (vec!["the bridge"], vec![vm], vec![]));
    net.ensure_bridge(OP).await.unwrap();
    assert_eq!(amiss(&net.survey(OP).await.unwrap()).loose, [vm]);
    net.ensure_tap(OP, &tap(3)).await.unwrap();
    assert_eq!(amiss(&net.survey(OP).await.unwrap()), NetAmiss::default());
    // What a VMM has open is never what somebody makes anew in its place.
    ip(&["link", "del", "bgtap3"]);
    assert_eq!(amiss(&net.survey(OP).await.unwrap()).lost, [vm]);
    net.ensure_tap(OP, &tap(3)).await.unwrap();
    assert_eq!(amiss(&net.survey(OP).await.unwrap()).lost, [vm]);
    drop(held);

    // As Docker leaves it.
    drop(host.ns.sh("nft", &["add", "table", "ip", "filter"]));
    let chain = "{ type filter hook forward priority 0; policy drop; }";
    drop(host.ns.sh("nft", &["add", "chain", "ip", "filter", "FORWARD", chain]));
    assert_eq!(net.survey(OP).await.unwrap().drops, ["ip filter FORWARD"]);
    assert!(host.audit().iter().all(|line| line["request"] != "survey-network"));
}
