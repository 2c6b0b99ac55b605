//! The config drive: a raw block device that holds one [`Boot`].
//!
//! ```text
//! BNGRCFG1 | u32 LE length | payload | u32 LE CRC-32 of the payload | zeroes to a multiple of 4096
//! ```
//!
//! The payload is a versioned enum. An agent that meets a version it does not know says so and
//! ends the boot; it never guesses.

use super::codec::{self, CodecError, Decode, Encode};
use super::config::GuestConfig;
use super::image::ImageStart;

pub const MAGIC: &[u8; 8] = b"BNGRCFG1";
/// Magic and length.
pub const HEADER_BYTES: usize = 12;
/// The drive is a whole number of these.
pub const BLOCK_BYTES: usize = 4096;
/// No drive is larger, checksum and padding included.
pub const MAX_DRIVE_BYTES: usize = codec::MAX_BYTES + BLOCK_BYTES;

/// All that a guest is told before it can be spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    pub guest: GuestConfig,
    pub image: ImageStart,
}

impl From<GuestConfig> for Boot {
    fn from(guest: GuestConfig) -> Self {
        Self { guest, image: ImageStart::default() }
    }
}

#[derive(Encode, Decode)]
enum Payload {
    V1(GuestConfig),
    V2(GuestConfig, ImageStart),
}

#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    #[error("config drive: no magic")]
    Magic,
    #[error("config drive: {have} bytes, needs {need}")]
    Truncated { have: usize, need: usize },
    #[error("config drive: length {0} is over the limit")]
    TooLong(usize),
    #[error("config drive: checksum {found:08x}, expected {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("config drive: payload")]
    Payload(#[source] CodecError),
}

/// The whole content of the drive, padding included.
pub fn encode(boot: &Boot) -> Result<Vec<u8>, DriveError> {
    let Boot { guest, image } = boot.clone();
    let payload = codec::encode(&Payload::V2(guest, image)).map_err(DriveError::Payload)?;
    let length = u32::try_from(payload.len()).map_err(|_| DriveError::TooLong(payload.len()))?;
    let mut out =
        Vec::with_capacity((HEADER_BYTES + payload.len() + 4).next_multiple_of(BLOCK_BYTES));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&payload);
    out.extend_from_slice(&crc32(&payload).to_le_bytes());
    out.resize(out.len().next_multiple_of(BLOCK_BYTES), 0);
    Ok(out)
}

/// How many bytes of the drive must be read, told from its first [`HEADER_BYTES`].
pub fn needed_bytes(header: &[u8]) -> Result<usize, DriveError> {
    let Some((magic, rest)) = header.split_first_chunk::<8>() else {
        return Err(DriveError::Truncated { have: header.len(), need: HEADER_BYTES });
    };
    if magic != MAGIC {
        return Err(DriveError::Magic);
    }
    let Some(length) = rest.first_chunk::<4>() else {
        return Err(DriveError::Truncated { have: header.len(), need: HEADER_BYTES });
    };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > codec::MAX_BYTES {
        return Err(DriveError::TooLong(length));
    }
    Ok(HEADER_BYTES + length + 4)
}

/// Reads a drive, or as much of its beginning as [`needed_bytes`] asks for.
pub fn decode(bytes: &[u8]) -> Result<Boot, DriveError> {
    let need = needed_bytes(bytes)?;
    let whole =
        bytes.get(HEADER_BYTES..need).ok_or(DriveError::Truncated { have: bytes.len(), need })?;
    let (payload, sum) =
        whole.split_last_chunk::<4>().ok_or(DriveError::Truncated { have: bytes.len(), need })?;
    let (found, expected) = (crc32(payload), u32::from_le_bytes(*sum));
    if found != expected {
        return Err(DriveError::Checksum { found, expected });
    }
    Ok(match codec::decode(payload).map_err(DriveError::Payload)? {
        Payload::V1(guest) => guest.into(),
        Payload::V2(guest, image) => Boot { guest, image },
    })
}

/// CRC-32 (IEEE), bit by bit: a config is a few KiB, read once a boot.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & 0_u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::golden_tests::sample_boot;

    #[test]
    fn crc_matches_the_published_check_value() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_drive_is_whole_blocks_and_reads_back() {
        let bytes = encode(&sample_boot()).unwrap();
        assert_eq!(bytes.len() % BLOCK_BYTES, 0);
        assert_eq!(decode(&bytes).unwrap(), sample_boot());
        let need = needed_bytes(&bytes[..HEADER_BYTES]).unwrap();
        assert_eq!(decode(&bytes[..need]).unwrap(), sample_boot());
    }

    #[test]
    fn damage_is_named() {
        let good = encode(&sample_boot()).unwrap();
        assert!(matches!(decode(&[]), Err(DriveError::Truncated { .. })));
        assert!(matches!(decode(&[0; 4096]), Err(DriveError::Magic)));
        assert!(matches!(decode(&good[..40]), Err(DriveError::Truncated { have: 40, .. })));
        let mut long = good.clone();
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(matches!(decode(&long), Err(DriveError::TooLong(_))));
        let mut flipped = good;
        flipped[30] ^= 1;
        assert!(matches!(decode(&flipped), Err(DriveError::Checksum { .. })));
    }

    #[test]
    fn a_later_version_is_refused_not_guessed() {
        let payload = [2_u8, 0, 0];
        let mut bytes = MAGIC.to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(payload);
        bytes.extend(crc32(&payload).to_le_bytes());
        assert!(matches!(decode(&bytes), Err(DriveError::Payload(CodecError::Decode(_)))));
    }
}
