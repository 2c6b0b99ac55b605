//! Container images as OCI and Docker describe them: index, manifest, configuration, layers.
//!
//! Every document is known by the digest of its bytes and is parsed only after that was checked.
//! What must not be done here: trust a name in a document as a path; files are named by digests.

mod archive;
mod document;
mod layout;
mod place;
mod run;
mod saved;
mod write;

pub(super) use archive::Archive;
pub(super) use document::{
    ARCH, Descriptor, Document, DocumentError, MAX_DOCUMENT, MAX_STEPS, Manifest, check, choose,
    parse,
};
pub(super) use layout::{
    Opened, blobs_of, is_layout, open as open_layout, open_archive, open_blobs,
};
pub(super) use place::blob;
pub(super) use run::Run;
pub(super) use write::{Documents, documents};
