//! An archive as `docker save` has always written it: `manifest.json` names a configuration and the
//! layers, by whatever names the release at hand gives them.

use serde::Deserialize;

use super::document::{Config, DocumentError, MAX_LAYERS, check};
use super::layout::Opened;
use super::place::Place;
use crate::host::image::import::ImportError;
use crate::host::image::layers::Layer;
use crate::model::Digest;

pub(super) const MANIFEST: &str = "manifest.json";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    layers: Vec<String>,
}

pub(super) fn open(place: &Place) -> Result<Opened, ImportError> {
    let bytes = place.document(MANIFEST)?;
    let saved: Vec<Saved> =
        serde_json::from_slice(&bytes).map_err(|error| DocumentError::Syntax(MANIFEST, error))?;
    let [saved] = &saved[..] else {
        return Err(match saved.len() {
            0 => DocumentError::Empty,
            several => DocumentError::Several(several),
        }
        .into());
    };
    if saved.layers.len() > MAX_LAYERS {
        return Err(DocumentError::Layers(saved.layers.len()).into());
    }
    let bytes = place.document(&saved.config)?;
    if let Some(digest) = digest_in(&saved.config) {
        check(&bytes, digest, "configuration")?;
    }
    let config = Config::parse(&bytes)?;
    let diff_ids = config.diff_ids(saved.layers.len())?;
    let layer = |(name, diff_id): (&String, Digest)| {
        let item = place.item(name)?;
        let (shown, bytes) = (short(name), item.bytes);
        Ok(Layer::new(shown, bytes, Some(diff_id), move || item.open()))
    };
    let layers = saved.layers.iter().zip(diff_ids).map(layer);
    let layers = layers.collect::<Result<_, ImportError>>()?;
    Ok(Opened { layers, config: config.run()? })
}

/// Configurations are named by what they are: `<digest>.json`, `blobs/sha256/<digest>`.
fn digest_in(name: &str) -> Option<Digest> {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.strip_suffix(".json").unwrap_or(last).parse().ok()
}

/// As layers are called in messages.
fn short(name: &str) -> String {
    name.chars().take(32).collect()
}
