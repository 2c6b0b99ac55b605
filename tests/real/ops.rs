//! Operations of real guests, watched and taken back half way.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{new_host, until};

#[test]
fn a_boot_is_watched_and_cancelled_half_way() {
    let host = new_host!();
    let before = host.world();
    host.banger(&["vm", "create", "--no-start", "--name", "web"]).ok();
    let mut starting = host.banger_command(&["vm", "start", "web"]);
    let mut starting = starting.stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
    let mut op = String::new();
    until("the guest boots", Duration::from_secs(30), || {
        op = host.banger(&["ops", "list", "--open", "-q"]).stdout.trim().to_owned();
        !op.is_empty() && !host.guests().is_empty()
    });
    let mut watch = host.banger_command(&["ops", "watch", &op[..24]]);
    let watch = watch.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let said = host.banger(&["ops", "cancel", &op]).expect(0);
    assert!(said.stderr.contains("vm-start web was cancelled at "), "{}", said.stderr);
    assert!(host.guests().is_empty(), "it waited until all was taken back");
    let watched = watch.wait_with_output().unwrap();
    let told = String::from_utf8(watched.stderr).unwrap();
    assert_eq!(watched.status.code(), Some(1), "{told}");
    assert!(told.contains("spawn-vmm  "), "from its beginning: {told}");
    assert_eq!(starting.wait().unwrap().code(), Some(1));
    assert_eq!(host.show("web")["state"], "stopped");
    // Nothing is in the way of the next.
    host.banger(&["vm", "start", "web"]).ok();
    host.banger(&["vm", "delete", "web"]).ok();
    until("nothing is left", Duration::from_secs(20), || host.world() == before);
}
