//! What a bundle says of itself. Pure.
//!
//! There is one form of it. What is not understood is refused: whoever reads half of what somebody said
//! makes something else of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::host::image::oci::{ARCH, DocumentError, Run};
use crate::model::{
    Digest, ImageConfig, InvalidName, KernelFeature, KernelFeatures, KernelSupport, Name,
};

/// The first file of a bundle.
pub(super) const MANIFEST: &str = "banger-bundle.json";
pub(super) const MAX_MANIFEST: u64 = 1 << 20;
pub(super) const ROOTFS: &str = "rootfs.ext4";
pub(super) const VMLINUX: &str = "vmlinux";
pub(super) const MODULES: &str = "modules.cpio";
const FORMAT: u32 = 1;
/// Of a distribution's name, a version, the name of a module.
const MAX_WORD: usize = 128;
const MAX_MODULES: usize = 10_000;

#[derive(Debug, thiserror::Error)]
pub(in crate::host::image) enum BundleError {
    #[error("it is no bundle of banger's: there is no {MANIFEST} at its beginning")]
    NotABundle,
    #[error("its {MANIFEST} has {0} bytes; {MAX_MANIFEST} are read")]
    ManifestTooLong(u64),
    #[error("parse its {MANIFEST}")]
    Syntax(#[source] serde_json::Error),
    #[error("its {MANIFEST} is of format {0}; {FORMAT} is understood")]
    Format(u32),
    #[error("it is for {0:?}, and this host is {ARCH}")]
    Arch(String),
    #[error("it holds {0}")]
    OtherKind(&'static str),
    #[error("its {MANIFEST} has {0:?}, which is not said of {1}")]
    NotSaid(&'static str, &'static str),
    #[error("its {MANIFEST} lacks {0:?}")]
    NotThere(&'static str),
    #[error("its {MANIFEST} has the {what} {text:?}, which cannot be one")]
    Word { what: &'static str, text: String },
    #[error("the name in its {MANIFEST}")]
    Name(#[from] InvalidName),
    #[error("its {MANIFEST} names {0:?}, which belongs into none")]
    Foreign(String),
    #[error("what its {MANIFEST} says of how it is run")]
    Config(#[source] DocumentError),
    #[error("{0:?} is not in its {MANIFEST}")]
    Unknown(String),
    #[error("{0:?} is there twice")]
    Twice(String),
    #[error("{0:?} is missing")]
    Missing(String),
    #[error("{0:?} is no ordinary file")]
    NotAFile(String),
    #[error("{name:?} has {found} bytes, and its {MANIFEST} says {wanted}")]
    Size { name: String, wanted: u64, found: u64 },
    #[error("{name:?} is sha256:{found}, and its {MANIFEST} says sha256:{wanted}")]
    Digest { name: String, wanted: Digest, found: Digest },
    #[error("there is more behind its end than there may be")]
    Trailing,
    #[error("{0:?} is larger than any kernel")]
    TooLarge(String),
    #[error("{VMLINUX:?} is no kernel as banger keeps them: {0}")]
    NotAKernel(String),
    #[error("it has more than {0} entries, the limit `image_entries`")]
    TooManyEntries(usize),
    #[error("{ROOTFS:?} is no image as banger makes them: {0}")]
    NotAnImage(String),
    #[error("what is in it is the {what} {found}, and its {MANIFEST} says {wanted}")]
    Content { what: &'static str, wanted: Digest, found: Digest },
}

impl BundleError {
    /// Whether what came is not what was sent, as far as that can be told from what somebody sent so.
    pub(in crate::host::image) fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Missing(_) | Self::Size { .. } | Self::Digest { .. } | Self::Content { .. }
        )
    }

    pub(in crate::host::image) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Format(_) => Some("a newer banger made it: update this one"),
            Self::OtherKind("a kernel") => Some("banger kernel import NAME FILE"),
            Self::OtherKind(_) => Some("banger image import NAME FILE"),
            Self::TooManyEntries(_) => Some("if you trust the image, raise the limit in [limits]"),
            _ => None,
        }
    }
}

/// What a bundle holds, and under which name its maker knew it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host::image) struct Manifest {
    pub(in crate::host::image) name: Name,
    /// Of what is in it, as this host will call it.
    pub(in crate::host::image) digest: Digest,
    pub(in crate::host::image) contents: Contents,
    pub(in crate::host::image) files: Vec<FileSaid>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host::image) enum Contents {
    Image {
        /// The name of the kernel that it wants.
        kernel: Option<Name>,
        config: Option<ImageConfig>,
    },
    Kernel(Said),
}

/// What a kernel says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::host::image) struct Said {
    pub(in crate::host::image) version: String,
    pub(in crate::host::image) distro: String,
    /// In the order of loading.
    pub(in crate::host::image) modules: Vec<String>,
    /// Which options its guests have.
    pub(in crate::host::image) features: KernelFeatures,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::host::image) struct FileSaid {
    pub(in crate::host::image) name: String,
    pub(in crate::host::image) size: u64,
    #[serde(with = "hex")]
    pub(in crate::host::image) sha256: Digest,
}

/// The document.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Form {
    format: u32,
    kind: Kind,
    name: String,
    arch: String,
    #[serde(with = "hex")]
    digest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kernel: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    config: Option<Run>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    distro: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modules: Option<Vec<String>>,
    /// Options of a configuration, and what guests have of each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    features: Option<BTreeMap<String, String>>,
    files: Vec<FileSaid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Image,
    Kernel,
}

