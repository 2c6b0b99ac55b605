//! One layer over the other, in the tree alone.

use super::*;
use crate::host::image::ext4::tree::Node;

fn meta(mode: u16) -> Meta {
    Meta { mode, ..Meta::default() }
}

/// A tree that layers are put into by short words.
struct Rig(Tree);

impl Rig {
    fn new() -> Self {
        Self(Tree::new())
    }

    fn over(mut self) -> Self {
        self.0.layer += 1;
        self
    }

    fn file(mut self, path: &str) -> Self {
        self.try_file(path).unwrap();
        self
    }

    fn try_file(&mut self, path: &str) -> Result<u32, Refusal> {
        let at = self.0.clear(path.as_bytes())?;
        Ok(self.0.put(at, Kind::File { len: 0, data: Run::NONE }, meta(0o644)))
    }

    fn symlink(mut self, path: &str, target: &str) -> Self {
        let at = self.0.clear(path.as_bytes()).unwrap();
        self.0.put(at, Kind::Symlink { target: target.into(), data: Run::NONE }, meta(0o777));
        self
    }

    fn dir(mut self, path: &str, mode: u16) -> Self {
        self.0.place_directory(path.as_bytes(), meta(mode)).unwrap();
        self
    }

    fn link(mut self, path: &str, target: &str) -> Self {
        self.0.place_hard_link(path.as_bytes(), target.as_bytes()).unwrap();
        self
    }

    fn whiteout(mut self, path: &str) -> Self {
        self.0.whiteout(path.as_bytes()).unwrap();
        self
    }

    fn opaque(mut self, path: &str) -> Self {
        self.0.opaque(path.as_bytes()).unwrap();
        self
    }

    fn find(&self, path: &str) -> Option<&Node> {
        self.0.find(path)
    }

    /// Names that are there, with a slash after directories.
    fn names(&mut self) -> String {
        fn walk(tree: &Tree, dir: u32, prefix: &str, found: &mut Vec<String>) {
            let Kind::Dir { children, subdirs, .. } = &tree.node(dir).kind else { return };
            let is_dir = |index: u32| matches!(tree.node(index).kind, Kind::Dir { .. });
            let dirs = children.values().filter(|entry| is_dir(entry.node)).count();
            assert_eq!(*subdirs as usize, dirs, "{prefix}");
            for (name, entry) in children {
                let slash = if is_dir(entry.node) { "/" } else { "" };
                let path = format!("{prefix}{}{slash}", String::from_utf8_lossy(name));
                found.push(path.clone());
                walk(tree, entry.node, &path, found);
            }
        }
        self.0.compact();
        let mut found = vec![];
        walk(&self.0, ROOT, "", &mut found);
        let named = |node: &Node| match node.kind {
            Kind::Dir { .. } => 0,
            _ => node.links as usize,
        };
        let names: usize = self.0.nodes.iter().map(named).sum();
        assert_eq!(names, found.iter().filter(|name| !name.ends_with('/')).count());
        found.join(" ")
    }
}

#[test]
fn whiteouts_remove_what_lies_below_and_nothing_of_their_own_layer() {
    let below = || Rig::new().file("a/one").file("a/two").file("b/c/deep").file("b/d").over();
    assert_eq!(below().whiteout("a/one").names(), "a/ a/two b/ b/c/ b/c/deep b/d");
    assert_eq!(below().whiteout("b").whiteout("none/x").names(), "a/ a/one a/two");
    // Whichever comes first in the archive.
    let wanted = "a/ a/one a/two b/ b/c/ b/c/new";
    assert_eq!(below().whiteout("b").file("b/c/new").names(), wanted);
    assert_eq!(below().file("b/c/new").whiteout("b").names(), wanted);
    assert_eq!(below().whiteout("a/one").file("a/one").names(), below().names());
    assert_eq!(below().file("a/one").whiteout("a/one").names(), below().names());
    // A directory that this layer made by itself is new, whatever the lower one was like.
    for rig in [
        Rig::new().dir("d", 0o700).over().file("d/x").whiteout("d"),
        Rig::new().dir("d", 0o700).over().whiteout("d").file("d/x"),
    ] {
        assert_eq!(rig.find("d").unwrap().meta.mode, 0o755);
    }
    for rig in [
        Rig::new().dir("d", 0o700).file("d/old").over().dir("d", 0o711).whiteout("d"),
        Rig::new().dir("d", 0o700).file("d/old").over().whiteout("d").dir("d", 0o711),
    ] {
        assert_eq!(rig.find("d").unwrap().meta.mode, 0o711);
        assert!(rig.find("d/old").is_none());
    }
}

