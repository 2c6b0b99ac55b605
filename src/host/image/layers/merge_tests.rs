//! Layers become images: sound ones, the same ones, or none.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;

use sha2::{Digest as _, Sha256};
use tar::EntryType;

use super::archive::{Tar, build, debugfs, gzip, header, image, layer, refusal};
use crate::model::{Digest, ImageLimits, Size, chain};

#[test]
fn layers_lie_one_over_the_other() {
    let lower = Tar::new().file("etc/a", b"old a").file("etc/b", b"old b").file("gone/x", b"x");
    let upper = Tar::new()
        .file("etc/.wh.b", b"")
        .file("gone/.wh..wh..opq", b"")
        .file("etc/a", b"new a")
        .file("gone/y", b"y");
    let (file, _) = image(&[lower.end(), upper.end()]);
    let cat = |path: &str| debugfs(file.path(), &format!("cat {path}"));
    assert_eq!(
        (cat("etc/a"), cat("etc/b"), cat("gone/y")),
        ("new a".into(), "".into(), "y".into())
    );
    let names = debugfs(file.path(), "ls -p /gone");
    assert!(names.contains("/y/") && !names.contains("/x/") && !names.contains(".wh."), "{names}");
}

#[test]
fn the_same_layers_give_the_same_bytes_however_they_are_packed() {
    let lower = Tar::new().file("a", &[1; 9000]).link(EntryType::Symlink, "l", &"x/".repeat(90));
    let upper = Tar::new().file(".wh.a", b"").file("b", &[2; 5000]);
    let (lower, upper) = (lower.end(), upper.end());
    let (one, built) = image(&[lower.clone(), upper.clone()]);
    let (two, again) = image(&[gzip(&lower), zstd::encode_all(&upper[..], 3).unwrap()]);
    assert_eq!(built, again);
    assert_eq!(fs::read(one.path()).unwrap(), fs::read(two.path()).unwrap());
    // What is hidden is not in it.
    let (_, only) = image(&[Tar::new().file("b", &[2; 5000]).end()]);
    assert!(built.bytes <= only.bytes + 4096, "{} {}", built.bytes, only.bytes);
}

#[test]
fn a_layer_is_checked_by_its_digest() {
    let bytes = Tar::new().file("a", b"a").end();
    let digest = Digest(Sha256::digest(&bytes).into());
    let file = tempfile::NamedTempFile::new().unwrap();
    let limits = ImageLimits::default();
    build(&[layer("one", gzip(&bytes), Some(digest))], &limits, file.path()).unwrap();
    let other = Tar::new().file("a", b"b").end();
    let error = build(&[layer("one", gzip(&other), Some(digest))], &limits, file.path());
    let error = error.unwrap_err();
    assert!(chain(&error).contains("layer one") && chain(&error).contains(&digest.to_string()));
    // It covers what is behind the archive's end, too.
    let longer = [&bytes[..], &[0; 512]].concat();
    assert!(build(&[layer("one", longer, Some(digest))], &limits, file.path()).is_err());
}

#[test]
fn archives_end_as_the_tools_that_write_layers_end_them() {
    let bytes = Tar::new().file("a", b"a");
    let (_, ended) = image(&[Tar(bytes.0.clone()).end()]);
    let (_, open) = image(std::slice::from_ref(&bytes.0));
    let behind = [&bytes.0[..], &[0; 1024], b"junk"].concat();
    assert_eq!((ended, ended), (open, image(&[behind]).1));
    assert_eq!(image(&[vec![]]).1, image(&[vec![0; 1024]]).1);
}

