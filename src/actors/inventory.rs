//! Compares the ledger with the host, both ways. Looks only; who acts is the janitor.
//!
//! ```text
//! books ─> host ─> books ──compare with each──> in both ──again, if there is anything──> in all
//! ```
//!
//! Things come and go while one looks. What is found counts only if it was so in the books before and
//! after the look, and in a second look.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{
    Books, Failure, HostSeen, Mismatch, OpId, OpRecord, ResourceKind, VmBrief, VmId, compare,
};
use crate::ports::{DiskHost, HostError, ImageHost, NetHost, ProcessHost, WarmHost};
use crate::store::{Store, StoreError};

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inventory {
    pub store: Store,
    pub net: Arc<dyn NetHost>,
    pub process: Arc<dyn ProcessHost>,
    pub disk: Arc<dyn DiskHost>,
    pub images: Arc<dyn ImageHost>,
    pub warm: Arc<dyn WarmHost>,
}

/// What a look came to.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Those that vanish first when they are dealt with come first.
    pub mismatches: Vec<Mismatch>,
    pub rows: usize,
    pub things: usize,
}

impl Inventory {
    pub async fn compare(&self, op: OpId) -> Result<Compared, Failure> {
        let mut compared = self.look(op).await?;
        if !compared.mismatches.is_empty() {
            let again = self.look(op).await?;
            let same = |one: &Mismatch| again.mismatches.iter().any(|other| is_same(one, other));
            compared.mismatches.retain(same);
        }
        compared.mismatches.sort_by_key(|found| rank(found.thing.kind));
        Ok(compared)
    }

    async fn look(&self, op: OpId) -> Result<Compared, Failure> {
        let before = self.books()?;
        let seen = self.survey(op).await.map_err(|error| Failure::from(&error))?;
        let after = self.books()?;
        let first = compare(&before, &seen.clone().of(&before));
        let seen = seen.of(&after);
        let mut mismatches = compare(&after, &seen);
        mismatches.retain(|one| first.iter().any(|other| is_same(one, other)));
        let rows = after.things().len();
        Ok(Compared { mismatches, rows, things: seen.things.len() })
    }

    /// What records and ledger say now.
    pub fn books(&self) -> Result<Books, Failure> {
        books(&self.store).map_err(|error| Failure::from(&error))
    }

    async fn survey(&self, op: OpId) -> Result<HostSeen, HostError> {
        let mut seen = self.process.survey(op).await?;
        seen.merge(self.disk.survey(op).await?);
        let net = self.net.survey(op).await?;
        for tap in net.taps.into_keys() {
            seen.add(ResourceKind::Tap, tap.0, None);
        }
        for (vm, address) in net.nat {
            seen.add(ResourceKind::Nat, address.to_string(), Some(vm));
        }
        let (mut known, unread) = (vec![], |error: StoreError| {
            HostError::new(crate::model::Code::Host, "read", "images and kernels").because(error)
        });
        known.extend(self.store.images().map_err(unread)?.iter().map(|image| image.digest));
        known.extend(self.store.kernels().map_err(unread)?.iter().map(|kernel| kernel.digest));
        let mut leftovers = self.images.leftovers(op, &known).await?;
        leftovers.extend(self.warm.leftovers(op, &known).await?);
        for path in leftovers {
            seen.add(ResourceKind::Leftover, path.display().to_string(), None);
        }
        Ok(seen)
    }
}

/// What the store has.
pub(super) fn books(store: &Store) -> Result<Books, StoreError> {
    // First: a VM that is gone by the time its rows are read has none either.
    let rows = store.ledger()?;
    let taps = store.taps()?.into_iter().map(|lease| (lease.tap, lease.vm)).collect();
    let open = store.open_ops()?;
    let busy = |vm: VmId| open.iter().any(|op: &OpRecord| op.vm == Some(vm));
    let mut vms = BTreeMap::new();
    for vm in store.vms()? {
        let name = vm.spec.name.to_string();
        vms.insert(vm.id, VmBrief { name, state: vm.state, busy: busy(vm.id) });
    }
    Ok(Books { rows, taps, vms })
}

fn is_same(one: &Mismatch, other: &Mismatch) -> bool {
    (&one.thing, one.amiss, &one.cure) == (&other.thing, other.amiss, &other.cure)
}

/// A device is busy as long as its process lives, and a directory as long as its device is there.
fn rank(kind: ResourceKind) -> u8 {
    use ResourceKind as K;
    match kind {
        K::Process | K::Cgroup | K::Jail => 0,
        K::Device | K::Loop => 1,
        K::Tap | K::Nat | K::RunDir | K::Config => 2,
        K::VmDir | K::Memory | K::Leftover => 3,
    }
}
