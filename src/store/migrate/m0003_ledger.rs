//! Schema 4 has the ledger. The rows of VMs that there are say what each may hold; whatever ends one of
//! them next, or is in the middle of it, strikes what it does not.

use heed::RwTxn;

use crate::store::schema::Dbs;
use crate::store::{StoreError, ledger};

pub(super) fn run(txn: &mut RwTxn<'_>, dbs: &Dbs) -> Result<(), StoreError> {
    for record in dbs.vms.all(txn)? {
        let handles = dbs.handles.get(txn, &record.id.0)?.unwrap_or_default();
        ledger::fill(txn, dbs, &record, &handles)?;
    }
    Ok(())
}
