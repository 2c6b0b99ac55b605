//! Random lives of a few VMs: commands, crashes of the daemon at any write and between any two
//! effects, VMMs that end, faults, restarts of the host, clocks that jump. After each act the world
//! must be what the model allows, and nothing else.
//!
//! `BANGER_SEQUENCES` says how many are played, `BANGER_SEED` which. What fails is made small and
//! printed with its seed.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::expected::Cmd;
use super::stage::{Act, Crash, NAMES, Planned, Point, play};
use super::*;

const SEQUENCES: u32 = 300;

fn policy() -> impl Strategy<Value = RestartPolicy> {
    let on_failure = |max| RestartPolicy::OnFailure { max };
    select(vec![
        RestartPolicy::No,
        RestartPolicy::No,
        RestartPolicy::Always,
        on_failure(None),
        on_failure(Some(2)),
    ])
}

fn cmd() -> impl Strategy<Value = Cmd> {
    let upkeep = || (policy(), proptest::bool::weighted(0.3));
    let create = (
        select(vec![128_u32, 480, 600, 2000]),
        any::<bool>(),
        any::<bool>(),
        any::<bool>(),
        upkeep(),
    )
        .prop_map(|(memory_mib, dm, warm, start, (restart, checked))| Cmd::Create {
            memory_mib,
            dm,
            warm: warm && !dm,
            start,
            restart,
            checked,
        });
    let set = (
        select(vec![0_u32, 16, 64]),
        option::of(select(vec![128_u32, 500])),
        option::of(policy()),
        option::weighted(0.2, any::<bool>()),
    )
        .prop_map(|(more, memory_mib, restart, checked)| Cmd::Set {
            more,
            memory_mib,
            restart,
            checked,
        });
    prop_oneof![
        6 => create,
        4 => Just(Cmd::Start),
        1 => Just(Cmd::StartCold),
        2 => Just(Cmd::Resume),
        2 => Just(Cmd::Stop),
        1 => select(vec![9, 15]).prop_map(Cmd::Kill),
        2 => Just(Cmd::Restart),
        3 => Just(Cmd::Suspend),
        1 => Just(Cmd::Delete),
        2 => set,
    ]
}

fn point() -> impl Strategy<Value = Point> {
    prop_oneof![(0..45_usize).prop_map(Point::Effect), (0..30_usize).prop_map(Point::Write)]
}

fn crash() -> impl Strategy<Value = Crash> {
    let again = option::weighted(0.3, (point(), any::<bool>()));
    (point(), any::<bool>(), proptest::bool::weighted(0.2), again, any::<bool>())
        .prop_map(|(at, kept, reboot, again, resend)| Crash { at, kept, reboot, again, resend })
}

/// Calls that steps make, and that are bounded in time by them.
const OF_STEPS: [&str; 22] = [
    "net.ensure_nat",
    "net.remove_nat",
    "disk.ensure_vm_disks",
    "disk.open_root",
    "disk.close_root",
    "disk.grow",
    "disk.write_config",
    "disk.remove_config",
    "disk.ensure_run_dir",
    "disk.remove_run_dir",
    "disk.ensure_saving",
    "disk.keep_saved",
    "disk.remove_saved",
    "process.ensure_spawned",
    "process.ensure_gone",
    "guest.await_ready",
    "guest.shutdown",
    "guest.resumed",
    "hypervisor.boot",
    "hypervisor.save",
    "hypervisor.unpause",
    "names.publish",
];
/// Calls that others make too; they are refused and late, but answered.
const OF_ALL: [&str; 8] = [
    "net.ensure_tap",
    "net.remove_tap",
    "hypervisor.describe",
    "images.base",
    "disk.free",
    "disk.choose",
    "process.find",
    "process.exited",
];

fn fault() -> impl Strategy<Value = Planned> {
    let late = Fault::Delay(Duration::from_secs(3));
    let refused = || vec![Fault::Refuse, Fault::NoSpace, Fault::HalfDone];
    let of_steps = [refused(), vec![Fault::Hang, Fault::Panic, late.clone()]].concat();
    let of_all = [refused(), vec![late]].concat();
    prop_oneof![
        6 => (select(OF_STEPS.to_vec()), 0..3_usize, select(of_steps))
            .prop_map(|(name, nth, fault)| Planned::Nth(name, nth, fault)),
        2 => (select(OF_ALL.to_vec()), 0..3_usize, select(of_all))
            .prop_map(|(name, nth, fault)| Planned::Nth(name, nth, fault)),
        1 => select(OF_STEPS.to_vec()).prop_map(|name| Planned::Every(name, Fault::Refuse)),
        2 => (0..NAMES.len(), 0..40_usize).prop_map(|(name, call)| Planned::Ends(name, call)),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    let one = || vec((0..NAMES.len(), cmd()), 1..2);
    let calm = one().prop_map(|asks| Act::Ask { asks, faults: vec![], crash: None });
    let wild =
        (vec((0..NAMES.len(), cmd()), 1..4), vec(fault(), 0..3), option::weighted(0.6, crash()));
    prop_oneof![
        8 => calm,
        9 => wild.prop_map(|(asks, faults, crash)| Act::Ask { asks, faults, crash }),
        2 => (0..NAMES.len(), select(vec![1_usize, 1, 6])).prop_map(|(vm, n)| Act::Ends(vm, n)),
        1 => (0..NAMES.len(), any::<bool>()).prop_map(|(vm, ill)| Act::Ill(vm, ill)),
        1 => Just(Act::Restart),
        1 => Just(Act::Reboot),
        1 => (-7200..7200_i64).prop_map(Act::Clock),
        1 => (1..400_u64).prop_map(Act::Wait),
    ]
}

fn number(variable: &str, default: u64) -> u64 {
    let text = std::env::var(variable).ok();
    text.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
}

#[test]
#[allow(clippy::print_stderr, reason = "a seed is worth knowing")]
fn whatever_happens_the_world_is_what_was_told() {
    let mut seed = [0; 32];
    let born = number("BANGER_SEED", rand_seed());
    seed[..8].copy_from_slice(&born.to_le_bytes());
    let cases = u32::try_from(number("BANGER_SEQUENCES", SEQUENCES.into())).unwrap();
    eprintln!("{cases} sequences of BANGER_SEED={born}");
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 4000, ..Config::default() };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let silent = std::panic::take_hook(); // planned panics are many
    std::panic::set_hook(Box::new(|_| {}));
    let ran =
        runner.run(&vec(act(), 1..14), |acts| play(&acts).map(drop).map_err(TestCaseError::fail));
    std::panic::set_hook(silent);
    if let Err(error) = ran {
        panic!("BANGER_SEED={born}\n{error}");
    }
}

fn rand_seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_le_bytes(bytes) >> 16
}
