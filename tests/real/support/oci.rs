//! Container images as tools lay them out on disk.

use std::fs;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

use super::sha256;

/// Adds a blob to a layout, and answers how documents speak of it.
fn blob(layout: &Path, kind: &str, bytes: &[u8]) -> Value {
    let digest = sha256(bytes);
    fs::write(layout.join("blobs/sha256").join(&digest), bytes).unwrap();
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}

/// An image of these layers, the lowest first, packed in turn in two ways, that is run as `run` says.
pub(crate) fn layout(layout: &Path, layers: &[Vec<u8>], run: &Value) {
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let packed = |(number, bytes): (usize, &Vec<u8>)| {
        if number % 2 == 1 {
            let zstd = zstd::encode_all(&bytes[..], 3).unwrap();
            return blob(layout, &format!("{kind}+zstd"), &zstd);
        }
        let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        gz.write_all(bytes).unwrap();
        blob(layout, &format!("{kind}+gzip"), &gz.finish().unwrap())
    };
    let packed: Vec<_> = layers.iter().enumerate().map(packed).collect();
    let diffs: Vec<_> = layers.iter().map(|bytes| format!("sha256:{}", sha256(bytes))).collect();
    let config = json!({"os": "linux", "architecture": arch(), "config": run,
        "rootfs": {"type": "layers", "diff_ids": diffs}});
    let kind = "application/vnd.oci.image.config.v1+json";
    let config = blob(layout, kind, config.to_string().as_bytes());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config,
        "layers": packed});
    let manifest = blob(layout, kind, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

fn arch() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// A layer of files, each with its mode, its owner and its contents.
pub(crate) fn layer(files: &[(&str, u32, u64, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for (name, mode, owner, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}
