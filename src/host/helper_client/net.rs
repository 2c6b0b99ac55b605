//! The network port: bridge, taps and NAT, all done by the helper.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::client::{HelperClient, unexpected};
use crate::model::{Code, NetSeen, OpId, Subnet, TapName, TapSeen, VmId};
use crate::ports::{HostError, NetHost, PortFuture};
use crate::wire::helper::{HelperBody, HelperOk, NatEntry, NetworkReport, TapReport};

/// It takes milliseconds.
const SURVEY_LIMIT: Duration = Duration::from_secs(5);

#[derive(Clone, Debug)]
pub struct HelperNet {
    client: HelperClient,
    bridge: String,
    subnet: Subnet,
}

impl HelperNet {
    #[must_use]
    pub fn new(client: HelperClient, bridge: String, subnet: Subnet) -> Self {
        Self { client, bridge, subnet }
    }

    /// For requests whose success carries nothing that the port needs.
    async fn done(&self, op: OpId, body: HelperBody) -> Result<(), HostError> {
        let asked = body.name();
        match self.client.call(op, body).await? {
            HelperOk::Done => Ok(()),
            HelperOk::Bridge { forwarding_turned_on } => {
                if forwarding_turned_on {
                    tracing::info!(op_id = %op, "forwarding of IPv4 was off and is on now");
                }
                Ok(())
            }
            HelperOk::BridgeRemoved { ports_left } => {
                if ports_left > 0 {
                    tracing::info!(op_id = %op, ports_left, bridge = self.bridge, "bridge kept");
                }
                Ok(())
            }
            other => Err(unexpected(asked, &other)),
        }
    }
}

impl NetHost for HelperNet {
    fn ensure_bridge(&self, op: OpId) -> PortFuture<'_, ()> {
        let (bridge, subnet) = (self.bridge.clone(), self.subnet.into());
        Box::pin(self.done(op, HelperBody::EnsureBridge { bridge, subnet }))
    }

    fn remove_bridge(&self, op: OpId) -> PortFuture<'_, ()> {
        Box::pin(self.done(op, HelperBody::RemoveBridge { bridge: self.bridge.clone() }))
    }

    /// Without the bridge it is made first: somebody may have removed it, and if it cannot be made
    /// that is the reason to tell.
    fn ensure_tap<'a>(&'a self, op: OpId, tap: &'a TapName) -> PortFuture<'a, ()> {
        let body = HelperBody::EnsureTap { bridge: self.bridge.clone(), tap: tap.0.clone() };
        Box::pin(async move {
            match self.done(op, body.clone()).await {
                Err(error) if error.code == Code::NotFound => {
                    self.ensure_bridge(op).await?;
                    self.done(op, body).await
                }
                done => done,
            }
        })
    }

    fn remove_tap<'a>(&'a self, op: OpId, tap: &'a TapName) -> PortFuture<'a, ()> {
        Box::pin(self.done(op, HelperBody::RemoveTap { tap: tap.0.clone() }))
    }

    fn list_taps(&self, op: OpId) -> PortFuture<'_, Vec<TapName>> {
        Box::pin(async move {
            let body = HelperBody::ListTaps { bridge: self.bridge.clone() };
            match self.client.call(op, body).await? {
                HelperOk::Taps(taps) => Ok(taps.into_iter().map(TapName).collect()),
                other => Err(unexpected("list-taps", &other)),
            }
        })
    }

    fn ensure_nat(&self, op: OpId, vm: VmId, guest: Ipv4Addr) -> PortFuture<'_, ()> {
        let (bridge, address) = (self.bridge.clone(), guest.octets());
        Box::pin(self.done(op, HelperBody::EnsureNat { bridge, vm: vm.0, address }))
    }

    fn remove_nat(&self, op: OpId, vm: VmId, guest: Ipv4Addr) -> PortFuture<'_, ()> {
        let (bridge, address) = (self.bridge.clone(), guest.octets());
        Box::pin(self.done(op, HelperBody::RemoveNat { bridge, vm: vm.0, address }))
    }

    fn survey(&self, op: OpId) -> PortFuture<'_, NetSeen> {
        Box::pin(async move {
            let body = HelperBody::SurveyNetwork { bridge: self.bridge.clone() };
            match self.client.call_once(op, body, SURVEY_LIMIT).await? {
                HelperOk::Network(report) => Ok(report.into()),
                other => Err(unexpected("survey-network", &other)),
            }
        })
    }
}

impl From<NetworkReport> for NetSeen {
    fn from(report: NetworkReport) -> Self {
        let NetworkReport { version, bridge, forwarding, table, taps, nat, drops } = report;
        let tap = |TapReport { name, attached, used }| (TapName(name), TapSeen { attached, used });
        // One that names no VM was not made by this daemon's helper.
        let entry = |NatEntry { vm, address }| Some((VmId(vm?), address.into()));
        Self {
            bridge,
            forwarding,
            table,
            taps: taps.into_iter().map(tap).collect(),
            nat: nat.into_iter().filter_map(entry).collect(),
            drops,
            helper: version,
        }
    }
}
