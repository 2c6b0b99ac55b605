//! A file system out of several layers, one over the other: what each entry does to what lies below.
//!
//! ```text
//! layer: place_*, whiteout, opaque -> names, owners, links of the result   (once per layer)
//! settle                           -> what was removed is gone, numbers are final
//! fill                             -> contents of the files that are left
//! ```
//!
//! A whiteout removes what lower layers put there and nothing of its own layer, whichever of the two
//! comes first in the archive. An entry replaces what has its name; only directories merge. Names
//! may lead through symbolic links of the image itself, never out of it. What must not be done here:
//! hold contents; a file is a length until it is filled.

use std::borrow::Cow;
use std::io::Read;

use super::blocks::Run;
use super::builder::{BuildError, Builder, check, check_link, check_special, refused, shown};
use super::inode;
use super::tree::{Kind, Meta, ROOT, Refusal, Special, Tree, Vacancy, components, plain_dir};

/// As the kernel has it.
const MAX_HOPS: usize = 40;
/// What a tree may take besides its nodes.
const MAX_TEXT: usize = 64 << 20;
const GONE: u32 = u32::MAX;

/// A file that waits for its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host::image) struct FileId(u32);

impl Builder {
    /// An image of at most so many entries.
    pub(in crate::host::image) fn limit_entries(&mut self, most: usize) {
        self.tree.max_nodes = self.tree.max_nodes.min(most);
    }

    /// What comes now lies over what there is.
    pub(in crate::host::image) fn next_layer(&mut self) {
        self.tree.layer = self.tree.layer.saturating_add(1);
    }

    pub(in crate::host::image) fn place_directory(
        &mut self,
        path: &[u8],
        meta: Meta,
    ) -> Result<(), BuildError> {
        let placed = check(&meta).and_then(|()| self.tree.place_directory(path, meta));
        placed.map_err(|why| refused(path, why))
    }

    /// A file of `len` bytes, which [`Self::fill`] brings.
    pub(in crate::host::image) fn place_file(
        &mut self,
        path: &[u8],
        meta: Meta,
        len: u64,
    ) -> Result<FileId, BuildError> {
        if len > inode::MAX_FILE {
            return Err(refused(path, Refusal::FileTooLarge));
        }
        self.place(path, meta, Kind::File { len, data: Run::NONE }).map(FileId)
    }

    pub(in crate::host::image) fn place_symlink(
        &mut self,
        path: &[u8],
        meta: Meta,
        target: &[u8],
    ) -> Result<(), BuildError> {
        check_link(target).map_err(|why| refused(path, why))?;
        let kind = Kind::Symlink { target: target.to_vec(), data: Run::NONE };
        self.place(path, Meta { mode: 0o777, ..meta }, kind).map(drop)
    }

    pub(in crate::host::image) fn place_special(
        &mut self,
        path: &[u8],
        meta: Meta,
        special: Special,
    ) -> Result<(), BuildError> {
        check_special(special).map_err(|why| refused(path, why))?;
        self.place(path, meta, Kind::Special(special)).map(drop)
    }

    /// To a file of this layer that came before, or of one below.
    pub(in crate::host::image) fn place_hard_link(
        &mut self,
        path: &[u8],
        target: &[u8],
    ) -> Result<(), BuildError> {
        self.tree.place_hard_link(path, target).map_err(|why| refused(path, why))
    }

    /// Removes what lower layers have under this name.
    pub(in crate::host::image) fn whiteout(&mut self, path: &[u8]) -> Result<(), Refusal> {
        self.tree.whiteout(path)
    }

    /// Removes what lower layers have in this directory.
    pub(in crate::host::image) fn opaque(&mut self, dir: &[u8]) -> Result<(), Refusal> {
        self.tree.opaque(dir)
    }

    /// After the last layer: forgets what was removed. Of each file, in their order, tells whether it
    /// is still there, and its name from now on.
    pub(in crate::host::image) fn settle(
        &mut self,
        files: impl IntoIterator<Item = FileId>,
    ) -> Result<Vec<Option<FileId>>, BuildError> {
        let now = self.tree.compact();
        for node in &mut self.tree.nodes {
            if let Kind::Symlink { target, data } = &mut node.kind
                && target.len() >= inode::FAST_LINK
            {
                *data = self.blocks.append(target).map_err(BuildError::Tables)?;
            }
        }
        let there = |FileId(node): FileId| Some(now[node as usize]).filter(|now| *now != GONE);
        Ok(files.into_iter().map(|file| there(file).map(FileId)).collect())
    }

