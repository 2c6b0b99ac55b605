//! Layouts on disk become images by the port's own way in.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use super::super::document::ARCH;
use super::*;
use crate::host::image::LocalImages;
use crate::model::{Code, ImageLimits, OpId, Size, chain};
use crate::ports::{HostError, ImageFile, ImageHost, ImageRecipe};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

pub(crate) struct Rig {
    pub(crate) dir: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let rig = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(rig.layout().join("blobs/sha256")).unwrap();
        fs::write(rig.layout().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        rig
    }

    pub(crate) fn layout(&self) -> PathBuf {
        self.dir.path().join("layout")
    }

    fn blob(&self, kind: &str, bytes: &[u8]) -> Value {
        let digest = Digest(Sha256::digest(bytes).into());
        fs::write(self.path(digest), bytes).unwrap();
        json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()})
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.layout().join("blobs/sha256").join(digest.to_string())
    }

    /// A manifest of these archives, each packed in its own way.
    pub(crate) fn manifest(&self, archives: &[Vec<u8>], kind: &str) -> Value {
        let packed = |(number, bytes): (usize, &Vec<u8>)| match number % 3 {
            0 => self.blob(&format!("{kind}+gzip"), &gzip(bytes)),
            1 => self.blob(&format!("{kind}+zstd"), &zstd::encode_all(&bytes[..], 1).unwrap()),
            _ => self.blob(kind, bytes),
        };
        let layers: Vec<_> = archives.iter().enumerate().map(packed).collect();
        let diff = |bytes: &Vec<u8>| format!("sha256:{}", Digest(Sha256::digest(bytes).into()));
        let diffs: Vec<_> = archives.iter().map(diff).collect();
        let config = json!({"os": "linux", "architecture": ARCH, "config": {"Cmd": ["serve"]},
            "rootfs": {"type": "layers", "diff_ids": diffs}});
        let config = self.blob(CONFIG, config.to_string().as_bytes());
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config,
            "layers": layers});
        self.blob(MANIFEST, manifest.to_string().as_bytes())
    }

    pub(crate) fn index(&self, manifests: &[Value]) {
        let index = json!({"schemaVersion": 2, "manifests": manifests});
        fs::write(self.layout().join("index.json"), index.to_string()).unwrap();
    }

    pub(crate) async fn import(&self) -> Result<ImageFile, HostError> {
        self.import_within(ImageLimits::default()).await
    }

    async fn import_within(&self, limits: ImageLimits) -> Result<ImageFile, HostError> {
        self.make(ImageRecipe::Directory { path: self.layout() }, limits).await
    }

    pub(crate) async fn make(
        &self,
        recipe: ImageRecipe,
        limits: ImageLimits,
    ) -> Result<ImageFile, HostError> {
        let state = self.dir.path().join("state");
        let images = LocalImages::new(&state, self.dir.path().join("agent")).unwrap();
        let images = images.with_limits(limits);
        let cancel = CancellationToken::new();
        let nothing: crate::ports::ProgressSink = Arc::new(|_| {});
        let before = count(&state.join("images"));
        let made = images.make_image(OpId([0; 16]), &recipe, nothing, &cancel).await;
        if made.is_err() {
            assert_eq!(count(&state.join("images")), before, "{made:?}");
        }
        assert_eq!(fs::read_dir(state.join("tmp")).unwrap().count(), 0);
        made
    }
}

fn count(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

pub(crate) fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for (name, contents) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(contents.len() as u64);
        header.set_mode(0o755);
        tar.append_data(&mut header, name, *contents).unwrap();
    }
    tar.into_inner().unwrap()
}

pub(crate) fn three() -> Vec<Vec<u8>> {
    vec![
        archive(&[("bin/sh", b"#!program"), ("gone", b"x"), ("etc/a", b"old")]),
        archive(&[(".wh.gone", b""), ("etc/a", b"new")]),
        archive(&[("etc/b", b"b")]),
    ]
}

