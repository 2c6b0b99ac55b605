//! The layers of a container image become one file system, read twice and written once.
//!
//! ```text
//! first reading:  every layer's headers -> names, owners, links of the result; its digest checked
//! second reading: contents of the files that are left -> straight into the image
//! ```
//!
//! Contents are never held and never written anywhere else, so memory grows with names alone and
//! nothing that a later layer hides is written. The same layers give the same bytes. Limits are of
//! the archives as they claim to be: what goes past one is refused by name before it is unpacked.

mod merge;
mod source;
mod whiteout;
mod write;

pub(super) use merge::merge;
pub use merge::merge_layers;
pub use source::Layer;
pub(super) use source::{HARMLESS, TooMuch};
pub(super) use write::write_layer;

#[cfg(test)]
#[path = "archive_tests.rs"]
mod archive;
#[cfg(test)]
mod fidelity_tests;
#[cfg(test)]
mod merge_tests;
