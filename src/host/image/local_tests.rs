//! The port as a whole: real files, hostile archives, full disks, and ordinary users.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use tar::{EntryType, Header};

use super::super::ext4::uuid_of;
use super::*;
use crate::model::{Code, KernelFeature, KernelSupport, chain};

const OP: OpId = OpId([0; 16]);

struct Rig {
    dir: tempfile::TempDir,
    images: LocalImages,
}

impl Rig {
    fn new() -> Self {
        Self::at(tempfile::tempdir().unwrap())
    }

    fn at(dir: tempfile::TempDir) -> Self {
        let agent = dir.path().join("agent");
        fs::write(&agent, b"\x7fELF agent").unwrap();
        let images = LocalImages::new(&dir.path().join("state"), agent).unwrap();
        Self { dir, images }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    async fn make(&self, recipe: ImageRecipe) -> Result<ImageFile, HostError> {
        self.images.make_image(OP, &recipe, quiet(), &CancellationToken::new()).await
    }

    async fn import(&self, bytes: &[u8]) -> Result<ImageFile, HostError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        self.make(ImageRecipe::Tar { path: file.path().to_owned() }).await
    }

    fn image(&self, image: &ImageFile) -> PathBuf {
        self.state().join(format!("images/{}.ext4", image.digest))
    }

    /// Everything below the state directory.
    fn files(&self) -> Vec<String> {
        fn walk(dir: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found)
                } else {
                    found.push(path.display().to_string())
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.state(), &mut found);
        assert_eq!(fs::read_dir(self.state().join("tmp")).unwrap().count(), 0);
        found
    }
}

fn quiet() -> ProgressSink {
    Arc::new(|_| {})
}

#[allow(clippy::disallowed_methods, reason = "tests ask e2fsprogs")]
fn ask(program: &str, args: &[&str], image: &Path) -> String {
    let output = Command::new(program).args(args).arg(image).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn check(image: &Path) {
    let said = ask("/sbin/e2fsck", &["-fn"], image);
    assert!(said.contains("Pass 5") && !said.contains("? no"), "{said}");
}

fn header(kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o755);
    header.set_mtime(1_700_000_000);
    header.set_uid(0);
    header.set_gid(0);
    header
}

/// Sets a name that the tar crate itself would refuse.
fn raw(kind: EntryType, name: &str, link: &str) -> Header {
    let mut header = header(kind, 0);
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_cksum();
    header
}

type Archive = tar::Builder<Vec<u8>>;

fn root() -> Archive {
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header(EntryType::Regular, 9), "bin/sh", &b"#!program"[..]).unwrap();
    tar
}

fn finish(tar: Archive) -> Vec<u8> {
    tar.into_inner().unwrap()
}

#[tokio::test]
async fn a_tar_keeps_everything_and_is_there_once() {
    let rig = Rig::new();
    let mut tar = root();
    tar.append_link(&mut header(EntryType::Link, 0), "bin/bash", "bin/sh").unwrap();
    tar.append_link(&mut header(EntryType::Symlink, 0), "absolute", "/etc/passwd").unwrap();
    let mut su = header(EntryType::Regular, 2);
    su.set_mode(0o4755);
    su.set_uid(1000);
    su.set_gid(2000);
    tar.append_data(&mut su, "bin/su", &b"su"[..]).unwrap();
    let mut null = header(EntryType::Char, 0);
    null.set_device_major(1).unwrap();
    null.set_device_minor(3).unwrap();
    tar.append_data(&mut null, "dev/null", io::empty()).unwrap();
    tar.append_data(&mut header(EntryType::Fifo, 0), "run/fifo", io::empty()).unwrap();
    let capability =
        b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    tar.append_pax_extensions([("SCHILY.xattr.security.capability", &capability[..])]).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 4), "bin/ping", &b"ping"[..]).unwrap();
    let bytes = finish(tar);

    let (one, two) = (rig.import(&bytes).await.unwrap(), rig.import(&bytes).await.unwrap());
    assert_eq!(one.digest, two.digest);
    let image = rig.image(&one);
    assert_eq!(rig.files(), [image.display().to_string()]);
    let meta = fs::metadata(&image).unwrap();
    assert_eq!((meta.len(), meta.permissions().mode() & 0o777), (one.size.bytes(), 0o444));
    check(&image);
    let stat = |name: &str| ask("/sbin/debugfs", &["-R", &format!("stat {name}")], &image);
    assert!(stat("/bin/bash").contains("Links: 2"));
    let su = stat("/bin/su");
    assert!(su.contains("Mode:  04755") && su.contains("User:  1000   Group:  2000"), "{su}");
    assert!(stat("/absolute").contains("/etc/passwd"));
    assert!(stat("/dev/null").contains("01:03"));
    assert!(stat("/run/fifo").contains("FIFO"));
    let caps = ask("/sbin/debugfs", &["-R", "ea_get -x /bin/ping security.capability"], &image);
    assert!(caps.contains("01 00 00 02 00 20 00 00"), "{caps}");

    // The same, packed.
    let zst = zstd::encode_all(&bytes[..], 1).unwrap();
    assert_eq!(rig.import(&zst).await.unwrap().digest, one.digest);
    rig.images.verify_image(one.digest, &CancellationToken::new()).await.unwrap();
}

