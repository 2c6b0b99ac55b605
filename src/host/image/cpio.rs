//! Archives for initramfs: cpio in the "newc" form. Several may follow one another in one file.

use std::io::{self, Write};

/// The end of each archive is filled up to this.
const ALIGN: usize = 512;

#[derive(Debug)]
pub(super) struct Cpio<W> {
    to: W,
    written: usize,
    inode: u32,
}

impl<W: Write> Cpio<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, written: 0, inode: 0 }
    }

    pub(super) fn dir(&mut self, name: &str) -> io::Result<()> {
        self.entry(name, 0o040_755, (0, 0), &[])
    }

    pub(super) fn file(&mut self, name: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        self.entry(name, 0o100_000 | mode, (0, 0), contents)
    }

    pub(super) fn char_device(&mut self, name: &str, device: (u32, u32)) -> io::Result<()> {
        self.entry(name, 0o020_600, device, &[])
    }

    fn entry(&mut self, name: &str, mode: u32, dev: (u32, u32), data: &[u8]) -> io::Result<()> {
        self.inode += 1;
        let number = self.inode;
        self.record(number, name, mode, dev, data)
    }

    fn record(
        &mut self,
        inode: u32,
        name: &str,
        mode: u32,
        (major, minor): (u32, u32),
        data: &[u8],
    ) -> io::Result<()> {
        let len = u32::try_from(data.len()).map_err(io::Error::other)?;
        // Owner and time are zero: the same files give the same bytes.
        let header = format!(
            "070701{inode:08x}{mode:08x}{:08x}{:08x}{:08x}{:08x}{len:08x}{:08x}{:08x}{major:08x}\
             {minor:08x}{:08x}{:08x}{name}\0",
            0,
            0,
            1,
            0,
            0,
            0,
            name.len() + 1,
            0
        );
        self.padded(header.as_bytes(), 4)?;
        self.padded(data, 4)
    }

    fn padded(&mut self, bytes: &[u8], align: usize) -> io::Result<()> {
        self.to.write_all(bytes)?;
        self.written += bytes.len();
        let end = self.written.next_multiple_of(align);
        self.to.write_all(&[0; ALIGN][..end - self.written])?;
        self.written = end;
        Ok(())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.record(0, "TRAILER!!!", 0, (0, 0), &[])?;
        self.padded(&[], ALIGN)?;
        Ok(self.to)
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "tests ask cpio")]
    fn cpio_lists_what_was_put_in() {
        let mut cpio = Cpio::new(Vec::new());
        cpio.dir("dev").unwrap();
        cpio.char_device("dev/console", (5, 1)).unwrap();
        cpio.file("init", 0o755, b"#!").unwrap();
        let bytes = cpio.finish().unwrap();
        assert_eq!(bytes.len() % ALIGN, 0);
        let Ok(mut child) = Command::new("cpio")
            .args(["-tv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
        else {
            return; // no cpio here
        };
        child.stdin.take().unwrap().write_all(&bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = listing.lines().collect();
        assert_eq!(lines.len(), 3, "{listing}");
        assert!(lines[0].starts_with("drwxr-xr-x"));
        assert!(lines[1].starts_with("crw-------") && lines[1].contains("5,   1"));
        assert!(lines[2].starts_with("-rwxr-xr-x"));
    }
}
