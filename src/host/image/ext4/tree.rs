//! Names, owners and links of the file system being made. Pure: what an archive may not say is
//! refused here, whatever kind of archive it is.
//!
//! A name is looked up component by component in this tree, never on the host; `..` and names
//! that lead through a symbolic link are refused, so there is nothing to resolve.

use std::collections::BTreeMap;

use super::blocks::Run;

/// Owner, permissions and so on of one inode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::host::image) struct Meta {
    /// Permission bits with setuid, setgid and sticky.
    pub(in crate::host::image) mode: u16,
    pub(in crate::host::image) uid: u32,
    pub(in crate::host::image) gid: u32,
    pub(in crate::host::image) mtime: i64,
    pub(in crate::host::image) mtime_nsec: u32,
    /// Full names, `security.capability`.
    pub(in crate::host::image) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::host::image) enum Special {
    Char { major: u32, minor: u32 },
    Block { major: u32, minor: u32 },
    Fifo,
    Socket,
}

#[derive(Debug)]
pub(super) enum Kind {
    File { len: u64, data: Run },
    Dir { children: BTreeMap<Vec<u8>, Dirent>, parent: u32, subdirs: u32, data: Run },
    Symlink { target: Vec<u8>, data: Run },
    Special(Special),
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) meta: Meta,
    /// Names of anything but a directory, which has one. None: it has been removed.
    pub(super) links: u32,
}

/// What a name stands for, and the layer that put it there: one of several that make an image, the
/// first of which is what every other kind of archive is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dirent {
    pub(super) node: u32,
    pub(super) layer: u16,
}

/// Why an entry is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::host::image) enum Refusal {
    #[error("its name has a `..` in it")]
    DotDot,
    #[error("it has no name")]
    NoName,
    #[error("a part of its name is longer than 255 bytes")]
    NameTooLong,
    #[error("its name is longer than 4096 bytes")]
    PathTooLong,
    #[error("its name has a zero byte in it")]
    ZeroByte,
    #[error("its name leads through {0:?}, which is a symbolic link")]
    ThroughLink(String),
    #[error("its name leads through {0:?}, which is not a directory")]
    ThroughFile(String),
    #[error("it is there twice")]
    Duplicate,
    #[error("it is the root, which can only be a directory")]
    Root,
    #[error("it is a hard link to {0:?}, which does not come before it")]
    LinkMissing(String),
    #[error("it is a hard link to {0:?}, which is a directory")]
    LinkToDir(String),
    #[error("it is a hard link to {0:?}, which leads out of the archive")]
    LinkEscapes(String),
    #[error("its symbolic link is empty or longer than 4095 bytes")]
    LinkLength,
    #[error("its {0} is out of range")]
    OutOfRange(&'static str),
    #[error("it has more than 65000 directories or links")]
    TooManyLinks,
    #[error("it is larger than 160 GiB")]
    FileTooLarge,
    #[error("with it there are more than {0} entries")]
    TooMany(usize),
    #[error("its extended attribute {0:?} cannot be kept")]
    Xattr(String),
    #[error("its extended attributes take more than 4 KiB")]
    XattrsTooLarge,
    #[error("its name begins with `/`")]
    Absolute,
    #[error("its name leads through {0:?}, a symbolic link that leads out of the image")]
    LinkLeadsOut(String),
    #[error("its name leads through more than 40 symbolic links")]
    LinkLoop,
    #[error("it lies in more than 1024 directories")]
    TooDeep,
    #[error("with it names, links and attributes take more than 64 MiB")]
    NamesTooLarge,
    #[error("it removes something that has no name")]
    Whiteout,
}

const MAX_LINKS: u32 = 65_000;
const MAX_NODES: usize = 4_000_000;
const MAX_DEPTH: usize = 1024;
pub(super) const ROOT: u32 = 0;

#[derive(Debug)]
pub(super) struct Tree {
    /// The first is the root.
    pub(super) nodes: Vec<Node>,
    pub(super) max_nodes: usize,
    /// Whose entries are coming.
    pub(super) layer: u16,
    /// Bytes of names, links and attributes so far, those removed since included.
    pub(super) text: usize,
}

/// Where a new name goes; proof that it may be put there.
#[derive(Debug)]
pub(super) struct Vacancy {
    pub(super) parent: u32,
    pub(super) name: Vec<u8>,
}

impl Tree {
    pub(super) fn new() -> Self {
        let mut tree = Self { nodes: vec![], max_nodes: MAX_NODES, layer: 0, text: 0 };
        tree.nodes.push(Node { kind: empty_dir(ROOT), meta: plain_dir(), links: 1 });
        tree
    }

