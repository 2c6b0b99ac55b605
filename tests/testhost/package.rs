//! What the package's scenario brings: two packages of this build, one newer than the other, and what a
//! guest is made from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::payload::Payload;
use crate::stock;

/// The directory goes with the value.
#[derive(Debug)]
pub(crate) struct Packages {
    pub(crate) files: Vec<PathBuf>,
    _dir: tempfile::TempDir,
}

impl Packages {
    /// Or the missing thing, where there is one.
    pub(crate) fn build() -> Result<Self, &'static str> {
        let programs = Payload::programs()?;
        let kernel = stock::kernel_package().ok_or("no kernel package")?;
        let dir = tempfile::tempdir().unwrap();
        let mut files = vec![kernel, dir.path().join("tiny.tar")];
        fs::copy(stock::busybox_tar(), &files[1]).unwrap();
        let from = dir.path().join("programs");
        fs::create_dir(&from).unwrap();
        for (version, more) in [("0.1.0", ""), ("0.1.1", "\n")] {
            for (name, path) in &programs {
                let bytes = [fs::read(path).unwrap(), more.into()].concat();
                // A program is replaced, never written over: it may be another's that runs.
                let to = from.join(name);
                drop(fs::remove_file(&to));
                fs::write(&to, bytes).unwrap();
            }
            files.push(pack(&from, version, dir.path()));
        }
        Ok(Self { files, _dir: dir })
    }
}

fn pack(programs: &Path, version: &str, out: &Path) -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/package.sh");
    let mut command = Command::new(script);
    command.arg("--programs").arg(programs).arg("--out").arg(out).args(["--version", version]);
    // What an emulated host unpacks soonest.
    command.env("DPKG_DEB_COMPRESSOR_TYPE", "zstd").env("DPKG_DEB_COMPRESSOR_LEVEL", "1");
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{command:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    PathBuf::from(said.lines().last().unwrap())
}
