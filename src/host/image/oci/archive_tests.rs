//! Images in one file: every form gives what the directory gives, and hostile ones give nothing.

use std::fs;
use std::path::PathBuf;

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::super::document::ARCH;
use super::super::layout::tests::{Rig, archive as layer, gzip, three};
use crate::model::{Code, Digest, ImageLimits, Size, chain};
use crate::ports::{HostError, ImageFile, ImageRecipe};

enum Put<'a> {
    File(&'a str, &'a [u8]),
    Link(&'a str, &'a str),
    Fifo(&'a str),
}

fn tar(entries: &[Put]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for entry in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(0);
        match entry {
            Put::File(name, bytes) => {
                header.set_size(bytes.len() as u64);
                // By hand, for the library refuses names that lead out.
                header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
                header.set_cksum();
                tar.append(&header, *bytes).unwrap();
            }
            Put::Link(name, target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                tar.append_link(&mut header, name, target).unwrap();
            }
            Put::Fifo(name) => {
                header.set_entry_type(tar::EntryType::Fifo);
                tar.append_data(&mut header, name, std::io::empty()).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

fn config(layers: &[Vec<u8>]) -> Vec<u8> {
    let diffs: Vec<_> = layers.iter().map(|bytes| format!("sha256:{}", digest(bytes))).collect();
    let config = json!({"os": "linux", "architecture": ARCH, "config": {"Cmd": ["serve"]},
        "rootfs": {"type": "layers", "diff_ids": diffs}});
    config.to_string().into_bytes()
}

impl Rig {
    async fn import_file(&self, bytes: &[u8]) -> Result<ImageFile, HostError> {
        self.import_file_within(bytes, ImageLimits::default()).await
    }

    async fn import_file_within(
        &self,
        bytes: &[u8],
        limits: ImageLimits,
    ) -> Result<ImageFile, HostError> {
        let path = self.dir.path().join("image.tar");
        fs::write(&path, bytes).unwrap();
        self.make(ImageRecipe::Tar { path }, limits).await
    }

    async fn refused(&self, bytes: &[u8]) -> (Code, String) {
        let error = self.import_file(bytes).await.unwrap_err();
        (error.code, chain(&error))
    }
}

/// All files of a layout, names before contents.
fn files(rig: &Rig) -> Vec<(String, Vec<u8>)> {
    let root = rig.layout();
    let mut found = vec![];
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            match root.join(&path).is_dir() {
                true => dirs.push(path),
                false => {
                    let bytes = fs::read(root.join(&path)).unwrap();
                    found.push((path.display().to_string(), bytes));
                }
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn every_form_gives_the_same_image() {
    let rig = Rig::new();
    let manifest = rig.manifest(&three(), "application/vnd.oci.image.layer.v1.tar");
    rig.index(&[manifest]);
    let wanted = rig.import().await.unwrap();

    let layout = files(&rig);
    let put = |prefix: &str| {
        let named: Vec<_> =
            layout.iter().map(|(name, bytes)| (format!("{prefix}{name}"), bytes)).collect();
        tar(&named.iter().map(|(name, bytes)| Put::File(name, bytes)).collect::<Vec<_>>())
    };
    let plain = put("");
    let packed = zstd::encode_all(&plain[..], 1).unwrap();
    for bytes in [plain.clone(), put("./"), gzip(&plain), packed] {
        let made = rig.import_file(&bytes).await.unwrap();
        assert_eq!((made.digest, &made.config), (wanted.digest, &wanted.config));
        assert_eq!(made.source, "image archive image.tar");
    }

    // As Docker wrote it before it took over the OCI's form: a layer that two images have is a link.
    let layers = three();
    let config = config(&layers);
    let name = format!("{}.json", digest(&config));
    let paths =
        ["a".repeat(64), "b".repeat(64), "c".repeat(64)].map(|id| format!("{id}/layer.tar"));
    let other = format!("{}/layer.tar", "d".repeat(64));
    let manifest =
        json!([{"Config": name, "RepoTags": ["x:1", "x:2"], "Layers": paths}]).to_string();
    let saved = tar(&[
        Put::File(&paths[0], &layers[0]),
        Put::File(&other, &layers[1]),
        Put::Link(&paths[1], &format!("../{other}")),
        Put::File(&paths[2], &layers[2]),
        Put::File(&name, &config),
        Put::File("manifest.json", manifest.as_bytes()),
        Put::File("repositories", b"{}"),
    ]);
    for bytes in [saved.clone(), gzip(&saved)] {
        let made = rig.import_file(&bytes).await.unwrap();
        assert_eq!((made.digest, &made.config), (wanted.digest, &wanted.config));
    }
}

#[tokio::test]
async fn what_an_archive_lacks_or_has_too_much_of_is_told() {
    let rig = Rig::new();
    let layers = three()[..1].to_vec();
    let config = config(&layers);
    let name = format!("{}.json", digest(&config));
    let with = |manifest: &serde_json::Value, more: &[Put]| {
        let manifest = manifest.to_string();
        let mut bytes = tar(&[
            Put::File("manifest.json", manifest.as_bytes()),
            Put::File(&name, &config),
            Put::File(&format!("{}.tar", "a".repeat(64)), &layers[0]),
        ]);
        bytes.truncate(bytes.len() - 1024); // its end mark
        bytes.extend(tar(more));
        bytes
    };
    let image = |config: &str, layers: &[&str]| json!([{"Config": config, "Layers": layers}]);
    let own = format!("{}.tar", "a".repeat(64));
    rig.import_file(&with(&image(&name, &[&own]), &[])).await.unwrap();

    for outside in ["../../etc/passwd", "/etc/passwd", "missing.tar"] {
        let (code, said) = rig.refused(&with(&image(&name, &[outside]), &[])).await;
        assert_eq!(code, Code::NotFound, "{said}");
        assert!(said.contains(outside) && said.contains("not in the archive"), "{said}");
    }
    let round = ["e".repeat(64), "f".repeat(64)];
    let links = [Put::Link(&round[0], &round[1]), Put::Link(&round[1], &round[0])];
    let (code, said) = rig.refused(&with(&image(&name, &[&round[0]]), &links)).await;
    assert_eq!(code, Code::NotFound, "{said}");
    let out = [Put::Link(&round[0], "../../../etc/passwd")];
    let (code, _) = rig.refused(&with(&image(&name, &[&round[0]]), &out)).await;
    assert_eq!(code, Code::NotFound);

    let good = image(&name, &[&own]);
    for (more, why) in [
        (Put::File(&own, b"other"), "is there twice"),
        (Put::Fifo("blobs/x"), "does not belong"),
        (Put::File("blobs/../../x", b""), "does not belong"),
    ] {
        let (code, said) = rig.refused(&with(&good, &[more])).await;
        assert!(code == Code::Invalid && said.contains(why), "{code}: {said}");
    }
    let two = json!([good[0], good[0]]);
    let (code, said) = rig.refused(&with(&two, &[])).await;
    assert!(code == Code::Invalid && said.contains("2 images"), "{said}");
    let (_, said) = rig.refused(&with(&json!([]), &[])).await;
    assert!(said.contains("no image"), "{said}");
    let (_, said) = rig.refused(&with(&json!({"Config": 1}), &[])).await;
    assert!(said.contains("parse manifest.json"), "{said}");
    let (code, said) = rig.refused(&with(&image(&name, &[&own, &own]), &[])).await;
    assert!(code == Code::Invalid && said.contains("2 layers"), "{said}");
    let old = tar(&[Put::File("repositories", b"{}")]);
    let (code, said) = rig.refused(&old).await;
    assert!(code == Code::Invalid && said.contains("without manifest.json"), "{said}");
}

#[tokio::test]
async fn what_is_not_what_it_says_is_refused_as_in_a_layout() {
    let rig = Rig::new();
    let (layers, own) = (three()[..1].to_vec(), format!("{}.tar", "a".repeat(64)));
    let config = config(&layers);
    let name = format!("{}.json", digest(&config));
    let manifest = json!([{"Config": name, "Layers": [own]}]).to_string();
    let of = |config: &[u8], layer: &[u8]| {
        tar(&[
            Put::File(&own, layer),
            Put::File(&name, config),
            Put::File("manifest.json", manifest.as_bytes()),
        ])
    };
    let other = layer(&[("bin/sh", b"#!program"), ("gone", b"y"), ("etc/a", b"old")]);
    let (code, said) = rig.refused(&of(&config, &other)).await;
    assert!(code == Code::Corrupt && said.contains("the image says"), "{said}");
    let (code, said) = rig.refused(&of(&[&config[..], b" "].concat(), &layers[0])).await;
    assert!(code == Code::Corrupt && said.contains("configuration is"), "{said}");
    let whole = of(&config, &layers[0]);
    let (code, said) = rig.refused(&whole[..whole.len() - 1024 - 700]).await;
    assert!(code == Code::Corrupt, "{said}");
    // Packed, it is unpacked no further than the limits allow.
    let zeros = vec![0; 300 << 20];
    let bomb = gzip(&tar(&[Put::File(&own, &zeros), Put::File("manifest.json", b"[]")]));
    let limits = ImageLimits { ratio: 2, ..ImageLimits::default() };
    let error = rig.import_file_within(&bomb, limits).await.unwrap_err();
    assert!(error.code == Code::Invalid && chain(&error).contains("image_ratio"), "{error:?}");
    let limits = ImageLimits { size: Size::from_mib(100), ..ImageLimits::default() };
    let error = rig.import_file_within(&bomb, limits).await.unwrap_err();
    assert!(error.hints[0].contains("[limits]"), "{error:?}");
}