    /// Finds where `path` would go, making missing parents. Something there already is refused.
    pub(super) fn vacancy(&mut self, path: &[u8]) -> Result<Vacancy, Refusal> {
        let mut parts = components(path)?;
        let Some(name) = parts.pop() else { return Err(Refusal::Root) };
        let parent = self.walk(&parts)?;
        if self.child(parent, name).is_some() {
            return Err(Refusal::Duplicate);
        }
        self.room_for_one()?;
        Ok(Vacancy { parent, name: name.to_vec() })
    }

    pub(super) fn put(&mut self, at: Vacancy, kind: Kind, meta: Meta) -> u32 {
        let node = self.push(Node { kind, meta, links: 1 });
        self.name(at.parent, at.name, node);
        node
    }

    /// A directory may come again, and after what is in it: the last one's owner and mode stay.
    pub(super) fn directory(&mut self, path: &[u8], meta: Meta) -> Result<(), Refusal> {
        let parts = components(path)?;
        let Some((last, parents)) = parts.split_last() else {
            self.nodes[0].meta = meta;
            return Ok(());
        };
        let parent = self.walk(parents)?;
        match self.child(parent, last) {
            Some(there) => match self.node(there).kind {
                Kind::Dir { .. } => self.nodes[there as usize].meta = meta,
                _ => return Err(Refusal::Duplicate),
            },
            None => {
                self.make_dir(parent, last, meta)?;
            }
        }
        Ok(())
    }

    pub(super) fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Refusal> {
        let shown = || String::from_utf8_lossy(target).into_owned();
        let at = self.vacancy(path)?;
        let parts = components(target).map_err(|refusal| match refusal {
            Refusal::DotDot => Refusal::LinkEscapes(shown()),
            other => other,
        })?;
        let mut node = ROOT;
        for part in &parts {
            node = self.child(node, part).ok_or_else(|| Refusal::LinkMissing(shown()))?;
        }
        self.link(at, node).map_err(|why| why.unwrap_or_else(|| Refusal::LinkToDir(shown())))
    }

    /// Gives the node one name more; `None` is said of a directory.
    pub(super) fn link(&mut self, at: Vacancy, node: u32) -> Result<(), Option<Refusal>> {
        let found = &mut self.nodes[node as usize];
        if matches!(found.kind, Kind::Dir { .. }) {
            return Err(None);
        }
        if found.links >= MAX_LINKS {
            return Err(Some(Refusal::TooManyLinks));
        }
        found.links += 1;
        self.name(at.parent, at.name, node);
        Ok(())
    }

    pub(super) fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    /// The node of this name; symbolic links are not followed.
    pub(super) fn find(&self, path: &str) -> Option<&Node> {
        let parts = components(path.as_bytes()).ok()?;
        let index = parts.iter().try_fold(ROOT, |dir, part| self.child(dir, part))?;
        Some(self.node(index))
    }

    pub(super) fn child(&self, dir: u32, name: &[u8]) -> Option<u32> {
        match &self.node(dir).kind {
            Kind::Dir { children, .. } => children.get(name).map(|entry| entry.node),
            _ => None,
        }
    }

    pub(super) fn room_for_one(&self) -> Result<(), Refusal> {
        if self.nodes.len() >= self.max_nodes {
            return Err(Refusal::TooMany(self.max_nodes));
        }
        Ok(())
    }

    /// Directories above this one. What walks down the tree may so call itself for each.
    fn depth(&self, mut dir: u32) -> usize {
        let mut depth = 0;
        while dir != ROOT {
            let Kind::Dir { parent, .. } = self.node(dir).kind else { break };
            (dir, depth) = (parent, depth + 1);
        }
        depth
    }

    fn walk(&mut self, parts: &[&[u8]]) -> Result<u32, Refusal> {
        let mut dir = ROOT;
        for part in parts {
            let shown = || String::from_utf8_lossy(part).into_owned();
            dir = match self.child(dir, part) {
                None => self.make_dir(dir, part, plain_dir())?,
                Some(there) => match self.node(there).kind {
                    Kind::Dir { .. } => there,
                    Kind::Symlink { .. } => return Err(Refusal::ThroughLink(shown())),
                    _ => return Err(Refusal::ThroughFile(shown())),
                },
            };
        }
        Ok(dir)
    }

    pub(super) fn make_dir(
        &mut self,
        parent: u32,
        name: &[u8],
        meta: Meta,
    ) -> Result<u32, Refusal> {
        self.room_for_one()?;
        if self.depth(parent) >= MAX_DEPTH {
            return Err(Refusal::TooDeep);
        }
        if let Kind::Dir { subdirs, .. } = &mut self.nodes[parent as usize].kind {
            if *subdirs >= MAX_LINKS - 2 {
                return Err(Refusal::TooManyLinks);
            }
            *subdirs += 1;
        }
        let node = self.push(Node { kind: empty_dir(parent), meta, links: 1 });
        self.name(parent, name.to_vec(), node);
        Ok(node)
    }