impl Manifest {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BundleError> {
        // First: of another format nothing else needs to make sense.
        #[derive(Deserialize)]
        struct Any {
            format: u32,
        }
        let Any { format } = serde_json::from_slice(bytes).map_err(BundleError::Syntax)?;
        if format != FORMAT {
            return Err(BundleError::Format(format));
        }
        let form: Form = serde_json::from_slice(bytes).map_err(BundleError::Syntax)?;
        if form.arch != ARCH {
            return Err(BundleError::Arch(form.arch));
        }
        let name = Name::image(&form.name)?;
        let (contents, wanted) = match form.kind {
            Kind::Image => {
                not_said(
                    "an image",
                    &[
                        ("version", form.version.is_some()),
                        ("distro", form.distro.is_some()),
                        ("modules", form.modules.is_some()),
                        ("features", form.features.is_some()),
                    ],
                )?;
                let kernel = form.kernel.as_deref().map(Name::artefact).transpose()?;
                let config = form.config.map(Run::into_config).transpose();
                let config = config.map_err(BundleError::Config)?;
                (Contents::Image { kernel, config }, &[ROOTFS][..])
            }
            Kind::Kernel => {
                not_said(
                    "a kernel",
                    &[("kernel", form.kernel.is_some()), ("config", form.config.is_some())],
                )?;
                let said = Said {
                    version: word("version", form.version)?,
                    distro: word("distro", form.distro)?,
                    modules: modules(form.modules)?,
                    features: features(form.features.unwrap_or_default())?,
                };
                (Contents::Kernel(said), &[VMLINUX, MODULES][..])
            }
        };
        check_files(&form.files, wanted)?;
        Ok(Self { name, digest: form.digest, contents, files: form.files })
    }

