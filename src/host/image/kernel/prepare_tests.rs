//! Kernels from made-up packages and directories; the real package is `local_tests.rs`'s.

use std::path::PathBuf;
use std::sync::Arc;

use super::super::bzimage::tests::elf;
use super::super::deb::tests::package;
use super::super::modules::tests::module;
use super::*;

fn quiet() -> ProgressSink {
    Arc::new(|_| {})
}

fn write(bytes: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    file
}

fn import(deb: &[u8]) -> Result<Prepared, HostError> {
    import_all(&[deb])
}

fn import_all(packages: &[&[u8]]) -> Result<Prepared, HostError> {
    let files: Vec<_> = packages.iter().map(|package| write(package)).collect();
    let paths: Vec<_> = files.iter().map(|file| file.path().to_owned()).collect();
    from_packages(&paths, tempfile::tempfile().unwrap(), &quiet(), &CancellationToken::new())
}

fn kernel() -> Vec<u8> {
    let mut elf = elf();
    elf.extend(
        b"Linux version %s (%s)\nLinux version 6.1.0-9-cloud-amd64 (debian-kernel@x) #1\n\0",
    );
    elf
}

fn modules() -> Vec<(&'static str, Vec<u8>)> {
    let zst = |bytes: Vec<u8>| zstd::encode_all(&bytes[..], 1).unwrap();
    vec![
        ("lib/modules/6.1.0-9-cloud-amd64/modules.builtin", b"kernel/fs/ext4/ext4.ko\n".to_vec()),
        ("lib/modules/6.1.0-9-cloud-amd64/kernel/virtio_blk.ko.zst", zst(module("virtio"))),
        ("lib/modules/6.1.0-9-cloud-amd64/kernel/virtio.ko", module("")),
        ("lib/modules/6.1.0-9-cloud-amd64/kernel/virtio_mmio.ko", module("virtio")),
        ("lib/modules/6.1.0-9-cloud-amd64/kernel/overlay.ko", module("")),
        ("lib/modules/6.1.0-9-cloud-amd64/kernel/virtio_net.ko", module("virtio,net_failover")),
        ("lib/modules/6.1.0-9-cloud-amd64/kernel/net_failover.ko", module("")),
        ("lib/modules/6.1.0-9-cloud-amd64/kernel/unrelated.ko", module("")),
    ]
}

#[test]
fn a_package_becomes_a_kernel_with_its_modules() {
    let mut files = modules();
    files.push(("boot/vmlinuz-6.1.0-9-cloud-amd64", kernel()));
    let made = import(&package("Package: linux-image-x\n", &files)).unwrap();
    assert_eq!(made.version, "6.1.0-9-cloud-amd64");
    assert_eq!(made.distro, "debian");
    let wanted = ["virtio", "virtio_mmio", "virtio_blk", "overlay", "net_failover", "virtio_net"];
    assert_eq!(made.module_names, wanted);
    assert!(config::find(&made.modules, b"modules/010-virtio_mmio.ko").is_some());
}

#[test]
fn a_package_that_only_depends_names_the_real_one() {
    let control =
        "Package: linux-image-cloud-amd64\nDepends: linux-image-6.1.0-9-cloud-amd64 (= 6.1)\n";
    let error = import(&package(control, &[("usr/share/doc/x", b"y".to_vec())])).unwrap_err();
    assert_eq!(error.code, Code::Invalid);
    assert_eq!(error.hints, ["apt-get download linux-image-6.1.0-9-cloud-amd64"]);
}

#[test]
fn a_kernel_that_cannot_serve_is_refused_by_what_it_lacks() {
    let mut files = modules();
    files.retain(|(name, _)| !name.ends_with("virtio_net.ko"));
    files.push(("boot/vmlinuz-6.1.0-9-cloud-amd64", kernel()));
    let error = import(&package("Package: x\n", &files)).unwrap_err();
    let said = crate::model::chain(&error);
    assert!(said.contains("it lacks CONFIG_VIRTIO_NET, which every VM needs"), "{said}");
    let error = import(&package("Package: x\n", &[("boot/vmlinuz-1", b"junk".to_vec())]));
    assert!(crate::model::chain(&error.unwrap_err()).contains("neither"));
}

#[test]
fn damaged_packages_are_refused() {
    let mut files = modules();
    files.push(("boot/vmlinuz-6.1.0-9-cloud-amd64", kernel()));
    let deb = package("Package: x\n", &files);
    for len in (0..deb.len() - 1).step_by(97) {
        let error = import(&deb[..len]).unwrap_err();
        assert!(matches!(error.code, Code::Corrupt | Code::Invalid), "{len}: {error:?}");
    }
    let mut files = modules();
    files.push(("lib/modules/6.1.0-9-cloud-amd64/kernel/bad.ko", b"no elf".to_vec()));
    assert_eq!(import(&package("Package: x\n", &files)).unwrap_err().code, Code::Corrupt);
}

