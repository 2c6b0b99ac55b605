//! Writes a bundle to whoever reads it. Blocking.
//!
//! The manifest comes first and has the digests of what follows, so each file is read twice and nothing
//! is kept. The same image or kernel under the same name is the same bytes.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

use sha2::{Digest as _, Sha256};

use super::manifest::{Contents, FileSaid, MANIFEST, MODULES, Manifest, ROOTFS, Said, VMLINUX};
use crate::host::image::export::Archive;
use crate::host::image::import::{Cancellable, ImportError, Watch};
use crate::model::{Digest, Name};

/// As zstd counts them; its own choice.
const LEVEL: i32 = 3;
const BUFFER: usize = 256 << 10;

pub(in crate::host::image) fn image(
    name: &Name,
    digest: Digest,
    contents: Contents,
    file: File,
    out: &mut dyn Write,
    watch: &Watch,
) -> Result<(), ImportError> {
    write(name.clone(), digest, contents, vec![(ROOTFS, file)], out, watch)
}

/// `files` are kernel and modules.
pub(in crate::host::image) fn kernel(
    name: &Name,
    digest: Digest,
    said: Said,
    [vmlinux, modules]: [File; 2],
    out: &mut dyn Write,
    watch: &Watch,
) -> Result<(), ImportError> {
    let files = vec![(VMLINUX, vmlinux), (MODULES, modules)];
    write(name.clone(), digest, Contents::Kernel(said), files, out, watch)
}

fn write(
    name: Name,
    digest: Digest,
    contents: Contents,
    files: Vec<(&str, File)>,
    out: &mut dyn Write,
    watch: &Watch,
) -> Result<(), ImportError> {
    let mut said = vec![];
    let mut opened = vec![];
    for (name, mut file) in files {
        said.push(look(name, &mut file, watch)?);
        opened.push(file);
    }
    let manifest = Manifest { name, digest, contents, files: said };
    let failed = |source| ImportError::Write { entry: MANIFEST.to_owned(), source };
    let mut packer = zstd::stream::write::Encoder::new(out, LEVEL).map_err(failed)?;
    packer.include_checksum(true).map_err(failed)?;
    let mut archive = Archive::new(&mut packer);
    archive.file(MANIFEST, &manifest.write()?)?;
    for (said, file) in manifest.files.iter().zip(opened) {
        let mut from = Cancellable::new(file, watch.cancel.clone());
        let added = archive.contents(&said.name, &mut from, said.size);
        added.map_err(|error| watch.blame(error))?;
    }
    archive.end()?;
    packer.finish().and_then(Write::flush).map_err(failed)
}

/// Reads all of it, and goes back to its beginning.
fn look(name: &str, file: &mut File, watch: &Watch) -> Result<FileSaid, ImportError> {
    let failed = |source| ImportError::Read { path: name.to_owned(), source };
    let (mut hash, mut size, mut buffer) = (Sha256::new(), 0, vec![0; BUFFER]);
    loop {
        watch.going_on()?;
        match file.read(&mut buffer).map_err(failed)? {
            0 => break,
            read => {
                hash.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(FileSaid { name: name.to_owned(), size, sha256: Digest(hash.finalize().into()) })
}
