//! The ledger of what VMs hold of the host, and what it means that ledger and host disagree.
//!
//! ```text
//! row written ──> thing made ── … ──> thing gone ──> row struck
//!                    no row: an orphan        no thing: lost
//! ```
//!
//! Pure: who looks, and who acts on what was found, is elsewhere. A VM that is busy is left out, for
//! its operation is changing both sides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::disk::DiskBackend;
use super::ids::{OpId, VmId};
use super::lifecycle::VmState;
use super::network::TapName;
use super::spec::VmmKind;
use super::vm::{VmHandles, VmRecord};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceKind {
    /// Of the pool; the row says whose lease it is.
    Tap,
    /// The element of the NAT set.
    Nat,
    Process,
    Cgroup,
    /// The user and the mounts of a VMM behind walls; they live and go with its process.
    Jail,
    /// A root disk that is a device. The loops below it go with it.
    Device,
    /// A loop device that does not go by itself. Nothing of ours makes one.
    Loop,
    RunDir,
    /// The VM's directory with its disks, and all in it that has no row of its own.
    VmDir,
    /// It holds the VM's keys, and goes with each run.
    Config,
    /// A guest's memory that was kept.
    Memory,
    /// A file that no image, kernel or piece of work names.
    Leftover,
}

impl ResourceKind {
    pub const ALL: [Self; 12] = [
        Self::Tap,
        Self::Nat,
        Self::Process,
        Self::Cgroup,
        Self::Jail,
        Self::Device,
        Self::Loop,
        Self::RunDir,
        Self::VmDir,
        Self::Config,
        Self::Memory,
        Self::Leftover,
    ];

    /// What a VM may hold one of, each under a row that its operations write.
    pub const OF_VMS: [Self; 9] = [
        Self::Nat,
        Self::Process,
        Self::Cgroup,
        Self::Jail,
        Self::Device,
        Self::RunDir,
        Self::VmDir,
        Self::Config,
        Self::Memory,
    ];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Nat => "nat-rule",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::Jail => "jail",
            Self::Device => "root-device",
            Self::Loop => "loop",
            Self::RunDir => "run-dir",
            Self::VmDir => "vm-dir",
            Self::Config => "config-drive",
            Self::Memory => "saved-memory",
            Self::Leftover => "leftover",
        }
    }

    /// What it is called of this VM. Names are made of the VM's identity, so that each is known before
    /// the thing is made, and is found again when everything else is lost.
    #[must_use]
    pub fn name_of(self, vm: &VmRecord) -> String {
        match self {
            Self::Nat => vm.address.to_string(),
            Self::RunDir => vm.id.short(),
            _ => vm.id.to_string(),
        }
    }

    /// What a user would miss: never taken away while its VM is known.
    fn is_data(self) -> bool {
        matches!(self, Self::VmDir | Self::Memory)
    }
}

impl fmt::Display for ResourceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that a VM holds, or may hold, of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    pub vm: VmId,
    pub kind: ResourceKind,
    pub name: String,
    /// Whose step was about to make it; none in a store from before there was a ledger.
    pub op: Option<OpId>,
    pub unix_ms: u64,
}

/// Becomes durable with the journal entry that announces, or tells, what it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerChange {
    Made(LedgerRow),
    Gone(VmId, ResourceKind),
}

/// What a VM may hold: the rows of one that is older than the ledger.
#[must_use]
pub fn may_hold(vm: &VmRecord, handles: &VmHandles) -> Vec<ResourceKind> {
    use ResourceKind as K;
    use VmState as S;
    let vmm = handles.vmm.as_deref().and_then(VmmKind::described);
    let held = |kind: &K| match kind {
        K::Nat => vm.spec.nat,
        K::Jail => vmm == Some(VmmKind::Firecracker),
        K::Device => vm.spec.root.backend == DiskBackend::DmSnapshot,
        K::Memory => false,
        _ => true,
    };
    match vm.state {
        S::Suspended => vec![K::VmDir, K::Memory],
        S::Running => K::OF_VMS.into_iter().filter(held).collect(),
        S::Created | S::Stopped | S::Crashed if *handles == VmHandles::default() => vec![K::VmDir],
        // Each row is struck by whatever ends the VM next.
        _ => K::OF_VMS.to_vec(),
    }
}

/// What the books say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub rows: Vec<LedgerRow>,
    /// And who leases each.
    pub taps: Vec<(TapName, Option<VmId>)>,
    pub vms: BTreeMap<VmId, VmBrief>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmBrief {
    pub name: String,
    pub state: VmState,
    /// An operation of it has not ended.
    pub busy: bool,
}

