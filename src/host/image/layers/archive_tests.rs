//! What the tests of layers are made with: archives by short words, and images of them.

use std::fs::File;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use tar::{EntryType, Header};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::host::image::ext4::{Builder, Built};
use crate::host::image::import::{ImportError, Watch};
use crate::model::{Digest, ImageLimits, chain};

#[allow(clippy::disallowed_methods, reason = "tests ask e2fsprogs and tar")]
pub(super) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

pub(super) fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// An archive by short words; names go into headers as they are, hostile or not.
pub(super) struct Tar(pub(super) Vec<u8>);

impl Tar {
    pub(super) fn new() -> Self {
        Self(vec![])
    }

    pub(super) fn raw(
        mut self,
        mut header: Header,
        name: &str,
        link: &str,
        contents: &[u8],
    ) -> Self {
        for (long, kind) in [(name, EntryType::GNULongName), (link, EntryType::GNULongLink)] {
            if long.len() > 99 {
                let mut extra = self::header(kind, long.len() as u64 + 1);
                extra.as_old_mut().name[..13].copy_from_slice(b"././@LongLink");
                self.put(&mut extra, &[long.as_bytes(), b"\0"].concat());
            }
        }
        let name = &name.as_bytes()[..name.len().min(99)];
        let link = &link.as_bytes()[..link.len().min(99)];
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        self.put(&mut header, contents);
        self
    }

    fn put(&mut self, header: &mut Header, contents: &[u8]) {
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(contents);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }

    pub(super) fn file(self, name: &str, contents: &[u8]) -> Self {
        self.raw(header(EntryType::Regular, contents.len() as u64), name, "", contents)
    }

    pub(super) fn link(self, kind: EntryType, name: &str, target: &str) -> Self {
        self.raw(header(kind, 0), name, target, b"")
    }

    pub(super) fn dir(self, name: &str, mode: u32) -> Self {
        let mut header = header(EntryType::Directory, 0);
        header.set_mode(mode);
        self.raw(header, name, "", b"")
    }

    pub(super) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut text = vec![];
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut len = rest + 1;
            while rest + len.to_string().len() != len {
                len += 1;
            }
            text.extend(format!("{len} {key}=").as_bytes());
            text.extend(*value);
            text.push(b'\n');
        }
        let mut header = header(EntryType::XHeader, text.len() as u64);
        header.as_old_mut().name[..3].copy_from_slice(b"pax");
        self.put(&mut header, &text);
        self
    }

    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

pub(super) fn layer(name: &str, bytes: Vec<u8>, diff_id: Option<Digest>) -> Layer {
    let len = bytes.len() as u64;
    let bytes: Arc<[u8]> = bytes.into();
    Layer::new(name.to_owned(), len, diff_id, move || Ok(Box::new(Cursor::new(Arc::clone(&bytes)))))
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gz.write_all(bytes).unwrap();
    gz.finish().unwrap()
}

pub(super) fn build(
    layers: &[Layer],
    limits: &ImageLimits,
    into: &Path,
) -> Result<Built, ImportError> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(into);
    let mut builder = Builder::new(file.unwrap());
    let mut watch = Watch::new(Arc::new(|_| {}), CancellationToken::new());
    merge(layers, limits, &mut builder, &mut watch)?;
    Ok(builder.finish()?)
}

/// Plain archives into an image that e2fsck finds sound.
pub(super) fn image(archives: &[Vec<u8>]) -> (tempfile::NamedTempFile, Built) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let layers: Vec<_> = archives.iter().map(|bytes| layer("one", bytes.clone(), None)).collect();
    let built = build(&layers, &ImageLimits::default(), file.path()).unwrap();
    run("/sbin/e2fsck", &["-fn", file.path().to_str().unwrap()]);
    (file, built)
}

pub(super) fn refusal(archives: &[Vec<u8>], limits: &ImageLimits) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let named = |(at, bytes): (usize, &Vec<u8>)| layer(&format!("L{at}"), bytes.clone(), None);
    let layers: Vec<_> = archives.iter().enumerate().map(named).collect();
    let error = build(&layers, limits, file.path()).unwrap_err().on("import", "it");
    chain(&error)
}

pub(super) fn debugfs(image: &Path, request: &str) -> String {
    run("/sbin/debugfs", &["-R", request, image.to_str().unwrap()])
}
