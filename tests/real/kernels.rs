//! Kernels by the name of Debian's package: a daemon without privilege, apt itself, a real package, an
//! archive of the test's own.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Host, Settings, kernel_package, new_host, sha256, until};

const META: &str = "linux-image-cloud-amd64";

/// The package, and one that stands for it, as apt finds them; answers the package's name.
fn archive(dir: &Path, deb: &Path) -> String {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    for part in ["repo", "etc/apt.conf.d", "etc/preferences.d", "etc/trusted.gpg.d"] {
        fs::create_dir_all(dir.join(part)).unwrap();
    }
    let file = deb.file_name().unwrap().to_str().unwrap();
    let mut words = file.split('_');
    let (package, version) = (words.next().unwrap(), words.next().unwrap());
    let bytes = fs::read(deb).unwrap();
    fs::write(dir.join("repo").join(file), &bytes).unwrap();
    let entry = |name: &str, depends: &str| {
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@x>\n\
             {depends}Description: x\nFilename: ./{file}\nSize: {}\nSHA256: {}\n\n",
            bytes.len(),
            sha256(&bytes),
        )
    };
    let points = format!("Depends: {package} (= {version})\n");
    let index = entry(package, "") + &entry(META, &points);
    fs::write(dir.join("repo/Packages"), index).unwrap();
    let repo = dir.join("repo").display().to_string();
    fs::write(dir.join("etc/sources.list"), format!("deb [trusted=yes] copy:{repo} ./\n")).unwrap();
    let config = format!("Dir::Etc \"{}/etc/\";\nDir::Etc::sourceparts \"-\";\n", dir.display());
    fs::write(dir.join("apt.conf"), config).unwrap();
    package.to_owned()
}

fn kernel(host: &Host, name: &str) -> Value {
    let shown = host.banger(&["kernel", "show", name, "--json"]).ok();
    serde_json::from_str(&shown).unwrap()
}

fn in_progress(host: &Host) -> usize {
    fs::read_dir(host.dir.join("s/tmp")).map_or(0, Iterator::count)
}

#[test]
fn a_kernel_is_pulled_through_the_hosts_own_sources_and_what_is_here_is_not_fetched_again() {
    if !Path::new("/usr/bin/apt-get").exists() {
        eprintln!("skipped: this host has no apt");
        return;
    }
    let Some(deb) = kernel_package() else {
        eprintln!("skipped: no kernel package (scripts/test.sh fetches it)");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let package = archive(dir.path(), &deb);
    let config = format!("apt_config = \"{}\"", dir.path().join("apt.conf").display());
    let mut host = new_host!(Settings { config, stocked: false, ..Settings::default() });

    // A daemon that dies in the middle leaves nothing behind, and the next one does it again.
    let mut pull = host.banger_command(&["kernel", "pull", META]);
    let pull = pull.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let pull = pull.spawn().unwrap();
    until("work has begun", Duration::from_secs(60), || in_progress(&host) > 0);
    host.kill_daemon();
    host.start_daemon();
    let cut_short = pull.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&cut_short.stderr);
    assert!(!cut_short.status.success(), "{said}");
    assert_eq!(in_progress(&host), 0, "{said}");
    assert_eq!(host.banger(&["kernel", "list", "-q"]).ok(), "");
    let ops = host.banger(&["ops", "list"]).ok();
    assert!(ops.contains("kernel-pull") && !ops.contains("running"), "{ops}");

    let pulled = host.banger(&["kernel", "pull", META]).expect(0);
    assert_eq!(pulled.stdout, format!("{META}\n"));
    assert!(pulled.stderr.contains(&format!("downloading {package}")), "{}", pulled.stderr);
    let first = kernel(&host, META);
    assert!(
        first["source"].as_str().unwrap().starts_with(&format!("debian {package} ")),
        "{first}"
    );
    let features = first["features"].as_array().unwrap();
    let overlay = features.iter().find(|one| one["option"] == "CONFIG_OVERLAY_FS").unwrap();
    assert_eq!(overlay["support"], "module");
    let again = host.banger(&["kernel", "pull", META]).expect(0);
    assert!(again.stderr.contains("is here already"), "{}", again.stderr);
    assert!(!again.stderr.contains("downloading"), "{}", again.stderr);
    // It is the one that an import of the package makes, and nothing of the pull is left.
    let file = dir.path().join("repo").join(deb.file_name().unwrap()).display().to_string();
    host.banger(&["kernel", "import", "imported", &file]).ok();
    assert_eq!(kernel(&host, "imported")["digest"], first["digest"]);
    assert_eq!(in_progress(&host), 0);
    let missing = host.banger(&["kernel", "pull", "linux-image-nope"]).expect(4);
    assert!(missing.stderr.contains("apt-cache search linux-image"), "{}", missing.stderr);
}
