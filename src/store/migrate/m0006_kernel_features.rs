//! Schema 7 has the table of kernels' features. An older store begins it empty: of its kernels nothing
//! is known until they are imported again, and nothing is refused for that.

use heed::RwTxn;

use crate::store::StoreError;
use crate::store::schema::Dbs;

#[allow(clippy::unnecessary_wraps, reason = "a migration's signature")]
pub(super) fn run(_: &mut RwTxn<'_>, _: &Dbs) -> Result<(), StoreError> {
    Ok(())
}
