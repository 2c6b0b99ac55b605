//! Extended attributes: behind the fields of their inode, and in a block of their own.

use std::collections::BTreeMap;

use super::volume::Volume;
use super::{ReadError, u16_at, u32_at};

const MAGIC: u32 = 0xea02_0000;
/// Of a block, before its first attribute.
const HEADER: usize = 32;
const ENTRY: usize = 16;

type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

impl Volume {
    /// `extra`: how far the fields reach beyond the first 128 bytes. `block` is 0 if there is none.
    pub(super) fn attributes(
        &self,
        inode: &[u8],
        extra: usize,
        block: u64,
    ) -> Result<Attributes, ReadError> {
        let mut all = Attributes::new();
        let inline = inode.get(128 + extra..).unwrap_or_default();
        if extra > 0 && u32_at(inline, 0) == Some(MAGIC) {
            let entries = inline.get(4..).unwrap_or_default();
            read(entries, entries, &mut all)?;
        }
        if block != 0 {
            let bytes = self.read_block(block)?;
            if u32_at(&bytes, 0) != Some(MAGIC) {
                return Err(ReadError::Damaged("block of attributes"));
            }
            read(bytes.get(HEADER..).unwrap_or_default(), &bytes, &mut all)?;
        }
        Ok(all)
    }
}

/// Values count from the beginning of `whole`.
fn read(mut entries: &[u8], whole: &[u8], all: &mut Attributes) -> Result<(), ReadError> {
    let damaged = || ReadError::Damaged("list of attributes");
    // Four zero bytes end the list, as does the room for it.
    while u32_at(entries, 0).is_some_and(|word| word != 0) {
        let (length, index) = (usize::from(entries[0]), entries[1]);
        let name = entries.get(ENTRY..ENTRY + length).ok_or_else(damaged)?;
        let at = usize::from(u16_at(entries, 2).ok_or_else(damaged)?);
        let elsewhere = u32_at(entries, 4).ok_or_else(damaged)?;
        let size = usize::try_from(u32_at(entries, 8).ok_or_else(damaged)?).unwrap_or(usize::MAX);
        if elsewhere != 0 {
            return Err(ReadError::Feature("ea_inode"));
        }
        let end = at.checked_add(size).ok_or_else(damaged)?;
        let value = whole.get(at..end).ok_or_else(damaged)?;
        match index {
            2 => drop(all.insert(b"system.posix_acl_access".to_vec(), acl(value)?)),
            3 => drop(all.insert(b"system.posix_acl_default".to_vec(), acl(value)?)),
            _ => {
                if let Some(prefix) = prefix(index) {
                    all.insert([prefix, name].concat(), value.to_vec());
                }
            }
        }
        let next = (ENTRY + length).next_multiple_of(4);
        entries = entries.get(next..).unwrap_or_default();
    }
    Ok(())
}

/// What has another is of the file system's own making.
fn prefix(index: u8) -> Option<&'static [u8]> {
    match index {
        1 => Some(b"user."),
        4 => Some(b"trusted."),
        6 => Some(b"security."),
        _ => None,
    }
}

/// From ext4's own form, in which entries without a name have no id, to everybody else's.
fn acl(value: &[u8]) -> Result<Vec<u8>, ReadError> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    let damaged = || ReadError::Damaged("access control list");
    let mut rest = value.strip_prefix(&1_u32.to_le_bytes()).ok_or_else(damaged)?;
    let mut out = 2_u32.to_le_bytes().to_vec();
    while !rest.is_empty() {
        let (entry, more) = rest.split_at_checked(4).ok_or_else(damaged)?;
        out.extend(entry);
        rest = more;
        if [Some(USER), Some(GROUP)].contains(&u16_at(entry, 0)) {
            let (id, more) = rest.split_at_checked(4).ok_or_else(damaged)?;
            out.extend(id);
            rest = more;
        } else {
            out.extend(u32::MAX.to_le_bytes());
        }
    }
    Ok(out)
}
