//! Debian packages: an `ar` archive of two packed tars.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::super::tarball::Tarball;
use super::super::unpack::{UnpackError, unpack};

#[derive(Debug, thiserror::Error)]
pub(super) enum DebError {
    #[error("it is no Debian package")]
    NotDeb,
    #[error("it is cut short")]
    CutShort,
    #[error("read")]
    Read(#[from] io::Error),
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    #[error(transparent)]
    Tar(#[from] super::super::tarball::TarError),
}

/// A member of the package, found by the start of its name.
fn member(file: &mut File, wanted: &str) -> Result<impl Read + Send + 'static, DebError> {
    const MAGIC: &[u8] = b"!<arch>\n";
    file.seek(SeekFrom::Start(0))?;
    let mut magic = [0; 8];
    if file.read_exact(&mut magic).is_err() || magic != MAGIC {
        return Err(DebError::NotDeb);
    }
    let whole = file.metadata()?.len();
    loop {
        let mut header = [0; 60];
        match file.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(DebError::CutShort);
            }
            Err(error) => return Err(error.into()),
        }
        let text =
            |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).into_owned();
        let len: u64 = text(48..58).trim().parse().map_err(|_| DebError::NotDeb)?;
        let at = file.stream_position()?;
        if at.saturating_add(len) > whole {
            return Err(DebError::CutShort);
        }
        if text(0..16).starts_with(wanted) {
            return Ok(file.try_clone()?.take(len));
        }
        let next = i64::try_from(len.next_multiple_of(2)).map_err(|_| DebError::NotDeb)?;
        file.seek(SeekFrom::Current(next))?;
    }
}

/// The files of the package.
pub(super) fn data(file: &mut File) -> Result<Tarball<Box<dyn Read + Send>>, DebError> {
    let packed = member(file, "data.tar")?;
    Ok(Tarball::new(unpack(BufReader::with_capacity(1 << 16, packed))?.from))
}

/// The text of the control file: `Package: ...`, `Depends: ...`.
pub(super) fn control(file: &mut File) -> Result<String, DebError> {
    let packed = member(file, "control.tar")?;
    let mut tar = Tarball::new(unpack(BufReader::new(packed))?.from);
    while let Some(entry) = tar.next()? {
        if entry.path.strip_prefix(b"./").unwrap_or(&entry.path) == b"control" {
            let mut text = Vec::new();
            tar.contents().take(1 << 20).read_to_end(&mut text)?;
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
    }
    Err(DebError::NotDeb)
}

/// A field's value.
pub(in crate::host::image) fn field<'a>(control: &'a str, name: &str) -> Option<&'a str> {
    control.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

#[cfg(test)]
pub(in crate::host::image) mod tests {
    use std::io::Write;

    use super::*;

    /// A package of these files, for tests.
    pub(in crate::host::image) fn package(control: &str, files: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let tar = |files: &[(&str, Vec<u8>)]| {
            let mut tar = tar::Builder::new(Vec::new());
            for (name, bytes) in files {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                tar.append_data(&mut header, format!("./{name}"), &bytes[..]).unwrap();
            }
            zstd::encode_all(&tar.into_inner().unwrap()[..], 1).unwrap()
        };
        let mut deb = b"!<arch>\n".to_vec();
        for (name, bytes) in [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar.zst", tar(&[("control", control.as_bytes().to_vec())])),
            ("data.tar.zst", tar(files)),
        ] {
            writeln!(deb, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 644, bytes.len())
                .unwrap();
            deb.extend(&bytes);
            if bytes.len() % 2 == 1 {
                deb.push(b'\n');
            }
        }
        deb
    }

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn control_and_data_are_found() {
        let deb = package("Package: k\nDepends: a, b (= 1)\n", &[("boot/x", b"y".to_vec())]);
        let mut file = file(&deb);
        let control = control(&mut file).unwrap();
        assert_eq!(field(&control, "Depends"), Some("a, b (= 1)"));
        assert_eq!(field(&control, "Dep"), None);
        let mut tar = data(&mut file).unwrap();
        assert_eq!(tar.next().unwrap().unwrap().path, b"boot/x");
    }

    #[test]
    fn what_is_no_package_is_refused() {
        assert!(matches!(control(&mut file(b"hello")), Err(DebError::NotDeb)));
        let deb = package("Package: k\n", &[]);
        assert!(matches!(data(&mut file(&deb[..100])), Err(DebError::CutShort)));
    }
}
