//! An image from a registry until it is a disk, beside the tools that one would do it with by hand:
//! `skopeo copy`, `umoci unpack`, `mke2fs -d`. The registry is Debian's, on loopback.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::simulated::simulated;
use super::table::{Table, median, ms};

const FILES: usize = 10_000;
const CONTENT: usize = 400 << 20;
const LAYERS: usize = 5;
const ROUNDS: usize = 3;
const RUNS: usize = 40;
const LIMIT: Duration = Duration::from_secs(30);
const TOOLS: [&str; 4] = ["docker-registry", "skopeo", "umoci", "mke2fs"];

pub(crate) fn measure(table: &mut Table) {
    cached(table);
    let missing = |tool: &&&str| !in_path(tool);
    if let Some(tool) = TOOLS.iter().find(missing) {
        return eprintln!("registries: skipped, there is no {tool}");
    }
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let depot = Depot::start(dir.path());
    let content = Content::of_this_host();
    let mut layout = Layout::new(dir.path().join("layout"));
    let mut layers: Vec<_> = (0..LAYERS).map(|n| layout.layer(&content.layer(n))).collect();
    layout.image("one", &layers);
    layers.truncate(LAYERS - 1);
    layers.push(layout.layer(&content.layer(LAYERS)));
    layout.image("two", &layers);
    let packed: u64 = layers.iter().map(|layer| layer.size).sum();
    for tag in ["one", "two"] {
        let from = format!("oci:{}:{tag}", layout.dir.display());
        run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q"]).args([
            "--dest-tls-verify=false",
            &from,
            &format!("docker://{}/app:{tag}", depot.address),
        ]));
    }
    let (mut ours, mut peers, mut peak, mut written) = (vec![], vec![], 0, 0);
    for round in 0..ROUNDS {
        // Clean pages, and the registry's files in memory, for both.
        run(&mut Command::new("sync"));
        let daemon = Puller::start(dir.path(), &depot.address, round);
        let before = daemon.written();
        ours.push(daemon.pull("one"));
        peak = peak.max(daemon.peak_kib());
        written = daemon.written() - before;
        let asked = depot.blobs_asked_for();
        daemon.pull("two");
        let again = depot.blobs_asked_for() - asked;
        if round == 0 {
            let what = "blobs asked for by an image that shares all but one layer";
            // Its configuration and the layer that is its own.
            table.row(what, format!("{again}"), "2", again == 2);
        }
        drop(daemon);
        run(&mut Command::new("sync"));
        peers.push(by_hand(dir.path(), &depot.address));
    }
    let (ours, by_hand) = (median(&ours), median(&peers));
    let ratio = ours.as_secs_f64() / by_hand.as_secs_f64();
    table.row(
        "image pull, 10,000 files, 400 MiB, until it can be booted",
        format!("{}; skopeo, umoci, mke2fs {}", ms(ours), ms(by_hand)),
        format!("<= 0.5 of those (is {ratio:.2})"),
        ratio <= 0.5,
    );
    let mib = |bytes: u64| bytes >> 20;
    let what = "image pull, peak memory of the daemon";
    table.row(what, format!("{} MiB", peak >> 10), "< 128 MiB", peak < 128 << 10);
    let content = packed + CONTENT as u64;
    let ratio = hundredths(written, content);
    table.row(
        "image pull, bytes written",
        format!(
            "{} MiB for {} MiB packed and {} MiB unpacked",
            mib(written),
            mib(packed),
            mib(CONTENT as u64)
        ),
        format!("<= 1.2 of both (is {ratio})"),
        written * 10 <= content * 12,
    );
}

fn hundredths(part: u64, of: u64) -> String {
    let percent = part * 100 / of;
    format!("{}.{:02}", percent / 100, percent % 100)
}

