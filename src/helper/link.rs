//! The bridge and its ports, over rtnetlink.
//!
//! A link is ours by its alias. The alias cannot be set in the message that makes a link, so a
//! bridge is made with an address of hardware derived from its gateway: one without alias but
//! with that address and no port is half-made, and is finished. Everything else of that name is
//! somebody's, and is refused.

use std::net::Ipv4Addr;

use futures::TryStreamExt;
use nix::libc;
use rtnetlink::packet_core::Nla;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{
    InfoData, InfoKind, InfoTun, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use rtnetlink::{Handle, LinkBridge, LinkUnspec};

use super::error::Trouble;
use crate::model::{Code, Mac, Subnet};
use crate::wire::helper::TapReport;

const BRIDGE_ALIAS: &str = "banger:bridge";
const TAP_ALIAS: &str = "banger:tap";
/// linux/if_link.h
const IFLA_TUN_OWNER: u16 = 1;
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// One netlink connection; its task ends with it.
pub(super) struct Links {
    handle: Handle,
}

/// What of the bridge is there already.
#[derive(Debug)]
pub(super) struct Survey {
    index: Option<u32>,
    has_address: bool,
    mac: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Link {
    pub(super) index: u32,
    pub(super) name: String,
    pub(super) alias: Option<String>,
    /// Of a tap: who may open it.
    pub(super) owner: Option<u32>,
    kind: Option<InfoKind>,
    controller: Option<u32>,
    mac: Vec<u8>,
    up: bool,
    /// Of a tap: somebody has it open.
    carrier: bool,
}

/// What is there of what this helper makes.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) bridge: bool,
    pub(super) taps: Vec<TapReport>,
}

impl From<LinkMessage> for Link {
    fn from(message: LinkMessage) -> Self {
        let up = message.header.flags.contains(LinkFlags::Up);
        let mut link = Self { index: message.header.index, up, ..Self::default() };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Controller(index) => link.controller = Some(index),
                LinkAttribute::Address(mac) => link.mac = mac,
                LinkAttribute::Carrier(carrier) => link.carrier = carrier != 0,
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        match info {
                            LinkInfo::Kind(kind) => link.kind = Some(kind),
                            LinkInfo::Data(InfoData::Tun(of)) => link.owner = tun_owner(&of),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }
}

impl Link {
    pub(super) fn is_tap(&self) -> bool {
        self.kind == Some(InfoKind::Tun)
    }

    pub(super) fn is_our_tap(&self) -> bool {
        self.is_tap() && self.alias.as_deref() == Some(TAP_ALIAS)
    }

    fn is_our_bridge(&self) -> bool {
        self.kind == Some(InfoKind::Bridge) && self.alias.as_deref() == Some(BRIDGE_ALIAS)
    }
}

fn tun_owner(attributes: &[InfoTun]) -> Option<u32> {
    let owner = attributes.iter().find(|one| one.kind() == IFLA_TUN_OWNER)?;
    let mut bytes = [0; 4];
    if owner.value_len() != bytes.len() {
        return None;
    }
    owner.emit_value(&mut bytes);
    Some(u32::from_ne_bytes(bytes))
}

fn trouble(operation: &'static str, object: &str, error: rtnetlink::Error) -> Trouble {
    Trouble::new(Code::Host, operation, object).because(error)
}

fn is_errno(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

impl Links {
    pub(super) fn open() -> Result<Self, Trouble> {
        let (connection, handle, _) = rtnetlink::new_connection()
            .map_err(|error| Trouble::io("open", "netlink socket", error))?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    pub(super) async fn find(&self, name: &str) -> Result<Option<Link>, Trouble> {
        let mut found = self.handle.link().get().match_name(name.to_owned()).execute();
        match found.try_next().await {
            Ok(message) => Ok(message.map(Link::from)),
            Err(error) if is_errno(&error, libc::ENODEV) => Ok(None),
            Err(error) => Err(trouble("look up link", name, error)),
        }
    }

    async fn all(&self) -> Result<Vec<Link>, Trouble> {
        let links = self.handle.link().get().execute().map_ok(Link::from);
        links.try_collect().await.map_err(|error| trouble("list", "links", error))
    }

    /// Addresses by link index.
    async fn addresses(&self) -> Result<Vec<(u32, Ipv4Addr, u8)>, Trouble> {
        let messages = self.handle.address().get().execute();
        let messages: Vec<_> =
            messages.try_collect().await.map_err(|error| trouble("list", "addresses", error))?;
        let mut found = vec![];
        for message in messages {
            let (mut local, mut peer) = (None, None);
            for attribute in message.attributes {
                match attribute {
                    AddressAttribute::Local(std::net::IpAddr::V4(address)) => local = Some(address),
                    AddressAttribute::Address(std::net::IpAddr::V4(address)) => {
                        peer = Some(address);
                    }
                    _ => {}
                }
            }
            if let Some(address) = local.or(peer) {
                found.push((message.header.index, address, message.header.prefix_len));
            }
        }
        Ok(found)
    }

    /// Looks whether the bridge may be made or used, before anything is touched.
    pub(super) async fn survey(&self, name: &str, subnet: Subnet) -> Result<Survey, Trouble> {
        let refuse =
            |why: String| Err(Trouble::new(Code::Conflict, "use bridge", name).because(why));
        let mac = Mac::for_address(subnet.gateway()).0.to_vec();
        let (links, addresses) = (self.all().await?, self.addresses().await?);
        let found = links.iter().find(|link| link.name == name);
        let own = found.map(|link| link.index);
        for (index, address, prefix) in &addresses {
            if Some(*index) != own && overlaps(subnet, *address, *prefix) {
                let other = links.iter().find(|link| link.index == *index);
                let other = other.map_or("another link", |link| link.name.as_str());
                let why = format!("link {other} has {address}/{prefix}");
                let object = format!("subnet {subnet}");
                return Err(Trouble::new(Code::Conflict, "use", object).because(why));
            }
        }
        let mut survey = Survey { index: own, has_address: false, mac };
        let Some(link) = found else { return Ok(survey) };
        let ports = links.iter().any(|port| port.controller == Some(link.index));
        let half_made = link.kind == Some(InfoKind::Bridge)
            && link.alias.is_none()
            && link.mac == survey.mac
            && !ports;
        if !link.is_our_bridge() && !half_made {
            return refuse("a link of that name exists that banger did not make".to_owned());
        }
        let gateway = subnet.gateway();
        for (_, address, prefix) in addresses.iter().filter(|(at, ..)| Some(*at) == own) {
            if (*address, *prefix) != (gateway, subnet.prefix_len()) {
                return refuse(format!("it has address {address}/{prefix}, not {gateway}"));
            }
            survey.has_address = true;
        }
        Ok(survey)
    }

    /// Looks at everything and touches nothing.
    pub(super) async fn look(&self, bridge: &str, subnet: Subnet) -> Result<Seen, Trouble> {
        let (links, addresses) = (self.all().await?, self.addresses().await?);
        let bridge = links.iter().find(|link| link.name == bridge && link.is_our_bridge());
        let index = bridge.map(|link| link.index);
        let own = (subnet.gateway(), subnet.prefix_len());
        let has_address = |link: &Link| {
            addresses.iter().any(|(at, address, len)| *at == link.index && (*address, *len) == own)
        };
        let report = |link: &Link| TapReport {
            name: link.name.clone(),
            attached: link.up && index.is_some() && link.controller == index,
            used: link.carrier,
        };
        Ok(Seen {
            bridge: bridge.is_some_and(|link| link.up && has_address(link)),
            taps: links.iter().filter(|link| link.is_our_tap()).map(report).collect(),
        })
    }

    /// The bridge with its address, up and marked.
    pub(super) async fn ensure_bridge(
        &self,
        name: &str,
        subnet: Subnet,
        survey: Survey,
    ) -> Result<(), Trouble> {
        let index = match survey.index {
            Some(index) => index,
            None => self.create_bridge(name, survey.mac).await?,
        };
        if !survey.has_address {
            let gateway = subnet.gateway().into();
            let add = self.handle.address().add(index, gateway, subnet.prefix_len());
            let add = add.execute().await;
            add.map_err(|error| trouble("give an address to bridge", name, error))?;
        }
        // The alias last: it says that the bridge is whole.
        let mark = LinkUnspec::new_with_index(index).up().alias(BRIDGE_ALIAS).build();
        let set = self.handle.link().set(mark).execute().await;
        set.map_err(|error| trouble("bring up bridge", name, error))
    }

    async fn create_bridge(&self, name: &str, mac: Vec<u8>) -> Result<u32, Trouble> {
        // A fixed hardware address: the kernel's own choice changes with the ports, and guests
        // would lose their gateway for as long as they remember the old one.
        let bridge = LinkBridge::new(name).address(mac).build();
        let add = self.handle.link().add(bridge).execute().await;
        add.map_err(|error| trouble("create bridge", name, error))?;
        self.index_of(name).await
    }

    async fn index_of(&self, name: &str) -> Result<u32, Trouble> {
        let link = self.find(name).await?;
        let index = link.map(|link| link.index);
        index.ok_or_else(|| Trouble::new(Code::NotFound, "look up link", name))
    }

    /// Takes the bridge away unless a port is left; says how many are. What is not ours is not
    /// there.
    pub(super) async fn remove_bridge(&self, name: &str) -> Result<u32, Trouble> {
        let links = self.all().await?;
        let Some(bridge) = links.iter().find(|link| link.name == name && link.is_our_bridge())
        else {
            return Ok(0);
        };
        let ports = links.iter().filter(|link| link.controller == Some(bridge.index)).count();
        if ports == 0 {
            self.delete("delete bridge", bridge).await?;
        }
        Ok(u32::try_from(ports).unwrap_or(u32::MAX))
    }

    pub(super) async fn delete(&self, operation: &'static str, link: &Link) -> Result<(), Trouble> {
        match self.handle.link().del(link.index).execute().await {
            Err(error) if !is_errno(&error, libc::ENODEV) => {
                Err(trouble(operation, &link.name, error))
            }
            _ => Ok(()),
        }
    }

    /// Puts the tap on the bridge, up and marked.
    pub(super) async fn attach_tap(&self, bridge: &str, tap: &str) -> Result<(), Trouble> {
        let controller = match self.find(bridge).await? {
            Some(link) if link.is_our_bridge() => link.index,
            Some(_) => {
                let why = "banger did not make that bridge";
                return Err(Trouble::new(Code::Conflict, "use bridge", bridge).because(why));
            }
            None => return Err(Trouble::new(Code::NotFound, "look up bridge", bridge)),
        };
        let index = self.index_of(tap).await?;
        let message =
            LinkUnspec::new_with_index(index).controller(controller).up().alias(TAP_ALIAS).build();
        let set = self.handle.link().set(message).execute().await;
        set.map_err(|error| trouble("attach tap", tap, error))
    }

    /// Names of the marked taps on the bridge.
    pub(super) async fn taps(&self, bridge: &str) -> Result<Vec<String>, Trouble> {
        let links = self.all().await?;
        let Some(bridge) = links.iter().find(|link| link.name == bridge) else {
            return Ok(vec![]);
        };
        let on_bridge = |link: &&Link| link.is_our_tap() && link.controller == Some(bridge.index);
        Ok(links.iter().filter(on_bridge).map(|link| link.name.clone()).collect())
    }
}

fn overlaps(subnet: Subnet, address: Ipv4Addr, prefix_len: u8) -> bool {
    let shorter = u32::from(prefix_len.min(subnet.prefix_len()));
    let mask = u32::MAX.checked_shl(32 - shorter).unwrap_or(0);
    u32::from(address) & mask == u32::from(subnet.network()) & mask
}

pub(super) fn is_forwarding() -> Result<bool, Trouble> {
    let read = std::fs::read_to_string(FORWARDING);
    let text = read.map_err(|error| Trouble::io("read", FORWARDING, error))?;
    Ok(text.trim() == "1")
}

/// Turns forwarding on; says whether it was off.
pub(super) fn ensure_forwarding() -> Result<bool, Trouble> {
    let failed = |error| Trouble::io("turn on forwarding", FORWARDING, error);
    if is_forwarding()? {
        return Ok(false);
    }
    std::fs::write(FORWARDING, "1\n").map_err(failed)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_seen_from_both_sides() {
        let subnet: Subnet = "172.16.0.0/24".parse().unwrap();
        for (address, prefix, expected) in [
            ([172, 16, 0, 9], 32, true),
            ([172, 16, 0, 130], 25, true),
            ([172, 16, 7, 1], 16, true),
            ([10, 1, 1, 1], 0, true),
            ([172, 16, 1, 1], 24, false),
            ([127, 0, 0, 1], 8, false),
        ] {
            assert_eq!(overlaps(subnet, address.into(), prefix), expected, "{address:?}/{prefix}");
        }
    }
}