    /// Reads the contents of a file; `path` is for errors.
    pub(in crate::host::image) fn fill(
        &mut self,
        FileId(node): FileId,
        path: &[u8],
        contents: &mut dyn Read,
    ) -> Result<(), BuildError> {
        if let Kind::File { len, data } = &mut self.tree.nodes[node as usize].kind {
            let copied = self.blocks.append_from(contents, *len);
            *data = copied.map_err(|source| BuildError::Copy { entry: shown(path), source })?;
        }
        Ok(())
    }

    fn place(&mut self, path: &[u8], meta: Meta, kind: Kind) -> Result<u32, BuildError> {
        let placed = check(&meta).and_then(|()| {
            let at = self.tree.clear(path)?;
            let link = if let Kind::Symlink { target, .. } = &kind { target.len() } else { 0 };
            self.tree.account(at.name.len() + link + text_of(&meta))?;
            Ok(self.tree.put(at, kind, meta))
        });
        placed.map_err(|why| refused(path, why))
    }
}

impl Tree {
    /// Merges with a directory that is there, and replaces anything else.
    fn place_directory(&mut self, path: &[u8], meta: Meta) -> Result<(), Refusal> {
        let parts = relative(path)?;
        let Some((last, parents)) = parts.split_last() else {
            self.account(text_of(&meta))?;
            self.nodes[0].meta = meta;
            return Ok(());
        };
        let parent = self.resolve_or_make(parents)?;
        self.account(last.len() + text_of(&meta))?;
        match self.child(parent, last) {
            Some(there) if matches!(self.node(there).kind, Kind::Dir { .. }) => {
                self.nodes[there as usize].meta = meta;
                self.name(parent, last.to_vec(), there); // by this layer
                Ok(())
            }
            _ => {
                self.unname(parent, last);
                self.make_dir(parent, last, meta).map(drop)
            }
        }
    }

    fn place_hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Refusal> {
        let shown = || String::from_utf8_lossy(target).into_owned();
        let target = components(target).map_err(|refusal| match refusal {
            Refusal::DotDot => Refusal::LinkEscapes(shown()),
            other => other,
        })?;
        let Some((last, parents)) = target.split_last() else {
            return Err(Refusal::LinkToDir(shown()));
        };
        let dir = self.resolve(parents, false)?;
        let node = dir.and_then(|dir| self.child(dir, last));
        let node = node.ok_or_else(|| Refusal::LinkMissing(shown()))?;
        if matches!(self.node(node).kind, Kind::Dir { .. }) {
            return Err(Refusal::LinkToDir(shown()));
        }
        let parts = relative(path)?;
        let Some((name, parents)) = parts.split_last() else { return Err(Refusal::Root) };
        let parent = self.resolve_or_make(parents)?;
        if self.child(parent, name) == Some(node) {
            // It has this name already; by this layer, from now on.
            self.name(parent, name.to_vec(), node);
            return Ok(());
        }
        self.account(name.len())?;
        // What the new name replaces may hold the last name that the target has.
        self.nodes[node as usize].links += 1;
        self.unname(parent, name);
        self.nodes[node as usize].links -= 1;
        let linked = self.link(Vacancy { parent, name: name.to_vec() }, node);
        linked.map_err(|why| why.unwrap_or_else(|| Refusal::LinkToDir(shown())))
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), Refusal> {
        let parts = relative(path)?;
        let Some((last, parents)) = parts.split_last() else { return Err(Refusal::Whiteout) };
        let Some(parent) = self.resolve(parents, false)? else { return Ok(()) };
        self.lower_gone(parent, last);
        Ok(())
    }

    fn opaque(&mut self, dir: &[u8]) -> Result<(), Refusal> {
        let parts = relative(dir)?;
        if let Some(dir) = self.resolve(&parts, false)? {
            self.strip(dir);
        }
        Ok(())
    }

    /// Removes what lower layers have in a directory; tells whether there is anything of this one.
    fn strip(&mut self, dir: u32) -> bool {
        let Kind::Dir { children, .. } = &self.node(dir).kind else { return false };
        let names: Vec<Vec<u8>> = children.keys().cloned().collect();
        let mut any = false;
        for name in &names {
            any |= self.lower_gone(dir, name);
        }
        any
    }

    /// Removes what lower layers have under a name; tells whether there is anything of this one.
    fn lower_gone(&mut self, parent: u32, name: &[u8]) -> bool {
        let Kind::Dir { children, .. } = &self.node(parent).kind else { return false };
        let Some(there) = children.get(name).copied() else { return false };
        let ours = there.layer == self.layer;
        if matches!(self.node(there.node).kind, Kind::Dir { .. }) && self.strip(there.node) && !ours
        {
            // The directory itself is gone, and this layer made it anew without saying how.
            self.nodes[there.node as usize].meta = plain_dir();
            self.name(parent, name.to_vec(), there.node);
            return true;
        }
        if !ours {
            self.unname(parent, name);
        }
        ours
    }

