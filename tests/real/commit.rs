//! What was done to a VM's root is in the image that is made of it, and an image that went out as a
//! layout comes back as it was.

use serde_json::{Value, json};

use crate::support::{busybox_tar, new_host, oci};

#[test]
fn a_stopped_vm_becomes_an_image_and_an_image_a_layout() {
    let host = new_host!();
    let layout = host.dir.join("base");
    let run = json!({"Cmd": ["cat", "/srv/note"], "Env": ["FROM_IMAGE=image"]});
    oci::layout(&layout, &[std::fs::read(busybox_tar()).unwrap()], &run);
    host.banger(&["image", "import", "base", &layout.display().to_string()]).ok();

    host.banger(&["vm", "run", "-d", "--name", "web", "--image", "base"]).ok();
    let exec = |vm: &str, line: &str| host.banger(&["vm", "exec", vm, "--", "sh", "-c", line]).ok();
    let work = "mkdir /srv && echo kept > /srv/note && rm /etc/group && ln /srv/note /srv/twin && \
                ln -s note /srv/link && dd if=/dev/zero of=/srv/zeros bs=1k count=300 2>/dev/null && \
                echo mine > /root/mine";
    exec("web", work);
    let refused = host.banger(&["vm", "commit", "web", "changed"]).expect(1);
    assert!(refused.stderr.contains("banger vm stop web"), "{}", refused.stderr);
    host.banger(&["vm", "stop", "web"]).ok();
    host.banger(&["vm", "commit", "web", "changed"]).ok();
    host.banger(&["vm", "delete", "web"]).ok();

    let rm = ["vm", "run", "--rm", "--image", "changed"];
    assert_eq!(host.banger(&rm).ok(), "kept\n", "it is run as its VM was");
    let seen = "cat /srv/link; ls -l /srv/note | awk '{print $2}'; ls /etc/group 2>/dev/null || \
                echo gone; wc -c < /srv/zeros; ls /root | grep -v lost; ls -d /var/lib/banger/jobs/1; echo $FROM_IMAGE";
    let look = |image: &str| {
        host.banger(&["vm", "run", "--rm", "--image", image, "--", "sh", "-c", seen])
            .expect(0)
            .stdout
    };
    assert_eq!(look("changed"), "kept\n2\ngone\n307200\nimage\n");

    let out = host.dir.join("out");
    host.banger(&["image", "export", "changed", &out.display().to_string()]).ok();
    let file = host.dir.join("out.tar").display().to_string();
    host.banger(&["image", "export", "changed", &file]).ok();
    for (name, path) in [("again", out.display().to_string()), ("once-more", file)] {
        host.banger(&["image", "import", name, &path]).ok();
    }
    let usage: Value = serde_json::from_str(&host.banger(&["image", "df", "--json"]).ok()).unwrap();
    let both = usage.as_array().unwrap().iter().find(|row| row["names"][0]["name"] == "again");
    assert_eq!(both.unwrap()["names"].as_array().unwrap().len(), 2, "{usage:#}");
    assert_eq!(look("again"), look("changed"));
}