/// What is there of what banger makes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostSeen {
    pub things: BTreeSet<Thing>,
    /// What may be another daemon's, whose name it does not carry: it counts only as a known VM's.
    pub unmarked: BTreeSet<Thing>,
    /// Kinds that do not exist here.
    pub blind: BTreeSet<ResourceKind>,
}

impl HostSeen {
    pub fn add(&mut self, kind: ResourceKind, name: String, vm: Option<VmId>) {
        self.things.insert(Thing { kind, name, vm });
    }

    pub fn merge(&mut self, other: Self) {
        self.things.extend(other.things);
        self.unmarked.extend(other.unmarked);
        self.blind.extend(other.blind);
    }

    /// As the books' owner sees it: whose a run directory is, and what of the unmarked is ours.
    #[must_use]
    pub fn of(mut self, books: &Books) -> Self {
        let known: BTreeSet<VmId> =
            books.vms.keys().copied().chain(books.rows.iter().map(|row| row.vm)).collect();
        let unmarked = std::mem::take(&mut self.unmarked).into_iter();
        self.things.extend(unmarked.filter(|thing| thing.vm.is_some_and(|vm| known.contains(&vm))));
        let whose = |thing: Thing| match thing.kind {
            ResourceKind::RunDir if thing.vm.is_none() => {
                let vm = known.iter().find(|vm| vm.short() == thing.name).copied();
                Thing { vm, ..thing }
            }
            _ => thing,
        };
        self.things = self.things.into_iter().map(whose).collect();
        self
    }
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Thing {
    pub kind: ResourceKind,
    pub name: String,
    /// Whose it is by its name or mark.
    pub vm: Option<VmId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amiss {
    /// There, and in no row.
    Orphan,
    /// In a row, and not there; or in that of a VM that is gone.
    Lost,
}

impl Amiss {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orphan => "orphan",
            Self::Lost => "lost",
        }
    }
}

/// What would be done about a mismatch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cure {
    /// The thing, and its row if it has one.
    Remove,
    /// There is nothing but a row.
    Strike,
    /// A VM that is known holds it: the row is what is wrong.
    Record,
    /// Somebody else does it, all the time.
    Mended,
    /// Only its owner can decide.
    Leave(String),
}

impl Cure {
    /// Whether it is for a collection to do.
    #[must_use]
    pub fn acts(&self) -> bool {
        matches!(self, Self::Remove | Self::Strike | Self::Record)
    }

    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Remove => "remove",
            Self::Strike => "strike-row",
            Self::Record => "write-row",
            Self::Mended => "mended",
            Self::Leave(_) => "leave",
        }
    }
}

impl fmt::Display for Cure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remove => f.write_str("remove it"),
            Self::Strike => f.write_str("strike its row"),
            Self::Record => f.write_str("write its row"),
            Self::Mended => f.write_str("nothing: it is made again within seconds"),
            Self::Leave(way) => write!(f, "nothing: {way}"),
        }
    }
}

/// A thing that ledger and host disagree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    pub thing: Thing,
    pub vm_name: Option<String>,
    pub amiss: Amiss,
    pub why: String,
    pub cure: Cure,
}

/// Both ways: what is there without a row, then what has a row and is not there.
#[must_use]
pub fn compare(books: &Books, seen: &HostSeen) -> Vec<Mismatch> {
    let rows = books.things();
    let orphans = seen.things.iter().filter(|thing| !rows.contains(*thing));
    let orphans = orphans.filter_map(|thing| orphan(books, &rows, thing));
    let lost = rows.iter().filter_map(|thing| lost(books, seen, thing));
    orphans.chain(lost).collect()
}

impl Books {
    /// What must be there, by the rows.
    #[must_use]
    pub fn things(&self) -> BTreeSet<Thing> {
        let rows = self.rows.iter();
        let rows =
            rows.map(|row| Thing { kind: row.kind, name: row.name.clone(), vm: Some(row.vm) });
        let taps = self.taps.iter();
        let taps =
            taps.map(|(tap, vm)| Thing { kind: ResourceKind::Tap, name: tap.0.clone(), vm: *vm });
        rows.chain(taps).collect()
    }

    fn brief(&self, vm: Option<VmId>) -> Option<&VmBrief> {
        vm.and_then(|vm| self.vms.get(&vm))
    }
}

