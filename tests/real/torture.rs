//! Daemon and helper are killed again and again, each alone and both, at any moment, while VMs are
//! made, used, stopped, suspended and deleted. Nobody's VM is lost, nothing is left, and who was not
//! touched did not notice.
//!
//! `BANGER_TORTURE_ROUNDS` says how often, `BANGER_SEED` which moments.

use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Cli, Host, Outcome, new_host, until};

const ROUNDS: u64 = 4;
const WORKERS: u64 = 2;
/// Far above what any command takes, on a machine that does much else.
const COMMAND_LIMIT: u32 = 180;
const TIMED_OUT: i32 = 124;

/// The same numbers for the same seed (xorshift64*).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

/// What a user knows of a VM: only what was answered.
#[derive(Debug, Default)]
struct Known {
    /// None: the answer was lost.
    exists: Option<bool>,
    /// None: nothing is known.
    state: Option<&'static str>,
}

#[derive(Debug, Default)]
struct Counts {
    answered: AtomicU32,
    failed: AtomicU32,
    hung: AtomicU32,
}

/// Uses one VM until told to end, and says what it knows of it.
fn use_one(cli: &Cli, name: &str, seed: u64, end: &AtomicBool, counts: &Counts) -> Known {
    let mut dice = Dice::new(seed);
    let mut known = Known { exists: Some(false), state: None };
    while !end.load(Ordering::Relaxed) {
        let (args, state): (&[&str], _) = match (known.exists, dice.below(9)) {
            (Some(false), _) => (&["vm", "run", "-d", "--nat", "--name", name], Some("running")),
            (_, 0) => (&["vm", "stop", name], Some("stopped")),
            (_, 1) => (&["vm", "kill", name], Some("stopped")),
            (_, 2) => (&["vm", "suspend", name], Some("suspended")),
            (_, 3) => (&["vm", "restart", name], Some("running")),
            (_, 4) => (&["vm", "delete", name], None),
            (_, 5 | 6) => (&["vm", "start", name], Some("running")),
            (Some(true), _) => (&["vm", "exec", name, "--", "true"], None),
            (None, _) => (&["vm", "run", "-d", "--nat", "--name", name], Some("running")),
        };
        let answer = cli.banger(COMMAND_LIMIT, args);
        if answer.code == Some(TIMED_OUT) {
            counts.hung.fetch_add(1, Ordering::Relaxed);
        }
        known = learned(known, args, state, &answer);
        let done = answer.code == Some(0);
        (if done { &counts.answered } else { &counts.failed }).fetch_add(1, Ordering::Relaxed);
    }
    known
}

fn learned(before: Known, args: &[&str], state: Option<&'static str>, answer: &Outcome) -> Known {
    match (args[1], answer.code) {
        ("exec", _) => before,
        ("delete", Some(0)) => Known { exists: Some(false), state: None },
        (_, Some(0)) => Known { exists: Some(true), state },
        // What does not exist is not there to be used, and what exists cannot be made.
        (verb, Some(4)) if verb != "run" => Known { exists: Some(false), state: None },
        // It failed or was cut short: a creation may be there or not, anything else leaves the VM.
        ("run" | "delete", _) => Known::default(),
        _ => Known { exists: before.exists, state: None },
    }
}

fn list(host: &Host) -> Vec<Value> {
    let listed = host.banger(&["vm", "list", "--json"]).ok();
    serde_json::from_str(&listed).unwrap()
}