    pub(super) fn write(&self) -> Result<Vec<u8>, BundleError> {
        let form = Form {
            format: FORMAT,
            kind: Kind::Image,
            name: self.name.to_string(),
            arch: ARCH.to_owned(),
            digest: self.digest,
            kernel: None,
            config: None,
            version: None,
            distro: None,
            modules: None,
            features: None,
            files: self.files.clone(),
        };
        let form = match &self.contents {
            Contents::Image { kernel, config } => Form {
                kernel: kernel.as_ref().map(Name::to_string),
                config: config.as_ref().map(Run::from),
                ..form
            },
            Contents::Kernel(said) => Form {
                kind: Kind::Kernel,
                version: Some(said.version.clone()),
                distro: Some(said.distro.clone()),
                modules: Some(said.modules.clone()),
                features: Some(written(&said.features)),
                ..form
            },
        };
        let mut bytes = serde_json::to_vec_pretty(&form).map_err(BundleError::Syntax)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

fn not_said(of: &'static str, fields: &[(&'static str, bool)]) -> Result<(), BundleError> {
    match fields.iter().find(|(_, is_there)| *is_there) {
        Some((field, _)) => Err(BundleError::NotSaid(field, of)),
        None => Ok(()),
    }
}

/// It is shown to people, and recorded.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_WORD && text.chars().all(|c| c.is_ascii_graphic())
}

fn word(what: &'static str, text: Option<String>) -> Result<String, BundleError> {
    let text = text.ok_or(BundleError::NotThere(what))?;
    if is_word(&text) { Ok(text) } else { Err(BundleError::Word { what, text }) }
}

fn modules(names: Option<Vec<String>>) -> Result<Vec<String>, BundleError> {
    let names = names.ok_or(BundleError::NotThere("modules"))?;
    let what = "module";
    if names.len() > MAX_MODULES {
        let text = format!("{} of them", names.len());
        return Err(BundleError::Word { what, text });
    }
    match names.iter().find(|name| !is_word(name) || name.contains('/')) {
        Some(odd) => Err(BundleError::Word { what, text: odd.clone() }),
        None => Ok(names),
    }
}

/// An option that this banger does not know of is passed over: another one does.
fn features(said: BTreeMap<String, String>) -> Result<KernelFeatures, BundleError> {
    let mut features = KernelFeatures::default();
    for (option, text) in said {
        let support = KernelSupport::ALL.into_iter().find(|known| known.as_str() == text);
        let support = support.ok_or(BundleError::Word { what: "feature", text })?;
        if let Some(feature) = KernelFeature::named(&option) {
            features.set(feature, support);
        }
    }
    Ok(features)
}

fn written(features: &KernelFeatures) -> BTreeMap<String, String> {
    let known = features.known();
    known.map(|(option, has)| (option.option().to_owned(), has.as_str().to_owned())).collect()
}

/// These, and each once.
fn check_files(files: &[FileSaid], wanted: &[&str]) -> Result<(), BundleError> {
    for (number, file) in files.iter().enumerate() {
        if !wanted.contains(&file.name.as_str()) {
            return Err(BundleError::Foreign(file.name.clone()));
        }
        if files[..number].iter().any(|other| other.name == file.name) {
            return Err(BundleError::Twice(file.name.clone()));
        }
    }
    match wanted.iter().find(|name| files.iter().all(|file| file.name != **name)) {
        Some(missing) => Err(BundleError::Missing((*missing).to_owned())),
        None => Ok(()),
    }
}

