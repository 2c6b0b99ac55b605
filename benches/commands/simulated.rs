//! What the daemon costs by itself: `bangerd --sim`, release build.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use banger::config::{Config, Overrides, Sim};
use banger::sim::{SimOptions, SimWorld};
use banger::wire::frame::Frames;
use banger::wire::hello::DAEMON;
use banger::wire::reply::{Answer, Reply, VmInfo};
use banger::wire::request::{CreateVm, Envelope, KernelSource, Request};
use tokio::net::UnixStream;

use super::table::{Table, median, ms, quantile, resident_kib};

const LIMIT: Duration = Duration::from_secs(30);

/// Ended, whatever happens.
pub(crate) struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A daemon with a simulated host, and its socket.
pub(crate) fn simulated(dir: &Path) -> (Daemon, PathBuf) {
    let config = dir.join("config.toml");
    std::fs::write(&config, "[network]\ncidr = \"10.64.0.0/16\"\n").unwrap();
    let daemon = Command::new(env!("CARGO_BIN_EXE_bangerd"))
        .args(["--sim", "--config"])
        .arg(&config)
        .arg("--state-dir")
        .arg(dir.join("state"))
        .arg("--run-dir")
        .arg(dir.join("run"))
        .env_remove("BANGER_SOCKET") // that is the real daemon's
        .env_remove("BANGER_CONFIG")
        .env("BANGER_LOG_LEVEL", "warn")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (Daemon(daemon), dir.join("run/bangerd.sock"))
}

pub(crate) async fn measure(table: &mut Table) {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, socket) = simulated(dir.path());
    let mut client = connect(&socket).await;
    round_trips(table, &mut client).await;
    idle(table, "daemon", daemon.0.id(), 25 << 10);
    stock(&mut client).await;
    creates(table, &socket).await;
    per_vm(table, &socket, daemon.0.id()).await;
}

/// From the start of a daemon, in this process, until it has told of a thousand VMs that they run: the
/// simulated host is that of the daemon before it, which was dropped.
pub(crate) fn adoption(table: &mut Table) {
    const VMS: u64 = 1000;
    let dir = tempfile::tempdir().unwrap();
    let (socket, file) = (dir.path().join("run/bangerd.sock"), dir.path().join("config.toml"));
    std::fs::write(&file, "[network]\ncidr = \"10.64.0.0/16\"\n[limits]\nmax_vms = 2000\n")
        .unwrap();
    let overrides = || Overrides {
        state_dir: Some(dir.path().join("state")),
        run_dir: Some(dir.path().join("run")),
        socket: Some(socket.clone()),
        sim: Some(Sim { faults: vec![], boot: Duration::ZERO }),
        ..Overrides::default()
    };
    let subnet = "10.64.0.0/16".parse().unwrap();
    let world = std::sync::Arc::new(SimWorld::new(SimOptions::new(subnet)));
    let mut times = vec![];
    for life in 0..6 {
        let began = Instant::now();
        let system = actix::System::new();
        let facts = banger::daemon::host_facts();
        let config = Config::load(Some(file.as_path()), overrides(), facts).unwrap();
        let daemon = banger::daemon::run_simulated(config, std::sync::Arc::clone(&world));
        system.block_on(async {
            tokio::select! {
                ended = daemon => panic!("the daemon ended: {ended:?}"),
                () = async {
                    let mut client = connect(&socket).await;
                    if life == 0 {
                        stock(&mut client).await;
                        for block in 0..VMS / 100 {
                            create_many(&socket, block * 100..(block + 1) * 100).await;
                        }
                        return;
                    }
                    let vms = list(&mut client).await;
                    times.push(began.elapsed());
                    let running = vms.iter().filter(|vm| vm.state == "running").count();
                    assert_eq!(running as u64, VMS);
                } => {}
            }
        });
    }
    let middle = median(&times);
    let what = "daemon start to 1,000 simulated VMs adopted and told";
    table.row(what, ms(middle), "< 1000 ms", middle < Duration::from_secs(1));
}

fn idle(table: &mut Table, who: &str, pid: u32, goal_kib: u64) {
    let kib = resident_kib(pid);
    let (measured, goal) =
        (format!("{:.1} MiB", kib_to_mib(kib)), format!("< {} MiB", goal_kib >> 10));
    table.row(&format!("{who}, idle, resident"), measured, goal, kib < goal_kib);
}

