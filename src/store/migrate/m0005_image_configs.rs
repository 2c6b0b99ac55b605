//! Schema 6 has the tables of what images say of how they are run. An older store begins them empty:
//! its images came as root file systems, or are asked again when they are imported again.

use heed::RwTxn;

use crate::store::StoreError;
use crate::store::schema::Dbs;

#[allow(clippy::unnecessary_wraps, reason = "a migration's signature")]
pub(super) fn run(_: &mut RwTxn<'_>, _: &Dbs) -> Result<(), StoreError> {
    Ok(())
}
