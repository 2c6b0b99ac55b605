//! A container image of several layers boots, with what its upper layers did to the lower ones.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{busybox_tar, new_host, oci};

fn upper() -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    let mut put = |name: &str, mode, uid, text: &str| {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(uid);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    };
    put("etc/.wh.group", 0o644, 0, "");
    put("usr/bin/hello", 0o755, 0, "#!/bin/sh\necho hello from above\n");
    put("srv/owned", 0o640, 100_000, "x");
    let mut link = tar::Header::new_gnu();
    link.set_entry_type(tar::EntryType::Link);
    link.set_size(0);
    link.set_mode(0o755);
    tar.append_link(&mut link, "usr/bin/busybox-linked", "bin/busybox").unwrap();
    tar.into_inner().unwrap()
}

fn write_layout(layout: &Path) {
    let lower = fs::read(busybox_tar()).unwrap();
    let run = json!({"Cmd": ["/bin/sh"]});
    oci::layout(layout, &[lower, upper()], &run);
}

#[test]
fn an_image_of_layers_boots_as_its_layers_say() {
    let host = new_host!();
    let layout = host.dir.join("layout");
    write_layout(&layout);
    let at = layout.display().to_string();
    let made = host.banger(&["image", "import", "layered", &at]).expect(0);
    assert_eq!(made.stdout, "layered\n");
    assert!(made.stderr.contains("reading layer 2 of 2"), "{}", made.stderr);
    // The same layers again are the same image.
    host.banger(&["image", "import", "again", &at]).ok();
    let list: Value =
        serde_json::from_str(&host.banger(&["image", "list", "--json"]).ok()).unwrap();
    let digest = |name: &str| {
        let all = list.as_array().unwrap();
        all.iter().find(|image| image["name"] == name).unwrap()["digest"].clone()
    };
    assert_eq!(digest("layered"), digest("again"));
    let seen = "hello; ls /etc/group 2>&1 | wc -l; test -e /etc/group || echo gone; \
                ls -ln /srv/owned | awk '{print $1, $3, $4}'; busybox-linked echo linked; \
                ls -l /bin/busybox | awk '{print $2}'";
    let run = ["vm", "run", "--rm", "--image", "layered", "--", "sh", "-c", seen];
    let said = host.banger(&run).ok();
    assert_eq!(said, "hello from above\n1\ngone\n-rw-r----- 100000 100000\nlinked\n2\n");
    // A layer that is not what it says never becomes an image.
    for file in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(b"\x28\xb5\x2f\xfd") {
            let last = bytes.len() - 9;
            bytes[last] ^= 1;
            fs::write(&path, bytes).unwrap();
        }
    }
    let refused = host.banger(&["image", "import", "bad", &at]).expect(1);
    assert!(refused.stderr.contains("layer sha256:"), "{}", refused.stderr);
}