#[tokio::test]
async fn hostile_archives_are_refused_by_entry_and_leave_nothing() {
    let rig = Rig::new();
    let outside = rig.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let link = |kind, name: &str, target: &str| {
        let mut tar = root();
        tar.append(&raw(kind, name, target), io::empty()).unwrap();
        tar
    };
    let mut cases: Vec<(&str, Archive, &str)> = vec![
        ("../evil", link(EntryType::Regular, "../evil", ""), ".."),
        ("a/../../evil", link(EntryType::Regular, "a/../../evil", ""), ".."),
        ("hard", link(EntryType::Link, "hard", "../../etc/shadow"), "leads out"),
        ("hard", link(EntryType::Link, "hard", "/etc/shadow"), "does not come before"),
        ("bin/sh", link(EntryType::Regular, "bin/sh", ""), "twice"),
        ("bin/sh", link(EntryType::Symlink, "bin/sh", "x"), "twice"),
        ("sparse", link(EntryType::GNUSparse, "sparse", ""), "holes"),
        ("odd", link(EntryType::new(b'V'), "odd", ""), "unknown type"),
    ];
    let mut through = link(EntryType::Symlink, "out", outside.to_str().unwrap());
    through.append(&raw(EntryType::Regular, "out/evil", ""), io::empty()).unwrap();
    cases.push(("out/evil", through, "symbolic link"));
    for (entry, tar, why) in cases {
        let error = rig.import(&finish(tar)).await.unwrap_err();
        let said = chain(&error);
        assert!(said.contains(entry) && said.contains(why), "{entry}: {said}");
        assert_eq!(error.code, Code::Invalid, "{said}");
        assert!(rig.files().is_empty(), "{entry}");
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    // An absolute name is taken below the root.
    let tar = link(EntryType::Regular, "/etc/passwd", "");
    let image = rig.import(&finish(tar)).await.unwrap();
    assert!(
        ask("/sbin/debugfs", &["-R", "stat /etc/passwd"], &rig.image(&image)).contains("regular")
    );
}

#[tokio::test]
async fn what_is_no_root_file_system_gets_a_word_on_what_it_is() {
    let rig = Rig::new();
    let file = |name: &str, mode: u32| {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = header(EntryType::Regular, 1);
        header.set_mode(mode);
        tar.append_data(&mut header, name, &b"x"[..]).unwrap();
        tar
    };
    let nested = {
        let mut tar = file("rootfs/bin/sh", 0o755);
        tar.append_data(&mut header(EntryType::Directory, 0), "rootfs/etc", io::empty()).unwrap();
        tar
    };
    for (tar, code, why) in [
        (finish(file("readme", 0o644)), Code::Invalid, "there is no program"),
        (finish(file("manifest.json", 0o644)), Code::Invalid, "parse manifest.json"),
        (finish(nested), Code::Invalid, "\"rootfs\""),
        (finish(tar::Builder::new(Vec::new())), Code::Invalid, "empty"),
        (b"just a text".to_vec(), Code::Invalid, "not a tar archive"),
        (b"BZh9 and so on".to_vec(), Code::Invalid, "bzip2"),
        (vec![], Code::Invalid, "not a tar archive"),
    ] {
        let error = rig.import(&tar).await.unwrap_err();
        assert!(chain(&error).contains(why), "{error:?}");
        assert_eq!(error.code, code, "{error:?}");
    }
    for path in ["/dev/null", "/nonexistent/x.tar"] {
        rig.make(ImageRecipe::Tar { path: path.into() }).await.unwrap_err();
    }
    assert!(rig.files().is_empty());
}

#[tokio::test]
async fn damaged_archives_are_corrupt() {
    let rig = Rig::new();
    let mut tar = root();
    tar.append_data(&mut header(EntryType::Regular, 50_000), "big", &[5; 50_000][..]).unwrap();
    let whole = finish(tar);
    let packed = zstd::encode_all(&whole[..], 1).unwrap();
    let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    io::Write::write_all(&mut gz, &whole).unwrap();
    let gz = gz.finish().unwrap();
    let mut flipped = gz.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 0x55;
    for (what, bytes) in [
        ("cut tar", &whole[..20_000]),
        ("without its end", &whole[..whole.len() - 1024]),
        ("cut zstd", &packed[..packed.len() - 5]),
        ("cut gzip", &gz[..gz.len() - 9]),
        ("without its checksum", &gz[..gz.len() - 4]),
        ("flipped gzip", &flipped),
    ] {
        let error = rig.import(bytes).await.unwrap_err();
        assert_eq!(error.code, Code::Corrupt, "{what}: {error:?}");
        assert!(rig.files().is_empty(), "{what}");
    }
}

#[tokio::test]
async fn a_directory_keeps_what_it_has() {
    let rig = Rig::new();
    let from = rig.dir.path().join("from");
    fs::create_dir_all(from.join("usr/bin")).unwrap();
    fs::write(from.join("usr/bin/tool"), "#!tool").unwrap();
    fs::set_permissions(from.join("usr/bin/tool"), fs::Permissions::from_mode(0o2755)).unwrap();
    fs::hard_link(from.join("usr/bin/tool"), from.join("usr/bin/again")).unwrap();
    std::os::unix::fs::symlink("usr/bin", from.join("bin")).unwrap();
    fs::create_dir(from.join("sealed")).unwrap();
    fs::set_permissions(from.join("sealed"), fs::Permissions::from_mode(0o700)).unwrap();
    let image = rig.make(ImageRecipe::Directory { path: from.clone() }).await.unwrap();
    let path = rig.image(&image);
    check(&path);
    let stat = |name: &str| ask("/sbin/debugfs", &["-R", &format!("stat {name}")], &path);
    let tool = stat("/usr/bin/again");
    assert!(tool.contains("Mode:  02755") && tool.contains("Links: 2"), "{tool}");
    let owner = format!("User: {:>5}", fs::metadata(&from).unwrap().uid());
    assert!(tool.contains(&owner), "{tool}");
    assert!(stat("/bin").contains("symlink") && stat("/sealed").contains("Mode:  0700"));
    assert_eq!(rig.make(ImageRecipe::Directory { path: from }).await.unwrap(), image);
    let error = rig.make(ImageRecipe::Directory { path: rig.dir.path().join("none") }).await;
    assert_eq!(error.unwrap_err().code, Code::NotFound);
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
async fn a_file_that_may_not_be_read_is_named() {
    if nix::unistd::geteuid().is_root() {
        eprintln!("skipped: root may read everything");
        return;
    }
    let rig = Rig::new();
    let from = rig.dir.path().join("from");
    fs::create_dir_all(from.join("etc")).unwrap();
    fs::write(from.join("etc/shadow"), "x").unwrap();
    fs::set_permissions(from.join("etc/shadow"), fs::Permissions::from_mode(0o000)).unwrap();
    let error = rig.make(ImageRecipe::Directory { path: from }).await.unwrap_err();
    assert_eq!(error.code, Code::Denied);
    assert!(chain(&error).contains("etc/shadow"), "{error:?}");
    assert!(rig.files().is_empty());
}

/// The daemon is never root: what passes here as root must pass as anybody.
#[test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
#[allow(clippy::disallowed_methods, reason = "tests run themselves")]
fn an_ordinary_user_can_do_all_of_it() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: this is an ordinary user");
        return;
    }
    // Where it was built may be closed to others.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = dir.path().join("tests");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(&program)
        .args(["host::image::", "host::disk::"])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("TMPDIR", dir.path())
        .output();
    let Ok(output) = output else {
        eprintln!("skipped: there is no setpriv");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("a_tar_keeps_everything_and_is_there_once ... ok"), "{said}");
}