fn wait_for(socket: &Path) {
    let began = Instant::now();
    while UnixStream::connect(socket).is_err() {
        assert!(began.elapsed() < LIMIT, "no daemon on {}", socket.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn in_path(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(tool).is_file())
}

fn run(command: &mut Command) {
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).status().unwrap();
    assert!(ended.success(), "{command:?}: {ended}");
}

/// What `vm run --image` takes longer with an image of a registry that is here than with a local one.
/// A simulated host, whose machines boot in no time, shows what the daemon and the CLI do for it.
fn cached(table: &mut Table) {
    let dir = tempfile::tempdir().unwrap();
    let (_daemon, socket) = simulated(dir.path());
    wait_for(&socket);
    let banger = |args: &[&str]| {
        let began = Instant::now();
        run(Command::new(env!("CARGO_BIN_EXE_banger"))
            .args(args)
            .env_remove("BANGER_CONFIG")
            .env("BANGER_SOCKET", &socket)
            .stderr(Stdio::null()));
        began.elapsed()
    };
    let reference = "registry.example/team/app:1";
    banger(&["kernel", "import", "debian", "/dev/null"]);
    banger(&["image", "build", "debian", "--name", "local"]);
    banger(&["image", "pull", reference]);
    let create = |image: &str| banger(&["vm", "run", "-d", "--image", image]);
    let (mut local, mut pulled) = (vec![], vec![]);
    for _ in 0..RUNS {
        local.push(create("local"));
        pulled.push(create(reference));
    }
    let (local, pulled) = (median(&local), median(&pulled));
    let added = pulled.saturating_sub(local);
    table.row(
        "vm run --image, pulled before, simulated",
        format!("{}; local image {}", ms(pulled), ms(local)),
        format!("adds < 5 ms (adds {})", ms(added)),
        added < Duration::from_millis(5),
    );
}

/// Programs and texts of this host, one after the other, so that they pack as an image's would.
struct Content(Vec<u8>);

impl Content {
    fn of_this_host() -> Self {
        let mut all = Vec::with_capacity(CONTENT);
        let mut dirs = vec![PathBuf::from("/usr/lib"), "/usr/bin".into(), "/usr/share".into()];
        while let Some(dir) = dirs.pop() {
            let Ok(entries) = fs::read_dir(dir) else { continue };
            let mut entries: Vec<_> = entries.flatten().collect();
            entries.sort_by_key(fs::DirEntry::file_name);
            for entry in entries {
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_dir() {
                    dirs.push(entry.path());
                } else if kind.is_file() && all.len() < CONTENT {
                    let Ok(file) = fs::File::open(entry.path()) else { continue };
                    let left = (CONTENT - all.len()) as u64;
                    file.take(left.min(8 << 20)).read_to_end(&mut all).unwrap();
                }
            }
        }
        let found = all.len();
        assert!(found > 64 << 20, "this host has but {found} bytes of programs and texts");
        while all.len() < CONTENT {
            let more = found.min(CONTENT - all.len());
            all.extend_from_within(..more);
        }
        Self(all)
    }

    /// A fifth of the files: of 100 one is large, nine are middling.
    fn layer(&self, number: usize) -> Vec<u8> {
        const EACH: usize = FILES / LAYERS;
        let weight = |n: usize| match n % 100 {
            0 => 250,
            1..10 => 20,
            _ => 1,
        };
        let unit = CONTENT / LAYERS / (0..EACH).map(weight).sum::<usize>();
        let mut tar = tar::Builder::new(vec![]);
        let mut at = CONTENT / LAYERS * (number % LAYERS);
        // The last layer's twin has the same names and other contents.
        let (dir, skew) = (number.min(LAYERS - 1), number / LAYERS * 512);
        for n in 0..EACH {
            let len = unit * weight(n);
            let from = (at + skew).min(self.0.len() - len);
            let mut header = tar::Header::new_ustar();
            header.set_size(len as u64);
            header.set_mode(if n % 7 == 0 { 0o755 } else { 0o644 });
            header.set_uid((n % 3 * 1000) as u64);
            header.set_mtime(1_700_000_000);
            let name = format!("srv/{dir}/{:02}/file-{n:05}", n % 40);
            tar.append_data(&mut header, name, &self.0[from..from + len]).unwrap();
            at += len;
        }
        if number == 0 {
            let mut header = tar::Header::new_ustar();
            header.set_size(0);
            header.set_mode(0o755);
            tar.append_data(&mut header, "bin/sh", &[][..]).unwrap();
        }
        tar.into_inner().unwrap()
    }
}

#[derive(Clone)]
struct Blob {
    digest: String,
    size: u64,
    diff_id: String,
}

struct Layout {
    dir: PathBuf,
    images: Vec<Value>,
}

impl Layout {
    fn new(dir: PathBuf) -> Self {
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        Self { dir, images: vec![] }
    }

    fn blob(&self, bytes: &[u8]) -> (String, u64) {
        let digest = hex(bytes);
        fs::write(self.dir.join("blobs/sha256").join(&digest), bytes).unwrap();
        (format!("sha256:{digest}"), bytes.len() as u64)
    }

    fn layer(&self, tar: &[u8]) -> Blob {
        let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::default());
        packed.write_all(tar).unwrap();
        let (digest, size) = self.blob(&packed.finish().unwrap());
        Blob { digest, size, diff_id: format!("sha256:{}", hex(tar)) }
    }

    fn image(&mut self, tag: &str, layers: &[Blob]) {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let diffs: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
        let config = json!({"os": "linux", "architecture": arch, "config": {},
            "rootfs": {"type": "layers", "diff_ids": diffs}});
        let kind = "application/vnd.oci.image";
        let part = |name: &str, (digest, size): (String, u64)| json!({"mediaType": format!("{kind}.{name}"), "digest": digest, "size": size});
        let config = part("config.v1+json", self.blob(config.to_string().as_bytes()));
        let layers: Vec<_> = layers
            .iter()
            .map(|layer| part("layer.v1.tar+gzip", (layer.digest.clone(), layer.size)))
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": format!("{kind}.manifest.v1+json"),
            "config": config, "layers": layers});
        let mut manifest = part("manifest.v1+json", self.blob(manifest.to_string().as_bytes()));
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        self.images.push(manifest);
        let index = json!({"schemaVersion": 2, "manifests": self.images});
        fs::write(self.dir.join("index.json"), index.to_string()).unwrap();
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Ended, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Depot {
    _process: Running,
    address: String,
    log: PathBuf,
}

