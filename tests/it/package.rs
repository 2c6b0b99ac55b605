//! The Debian package, as `scripts/package.sh` packs it: what is in it, whose it is, what it runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

#[allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for them")]
fn command(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(words);
    command
}

/// Packs the programs of this build. The agent is any program: it is not run here.
fn package(dir: &Path) -> PathBuf {
    let programs = dir.join("programs");
    std::fs::create_dir(&programs).unwrap();
    for (name, path) in [
        ("banger", env!("CARGO_BIN_EXE_banger")),
        ("bangerd", env!("CARGO_BIN_EXE_bangerd")),
        ("banger-helper", env!("CARGO_BIN_EXE_banger-helper")),
        ("banger-agent", env!("CARGO_BIN_EXE_banger-helper")),
    ] {
        std::os::unix::fs::symlink(path, programs.join(name)).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/package.sh");
    let (programs, out) = (programs.display().to_string(), dir.join("out").display().to_string());
    let mut pack = command(script.to_str().unwrap(), &["--programs", &programs, "--out", &out]);
    pack.env("DPKG_DEB_COMPRESSOR_TYPE", "none");
    let said = run(&mut pack);
    PathBuf::from(said.lines().last().unwrap())
}

#[test]
fn a_package_has_the_programs_and_what_sets_them_up() {
    if run(&mut command("sh", &["-c", "command -v dpkg-deb || true"])).is_empty() {
        return eprintln!("skipped: dpkg-deb is not installed");
    }
    let dir = tempfile::tempdir().unwrap();
    let package = package(dir.path());
    let version = env!("CARGO_PKG_VERSION");
    let name = package.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with(&format!("banger_{version}_")), "{name}");
    let path = package.to_str().unwrap();

    let field = |name| run(&mut command("dpkg-deb", &["-f", path, name])).trim().to_owned();
    assert_eq!((field("Package"), field("Version")), ("banger".into(), version.into()));
    let depends = field("Depends");
    assert!(depends.contains("libc6 (>= 2."), "{depends}");
    assert!(depends.contains("e2fsprogs") && depends.contains("systemd"), "{depends}");
    assert!(field("Installed-Size").parse::<u64>().unwrap() > 1000);
    assert!(!field("Description").contains('@'));

    let listed = run(&mut command("dpkg-deb", &["-c", path]));
    let files: BTreeSet<String> = listed
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|words| !words[0].starts_with('d'))
        .map(|words| format!("{} {} {}", words[0], words[1], words[5]))
        .collect();
    let program = |path: &str| format!("-rwxr-xr-x root/root ./usr/{path}");
    let text = |path: &str| format!("-rw-r--r-- root/root ./usr/share/doc/banger/{path}");
    let expected = BTreeSet::from([
        program("bin/banger"),
        program("lib/banger/bangerd"),
        program("lib/banger/banger-helper"),
        program("lib/banger/banger-agent"),
        text("README.md"),
        text("copyright"),
    ]);
    assert_eq!(files, expected);
    for line in listed.lines().filter(|line| line.starts_with('d')) {
        assert!(line.starts_with("drwxr-xr-x root/root"), "{line}");
    }

    let control = dir.path().join("control");
    run(&mut command("dpkg-deb", &["-e", path, control.to_str().unwrap()]));
    let names = std::fs::read_dir(&control).unwrap().map(|entry| entry.unwrap().file_name());
    let names: BTreeSet<_> = names.map(|name| name.into_string().unwrap()).collect();
    assert_eq!(
        names.into_iter().collect::<Vec<_>>().join(" "),
        "control md5sums postinst postrm prerm"
    );
    for script in ["postinst", "prerm", "postrm"] {
        run(&mut command("sh", &["-n", control.join(script).to_str().unwrap()]));
    }
}