#[tokio::test]
async fn many_imports_of_one_archive_end_with_one_file() {
    let rig = Rig::new();
    let bytes = finish(root());
    let made = futures::future::try_join_all((0..8).map(|_| rig.import(&bytes))).await.unwrap();
    assert!(made.iter().all(|image| image.digest == made[0].digest));
    assert_eq!(rig.files().len(), 1);
}

#[tokio::test]
async fn a_cancelled_import_ends_in_the_middle_of_a_file_and_leaves_nothing() {
    let rig = Rig::new();
    let mut tar = root();
    let mut big = header(EntryType::Regular, 400 << 20);
    let zeros = io::Read::take(io::repeat(0), 400 << 20);
    tar.append_data(&mut big, "big", zeros).unwrap();
    tar.append_data(&mut header(EntryType::Regular, 1), "end", &b"x"[..]).unwrap();
    let packed = zstd::encode_all(&finish(tar)[..], 1).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), packed).unwrap();
    let recipe = ImageRecipe::Tar { path: file.path().to_owned() };

    let cancel = CancellationToken::new();
    cancel.cancel();
    let error = rig.images.make_image(OP, &recipe, quiet(), &cancel).await.unwrap_err();
    assert_eq!(error.code, Code::Cancelled);
    assert!(rig.files().is_empty());

    // Cancelled from the first sign of progress, which comes after the large file.
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let progress: ProgressSink = Arc::new(move |_| stop.cancel());
    let error = rig.images.make_image(OP, &recipe, progress, &cancel).await.unwrap_err();
    assert_eq!(error.code, Code::Cancelled);
    assert!(rig.files().is_empty());

    // Dropped: the work ends by itself.
    let cancel = CancellationToken::new();
    drop(rig.images.make_image(OP, &recipe, quiet(), &cancel));
    assert!(rig.files().is_empty());
}

