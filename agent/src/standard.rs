//! Standard streams of a process that the server started to serve a client: as they are, for the
//! library's own add locks and buffers.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::{FromRawFd as _, RawFd};

pub(crate) fn standard(number: RawFd) -> ManuallyDrop<File> {
    // SAFETY: the process was started with these descriptors, and the file is never dropped.
    #[allow(unsafe_code, reason = "standard streams without a buffer")]
    ManuallyDrop::new(unsafe { File::from_raw_fd(number) })
}
