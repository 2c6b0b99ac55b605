//! The only importer of bincode. A later change of codec is a change of this file.
//!
//! Three guards, each against something bincode allows: a limit (a hostile length makes it
//! allocate until the process aborts), an exact length (trailing bytes pass silently), and no
//! serde (its attributes compile and then corrupt the stream).

pub use bincode::{Decode, Encode};

/// No value on a socket or in the store is larger, encoded.
pub const MAX_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("encode")]
    Encode(#[source] bincode::error::EncodeError),
    #[error("encoded value has {0} bytes, more than {MAX_BYTES}")]
    TooLarge(usize),
    #[error("decode")]
    Decode(#[source] bincode::error::DecodeError),
    #[error("{0} bytes left over after decoding")]
    Trailing(usize),
}

#[allow(clippy::disallowed_methods, reason = "this file is the codec")]
pub fn encode<T: Encode>(value: &T) -> Result<Vec<u8>, CodecError> {
    let config = bincode::config::standard().with_limit::<MAX_BYTES>();
    let bytes = bincode::encode_to_vec(value, config).map_err(CodecError::Encode)?;
    // bincode's limit guards decoding only; without this an oversized value could be stored and
    // never read again.
    if bytes.len() > MAX_BYTES { Err(CodecError::TooLarge(bytes.len())) } else { Ok(bytes) }
}

#[allow(clippy::disallowed_methods, reason = "this file is the codec")]
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<MAX_BYTES>();
    let (value, used) = bincode::decode_from_slice(bytes, config).map_err(CodecError::Decode)?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::Trailing(left)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_length_is_refused_before_allocating() {
        let mut bytes = vec![253_u8];
        bytes.extend((1_u64 << 40).to_le_bytes());
        assert!(matches!(decode::<Vec<u8>>(&bytes), Err(CodecError::Decode(_))));
    }

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7_u32).unwrap();
        bytes.push(0);
        assert!(matches!(decode::<u32>(&bytes), Err(CodecError::Trailing(1))));
    }

    #[test]
    fn what_could_not_be_read_back_is_not_written() {
        assert!(matches!(encode(&vec![0_u8; MAX_BYTES + 1]), Err(CodecError::TooLarge(_))));
    }
}
