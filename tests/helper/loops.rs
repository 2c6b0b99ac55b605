//! Loop devices over the owner's files, and over nobody else's.

use std::os::unix::fs::{chown, symlink};

use banger::model::Code;
use banger::wire::helper::{HelperBody, HelperOk};

use crate::support::{Host, OP, OWNER, is_root};

fn file(host: &Host, name: &str, owner: u32) {
    let file = std::fs::File::create(host.path(name)).unwrap();
    file.set_len(1 << 20).unwrap();
    chown(host.path(name), Some(owner), Some(owner)).unwrap();
}

#[tokio::test]
async fn attached_once_and_detached_by_file() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let before = host.world();
    let client = host.client();
    file(&host, "state/disk.img", OWNER);
    let path = host.text("state/disk.img");
    let attach = |read_only| HelperBody::AttachLoop { path: path.clone(), read_only };
    let HelperOk::Loop { device } = client.call(OP, attach(true)).await.unwrap() else {
        panic!("no device")
    };
    let again = client.call(OP, attach(true)).await.unwrap();
    assert_eq!(again, HelperOk::Loop { device: device.clone() });
    assert_eq!(client.call(OP, attach(false)).await.unwrap_err().code, Code::Conflict);
    let HelperOk::Loops(loops) = client.call(OP, HelperBody::ListLoops).await.unwrap() else {
        panic!("no list")
    };
    assert_eq!((loops.len(), &loops[0].device, loops[0].read_only), (1, &device, true));
    for _ in 0..2 {
        let detach = HelperBody::DetachLoop { path: path.clone() };
        assert_eq!(client.call(OP, detach).await.unwrap(), HelperOk::Done);
    }
    assert_eq!(host.world(), before);
}

#[tokio::test]
async fn other_files_are_refused() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let before = host.world();
    file(&host, "state/roots.img", 0);
    file(&host, "outside.img", OWNER);
    symlink(host.path("outside.img"), host.path("state/link.img")).unwrap();
    symlink(host.dir.path(), host.path("state/up")).unwrap();
    std::fs::create_dir(host.path("state/dir")).unwrap();
    chown(host.path("state/dir"), Some(OWNER), None).unwrap();
    for name in
        ["state/roots.img", "state/link.img", "state/up/outside.img", "state/dir", "state/none"]
    {
        let body = HelperBody::AttachLoop { path: host.text(name), read_only: true };
        host.client().call(OP, body).await.unwrap_err();
    }
    assert_eq!(host.world(), before);
}
