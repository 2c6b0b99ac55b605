//! Files with holes in tar archives: where their parts lie, in the four forms that GNU tar has
//! written. Pure.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use tar::{GnuExtSparseHeader, GnuHeader, GnuSparseHeader};

/// Offsets and lengths.
type List = Vec<(u64, u64)>;
/// Records, and what was made of repeated ones.
pub(super) type Pax = BTreeMap<Vec<u8>, Vec<u8>>;

const MAP: &[u8] = b"GNU.sparse.map";
const BLOCK: usize = 512;
/// Of one file: 16 bytes each in memory, and no file system makes more of a file in an image.
const MAX_PARTS: usize = 1 << 16;

/// The parts of a file that are in the archive, one after the other; the rest is zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parts {
    /// Offset and length, upwards.
    left: VecDeque<(u64, u64)>,
    at: u64,
    size: u64,
}

impl Parts {
    /// Within a file of `size` bytes, in order, and as long together as what the archive holds.
    pub(super) fn new(list: List, size: u64, stored: u64) -> Option<Self> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for (offset, len) in &list {
            if *offset < end {
                return None;
            }
            end = offset.checked_add(*len)?;
            sum = sum.checked_add(*len)?;
        }
        let left = list.into_iter().filter(|(_, len)| *len > 0).collect();
        (end <= size && sum == stored).then_some(Self { left, at: 0, size })
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Zeros from the holes, bytes of the parts from `stored`.
    pub(super) fn read(
        &mut self,
        into: &mut [u8],
        mut stored: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let part = self.left.front().copied();
        let (in_hole, until) = match part {
            Some((offset, _)) if self.at < offset => (true, offset),
            Some((offset, len)) => (false, offset + len),
            None => (true, self.size),
        };
        let room = usize::try_from(until - self.at).unwrap_or(usize::MAX).min(into.len());
        let into = &mut into[..room];
        let read = if in_hole {
            into.fill(0);
            room
        } else {
            stored(into)?
        };
        self.at += read as u64;
        if !in_hole && self.at == until {
            self.left.pop_front();
        }
        Ok(read)
    }
}

/// The oldest form: in the header, and in blocks that follow it.
pub(super) fn in_header(
    header: &GnuHeader,
    mut block: impl FnMut(&mut [u8; BLOCK]) -> bool,
) -> Option<(List, u64)> {
    let size = header.real_size().ok()?;
    let mut list = vec![];
    add(&mut list, &header.sparse)?;
    let mut more = header.is_extended();
    while more {
        let mut next = GnuExtSparseHeader::new();
        let mut bytes = [0; BLOCK];
        if !block(&mut bytes) {
            return None;
        }
        next.as_mut_bytes().copy_from_slice(&bytes);
        add(&mut list, &next.sparse)?;
        more = next.is_extended();
    }
    Some((list, size))
}

fn add(list: &mut List, parts: &[GnuSparseHeader]) -> Option<()> {
    for part in parts.iter().filter(|part| !part.is_empty()) {
        list.push((part.offset().ok()?, part.length().ok()?));
    }
    (list.len() <= MAX_PARTS).then_some(())
}

/// Of PAX records 0.0 and 0.1.
pub(super) fn in_records(pax: &Pax) -> Option<(List, u64)> {
    let size = number(pax.get(&b"GNU.sparse.size"[..])?)?;
    let map = pax.get(MAP).map_or(&b""[..], Vec::as_slice);
    let numbers = map.split(|byte| *byte == b',').filter(|text| !text.is_empty());
    let numbers: Vec<u64> = numbers.map(number).collect::<Option<_>>()?;
    Some((pairs(&numbers)?, size))
}

