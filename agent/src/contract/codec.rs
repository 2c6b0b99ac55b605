//! The only importer of bincode in this package.
//!
//! Three guards, each against something bincode allows: a limit (a hostile length makes it
//! allocate until the process aborts), an exact length (trailing bytes pass silently), and no
//! serde (its attributes compile and then corrupt the stream).

pub use bincode::{Decode, Encode};

/// No record of this contract is larger.
pub const MAX_BYTES: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("encode a contract record")]
    Encode(#[source] bincode::error::EncodeError),
    #[error("decode a contract record")]
    Decode(#[source] bincode::error::DecodeError),
    #[error("{0} bytes left over after decoding a contract record")]
    Trailing(usize),
}

#[allow(clippy::disallowed_methods, reason = "this file is the codec")]
pub fn encode<T: Encode>(value: &T) -> Result<Vec<u8>, CodecError> {
    let config = bincode::config::standard().with_limit::<MAX_BYTES>();
    bincode::encode_to_vec(value, config).map_err(CodecError::Encode)
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
}
