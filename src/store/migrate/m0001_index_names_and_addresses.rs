//! Schema 1 found a VM's name and address by reading every record. Schema 2 has index rows, so
//! that a reservation is a look-up in its own transaction.

use heed::RwTxn;

use crate::store::StoreError;
use crate::store::schema::Dbs;
use crate::store::vms;

pub(super) fn run(txn: &mut RwTxn<'_>, dbs: &Dbs) -> Result<(), StoreError> {
    for record in dbs.vms.all(txn)? {
        vms::index(txn, dbs, &record)?;
    }
    Ok(())
}
