//! Schema 8 has the table of the kernels that images want. An older store begins it empty: nothing that
//! its images came from said so.

use heed::RwTxn;

use crate::store::StoreError;
use crate::store::schema::Dbs;

#[allow(clippy::unnecessary_wraps, reason = "a migration's signature")]
pub(super) fn run(_: &mut RwTxn<'_>, _: &Dbs) -> Result<(), StoreError> {
    Ok(())
}