mod hex {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    use crate::model::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, to: S) -> Result<S::Ok, S::Error> {
        digest.to_string().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Digest, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(|_| D::Error::custom(format!("{text:?} is no sha256 in hex")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn file(name: &str) -> FileSaid {
        FileSaid { name: name.to_owned(), size: 4096, sha256: Digest([7; 32]) }
    }

    fn image() -> Manifest {
        let config = ImageConfig { cmd: vec!["serve".to_owned()], ..ImageConfig::default() };
        Manifest {
            name: Name::image("docker.io/library/web:1").unwrap(),
            digest: Digest([1; 32]),
            contents: Contents::Image {
                kernel: Some(Name::artefact("generic-6.12").unwrap()),
                config: Some(config),
            },
            files: vec![file(ROOTFS)],
        }
    }

    fn kernel() -> Manifest {
        let mut features = KernelFeatures::default();
        features.set(KernelFeature::Ext4, KernelSupport::Module);
        let said = Said {
            version: "6.12.1".to_owned(),
            distro: "debian".to_owned(),
            modules: vec!["virtio_blk".to_owned()],
            features,
        };
        Manifest {
            name: Name::artefact("debian-6.12").unwrap(),
            digest: Digest([2; 32]),
            contents: Contents::Kernel(said),
            files: vec![file(MODULES), file(VMLINUX)],
        }
    }

    fn document(of: &Manifest) -> Value {
        serde_json::from_slice(&of.write().unwrap()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for manifest in [image(), kernel()] {
            assert_eq!(Manifest::parse(&manifest.write().unwrap()).unwrap(), manifest);
        }
        let bare = Contents::Image { kernel: None, config: None };
        let bare = Manifest { contents: bare, ..image() };
        assert!(document(&bare).get("config").is_none());
        assert_eq!(Manifest::parse(&bare.write().unwrap()).unwrap(), bare);
    }

    #[test]
    fn what_is_not_understood_is_refused_in_words() {
        let refuse = |of: &Manifest, key: &str, value: Value, why: &str| {
            let mut document = document(of);
            match value {
                Value::Null => drop(document.as_object_mut().unwrap().remove(key)),
                value => document[key] = value,
            }
            let error = Manifest::parse(document.to_string().as_bytes()).unwrap_err();
            let said = crate::model::chain(&error);
            assert!(said.contains(why), "{key}: {said:?} lacks {why:?}");
        };
        let (image, kernel) = (image(), kernel());
        refuse(&image, "format", json!(2), "format 2; 1 is understood");
        refuse(&image, "format", Value::Null, "missing field");
        refuse(&image, "kind", json!("disk"), "unknown variant");
        refuse(&image, "surprise", json!(1), "unknown field `surprise`");
        refuse(&image, "arch", json!("s390x"), "it is for \"s390x\"");
        refuse(&image, "name", json!("../web"), "name");
        refuse(&image, "kernel", json!("a/b"), "name");
        refuse(&image, "digest", json!("abc"), "no sha256");
        refuse(&image, "version", json!("6"), "\"version\", which is not said of an image");
        refuse(&image, "config", json!({"Cmd": ["a\u{0}b"]}), "NUL");
        refuse(&kernel, "config", json!({}), "\"config\", which is not said of a kernel");
        refuse(&kernel, "version", Value::Null, "lacks \"version\"");
        refuse(&kernel, "distro", json!("de\u{1b}[31m"), "distro");
        refuse(&kernel, "version", json!("6".repeat(200)), "version");
        refuse(&kernel, "features", json!({"CONFIG_EXT4_FS": "maybe"}), "feature \"maybe\"");
        refuse(&kernel, "modules", json!(["a/b"]), "module \"a/b\"");
        refuse(&kernel, "modules", json!(vec!["a"; MAX_MODULES + 1]), "10001 of them");
        let sha = "07".repeat(32);
        let file = |name: &str| json!({"name": name, "size": 1, "sha256": sha});
        refuse(&image, "files", json!([]), "\"rootfs.ext4\" is missing");
        refuse(&image, "files", json!([file(ROOTFS), file(ROOTFS)]), "is there twice");
        refuse(&image, "files", json!([file(ROOTFS), file("../x")]), "names \"../x\"");
        refuse(&image, "files", json!([file(VMLINUX)]), "names \"vmlinux\"");
        refuse(&kernel, "files", json!([file(VMLINUX)]), "\"modules.cpio\" is missing");
        refuse(
            &image,
            "files",
            json!([{"name": ROOTFS, "size": -1, "sha256": sha}]),
            "invalid value",
        );
        let text = r#"{"format": 1, "format": 1}"#;
        assert!(matches!(Manifest::parse(text.as_bytes()), Err(BundleError::Syntax(_))));
        assert!(Manifest::parse("[".repeat(100_000).as_bytes()).is_err());
    }
}
