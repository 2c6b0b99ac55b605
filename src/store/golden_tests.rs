//! The bytes of every stored variant, frozen in `tests/fixtures/store/`. A failing line means that
//! stores out there could no longer be read: add a variant instead of changing one.
//!
//! A new variant has no line yet: `BANGER_BLESS=1` writes the missing ones and never changes those
//! there are.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::image_kernels::KernelWish;
use super::meta::Fact;
use super::reserve_tests::{draft, image, kernel};
use super::table::Row;
use super::taps::TapLease;
use super::workspaces::Piece;
use crate::model::{
    Code, Digest, DiskBackend, Entry, Event, EventKind, ExitReport, Failure, HealthCheck,
    ImageConfig, ImageUse, KernelFeature, KernelFeatures, KernelSupport, LedgerRow, OpId, OpKind,
    OpRecord, Outcome, ProcessIdentity, ResourceKind, RestartHistory, RestartPolicy, RootDisk,
    Selection, StepEvent, TapName, Transfer, VmHandles, VmId, VmRecord, VmState, VmmChoice, Wanted,
    Workspace, WorkspaceMode,
};
use crate::wire::codec;

/// Checks `rows` against the fixture: the same labels, the same bytes both ways.
#[track_caller]
fn golden<R: Row + Clone + PartialEq + std::fmt::Debug>(table: &str, rows: Vec<(String, R)>) {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", "store", &format!("{table}.hex")]
            .iter()
            .collect();
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut frozen: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(label, hex)| (label.to_owned(), hex.to_owned()))
        .collect();
    let bless = std::env::var_os("BANGER_BLESS").is_some();
    let mut labels = std::collections::BTreeSet::new();
    for (label, row) in rows {
        let bytes = codec::encode(&R::Stored::from(row.clone())).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if bless {
            frozen.entry(label.clone()).or_insert_with(|| hex.clone());
        }
        let kept = frozen.get(&label);
        assert_eq!(kept, Some(&hex), "{table}: bytes of {label}");
        let read: R::Stored = codec::decode(&bytes).unwrap();
        assert_eq!(read.try_into(), Ok(row), "{table}: {label} reads back");
        assert!(labels.insert(label), "{table}: two rows of one label");
    }
    let lines: Vec<_> = frozen.iter().map(|(label, hex)| format!("{label} {hex}\n")).collect();
    assert!(frozen.keys().all(|label| labels.contains(label)), "{table}: a variant is gone");
    if bless {
        std::fs::write(path, lines.concat()).unwrap();
    }
}

/// What is not written any more: rows of it still read as these.
#[track_caller]
fn still_read<R: Row + PartialEq + std::fmt::Debug>(table: &str, rows: &[(String, R)]) {
    let path: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", "store", &format!("{table}.hex")]
            .iter()
            .collect();
    let text = std::fs::read_to_string(&path).unwrap();
    for line in text.lines() {
        let (label, hex) = line.split_once(' ').unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let read: R::Stored = codec::decode(&bytes).unwrap();
        let row = rows.iter().find(|(other, _)| other == label).map(|(_, row)| row);
        assert_eq!(read.try_into().ok().as_ref(), row, "{table}: {label}");
    }
}

fn vm() -> VmRecord {
    let draft = draft(7, "web");
    VmRecord {
        id: draft.id,
        spec: draft.spec,
        state: VmState::Created,
        address: [172, 16, 0, 2].into(),
        image: Digest([1; 32]),
        kernel: Digest([2; 32]),
        keys: draft.keys,
        created_unix_ms: 1_700_000_000_000,
        last_failure: None,
        last_exit: None,
        wanted: Wanted::Stopped,
        restarts: RestartHistory::default(),
    }
}