#[tokio::test]
async fn a_kernel_and_its_boot_files() {
    let rig = Rig::new();
    let kernel = rig.dir.path().join("vmlinux");
    let mut elf = super::super::kernel::test_elf();
    elf.extend(b"Linux version 6.1.0-test (x) #1\0");
    fs::write(&kernel, elf).unwrap();
    let recipe = KernelRecipe::Files { kernel: kernel.clone(), modules: None };
    let cancel = CancellationToken::new();
    let made = rig.images.make_kernel(OP, &recipe, quiet(), &cancel).await.unwrap();
    assert_eq!((made.version.as_str(), made.modules), ("6.1.0-test", 0));
    let features = made.features.known().collect::<Vec<_>>();
    assert_eq!(features, [(KernelFeature::Pvh, KernelSupport::No)], "it says no more");
    let again = rig.images.make_kernel(OP, &recipe, quiet(), &cancel).await.unwrap();
    assert_eq!(made, again);
    rig.images.verify_kernel(made.digest).await.unwrap();

    let image = rig.import(&finish(root())).await.unwrap();
    let files = rig.images.boot_files(OP, image.digest, made.digest).await.unwrap();
    assert_eq!(files.base.uuid, image.uuid);
    assert_eq!(uuid_of(image.digest), image.uuid);
    let initrd = fs::read(&files.initrd).unwrap();
    assert!(initrd.starts_with(b"070701"));
    let inode = fs::metadata(&files.initrd).unwrap().ino();
    let files = rig.images.boot_files(OP, image.digest, made.digest).await.unwrap();
    assert_eq!(fs::metadata(&files.initrd).unwrap().ino(), inode, "made once");

    // Another agent gives another initramfs; the sweep takes the old one.
    fs::write(rig.dir.path().join("agent"), b"\x7fELF newer").unwrap();
    let newer = rig.images.boot_files(OP, image.digest, made.digest).await.unwrap();
    assert_ne!(newer.initrd, files.initrd);
    let known = [image.digest, made.digest];
    assert_eq!(rig.images.sweep(OP, &known).await.unwrap(), 1);
    assert!(!files.initrd.exists() && newer.initrd.exists());

    // Damage is named.
    let broken = |path: &Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
        File::options().write(true).open(path).unwrap()
    };
    broken(&files.kernel).set_len(5).unwrap();
    let error = rig.images.boot_files(OP, image.digest, made.digest).await.unwrap_err();
    assert!(error.code == Code::Corrupt && error.object.ends_with("vmlinux"), "{error:?}");
    // Importing it again repairs it.
    rig.images.make_kernel(OP, &recipe, quiet(), &cancel).await.unwrap();
    rig.images.boot_files(OP, image.digest, made.digest).await.unwrap();
    let size = fs::metadata(&files.base.path).unwrap().len();
    let base = broken(&files.base.path);
    base.set_len(4096 * 10).unwrap();
    let error = rig.images.boot_files(OP, image.digest, made.digest).await.unwrap_err();
    assert!(error.code == Code::Corrupt && error.object.ends_with(".ext4"), "{error:?}");
    base.set_len(size).unwrap();
    rig.images.boot_files(OP, image.digest, made.digest).await.unwrap();
    let error = rig.images.verify_image(image.digest, &cancel).await.unwrap_err();
    assert_eq!(error.code, Code::Corrupt, "its content is gone");
    assert_eq!(rig.images.sweep(OP, &[made.digest]).await.unwrap(), 1);
    let error = rig.images.boot_files(OP, image.digest, made.digest).await.unwrap_err();
    assert_eq!(error.code, Code::NotFound);

    assert_eq!(rig.images.sweep(OP, &[]).await.unwrap(), 2, "the kernel and its initramfs");
    assert!(rig.files().is_empty());
}

