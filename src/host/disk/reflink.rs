//! Root disks that share their image's blocks: nothing is copied, and what the guest changes is
//! its own. The file system underneath must know how (xfs, btrfs).

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::io::Errno;

use super::template::Draft;
use crate::host::files::TempFile;
use crate::model::Size;
use crate::ports::{BaseImage, HostError};

/// A file system is a whole number of these.
const BLOCK: u64 = 4096;

/// A clone of the image that becomes `target`, so much larger than the image. The guest's kernel
/// makes the file system in it as large as the file.
pub(super) fn draft(target: &Path, base: &BaseImage, room: Size) -> Result<Draft, HostError> {
    let failed = |error| HostError::io("clone image as", target.display().to_string(), error);
    let image = File::open(&base.path)
        .map_err(|error| HostError::io("open image", base.path.display().to_string(), error))?;
    let temp = TempFile::beside(target);
    let file = new_file(temp.path()).map_err(failed)?;
    rustix::fs::ioctl_ficlone(&file, &image).map_err(|error| failed(error.into()))?;
    file.set_len(root_bytes(base.size, room)).map_err(failed)?;
    Ok(Draft::new(target, temp, file))
}

/// How large a root disk is that has `room` beside its image.
pub(super) fn root_bytes(base: Size, room: Size) -> u64 {
    base.bytes().saturating_add(room.bytes()).next_multiple_of(BLOCK)
}

/// Tries it out in `dir`. The error is why it cannot be done there.
pub(super) fn probe(dir: &Path) -> io::Result<Result<(), &'static str>> {
    let (from, to) = (TempFile::beside(&dir.join("probe")), TempFile::beside(&dir.join("probe")));
    let source = new_file(from.path())?;
    std::os::unix::fs::FileExt::write_all_at(&source, &[1; 4096], 0)?;
    match rustix::fs::ioctl_ficlone(new_file(to.path())?, &source) {
        Ok(()) => Ok(Ok(())),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::INVAL | Errno::NOSYS) => {
            Ok(Err("the state directory's file system cannot share blocks between files"))
        }
        Err(error) => Err(error.into()),
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}
