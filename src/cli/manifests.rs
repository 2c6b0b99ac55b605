//! Manifests of what was sent, kept on this side as well: a command asks whether its workspace is stale
//! and must not have megabytes sent for it each time. The daemon's record names the digest of the one
//! that counts; one here that has another, or none, is fetched.
//!
//! What must not be done here: failing. Without a place to keep them they are fetched.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::client::Client;
use super::error::CliError;
use crate::model::{Digest, OpId};
use crate::wire::reply::WorkspaceInfo;

/// Of more VMs than that the ones that were prepared longest ago are forgotten.
const KEPT: usize = 32;

pub(crate) async fn of(
    client: &mut Client,
    op: OpId,
    info: &WorkspaceInfo,
) -> Result<Vec<u8>, CliError> {
    let place = directory();
    if let Some(kept) = place.as_deref().and_then(|place| load(place, &info.id, &info.manifest)) {
        return Ok(kept);
    }
    let manifest = client.manifest(op, &info.id).await?;
    keep(&info.id, &manifest);
    Ok(manifest)
}

/// For the next command.
pub(crate) fn keep(vm_id: &str, manifest: &[u8]) {
    if let Some(place) = directory()
        && let Err(error) = store(&place, vm_id, manifest)
    {
        tracing::debug!(%error, place = %place.display(), "a manifest is not kept here");
    }
}

/// The user's cache; `None` where there is none.
fn directory() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
    Some(cache.join("banger/manifests"))
}

fn load(place: &Path, vm_id: &str, digest: &str) -> Option<Vec<u8>> {
    let kept = fs::read(place.join(vm_id)).ok()?;
    (Digest(Sha256::digest(&kept).into()).to_string() == digest).then_some(kept)
}

/// Whole or not at all, however many do it at once.
fn store(place: &Path, vm_id: &str, manifest: &[u8]) -> io::Result<()> {
    fs::create_dir_all(place)?;
    let mut new = tempfile::NamedTempFile::new_in(place)?;
    new.write_all(manifest)?;
    new.persist(place.join(vm_id)).map_err(|error| error.error)?;
    let mut kept = vec![];
    for entry in fs::read_dir(place)?.flatten() {
        kept.push((entry.metadata()?.modified()?, entry.path()));
    }
    kept.sort();
    let old = kept.iter().rev().skip(KEPT);
    old.for_each(|(_, path)| drop(fs::remove_file(path)));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_one_that_is_named_counts_and_old_ones_go() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("manifests");
        let digest = |bytes: &[u8]| Digest(Sha256::digest(bytes).into()).to_string();
        assert_eq!(load(&place, "a", &digest(b"one")), None);
        store(&place, "a", b"one").unwrap();
        assert_eq!(load(&place, "a", &digest(b"one")).as_deref(), Some(b"one".as_slice()));
        store(&place, "a", b"two").unwrap();
        assert_eq!(load(&place, "a", &digest(b"one")), None, "prepared anew since");
        fs::write(place.join("a"), b"tw").unwrap();
        assert_eq!(load(&place, "a", &digest(b"two")), None, "damaged");
        for n in 0..KEPT + 3 {
            store(&place, &format!("vm{n:02}"), b"x").unwrap();
        }
        assert_eq!(fs::read_dir(&place).unwrap().count(), KEPT);
        assert!(place.join(format!("vm{:02}", KEPT + 2)).exists(), "the latest");
    }
}