#[test]
fn vms() {
    // A new state or VMM that is not in these lists does not compile.
    let state = |state| match state {
        VmState::Created
        | VmState::Starting
        | VmState::Running
        | VmState::Stopping
        | VmState::Stopped
        | VmState::Crashed
        | VmState::Error
        | VmState::Suspending
        | VmState::Suspended => {
            // As rows that do not say are read.
            let on = matches!(state, VmState::Starting | VmState::Running);
            let wanted = if on { Wanted::Running } else { Wanted::Stopped };
            (format!("state-{state}"), VmRecord { state, wanted, ..vm() })
        }
    };
    let mut rows: Vec<_> = [
        VmState::Created,
        VmState::Starting,
        VmState::Running,
        VmState::Stopping,
        VmState::Stopped,
        VmState::Crashed,
        VmState::Error,
        VmState::Suspending,
        VmState::Suspended,
    ]
    .map(state)
    .into();
    let vmm = |vmm| {
        let label = match vmm {
            VmmChoice::Auto => "vmm-auto",
            VmmChoice::Qemu => "vmm-qemu",
            VmmChoice::Firecracker => "vmm-firecracker",
        };
        let mut record = vm();
        record.spec.vmm = vmm;
        (label.to_owned(), record)
    };
    rows.extend([VmmChoice::Auto, VmmChoice::Qemu, VmmChoice::Firecracker].map(vmm));
    for code in Code::ALL {
        let failure = Failure::new(code, "no").hint("try").with_detail(["line".to_owned()]);
        let record = VmRecord { last_failure: Some(failure.of(OpId([5; 16]))), ..vm() };
        rows.push((format!("failure-{code}"), record));
    }
    let mut full = vm();
    full.spec.nat = true;
    full.spec.env = vec![("A".to_owned(), "b".to_owned())];
    full.last_exit = Some(ExitReport { unix_ms: 9, how: "exit status 1".to_owned() });
    rows.push(("full".to_owned(), full));
    still_read("vms", &rows);
    for backend in DiskBackend::ALL {
        let mut record = vm();
        record.spec.root = RootDisk { backend, why: "asked for".to_owned() };
        rows.push((format!("disk-{backend}"), record));
    }
    let mut loud = vm();
    loud.spec.console = true;
    rows.push(("console".to_owned(), loud));
    let mut warm = vm();
    warm.spec.warm = true;
    rows.push(("warm".to_owned(), warm));
    still_read("vms-2", &rows);
    for policy in [
        RestartPolicy::No,
        RestartPolicy::OnFailure { max: None },
        RestartPolicy::OnFailure { max: Some(3) },
        RestartPolicy::Always,
    ] {
        let mut record = VmRecord { wanted: Wanted::Running, ..vm() };
        record.spec.restart = policy;
        rows.push((format!("restart-{policy}"), record));
    }
    let mut tried = vm();
    tried.restarts = RestartHistory {
        count: 3,
        failures: vec![7, 8],
        held: 1,
        next_unix_ms: Some(9),
        up_unix_ms: Some(6),
    };
    tried.spec.health = Some(HealthCheck::of("true".to_owned()));
    rows.push(("upkeep".to_owned(), tried));
    golden("vms-3", rows);
}

#[test]
fn handles() {
    let process = ProcessIdentity { pid: 812, start_ticks: 99_000, host_boot_id: "b-1".to_owned() };
    let full = VmHandles {
        process: Some(process),
        tap: Some(TapName::new("bt", 3)),
        vmm: Some("qemu".to_owned()),
        guest_boot_id: Some("g-1".to_owned()),
    };
    let rows = [("empty".to_owned(), VmHandles::default()), ("full".to_owned(), full)];
    golden("handles", rows.into());
}

#[test]
fn ops() {
    let op = draft(7, "web").intent;
    let kinds = [
        OpKind::CreateVm,
        OpKind::StartVm,
        OpKind::StopVm,
        OpKind::KillVm,
        OpKind::DeleteVm,
        OpKind::RestartVm,
        OpKind::BuildImage,
        OpKind::ImportImage,
        OpKind::DeleteImage,
        OpKind::ImportKernel,
        OpKind::DeleteKernel,
        OpKind::CleanUpVm,
        OpKind::SuspendVm,
        OpKind::ResumeVm,
        OpKind::SetVm,
        OpKind::CollectGarbage,
        OpKind::CollectVm,
        OpKind::RecoverVm,
        OpKind::TagImage,
        OpKind::PullImage,
        OpKind::CommitVm,
        OpKind::EmptyCache,
        OpKind::PullKernel,
    ];
    let kind = |kind: OpKind| (format!("kind-{}", kind.as_str()), OpRecord { kind, ..op.clone() });
    let mut rows: Vec<_> = kinds.map(kind).into();
    let (step, cause) = ("tap".to_owned(), "no".to_owned());
    let outcomes = [
        Outcome::Done,
        Outcome::Unchanged("already stopped".to_owned()),
        Outcome::RolledBack { step: step.clone(), cause: cause.clone() },
        Outcome::Stuck { step, cause, undo: "never".to_owned() },
    ];
    rows.extend(outcomes.map(|outcome| {
        let label = match outcome {
            Outcome::Done => "done",
            Outcome::Unchanged(_) => "unchanged",
            Outcome::RolledBack { .. } => "rolled-back",
            Outcome::Stuck { .. } => "stuck",
        };
        let (outcome, ended_unix_ms) = (Some(outcome), Some(8));
        (format!("outcome-{label}"), OpRecord { outcome, ended_unix_ms, vm: None, ..op.clone() })
    }));
    golden("ops", rows);
}

#[test]
fn journal() {
    let events = [
        StepEvent::Started,
        StepEvent::Succeeded("tap0".to_owned()),
        StepEvent::Failed("no".to_owned()),
        StepEvent::UndoStarted,
        StepEvent::UndoFinished,
        StepEvent::UndoFailed("never".to_owned()),
    ];
    let rows = events.map(|event| {
        let label = match event {
            StepEvent::Started => "started",
            StepEvent::Succeeded(_) => "succeeded",
            StepEvent::Failed(_) => "failed",
            StepEvent::UndoStarted => "undo-started",
            StepEvent::UndoFinished => "undo-finished",
            StepEvent::UndoFailed(_) => "undo-failed",
        };
        (label.to_owned(), Entry { step: "lease-tap".to_owned(), event, unix_ms: 300 })
    });
    golden("journal", rows.into());
}

