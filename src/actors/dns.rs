//! Owns which names are answered. Derived from the VMs' published states, so it is rebuilt by
//! publishing again, and nothing of it is durable.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::envelope::{CallError, Command, OpCtx, Req};
use super::events::EventSink;
use super::handle::Handle;
use super::service::{self, DeathBell};
use crate::model::{Code, Name, OpId};
use crate::ports::{HostError, NameHost, NameSink, PortFuture};

const SLOTS: usize = 1024;
/// Another process may hold the port for a while.
const RETRY: Duration = Duration::from_secs(5);
const CALL_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct DnsActor {
    bell: DeathBell,
    /// None: names are kept, and nobody is told.
    host: Option<Arc<dyn NameHost>>,
    names: BTreeMap<Name, Ipv4Addr>,
    bound: Option<SocketAddr>,
}

#[derive(Clone, Debug)]
pub struct DnsHandle(Handle<DnsActor>);

#[derive(Debug)]
struct Publish(Name, Ipv4Addr);

impl Command for Publish {
    type Reply = ();
    const NAME: &'static str = "dns.publish";
}

#[derive(Debug)]
struct Withdraw(Name, Ipv4Addr);

impl Command for Withdraw {
    type Reply = ();
    const NAME: &'static str = "dns.withdraw";
}

/// Where the server listens, if it does.
#[derive(Clone, Copy, Debug)]
struct Bound;

impl Command for Bound {
    type Reply = Option<SocketAddr>;
    const NAME: &'static str = "dns.bound";
}

impl DnsActor {
    /// `published` answers with the names that should be known; it is asked at every incarnation.
    #[must_use]
    pub fn launch(
        host: Option<Arc<dyn NameHost>>,
        events: EventSink,
        published: impl Fn() -> BTreeMap<Name, Ipv4Addr> + 'static,
    ) -> DnsHandle {
        DnsHandle(service::keep("dns", SLOTS, Some(events), move |bell| {
            let (host, names) = (host.clone(), published());
            if let Some(host) = &host {
                names.iter().for_each(|(name, address)| host.set(name, *address));
            }
            Self { bell, host, names, bound: None }.start()
        }))
    }

    fn serve(&mut self, ctx: &mut Context<Self>) {
        let Some(host) = self.host.clone() else { return };
        let serving = async move { host.serve().await };
        ctx.spawn(serving.into_actor(self).map(|served, act, ctx| match served {
            Ok(address) => {
                tracing::info!(%address, "dns answers");
                act.bound = Some(address);
            }
            Err(error) => {
                tracing::warn!(error = %crate::model::chain(&error), "dns does not answer");
                ctx.run_later(RETRY, Self::serve);
            }
        }));
    }
}

impl Actor for DnsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.serve(ctx);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.bell.ring();
    }
}

impl Handler<Req<Publish>> for DnsActor {
    type Result = Result<(), CallError>;

    fn handle(&mut self, req: Req<Publish>, _: &mut Self::Context) -> Self::Result {
        let Publish(name, address) = req.cmd;
        if let Some(host) = &self.host {
            host.set(&name, address);
        }
        self.names.insert(name, address);
        Ok(())
    }
}

impl Handler<Req<Withdraw>> for DnsActor {
    type Result = Result<(), CallError>;

    fn handle(&mut self, req: Req<Withdraw>, _: &mut Self::Context) -> Self::Result {
        let Withdraw(name, address) = req.cmd;
        // A later VM may have taken the name over.
        if self.names.get(&name) == Some(&address) {
            if let Some(host) = &self.host {
                host.remove(&name);
            }
            self.names.remove(&name);
        }
        Ok(())
    }
}

impl Handler<Req<Bound>> for DnsActor {
    type Result = Result<Option<SocketAddr>, CallError>;

    fn handle(&mut self, _: Req<Bound>, _: &mut Self::Context) -> Self::Result {
        Ok(self.bound)
    }
}

impl DnsHandle {
    pub async fn bound(&self, op: OpId) -> Option<SocketAddr> {
        self.0.call(OpCtx::within(op, CALL_LIMIT), Bound).await.ok().flatten()
    }
}

impl NameSink for DnsHandle {
    fn publish<'a>(&'a self, op: OpId, name: &'a Name, address: Ipv4Addr) -> PortFuture<'a, ()> {
        let call = self.0.call(OpCtx::within(op, CALL_LIMIT), Publish(name.clone(), address));
        Box::pin(async move { call.await.map_err(|error| failed("publish name", name, error)) })
    }

    fn withdraw<'a>(&'a self, op: OpId, name: &'a Name, address: Ipv4Addr) -> PortFuture<'a, ()> {
        let call = self.0.call(OpCtx::within(op, CALL_LIMIT), Withdraw(name.clone(), address));
        Box::pin(async move { call.await.map_err(|error| failed("withdraw name", name, error)) })
    }
}

fn failed(operation: &'static str, name: &Name, error: CallError) -> HostError {
    HostError::new(Code::Internal, operation, name.as_str()).because(error)
}
