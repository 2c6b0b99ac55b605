//! Snapshots that hold nothing. What goes on from one is as blank as what was saved.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use sha2::{Digest as _, Sha256};

use super::SimWorld;
use super::state::State;
use crate::model::{Code, Digest, OpId, Size};
use crate::ports::{Claim, Draft, Found, HostError, Likeness, PortFuture, Snapshot, WarmHost};

#[derive(Debug)]
struct SimDraft(Snapshot);

impl Draft for SimDraft {
    fn snapshot(&self) -> &Snapshot {
        &self.0
    }
}

fn place(like: &Likeness) -> PathBuf {
    let key = Digest(Sha256::digest(format!("{like:?}")).into());
    PathBuf::from("/sim/warm").join(key.to_string())
}

impl WarmHost for SimWorld {
    fn find<'a>(&'a self, _op: OpId, like: &'a Likeness) -> PortFuture<'a, Found> {
        let find = move |state: &mut State| {
            let dir = place(like);
            if state.world.snapshots.contains_key(&dir) {
                return Ok(Found::Snapshot(Snapshot { dir }));
            }
            if state.claims.get(&dir).is_some_and(|claim| claim.strong_count() > 0) {
                return Ok(Found::BeingMade);
            }
            let claim = Claim::default();
            state.claims.insert(dir, Arc::downgrade(&claim));
            Ok(Found::Missing(claim))
        };
        self.call("warm.find", find).boxed()
    }

    fn draft<'a>(
        &'a self,
        _op: OpId,
        like: &'a Likeness,
        _room: Size,
    ) -> PortFuture<'a, Box<dyn Draft>> {
        let draft = move |_: &mut State| {
            let dir = place(like).with_extension("draft");
            Ok(Box::new(SimDraft(Snapshot { dir })) as Box<dyn Draft>)
        };
        self.call("warm.draft", draft).boxed()
    }

    fn keep<'a>(
        &'a self,
        _op: OpId,
        like: &'a Likeness,
        draft: Box<dyn Draft>,
    ) -> PortFuture<'a, ()> {
        let keep = move |state: &mut State| {
            let dir = &draft.snapshot().dir;
            if !(state.copied.remove(dir) && state.copied.remove(&dir.join("memory"))) {
                let error = HostError::new(Code::Invalid, "keep", dir.display().to_string());
                return Err(error.because("nothing was copied to it"));
            }
            state.world.snapshots.insert(place(like), like.clone());
            Ok(())
        };
        self.call("warm.keep", keep).boxed()
    }

    fn remove<'a>(&'a self, _op: OpId, snapshot: &'a Snapshot) -> PortFuture<'a, ()> {
        let remove = move |state: &mut State| {
            state.world.snapshots.remove(&snapshot.dir);
            Ok(())
        };
        self.call("warm.remove", remove).boxed()
    }

    fn sweep<'a>(&'a self, _op: OpId, known: &'a [Digest]) -> PortFuture<'a, u32> {
        let sweep = move |state: &mut State| {
            let before = state.world.snapshots.len();
            let useful =
                |like: &Likeness| known.contains(&like.image) && known.contains(&like.kernel);
            state.world.snapshots.retain(|_, like| useful(like));
            Ok(u32::try_from(before - state.world.snapshots.len()).unwrap_or(u32::MAX))
        };
        self.call("warm.sweep", sweep).boxed()
    }

    fn usage(&self, _op: OpId) -> PortFuture<'_, BTreeMap<Digest, (u32, u64)>> {
        let look = move |state: &mut State| {
            let mut all = BTreeMap::new();
            for like in state.world.snapshots.values() {
                let (count, bytes): &mut (u32, u64) = all.entry(like.image).or_default();
                *count += 1;
                *bytes += u64::from(like.memory_mib) << 20;
            }
            Ok(all)
        };
        self.call("warm.usage", look).boxed()
    }

    fn leftovers<'a>(&'a self, _op: OpId, known: &'a [Digest]) -> PortFuture<'a, Vec<PathBuf>> {
        let look = move |state: &mut State| {
            let useful =
                |like: &Likeness| known.contains(&like.image) && known.contains(&like.kernel);
            let useless = state.world.snapshots.iter().filter(|(_, like)| !useful(like));
            Ok(useless.map(|(dir, _)| dir.clone()).collect())
        };
        self.call("warm.leftovers", look).boxed()
    }
}
