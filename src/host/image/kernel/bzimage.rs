//! From what distributions call `vmlinuz` to what a VMM loads: on x86-64 the ELF file inside.

use std::io::{self, Read};

use super::arm64;
use super::elf::{Elf, ElfError};

#[derive(Debug, thiserror::Error)]
pub(in crate::host::image) enum KernelError {
    #[error("it is {FORMS}")]
    Unknown,
    #[error("it is packed with {0}, which is not supported; gzip, lz4, xz and zstd are")]
    Packed(&'static str),
    #[error("it is damaged: its packed part ends too soon or does not unpack")]
    Unpack(#[source] io::Error),
    #[error(transparent)]
    Elf(#[from] ElfError),
    #[error("it is cut short")]
    CutShort,
}

const FORMS: &str = if cfg!(target_arch = "aarch64") {
    "no ARM64 Image"
} else {
    "neither a bzImage nor an ELF kernel"
};

/// No kernel is larger.
const LIMIT: u64 = 1 << 30;

/// What a VMM loads, whole and for this machine.
pub(in crate::host::image) fn vmlinux(bytes: Vec<u8>) -> Result<Vec<u8>, KernelError> {
    if cfg!(target_arch = "aarch64") { arm64::image(bytes) } else { elf(bytes) }
}

fn elf(bytes: Vec<u8>) -> Result<Vec<u8>, KernelError> {
    let elf = if bytes.starts_with(b"\x7fELF") { bytes } else { unpack(payload(&bytes)?)? };
    if Elf::parse(&elf)?.is_whole() { Ok(elf) } else { Err(KernelError::CutShort) }
}

/// The packed kernel in a bzImage, by its header (boot protocol 2.08 and later, which is 2008).
fn payload(image: &[u8]) -> Result<&[u8], KernelError> {
    let word = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(KernelError::Unknown);
    }
    let protocol = image.get(0x206..0x208).map(|v| u16::from_le_bytes([v[0], v[1]]));
    if protocol < Some(0x208) {
        return Err(KernelError::Unknown);
    }
    // A count of zero has always meant four.
    let setup = image.get(0x1f1).map(|n| if *n == 0 { 4 } else { usize::from(*n) });
    let (Some(setup), Some(offset), Some(len)) = (setup, word(0x248), word(0x24c)) else {
        return Err(KernelError::CutShort);
    };
    let start = (setup + 1) * 512 + offset;
    image.get(start..start + len).ok_or(KernelError::CutShort)
}

pub(super) fn unpack(packed: &[u8]) -> Result<Vec<u8>, KernelError> {
    if packed.starts_with(b"\x02\x21\x4c\x18") {
        return lz4_legacy(&packed[4..]);
    }
    let mut out = Vec::new();
    // The unpacked length follows the stream; the decoders stop before it.
    let mut from: Box<dyn Read + '_> = if packed.starts_with(b"\x1f\x8b") {
        Box::new(flate2::bufread::GzDecoder::new(packed))
    } else if packed.starts_with(b"\xfd7zXZ\0") {
        Box::new(lzma_rust2::XzReader::new(packed, false))
    } else if packed.starts_with(b"\x28\xb5\x2f\xfd") {
        let mut zstd =
            zstd::stream::read::Decoder::new(packed).map_err(KernelError::Unpack)?.single_frame();
        // The kernel's build uses windows of up to 128 MiB.
        zstd.window_log_max(27).map_err(KernelError::Unpack)?;
        Box::new(zstd)
    } else {
        return Err(match packed {
            [b'B', b'Z', b'h', ..] => KernelError::Packed("bzip2"),
            [0x5d, 0, 0, ..] => KernelError::Packed("lzma"),
            [0x89, b'L', b'Z', b'O', ..] => KernelError::Packed("lzo"),
            _ => KernelError::Unknown,
        });
    };
    from.by_ref().take(LIMIT).read_to_end(&mut out).map_err(KernelError::Unpack)?;
    Ok(out)
}

/// Blocks of a length and that many packed bytes, each at most 8 MiB unpacked.
fn lz4_legacy(mut packed: &[u8]) -> Result<Vec<u8>, KernelError> {
    const BLOCK: usize = 8 << 20;
    let mut out = Vec::new();
    let mut block = vec![0; BLOCK];
    while let Some((len, rest)) = packed.split_first_chunk::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        // After the last block comes the unpacked length, with nothing behind it.
        let Some(data) = rest.get(..len).filter(|data| !data.is_empty()) else { break };
        let n = lz4_flex::block::decompress_into(data, &mut block)
            .map_err(|error| KernelError::Unpack(io::Error::other(error)))?;
        out.extend(&block[..n]);
        packed = &rest[len..];
    }
    Ok(out)
}

#[cfg(test)]
pub(in crate::host::image) mod tests {
    use std::io::Write;

    use super::super::elf::MACHINE;
    use super::elf as unpacked;

    /// A tiny ELF file that counts as whole.
    pub(in crate::host::image) fn elf() -> Vec<u8> {
        let mut elf = vec![0; 300];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18..20].copy_from_slice(&MACHINE.to_le_bytes());
        elf[32] = 64; // program headers
        elf[56] = 1;
        elf[64] = 1; // PT_LOAD
        elf[64 + 8] = 120;
        elf[64 + 32] = 100;
        elf
    }

    fn image(packed: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 512 * 5 + 64];
        image[0x1f1] = 4;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&[0x0f, 0x02]);
        image[0x248] = 64;
        image[0x24c..0x250]
            .copy_from_slice(&u32::try_from(packed.len() + 4).unwrap().to_le_bytes());
        image.extend(packed);
        image.extend(300_u32.to_le_bytes());
        image.extend([0; 100]);
        image
    }

    #[test]
    fn every_packing_comes_out() {
        let elf = elf();
        let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        gz.write_all(&elf).unwrap();
        let mut xz =
            lzma_rust2::XzWriter::new(vec![], lzma_rust2::XzOptions::with_preset(1)).unwrap();
        xz.write_all(&elf).unwrap();
        let mut lz4 = b"\x02\x21\x4c\x18".to_vec();
        let block = lz4_flex::block::compress(&elf);
        lz4.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        lz4.extend(block);
        for packed in [
            gz.finish().unwrap(),
            xz.finish().unwrap(),
            lz4,
            zstd::encode_all(&elf[..], 3).unwrap(),
        ] {
            assert_eq!(unpacked(image(&packed)).unwrap(), elf);
        }
        assert_eq!(unpacked(elf.clone()).unwrap(), elf);
    }

    #[test]
    fn the_rest_is_refused() {
        let says = |bytes: Vec<u8>| unpacked(bytes).unwrap_err().to_string();
        assert!(says(b"text".to_vec()).contains("neither"));
        assert!(says(image(b"BZh91")).contains("bzip2"));
        assert!(says(image(b"\x28\xb5\x2f\xfd-no-zstd-at-all")).contains("damaged"));
        let mut cut = image(&zstd::encode_all(&elf()[..], 3).unwrap());
        cut.truncate(512 * 5 + 80);
        assert!(says(cut).contains("cut short"));
        let mut short = elf();
        short.truncate(150);
        assert!(says(short).contains("cut short"));
    }
}
