//! Files for a host: a tar on a disk that is plugged in, unpacked and pulled out again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::cache::key;
use crate::machine::Machine;
use crate::stock;

const LIMIT: Duration = Duration::from_secs(120);

/// Files to bring in: where to in the host's `/opt`, and the file here.
#[derive(Debug)]
pub(crate) struct Payload(Vec<(String, PathBuf)>);

/// Of a VMM that is no part of Debian and is brought in where it is named.
const FIRECRACKER: [(&str, &str); 2] =
    [("firecracker", "FIRECRACKER_BIN"), ("jailer", "JAILER_BIN")];

fn named(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The variable that is missing, where one is.
pub(crate) fn firecracker() -> Result<(), String> {
    let missing = FIRECRACKER.iter().find(|(_, variable)| named(variable).is_none());
    missing.map_or(Ok(()), |(_, variable)| Err(format!("{variable} does not name a program")))
}

impl Payload {
    /// The four programs; or the missing thing, where there is one.
    pub(crate) fn programs() -> Result<Vec<(&'static str, PathBuf)>, &'static str> {
        let agent = stock::agent().ok_or("the static agent is not built (scripts/test.sh does)")?;
        let built = [
            ("banger", env!("CARGO_BIN_EXE_banger")),
            ("bangerd", env!("CARGO_BIN_EXE_bangerd")),
            ("banger-helper", env!("CARGO_BIN_EXE_banger-helper")),
        ];
        // Those that were built with the tests, unless it is their speed that is of interest.
        let others = named("BANGER_TEST_PROGRAMS");
        let program = |(name, path): (&'static str, &str)| {
            (name, others.as_ref().map_or_else(|| path.into(), |folder| folder.join(name)))
        };
        Ok(built.into_iter().map(program).chain([("banger-agent", agent)]).collect())
    }

    /// What banger is installed from; or the missing thing, where there is one.
    pub(crate) fn find() -> Result<Self, &'static str> {
        let mut files = Self::programs()?;
        let kernel =
            stock::kernel_package().ok_or("no kernel package (scripts/test.sh fetches it)")?;
        files.extend([("kernel.deb", kernel), ("tiny.tar", stock::busybox_tar())]);
        for (name, variable) in FIRECRACKER {
            files.extend(named(variable).map(|path| (name, path)));
        }
        let to = |(name, path): (&str, PathBuf)| (format!("banger/{name}"), path);
        Ok(Self(files.into_iter().map(to).collect()))
    }

    /// Any files, each by its own name.
    pub(crate) fn files(paths: &[PathBuf]) -> Self {
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        Self(paths.iter().map(|path| (format!("files/{}", name(path)), path.clone())).collect())
    }

    pub(crate) fn key(&self) -> String {
        key(self.0.iter().flat_map(|(name, path)| [name.as_bytes().to_vec(), read(path)]))
    }

    fn write(&self, to: &Path) {
        let mut tar = tar::Builder::new(File::create(to).unwrap());
        for (name, path) in &self.0 {
            let light = to.with_extension("light");
            let from = if lightened(path, &light) { &light } else { path };
            tar.append_path_with_name(from, format!("opt/{name}")).unwrap();
            drop(fs::remove_file(&light));
        }
        // Ends with zeros up to a whole number of sectors.
        tar.into_inner().unwrap();
    }
}

/// The same in less time for an emulated host: a package packed by what unpacks in a tenth of the
/// time, a program without what only a debugger reads.
fn lightened(from: &Path, to: &Path) -> bool {
    let well = |command: &mut Command| {
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if from.extension().is_none_or(|extension| extension != "deb") {
        return well(Command::new("strip").arg("--strip-debug").arg("-o").arg(to).arg(from));
    }
    let tree = to.with_extension("tree");
    let unpack = |tree| well(Command::new("dpkg-deb").arg("-R").arg(from).arg(tree));
    let pack = ["-Zzstd", "-z1", "--root-owner-group", "-b"];
    let done = unpack(&tree) && well(Command::new("dpkg-deb").args(pack).arg(&tree).arg(to));
    drop(fs::remove_dir_all(&tree));
    done
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

impl Machine {
    pub(crate) fn bring_in(&mut self, payload: &Payload) {
        let through = self.file("payload.tar");
        payload.write(&through);
        let file = json!({"driver": "file", "filename": through, "locking": "off"});
        let node =
            json!({"driver": "raw", "node-name": "payload", "read-only": true, "file": file});
        self.ask("blockdev-add", node);
        let device = json!({"driver": "virtio-blk-pci", "id": "payload", "drive": "payload",
            "bus": "plug", "serial": "payload"});
        self.ask("device_add", device);
        let disk = "/dev/disk/by-id/virtio-payload";
        let unpack = format!("udevadm wait --timeout=60 {disk} && tar -xf {disk} -C /");
        self.run(&unpack, LIMIT).ok();
        self.ask("device_del", json!({"id": "payload"}));
        // The host lets go of the device in its own time.
        let deadline = Instant::now() + LIMIT;
        while let Err(error) = self.try_ask("blockdev-del", json!({"node-name": "payload"})) {
            assert!(Instant::now() < deadline, "{error}");
            std::thread::sleep(Duration::from_millis(100));
        }
        fs::remove_file(through).unwrap();
    }
}
