//! banger-helper: arguments, logging, one thread. Everything else is in `banger::helper`.

use std::io::IsTerminal;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use banger::helper::config::{Jails, Vmm};
use banger::helper::{Audit, Config, Kernel, Listening, PORCH, notify, porch, serve, teardown};
use banger::model::{Subnet, chain};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The root helper of banger: does for the daemon what needs privilege, within limits that are
/// set here and nowhere else.
#[derive(Debug, Parser)]
#[command(name = "banger-helper", version)]
struct Args {
    /// User that the daemon runs as; besides root the only one who may ask
    #[arg(long, value_name = "UID", required_unless_present = "teardown")]
    owner: Option<u32>,
    /// Where the helper keeps its socket and lock; only root may write there
    #[arg(long, value_name = "DIR", default_value = "/run/banger-root")]
    run_dir: PathBuf,
    /// Default: helper.sock in the run directory
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// The daemon's state directory: logs and loop devices' files lie below it
    #[arg(long, value_name = "DIR", default_value = "/var/lib/banger")]
    state_dir: PathBuf,
    #[arg(long, value_name = "NAME", default_value = "br-fc")]
    bridge: String,
    /// Taps are called this and a number
    #[arg(long, value_name = "PREFIX", default_value = "bgtap")]
    tap_prefix: String,
    /// The nftables table, in the family inet
    #[arg(long, value_name = "NAME", default_value = "banger")]
    table: String,
    /// The guests' addresses
    #[arg(long, value_name = "CIDR", default_value = "172.16.0.0/24")]
    subnet: Subnet,
    /// A program that may be started as a VMM; may be given more than once
    #[arg(long, value_name = "PATH", num_args = 1.., required_unless_present = "teardown")]
    vmm: Vec<PathBuf>,
    /// Firecracker's jailer; without it nothing is started in a jail
    #[arg(long, value_name = "PATH")]
    jailer: Option<PathBuf>,
    /// Users of VMs in jails, one for each tap; nobody else's
    #[arg(long, value_name = "FIRST-LAST", default_value = "1900000000-1900004095", value_parser = uids)]
    jail_uids: RangeInclusive<u32>,
    /// The daemon's run directory: VMs in jails have their sockets below it
    #[arg(long, value_name = "DIR", default_value = "/run/banger")]
    vm_run_dir: PathBuf,
    /// One JSON line a request
    #[arg(long, value_name = "PATH", default_value = "/var/log/banger/helper.jsonl")]
    audit_log: PathBuf,
    /// Where VMMs get their cgroups; default: where cgroup v2 is mounted
    #[arg(long, value_name = "DIR")]
    cgroup_root: Option<PathBuf>,
    /// error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info", env = "BANGER_LOG_LEVEL")]
    log_level: String,
    /// Ask the helper that runs at this socket to remove its taps, rules and bridge; start none
    #[arg(long)]
    teardown: bool,
}

fn uids(text: &str) -> Result<RangeInclusive<u32>, String> {
    let range = text.split_once('-').and_then(|(first, last)| {
        Some(RangeInclusive::new(first.parse().ok()?, last.parse().ok()?))
    });
    range.ok_or_else(|| format!("{text:?} is not FIRST-LAST"))
}

impl Args {
    fn socket_path(&self) -> PathBuf {
        self.socket.clone().unwrap_or_else(|| self.run_dir.join("helper.sock"))
    }

    fn config(self) -> Result<Config, Box<dyn std::error::Error>> {
        let owner = self.owner.ok_or("--owner is missing")?;
        let user = nix::unistd::User::from_uid(owner.into())?;
        let user = user.ok_or_else(|| format!("--owner: no user has uid {owner}"))?;
        let kvm = nix::unistd::Group::from_name("kvm")?;
        let state_dir = self.state_dir.canonicalize();
        let state_dir = state_dir
            .map_err(|error| format!("--state-dir {}: {error}", self.state_dir.display()))?;
        // The kernel tells loop devices' files by their real paths, the daemon its logs' as it was
        // told: they must be the same.
        if state_dir != self.state_dir {
            return Err(format!("--state-dir: give its real path, {}", state_dir.display()).into());
        }
        let config = Config {
            socket: self.socket_path(),
            owner_uid: owner,
            owner_gid: user.gid.as_raw(),
            groups: kvm.into_iter().map(|group| group.gid.as_raw()).collect(),
            state_dir,
            run_dir: self.run_dir,
            bridge: self.bridge,
            tap_prefix: self.tap_prefix,
            table: self.table,
            subnet: self.subnet,
            vmms: self.vmm.into_iter().map(Vmm::new).collect(),
            audit_log: self.audit_log,
            cgroup_root: self.cgroup_root,
            jails: self.jailer.map(|jailer| Jails {
                jailer: Vmm::new(jailer),
                uids: self.jail_uids,
                vm_run_dir: self.vm_run_dir,
            }),
        };
        config.check()?;
        config.prepare()?;
        Ok(config)
    }
}

fn main() -> ExitCode {
    // What the helper starts itself as: see `helper::porch`. Not a word of it is for users.
    if std::env::args_os().nth(1).is_some_and(|word| word == PORCH) {
        return porch();
    }
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_new(&args.log_level);
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    if std::io::stderr().is_terminal() {
        log.init()
    } else {
        log.json().init()
    }
    // Unwinding would leave a half-served request; a new helper starts from a clean slate, and the
    // VMMs do not notice.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(%panic, "helper aborts");
        std::process::abort();
    }));
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("banger-helper: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    if !nix::unistd::geteuid().is_root() {
        return Err("must be started as root".into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if args.teardown {
        let (taps, ports_left) = runtime.block_on(teardown(&args.socket_path()))?;
        tracing::info!(taps, ports_left, "taken down");
        return Ok(());
    }
    let config = Arc::new(args.config()?);
    runtime.block_on(async {
        let audit = Audit::open(&config.audit_log, config.owner_gid)?;
        let listening = Listening::bind(&config)?;
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let told = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            told.cancel();
        });
        tracing::info!(
            socket = %config.socket.display(),
            owner = config.owner_uid,
            bridge = config.bridge,
            subnet = %config.subnet,
            "serving"
        );
        let kernel = Arc::new(Kernel::new(Arc::clone(&config)));
        notify::serving(Arc::<Kernel>::clone(&kernel), stop.clone());
        serve(listening, config, audit, kernel, stop).await;
        tracing::info!("stopped; VMMs run on");
        Ok(())
    })
}
