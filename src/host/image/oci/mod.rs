//! Container images as OCI and Docker describe them: index, manifest, configuration, layers.
//!
//! Every document is known by the digest of its bytes and is parsed only after that was checked.
//! What must not be done here: trust a name in a document as a path; files are named by digests.

mod document;
mod layout;

pub(super) use document::DocumentError;
pub(super) use layout::{is_layout, open as open_layout};
