//! Schema 5 has the tables of workspaces and their manifests. An older store begins them empty.

use heed::RwTxn;

use crate::store::StoreError;
use crate::store::schema::Dbs;

#[allow(clippy::unnecessary_wraps, reason = "a migration's signature")]
pub(super) fn run(_: &mut RwTxn<'_>, _: &Dbs) -> Result<(), StoreError> {
    Ok(())
}
