//! The ledger of taps. A row is written before its tap is made and removed after the tap is gone,
//! so that whatever happens in between, every tap of ours has a row that names it.
//!
//! ```text
//!   add_tap ──> free ──lease_tap──> leased ──release_tap──> free ──forget_tap──> (no row)
//! ```
//!
//! Which free rows already have their tap is the pool's knowledge, not the ledger's.

use super::table::{BadValue, Row};
use super::{Store, StoreError};
use crate::model::{TapName, VmId};
use crate::wire::codec::{Decode, Encode};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapLease {
    pub tap: TapName,
    /// None: free.
    pub vm: Option<VmId>,
}

#[derive(Encode, Decode)]
pub(super) enum StoredTap {
    V1 { tap: String, vm: Option<[u8; 16]> },
}

impl Row for TapLease {
    type Stored = StoredTap;
}

impl From<TapLease> for StoredTap {
    fn from(lease: TapLease) -> Self {
        Self::V1 { tap: lease.tap.0, vm: lease.vm.map(|vm| vm.0) }
    }
}

impl TryFrom<StoredTap> for TapLease {
    type Error = BadValue;

    fn try_from(stored: StoredTap) -> Result<Self, BadValue> {
        let StoredTap::V1 { tap, vm } = stored;
        Ok(Self { tap: TapName(tap), vm: vm.map(VmId) })
    }
}

impl Store {
    pub fn taps(&self) -> Result<Vec<TapLease>, StoreError> {
        self.read(|txn, dbs| dbs.taps.all(txn))
    }

    pub fn tap_of(&self, vm: VmId) -> Result<Option<TapName>, StoreError> {
        let mut taps = self.taps()?.into_iter();
        Ok(taps.find(|lease| lease.vm == Some(vm)).map(|lease| lease.tap))
    }

    /// Writes the row of a tap that is about to be made. False: there is one already.
    pub async fn add_tap(&self, tap: TapName) -> Result<bool, StoreError> {
        self.write(move |txn, dbs| {
            let key = tap.0.clone();
            if dbs.taps.get(txn, key.as_bytes())?.is_some() {
                return Ok(false);
            }
            dbs.taps.put(txn, key.as_bytes(), TapLease { tap, vm: None })?;
            Ok(true)
        })
        .await
    }

    /// Binds the first of `candidates` that nobody leases, writing its row if there is none. A VM
    /// that has a lease keeps it, whatever the candidates. None: all of them are leased.
    pub async fn lease_tap(
        &self,
        vm: VmId,
        candidates: Vec<TapName>,
    ) -> Result<Option<TapName>, StoreError> {
        self.write(move |txn, dbs| {
            let leases = dbs.taps.all(txn)?;
            if let Some(kept) = leases.iter().find(|lease| lease.vm == Some(vm)) {
                return Ok(Some(kept.tap.clone()));
            }
            let leased = |tap: &TapName| leases.iter().any(|l| l.tap == *tap && l.vm.is_some());
            let Some(tap) = candidates.into_iter().find(|tap| !leased(tap)) else {
                return Ok(None);
            };
            dbs.taps.put(txn, tap.0.as_bytes(), TapLease { tap: tap.clone(), vm: Some(vm) })?;
            Ok(Some(tap))
        })
        .await
    }

    /// Makes the VM's tap free again and names it. None: the VM has no lease.
    pub async fn release_tap(&self, vm: VmId) -> Result<Option<TapName>, StoreError> {
        self.write(move |txn, dbs| {
            let leases = dbs.taps.all(txn)?.into_iter();
            let mut freed = None;
            for lease in leases.filter(|lease| lease.vm == Some(vm)) {
                let tap = lease.tap.clone();
                dbs.taps.put(txn, tap.0.as_bytes(), TapLease { vm: None, ..lease })?;
                freed = Some(tap);
            }
            Ok(freed)
        })
        .await
    }

    /// Removes the row of a tap that is gone. Refused while a VM leases it.
    pub async fn forget_tap(&self, tap: TapName) -> Result<(), StoreError> {
        self.write(move |txn, dbs| match dbs.taps.get(txn, tap.0.as_bytes())? {
            Some(TapLease { vm: Some(vm), .. }) => Err(StoreError::TapLeased { tap, vm }),
            Some(_) => dbs.taps.delete(txn, tap.0.as_bytes()).map(drop),
            None => Ok(()),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lease_is_one_vms_until_released() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (a, b) = (VmId([1; 16]), VmId([2; 16]));
        let tap = |n| TapName::new("t", n);
        let pool = || vec![tap(0), tap(1)];
        assert!(store.add_tap(tap(0)).await.unwrap());
        assert!(!store.add_tap(tap(0)).await.unwrap());
        assert_eq!(store.lease_tap(a, pool()).await.unwrap(), Some(tap(0)));
        assert_eq!(store.lease_tap(a, vec![]).await.unwrap(), Some(tap(0)), "the same again");
        assert_eq!(store.lease_tap(b, pool()).await.unwrap(), Some(tap(1)), "row made on demand");
        assert_eq!(store.lease_tap(VmId([3; 16]), pool()).await.unwrap(), None);
        assert!(matches!(store.forget_tap(tap(0)).await, Err(StoreError::TapLeased { .. })));
        assert_eq!(store.release_tap(a).await.unwrap(), Some(tap(0)));
        assert_eq!(store.release_tap(a).await.unwrap(), None);
        store.forget_tap(tap(0)).await.unwrap();
        assert_eq!(store.taps().unwrap(), [TapLease { tap: tap(1), vm: Some(b) }]);
        assert_eq!(store.tap_of(b).unwrap(), Some(tap(1)));
    }
}
