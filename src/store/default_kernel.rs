//! Which kernel VMs boot whose owners name none: the one that was set, else the newest.

use heed::{RoTxn, RwTxn};

use super::schema::Dbs;
use super::{Store, StoreError, meta};
use crate::model::{KernelRecord, Name};

const DEFAULT: &str = "default-kernel";

impl Store {
    /// What a VM whose owner asked for this kernel boots.
    pub fn kernel_to_boot(&self, name: &str) -> Result<Option<KernelRecord>, StoreError> {
        self.read(|txn, dbs| to_boot(txn, dbs, name))
    }

    /// The one that was set.
    pub fn default_kernel(&self) -> Result<Option<KernelRecord>, StoreError> {
        self.read(|txn, dbs| set(txn, dbs))
    }

    /// Without a name it is the newest from now on.
    pub async fn set_default_kernel(&self, name: Option<Name>) -> Result<(), StoreError> {
        self.write(move |txn, dbs| {
            let Some(name) = name else { return meta::drop_fact(txn, dbs, DEFAULT) };
            if !dbs.kernels.has(txn, name.as_str().as_bytes())? {
                return Err(StoreError::NotFound { what: "kernel", name: name.to_string() });
            }
            meta::put_fact(txn, dbs, DEFAULT, name.to_string())
        })
        .await
    }
}

/// The one of this name; without a name the default.
pub(super) fn to_boot(
    txn: &RoTxn<'_>,
    dbs: &Dbs,
    name: &str,
) -> Result<Option<KernelRecord>, StoreError> {
    if !name.is_empty() {
        return dbs.kernels.get(txn, name.as_bytes());
    }
    if let Some(kernel) = set(txn, dbs)? {
        return Ok(Some(kernel));
    }
    Ok(dbs.kernels.all(txn)?.into_iter().max_by_key(|kernel| kernel.created_unix_ms))
}

fn set(txn: &RoTxn<'_>, dbs: &Dbs) -> Result<Option<KernelRecord>, StoreError> {
    match meta::fact(txn, dbs, DEFAULT)? {
        Some(name) => dbs.kernels.get(txn, name.as_bytes()),
        None => Ok(None),
    }
}

/// Of a name that goes: another kernel of that name, later, was not meant.
pub(super) fn forget(txn: &mut RwTxn<'_>, dbs: &Dbs, name: &Name) -> Result<(), StoreError> {
    match meta::fact(txn, dbs, DEFAULT)? {
        Some(set) if set == name.as_str() => meta::drop_fact(txn, dbs, DEFAULT),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::KernelFeatures;
    use crate::store::reserve_tests::{draft, kernel, stocked};
    use crate::store::{Reserved, VmDraft};

    #[tokio::test]
    async fn the_one_that_was_set_wins_over_the_newest_until_it_goes() {
        let (dir, store) = stocked().await;
        let booted = |store: &Store| store.kernel_to_boot("").unwrap().unwrap().name.to_string();
        let name = |text: &str| text.parse::<Name>().unwrap();
        let newest = booted(&store);
        let other = if newest == "old" { "new" } else { "old" };
        store.set_default_kernel(Some(name(other))).await.unwrap();
        assert_eq!(booted(&store), other);
        assert_eq!(store.default_kernel().unwrap().unwrap().name, name(other));
        assert_eq!(store.kernel_to_boot(&newest).unwrap().unwrap().name, name(&newest));
        // A VM that names none is made with it, and says so.
        let mut wanted = draft(7, "web");
        wanted.spec.kernel = String::new();
        let made = store.reserve_vm(VmDraft { ..wanted }).await.unwrap();
        assert!(matches!(made, Reserved::New(vm) if vm.spec.kernel == other));
        let missing = store.set_default_kernel(Some(name("nope"))).await;
        assert!(matches!(missing, Err(StoreError::NotFound { .. })), "{missing:?}");
        assert!(store.close_blocking(std::time::Duration::from_secs(10)));
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(booted(&store), other, "it is durable");
        store.set_default_kernel(None).await.unwrap();
        assert_eq!((booted(&store), store.default_kernel().unwrap()), (newest, None));
        // It goes with its name, and does not come back with it.
        store.put_kernel(kernel("spare", 9), KernelFeatures::default()).await.unwrap();
        store.set_default_kernel(Some(name("spare"))).await.unwrap();
        store.delete_kernel(name("spare")).await.unwrap();
        store.put_kernel(kernel("spare", 9), KernelFeatures::default()).await.unwrap();
        assert_eq!(store.default_kernel().unwrap(), None);
    }
}