#[allow(clippy::cast_precision_loss, reason = "for reading")]
fn kib_to_mib(kib: u64) -> f64 {
    kib as f64 / 1024.0
}

pub(crate) async fn connect(socket: &Path) -> Frames {
    let began = Instant::now();
    loop {
        if let Ok(stream) = UnixStream::connect(socket).await {
            return Frames::connect(stream, DAEMON, LIMIT).await.unwrap();
        }
        assert!(began.elapsed() < LIMIT, "no daemon on {}", socket.display());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn ask(client: &mut Frames, op: u64, request: Request) -> Reply {
    let mut op_id = [0; 16];
    op_id[8..].copy_from_slice(&op.to_be_bytes());
    client.send(&Envelope { op_id, deadline_ms: 0, request }).await.unwrap();
    loop {
        match client.receive::<Reply>().await.unwrap().expect("an answer") {
            Reply::Accepted { .. } | Reply::Event(_) | Reply::Part(_) => {}
            last => return last,
        }
    }
}

pub(crate) async fn list(client: &mut Frames) -> Vec<VmInfo> {
    let envelope = Envelope { op_id: [0; 16], deadline_ms: 0, request: Request::ListVms };
    client.send(&envelope).await.unwrap();
    let mut all = vec![];
    loop {
        match client.receive::<Reply>().await.unwrap().expect("an answer") {
            Reply::Part(Answer::Vms(vms)) => all.extend(vms),
            Reply::Done(Answer::Vms(vms)) => {
                all.extend(vms);
                return all;
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn round_trips(table: &mut Table, client: &mut Frames) {
    let mut times = vec![];
    for _ in 0..5_000 {
        let began = Instant::now();
        ask(client, 0, Request::Ping).await;
        times.push(began.elapsed());
    }
    let middle = median(&times);
    let measured =
        format!("{} µs (p95 {} µs)", middle.as_micros(), quantile(&times, 95).as_micros());
    let met = middle < Duration::from_micros(150);
    table.row("request that changes nothing, round trip", measured, "< 150 µs", met);
}

async fn stock(client: &mut Frames) {
    let build = Request::BuildDebian {
        name: "debian-bookworm".to_owned(),
        suite: "bookworm".to_owned(),
        include: vec![],
        mirror: None,
    };
    assert!(matches!(ask(client, 1, build).await, Reply::Done(_)));
    let source = KernelSource::Deb { path: "/dev/null".to_owned() };
    let import = Request::ImportKernel { name: "debian".to_owned(), source };
    assert!(matches!(ask(client, 2, import).await, Reply::Done(_)));
}

async fn create_many(socket: &Path, numbers: std::ops::Range<u64>) -> Duration {
    let mut clients = vec![];
    for n in numbers {
        clients.push((n, connect(socket).await));
    }
    let began = Instant::now();
    let creates = clients.iter_mut().map(|(n, client)| {
        let create = CreateVm {
            name: Some(format!("vm{n}")),
            vcpu: Some(1),
            memory_mib: Some(128),
            start: true,
            ..CreateVm::default()
        };
        ask(client, 1000 + *n, Request::CreateVm(create))
    });
    let replies = futures::future::join_all(creates).await;
    let elapsed = began.elapsed();
    let failed: Vec<_> = replies.iter().filter(|r| !matches!(r, Reply::Done(_))).collect();
    assert!(failed.is_empty(), "{:?}", failed.first());
    elapsed
}

async fn creates(table: &mut Table, socket: &Path) {
    let elapsed = create_many(socket, 0..100).await;
    let met = elapsed < Duration::from_secs(2);
    table.row("100 simulated creates at once", ms(elapsed), "< 2000 ms", met);
}

async fn per_vm(table: &mut Table, socket: &Path, pid: u32) {
    let before = resident_kib(pid);
    for block in 1..11 {
        create_many(socket, block * 100..(block + 1) * 100).await;
    }
    let each = (resident_kib(pid).saturating_sub(before)) / 1000;
    table.row(
        "each of 1,000 simulated VMs, resident",
        format!("{each} KiB"),
        "<= 64 KiB",
        each <= 64,
    );
}
