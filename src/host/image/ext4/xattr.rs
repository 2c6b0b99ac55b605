//! Extended attributes as ext4 stores them: in the inode if they fit, else in one block.

use std::collections::BTreeMap;

use super::layout::{BLOCK, Fields};
use super::tree::Refusal;

const MAGIC: u32 = 0xea02_0000;
/// What an inode of 256 bytes has after its fields, and the magic number in it.
pub(super) const IN_INODE: usize = 96;

/// Attributes ready to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Encoded {
    None,
    InInode(Vec<u8>),
    InBlock(Vec<u8>),
}

struct Entry<'a> {
    index: u8,
    name: &'a [u8],
    value: std::borrow::Cow<'a, [u8]>,
}

pub(super) fn encode(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Encoded, Refusal> {
    if xattrs.is_empty() {
        return Ok(Encoded::None);
    }
    let mut entries = Vec::with_capacity(xattrs.len());
    for (name, value) in xattrs {
        entries.push(entry(name, value)?);
    }
    // The kernel searches blocks in this order.
    entries.sort_by(|a, b| (a.index, a.name.len(), a.name).cmp(&(b.index, b.name.len(), b.name)));
    let mut inline = vec![0; IN_INODE];
    Fields(&mut inline).u32(0, MAGIC);
    if place(&mut inline, 4, 4, &entries).is_some() {
        return Ok(Encoded::InInode(inline));
    }
    let mut block = vec![0; BLOCK];
    let hash = place(&mut block, 32, 0, &entries).ok_or(Refusal::XattrsTooLarge)?;
    // One reference, one block.
    Fields(&mut block).u32(0, MAGIC).u32(4, 1).u32(8, 1).u32(12, hash);
    Ok(Encoded::InBlock(block))
}

/// Puts the entries from `first` upwards and their values from the end downwards; offsets count
/// from `base`. Gives the hash over all, or `None` if they do not fit.
fn place(buffer: &mut [u8], first: usize, base: usize, entries: &[Entry<'_>]) -> Option<u32> {
    let mut at = first;
    let mut end = buffer.len();
    let mut all = 0_u32;
    for entry in entries {
        let next = at + (16 + entry.name.len()).next_multiple_of(4);
        end = end.checked_sub(entry.value.len().next_multiple_of(4))?;
        // Four zero bytes end the list.
        if next + 4 > end {
            return None;
        }
        let hash = entry.hash();
        all = all.rotate_left(16) ^ hash;
        Fields(buffer)
            .u8(at, u8::try_from(entry.name.len()).ok()?)
            .u8(at + 1, entry.index)
            .u16(at + 2, u16::try_from(end - base).ok()?)
            .u32(at + 8, u32::try_from(entry.value.len()).ok()?)
            .u32(at + 12, hash)
            .bytes(at + 16, entry.name)
            .bytes(end, &entry.value);
        at = next;
    }
    Some(all)
}

impl Entry<'_> {
    fn hash(&self) -> u32 {
        let name =
            self.name.iter().fold(0_u32, |hash, byte| hash.rotate_left(5) ^ u32::from(*byte));
        self.value.chunks(4).fold(name, |hash, chunk| {
            let mut word = [0; 4];
            word[..chunk.len()].copy_from_slice(chunk);
            hash.rotate_left(16) ^ u32::from_le_bytes(word)
        })
    }
}

fn entry<'a>(name: &'a [u8], value: &'a [u8]) -> Result<Entry<'a>, Refusal> {
    let refused = || Refusal::Xattr(String::from_utf8_lossy(name).into_owned());
    let acl = |index| {
        let value = acl(value).ok_or_else(refused)?;
        Ok(Entry { index, name: b"", value: value.into() })
    };
    match name {
        b"system.posix_acl_access" => return acl(2),
        b"system.posix_acl_default" => return acl(3),
        _ => {}
    }
    let prefixes: [(u8, &[u8]); 3] = [(1, b"user."), (4, b"trusted."), (6, b"security.")];
    for (index, prefix) in prefixes {
        match name.strip_prefix(prefix) {
            Some(rest) if !rest.is_empty() && rest.len() <= 255 => {
                return Ok(Entry { index, name: rest, value: value.into() });
            }
            _ => {}
        }
    }
    Err(refused())
}

/// ext4 keeps access control lists in a form of its own: entries without a name have no id.
fn acl(value: &[u8]) -> Option<Vec<u8>> {
    const USER: u16 = 0x02;
    const GROUP: u16 = 0x08;
    let entries = value.strip_prefix(&2_u32.to_le_bytes())?;
    let mut out = 1_u32.to_le_bytes().to_vec();
    if entries.is_empty() || entries.len() % 8 != 0 {
        return None;
    }
    for entry in entries.chunks(8) {
        out.extend(&entry[..4]);
        if [USER, GROUP].contains(&u16::from_le_bytes([entry[0], entry[1]])) {
            out.extend(&entry[4..]);
        }
    }
    Some(out)
}

/// The version and revision of a file capability's header, for tests.
#[cfg(test)]
pub(super) fn capability(mask: u32) -> Vec<u8> {
    let mut value = 0x0200_0001_u32.to_le_bytes().to_vec();
    value.extend(mask.to_le_bytes());
    value.extend([0; 12]);
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(list: &[(&str, Vec<u8>)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
        list.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.clone())).collect()
    }

    #[test]
    fn a_capability_fits_the_inode() {
        let one = of(&[("security.capability", capability(1 << 13))]);
        assert!(matches!(encode(&one), Ok(Encoded::InInode(bytes)) if bytes.len() == IN_INODE));
        assert_eq!(encode(&BTreeMap::new()), Ok(Encoded::None));
    }

    #[test]
    fn more_goes_to_a_block_and_too_much_is_refused() {
        let big = of(&[("user.a", vec![1; 2000]), ("user.b", vec![2; 1000])]);
        assert!(matches!(encode(&big), Ok(Encoded::InBlock(_))));
        let huge = of(&[("user.a", vec![1; 5000])]);
        assert_eq!(encode(&huge), Err(Refusal::XattrsTooLarge));
    }

    #[test]
    fn unknown_namespaces_and_broken_lists_are_refused() {
        for name in ["com.apple.quarantine", "user.", "system.nfs4_acl"] {
            let list = of(&[(name, vec![1])]);
            assert_eq!(encode(&list), Err(Refusal::Xattr(name.into())));
        }
        assert!(encode(&of(&[("system.posix_acl_access", vec![9; 12])])).is_err());
    }
}
