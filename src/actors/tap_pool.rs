//! Owns the taps: which are warm, which are leased, and the making of new ones ahead of need.
//!
//! ```text
//! row written ──> making ──> free ──lease──> leased ──release──> free ──(too many)──> row removed
//! ```
//!
//! A row in the store names every tap before it is made, so a tap that nobody remembers cannot
//! exist. A lease is durable and belongs to the VM until it is given back, however often the
//! daemon restarts. What must not be done here: wait for the helper inside a handler.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::envelope::{CallError, Command, OpCtx, Req};
use super::events::EventSink;
use super::handle::Handle;
use super::mint::Mint;
use super::service::{self, DeathBell};
use crate::model::{Code, Failure, OpId, TapName, TapSeen, VmId};
use crate::ports::{HostError, NetHost, PortFuture, TapSource};
use crate::store::{Store, TapLease};

const SLOTS: usize = 4096;
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// After a failure to make a tap ahead of need; a lease does not wait for it.
const REFILL_PAUSE: Duration = Duration::from_secs(5);

/// Fixed for the life of the pool.
#[derive(Clone, Debug)]
pub struct TapPoolConfig {
    pub prefix: String,
    /// How many are kept warm.
    pub size: usize,
    /// From a lease until it is made up for, while taps are left: who leased it starts a VM, and is not
    /// held up by one for somebody else. A VM that ends sooner gives its own back.
    pub refill_after: Duration,
}

#[derive(Debug)]
pub struct TapPoolActor {
    bell: DeathBell,
    config: TapPoolConfig,
    store: Store,
    net: Arc<dyn NetHost>,
    mint: Mint,
    free: BTreeSet<TapName>,
    leased: BTreeMap<VmId, TapName>,
    /// Known by their rows, but perhaps not, or half, made: the refill makes sure of them.
    unsure: BTreeSet<TapName>,
    /// Being made, removed or given back at this moment.
    moving: BTreeSet<TapName>,
    refilling: bool,
    /// A refill will come.
    refill_due: bool,
}

#[derive(Clone, Debug)]
pub struct TapPoolHandle(Handle<TapPoolActor>);

#[derive(Clone, Copy, Debug)]
struct Lease(VmId);

impl Command for Lease {
    type Reply = TapName;
    const NAME: &'static str = "taps.lease";
}

#[derive(Clone, Copy, Debug)]
struct Release(VmId);

impl Command for Release {
    type Reply = ();
    const NAME: &'static str = "taps.release";
}

/// What a look at the host found. Free taps that are not as they should be are made sure of before
/// they are used, and those of VMs that run are put on the bridge again; answers with whose.
#[derive(Clone, Debug)]
pub(super) struct Mend {
    pub(super) seen: BTreeMap<TapName, TapSeen>,
    pub(super) loose: Vec<VmId>,
}

impl Command for Mend {
    type Reply = Vec<VmId>;
    const NAME: &'static str = "taps.mend";
}

/// Takes away a tap of ours that the pool knows nothing of.
#[derive(Clone, Debug)]
struct Discard(TapName);

impl Command for Discard {
    type Reply = ();
    const NAME: &'static str = "taps.discard";
}

/// How many are ready and how many leased.
#[derive(Clone, Copy, Debug)]
struct Count;

impl Command for Count {
    type Reply = (usize, usize);
    const NAME: &'static str = "taps.count";
}

impl TapPoolActor {
    /// Starts from the rows of the store, at every incarnation.
    #[must_use]
    pub fn launch(
        config: TapPoolConfig,
        store: Store,
        net: Arc<dyn NetHost>,
        mint: Mint,
        events: EventSink,
    ) -> TapPoolHandle {
        TapPoolHandle(service::keep("taps", SLOTS, Some(events), move |bell| {
            let (config, store, net) = (config.clone(), store.clone(), Arc::clone(&net));
            Self::from_rows(bell, config, store, net, mint.clone()).start()
        }))
    }

    fn from_rows(
        bell: DeathBell,
        config: TapPoolConfig,
        store: Store,
        net: Arc<dyn NetHost>,
        mint: Mint,
    ) -> Self {
        let rows = store.taps().unwrap_or_else(|error| {
            tracing::error!(error = %crate::model::chain(&error), "tap rows not read");
            vec![]
        });
        let mut leased = BTreeMap::new();
        let mut unsure = BTreeSet::new();
        for TapLease { tap, vm } in rows {
            match vm {
                Some(vm) => drop(leased.insert(vm, tap)),
                None => drop(unsure.insert(tap)),
            }
        }
        let (free, moving) = (BTreeSet::new(), BTreeSet::new());
        let (refilling, refill_due) = (false, false);
        Self { bell, config, store, net, mint, free, leased, unsure, moving, refilling, refill_due }
    }

