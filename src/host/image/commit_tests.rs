//! Roots of VMs become images, and images layouts, by the port's own way in. What a guest's kernel
//! would have written is written by e2fsprogs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::host::image::LocalImages;
use crate::model::{Code, Digest, ImageConfig, Name, OpId, Size, chain};
use crate::ports::{Export, HostError, ImageFile, ImageHost, ImageRecipe};

const OP: OpId = OpId([0; 16]);

fn named(text: &str) -> Name {
    Name::artefact(text).unwrap()
}

struct Rig {
    dir: tempfile::TempDir,
    images: LocalImages,
}

impl Rig {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let agent = dir.path().join("agent");
        let images = LocalImages::new(&dir.path().join("state"), agent).unwrap();
        Self { dir, images }
    }

    async fn make(&self, recipe: ImageRecipe) -> Result<ImageFile, HostError> {
        let nothing: crate::ports::ProgressSink = Arc::new(|_| {});
        let made = self.images.make_image(OP, &recipe, nothing, &CancellationToken::new()).await;
        assert_eq!(fs::read_dir(self.dir.path().join("state/tmp")).unwrap().count(), 0);
        made
    }

    async fn base(&self) -> Digest {
        let root = self.dir.path().join("root");
        fs::create_dir_all(root.join("bin")).unwrap();
        fs::create_dir_all(root.join("etc/conf.d")).unwrap();
        fs::create_dir_all(root.join("var/lib/banger/jobs")).unwrap();
        for (name, text) in [
            ("bin/sh", "#!program"),
            ("etc/passwd", "root"),
            ("etc/gone", "x"),
            ("etc/conf.d/a", "a"),
            ("var/lib/banger/jobs/1", "said"),
        ] {
            fs::write(root.join(name), text).unwrap();
        }
        fs::hard_link(root.join("bin/sh"), root.join("bin/ash")).unwrap();
        fs::set_permissions(root.join("bin/sh"), PermissionsExt::from_mode(0o755)).unwrap();
        self.make(ImageRecipe::Directory { path: root }).await.unwrap().digest
    }

    fn image(&self, digest: Digest) -> PathBuf {
        self.dir.path().join(format!("state/images/{digest}.ext4"))
    }

    async fn commit(&self, base: Digest, root: RootSource) -> Result<ImageFile, HostError> {
        let config = ImageConfig { cmd: vec!["serve".to_owned()], ..ImageConfig::default() };
        let config = Some(Box::new(config));
        self.make(ImageRecipe::Root { vm: "web".to_owned(), base, root, config }).await
    }

    /// Files with their contents, everything else by its kind.
    fn listing(&self, digest: Digest) -> BTreeMap<String, String> {
        let volume = Volume::open(Arc::new(File::open(self.image(digest)).unwrap())).unwrap();
        let mut all = BTreeMap::new();
        let walked = volume.walk(&[], &mut |found: Found| {
            let what = match found.content {
                Content::File { mut contents, .. } => {
                    let mut text = String::new();
                    contents.read_to_string(&mut text)?;
                    text
                }
                other => format!("{other:?}"),
            };
            all.insert(String::from_utf8(found.path).unwrap(), what);
            Ok::<_, ReadError>(true)
        });
        walked.unwrap();
        all
    }

    async fn export(&self, digest: Digest, config: &ImageConfig) -> Vec<u8> {
        let (sender, pieces) = mpsc::channel::<Vec<u8>>();
        let to = Box::new(move |piece| sender.send(piece).is_ok());
        let cancel = CancellationToken::new();
        let what = Export::Layout { image: digest, config: config.clone() };
        self.images.export(OP, &what, &named("web"), to, &cancel).await.unwrap();
        pieces.into_iter().flatten().collect()
    }
}