#[test]
fn files_and_a_modules_directory_do_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("6.1.0-9-cloud-amd64");
    for (name, bytes) in modules() {
        let path = dir.path().join(name.strip_prefix("lib/modules/").unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    let kernel_file = write(&kernel());
    let import = |modules: Option<PathBuf>| {
        let spill = tempfile::tempfile().unwrap();
        let cancel = CancellationToken::new();
        from_files(kernel_file.path(), modules.as_deref(), spill, &quiet(), &cancel)
    };
    assert_eq!(import(Some(tree)).unwrap().module_names.len(), 6);
    let alone = import(None).unwrap();
    assert_eq!((alone.version.as_str(), alone.modules.len()), ("6.1.0-9-cloud-amd64", 0));
    assert_eq!(import(Some(dir.path().join("none"))).unwrap_err().code, Code::NotFound);
}

#[test]
fn a_cancelled_import_says_so() {
    let file = write(&package("Package: x\n", &modules()));
    let cancel = CancellationToken::new();
    cancel.cancel();
    let made =
        from_packages(&[file.path().into()], tempfile::tempfile().unwrap(), &quiet(), &cancel);
    assert_eq!(made.unwrap_err().code, Code::Cancelled);
}

#[test]
fn a_kernel_may_come_in_several_packages_of_either_form() {
    let version = "6.1.0-9-cloud-amd64";
    let at_home = format!("lib/modules/{version}/vmlinuz");
    let whole = import(&package("Package: x\n", &{
        let mut files = modules();
        files.push(("boot/vmlinuz-6.1.0-9-cloud-amd64", kernel()));
        files
    }));
    let whole = whole.unwrap();
    // As distributions have it, the list of what is built in comes with the kernel.
    let mut alone = modules();
    let mut with_kernel = vec![alone.remove(0)];
    with_kernel.push((&at_home, kernel()));
    for (one, other) in [
        (rpm::tests::package(&with_kernel), rpm::tests::package(&alone)),
        (package("Package: k\n", &with_kernel), package("Package: m\n", &alone)),
    ] {
        for order in [[&one[..], &other], [&other, &one]] {
            let made = import_all(&order).unwrap();
            assert_eq!((&made.version, &made.modules), (&whole.version, &whole.modules));
        }
        let alone = import(&one).unwrap_err();
        assert!(alone.hints.iter().any(|hint| hint.contains("of their own")), "{alone:?}");
        assert!(crate::model::chain(&import(&other).unwrap_err()).contains("no kernel"));
    }
    let older = rpm::tests::package(&[("lib/modules/5.10.0/vmlinuz", kernel())]);
    let two = import_all(&[&older, &rpm::tests::package(&modules())]).unwrap_err();
    assert!(crate::model::chain(&two).contains("two kernels, 5.10.0 and 6.1.0-9"), "{two:?}");
}

#[test]
fn what_a_package_says_of_its_configuration_is_known() {
    use KernelFeature as F;
    use KernelSupport as S;
    let (version, text) = ("6.1.0-9-cloud-amd64", "CONFIG_INET=y\nCONFIG_SQUASHFS=m\n");
    let more = "CONFIG_BLK_DEV_INITRD=y\nCONFIG_DEVTMPFS=y\nCONFIG_UNIX=y\nCONFIG_EXT4_FS=y\n";
    let text = format!("{text}{more}").into_bytes();
    let features = |extra: &[(&str, Vec<u8>)], kernel: Vec<u8>| {
        let mut files = modules();
        files.push(("boot/vmlinuz-6.1.0-9-cloud-amd64", kernel));
        files.extend(extra.iter().cloned());
        import(&package("Package: x\n", &files)).map(|made| made.features)
    };
    let (boot, tree) = (format!("boot/config-{version}"), format!("lib/modules/{version}/config"));
    let ikconfig = [kernel(), config::tests::ikconfig(&text)].concat();
    for known in [
        features(&[(&boot, text.clone())], kernel()).unwrap(),
        features(&[(&tree, text.clone())], kernel()).unwrap(),
        features(&[], ikconfig).unwrap(),
    ] {
        let said = [F::Inet, F::Squashfs, F::Overlay, F::Ext4, F::Acpi, F::Pvh];
        let said = said.map(|feature| known.of(feature));
        assert_eq!(said, [S::BuiltIn, S::LeftOut, S::Module, S::BuiltIn, S::No, S::No]);
    }
    // Without one, modules are known and what is never one is not.
    let unknown = features(&[], kernel()).unwrap();
    let said = [F::Inet, F::Squashfs, F::Overlay, F::Ext4].map(|feature| unknown.of(feature));
    assert_eq!(said, [S::Unknown, S::No, S::Module, S::BuiltIn]);
    // One that is no configuration says nothing, and one without end is refused.
    let junk = features(&[(&boot, b"\0junk".to_vec())], kernel()).unwrap();
    assert_eq!(junk, unknown);
    let endless = vec![b'#'; usize::try_from(config::LARGEST).unwrap() + 1];
    assert!(features(&[(&boot, endless)], kernel()).is_err());
    let lacks = features(&[(&boot, b"CONFIG_INET=y\n".to_vec())], kernel()).unwrap_err();
    let said = crate::model::chain(&lacks);
    assert!(
        said.contains("lacks CONFIG_BLK_DEV_INITRD, CONFIG_DEVTMPFS, CONFIG_UNIX, which every"),
        "{said}"
    );
}