#[allow(clippy::disallowed_methods, reason = "tests ask e2fsprogs")]
fn debugfs(image: &Path, request: &str) -> String {
    let output =
        std::process::Command::new("/sbin/debugfs").args(["-R", request]).arg(image).output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

#[tokio::test]
async fn a_layout_becomes_the_image_for_this_platform() {
    let rig = Rig::new();
    let ours = rig.manifest(&three(), LAYER);
    let mut other = rig.blob(MANIFEST, b"{}");
    other["platform"] = json!({"os": "linux", "architecture": "riscv64"});
    let mut inner = ours.clone();
    inner["platform"] = json!({"os": "linux", "architecture": ARCH});
    let nested = json!({"schemaVersion": 2, "manifests": [other, inner]}).to_string();
    let nested = rig.blob("application/vnd.oci.image.index.v1+json", nested.as_bytes());
    rig.index(&[nested]);
    let image = rig.import().await.unwrap();
    assert_eq!(image.source, "OCI layout layout");
    assert_eq!(image.config.as_ref().unwrap().cmd, ["serve"]);
    let path = rig.dir.path().join(format!("state/images/{}.ext4", image.digest));
    assert_eq!(debugfs(&path, "cat etc/a"), "new");
    assert_eq!(debugfs(&path, "cat etc/b"), "b");
    assert!(!debugfs(&path, "ls -p /").contains("gone"));
    // The same image, said in fewer words.
    rig.index(&[ours]);
    assert_eq!(rig.import().await.unwrap().digest, image.digest);
}

#[tokio::test]
async fn what_is_not_what_it_says_leaves_nothing() {
    let refusal = |error: HostError| (error.code, chain(&error));
    let rig = Rig::new();
    let manifest = rig.manifest(&three(), LAYER);
    rig.index(std::slice::from_ref(&manifest));
    let tight = ImageLimits { entries: 3, ..ImageLimits::default() };
    let (code, said) = refusal(rig.import_within(tight).await.unwrap_err());
    assert!(code == Code::Invalid && said.contains("more than 3 entries"), "{said}");
    let small = ImageLimits { size: Size::from_bytes(1), ..ImageLimits::default() };
    let error = rig.import_within(small).await.unwrap_err();
    assert!(error.hints[0].contains("[limits]"), "{error:?}");

    // A layer that was exchanged for another, whole one.
    let layer = Digest(Sha256::digest(gzip(&three()[0])).into());
    let other = gzip(&archive(&[("bin/sh", b"#!program"), ("gone", b"y"), ("etc/a", b"old")]));
    fs::write(rig.path(layer), &other).unwrap();
    let (code, said) = refusal(rig.import().await.unwrap_err());
    assert!(code == Code::Corrupt && said.contains(&layer.short()), "{said}");
    fs::write(rig.path(layer), &other[..100]).unwrap();
    let (code, said) = refusal(rig.import().await.unwrap_err());
    assert!(code == Code::Corrupt && said.contains("100 bytes"), "{said}");
    fs::remove_file(rig.path(layer)).unwrap();
    assert_eq!(rig.import().await.unwrap_err().code, Code::NotFound);

    // A manifest that was changed.
    let digest = manifest["digest"].as_str().unwrap().trim_start_matches("sha256:");
    let path = rig.path(digest.parse().unwrap());
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("schemaVersion", "schemaversion")).unwrap();
    let (code, said) = refusal(rig.import().await.unwrap_err());
    assert!(code == Code::Corrupt && said.contains("manifest is"), "{said}");
}

#[tokio::test]
async fn what_cannot_be_an_image_here_is_refused_by_its_reason() {
    let rig = Rig::new();
    let foreign =
        rig.manifest(&three()[..1], "application/vnd.oci.image.layer.nondistributable.v1.tar");
    let mut other = rig.manifest(&three(), LAYER);
    other["platform"] = json!({"os": "windows", "architecture": ARCH});
    let empty = rig.manifest(&[archive(&[("etc/passwd", b"")])[..0].to_vec()], LAYER);
    for (manifest, why) in
        [(foreign, "foreign"), (other, "only for windows/"), (empty, "no program")]
    {
        rig.index(&[manifest]);
        let error = rig.import().await.unwrap_err();
        let said = chain(&error);
        assert!(
            error.code == Code::Invalid && (said.contains(why) || said.contains("empty")),
            "{said}"
        );
    }
}
