//! Schema 3 has the table of events. An older store begins it empty: what happened was not kept.

use heed::RwTxn;

use crate::store::StoreError;
use crate::store::schema::Dbs;

#[allow(clippy::unnecessary_wraps, reason = "a migration's signature")]
pub(super) fn run(_: &mut RwTxn<'_>, _: &Dbs) -> Result<(), StoreError> {
    Ok(())
}