    fn push(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        // MAX_NODES is far below 2^32.
        u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
    }

    pub(super) fn name(&mut self, parent: u32, name: Vec<u8>, node: u32) {
        let entry = Dirent { node, layer: self.layer };
        if let Kind::Dir { children, .. } = &mut self.nodes[parent as usize].kind {
            children.insert(name, entry);
        }
    }
}

/// The parts of a name; a leading `/` or `./` means nothing.
pub(super) fn components(path: &[u8]) -> Result<Vec<&[u8]>, Refusal> {
    if path.len() > 4096 {
        return Err(Refusal::PathTooLong);
    }
    if path.is_empty() {
        return Err(Refusal::NoName);
    }
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Refusal::DotDot),
            part if part.len() > 255 => return Err(Refusal::NameTooLong),
            part if part.contains(&0) => return Err(Refusal::ZeroByte),
            part => parts.push(part),
        }
    }
    Ok(parts)
}

fn empty_dir(parent: u32) -> Kind {
    Kind::Dir { children: BTreeMap::new(), parent, subdirs: 0, data: Run::NONE }
}

/// Of directories that no entry describes.
pub(super) fn plain_dir() -> Meta {
    Meta { mode: 0o755, ..Meta::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Kind {
        Kind::File { len: 0, data: Run::NONE }
    }

    fn link(target: &str) -> Kind {
        Kind::Symlink { target: target.into(), data: Run::NONE }
    }

    fn put(tree: &mut Tree, path: &str, kind: Kind) -> Result<(), Refusal> {
        let at = tree.vacancy(path.as_bytes())?;
        tree.put(at, kind, Meta::default());
        Ok(())
    }

    #[test]
    fn names_are_brought_into_the_root() {
        let mut tree = Tree::new();
        put(&mut tree, "/etc/passwd", file()).unwrap();
        put(&mut tree, "./etc//group", file()).unwrap();
        assert!(tree.find("etc/passwd").is_some() && tree.find("etc/group").is_some());
        tree.directory(b"./", Meta { mode: 0o700, ..Meta::default() }).unwrap();
        assert_eq!(tree.nodes[0].meta.mode, 0o700);
    }

    #[test]
    fn hostile_names_are_refused() {
        let mut tree = Tree::new();
        put(&mut tree, "out", link("/etc")).unwrap();
        put(&mut tree, "plain", file()).unwrap();
        for (path, why) in [
            ("../x", Refusal::DotDot),
            ("a/../../x", Refusal::DotDot),
            ("out/passwd", Refusal::ThroughLink("out".into())),
            ("plain/x", Refusal::ThroughFile("plain".into())),
            ("plain", Refusal::Duplicate),
            ("out", Refusal::Duplicate),
            ("/", Refusal::Root),
            ("", Refusal::NoName),
            ("a\0b", Refusal::ZeroByte),
        ] {
            assert_eq!(put(&mut tree, path, file()), Err(why), "{path:?}");
        }
        assert_eq!(put(&mut tree, &"x".repeat(256), file()), Err(Refusal::NameTooLong));
        assert_eq!(put(&mut tree, &"x/".repeat(2049), file()), Err(Refusal::PathTooLong));
        assert_eq!(tree.directory(b"out", Meta::default()), Err(Refusal::Duplicate));
    }

    #[test]
    fn hard_links_stay_inside() {
        let mut tree = Tree::new();
        put(&mut tree, "a/file", file()).unwrap();
        put(&mut tree, "link", link("a")).unwrap();
        tree.hard_link(b"b", b"/a/file").unwrap();
        assert_eq!(tree.find("b").unwrap().links, 2);
        for (target, why) in [
            ("../a/file", Refusal::LinkEscapes("../a/file".into())),
            ("none", Refusal::LinkMissing("none".into())),
            ("a", Refusal::LinkToDir("a".into())),
            ("/", Refusal::LinkToDir("/".into())),
            ("link/file", Refusal::LinkMissing("link/file".into())),
        ] {
            assert_eq!(tree.hard_link(b"c", target.as_bytes()), Err(why), "{target}");
        }
        assert_eq!(tree.hard_link(b"b", b"a/file"), Err(Refusal::Duplicate));
    }

    #[test]
    fn directories_may_come_late_and_twice() {
        let mut tree = Tree::new();
        put(&mut tree, "a/b/c", file()).unwrap();
        tree.directory(b"a/b", Meta { mode: 0o711, ..Meta::default() }).unwrap();
        assert_eq!(tree.find("a/b").unwrap().meta.mode, 0o711);
        assert!(tree.find("a/b/c").is_some());
    }
}
