//! A table: fixed keys, versioned values, nothing else.

use std::marker::PhantomData;

use heed::types::Bytes;
use heed::{Database, RoTxn, RwTxn};

use super::StoreError;
use crate::wire::codec::{self, Decode, Encode};

/// A model type that has a frozen stored shape: an enum of versions, upgraded on read.
pub(super) trait Row: Sized {
    type Stored: Encode + Decode<()> + From<Self> + TryInto<Self, Error = BadValue>;
}

/// A stored value that decodes and yet means nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadValue(pub(super) String);

impl BadValue {
    pub(super) fn because(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

pub(super) type RawDb = Database<'static, Bytes, Bytes>;

pub(super) struct Table<R> {
    name: &'static str,
    pub(super) raw: RawDb,
    row: PhantomData<fn() -> R>,
}

impl<R> Clone for Table<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Table<R> {}

impl<R> std::fmt::Debug for Table<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Table").field(&self.name).finish()
    }
}

impl<R: Row> Table<R> {
    pub(super) fn new(name: &'static str, raw: RawDb) -> Self {
        Self { name, raw, row: PhantomData }
    }

    pub(super) fn get(&self, txn: &RoTxn<'_>, key: &[u8]) -> Result<Option<R>, StoreError> {
        self.raw.get(txn, key)?.map(|bytes| self.decode(key, bytes)).transpose()
    }

    pub(super) fn put(&self, txn: &mut RwTxn<'_>, key: &[u8], row: R) -> Result<(), StoreError> {
        let encoded = codec::encode(&R::Stored::from(row));
        let bytes = encoded.map_err(|source| StoreError::Encode { table: self.name, source })?;
        Ok(self.raw.put(txn, key, &bytes)?)
    }

    pub(super) fn has(&self, txn: &RoTxn<'_>, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.raw.get(txn, key)?.is_some())
    }

    /// Returns whether there was such a row.
    pub(super) fn delete(&self, txn: &mut RwTxn<'_>, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.raw.delete(txn, key)?)
    }

    /// All rows in the order of their keys.
    pub(super) fn all(&self, txn: &RoTxn<'_>) -> Result<Vec<R>, StoreError> {
        self.raw
            .iter(txn)?
            .map(|row| row.map_err(Into::into).and_then(|(k, v)| self.decode(k, v)))
            .collect()
    }

    /// At most `limit` rows, the highest key first.
    pub(super) fn last(&self, txn: &RoTxn<'_>, limit: usize) -> Result<Vec<R>, StoreError> {
        let rows = self.raw.rev_iter(txn)?.take(limit);
        rows.map(|row| row.map_err(Into::into).and_then(|(k, v)| self.decode(k, v))).collect()
    }

    /// At most `limit` rows from this key on.
    pub(super) fn from(
        &self,
        txn: &RoTxn<'_>,
        key: &[u8],
        limit: usize,
    ) -> Result<Vec<R>, StoreError> {
        let range = (std::ops::Bound::Included(key), std::ops::Bound::Unbounded);
        let rows = self.raw.range(txn, &range)?.take(limit);
        rows.map(|row| row.map_err(Into::into).and_then(|(k, v)| self.decode(k, v))).collect()
    }

    /// The row with the highest key of which this is true. Reads back to it.
    pub(super) fn last_where(
        &self,
        txn: &RoTxn<'_>,
        is_it: impl Fn(&R) -> bool,
    ) -> Result<Option<R>, StoreError> {
        for row in self.raw.rev_iter(txn)? {
            let (key, bytes) = row?;
            let row = self.decode(key, bytes)?;
            if is_it(&row) {
                return Ok(Some(row));
            }
        }
        Ok(None)
    }

    pub(super) fn with_prefix(&self, txn: &RoTxn<'_>, prefix: &[u8]) -> Result<Vec<R>, StoreError> {
        let rows = self.raw.prefix_iter(txn, prefix)?;
        rows.map(|row| row.map_err(Into::into).and_then(|(k, v)| self.decode(k, v))).collect()
    }

    pub(super) fn delete_prefix(
        &self,
        txn: &mut RwTxn<'_>,
        prefix: &[u8],
    ) -> Result<(), StoreError> {
        let keys: Result<Vec<Vec<u8>>, heed::Error> = self
            .raw
            .prefix_iter(txn, prefix)?
            .map(|row| row.map(|(key, _)| key.to_vec()))
            .collect();
        keys?.iter().try_for_each(|key| self.delete(txn, key).map(drop))
    }

    fn decode(&self, key: &[u8], bytes: &[u8]) -> Result<R, StoreError> {
        let stored: R::Stored = codec::decode(bytes).map_err(|source| StoreError::Corrupt {
            table: self.name,
            key: printable(key),
            source,
        })?;
        let row = stored.try_into();
        row.map_err(|source| StoreError::Value { table: self.name, key: printable(key), source })
    }
}

/// Names as they are, ids in hex.
fn printable(key: &[u8]) -> String {
    let text =
        std::str::from_utf8(key).ok().filter(|text| text.chars().all(|c| c.is_ascii_graphic()));
    text.map_or_else(|| key.iter().map(|byte| format!("{byte:02x}")).collect(), str::to_owned)
}