fn orphan(books: &Books, rows: &BTreeSet<Thing>, thing: &Thing) -> Option<Mismatch> {
    let kind = thing.kind;
    let mismatch = |why: String, cure| {
        let vm_name = books.brief(thing.vm).map(|vm| vm.name.clone());
        Some(Mismatch { thing: thing.clone(), vm_name, amiss: Amiss::Orphan, why, cure })
    };
    match (kind, books.brief(thing.vm)) {
        // The kernel does not say whose lease a tap is.
        (ResourceKind::Tap, _) => {
            let known = rows.iter().any(|row| row.kind == kind && row.name == thing.name);
            if known {
                None
            } else {
                mismatch("the pool of taps has no such row".into(), Cure::Remove)
            }
        }
        (ResourceKind::Leftover, _) => mismatch("nothing names it".to_owned(), Cure::Remove),
        (_, Some(vm)) if vm.busy => None,
        // They go with the directory that they are in.
        (ResourceKind::Config | ResourceKind::Memory, None) => None,
        (ResourceKind::Loop, _) => mismatch(
            "it does not go by itself, and banger makes none that stay".into(),
            Cure::Remove,
        ),
        (_, None) => {
            let why = match thing.vm {
                Some(vm) => format!("there is no VM {}", vm.short()),
                None => "no VM has such a name".to_owned(),
            };
            mismatch(why, Cure::Remove)
        }
        // What is left of one that is broken is its recovery's.
        (_, Some(vm)) if vm.state == VmState::Error && !kind.is_data() => None,
        (_, Some(vm)) if kind.is_data() || (is_on(vm.state) && kind != ResourceKind::Nat) => {
            mismatch(format!("{} is {} and has no row for it", vm.name, vm.state), Cure::Record)
        }
        (_, Some(vm)) => {
            mismatch(format!("{} is {} and holds none", vm.name, vm.state), Cure::Remove)
        }
    }
}

fn lost(books: &Books, seen: &HostSeen, thing: &Thing) -> Option<Mismatch> {
    let kind = thing.kind;
    let there = match kind {
        // Who leases it is not written on it.
        ResourceKind::Tap => {
            seen.things.iter().any(|other| other.kind == kind && other.name == thing.name)
        }
        _ => seen.things.contains(thing),
    };
    let mismatch = |why: String, cure| {
        let vm_name = books.brief(thing.vm).map(|vm| vm.name.clone());
        Some(Mismatch { thing: thing.clone(), vm_name, amiss: Amiss::Lost, why, cure })
    };
    let vm = match (thing.vm, books.brief(thing.vm)) {
        (Some(_), Some(vm)) => vm,
        (Some(vm), None) if seen.blind.contains(&kind) || !there => {
            return mismatch(format!("there is no VM {}", vm.short()), Cure::Strike);
        }
        (Some(vm), None) => {
            return mismatch(format!("there is no VM {}", vm.short()), Cure::Remove);
        }
        (None, _) if there || seen.blind.contains(&kind) => return None,
        (None, _) => return mismatch("it is free, and gone".to_owned(), Cure::Mended),
    };
    // Rows of a VM that is broken name what may be left of it.
    if vm.busy || vm.state == VmState::Error {
        return None;
    }
    if kind == ResourceKind::Tap && !is_on(vm.state) {
        return mismatch(format!("{} is {} and leases it", vm.name, vm.state), Cure::Strike);
    }
    if there || seen.blind.contains(&kind) {
        return None;
    }
    let name = &vm.name;
    let (why, cure) = match (kind, is_on(vm.state)) {
        (ResourceKind::VmDir, _) => (
            format!("the disks of {name} are gone"),
            Cure::Leave(format!("put them back, or `banger vm delete {name}`")),
        ),
        (ResourceKind::Memory, _) => (
            format!("the memory of {name} is gone"),
            Cure::Leave(format!(
                "`banger vm start --discard-memory {name}` boots it from its disks"
            )),
        ),
        (ResourceKind::Nat, true) => (format!("{name} runs and has none"), Cure::Mended),
        (_, true) => (
            format!("{name} is {} without it", vm.state),
            Cure::Leave(format!("`banger vm restart {name}` makes it anew")),
        ),
        (_, false) => (format!("{name} is {} and needs none", vm.state), Cure::Strike),
    };
    mismatch(why, cure)
}

fn is_on(state: VmState) -> bool {
    use VmState as S;
    matches!(state, S::Starting | S::Running | S::Stopping | S::Suspending)
}

/// Whether a thing of a VM that is known may be taken away, asked where nothing can happen to the VM
/// meanwhile. What is on keeps everything but a rule that no row names, and nobody loses data.
#[must_use]
pub fn may_collect(kind: ResourceKind, state: VmState, has_row: bool) -> bool {
    use VmState as S;
    match state {
        S::Created | S::Stopped | S::Crashed | S::Suspended => !kind.is_data(),
        S::Running => kind == ResourceKind::Nat && !has_row,
        S::Starting | S::Stopping | S::Suspending | S::Error => false,
    }
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