#[test]
fn events() {
    use EventKind as E;
    let text = || "text".to_owned();
    let transfer = Transfer {
        blob: text(),
        number: 2,
        of: 5,
        bytes: 1_000_000,
        size: 3_000_000,
        bytes_per_second: 500_000,
        left_ms: Some(4_000),
    };
    let kinds = [
        ("op-started", E::OpStarted { kind: OpKind::CreateVm, subject: text() }),
        ("step-started", E::StepStarted { step: text() }),
        ("step-done", E::StepDone { step: text(), elapsed_us: 1234 }),
        ("step-failed", E::StepFailed { step: text(), cause: text() }),
        ("step-undone", E::StepUndone { step: text() }),
        ("op-ended", E::OpEnded { outcome: Outcome::Unchanged(text()) }),
        ("vm-changed", E::VmChanged { name: text(), state: VmState::Running }),
        ("vm-exited", E::VmExited { name: text(), how: text(), expected: true }),
        ("actor-rebuilt", E::ActorRebuilt { actor: text(), incarnation: 2 }),
        ("actor-quarantined", E::ActorQuarantined { actor: text() }),
        ("progress", E::Progress { text: text() }),
        ("note", E::Note { text: text() }),
        ("lost", E::Lost { count: 9 }),
        ("transfer", E::Transfer(transfer)),
    ];
    let (op_id, vm) = (Some(OpId([5; 16])), Some(VmId([7; 16])));
    let row = |(label, kind): (&str, E)| {
        (label.to_owned(), Event { seq: 300, unix_ms: 1_700_000_000_000, op_id, vm, kind })
    };
    golden("events", kinds.map(row).into());
}

#[test]
fn ledger() {
    let rows = ResourceKind::ALL.map(|kind| {
        // One that is not in the list does not compile in the store.
        let op = (kind != ResourceKind::Tap).then_some(OpId([5; 16]));
        let (vm, name) = (VmId([7; 16]), kind.name_of(&vm()));
        (kind.to_string(), LedgerRow { vm, kind, name, op, unix_ms: 9 })
    });
    golden("ledger", rows.into());
}

#[test]
fn taps_images_kernels_facts() {
    let tap = TapName::new("bt", 3);
    let rows = [("free", None), ("leased", Some(VmId([7; 16])))];
    let lease = |(label, vm): (&str, _)| (label.to_owned(), TapLease { tap: tap.clone(), vm });
    golden("taps", rows.map(lease).into());
    golden("images", vec![("image".to_owned(), image("debian-12.7", 1))]);
    golden("kernels", vec![("kernel".to_owned(), kernel("debian", 2))]);
    golden("meta", vec![("fact".to_owned(), Fact("x".to_owned()))]);
}

#[test]
fn workspaces() {
    let row = |mode: WorkspaceMode| {
        let selection = Selection {
            include_untracked: true,
            exclude: vec!["*.o".to_owned()],
            include_ignored: vec!["dist/**".to_owned()],
        };
        let workspace = Workspace {
            guest_path: "/root/repo".to_owned(),
            host_path: "/home/me/repo".to_owned(),
            head: "1a2b".to_owned(),
            branch: Some("main".to_owned()),
            mode,
            selection,
            files: 3,
            bytes: 1_000_000,
            manifest: Digest([3; 32]),
            prepared_unix_ms: 1_700_000_000_000,
        };
        (mode.as_str().to_owned(), workspace)
    };
    golden("workspaces", [WorkspaceMode::Shallow, WorkspaceMode::FullCopy].map(row).into());
    golden("manifests", vec![("piece".to_owned(), Piece(vec![1, 2, 3]))]);
}

#[test]
fn kernel_features() {
    let row = |support: KernelSupport| {
        let mut features = KernelFeatures::default();
        features.set(KernelFeature::Overlay, support);
        (support.as_str().to_owned(), features)
    };
    golden("kernel-features", KernelSupport::ALL.map(row).into());
}

#[test]
fn image_configs() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let own = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let config = ImageConfig {
        entrypoint: own(&["/entry"]),
        cmd: own(&["serve", "-v"]),
        env: vec![pair("A", "b c")],
        user: "101:101".to_owned(),
        workdir: "/srv".to_owned(),
        stop_signal: "SIGQUIT".to_owned(),
        ports: own(&["80/tcp"]),
        volumes: own(&["/data"]),
        labels: vec![pair("l", "v")],
    };
    golden("image-configs", vec![("config".to_owned(), config.clone())]);
    let kernel = crate::model::Name::artefact("generic-6.12").unwrap();
    golden("image-kernels", vec![("wanted".to_owned(), KernelWish(kernel))]);
    golden("image-uses", vec![("use".to_owned(), ImageUse { config, runs: true })]);
}
