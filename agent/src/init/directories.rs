//! Places that an image names and need not have: where its program starts, and its volumes.

use std::fs;

use banger_agent::contract::image::ImageStart;

use crate::log;

/// One that cannot be made is told: whoever needs it says so again.
pub(crate) fn make_directories(image: &ImageStart) {
    for path in image.directories.iter().filter(|path| !fs::exists(path).unwrap_or(false)) {
        if let Err(error) = fs::create_dir_all(path) {
            log::line(format_args!("make {path}, which the image names: {error}"));
        }
    }
}
