//! bangerd: arguments, logs, runtime. Everything else begins in [`banger::daemon`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use banger::config::{Config, Overrides, Sim};
use banger::daemon::DaemonError;
use clap::Parser;

/// `EX_CONFIG` of sysexits.h: what a service manager need not try again.
const UNUSABLE: u8 = 78;

/// The daemon of banger. Runs as an ordinary user; banger-helper does what needs privilege.
#[derive(Debug, Parser)]
#[command(name = "bangerd", version)]
struct Args {
    /// Configuration file (TOML).
    #[arg(long, env = "BANGER_CONFIG")]
    config: Option<PathBuf>,
    /// Where VMs, images, kernels and the store live.
    #[arg(long)]
    state_dir: Option<PathBuf>,
    /// Where sockets live while VMs run; keep it short.
    #[arg(long)]
    run_dir: Option<PathBuf>,
    /// The socket that banger connects to.
    #[arg(long, env = "BANGER_SOCKET")]
    socket: Option<PathBuf>,
    /// The root helper's socket.
    #[arg(long)]
    helper_socket: Option<PathBuf>,
    /// Run on a simulated host: everything works, nothing is real.
    #[arg(long)]
    sim: bool,
    /// Make the simulated host fail: `net.ensure_tap:0=refuse`; may be repeated.
    #[arg(long, value_name = "FAULT", requires = "sim")]
    sim_fault: Vec<String>,
    /// How long a simulated guest takes to come up, in milliseconds.
    #[arg(long, value_name = "MS", requires = "sim", default_value_t = 0)]
    sim_boot_ms: u64,
}

fn main() -> ExitCode {
    let Args { config, state_dir, run_dir, socket, helper_socket, sim, sim_fault, sim_boot_ms } =
        Args::parse();
    let boot = Duration::from_millis(sim_boot_ms);
    let sim = sim.then_some(Sim { faults: sim_fault, boot });
    let overrides = Overrides { state_dir, run_dir, socket, helper_socket, sim };
    banger::host::memory::keep_lean();
    let facts = banger::daemon::host_facts();
    let config = match Config::load(config.as_deref(), overrides, facts) {
        Ok(config) => config,
        Err(error) => return fail(&error, ExitCode::from(UNUSABLE)),
    };
    banger::daemon::start_logging(&config.log_level);
    banger::host::descriptors::raise_limit();
    // Actors live on this thread; operations, sessions and everything else on the workers.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("bangerd")
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => return fail(&error, ExitCode::FAILURE),
    };
    let system = actix::System::with_tokio_rt(move || runtime);
    match system.block_on(banger::daemon::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ DaemonError::Root) => fail(&error, ExitCode::from(UNUSABLE)),
        Err(error) => fail(&error, ExitCode::FAILURE),
    }
}

#[allow(clippy::print_stderr, reason = "the last word of a process that may have no log")]
fn fail(error: &dyn std::error::Error, code: ExitCode) -> ExitCode {
    tracing::error!(error = %banger::model::chain(error), "bangerd ends");
    eprintln!("bangerd: {}", banger::model::chain(error));
    code
}
