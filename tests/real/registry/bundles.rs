//! Bundles: out of one daemon and into it again, from a file and by a URL, with the daemon killed under the
//! download.

use super::depot::{DEPOT, Depot, Door, layout, publish};
use super::line::{LINE, Line, State};
use super::*;

#[test]
fn a_bundle_comes_by_its_url_outlives_its_daemon_and_runs_as_the_same_image() {
    let mut host = new_host!(settings(true));
    let _depot = Depot::start(&host, Door::default());
    let line = Line::start(&host);
    let from = layout(&host, "layout", "one").display().to_string();
    host.banger(&["image", "import", "app", &from]).ok();
    let file = host.dir.join("app.bundle.tar.zst");
    let shown = file.display().to_string();
    host.banger(&["image", "export", "app", "--bundle", &shown]).ok();
    let bytes = fs::read(&file).unwrap();
    assert!(host.banger(&["image", "export", "app", "--bundle", &shown]).code == Some(1));
    let before = image(&host, "app");
    // From the file it is the same again.
    host.banger(&["image", "import", "again", &shown]).ok();
    assert_eq!(image(&host, "again")["digest"], before["digest"]);
    for name in ["app", "again"] {
        host.banger(&["image", "delete", name]).ok();
    }
    let digest = publish(&host, "bundles", &bytes);
    let url = |at: &str| format!("http://{at}/v2/bundles/blobs/sha256:{digest}");
    let import = ["image", "import", "web", &url(LINE), "--sha256", &digest];
    // A digest that is another, and none at all.
    let wrong = "0".repeat(64);
    let refused = host.banger(&["image", "import", "web", &url(DEPOT), "--sha256", &wrong]);
    assert!(refused.expect(1).stderr.contains("is not sha256:0000"));
    let refused = host.banger(&["image", "import", "web", &url(DEPOT)]).expect(2);
    assert!(refused.stderr.contains("--sha256"), "{}", refused.stderr);
    let half = bytes.len() as u64 / 2;
    line.set(State::Held(half));
    let client = spawn(&host, &import);
    let size = |path: &PathBuf| fs::metadata(path).map_or(0, |meta| meta.len());
    until("half of the bundle", LIMIT, || {
        files(&host, "partial").iter().any(|path| size(path) + (16 << 10) > half)
    });
    host.kill_daemon();
    line.set(State::Good);
    host.start_daemon();
    let imported = outcome(client).expect(0);
    assert_eq!(imported.stdout, "web\n");
    assert!(imported.stderr.contains("goes on where it was"), "{}", imported.stderr);
    check_cache(&host);
    let served = line.served();
    assert!(served < bytes.len() as u64 + (256 << 10), "{served} bytes of {}", bytes.len());
    let after = image(&host, "web");
    assert_eq!(after["digest"], before["digest"]);
    assert_eq!(after["source"], url(LINE));
    assert_eq!(host.banger(&["vm", "run", "--rm", "--image", "web", "--", "hello"]).ok(), "one\n");
}

#[test]
fn a_kernel_that_went_out_as_a_bundle_comes_back_and_boots_what_wants_it() {
    let host = new_host!(settings(true));
    let kernels = host.banger(&["kernel", "list", "-q"]).ok();
    let (kernel, at) = (kernels.trim(), |name: &str| host.dir.join(name).display().to_string());
    host.banger(&["kernel", "export", kernel, &at("kernel.tar.zst")]).ok();
    let from = layout(&host, "layout", "one").display().to_string();
    host.banger(&["image", "import", "app", &from]).ok();
    let export = ["image", "export", "app", "--bundle", &at("app.tar.zst")];
    host.banger(&[&export[..], &["--kernel-ref", "other"]].concat()).ok();
    host.banger(&["image", "import", "web", &at("app.tar.zst")]).ok();
    let run = ["vm", "run", "--rm", "--image", "web", "--", "hello"];
    let lacks = host.banger(&run).expect(125);
    assert!(lacks.stderr.contains("other"), "{}", lacks.stderr);
    let swapped = host.banger(&["kernel", "import", "other", &at("app.tar.zst")]).expect(1);
    assert!(swapped.stderr.contains("banger image import"), "{}", swapped.stderr);
    host.banger(&["kernel", "import", "other", &at("kernel.tar.zst")]).ok();
    assert_eq!(host.banger(&run).ok(), "one\n");
    let digest = |name: &str| {
        let shown = host.banger(&["kernel", "show", name, "--json"]).ok();
        serde_json::from_str::<Value>(&shown).unwrap()["digest"].clone()
    };
    assert_eq!(digest("other"), digest(kernel));
}
