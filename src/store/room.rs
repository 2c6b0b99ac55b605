//! Room for what must be written though nothing else fits: the end of what runs.
//!
//! Two things can be full. The map: then whatever adds to the store is refused while a part of it is
//! still free, and stopping, killing and deleting go on. The disk: blocks that the file will need
//! next are allocated before they are, so that the journal of a stop is written on a full disk.

use heed::{Env, WithoutTls};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::libc::off_t;

use super::StoreError;
use super::schema::Dbs;
use crate::model::OpKind;

/// Of the map: kept for what takes away.
const KEPT: usize = 16;
/// Behind what the file has; a hundred operations write less.
const AHEAD: usize = 4 << 20;

/// How far the disk is ours.
#[derive(Debug, Default)]
pub(super) struct Room {
    until: usize,
}

impl Room {
    /// Cheap when there is enough. A disk that is full already, or one that cannot do this, is no
    /// reason to end.
    pub(super) fn keep(&mut self, env: &Env<WithoutTls>) {
        let used = match env.real_disk_size().map(usize::try_from) {
            Ok(Ok(bytes)) if bytes.saturating_add(AHEAD / 2) > self.until => bytes,
            _ => return,
        };
        let until = used.saturating_add(AHEAD).min(env.info().map_size);
        match allocate(env, used, until) {
            Ok(()) => self.until = until,
            Err(error) => {
                tracing::warn!(error = %crate::model::chain(&error), "no room kept for the store");
                self.until = usize::MAX; // once is enough; the next start tries again
            }
        }
    }
}

fn allocate(env: &Env<WithoutTls>, from: usize, until: usize) -> std::io::Result<()> {
    let file = env.try_clone_inner_file().map_err(std::io::Error::other)?;
    let signed = |bytes| off_t::try_from(bytes).unwrap_or(off_t::MAX);
    let (offset, len) = (signed(from), signed(until.saturating_sub(from)));
    if len == 0 {
        return Ok(());
    }
    // The file keeps its size: LMDB finds it as it left it.
    fallocate(&file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, len).map_err(Into::into)
}

/// Whether this may begin though it adds to the store.
pub(super) fn admit(env: &Env<WithoutTls>, dbs: &Dbs, kind: OpKind) -> Result<(), StoreError> {
    if takes_away(kind) {
        return Ok(());
    }
    let map = env.info().map_size;
    let used = dbs.used_bytes(&env.read_txn()?)?;
    if used > map - map / KEPT {
        return Err(StoreError::NearlyFull { used_mib: used >> 20, map_mib: map >> 20 });
    }
    Ok(())
}

fn takes_away(kind: OpKind) -> bool {
    use OpKind as K;
    matches!(
        kind,
        K::StopVm
            | K::KillVm
            | K::DeleteVm
            | K::CleanUpVm
            | K::DeleteImage
            | K::DeleteKernel
            | K::CollectGarbage
            | K::CollectVm
            | K::RecoverVm
    )
}

/// Twice what there is, and never less than `least`: a store that was full is not after a restart.
pub(super) fn map_bytes(file_bytes: u64, least: usize) -> usize {
    let twice = usize::try_from(file_bytes.saturating_mul(2)).unwrap_or(usize::MAX);
    if twice <= least { least } else { twice.checked_next_power_of_two().unwrap_or(least) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_doubles_when_the_file_fills_half_of_it() {
        const GIB: usize = 1 << 30;
        assert_eq!(map_bytes(0, GIB), GIB);
        assert_eq!(map_bytes(GIB as u64 / 2, GIB), GIB);
        assert_eq!(map_bytes(GIB as u64 / 2 + 4096, GIB), 2 * GIB);
        assert_eq!(map_bytes(GIB as u64, GIB), 2 * GIB);
    }
}
