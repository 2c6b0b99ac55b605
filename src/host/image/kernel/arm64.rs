//! ARM64's kernels: an `Image`, plain or packed whole, or packed in an EFI program (`zimg`).
//!
//! Sources: the kernel's Documentation/arch/arm64/booting.rst (the header of 64 bytes) and
//! drivers/firmware/efi/libstub/zboot-header.S.

use super::bzimage::{KernelError, unpack};

/// Where its magic stands.
const MAGIC: std::ops::Range<usize> = 56..60;

/// The plain `Image`, which is what VMMs load.
pub(super) fn image(bytes: Vec<u8>) -> Result<Vec<u8>, KernelError> {
    let image = match zimg(&bytes)? {
        Some(payload) => unpack(payload)?,
        None if bytes.get(MAGIC) == Some(b"ARM\x64") => bytes,
        None => unpack(&bytes)?,
    };
    if image.get(MAGIC) == Some(b"ARM\x64") { Ok(image) } else { Err(KernelError::Unknown) }
}

/// The packed kernel in an EFI program.
fn zimg(bytes: &[u8]) -> Result<Option<&[u8]>, KernelError> {
    if !bytes.starts_with(b"MZ") || bytes.get(4..8) != Some(b"zimg") {
        return Ok(None);
    }
    let word = |at: usize| -> Option<usize> {
        let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let range = word(8).zip(word(12)).and_then(|(at, len)| Some(at..at.checked_add(len)?));
    range.and_then(|range| bytes.get(range)).map(Some).ok_or(KernelError::CutShort)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Vec<u8> {
        let mut image = vec![0; 200];
        image[MAGIC].copy_from_slice(b"ARM\x64");
        image
    }

    #[test]
    fn every_form_comes_out_plain() {
        let packed = zstd::encode_all(&plain()[..], 3).unwrap();
        let mut efi = b"MZ\0\0zimg".to_vec();
        efi.extend(64_u32.to_le_bytes());
        efi.extend(u32::try_from(packed.len()).unwrap().to_le_bytes());
        efi.resize(64, 0);
        efi.extend(&packed);
        for form in [plain(), packed, efi] {
            assert_eq!(image(form).unwrap(), plain());
        }
    }

    #[test]
    fn the_rest_is_refused() {
        assert!(matches!(image(b"text".to_vec()), Err(KernelError::Unknown)));
        let other = zstd::encode_all(&b"no kernel"[..], 3).unwrap();
        assert!(matches!(image(other), Err(KernelError::Unknown)));
        let mut cut = b"MZ\0\0zimg".to_vec();
        cut.extend([0xff; 8]);
        assert!(matches!(image(cut), Err(KernelError::CutShort)));
    }
}
