//! The documents of an image of one layer, which is not packed. Pure: the same image gives the same
//! bytes.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::document::ARCH;
use super::run::Run;
use crate::model::{Digest, ImageConfig};

#[derive(Debug)]
pub(in crate::host::image) struct Documents {
    pub(in crate::host::image) manifest: Vec<u8>,
    pub(in crate::host::image) config: Vec<u8>,
    pub(in crate::host::image) index: Vec<u8>,
}

pub(in crate::host::image) fn documents(
    name: &str,
    config: &ImageConfig,
    layer: Digest,
    bytes: u64,
) -> Documents {
    let digest = |bytes: &[u8]| format!("sha256:{}", Digest(Sha256::digest(bytes).into()));
    let config = json!({
        "architecture": ARCH,
        "os": "linux",
        "config": Run::from(config),
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{layer}")]},
    });
    let config = config.to_string().into_bytes();
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest(&config),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": format!("sha256:{layer}"),
            "size": bytes,
        }],
    });
    let manifest = manifest.to_string().into_bytes();
    let index = json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": kind,
            "digest": digest(&manifest),
            "size": manifest.len(),
            "platform": {"os": "linux", "architecture": ARCH},
            "annotations": {"org.opencontainers.image.ref.name": name},
        }],
    });
    Documents { manifest, config, index: index.to_string().into_bytes() }
}
