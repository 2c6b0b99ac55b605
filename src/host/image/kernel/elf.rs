//! As much of ELF as a kernel and its modules need. Offsets come from files and are checked.

/// Why a file is not used as a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::host::image) enum ElfError {
    #[error("it is no ELF file")]
    NotElf,
    #[error("it is not made for {NAME}")]
    OtherMachine,
    #[error("its ELF tables are damaged")]
    Damaged,
}

const SHT_NOBITS: u32 = 8;
const PT_NOTE: u32 = 4;
/// Guests have the host's processor: `e_machine` of x86-64 or ARM64, elf(5).
pub(super) const MACHINE: u16 = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
const NAME: &str = if cfg!(target_arch = "aarch64") { "ARM64" } else { "x86-64" };
/// The 32-bit entry point by which a VMM starts a kernel without a boot loader.
const NOTE_PVH: u32 = 18;

#[derive(Clone, Copy, Debug)]
pub(super) struct Elf<'a> {
    bytes: &'a [u8],
}

impl<'a> Elf<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ElfError> {
        let elf = Self { bytes };
        // 64 bits, little endian.
        if !bytes.starts_with(b"\x7fELF\x02\x01") || bytes.len() < 64 {
            return Err(ElfError::NotElf);
        }
        if elf.u16(18) != Some(MACHINE) {
            return Err(ElfError::OtherMachine);
        }
        Ok(elf)
    }

    /// Whether everything that is to be loaded is in the file.
    pub(super) fn is_whole(&self) -> bool {
        const PT_LOAD: u32 = 1;
        let loads = self.segments().filter(|(kind, _)| *kind == PT_LOAD);
        let mut loads = loads.map(|(_, range)| range.is_some()).peekable();
        loads.peek().is_some() && loads.all(|whole| whole)
    }

    pub(super) fn has_pvh_entry(&self) -> bool {
        let notes = self.segments().filter(|(kind, _)| *kind == PT_NOTE);
        notes.filter_map(|(_, bytes)| bytes).any(|notes| has_note(notes, b"Xen\0", NOTE_PVH))
    }

    pub(super) fn section(&self, wanted: &str) -> Result<Option<&'a [u8]>, ElfError> {
        let names = self.u16(62).map(usize::from).ok_or(ElfError::Damaged)?;
        let count = self.u16(60).map(usize::from).ok_or(ElfError::Damaged)?;
        let (_, names) = self.header(names).ok_or(ElfError::Damaged)?;
        let names = names.ok_or(ElfError::Damaged)?;
        for index in 0..count {
            let (name, bytes) = self.header(index).ok_or(ElfError::Damaged)?;
            let name = names.get(name as usize..).ok_or(ElfError::Damaged)?;
            if name.strip_prefix(wanted.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)) {
                return bytes.map(Some).ok_or(ElfError::Damaged);
            }
        }
        Ok(None)
    }

    /// Name offset and contents of a section.
    fn header(&self, index: usize) -> Option<(u32, Option<&'a [u8]>)> {
        let at = self.usize(40)?.checked_add(index.checked_mul(64)?)?;
        let (name, kind) = (self.u32(at)?, self.u32(at.checked_add(4)?)?);
        if kind == SHT_NOBITS {
            return Some((name, Some(&[])));
        }
        Some((name, self.range(self.usize(at + 24)?, self.usize(at + 32)?)))
    }

    /// Type and contents of each program header.
    fn segments(&self) -> impl Iterator<Item = (u32, Option<&'a [u8]>)> + '_ {
        let count = self.u16(56).unwrap_or(0);
        (0..usize::from(count)).filter_map(|index| {
            let at = self.usize(32)?.checked_add(index * 56)?;
            let kind = self.u32(at)?;
            let range = self.usize(at + 8).zip(self.usize(at + 32));
            Some((kind, range.and_then(|(offset, len)| self.range(offset, len))))
        })
    }

    fn range(&self, at: usize, len: usize) -> Option<&'a [u8]> {
        self.bytes.get(at..at.checked_add(len)?)
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_le_bytes(self.range(at, 2)?.try_into().ok()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_le_bytes(self.range(at, 4)?.try_into().ok()?))
    }

    fn usize(&self, at: usize) -> Option<usize> {
        u64::from_le_bytes(self.range(at, 8)?.try_into().ok()?).try_into().ok()
    }
}

fn has_note(mut notes: &[u8], owner: &[u8], kind: u32) -> bool {
    let word = |bytes: &[u8], at: usize| -> Option<u32> {
        Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
    };
    while let (Some(name), Some(len), Some(found)) =
        (word(notes, 0), word(notes, 4), word(notes, 8))
    {
        let (name, len) = (name as usize, len as usize);
        if found == kind && notes.get(12..12 + name.min(16)) == Some(owner) {
            return true;
        }
        let next = 12 + name.next_multiple_of(4) + len.next_multiple_of(4);
        match notes.get(next..) {
            Some(rest) => notes = rest,
            None => break,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_kernel_is_refused() {
        assert_eq!(Elf::parse(b"#!/bin/sh").unwrap_err(), ElfError::NotElf);
        let mut riscv = vec![0; 64];
        riscv[..6].copy_from_slice(b"\x7fELF\x02\x01");
        riscv[18] = 243;
        assert_eq!(Elf::parse(&riscv).unwrap_err(), ElfError::OtherMachine);
    }

    #[test]
    fn damaged_tables_are_errors_and_no_panics() {
        let mut bytes = vec![0xff; 200];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[18..20].copy_from_slice(&MACHINE.to_le_bytes());
        let elf = Elf::parse(&bytes).unwrap();
        assert_eq!(elf.section(".modinfo"), Err(ElfError::Damaged));
        assert!(!elf.is_whole() && !elf.has_pvh_entry());
    }

    #[test]
    fn notes_are_found_among_others() {
        let mut notes = Vec::new();
        for (kind, name) in [(6, b"Xen\0"), (18, b"GNU\0"), (18, b"Xen\0")] {
            for word in [4, 5, kind] {
                notes.extend(u32::to_le_bytes(word));
            }
            notes.extend(name);
            notes.extend([0; 8]);
        }
        assert!(has_note(&notes, b"Xen\0", 18));
        assert!(!has_note(&notes[..50], b"Xen\0", 18));
    }
}
