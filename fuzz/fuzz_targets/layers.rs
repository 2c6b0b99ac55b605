//! Bytes from a registry that is hostile: layers end as an error or as a whole image, and within limits.
#![no_main]

use std::io::Cursor;
use std::sync::Arc;

use banger::host::image::{Layer, merge_layers};
use banger::model::{ImageLimits, Size};
use libfuzzer_sys::fuzz_target;

/// Parts them: what is in between is a layer each.
const MARK: &[u8] = b"\xffLAYER\xff";

fuzz_target!(|bytes: &[u8]| {
    let mut layers = vec![];
    let mut left = bytes;
    while !left.is_empty() {
        let end = left.windows(MARK.len()).position(|at| at == MARK).unwrap_or(left.len());
        let one: Arc<[u8]> = left[..end].into();
        layers.push(Layer::new(String::new(), end as u64, None, move || {
            Ok(Box::new(Cursor::new(Arc::clone(&one))))
        }));
        left = left.get(end + MARK.len()..).unwrap_or_default();
    }
    let limits = ImageLimits { size: Size::from_mib(4), entries: 10_000, ratio: 100 };
    let file = tempfile::tempfile().unwrap();
    let len = file.try_clone().unwrap();
    if merge_layers(&layers, &limits, file).is_ok() {
        assert!(len.metadata().unwrap().len() < 128 << 20, "larger than its limit allows");
    }
});
