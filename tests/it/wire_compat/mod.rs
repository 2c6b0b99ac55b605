//! The bytes between CLI and daemon, frozen: one file in `tests/fixtures/wire/` per variant, with
//! the hex of what one sample encodes to. A failing test here means that two releases no longer
//! understand each other: append a variant instead of changing one.
//!
//! `BANGER_GOLDEN=write` makes the files that are missing; it never changes one that is there.

mod replies;
mod requests;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs;
use std::path::PathBuf;

use banger::wire::codec::{self, Decode, Encode};

/// The names of an enum's variants and the name of a value's. The match is exhaustive: a new
/// variant does not compile until it is listed here, and then fails until it has a sample.
macro_rules! every {
    ($module:ident: $type:ident { $($variant:ident)* }) => {
        mod $module {
            use super::*;
            pub(super) const ALL: &[&str] = &[$(stringify!($variant)),*];
            pub(super) fn name(value: &$type) -> &'static str {
                match value { $($type::$variant { .. } => stringify!($variant)),* }
            }
        }
    };
}
pub(crate) use every;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire")
}

/// `prefix-VariantName.hex` for each sample, and a sample for each variant.
#[track_caller]
fn check<T: Encode + Decode<()> + PartialEq + Debug>(
    prefix: &str,
    all: &[&str],
    name: fn(&T) -> &'static str,
    samples: &[T],
) {
    let sampled: BTreeSet<&str> = samples.iter().map(name).collect();
    let missing: Vec<_> = all.iter().filter(|variant| !sampled.contains(**variant)).collect();
    assert!(missing.is_empty(), "{prefix}: no sample of {missing:?}");
    assert_eq!(samples.len(), all.len(), "{prefix}: one sample per variant");
    for sample in samples {
        golden(&format!("{prefix}-{}", name(sample)), sample);
    }
    let files: BTreeSet<String> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|file| Some(file.strip_prefix(prefix)?.strip_prefix('-')?.to_owned()))
        .collect();
    let wanted: BTreeSet<String> = all.iter().map(|variant| format!("{variant}.hex")).collect();
    assert_eq!(files, wanted, "{prefix}: a released variant is never taken out");
}

#[track_caller]
fn golden<T: Encode + Decode<()> + PartialEq + Debug>(name: &str, sample: &T) {
    let path = directory().join(format!("{name}.hex"));
    let bytes = codec::encode(sample).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    if !path.exists() && std::env::var_os("BANGER_GOLDEN").is_some_and(|what| what == "write") {
        fs::write(&path, format!("{hex}\n")).unwrap();
    }
    let frozen = fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("no golden bytes {}: {error}", path.display()));
    assert_eq!(hex, frozen.trim(), "{name}: the bytes of a released variant changed");
    let frozen: Vec<u8> = (0..frozen.trim().len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&frozen[at..at + 2], 16).unwrap())
        .collect();
    assert_eq!(&codec::decode::<T>(&frozen).unwrap(), sample, "{name}: decoded");
}
