//! Copies of sparse files that stay sparse.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};
use rustix::io::Errno;

const CHUNK: usize = 64 << 10;

/// Copies `from` to the new file `to`: by reflink where the file system has it, else the written
/// parts only, and of those only what is not zero.
pub(in crate::host) fn copy(from: &File, to: &Path) -> io::Result<File> {
    let copy = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(to)?;
    if rustix::fs::ioctl_ficlone(&copy, from).is_ok() {
        return Ok(copy);
    }
    let len = from.metadata()?.len();
    copy.set_len(len)?;
    let mut at = 0;
    while let Some((start, end)) = next_data(from, at, len)? {
        copy_range(from, &copy, start, end)?;
        at = end;
    }
    Ok(copy)
}

/// The next written range at or after `at`.
fn next_data(file: &File, at: u64, len: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= len {
        return Ok(None);
    }
    match seek(file, SeekFrom::Data(at)) {
        Ok(start) => Ok(Some((start, seek(file, SeekFrom::Hole(start))?.min(len)))),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
        from.read_exact_at(&mut buffer[..want], at)?;
        write_sparse(to, &buffer[..want], at)?;
        at += want as u64;
    }
    Ok(())
}

/// Writes `bytes` at `at`, leaving out whole pages of zeros: the file reads as zero there.
pub(in crate::host) fn write_sparse(to: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    const PAGE: usize = 4096;
    let zero = |page: &[u8]| page.iter().all(|byte| *byte == 0);
    let mut from = 0;
    while from < bytes.len() {
        let page = |index: usize| &bytes[index..bytes.len().min(index + PAGE)];
        let skip = zero(page(from));
        let mut until = from + PAGE;
        while until < bytes.len() && zero(page(until)) == skip {
            until += PAGE;
        }
        let until = until.min(bytes.len());
        if !skip {
            to.write_all_at(&bytes[from..until], at + from as u64)?;
        }
        from = until;
    }
    Ok(())
}

/// Gives whole pages of zeros back to the file system; they read as zeros still. Where it cannot
/// take them back, nothing is lost but room.
pub(in crate::host) fn punch_zeros(file: &File) -> io::Result<()> {
    let mut buffer = vec![0; 16 * CHUNK];
    let len = file.metadata()?.len();
    let mut at = 0;
    while let Some((start, end)) = next_data(file, at, len)? {
        at = start;
        while at < end {
            let want =
                usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
            file.read_exact_at(&mut buffer[..want], at)?;
            if !punch_runs(file, &buffer[..want], at)? {
                return Ok(());
            }
            at += want as u64;
        }
    }
    Ok(())
}

/// False where the file system has no holes.
fn punch_runs(file: &File, bytes: &[u8], at: u64) -> io::Result<bool> {
    const PAGE: usize = 4096;
    const ZEROS: [u8; PAGE] = [0; PAGE];
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    let mut from = 0;
    while from < bytes.len() {
        let zeros = bytes[from..].chunks(PAGE).take_while(|page| *page == &ZEROS[..page.len()]);
        let length: usize = zeros.map(<[u8]>::len).sum();
        if length > 0 {
            match fallocate(file, how, at + from as u64, length as u64) {
                Err(Errno::OPNOTSUPP) => return Ok(false),
                done => done?,
            }
        }
        from += length;
        let data = bytes[from..].chunks(PAGE).take_while(|page| *page != &ZEROS[..page.len()]);
        from += data.map(<[u8]>::len).sum::<usize>();
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn holes_stay_holes_and_data_arrives() {
        let dir = tempfile::tempdir().unwrap();
        let from = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(dir.path().join("from"))
            .unwrap();
        from.set_len(1 << 30).unwrap();
        from.write_all_at(b"first", 0).unwrap();
        from.write_all_at(&[0; 1 << 20], 1 << 20).unwrap();
        from.write_all_at(b"middle", 500 << 20).unwrap();
        from.write_all_at(b"end", (1 << 30) - 3).unwrap();
        let to = copy(&from, &dir.path().join("to")).unwrap();
        assert_eq!(to.metadata().unwrap().len(), 1 << 30);
        assert!(to.metadata().unwrap().blocks() * 512 < 2 << 20);
        for (text, at) in [("first", 0), ("middle", 500 << 20), ("end", (1_u64 << 30) - 3)] {
            let mut read = vec![0; text.len()];
            to.read_exact_at(&mut read, at).unwrap();
            assert_eq!(read, text.as_bytes());
        }
    }

    #[test]
    fn zeros_are_given_back_and_read_as_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("memory");
        let mut bytes = vec![0; 8 << 20];
        for at in [0, 5000, (3 << 20) - 1, (3 << 20) + 8192, (8 << 20) - 1] {
            bytes[at] = 7;
        }
        std::fs::write(&path, &bytes).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        file.sync_all().unwrap();
        for _ in 0..2 {
            punch_zeros(&file).unwrap();
            assert!(std::fs::read(&path).unwrap() == bytes);
            assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20);
        }
    }

    #[test]
    fn an_existing_file_is_not_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("to"), "mine").unwrap();
        let from = tempfile::tempfile().unwrap();
        assert!(copy(&from, &dir.path().join("to")).is_err());
        assert_eq!(std::fs::read(dir.path().join("to")).unwrap(), b"mine");
    }
}
