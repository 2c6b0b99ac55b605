//! A file system of what one directory of another has, taken while that one is being made: its names
//! are in memory then and its contents already in the file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;

use super::blocks::Run;
use super::builder::{BuildError, Builder};
use super::layout::{BLOCK_LEN, data_at, group_end};
use super::tree::Kind;

impl Builder {
    /// Whether there is a directory of this name with something in it.
    pub(in crate::host::image) fn has_in(&self, dir: &str) -> bool {
        let node = self.tree.find(dir);
        node.is_some_and(
            |node| matches!(&node.kind, Kind::Dir { children, .. } if !children.is_empty()),
        )
    }

    /// All that is below `dir` becomes a file system of its own in `file`, which is new and empty.
    pub(in crate::host::image) fn seed(
        &mut self,
        dir: &str,
        file: File,
    ) -> Result<Self, BuildError> {
        let from = self.blocks.written().map_err(BuildError::Tables)?;
        let mut seed = Self::new(file);
        // First names of files that have several.
        let mut links: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        let mut left: Vec<(u32, Vec<u8>)> = vec![];
        if let Some(top) = self.tree.find(dir) {
            seed.directory(b"/", top.meta.clone())?;
            push_children(&top.kind, b"", &mut left);
        }
        while let Some((index, path)) = left.pop() {
            let node = self.tree.node(index);
            if node.links > 1 {
                if let Some(first) = links.get(&index) {
                    seed.hard_link(&path, first)?;
                    continue;
                }
                links.insert(index, path.clone());
            }
            let meta = node.meta.clone();
            match &node.kind {
                Kind::Dir { .. } => {
                    seed.directory(&path, meta)?;
                    push_children(&node.kind, &path, &mut left);
                }
                Kind::File { len, data } => {
                    seed.file(&path, meta, &mut Contents::new(from, *data, *len), *len)?;
                }
                Kind::Symlink { target, .. } => seed.symlink(&path, meta, target)?,
                Kind::Special(special) => seed.special(&path, meta, *special)?,
            }
        }
        Ok(seed)
    }
}

/// The last name first, for what is left is taken from the end.
fn push_children(dir: &Kind, path: &[u8], left: &mut Vec<(u32, Vec<u8>)>) {
    let Kind::Dir { children, .. } = dir else { return };
    for (name, entry) in children.iter().rev() {
        let path = if path.is_empty() { name.clone() } else { [path, b"/", name].concat() };
        left.push((entry.node, path));
    }
}

/// The bytes of a run, past the heads of groups in it.
struct Contents<'a> {
    from: &'a File,
    block: u32,
    /// Within the block.
    at: u64,
    left: u64,
}

impl<'a> Contents<'a> {
    fn new(from: &'a File, run: Run, len: u64) -> Self {
        Self { from, block: data_at(run.start), at: 0, left: len }
    }
}

impl Read for Contents<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let in_group = u64::from(group_end(self.block) - self.block) * BLOCK_LEN - self.at;
        let want = self.left.min(in_group).min(into.len() as u64);
        let into = &mut into[..usize::try_from(want).unwrap_or(usize::MAX)];
        let offset = u64::from(self.block) * BLOCK_LEN + self.at;
        let read = match self.from.read_at(into, offset)? {
            // Zeros at the end of the file were left out of it.
            0 => {
                into.fill(0);
                into.len()
            }
            read => read,
        };
        let at = self.at + read as u64;
        let blocks = u32::try_from(at / BLOCK_LEN).map_err(io::Error::other)?;
        (self.block, self.at) = (data_at(self.block + blocks), at % BLOCK_LEN);
        self.left -= read as u64;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::process::Command;

    use super::super::layout::{BLOCK, PER_GROUP};
    use super::super::{Meta, Special};
    use super::*;

    fn meta(mode: u16, uid: u32) -> Meta {
        Meta { mode, uid, gid: uid, mtime: 1_700_000_000, ..Meta::default() }
    }

    fn new(path: &Path) -> File {
        File::options().read(true).write(true).create_new(true).open(path).unwrap()
    }

    #[allow(clippy::disallowed_methods, reason = "tests ask e2fsprogs")]
    fn run(program: &str, args: &[&str], path: &Path) -> Vec<u8> {
        let output = Command::new(program).args(args).arg(path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        output.stdout
    }

    #[test]
    fn a_directory_becomes_a_file_system_with_all_that_is_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut image = Builder::new(new(&dir.path().join("image")));
        let put = |image: &mut Builder, path: &str, meta, bytes: &[u8]| {
            image.file(path.as_bytes(), meta, &mut &bytes[..], bytes.len() as u64).unwrap();
        };
        // So much that the contents go past the head of a group.
        let large: Vec<u8> = (0..(PER_GROUP as usize + 5) * BLOCK)
            .map(|n| u8::try_from(n / 4099 % 256).unwrap())
            .collect();
        image.directory(b"root", meta(0o700, 0)).unwrap();
        put(&mut image, "etc/passwd", meta(0o644, 0), b"root");
        put(&mut image, "root/.bashrc", meta(0o640, 0), b"PS1=");
        put(&mut image, "root/src/large", meta(0o600, 1000), &large);
        put(&mut image, "root/zeros", meta(0o600, 0), &[0; 9000]);
        image.hard_link(b"root/src/again", b"root/.bashrc").unwrap();
        image.hard_link(b"outside", b"root/zeros").unwrap();
        image.symlink(b"root/link", meta(0o777, 0), b"src/large").unwrap();
        image.special(b"root/pipe", meta(0o622, 0), Special::Fifo).unwrap();
        assert!(image.has_in("root") && !image.has_in("srv") && !image.has_in("etc/passwd"));
        let path = dir.path().join("seed");
        let built = image.seed("root", new(&path)).unwrap().finish().unwrap();
        let whole = image.finish().unwrap();
        assert_ne!(whole.uuid, built.uuid, "disks of one guest are told by their UUIDs");
        run("/sbin/e2fsck", &["-fn"], &dir.path().join("image"));
        run("/sbin/e2fsck", &["-fn"], &path);
        let debugfs = |request: &str| run("/sbin/debugfs", &["-R", request], &path);
        let stat = |path: &str| String::from_utf8(debugfs(&format!("stat {path}"))).unwrap();
        assert!(debugfs("cat src/large") == large);
        assert_eq!(debugfs("cat .bashrc"), b"PS1=");
        assert_eq!(debugfs("cat src/again"), b"PS1=");
        assert_eq!(debugfs("cat zeros"), [0; 9000]);
        assert!(stat("src/large").contains("Mode:  0600") && stat("src/large").contains("1000"));
        assert!(stat(".bashrc").contains("Links: 2") && stat("zeros").contains("Links: 1"));
        assert!(stat("/").contains("Mode:  0700"));
        assert!(stat("link").contains("src/large") && stat("pipe").contains("FIFO"));
        assert!(String::from_utf8(debugfs("ls -p /")).unwrap().matches("/..").count() == 1);
        assert!(stat("passwd").is_empty(), "what is beside the directory came too");
    }

    #[test]
    fn an_image_is_the_same_whether_a_seed_was_taken_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let built = ["with", "without"].map(|name| {
            let mut image = Builder::new(new(&dir.path().join(name)));
            image.file(b"root/a", meta(0o644, 0), &mut &b"abc"[..], 3).unwrap();
            if name == "with" {
                image.seed("root", new(&dir.path().join("seed"))).unwrap().finish().unwrap();
            }
            image.finish().unwrap()
        });
        assert_eq!(built[0], built[1]);
    }
}