#[tokio::test]
async fn the_sweep_takes_what_nobody_knows_and_nothing_else() {
    let rig = Rig::new();
    let (one, mut other) = (finish(root()), root());
    other.append_data(&mut header(EntryType::Regular, 1), "more", &b"x"[..]).unwrap();
    let one = rig.import(&one).await.unwrap();
    let two = rig.import(&finish(other)).await.unwrap();
    fs::create_dir(rig.state().join("tmp/1-0")).unwrap();
    fs::write(rig.state().join("images/README"), "not ours").unwrap();
    assert_eq!(rig.images.sweep(OP, &[one.digest]).await.unwrap(), 2);
    assert!(rig.image(&one).exists() && !rig.image(&two).exists());
    assert!(rig.state().join("images/README").exists());
}

/// A tmpfs of a few megabytes, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let none: Option<&str> = None;
        let flags = nix::mount::MsFlags::empty();
        let options = Some("size=3m");
        nix::mount::mount(none, dir.path(), Some("tmpfs"), flags, options).ok()?;
        Some(Self(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        nix::mount::umount(self.0.path()).unwrap();
    }
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
async fn a_full_disk_half_way_leaves_nothing() {
    let Some(disk) = SmallDisk::new() else {
        eprintln!("skipped: mounting a tmpfs takes root");
        return;
    };
    let agent = disk.0.path().join("agent");
    fs::write(&agent, b"\x7fELF").unwrap();
    let state = disk.0.path().join("state");
    let images = LocalImages::new(&state, agent).unwrap();
    let mut tar = root();
    let mut noise = vec![0; 8 << 20];
    getrandom::fill(&mut noise).unwrap();
    tar.append_data(&mut header(EntryType::Regular, noise.len() as u64), "big", &noise[..])
        .unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), finish(tar)).unwrap();
    let recipe = ImageRecipe::Tar { path: file.path().to_owned() };
    let error =
        images.make_image(OP, &recipe, quiet(), &CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.code, Code::NoSpace, "{error:?}");
    for dir in ["images", "tmp"] {
        assert_eq!(fs::read_dir(state.join(dir)).unwrap().count(), 0, "{dir}");
    }
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
async fn a_real_kernel_package_is_imported() {
    let Some(deb) = std::env::var_os("BANGER_TEST_KERNEL_DEB") else {
        eprintln!("skipped: BANGER_TEST_KERNEL_DEB names no package");
        return;
    };
    let rig = Rig::new();
    let recipe = KernelRecipe::Packages { paths: vec![deb.into()] };
    let progress: ProgressSink = Arc::new(|line| eprintln!("{line}"));
    let made =
        rig.images.make_kernel(OP, &recipe, progress, &CancellationToken::new()).await.unwrap();
    eprintln!("{made:?}");
    assert!(made.modules >= 8 && made.size.mib() > 20 && made.distro == "debian");
    rig.images.verify_kernel(made.digest).await.unwrap();
}

