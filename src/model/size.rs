//! Sizes as users write them.

use std::fmt;
use std::str::FromStr;

/// Bytes. Written `512M`, `4G`, `4GiB`, `1T`; a bare number is MiB. Powers of 1024 throughout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseSizeError {
    #[error("{0:?} is not a size; write 512M, 4G or 4GiB (a bare number is MiB)")]
    Syntax(String),
    #[error("size {0:?} must be more than zero")]
    Zero(String),
    #[error("size {0:?} is too large to count")]
    Overflow(String),
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

impl Size {
    #[must_use]
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    #[must_use]
    pub const fn from_mib(mib: u32) -> Self {
        Self(mib as u64 * MIB)
    }

    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Rounded up.
    #[must_use]
    pub const fn mib(self) -> u64 {
        self.0.div_ceil(MIB)
    }
}

impl FromStr for Size {
    type Err = ParseSizeError;

    fn from_str(text: &str) -> Result<Self, ParseSizeError> {
        let syntax = || ParseSizeError::Syntax(text.to_owned());
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (digits, unit) = text.split_at(digits_end);
        if digits.is_empty() {
            return Err(syntax());
        }
        let unit = match unit.to_ascii_lowercase().as_str() {
            "k" | "kb" | "kib" => KIB,
            "" | "m" | "mb" | "mib" => MIB,
            "g" | "gb" | "gib" => GIB,
            "t" | "tb" | "tib" => TIB,
            _ => return Err(syntax()),
        };
        let overflow = || ParseSizeError::Overflow(text.to_owned());
        let number: u64 = digits.parse().map_err(|_| overflow())?;
        match number.checked_mul(unit) {
            Some(0) => Err(ParseSizeError::Zero(text.to_owned())),
            Some(bytes) => Ok(Self(bytes)),
            None => Err(overflow()),
        }
    }
}

impl fmt::Display for Size {
    /// Shortest exact form with one decimal at most: `8G`, `512M`, `1.5G`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, letter) = match self.0 {
            n if n >= TIB => (TIB, "T"),
            n if n >= GIB => (GIB, "G"),
            n if n >= MIB => (MIB, "M"),
            n if n >= KIB => (KIB, "K"),
            n => return f.pad(&format!("{n}B")),
        };
        let tenths = (u128::from(self.0) * 10).div_euclid(u128::from(unit));
        if tenths % 10 == 0 {
            f.pad(&format!("{}{letter}", tenths / 10))
        } else {
            f.pad(&format!("{}.{}{letter}", tenths / 10, tenths % 10))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_users_write() {
        for (text, bytes) in
            [("512", 512 * MIB), ("4G", 4 * GIB), ("4GiB", 4 * GIB), ("1t", TIB), ("64k", 64 * KIB)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for bad in ["", "G", "-1G", "1.5G", "4 G", "4X", "0", "0G", "99999999999T", "1e3"] {
            assert!(bad.parse::<Size>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn prints_short() {
        assert_eq!(Size(8 * GIB).to_string(), "8G");
        assert_eq!(Size(GIB + GIB / 2).to_string(), "1.5G");
        assert_eq!(Size(100).to_string(), "100B");
    }
}