#[allow(clippy::disallowed_methods, reason = "tests ask e2fsprogs")]
fn debugfs(disk: &Path, requests: &[&str]) {
    use std::io::Write as _;
    let mut child = Command::new("/sbin/debugfs");
    let child = child.args(["-w", "-f", "-"]).arg(disk).stdin(Stdio::piped());
    let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(requests.join("\n").as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

#[allow(clippy::disallowed_methods, reason = "tests ask e2fsprogs")]
fn make_disk(path: &Path) {
    let made =
        Command::new("/sbin/mke2fs").args(["-q", "-t", "ext4"]).arg(path).arg("64M").status();
    assert!(made.unwrap().success());
}

#[tokio::test]
async fn an_overlay_is_laid_over_its_image_as_the_kernel_does() {
    let rig = Rig::new();
    let base = rig.base().await;
    let (disk, note) = (rig.dir.path().join("overlay.ext4"), rig.dir.path().join("note"));
    fs::write(&note, "new").unwrap();
    let write = format!("write {}", note.display());
    make_disk(&disk);
    debugfs(
        &disk,
        &[
            "mkdir upper",
            "mkdir work",
            "mkdir upper/etc",
            "mkdir upper/etc/conf.d",
            "mkdir upper/srv",
            &format!("{write} upper/srv/added"),
            &format!("{write} upper/etc/passwd"),
            &format!("{write} upper/etc/conf.d/b"),
            "ea_set upper/etc/conf.d trusted.overlay.opaque y",
            "ea_set upper/etc trusted.overlay.origin abc",
            "cd upper/etc",
            "mknod gone c 0 0",
        ],
    );
    let made = rig.commit(base, RootSource::Overlay(disk.clone())).await.unwrap();
    assert_eq!(made.source, "root of web");
    assert_eq!(made.config.unwrap().cmd, ["serve"]);
    let all = rig.listing(made.digest);
    let text = |name: &str| all.get(name).map(String::as_str);
    assert_eq!(text("etc/passwd"), Some("new"));
    assert_eq!(
        (text("srv/added"), text("bin/sh"), text("bin/ash")),
        (Some("new"), Some("#!program"), Some("#!program"))
    );
    assert_eq!(text("etc/gone"), None, "a whiteout");
    assert_eq!((text("etc/conf.d/a"), text("etc/conf.d/b")), (None, Some("new")), "opaque");
    assert_eq!(text("var/lib/banger"), None, "jobs are the VM's own");
    assert_eq!(text("var/lib"), Some("Dir"));
    let again = rig.commit(base, RootSource::Overlay(disk.clone())).await.unwrap();
    assert_eq!(again.digest, made.digest, "the same root is the same image");

    debugfs(&disk, &["ea_set upper/srv trusted.overlay.redirect elsewhere"]);
    let error = rig.commit(base, RootSource::Overlay(disk)).await.unwrap_err();
    assert_eq!(error.code, Code::Invalid);
    assert!(chain(&error).contains("trusted.overlay.redirect"), "{}", chain(&error));
}

#[tokio::test]
async fn a_clone_is_read_as_it_is_and_one_that_is_not_clean_is_not() {
    let rig = Rig::new();
    let base = rig.base().await;
    let (disk, note) = (rig.dir.path().join("root.ext4"), rig.dir.path().join("note"));
    fs::copy(rig.image(base), &disk).unwrap();
    fs::set_permissions(&disk, PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&note, "new").unwrap();
    debugfs(&disk, &["rm etc/gone", &format!("write {} etc/added", note.display())]);
    let made = rig.commit(base, RootSource::Clone(disk.clone())).await.unwrap();
    let all = rig.listing(made.digest);
    assert_eq!(all.get("etc/added").map(String::as_str), Some("new"));
    assert!(!all.contains_key("etc/gone") && all["bin/ash"] == "#!program");
    debugfs(&disk, &["feature needs_recovery"]);
    let error = rig.commit(base, RootSource::Clone(disk)).await.unwrap_err();
    assert_eq!(error.code, Code::Refused);
    assert!(chain(&error).contains("not left clean"), "{}", chain(&error));
    assert!(error.hints.iter().any(|hint| hint.contains("vm stop")), "{error:?}");
    let none = RootSource::Changes(rig.dir.path().join("root.cow"));
    assert_eq!(rig.commit(base, none).await.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
async fn changes_that_are_none_leave_the_image_as_it_is() {
    let rig = Rig::new();
    let base = rig.base().await;
    let changes = rig.dir.path().join("root.cow");
    File::create(&changes).unwrap().set_len(1 << 20).unwrap();
    let made = rig.commit(base, RootSource::Changes(changes)).await.unwrap();
    let (mut before, after) = (rig.listing(base), rig.listing(made.digest));
    before.retain(|name, _| !name.starts_with("var/lib/banger"));
    assert_eq!(before, after);
}

#[tokio::test]
async fn what_is_exported_and_imported_is_the_same_and_is_run_the_same_way() {
    let rig = Rig::new();
    let base = rig.base().await;
    let config = ImageConfig {
        entrypoint: vec!["/bin/sh".to_owned()],
        env: vec![("A".to_owned(), "b c".to_owned())],
        user: "7:8".to_owned(),
        labels: vec![("l".to_owned(), "v".to_owned())],
        ..ImageConfig::default()
    };
    let bytes = rig.export(base, &config).await;
    assert!(rig.export(base, &config).await == bytes, "the same bytes each time");
    let path = rig.dir.path().join("out.tar");
    fs::write(&path, &bytes).unwrap();
    let back = rig.make(ImageRecipe::Tar { path }).await.unwrap();
    assert_eq!(back.config.as_ref(), Some(&config));
    assert_eq!(rig.listing(base), rig.listing(back.digest));
    assert!(rig.export(back.digest, &config).await == bytes, "down to owners, modes and times");
    assert!(back.size >= Size::from_bytes(1));
}

#[tokio::test]
async fn an_export_that_nobody_reads_ends() {
    let rig = Rig::new();
    let base = rig.base().await;
    let to = Box::new(|_| false);
    let (cancel, config) = (CancellationToken::new(), ImageConfig::default());
    let what = Export::Layout { image: base, config };
    let error = rig.images.export(OP, &what, &named("web"), to, &cancel).await.unwrap_err();
    assert!(chain(&error).contains("write"), "{}", chain(&error));
    cancel.cancel();
    let to = Box::new(|_| true);
    let error = rig.images.export(OP, &what, &named("web"), to, &cancel).await;
    assert_eq!(error.unwrap_err().code, Code::Cancelled);
}

#[test]
fn a_disk_that_is_written_to_while_it_is_read_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("root.ext4");
    fs::write(&path, [1; 4096]).unwrap();
    // Long enough ago for any clock to tell.
    let before = std::time::SystemTime::UNIX_EPOCH;
    File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    let watched = Watched::open(&path).unwrap();
    watched.is_as_before().unwrap();
    fs::write(&path, [2; 4096]).unwrap();
    let error = watched.is_as_before().unwrap_err().on("commit", "web");
    assert_eq!(error.code, Code::Busy);
    assert!(chain(&error).contains("written to"), "{}", chain(&error));
}