#[test]
fn opaque_directories_hide_all_that_lies_below() {
    let below = || Rig::new().file("d/one").file("d/in/deep").file("e").over();
    assert_eq!(below().opaque("d").names(), "d/ e");
    let wanted = "d/ d/in/ d/in/new d/two e";
    assert_eq!(below().opaque("d").file("d/in/new").file("d/two").names(), wanted);
    assert_eq!(below().file("d/in/new").file("d/two").opaque("d").names(), wanted);
    assert_eq!(below().file("new").opaque("./").names(), "new");
    assert_eq!(below().opaque("none").opaque("e").names(), "d/ d/in/ d/in/deep d/one e");
}

#[test]
fn only_directories_merge() {
    let below = || Rig::new().dir("d", 0o700).file("d/f").file("f").over();
    assert_eq!(below().dir("d", 0o711).names(), "d/ d/f f");
    assert_eq!(below().dir("d", 0o711).find("d").unwrap().meta.mode, 0o711);
    assert_eq!(below().file("d").names(), "d f");
    assert_eq!(below().dir("f", 0o700).file("f/x").names(), "d/ d/f f/ f/x");
    assert_eq!(below().symlink("d", "f").names(), "d f");
    // Twice in one layer: the last one stays.
    assert_eq!(Rig::new().file("a").symlink("a", "b").file("a").names(), "a");
    assert!(matches!(
        Rig::new().file("a").symlink("a", "b").find("a").unwrap().kind,
        Kind::Symlink { .. }
    ));
}

#[test]
fn hard_links_hold_what_they_link_to() {
    let below = || Rig::new().file("a").over();
    assert_eq!(below().link("b", "a").find("b").unwrap().links, 2);
    assert_eq!(below().link("b", "/a").whiteout("a").names(), "b");
    // The other name keeps the file that this one was replaced in.
    let mut rig = below().link("b", "a").over().file("a");
    assert_eq!(rig.names(), "a b");
    assert_eq!((rig.find("a").unwrap().links, rig.find("b").unwrap().links), (1, 1));
    assert_eq!(below().link("a", "a").names(), "a");
    assert_eq!(Rig::new().file("d/f").link("d", "d/f").names(), "d");
    assert_eq!(Rig::new().file("x").file("y").link("x", "y").find("x").unwrap().links, 2);
    // By a link of the layer itself a name is its own.
    assert_eq!(below().link("a", "a").whiteout("a").names(), "a");
}

#[test]
fn names_lead_through_links_that_stay_inside() {
    let rig = || Rig::new().dir("usr/lib", 0o755).symlink("lib", "usr/lib").over();
    let mut through = rig().file("lib/x/y").symlink("usr/up", "../usr/lib/x").file("usr/up/z");
    assert_eq!(through.names(), "lib usr/ usr/lib/ usr/lib/x/ usr/lib/x/y usr/lib/x/z usr/up");
    assert_eq!(rig().file("usr/lib/f").over().whiteout("lib/f").names(), rig().names());
    assert_eq!(rig().file("usr/lib/f").over().opaque("lib").names(), rig().names());
    assert_eq!(rig().file("f").link("lib/g", "f").link("h", "lib/g").find("h").unwrap().links, 3);
    assert_eq!(rig().dir("lib", 0o755).names(), "lib/ usr/ usr/lib/");
    // What a link leads to is made, as it is for any other name.
    assert_eq!(Rig::new().symlink("l", "a/b").file("l/x").names(), "a/ a/b/ a/b/x l");
}