    /// Where an entry goes: parents made, links of the image followed, what has the name removed.
    fn clear(&mut self, path: &[u8]) -> Result<Vacancy, Refusal> {
        let parts = relative(path)?;
        let Some((name, parents)) = parts.split_last() else { return Err(Refusal::Root) };
        let parent = self.resolve_or_make(parents)?;
        self.unname(parent, name);
        self.room_for_one()?;
        Ok(Vacancy { parent, name: name.to_vec() })
    }

    fn resolve_or_make(&mut self, parts: &[&[u8]]) -> Result<u32, Refusal> {
        Ok(self.resolve(parts, true)?.unwrap_or(ROOT))
    }

    /// The directory of this name. Symbolic links on the way are followed as long as they stay in the
    /// image; `None` if something is missing and not to be made.
    fn resolve(&mut self, parts: &[&[u8]], make: bool) -> Result<Option<u32>, Refusal> {
        let mut left: Vec<Cow<'_, [u8]>> = parts.iter().rev().map(|part| (*part).into()).collect();
        let (mut dir, mut hops) = (ROOT, 0);
        let mut link = Vec::new();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        while let Some(part) = left.pop() {
            match &*part {
                b"" | b"." => continue,
                // Only links have these.
                b".." if dir == ROOT => return Err(Refusal::LinkLeadsOut(text(&link))),
                b".." => {
                    if let Kind::Dir { parent, .. } = self.node(dir).kind {
                        dir = parent;
                    }
                    continue;
                }
                _ => {}
            }
            let Some(there) = self.child(dir, &part) else {
                if !make {
                    return Ok(None);
                }
                self.account(part.len())?;
                dir = self.make_dir(dir, &part, plain_dir())?;
                continue;
            };
            match &self.node(there).kind {
                Kind::Dir { .. } => dir = there,
                Kind::Symlink { target, .. } => {
                    hops += 1;
                    if hops > MAX_HOPS {
                        return Err(Refusal::LinkLoop);
                    }
                    link = part.into_owned();
                    if target.starts_with(b"/") {
                        return Err(Refusal::LinkLeadsOut(text(&link)));
                    }
                    let target = target.split(|byte| *byte == b'/').rev();
                    left.extend(target.map(|part| Cow::Owned(part.to_vec())));
                }
                _ if !make => return Ok(None),
                _ => return Err(Refusal::ThroughFile(text(&part))),
            }
        }
        Ok(Some(dir))
    }

    /// Takes a name away, with all that is below it.
    fn unname(&mut self, parent: u32, name: &[u8]) {
        let Some(gone) = self.child(parent, name) else { return };
        let is_dir = matches!(self.node(gone).kind, Kind::Dir { .. });
        if let Kind::Dir { children, subdirs, .. } = &mut self.nodes[parent as usize].kind {
            children.remove(name);
            *subdirs -= u32::from(is_dir);
        }
        let mut left = vec![gone];
        while let Some(index) = left.pop() {
            let node = &mut self.nodes[index as usize];
            node.links -= 1;
            if let Kind::Dir { children, .. } = &mut node.kind {
                left.extend(std::mem::take(children).into_values().map(|entry| entry.node));
            }
        }
    }

    fn account(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.text += bytes;
        if self.text > MAX_TEXT { Err(Refusal::NamesTooLarge) } else { Ok(()) }
    }

    /// Closes the gaps that removed nodes left; answers where each node is now.
    fn compact(&mut self) -> Vec<u32> {
        let mut now = Vec::with_capacity(self.nodes.len());
        let mut next = 0;
        for node in &self.nodes {
            now.push(if node.links > 0 { next } else { GONE });
            next += u32::from(node.links > 0);
        }
        self.nodes.retain(|node| node.links > 0);
        for node in &mut self.nodes {
            if let Kind::Dir { children, parent, .. } = &mut node.kind {
                *parent = now[*parent as usize];
                children.values_mut().for_each(|entry| entry.node = now[entry.node as usize]);
            }
        }
        now
    }
}

fn text_of(meta: &Meta) -> usize {
    meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
}

/// As [`components`], but only the root itself may be said with a leading `/`.
fn relative(path: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    let parts = components(path)?;
    if path.starts_with(b"/") && !parts.is_empty() { Err(Refusal::Absolute) } else { Ok(parts) }
}

#[cfg(test)]
#[path = "layers_tests.rs"]
mod tests;
