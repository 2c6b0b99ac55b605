//! The JSON documents, and what of them is understood. Pure.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::run::Run;
use crate::model::{Digest, ImageConfig, MAX_CONFIG_BYTES};

/// Of a document; the largest index in use is some hundred KiB.
pub(in crate::host::image) const MAX_DOCUMENT: u64 = 4 << 20;
pub(super) const MAX_LAYERS: usize = 512;
/// An index may lead to an index; nobody goes further.
pub(in crate::host::image) const MAX_STEPS: usize = 4;
/// As these documents call the platform of this program.
pub(in crate::host::image) const ARCH: &str =
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };

#[derive(Debug, thiserror::Error)]
pub(in crate::host::image) enum DocumentError {
    #[error("{what} is {found} instead of {wanted}")]
    Digest { what: &'static str, wanted: Digest, found: Digest },
    #[error("parse {0}")]
    Syntax(&'static str, #[source] serde_json::Error),
    #[error("{0:?} is no digest that can be checked; sha256 is")]
    DigestKind(String),
    #[error("it is of the first version of Docker's manifests, which nothing writes any more")]
    SchemaOne,
    #[error("it is {0:?}, which is no image")]
    NotAnImage(String),
    #[error("layer {0} is foreign: it has to be fetched from somewhere else")]
    Foreign(Digest),
    #[error("layer {layer} is {kind:?}, which is not supported")]
    LayerKind { layer: Digest, kind: String },
    #[error("it has {0} layers; {MAX_LAYERS} are read")]
    Layers(usize),
    #[error("it has {layers} layers and says what is in {known}")]
    DiffIds { layers: usize, known: usize },
    #[error("there is no image for linux/{ARCH} in it, only for {0}")]
    Platform(String),
    #[error("there is no image in it")]
    Empty,
    #[error("there are {0} images in it")]
    Several(usize),
    #[error("layer {layer} has {found} bytes instead of {wanted}")]
    Size { layer: Digest, wanted: u64, found: u64 },
    #[error("what it says of how it is run takes {0} bytes; {MAX_CONFIG_BYTES} are taken")]
    RunTooLong(usize),
    #[error("what it says of how it is run has a NUL byte in it: {0:?}")]
    Nul(String),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::host::image) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    digest: String,
    pub(in crate::host::image) size: u64,
    platform: Option<Platform>,
}

#[derive(Clone, Debug, Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

impl Descriptor {
    pub(in crate::host::image) fn digest(&self) -> Result<Digest, DocumentError> {
        let hex = self.digest.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
        hex.ok_or_else(|| DocumentError::DigestKind(self.digest.clone()))
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    media_type: String,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

/// What a digest can stand for.
#[derive(Clone, Debug)]
pub(in crate::host::image) enum Document {
    Index(Vec<Descriptor>),
    Manifest(Manifest),
}

#[derive(Clone, Debug)]
pub(in crate::host::image) struct Manifest {
    pub(in crate::host::image) config: Descriptor,
    /// The lowest first.
    pub(in crate::host::image) layers: Vec<Descriptor>,
}

/// Compares bytes with the digest that they were asked for by.
pub(in crate::host::image) fn check(
    bytes: &[u8],
    wanted: Digest,
    what: &'static str,
) -> Result<(), DocumentError> {
    let found = Digest(Sha256::digest(bytes).into());
    if found == wanted { Ok(()) } else { Err(DocumentError::Digest { what, wanted, found }) }
}

pub(in crate::host::image) fn parse(bytes: &[u8]) -> Result<Document, DocumentError> {
    let raw: Raw =
        serde_json::from_slice(bytes).map_err(|error| DocumentError::Syntax("manifest", error))?;
    match raw {
        Raw { schema_version: 1, .. } => Err(DocumentError::SchemaOne),
        Raw { manifests: Some(manifests), .. } => Ok(Document::Index(manifests)),
        Raw { config: Some(config), layers: Some(layers), .. } => {
            if layers.len() > MAX_LAYERS {
                return Err(DocumentError::Layers(layers.len()));
            }
            layers.iter().try_for_each(check_layer)?;
            Ok(Document::Manifest(Manifest { config, layers }))
        }
        Raw { media_type, .. } => Err(DocumentError::NotAnImage(media_type)),
    }
}

/// Whether a layer is an archive; how it is packed shows in its first bytes.
fn check_layer(layer: &Descriptor) -> Result<(), DocumentError> {
    let digest = layer.digest()?;
    let kind = layer.media_type.as_str();
    if kind.contains("nondistributable") || kind.contains("foreign") {
        return Err(DocumentError::Foreign(digest));
    }
    let archives =
        ["application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"];
    let is_archive = archives.iter().any(|archive| {
        let packed = kind.strip_prefix(archive);
        packed.is_some_and(|packed| ["", "+gzip", "+zstd", ".gzip", ".zstd"].contains(&packed))
    });
    let kind = kind.to_owned();
    if is_archive { Ok(()) } else { Err(DocumentError::LayerKind { layer: digest, kind }) }
}

/// The one for this platform. One that does not say is taken if there is no other.
pub(in crate::host::image) fn choose(
    manifests: &[Descriptor],
) -> Result<&Descriptor, DocumentError> {
    let fits = |platform: &Platform| platform.os == "linux" && platform.architecture == ARCH;
    let for_us = manifests.iter().find(|one| one.platform.as_ref().is_some_and(fits));
    if let Some(found) = for_us {
        return Ok(found);
    }
    let silent: Vec<_> = manifests.iter().filter(|one| one.platform.is_none()).collect();
    match silent[..] {
        [only] => return Ok(only),
        [] => {}
        _ => return Err(DocumentError::Several(silent.len())),
    }
    // Signatures and the like are listed as for a platform that there is not.
    let said = manifests.iter().filter_map(|one| one.platform.as_ref());
    let known = said.filter(|platform| platform.os != "unknown");
    let mut list: Vec<_> =
        known.map(|platform| format!("{}/{}", platform.os, platform.architecture)).collect();
    list.sort_unstable();
    list.dedup();
    if list.is_empty() {
        Err(DocumentError::Empty)
    } else {
        Err(DocumentError::Platform(list.join(", ")))
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    rootfs: RootFs,
    config: Option<Run>,
}

#[derive(Debug, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

impl Config {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let config: Self = serde_json::from_slice(bytes)
            .map_err(|error| DocumentError::Syntax("configuration", error))?;
        let Self { os, architecture, .. } = &config;
        let named = [("linux", os), (ARCH, architecture)];
        if named.iter().any(|(wanted, found)| !found.is_empty() && found.as_str() != *wanted) {
            return Err(DocumentError::Platform(format!("{os}/{architecture}")));
        }
        Ok(config)
    }

    /// How the image is run.
    pub(super) fn run(&self) -> Result<ImageConfig, DocumentError> {
        self.config.clone().unwrap_or_default().into_config()
    }

    /// Digests of the layers unpacked, as many as there are layers.
    pub(super) fn diff_ids(&self, layers: usize) -> Result<Vec<Digest>, DocumentError> {
        let known = self.rootfs.diff_ids.len();
        if known != layers {
            return Err(DocumentError::DiffIds { layers, known });
        }
        let parse = |text: &String| {
            let hex = text.strip_prefix("sha256:").and_then(|hex| hex.parse().ok());
            hex.ok_or_else(|| DocumentError::DigestKind(text.clone()))
        };
        self.rootfs.diff_ids.iter().map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    fn descriptor(kind: &str, platform: Option<(&str, &str)>) -> serde_json::Value {
        let digest = format!("sha256:{}", "ab".repeat(32));
        let mut value = serde_json::json!({"mediaType": kind, "digest": digest, "size": 5});
        if let Some((os, architecture)) = platform {
            value["platform"] = serde_json::json!({"os": os, "architecture": architecture});
        }
        value
    }

    fn manifest(layer: &str) -> Vec<u8> {
        let kind = "application/vnd.oci.image.config.v1+json";
        let value = serde_json::json!({"schemaVersion": 2, "config": descriptor(kind, None),
            "layers": [descriptor(layer, None)]});
        serde_json::to_vec(&value).unwrap()
    }

    fn index(list: &[Option<(&str, &str)>]) -> Result<usize, String> {
        let list: Vec<_> = list.iter().map(|platform| descriptor("", *platform)).collect();
        let value = serde_json::json!({"schemaVersion": 2, "manifests": list});
        let Document::Index(list) = parse(&serde_json::to_vec(&value).unwrap()).unwrap() else {
            panic!("no index");
        };
        let chosen = choose(&list).map_err(|error| error.to_string())?;
        Ok(list.iter().position(|one| std::ptr::eq(one, chosen)).unwrap())
    }

    #[test]
    fn layers_are_archives_that_are_at_hand() {
        for kind in [
            LAYER,
            "application/vnd.oci.image.layer.v1.tar",
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.gzip",
        ] {
            assert!(matches!(parse(&manifest(kind)), Ok(Document::Manifest(_))), "{kind}");
        }
        for (kind, word) in [
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "foreign"),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar", "foreign"),
            ("application/vnd.oci.image.layer.v1.tar+gzip+encrypted", "not supported"),
            ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", "not supported"),
        ] {
            let error = parse(&manifest(kind)).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        let old = parse(br#"{"schemaVersion": 1, "fsLayers": []}"#);
        assert!(matches!(old, Err(DocumentError::SchemaOne)));
        assert!(matches!(parse(b"{}"), Err(DocumentError::NotAnImage(_))));
        assert!(matches!(parse(b"<html>"), Err(DocumentError::Syntax(..))));
    }

    #[test]
    fn the_platform_decides() {
        let (us, other) = (Some(("linux", ARCH)), Some(("linux", "riscv64")));
        let signature = Some(("unknown", "unknown"));
        assert_eq!(index(&[other, us, signature]), Ok(1));
        assert_eq!(index(&[None]), Ok(0));
        assert_eq!(index(&[other, None]), Ok(1));
        let error = index(&[other, Some(("windows", ARCH)), signature]).unwrap_err();
        assert!(error.contains(&format!("only for linux/riscv64, windows/{ARCH}")), "{error}");
        assert!(index(&[]).unwrap_err().contains("no image"));
        assert!(index(&[None, None]).unwrap_err().contains("2 images"));
    }

    #[test]
    fn a_configuration_fits_its_manifest_and_this_host() {
        let diff = format!("sha256:{}", "cd".repeat(32));
        let of = |arch: &str, diffs: &[&str]| {
            let value = serde_json::json!({"os": "linux", "architecture": arch,
                "rootfs": {"type": "layers", "diff_ids": diffs}});
            Config::parse(&serde_json::to_vec(&value).unwrap())
        };
        let config = of(ARCH, &[&diff]).unwrap();
        assert_eq!(config.diff_ids(1).unwrap(), [Digest([0xcd; 32])]);
        assert!(matches!(config.diff_ids(2), Err(DocumentError::DiffIds { .. })));
        let odd = of(ARCH, &["sha512:00"]).unwrap();
        assert!(matches!(odd.diff_ids(1), Err(DocumentError::DigestKind(_))));
        assert!(matches!(of("sparc", &[&diff]), Err(DocumentError::Platform(_))));
    }
}