#[test]
#[allow(clippy::print_stderr, reason = "the seed, and what was survived")]
fn daemon_and_helper_are_killed_again_and_again_and_nothing_is_lost() {
    let rounds = number("BANGER_TORTURE_ROUNDS").unwrap_or(ROUNDS);
    let seed = number("BANGER_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("torture: BANGER_SEED={seed}, {rounds} rounds");
    let mut host = new_host!();
    let before = host.world();
    host.banger(&["vm", "run", "-d", "--name", "still"]).ok();
    let still = host.show("still");
    // Somebody is in there all the time.
    let waits = "while [ ! -e /tmp/end ]; do sleep 1; done; echo whole";
    let mut inside = host.banger_command(&["vm", "exec", "still", "--", "sh", "-c", waits]);
    let inside = inside.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();

    let (end, counts) = (AtomicBool::new(false), Counts::default());
    let began = Instant::now();
    let known = thread::scope(|scope| {
        // Told to end also by a failure, else the scope would wait for ever.
        let _ends = EndsAll(&end);
        let (end, counts) = (&end, &counts);
        let workers: Vec<_> = (0..WORKERS)
            .map(|n| {
                let (cli, name) = (host.cli(), format!("w{n}"));
                scope.spawn(move || {
                    (name.clone(), use_one(&cli, &name, seed ^ (n + 1), end, counts))
                })
            })
            .collect();
        let mut dice = Dice::new(seed);
        for round in 0..rounds {
            // The moment is the test.
            thread::sleep(Duration::from_millis(50 + dice.below(4000)));
            let (daemon, helper) = [(true, false), (false, true), (true, true)]
                [usize::try_from(dice.below(3)).unwrap()];
            if daemon {
                host.kill_daemon();
            }
            if helper {
                host.kill_helper();
                host.start_helper();
            }
            if daemon {
                host.start_daemon();
            }
            let shown = host.show("still");
            for what in ["state", "pid", "guest_boot_id"] {
                assert_eq!(shown[what], still[what], "{what}, round {round} of seed {seed}");
            }
        }
        end.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Vec<_>>()
    });
    let took = began.elapsed();
    let Counts { answered, failed, hung } = &counts;
    eprintln!("torture: {rounds} rounds in {took:?}; answered {answered:?}, failed {failed:?}");
    assert_eq!(hung.load(Ordering::Relaxed), 0, "commands that never ended");
    assert!(rounds == 0 || answered.load(Ordering::Relaxed) > 0, "nothing was ever done");

    // Whoever asked is gone; what was begun ends all the same.
    until("every operation has ended", Duration::from_secs(120), || {
        let ops = host.banger(&["ops", "list", "--json"]).ok();
        let ops: Vec<Value> = serde_json::from_str(&ops).unwrap();
        ops.iter().all(|op| op["outcome"] != "running")
            && list(&host).iter().all(|vm| {
                !vm["state"].as_str().unwrap().ends_with("ing") || vm["state"] == "running"
            })
    });
    let vms = list(&host);
    for (name, known) in &known {
        let vm = vms.iter().find(|vm| vm["name"] == name.as_str());
        if let Some(exists) = known.exists {
            assert_eq!(vm.is_some(), exists, "{name}, {known:?}: {vms:#?}, seed {seed}");
        }
        if let (Some(vm), Some(state)) = (vm, known.state) {
            assert_eq!(vm["state"], state, "{name}, {known:?}, seed {seed}");
        }
    }
    let mut running: Vec<_> = vms
        .iter()
        .filter(|vm| vm["state"] == "running")
        .map(|vm| host.show(vm["name"].as_str().unwrap())["pid"].as_u64().unwrap())
        .collect();
    running.sort_unstable();
    let guests: Vec<_> = host.guests().into_iter().map(u64::from).collect();
    assert_eq!(running, guests, "every VMM is a VM's, seed {seed}: {vms:#?}");

    host.banger(&["vm", "exec", "still", "--", "touch", "/tmp/end"]).ok();
    let whole = Outcome::of(inside.wait_with_output().unwrap());
    assert_eq!(whole.ok(), "whole\n", "a command that runs does not notice");
    for vm in &vms {
        host.banger(&["vm", "delete", vm["name"].as_str().unwrap()]).ok();
    }
    until("nothing is left", Duration::from_secs(30), || host.world() == before);
    eprintln!("torture: seed {seed}: {rounds} rounds survived, 0 resources leaked, 0 VMs lost");
}

struct EndsAll<'a>(&'a AtomicBool);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