#[tokio::test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
async fn a_real_archive_is_imported() {
    let Some(tar) = std::env::var_os("BANGER_TEST_TAR") else {
        eprintln!("skipped: BANGER_TEST_TAR names no archive");
        return;
    };
    let rig = Rig::new();
    for _ in 0..2 {
        let start = std::time::Instant::now();
        let made = rig.make(ImageRecipe::Tar { path: tar.clone().into() }).await.unwrap();
        eprintln!("{:?}: {made:?}", start.elapsed());
        check(&rig.image(&made));
    }
    rig.files();
}

/// Builds a real image; as an ordinary user too when run as one.
#[tokio::test]
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
async fn a_real_debian_is_built() {
    let Some(suite) = std::env::var("BANGER_TEST_DEBIAN_SUITE").ok() else {
        eprintln!("skipped: BANGER_TEST_DEBIAN_SUITE names no suite to build");
        return;
    };
    let rig = Rig::new();
    let recipe = |include: &[&str]| ImageRecipe::Debian {
        suite: suite.clone(),
        include: include.iter().map(|&name| name.to_owned()).collect(),
        mirror: None,
    };
    let start = std::time::Instant::now();
    let progress: ProgressSink =
        Arc::new(move |line| eprintln!("{:6.1} {line}", start.elapsed().as_secs_f32()));
    let made = rig
        .images
        .make_image(OP, &recipe(&[]), progress.clone(), &CancellationToken::new())
        .await
        .unwrap();
    eprintln!("{made:?}");
    check(&rig.image(&made));
    let stat =
        |name: &str| ask("/sbin/debugfs", &["-R", &format!("stat {name}")], &rig.image(&made));
    assert!(stat("/usr/bin/su").contains("Mode:  04755"));
    assert!(stat("/etc/shadow").contains("User:     0   Group:    42"), "{}", stat("/etc/shadow"));
    assert!(stat("/etc/resolv.conf").contains("not found"));

    // Cancelled amidst the work: nothing stays, not even a process.
    let cancel = CancellationToken::new();
    let stop = cancel.clone();
    let sink: ProgressSink = Arc::new(move |line| {
        if line.contains("installing essential") {
            stop.cancel();
        }
    });
    let error = rig.images.make_image(OP, &recipe(&[]), sink, &cancel).await.unwrap_err();
    assert_eq!(error.code, Code::Cancelled, "{error:?}");
    assert_eq!(rig.files().len(), 1);
    let left = fs::read_dir("/var/tmp").unwrap().flatten().map(|entry| entry.file_name());
    let ours = format!("banger-build-{}-{}-", nix::unistd::geteuid(), std::process::id());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with(&ours)).collect();
    assert!(left.is_empty(), "{left:?}");

    let error = rig.make(recipe(&["no-such-package-at-all"])).await.unwrap_err();
    assert!(chain(&error).contains("mmdebstrap") && !error.detail.is_empty(), "{error:?}");
    eprintln!("{error:?}\n{}", error.detail.join("\n"));
    assert_eq!(rig.files().len(), 1);
}
