//! Writes read-only ext4 file systems from a stream of entries, without privilege.
//!
//! ```text
//! entries -> Tree (names, owners, links: in memory)  \
//!         -> Blocks (contents: straight to the file)  > Builder::finish -> tables, superblock
//! ```
//!
//! Nothing is ever extracted onto the host, so no entry can lead outside, no privilege is needed
//! for owners, devices and file capabilities, and the same entries give the same bytes whatever
//! the host's file system. The result is exactly as large as its content.
//!
//! Layout: superblock and descriptors, contents in order of arrival, the journal, directories,
//! attribute and extent blocks, then all bitmaps and inode tables (`flex_bg` lets them lie
//! anywhere). The file itself is attached read-only and never changes, but clones of it are
//! written to and grow: hence a journal, checksums of descriptors (a kernel then need not zero the
//! tables of groups that it adds) and copies of the superblock where it looks for them.
//!
//! **The digest** is SHA-256 over all contents and then superblock and descriptors, with the UUID
//! and the checksums that depend on it zero; **the UUID** is the digest's first half with the
//! version bits of a UUID 8. So one pass is enough, and a file's UUID must fit its name.

mod blocks;
mod builder;
mod header;
mod inode;
mod journal;
mod layers;
mod layout;
pub(super) mod read;
mod seed;
mod tree;
mod verify;
mod xattr;

pub(super) use builder::{BuildError, Builder, Built, refused, shown};
pub(super) use layers::FileId;
pub(super) use tree::{Meta, Refusal, Special};
#[cfg(test)]
pub(super) use verify::resign;
pub(super) use verify::{digest_of, is_as_made, is_growable, uuid_of};
