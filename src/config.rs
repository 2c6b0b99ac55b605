//! What the daemon is told: a file, then the environment, then flags, made into one checked value.
//!
//! Unknown keys are refused. There are no globals: whoever needs a setting is handed it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::model::{
    DiskBackend, DiskChoice, FileSync, FileSyncText, ImageLimits, ImageRef, Name, RegistrySettings,
    RestartPolicy, Size, SpecDefaults, Subnet, VmmChoice,
};

/// A Unix socket's path ends at 108 bytes; what lies below the run directory needs 32 of them.
const MAX_RUN_DIR_BYTES: usize = 76;
/// A link name has 15 bytes at most, and a tap's slot number takes up to five.
const MAX_TAP_PREFIX_BYTES: usize = 10;

#[derive(Clone, Debug)]
pub struct Config {
    pub state_dir: PathBuf,
    pub run_dir: PathBuf,
    pub socket: PathBuf,
    pub helper_socket: PathBuf,
    pub log_level: String,
    pub vmm: VmmChoice,
    /// How root disks are made, unless a request says.
    pub disk_backend: DiskChoice,
    pub qemu_bin: Option<PathBuf>,
    pub firecracker_bin: Option<PathBuf>,
    /// Configuration of apt, besides the host's, for kernels that are pulled.
    pub apt_config: Option<PathBuf>,
    pub agent_bin: Option<PathBuf>,
    /// Idle taps kept ready.
    pub tap_pool_size: u16,
    pub stop_grace: Duration,
    /// How long a guest may take until its agent reports.
    pub boot_timeout: Duration,
    /// What becomes of running VMs when the host goes down.
    pub on_shutdown: OnShutdown,
    /// How long putting all of them away may take then.
    pub shutdown_limit: Duration,
    pub defaults: SpecDefaults,
    pub network: Network,
    pub limits: Limits,
    pub registries: RegistrySettings,
    /// What every guest is given at its start.
    pub file_sync: Vec<FileSync>,
    /// Opens every guest; made if it is not there.
    pub ssh_key: PathBuf,
    /// Runs on fakes of every port.
    pub sim: Option<Sim>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnShutdown {
    Stop,
    /// One that cannot be suspended is stopped.
    Suspend,
}

/// What a simulated host is told.
#[derive(Clone, Debug, Default)]
pub struct Sim {
    /// As `sim::Planned` reads them: `net.ensure_tap:0=refuse`.
    pub faults: Vec<String>,
    /// From a process's start until its guest is ready.
    pub boot: Duration,
}

#[derive(Clone, Debug)]
pub struct Network {
    pub bridge: Name,
    pub tap_prefix: String,
    pub subnet: Subnet,
    /// What guests ask for names.
    pub dns: Vec<Ipv4Addr>,
    /// Where names of VMs are answered; `None` turns that off.
    pub dns_listen: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_vms: usize,
    pub max_connections: usize,
    pub disk_reserve: Size,
    /// The last so many stay readable.
    pub events_kept: u64,
    /// Starts by restart policies at one time.
    pub parallel_starts: usize,
    pub images: ImageLimits,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("read configuration {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("configuration {path}")]
    Syntax {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("configuration key {key}: {why}")]
    Value { key: &'static str, why: String },
}

/// What the command line overrides.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub state_dir: Option<PathBuf>,
    pub run_dir: Option<PathBuf>,
    pub socket: Option<PathBuf>,
    pub helper_socket: Option<PathBuf>,
    pub sim: Option<Sim>,
}

/// What the host has; defaults derive from it.
#[derive(Clone, Copy, Debug)]
pub struct HostFacts {
    pub cpus: u32,
    pub memory_mib: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    state_dir: Option<PathBuf>,
    run_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    helper_socket: Option<PathBuf>,
    log_level: Option<String>,
    vmm: Option<String>,
    disk_backend: Option<String>,
    qemu_bin: Option<PathBuf>,
    firecracker_bin: Option<PathBuf>,
    apt_config: Option<PathBuf>,
    agent_bin: Option<PathBuf>,
    tap_pool_size: Option<u16>,
    stop_grace: Option<String>,
    boot_timeout: Option<String>,
    on_shutdown: Option<String>,
    shutdown_limit: Option<String>,
    default_image_name: Option<String>,
    default_kernel_name: Option<String>,
    warm: Option<bool>,
    ssh_key_path: Option<String>,
    file_sync: Vec<FileFileSync>,
    vm_defaults: FileDefaults,
    network: FileNetwork,
    limits: FileLimits,
    registries: FileRegistries,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileDefaults {
    vcpu: Option<u32>,
    memory_mib: Option<u32>,
    disk_size: Option<String>,
    work_disk_size: Option<String>,
    restart: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileFileSync {
    host: String,
    guest: String,
    mode: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileNetwork {
    bridge: Option<String>,
    tap_prefix: Option<String>,
    cidr: Option<String>,
    dns: Option<Vec<Ipv4Addr>>,
    dns_listen: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileLimits {
    max_vms: Option<usize>,
    max_connections: Option<usize>,
    disk_reserve: Option<String>,
    events_kept: Option<u64>,
    parallel_starts: Option<usize>,
    image_size: Option<String>,
    image_entries: Option<usize>,
    image_ratio: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FileRegistries {
    plain_http: Vec<String>,
    certificates: Vec<PathBuf>,
    auth_file: Option<PathBuf>,
    parallel: Option<usize>,
    tries: Option<u32>,
    cache_size: Option<String>,
}

impl Config {
    /// Reads `path`; without one, nothing but defaults and overrides count.
    pub fn load(
        path: Option<&Path>,
        overrides: Overrides,
        host: HostFacts,
    ) -> Result<Self, ConfigError> {
        let file = match path {
            None => File::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
                toml::from_str(&text).map_err(|source| ConfigError::Syntax {
                    path: path.to_owned(),
                    source: Box::new(source),
                })?
            }
        };
        Self::build(file, overrides, host)
    }

    fn build(file: File, over: Overrides, host: HostFacts) -> Result<Self, ConfigError> {
        let either = |first: Option<PathBuf>, second, default: &str| {
            first.or(second).unwrap_or_else(|| PathBuf::from(default))
        };
        let state_dir = either(over.state_dir, file.state_dir, "/var/lib/banger");
        let run_dir = either(over.run_dir, file.run_dir, "/run/banger");
        let socket = over.socket.or(file.socket).unwrap_or_else(|| run_dir.join("bangerd.sock"));
        let helper_socket =
            either(over.helper_socket, file.helper_socket, "/run/banger-root/helper.sock");
        for (key, dir) in [("state_dir", &state_dir), ("run_dir", &run_dir)] {
            if !dir.is_absolute() {
                return Err(value(key, format!("{} is not absolute", dir.display())));
            }
        }
        let run_bytes = run_dir.as_os_str().len();
        if run_bytes > MAX_RUN_DIR_BYTES {
            let why = format!("{run_bytes} bytes long; sockets below it allow {MAX_RUN_DIR_BYTES}");
            return Err(value("run_dir", why));
        }
        let mut defaults = SpecDefaults::for_host(host.cpus, host.memory_mib);
        let set = file.vm_defaults;
        defaults.vcpu = set.vcpu.unwrap_or(defaults.vcpu);
        defaults.memory_mib = set.memory_mib.unwrap_or(defaults.memory_mib);
        defaults.disk =
            size("vm_defaults.disk_size", set.disk_size.as_deref())?.unwrap_or(defaults.disk);
        defaults.work_disk = size("vm_defaults.work_disk_size", set.work_disk_size.as_deref())?
            .unwrap_or(defaults.work_disk);
        defaults.image = file.default_image_name.unwrap_or(defaults.image);
        defaults.kernel = file.default_kernel_name.unwrap_or(defaults.kernel);
        if let Some(policy) = set.restart {
            let policy = policy.parse::<RestartPolicy>();
            defaults.restart =
                policy.map_err(|error| value("vm_defaults.restart", error.to_string()))?;
        }
        defaults.warm = file.warm.unwrap_or(defaults.warm);
        let limits = Limits {
            max_vms: file.limits.max_vms.unwrap_or(4096),
            max_connections: file.limits.max_connections.unwrap_or(256),
            disk_reserve: size("limits.disk_reserve", file.limits.disk_reserve.as_deref())?
                .unwrap_or(Size::from_mib(512)),
            events_kept: file.limits.events_kept.unwrap_or(100_000).max(1),
            parallel_starts: match file.limits.parallel_starts {
                Some(0) => return Err(value("limits.parallel_starts", "0 starts nothing")),
                Some(asked) => asked,
                None => usize::try_from(host.cpus).unwrap_or(1),
            },
            images: image_limits(&file.limits)?,
        };
        let vmm = match file.vmm.as_deref() {
            None | Some("auto") => VmmChoice::Auto,
            Some("qemu") => VmmChoice::Qemu,
            Some("firecracker") => VmmChoice::Firecracker,
            Some(other) => {
                return Err(value("vmm", format!("{other:?} is not auto, qemu or firecracker")));
            }
        };
        Ok(Self {
            socket,
            helper_socket,
            log_level: file.log_level.unwrap_or_else(|| "info".to_owned()),
            vmm,
            disk_backend: disk_backend(file.disk_backend.as_deref())?,
            qemu_bin: file.qemu_bin,
            firecracker_bin: file.firecracker_bin,
            apt_config: file.apt_config,
            agent_bin: file.agent_bin,
            tap_pool_size: file.tap_pool_size.unwrap_or(4),
            stop_grace: seconds("stop_grace", file.stop_grace.as_deref(), 20)?,
            boot_timeout: seconds("boot_timeout", file.boot_timeout.as_deref(), 60)?,
            on_shutdown: on_shutdown(file.on_shutdown.as_deref())?,
            shutdown_limit: seconds("shutdown_limit", file.shutdown_limit.as_deref(), 90)?,
            defaults,
            network: Network::build(file.network)?,
            limits,
            registries: registries(file.registries)?,
            file_sync: file_sync(file.file_sync)?,
            ssh_key: ssh_key(file.ssh_key_path.as_deref(), &state_dir)?,
            sim: over.sim,
            state_dir,
            run_dir,
        })
    }
}

impl Network {
    fn build(file: FileNetwork) -> Result<Self, ConfigError> {
        let bridge = file.bridge.as_deref().unwrap_or("br-fc");
        let bridge =
            Name::vm(bridge).map_err(|error| value("network.bridge", error.to_string()))?;
        if bridge.as_str().len() > 15 {
            return Err(value("network.bridge", format!("{bridge} is longer than 15 bytes")));
        }
        let tap_prefix = file.tap_prefix.unwrap_or_else(|| "bgtap".to_owned());
        let plain = |c: char| c.is_ascii_lowercase() || c == '-';
        // Digits would make `bg1` + slot 2 the same link as `bg` + slot 12.
        if tap_prefix.is_empty()
            || tap_prefix.len() > MAX_TAP_PREFIX_BYTES
            || !tap_prefix.chars().all(plain)
        {
            let why = format!("{tap_prefix:?} is not 1 to {MAX_TAP_PREFIX_BYTES} of a-z and -");
            return Err(value("network.tap_prefix", why));
        }
        let subnet = file.cidr.as_deref().unwrap_or("172.16.0.0/24").parse::<Subnet>();
        let subnet = subnet.map_err(|error| value("network.cidr", error.to_string()))?;
        let dns_listen = match file.dns_listen.as_deref() {
            Some("off") => None,
            text => {
                let text = text.unwrap_or("127.0.0.1:42069");
                let address: SocketAddr = text.parse().map_err(|_| {
                    value("network.dns_listen", format!("{text:?} is not ADDRESS:PORT or off"))
                })?;
                if !address.ip().is_loopback() {
                    let why = format!("{address} is not a loopback address");
                    return Err(value("network.dns_listen", why));
                }
                Some(address)
            }
        };
        let dns = file.dns.unwrap_or_else(|| vec![Ipv4Addr::new(1, 1, 1, 1)]);
        Ok(Self { bridge, tap_prefix, subnet, dns, dns_listen })
    }
}

fn value(key: &'static str, why: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, why: why.into() }
}

fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// A bad entry is named by its place, counted from 0.
fn file_sync(entries: Vec<FileFileSync>) -> Result<Vec<FileSync>, ConfigError> {
    let home = home();
    let parse = |(index, entry): (usize, FileFileSync)| {
        let FileFileSync { host, guest, mode } = entry;
        FileSync::parse(&FileSyncText { host, guest, mode }, home.as_deref())
            .map_err(|why| value("file_sync", format!("entry {index}: {why}")))
    };
    entries.into_iter().enumerate().map(parse).collect()
}

fn ssh_key(text: Option<&str>, state_dir: &Path) -> Result<PathBuf, ConfigError> {
    let Some(text) = text else { return Ok(state_dir.join("ssh/id_ed25519")) };
    let path = match (text.strip_prefix("~/"), home()) {
        (Some(below), Some(home)) => home.join(below),
        _ => PathBuf::from(text),
    };
    let absolute = path.is_absolute().then_some(path);
    absolute
        .ok_or_else(|| value("ssh_key_path", format!("{text:?} is neither absolute nor below ~/")))
}

fn on_shutdown(text: Option<&str>) -> Result<OnShutdown, ConfigError> {
    match text {
        None | Some("stop") => Ok(OnShutdown::Stop),
        Some("suspend") => Ok(OnShutdown::Suspend),
        Some(word) => Err(value("on_shutdown", format!("{word:?} is not stop or suspend"))),
    }
}

fn image_limits(file: &FileLimits) -> Result<ImageLimits, ConfigError> {
    let default = ImageLimits::default();
    let limits = ImageLimits {
        size: size("limits.image_size", file.image_size.as_deref())?.unwrap_or(default.size),
        entries: file.image_entries.unwrap_or(default.entries),
        ratio: file.image_ratio.unwrap_or(default.ratio),
    };
    for (key, number) in [
        ("limits.image_size", limits.size.bytes()),
        ("limits.image_entries", limits.entries as u64),
        ("limits.image_ratio", u64::from(limits.ratio)),
    ] {
        if number == 0 {
            return Err(value(key, "0 refuses every image"));
        }
    }
    Ok(limits)
}

fn registries(file: FileRegistries) -> Result<RegistrySettings, ConfigError> {
    let default = RegistrySettings::default();
    for registry in &file.plain_http {
        let whole = format!("{registry}/x").parse::<ImageRef>();
        if !whole.is_ok_and(|image| image.registry() == registry) {
            let why = format!("{registry:?} is not HOST:PORT as references have it");
            return Err(value("registries.plain_http", why));
        }
    }
    for path in file.certificates.iter().chain(&file.auth_file) {
        if !path.is_absolute() {
            let why = format!("{} is not absolute", path.display());
            return Err(value("registries.certificates, registries.auth_file", why));
        }
    }
    for (key, number) in [
        ("registries.parallel", file.parallel.map(|number| number as u64)),
        ("registries.tries", file.tries.map(u64::from)),
    ] {
        if number == Some(0) {
            return Err(value(key, "0 pulls nothing"));
        }
    }
    Ok(RegistrySettings {
        plain_http: file.plain_http,
        certificates: file.certificates,
        auth_file: file.auth_file,
        parallel: file.parallel.unwrap_or(default.parallel),
        tries: file.tries.unwrap_or(default.tries),
        cache_size: size("registries.cache_size", file.cache_size.as_deref())?
            .unwrap_or(default.cache_size),
    })
}

fn disk_backend(text: Option<&str>) -> Result<DiskChoice, ConfigError> {
    let named = |word: &str| DiskBackend::ALL.into_iter().find(|known| known.as_str() == word);
    match text {
        None | Some("auto") => Ok(DiskChoice::Auto),
        Some(word) => named(word).map(DiskChoice::Only).ok_or_else(|| {
            value("disk_backend", format!("{word:?} is not auto, reflink, dm-snapshot or overlay"))
        }),
    }
}

fn size(key: &'static str, text: Option<&str>) -> Result<Option<Size>, ConfigError> {
    let size = text.map(str::parse::<Size>).transpose();
    size.map_err(|error| value(key, error.to_string()))
}

/// `20s`, `500ms`, `2m`.
fn seconds(key: &'static str, text: Option<&str>, default: u64) -> Result<Duration, ConfigError> {
    let Some(text) = text else { return Ok(Duration::from_secs(default)) };
    let bad = || value(key, format!("{text:?} is not a duration; write 500ms, 20s or 2m"));
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(bad)?;
    let number: u64 = text[..split].parse().map_err(|_| bad())?;
    let millis = match &text[split..] {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        _ => None,
    };
    millis.filter(|millis| *millis > 0).map(Duration::from_millis).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: HostFacts = HostFacts { cpus: 8, memory_mib: 16 * 1024 };

    fn parse(text: &str) -> Result<Config, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        Config::build(file, Overrides::default(), HOST).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_gives_the_documented_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config.socket, Path::new("/run/banger/bangerd.sock"));
        assert_eq!(config.tap_pool_size, 4);
        assert_eq!(config.stop_grace, Duration::from_secs(20));
        assert_eq!(config.network.subnet.to_string(), "172.16.0.0/24");
        assert_eq!((config.defaults.vcpu, config.defaults.memory_mib), (2, 2048));
        assert!(!config.defaults.warm && parse("warm = true").unwrap().defaults.warm);
    }

    #[test]
    fn bad_values_are_refused_by_key() {
        for (text, key) in [
            ("colour = 1", "colour"),
            ("state_dir = \"x\"", "state_dir"),
            ("vmm = \"xen\"", "vmm"),
            ("disk_backend = \"zfs\"", "disk_backend"),
            ("stop_grace = \"20\"", "stop_grace"),
            ("stop_grace = \"0s\"", "stop_grace"),
            ("on_shutdown = \"kill\"", "on_shutdown"),
            ("shutdown_limit = \"soon\"", "shutdown_limit"),
            ("[network]\ncidr = \"10.0.0.0/33\"", "cidr"),
            ("[network]\nbridge = \"br/../x\"", "bridge"),
            ("[network]\ntap_prefix = \"bg1\"", "tap_prefix"),
            ("[network]\ndns_listen = \"0.0.0.0:53\"", "dns_listen"),
            ("[vm_defaults]\ndisk_size = \"big\"", "disk_size"),
            ("[vm_defaults]\ncpus = 1", "cpus"),
            ("[vm_defaults]\nrestart = \"yes\"", "restart"),
            ("[limits]\nparallel_starts = 0", "parallel_starts"),
            ("[limits]\nimage_size = \"much\"", "image_size"),
            ("[limits]\nimage_entries = 0", "image_entries"),
            ("[limits]\nimage_ratio = 0", "image_ratio"),
            ("ssh_key_path = \"x\"", "ssh_key_path"),
            ("[registries]\nplain_http = [\"http://a\"]", "plain_http"),
            ("[registries]\nplain_http = [\"a\"]", "plain_http"),
            ("[registries]\ncertificates = [\"ca.pem\"]", "certificates"),
            ("[registries]\nparallel = 0", "parallel"),
            ("[registries]\ntries = 0", "tries"),
            ("[registries]\ninsecure = true", "insecure"),
            ("[[file_sync]]\nhost = \"/x\"", "guest"),
            ("[[file_sync]]\nhost = \"/x\"\nguest = \"~/x\"\nowner = 1", "owner"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(key), "{text}: {error}");
        }
        let long = format!("run_dir = \"/{}\"", "x".repeat(100));
        assert!(parse(&long).unwrap_err().contains("run_dir"));
    }

    #[test]
    fn a_bad_file_to_sync_is_named_by_its_place() {
        let good = "[[file_sync]]\nhost = \"/x\"\nguest = \"~/x\"\n";
        let bad = format!("{good}[[file_sync]]\nhost = \"/x\"\nguest = \"~/../x\"\n");
        assert_eq!(parse(good).unwrap().file_sync.len(), 1);
        let error = parse(&bad).unwrap_err();
        assert!(error.contains("file_sync: entry 1: guest \"~/../x\" has .."), "{error}");
        let key = parse("state_dir = \"/s\"").unwrap().ssh_key;
        assert_eq!(key, Path::new("/s/ssh/id_ed25519"));
    }

    #[test]
    fn dns_can_be_off() {
        assert!(parse("[network]\ndns_listen = \"off\"").unwrap().network.dns_listen.is_none());
    }
}
