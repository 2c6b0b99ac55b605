//! What a VMM that runs in a jail sees of the host, and what any VMM may use up.

use std::path::PathBuf;

use crate::model::{Size, TapName};

/// Walls behind what admission counts; a VMM that runs into one is the only one that suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmmLimits {
    pub memory: Size,
    /// Whole CPUs.
    pub cpus: u32,
    /// Processes and threads.
    pub tasks: u32,
}

/// A root directory that holds the sockets' directory as `/s`, the named files, and nothing else
/// of the host; and a user of its own, who owns the tap for as long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jail {
    pub tap: TapName,
    /// Where the VMM makes its sockets; the daemon's group reaches them.
    pub sockets: PathBuf,
    pub files: Vec<JailFile>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JailFile {
    /// A file, a directory or a block device.
    pub path: PathBuf,
    /// In the jail's root directory.
    pub name: String,
    pub access: JailAccess,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JailAccess {
    /// Read by any VM, so it must be readable by all.
    Shared,
    /// Read by this VM alone, whose user gets it; the daemon's group keeps access.
    Private,
    /// The same, and written.
    Writable,
}
