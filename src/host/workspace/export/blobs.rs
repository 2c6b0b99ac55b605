//! The guest's files as git's objects, with the filters and line ends of the host. A filter is a command
//! of the host's, and attributes say which file goes through which: they are those of the commit that
//! the host has on record, and nothing that is called so in the guest's tree is where git would look.
//!
//! ```text
//! an index of the record's .gitattributes, and the guest's files added     filtered
//! hash-object of the guest's .gitattributes and whatever lies below one    as they are
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use banger_agent::contract::workspace::Kind;

use super::{Got, Work};
use crate::host::workspace::error::{Context as _, Result};
use crate::host::workspace::git::{Git, joined, names};

const ATTRIBUTES: &[u8] = b".gitattributes";
/// Modes and links are the guest's, which has them.
const AS_IS: [&str; 4] = ["-c", "core.fileMode=true", "-c", "core.symlinks=true"];

/// `100644 <object>`, by path.
pub(super) type Blobs = BTreeMap<Vec<u8>, Vec<u8>>;

impl Work {
    /// Of those of the paths where the guest has something.
    pub(super) fn blobs(&self, paths: &BTreeSet<&[u8]>) -> Result<Blobs> {
        let there = self.contents.iter().filter(|(path, _)| paths.contains(path.as_slice()));
        let (own, rest): (Vec<_>, Vec<_>) = there.partition(|(path, _)| is_attributes(path));
        let mut blobs = self.filtered(&rest)?;
        blobs.extend(self.as_they_are(&own)?);
        Ok(blobs)
    }

    /// With an index and a tree in which git finds the attributes on record and no others.
    pub(super) fn attributed(&self) -> Git {
        self.git().with("GIT_INDEX_FILE", self.dir.path().join("attributes"))
    }

    fn filtered(&self, files: &[(&Vec<u8>, &Got)]) -> Result<Blobs> {
        let git = self.attributed();
        let listed = git.run(&["ls-tree", "-r", "-z", &self.recorded])?;
        let attributes = names(&listed).filter(|entry| {
            let path = entry.splitn(2, |byte| *byte == b'\t').nth(1).unwrap_or_default();
            entry.starts_with(b"100")
                && path.rsplit(|byte| *byte == b'/').next() == Some(ATTRIBUTES)
        });
        git.feed(&["update-index", "-z", "--index-info"], &joined(attributes))?;
        let tree = self.dir.path().join("tree");
        fs::create_dir_all(&tree).context(|| format!("make {}", tree.display()))?;
        lay_out(&tree, files)?;
        let args = ["update-index", "-z", "--add", "--replace", "--stdin"];
        let paths = joined(files.iter().map(|(path, _)| path.as_slice()));
        git.feed(&[AS_IS.as_slice(), &args].concat(), &paths)?;
        let staged = git.run(&["ls-files", "-s", "-z"])?;
        // `100644 <object> 0\t<path>`
        let blobs = names(&staged).filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'\t')?;
            let blob = entry.get(..at)?.strip_suffix(b" 0")?;
            Some((entry.get(at + 1..)?.to_vec(), blob.to_vec()))
        });
        // The attributes of the record are among them.
        Ok(blobs.filter(|(path, _)| !is_attributes(path)).collect())
    }

    fn as_they_are(&self, files: &[(&Vec<u8>, &Got)]) -> Result<Blobs> {
        if files.is_empty() {
            return Ok(Blobs::new());
        }
        let list = files.iter().fold(vec![], |mut all, (_, got)| {
            all.extend_from_slice(got.file.as_os_str().as_bytes());
            all.push(b'\n');
            all
        });
        let args = ["hash-object", "-w", "--no-filters", "--stdin-paths"];
        let hashes = self.attributed().feed(&args, &list)?;
        let blobs = files.iter().zip(hashes.split(|byte| *byte == b'\n'));
        Ok(blobs
            .map(|((path, got), hash)| {
                let mode: &[u8] = match got.kind {
                    Kind::Link => b"120000 ",
                    _ if got.mode & 0o111 != 0 => b"100755 ",
                    _ => b"100644 ",
                };
                ((*path).clone(), [mode, hash].concat())
            })
            .collect())
    }
}

/// Or below something of that name. In whatever case: git is told by its configuration which count.
fn is_attributes(path: &[u8]) -> bool {
    path.split(|byte| *byte == b'/').any(|name| name.eq_ignore_ascii_case(ATTRIBUTES))
}

/// Files before links: while files are made there is no link that could lead elsewhere.
fn lay_out(tree: &Path, files: &[(&Vec<u8>, &Got)]) -> Result<()> {
    for kind in [Kind::File, Kind::Link] {
        for (path, got) in files.iter().filter(|(_, got)| got.kind == kind) {
            let to = tree.join(OsStr::from_bytes(path));
            let what = || format!("lay out {}", to.display());
            fs::create_dir_all(to.parent().unwrap_or(tree)).context(what)?;
            if kind == Kind::Link {
                let target = OsString::from_vec(fs::read(&got.file).context(what)?);
                symlink(target, &to).context(what)?;
                continue;
            }
            fs::copy(&got.file, &to).context(what)?;
            let mode = if got.mode & 0o111 == 0 { 0o644 } else { 0o755 };
            fs::set_permissions(&to, fs::Permissions::from_mode(mode)).context(what)?;
        }
    }
    Ok(())
}
