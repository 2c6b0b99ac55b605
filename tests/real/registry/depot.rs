//! Debian's docker-registry in the network namespace of a host, and images for it.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Host, Running, busybox_tar, noise, sha256, until};

/// In a namespace of its own every port is free.
pub(crate) const DEPOT: &str = "127.0.0.1:5000";
const UP: Duration = Duration::from_secs(30);
/// Noise, so that it takes as much packed.
pub(crate) const LARGE: usize = 12 << 20;

pub(crate) struct Depot {
    _process: Running,
}

/// How a registry is spoken to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Door {
    pub(crate) tls: bool,
    pub(crate) password: bool,
}

impl Depot {
    pub(crate) fn start(host: &Host, door: Door) -> Self {
        let dir = host.dir.join("depot");
        fs::create_dir_all(&dir).unwrap();
        let at = |name: &str| dir.join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n",
            at("data")
        );
        if door.password {
            let made = host.inside("htpasswd", &["-Bbc", &at("users"), "me", "pass:word"]);
            made.ok();
            config += &format!("auth: {{htpasswd: {{realm: depot, path: {}}}}}\n", at("users"));
        }
        config += &format!("http:\n  addr: {DEPOT}\n");
        if door.tls {
            certificates(host, &dir);
            config += &format!(
                "  tls: {{certificate: {}, key: {}}}\n",
                at("server.pem"),
                at("server.key")
            );
        }
        fs::write(dir.join("config.yml"), config).unwrap();
        let mut command = host.command("docker-registry", &["serve", &at("config.yml")]);
        let log = fs::File::create(dir.join("log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = Running::start(&mut command);
        let (name, port) = DEPOT.split_once(':').unwrap();
        let dial = format!("exec 3<>/dev/tcp/{name}/{port}");
        until("the registry listens", UP, || host.inside("bash", &["-c", &dial]).code == Some(0));
        Self { _process: process }
    }
}

/// An authority and what it says of the registry.
fn certificates(host: &Host, dir: &Path) {
    let script = "set -e; cd \"$0\"\n\
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
            -keyout ca.key -out ca.pem -subj /CN=authority\n\
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
            -keyout server.key -out server.csr -subj /CN=depot\n\
        printf 'subjectAltName=IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\n' > ext\n\
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
            -extfile ext -out server.pem";
    host.inside("bash", &["-c", script, &dir.display().to_string()]).ok();
    for dir in [dir, &dir.join("ca.pem")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Adds a blob to a layout, and answers how documents speak of it.
fn blob(layout: &Path, kind: &str, bytes: &[u8]) -> Value {
    let digest = sha256(bytes);
    fs::write(layout.join("blobs/sha256").join(&digest), bytes).unwrap();
    json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": bytes.len()})
}

fn archive(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    for (name, mode, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        tar.append_data(&mut header, name, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Busybox, a large layer, a small one that says `word`; for this platform beside one that is not.
pub(crate) fn layout(host: &Host, name: &str, word: &str) -> PathBuf {
    let layout = host.dir.join(name);
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let lower = fs::read(busybox_tar()).unwrap();
    let large = archive(&[("srv/noise", 0o644, &noise(LARGE))]);
    let hello = format!("#!/bin/sh\necho {word}\n");
    let upper = archive(&[("usr/bin/hello", 0o755, hello.as_bytes())]);
    let mut gz = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    gz.write_all(&lower).unwrap();
    let kind = "application/vnd.oci.image.layer.v1.tar";
    let layers = [
        blob(&layout, &format!("{kind}+gzip"), &gz.finish().unwrap()),
        blob(&layout, kind, &large),
        blob(&layout, &format!("{kind}+zstd"), &zstd::encode_all(&upper[..], 3).unwrap()),
    ];
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let diffs = [&lower, &large, &upper].map(|bytes| format!("sha256:{}", sha256(bytes)));
    let manifest = |arch: &str| {
        let config = json!({"os": "linux", "architecture": arch, "config": {"Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diffs}});
        let kind = "application/vnd.oci.image.config.v1+json";
        let config = blob(&layout, kind, config.to_string().as_bytes());
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config,
            "layers": layers});
        let mut manifest = blob(&layout, kind, manifest.to_string().as_bytes());
        manifest["platform"] = json!({"os": "linux", "architecture": arch});
        manifest
    };
    let kind = "application/vnd.oci.image.index.v1+json";
    let inner = json!({"schemaVersion": 2, "mediaType": kind,
        "manifests": [manifest("riscv64"), manifest(arch)]});
    let inner = blob(&layout, kind, inner.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [inner]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    layout
}

/// The one image of a layout.
pub(crate) fn push_layout(host: &Host, layout: &Path, reference: &str, door: Door) {
    push(host, &layout.display().to_string(), reference, door);
}

/// As the only layer of an image, so that its blob has a URL. Answers its digest.
pub(crate) fn publish(host: &Host, repository: &str, bytes: &[u8]) -> String {
    let layout = host.dir.join(format!("{repository}-layout"));
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    // What is packed already is pushed as it is.
    let layer = blob(&layout, "application/vnd.oci.image.layer.v1.tar+zstd", bytes);
    let digest = sha256(bytes);
    let config = json!({"os": "linux", "architecture": "amd64",
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{digest}")]}});
    let kind = "application/vnd.oci.image.config.v1+json";
    let config = blob(&layout, kind, config.to_string().as_bytes());
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config,
        "layers": [layer]});
    let manifest = blob(&layout, kind, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    push_layout(host, &layout, &format!("{repository}:1"), Door::default());
    digest
}

/// With all platforms that are in it.
pub(crate) fn push(host: &Host, layout: &str, reference: &str, door: Door) {
    let (from, to) = (format!("oci:{layout}"), format!("docker://{DEPOT}/{reference}"));
    let mut args = vec!["--insecure-policy", "copy", "-q", "--all", "--dest-tls-verify=false"];
    if door.password {
        args.push("--dest-creds=me:pass:word");
    }
    args.extend([from.as_str(), &to]);
    host.inside("skopeo", &args).ok();
}
