//! A bundle from anywhere: it ends as an error, or as an image or a kernel that is whole and within limits.
#![no_main]

use std::io::Cursor;

use banger::host::image::take_bundle;
use banger::model::{ImageLimits, Size};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = ImageLimits { size: Size::from_mib(4), entries: 10_000, ratio: 100 };
    let (file, seed) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let len = file.try_clone().unwrap();
    let taken = take_bundle(Cursor::new(bytes.to_vec()), bytes.len() as u64, &limits, file, seed);
    if taken.is_ok() {
        assert!(len.metadata().unwrap().len() <= 4 << 20, "larger than its limit allows");
    }
});
