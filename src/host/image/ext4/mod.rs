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
//! Layout: superblock and group descriptors, contents in order of arrival, directories, attribute
//! and extent blocks, then all bitmaps and inode tables (`flex_bg` lets them lie anywhere). No
//! journal, no checksums, no backup superblocks: the file is written once, named after its digest,
//! and attached read-only.
//!
//! **The digest** is SHA-256 over everything from [`layout::FIRST_DATA`] on and then over what
//! lies before it, with the UUID zero; **the UUID** is the digest's first half with the version
//! bits of a UUID 8. So one pass is enough, and a file's UUID must fit its name.

mod blocks;
mod builder;
mod inode;
mod layout;
mod tree;
mod verify;
mod xattr;

pub(super) use builder::{BuildError, Builder, Built};
pub(super) use tree::{Meta, Refusal, Special};
pub(super) use verify::{digest_of, uuid_of};