#[test]
fn nothing_leads_out() {
    let mut rig = Rig::new()
        .file("plain")
        .symlink("out", "../etc")
        .symlink("deep/out", "../../etc")
        .symlink("root", "/etc")
        .symlink("loop", "loop")
        .symlink("fine", "deep/..");
    for (path, why) in [
        ("../x", Refusal::DotDot),
        ("a/../../x", Refusal::DotDot),
        ("/etc/passwd", Refusal::Absolute),
        ("out/passwd", Refusal::LinkLeadsOut("out".into())),
        ("deep/out/passwd", Refusal::LinkLeadsOut("out".into())),
        ("root/passwd", Refusal::LinkLeadsOut("root".into())),
        ("loop/x", Refusal::LinkLoop),
        ("plain/x", Refusal::ThroughFile("plain".into())),
        ("/", Refusal::Root),
        (".", Refusal::Root),
        ("", Refusal::NoName),
        ("a\0b", Refusal::ZeroByte),
    ] {
        assert_eq!(rig.try_file(path), Err(why.clone()), "{path:?}");
        // What is not there cannot be removed, and nothing outside can.
        let removed = rig.0.whiteout(path.as_bytes());
        assert_eq!(removed.is_ok(), path == "plain/x", "{path:?}");
    }
    assert_eq!(rig.try_file("fine/x").map(drop), Ok(()));
    for (target, why) in [
        ("../plain", Refusal::LinkEscapes("../plain".into())),
        ("none", Refusal::LinkMissing("none".into())),
        ("deep", Refusal::LinkToDir("deep".into())),
        ("/", Refusal::LinkToDir("/".into())),
        ("out/passwd", Refusal::LinkLeadsOut("out".into())),
    ] {
        assert_eq!(rig.0.place_hard_link(b"h", target.as_bytes()), Err(why), "{target}");
    }
    assert_eq!(rig.0.place_hard_link(b"/h", b"plain"), Err(Refusal::Absolute));
    let root = rig.0.place_directory(b"/", meta(0o700));
    assert_eq!((root, rig.0.nodes[0].meta.mode), (Ok(()), 0o700));
}

#[test]
fn depth_number_and_names_have_limits() {
    let mut rig = Rig::new();
    // Each goes on where the last one ended, which no single name could.
    let deep = "d/".repeat(500);
    let (mut end, mut refused) = (deep.clone(), None);
    for turn in 0..4 {
        let link = format!("l{turn}");
        rig = rig.symlink(&link, &end);
        refused = rig.try_file(&format!("{link}/{deep}x")).err();
        end = format!("{link}/{deep}");
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused, Some(Refusal::TooDeep));
    // What is so deep can still be removed.
    rig.0.layer += 1;
    rig.0.opaque(b"./").unwrap();
    assert_eq!(rig.names(), "");

    let mut few = Rig::new();
    few.0.max_nodes = 3;
    few = few.file("a").file("b");
    assert_eq!(few.try_file("c"), Err(Refusal::TooMany(3)));
    assert_eq!(few.0.place_directory(b"d", meta(0o755)), Err(Refusal::TooMany(3)));

    let mut large = Rig::new();
    let noted = |n: usize| {
        let xattrs = [(b"user.x".to_vec(), vec![7; n])];
        Meta { xattrs: xattrs.into_iter().collect(), ..meta(0o755) }
    };
    let mut all = (0..100).map(|_| large.0.place_directory(b"d", noted(1 << 20)));
    assert!(all.any(|placed| placed == Err(Refusal::NamesTooLarge)));
}