impl Depot {
    fn start(dir: &Path) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (address, log) = (free.to_string(), dir.join("depot.log"));
        let config = format!(
            "version: 0.1\nlog: {{accesslog: {{disabled: false}}, level: error}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '{address}'}}\n",
            dir.join("depot").display()
        );
        let file = dir.join("depot.yml");
        fs::write(&file, config).unwrap();
        let out = fs::File::create(&log).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(file)
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let depot = Self { _process: Running(child), address, log };
        let began = Instant::now();
        while TcpStream::connect(&depot.address).is_err() {
            assert!(began.elapsed() < LIMIT, "no registry on {}", depot.address);
            std::thread::sleep(Duration::from_millis(20));
        }
        depot
    }

    fn blobs_asked_for(&self) -> usize {
        let log = fs::read_to_string(&self.log).unwrap();
        log.lines().filter(|line| line.contains("\"GET /v2/app/blobs/")).count()
    }
}

/// A daemon of its own, which has nothing yet.
struct Puller {
    process: Running,
    socket: PathBuf,
    address: String,
}

impl Puller {
    fn start(dir: &Path, address: &str, round: usize) -> Self {
        let dir = dir.join(format!("daemon-{round}"));
        fs::create_dir(&dir).unwrap();
        let socket = dir.join("run/bangerd.sock");
        let config = format!("[registries]\nplain_http = [\"{address}\"]\n");
        fs::write(dir.join("config.toml"), config).unwrap();
        let at = |name: &str| dir.join(name);
        let process = daemon_as_nobody(&dir)
            .arg("--config")
            .arg(at("config.toml"))
            .arg("--state-dir")
            .arg(at("state"))
            .arg("--run-dir")
            .arg(at("run"))
            .env_remove("BANGER_SOCKET")
            .env_remove("BANGER_CONFIG")
            .env("BANGER_LOG_LEVEL", "warn")
            .env("HOME", &dir)
            .stdin(Stdio::null())
            .stderr(fs::File::create(at("log")).unwrap())
            .spawn()
            .unwrap();
        let puller = Self { process: Running(process), socket, address: address.to_owned() };
        wait_for(&puller.socket);
        puller
    }

    fn pull(&self, tag: &str) -> Duration {
        let began = Instant::now();
        run(Command::new(env!("CARGO_BIN_EXE_banger"))
            .args(["image", "pull", &format!("{}/app:{tag}", self.address)])
            .env("BANGER_SOCKET", &self.socket)
            .stderr(Stdio::null()));
        began.elapsed()
    }

    fn said(&self, file: &str, key: &str) -> u64 {
        let text = fs::read_to_string(format!("/proc/{}/{file}", self.process.0.id())).unwrap();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    fn peak_kib(&self) -> u64 {
        self.said("status", "VmHWM:")
    }

    fn written(&self) -> u64 {
        self.said("io", "write_bytes:")
    }
}

/// Neither the daemon nor what it makes is root's. The process stays the same one, for it is measured.
fn daemon_as_nobody(dir: &Path) -> Command {
    use std::os::unix::fs::{PermissionsExt, chown};
    const NOBODY: u32 = 65534;
    chown(dir, Some(NOBODY), Some(NOBODY)).unwrap();
    let parent = dir.parent().unwrap();
    fs::set_permissions(parent, fs::Permissions::from_mode(0o711)).unwrap();
    let program = dir.join("bangerd");
    fs::copy(env!("CARGO_BIN_EXE_bangerd"), &program).unwrap();
    let id = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program);
    command
}

/// As root, for the owners of files.
fn by_hand(dir: &Path, address: &str) -> Duration {
    let dir = dir.join("by-hand");
    fs::create_dir(&dir).unwrap();
    let at = |name: &str| dir.join(name).display().to_string();
    let began = Instant::now();
    run(Command::new("skopeo").args(["--insecure-policy", "copy", "-q"]).args([
        "--src-tls-verify=false",
        &format!("docker://{address}/app:one"),
        &format!("oci:{}:one", at("layout")),
    ]));
    let image = format!("{}:one", at("layout"));
    run(Command::new("umoci")
        .args(["unpack", "--image", &image, &at("bundle")])
        .stderr(Stdio::null()));
    let (root, disk) = (at("bundle/rootfs"), at("disk"));
    run(Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d", &root, &disk, "600M"])
        .stderr(Stdio::null()));
    let took = began.elapsed();
    fs::remove_dir_all(&dir).unwrap();
    took
}