/// PAX records 1.0: the map comes before the contents, in whole blocks.
pub(super) fn in_contents(
    pax: &Pax,
    mut block: impl FnMut(&mut [u8; BLOCK]) -> bool,
) -> Option<(List, u64)> {
    let size = number(pax.get(&b"GNU.sparse.realsize"[..])?)?;
    let mut text = Vec::new();
    let (mut numbers, mut wanted) = (vec![], 1);
    while numbers.len() < wanted {
        let mut bytes = [0; BLOCK];
        if !block(&mut bytes) {
            return None;
        }
        for byte in bytes {
            if byte != b'\n' {
                text.push(byte);
                continue;
            }
            if numbers.len() < wanted {
                numbers.push(number(&text)?);
            }
            text.clear();
            if let [count] = numbers[..] {
                let count = usize::try_from(count).ok().filter(|count| *count <= MAX_PARTS)?;
                wanted = 1 + 2 * count;
            }
            if numbers.len() == wanted {
                break;
            }
        }
        if text.len() > 20 {
            return None;
        }
    }
    Some((pairs(&numbers[1..])?, size))
}

/// Records of 0.0 come once for each part, which no map of records can hold: kept as 0.1 has them.
pub(super) fn gather(pax: &mut Pax, key: &[u8], value: &[u8]) -> bool {
    if ![&b"GNU.sparse.offset"[..], b"GNU.sparse.numbytes"].contains(&key) {
        return false;
    }
    let map = pax.entry(MAP.to_vec()).or_default();
    if !map.is_empty() {
        map.push(b',');
    }
    map.extend(value);
    true
}

fn pairs(numbers: &[u64]) -> Option<List> {
    let whole = numbers.len().is_multiple_of(2) && numbers.len() / 2 <= MAX_PARTS;
    whole.then(|| numbers.chunks(2).map(|pair| (pair[0], pair[1])).collect())
}

fn number(text: impl AsRef<[u8]>) -> Option<u64> {
    std::str::from_utf8(text.as_ref()).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn read(mut parts: Parts, mut stored: &[u8], step: usize) -> Vec<u8> {
        let mut out = vec![];
        let mut buffer = vec![9; step];
        loop {
            match parts.read(&mut buffer, |into| stored.read(into)).unwrap() {
                0 => break out,
                n => out.extend(&buffer[..n]),
            }
        }
    }

    #[test]
    fn holes_are_zeros_however_it_is_read() {
        for step in [1, 3, 100] {
            let parts = Parts::new(vec![(2, 3), (7, 1), (10, 0)], 10, 4).unwrap();
            assert_eq!(parts.size(), 10);
            assert_eq!(read(parts, b"abcd", step), b"\0\0abc\0\0d\0\0");
            assert_eq!(read(Parts::new(vec![], 5, 0).unwrap(), b"", step), [0; 5]);
            assert_eq!(read(Parts::new(vec![(0, 4)], 4, 4).unwrap(), b"abcd", step), b"abcd");
        }
    }

    #[test]
    fn maps_that_do_not_fit_are_none() {
        assert_eq!(Parts::new(vec![(4, 2), (3, 2)], 10, 4), None);
        assert_eq!(Parts::new(vec![(9, 2)], 10, 2), None);
        assert_eq!(Parts::new(vec![(0, 2)], 10, 3), None);
        assert_eq!(Parts::new(vec![(u64::MAX, 2)], u64::MAX, 2), None);
    }

    #[test]
    fn a_map_before_the_contents() {
        let pax = Pax::from([(b"GNU.sparse.realsize".to_vec(), b"100".to_vec())]);
        let mut text = b"2\n0\n10\n50\n5\n".to_vec();
        text.resize(512, 0);
        let found = in_contents(&pax, |block| {
            block.copy_from_slice(&text);
            true
        });
        assert_eq!(found, Some((vec![(0, 10), (50, 5)], 100)));
        assert_eq!(in_contents(&pax, |_| false), None);
        let endless = in_contents(&pax, |block| {
            block.fill(b'1');
            true
        });
        assert_eq!(endless, None);
        let many = in_contents(&pax, |block| {
            block[..9].copy_from_slice(b"99999999\n");
            true
        });
        assert_eq!(many, None);
    }
}