#[test]
fn hostile_layers_are_refused_by_the_name_of_their_entry() {
    let under = || Tar::new().file("bin/sh", b"sh").end();
    let symlink = |name, target| Tar::new().link(EntryType::Symlink, name, target);
    let small = ImageLimits { size: Size::from_bytes(1 << 20), ..ImageLimits::default() };
    let few = ImageLimits { entries: 5, ..ImageLimits::default() };
    let all = ImageLimits::default();
    let mut huge = header(EntryType::Regular, 0);
    huge.set_size(1 << 50);
    let mut device = header(EntryType::Block, 0);
    device.set_device_major(0x1000).unwrap();
    device.set_device_minor(0).unwrap();
    let many = (0..10).fold(Tar::new(), |tar, n| tar.file(&format!("f{n}"), b""));
    let deep = (0..3).fold(Tar::new(), |tar, n| {
        let at = format!("l{n}/{}", "d/".repeat(500));
        tar.link(EntryType::Symlink, &format!("l{}", n + 1), &at)
            .file(&format!("l{}/x", n + 1), b"")
    });
    let cases: Vec<(&str, Vec<u8>, &ImageLimits, &str, &str)> = vec![
        ("dot dot", Tar::new().file("a/../../x", b"").end(), &all, "a/../../x", "`..`"),
        ("absolute", Tar::new().file("/etc/x", b"").end(), &all, "/etc/x", "begins with `/`"),
        ("dot dot link", symlink("o", "../..").file("o/x", b"").end(), &all, "o/x", "leads out"),
        ("absolute link", symlink("o", "/etc").file("o/x", b"").end(), &all, "o/x", "leads out"),
        ("loop", symlink("o", "o").file("o/x", b"").end(), &all, "o/x", "40 symbolic links"),
        (
            "file as directory",
            Tar::new().file("bin/sh/x", b"").end(),
            &all,
            "bin/sh/x",
            "not a dir",
        ),
        (
            "link out",
            Tar::new().link(EntryType::Link, "h", "../../etc/x").end(),
            &all,
            "h",
            "leads out",
        ),
        (
            "link to nothing",
            Tar::new().link(EntryType::Link, "h", "no").end(),
            &all,
            "h",
            "does not come",
        ),
        (
            "link to a directory",
            Tar::new().link(EntryType::Link, "h", "bin").end(),
            &all,
            "h",
            "directory",
        ),
        (
            "link through a link",
            symlink("o", "/etc").link(EntryType::Link, "h", "o/x").end(),
            &all,
            "h",
            "leads out",
        ),
        (
            "whiteout of the parent",
            Tar::new().file("a/.wh...", b"").end(),
            &all,
            "a/.wh...",
            "no name",
        ),
        ("whiteout of itself", Tar::new().file("a/.wh..", b"").end(), &all, "a/.wh..", "no name"),
        ("whiteout of nothing", Tar::new().file(".wh.", b"").end(), &all, ".wh.", "no name"),
        ("whiteout outside", Tar::new().file("../.wh.x", b"").end(), &all, "../.wh.x", "`..`"),
        (
            "opaque outside",
            symlink("o", "/").file("o/.wh..wh..opq", b"").end(),
            &all,
            "o/.wh..wh..opq",
            "leads out",
        ),
        (
            "root as a file",
            Tar::new().file("./", b"").raw(header(EntryType::Fifo, 0), ".", "", b"").end(),
            &all,
            "\".\"",
            "the root",
        ),
        (
            "claims a petabyte",
            Tar::new().raw(huge, "big", "", b"").end(),
            &all,
            "big",
            "image_size",
        ),
        (
            "too large",
            Tar::new().file("one", &[1; 600 << 10]).file("two", &[1; 600 << 10]).end(),
            &small,
            "two",
            "image_size",
        ),
        (
            "holes too large",
            Tar::new()
                .pax(&[("GNU.sparse.size", b"9999999999999"), ("GNU.sparse.map", b"0,0")])
                .file("holes", b"")
                .end(),
            &all,
            "holes",
            "image_size",
        ),
        ("too many", many.end(), &few, "f", "more than 5 entries"),
        ("too deep", deep.end(), &all, "x", "1024"),
        ("name too long", Tar::new().file(&"n".repeat(300), b"").end(), &all, "nnn", "255"),
        ("path too long", Tar::new().file(&"n/".repeat(2100), b"").end(), &all, "n/n", "4096"),
        ("empty link", symlink("e", "").end(), &all, "e", "link"),
        (
            "unknown kind",
            Tar::new().raw(header(EntryType::new(b'Q'), 0), "q", "", b"").end(),
            &all,
            "q",
            "unknown type",
        ),
        (
            "device out of range",
            Tar::new().raw(device, "dev/x", "", b"").end(),
            &all,
            "dev/x",
            "device number",
        ),
        (
            "owner too large",
            Tar::new().pax(&[("uid", b"99999999999")]).file("own", b"").end(),
            &all,
            "own",
            "owner",
        ),
        (
            "broken records",
            Tar::new().pax(&[("size", b"-1")]).file("neg", b"").end(),
            &all,
            "neg",
            "PAX",
        ),
        (
            "broken holes",
            Tar::new()
                .pax(&[("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"8,5")])
                .file("bad", b"12345")
                .end(),
            &all,
            "bad",
            "holes",
        ),
        (
            "attributes too large",
            Tar::new().pax(&[("SCHILY.xattr.user.x", &[b'x'; 9000][..])]).file("attr", b"").end(),
            &all,
            "attr",
            "4 KiB",
        ),
    ];
    for (what, bytes, limits, entry, why) in cases {
        let said = refusal(&[under(), bytes], limits);
        assert!(said.contains(entry) && said.contains(why), "{what}: {said}");
        assert!(said.contains("layer L1"), "{what}: {said}");
    }
}

/// Three hundred MiB of nothing in a few hundred KiB.
#[test]
fn a_bomb_is_refused_by_its_ratio() {
    let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::best());
    let mut header = header(EntryType::Regular, 300 << 20);
    header.as_old_mut().name[..4].copy_from_slice(b"bomb");
    header.set_cksum();
    gz.write_all(header.as_bytes()).unwrap();
    io::copy(&mut io::Read::take(io::repeat(0), (300 << 20) + 1024), &mut gz).unwrap();
    let bytes = gz.finish().unwrap();
    let said = refusal(std::slice::from_ref(&bytes), &ImageLimits::default());
    assert!(said.contains("bomb") && said.contains("image_ratio"), "{said}");
    let trusting = ImageLimits { ratio: 2000, ..ImageLimits::default() };
    let file = tempfile::NamedTempFile::new().unwrap();
    let built = build(&[layer("one", bytes, None)], &trusting, file.path()).unwrap();
    assert!(built.bytes > 300 << 20);
    // What is nothing takes no room.
    assert!(file.as_file().metadata().unwrap().blocks() * 512 < 2 << 20);
}

#[test]
fn damaged_and_cut_layers_are_errors_and_never_more() {
    let whole = gzip(&Tar::new().file("a", &[3; 5000]).file("b", &[4; 5000]).end());
    let file = tempfile::NamedTempFile::new().unwrap();
    for len in (0..whole.len()).step_by(7) {
        let cut = layer("one", whole[..len].to_vec(), Some(Digest([0; 32])));
        assert!(build(&[cut], &ImageLimits::default(), file.path()).is_err());
    }
}