    /// The lowest slot that nothing uses.
    fn new_name(&self) -> Option<TapName> {
        let mut names = (0..=u16::MAX).map(|slot| TapName::new(&self.config.prefix, slot));
        names.find(|tap| !self.knows(tap))
    }

    fn knows(&self, tap: &TapName) -> bool {
        self.free.contains(tap)
            || self.unsure.contains(tap)
            || self.moving.contains(tap)
            || self.leased.values().any(|leased| leased == tap)
    }

    /// Brings the pool to its size in the background, one tap at a time. Taps whose making was cut
    /// short come first.
    fn refill(&mut self, ctx: &mut Context<Self>) {
        if self.refilling {
            return;
        }
        let known = self.unsure.pop_first();
        let wanted = self.free.len() < self.config.size;
        let Some(tap) = known.or_else(|| wanted.then(|| self.new_name()).flatten()) else { return };
        self.refilling = true;
        self.moving.insert(tap.clone());
        let (store, net, op) = (self.store.clone(), Arc::clone(&self.net), self.mint.op());
        let making = async move {
            let made = make(&store, &*net, op, &tap).await;
            (tap, made)
        };
        ctx.spawn(making.into_actor(self).map(|(tap, made), act, ctx| {
            act.refilling = false;
            act.moving.remove(&tap);
            match made {
                Ok(()) => {
                    act.free.insert(tap);
                    act.shrink(ctx);
                    act.refill(ctx);
                }
                Err(failure) => {
                    tracing::warn!(%tap, error = %failure, "tap not made; trying again later");
                    act.unsure.insert(tap);
                    ctx.run_later(REFILL_PAUSE, Self::refill);
                }
            }
        }));
    }

    fn refill_after_lease(&mut self, ctx: &mut Context<Self>) {
        if self.free.is_empty() {
            self.refill(ctx);
        } else if !self.refill_due {
            self.refill_due = true;
            ctx.run_later(self.config.refill_after, |act, ctx| {
                act.refill_due = false;
                act.refill(ctx);
            });
        }
    }

    /// Keeps the pool from growing with every burst.
    fn shrink(&mut self, ctx: &mut Context<Self>) {
        while self.free.len() > self.config.size {
            let Some(tap) = self.free.pop_last() else { return };
            self.moving.insert(tap.clone());
            let (store, net, op) = (self.store.clone(), Arc::clone(&self.net), self.mint.op());
            let removing = async move {
                // The row goes last: until then the tap is known.
                let removed = match net.remove_tap(op, &tap).await {
                    Ok(()) => store.forget_tap(tap.clone()).await.map_err(|e| Failure::from(&e)),
                    Err(error) => Err(Failure::from(&error)),
                };
                (tap, removed)
            };
            ctx.spawn(removing.into_actor(self).map(|(tap, removed), act, ctx| {
                act.moving.remove(&tap);
                if let Err(failure) = removed {
                    // Half of it may be gone: it is made sure of before it is used, or removed again.
                    tracing::warn!(%tap, error = %failure, "tap not removed; trying again later");
                    act.unsure.insert(tap);
                    ctx.run_later(REFILL_PAUSE, Self::refill);
                }
            }));
        }
    }
}

/// The row first, then the tap.
async fn make(store: &Store, net: &dyn NetHost, op: OpId, tap: &TapName) -> Result<(), Failure> {
    store.add_tap(tap.clone()).await.map_err(|error| Failure::from(&error))?;
    net.ensure_tap(op, tap).await.map_err(|error| Failure::from(&error))
}

async fn bind(store: &Store, tap: &TapName, vm: VmId) -> Result<(), Failure> {
    match store.lease_tap(vm, vec![tap.clone()]).await {
        Ok(Some(bound)) if bound == *tap => Ok(()),
        Ok(other) => {
            let message = format!("lease tap {tap}: the ledger says {other:?}");
            Err(Failure::new(Code::Internal, message))
        }
        Err(error) => Err(Failure::from(&error)),
    }
}

impl Actor for TapPoolActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.refill(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.bell.ring();
    }
}

impl Handler<Req<Lease>> for TapPoolActor {
    type Result = ResponseActFuture<Self, Result<TapName, CallError>>;

