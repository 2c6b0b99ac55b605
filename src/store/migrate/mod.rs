//! Brings an older store to the present schema, step by step, in one transaction: a step that
//! fails leaves the store as it was.
//!
//! Each step is named after the schema it starts from. A step is history: it is never edited
//! after a release, only followed by another.

mod m0001_index_names_and_addresses;
mod m0002_events;
mod m0003_ledger;
mod m0004_workspaces;
mod m0005_image_configs;
mod m0006_kernel_features;
mod m0007_image_kernels;

use heed::{Env, RwTxn, WithoutTls};

use super::schema::Dbs;
use super::{StoreError, meta};

type Step = fn(&mut RwTxn<'_>, &Dbs) -> Result<(), StoreError>;

/// The nth takes a store from schema n + 1 to n + 2.
const STEPS: [Step; 7] = [
    m0001_index_names_and_addresses::run,
    m0002_events::run,
    m0003_ledger::run,
    m0004_workspaces::run,
    m0005_image_configs::run,
    m0006_kernel_features::run,
    m0007_image_kernels::run,
];

pub(super) const CURRENT: u32 = 8;
const _: () = assert!(STEPS.len() + 1 == CURRENT as usize, "each schema but the first has a step");

#[allow(clippy::disallowed_methods, reason = "the writer thread does not exist yet")]
pub(super) fn run(env: &Env<WithoutTls>, dbs: &Dbs) -> Result<(), StoreError> {
    let found = meta::schema(&*env.read_txn()?, dbs)?;
    let from = match found {
        Some(CURRENT) => return Ok(()),
        Some(found) if found > CURRENT || found == 0 => {
            return Err(StoreError::Downgrade { found, known: CURRENT });
        }
        found => found,
    };
    let mut txn = env.write_txn()?;
    for (version, step) in (1..).zip(STEPS) {
        if from.is_some_and(|from| from <= version) {
            step(&mut txn, dbs).map_err(|source| StoreError::Migrate {
                from: version,
                source: Box::new(source),
            })?;
        }
    }
    meta::set_schema(&mut txn, dbs, CURRENT)?;
    txn.commit()?;
    if let Some(from) = from {
        tracing::info!(from, to = CURRENT, "store migrated");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
