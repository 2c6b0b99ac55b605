//! The schema version and facts that the daemon keeps for itself.

use super::schema::Dbs;
use super::table::{BadValue, Row};
use super::{Store, StoreError};
use crate::wire::codec::{Decode, Encode};

/// A short text under a short key: `host-boot-id`, `first-start`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact(pub(super) String);

#[derive(Encode, Decode)]
pub(super) enum StoredFact {
    V1(String),
}

impl Row for Fact {
    type Stored = StoredFact;
}

impl From<Fact> for StoredFact {
    fn from(fact: Fact) -> Self {
        Self::V1(fact.0)
    }
}

impl TryFrom<StoredFact> for Fact {
    type Error = BadValue;

    fn try_from(stored: StoredFact) -> Result<Self, BadValue> {
        let StoredFact::V1(text) = stored;
        Ok(Self(text))
    }
}

/// Holds four big-endian bytes and not a row: it must be readable whatever rows look like.
const SCHEMA: &[u8] = b"schema";

/// None: the store is new.
pub(super) fn schema(txn: &heed::RoTxn<'_>, dbs: &Dbs) -> Result<Option<u32>, StoreError> {
    let bytes = dbs.meta.raw.get(txn, SCHEMA)?;
    let version = |bytes: &[u8]| {
        let value = bytes.try_into().map(u32::from_be_bytes);
        value.map_err(|_| StoreError::Value {
            table: "meta",
            key: "schema".to_owned(),
            source: BadValue(format!("{} bytes instead of four", bytes.len())),
        })
    };
    bytes.map(version).transpose()
}

pub(super) fn set_schema(
    txn: &mut heed::RwTxn<'_>,
    dbs: &Dbs,
    version: u32,
) -> Result<(), StoreError> {
    Ok(dbs.meta.raw.put(txn, SCHEMA, &version.to_be_bytes())?)
}

pub(super) fn fact(
    txn: &heed::RoTxn<'_>,
    dbs: &Dbs,
    key: &str,
) -> Result<Option<String>, StoreError> {
    Ok(dbs.meta.get(txn, &fact_key(key))?.map(|fact| fact.0))
}

pub(super) fn put_fact(
    txn: &mut heed::RwTxn<'_>,
    dbs: &Dbs,
    key: &str,
    value: String,
) -> Result<(), StoreError> {
    dbs.meta.put(txn, &fact_key(key), Fact(value))
}

pub(super) fn drop_fact(txn: &mut heed::RwTxn<'_>, dbs: &Dbs, key: &str) -> Result<(), StoreError> {
    dbs.meta.delete(txn, &fact_key(key)).map(drop)
}

/// Facts have a prefix, so that none is taken for the schema version.
fn fact_key(key: &str) -> Vec<u8> {
    [b"fact.", key.as_bytes()].concat()
}

impl Store {
    pub fn fact(&self, key: &str) -> Result<Option<String>, StoreError> {
        self.read(|txn, dbs| fact(txn, dbs, key))
    }

    pub async fn set_fact(&self, key: &str, value: String) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.write(move |txn, dbs| put_fact(txn, dbs, &key, value)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn facts_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.fact("schema").unwrap(), None);
        store.set_fact("schema", "x".to_owned()).await.unwrap();
        assert_eq!(store.fact("schema").unwrap().as_deref(), Some("x"));
        let current = crate::store::migrate::CURRENT;
        assert_eq!(store.read(|txn, dbs| schema(txn, dbs)).unwrap(), Some(current));
    }
}