    fn handle(&mut self, req: Req<Lease>, _: &mut Self::Context) -> Self::Result {
        let (vm, op) = (req.cmd.0, req.ctx.op_id);
        let known = self.leased.get(&vm).cloned();
        let warm = known.is_none().then(|| self.free.pop_first()).flatten();
        let is_warm = warm.is_some();
        let Some(tap) = known.or(warm).or_else(|| self.new_name()) else {
            let full = Failure::new(Code::AddressPoolFull, "lease tap: every slot is taken");
            return Box::pin(fut::ready(Err(full.into())));
        };
        self.leased.insert(vm, tap.clone()); // before the first await
        let (store, net) = (self.store.clone(), Arc::clone(&self.net));
        let leasing = async move {
            // A warm tap only changes hands; any other is bound first and then made sure of.
            let mut leased = bind(&store, &tap, vm).await;
            if leased.is_ok() && !is_warm {
                leased = net.ensure_tap(op, &tap).await.map_err(|error| Failure::from(&error));
            }
            leased.map(|()| tap).map_err(CallError::from)
        };
        Box::pin(leasing.into_actor(self).map(|leased, act, ctx| {
            act.refill_after_lease(ctx);
            leased // after a failure the row stays the VM's: its release takes it back
        }))
    }
}

impl Handler<Req<Release>> for TapPoolActor {
    type Result = ResponseActFuture<Self, Result<(), CallError>>;

    fn handle(&mut self, req: Req<Release>, _: &mut Self::Context) -> Self::Result {
        let Some(tap) = self.leased.remove(&req.cmd.0) else {
            return Box::pin(fut::ready(Ok(())));
        };
        self.moving.insert(tap.clone());
        let (vm, store) = (req.cmd.0, self.store.clone());
        let giving_back = async move { (store.release_tap(vm).await, tap) };
        Box::pin(giving_back.into_actor(self).map(move |(given, tap), act, ctx| {
            act.moving.remove(&tap);
            match given {
                // It may be half made if its lease failed, so it is made sure of before reuse.
                Ok(_) => {
                    act.unsure.insert(tap);
                    act.refill(ctx);
                    Ok(())
                }
                Err(error) => {
                    act.leased.insert(vm, tap);
                    Err(Failure::from(&error).into())
                }
            }
        }))
    }
}

impl Handler<Req<Mend>> for TapPoolActor {
    type Result = ResponseActFuture<Self, Result<Vec<VmId>, CallError>>;

    fn handle(&mut self, req: Req<Mend>, ctx: &mut Self::Context) -> Self::Result {
        let (Mend { seen, loose }, op) = (req.cmd, req.ctx.op_id);
        let fine = |tap: &TapName| seen.get(tap).is_some_and(|tap| tap.attached);
        let (free, unsure) = std::mem::take(&mut self.free).into_iter().partition(fine);
        self.free = free;
        if !unsure.is_empty() {
            tracing::warn!(count = unsure.len(), "free taps are not as they were made");
            self.unsure.extend::<BTreeSet<_>>(unsure);
            self.refill(ctx);
        }
        let leased = |vm| Some((vm, self.leased.get(&vm)?.clone()));
        let loose: Vec<_> = loose.into_iter().filter_map(leased).collect();
        let net = Arc::clone(&self.net);
        let mending = async move {
            let mut mended = vec![];
            for (vm, tap) in loose {
                match net.ensure_tap(op, &tap).await {
                    Ok(()) => mended.push(vm),
                    Err(error) => {
                        tracing::warn!(%tap, error = %crate::model::chain(&error), "tap not mended");
                    }
                }
            }
            Ok(mended)
        };
        Box::pin(mending.into_actor(self))
    }
}

impl Handler<Req<Discard>> for TapPoolActor {
    type Result = ResponseActFuture<Self, Result<(), CallError>>;

    fn handle(&mut self, req: Req<Discard>, _: &mut Self::Context) -> Self::Result {
        let (Discard(tap), op) = (req.cmd, req.ctx.op_id);
        if self.knows(&tap) {
            let message = format!("discard tap {tap}: it is the pool's by now");
            return Box::pin(fut::ready(Err(Failure::new(Code::InUse, message).into())));
        }
        self.moving.insert(tap.clone()); // nobody takes the name meanwhile
        let net = Arc::clone(&self.net);
        let removing = async move { (net.remove_tap(op, &tap).await, tap) };
        Box::pin(removing.into_actor(self).map(|(removed, tap), act, _| {
            act.moving.remove(&tap);
            removed.map_err(|error| Failure::from(&error).into())
        }))
    }
}

impl Handler<Req<Count>> for TapPoolActor {
    type Result = Result<(usize, usize), CallError>;

    fn handle(&mut self, _: Req<Count>, _: &mut Self::Context) -> Self::Result {
        Ok((self.free.len(), self.leased.len()))
    }
}

impl TapPoolHandle {
    pub(super) async fn mend(&self, op: OpId, mend: Mend) -> Result<Vec<VmId>, CallError> {
        self.0.call(OpCtx::within(op, CALL_LIMIT), mend).await
    }

    pub(super) async fn discard(&self, op: OpId, tap: TapName) -> Result<(), CallError> {
        self.0.call(OpCtx::within(op, CALL_LIMIT), Discard(tap)).await
    }

    /// Ready and leased.
    pub async fn count(&self, op: OpId) -> (usize, usize) {
        self.0.call(OpCtx::within(op, CALL_LIMIT), Count).await.unwrap_or_default()
    }
}

impl TapSource for TapPoolHandle {
    fn lease(&self, op: OpId, vm: VmId) -> PortFuture<'_, TapName> {
        let call = self.0.call(OpCtx::within(op, CALL_LIMIT), Lease(vm));
        Box::pin(async move { call.await.map_err(|error| failed("lease tap for", vm, error)) })
    }

    fn release(&self, op: OpId, vm: VmId) -> PortFuture<'_, ()> {
        let call = self.0.call(OpCtx::within(op, CALL_LIMIT), Release(vm));
        Box::pin(async move { call.await.map_err(|error| failed("release tap of", vm, error)) })
    }
}

fn failed(operation: &'static str, vm: VmId, error: CallError) -> HostError {
    let failure = Failure::from(error);
    let mut host = HostError::new(failure.code, operation, vm.short());
    host.hints.clone_from(&failure.hints);
    host.because(failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{SimOptions, SimWorld};

    const LIMIT: Duration = Duration::from_secs(20);

    async fn until_ready(pool: &TapPoolHandle, ready: usize) {
        let waited = async {
            while pool.count(OpId([0; 16])).await.0 != ready {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(tokio::time::timeout(LIMIT, waited).await.is_ok(), "never {ready} taps");
    }

    /// A pool of two that makes up for a lease after `refill_after`.
    async fn pool(refill_after: Duration) -> (TapPoolHandle, Arc<SimWorld>, tempfile::TempDir) {
        let sim = Arc::new(SimWorld::new(SimOptions::new("10.9.0.0/24".parse().unwrap())));
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let clock: Arc<dyn crate::ports::Clock> = Arc::<SimWorld>::clone(&sim);
        let events = EventSink::new(store.clone(), Arc::clone(&clock));
        let net: Arc<dyn NetHost> = Arc::<SimWorld>::clone(&sim);
        let config = TapPoolConfig { prefix: "tap".to_owned(), size: 2, refill_after };
        let pool = TapPoolActor::launch(config, store, net, Mint::new(clock), events);
        until_ready(&pool, 2).await;
        (pool, sim, dir)
    }

    #[actix::test]
    async fn who_leases_a_tap_is_not_held_up_by_the_next_and_may_give_it_back_before() {
        let (pool, sim, _dir) = pool(LIMIT * 1000).await;
        let (op, vm) = (OpId([1; 16]), VmId([1; 16]));
        for round in 1..=3 {
            pool.lease(op, vm).await.unwrap();
            assert_eq!(pool.count(op).await, (1, 1));
            pool.release(op, vm).await.unwrap();
            until_ready(&pool, 2).await;
            // It is made sure of, and no other was made.
            assert_eq!(
                (sim.calls_of("net.ensure_tap"), sim.calls_of("net.remove_tap")),
                (2 + round, 0)
            );
        }
    }

    #[actix::test]
    async fn a_pool_that_is_empty_is_filled_at_once_and_any_other_after_a_while() {
        let (op, vms) = (OpId([1; 16]), [VmId([1; 16]), VmId([2; 16])]);
        let (empty, _sim, _dir) = pool(LIMIT * 1000).await;
        for vm in vms {
            empty.lease(op, vm).await.unwrap();
        }
        until_ready(&empty, 2).await;
        let (soon, _sim, _dir) = pool(Duration::from_millis(1)).await;
        soon.lease(op, vms[0]).await.unwrap();
        until_ready(&soon, 2).await;
    }
}
