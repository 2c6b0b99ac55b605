//! Our own nftables table, over netlink. The only file that knows nlink.
//!
//! ```text
//! table inet banger { comment "banger 1 br-fc"
//!   set nat { type ipv4_addr }                     one element a VM, its id in the comment
//!   chain postrouting (nat)    saddr in nat, leaving by another link than the bridge: masquerade
//!   chain forward (filter)     from the bridge to elsewhere: saddr in nat → accept,
//!                              answers to connections from outside → accept, all else → drop
//! }
//! ```
//!
//! Answers are told by conntrack's direction and not by `established` alone, so that taking an
//! element out cuts running connections too. Chains end in `accept`: other tables decide about
//! other traffic. The table is made whole in one transaction; one with another comment is
//! somebody's and is refused, one of ours that is not as it should be is replaced, its elements
//! kept.

use std::net::Ipv4Addr;

use nlink::netlink::nftables::{
    BaseChain, Chain, ChainInfo, CtDirection, CtState, Family, FilterHook, NatHook, PacketField,
    Policy, Priority, Rule, Set, SetElement,
};
use nlink::netlink::{Connection, Nftables};

use super::error::Trouble;
use crate::model::{Code, VmId};

const FAMILY: Family = Family::Inet;
const SET: &str = "nat";
const POSTROUTING: &str = "postrouting";
const FORWARD: &str = "forward";
/// linux/netfilter.h
const FORWARD_HOOK: u32 = 2;
const DROP: u32 = 0;
/// Goes up when the rules change, so that a newer helper replaces an older one's table.
const LAYOUT: u32 = 1;

pub(super) struct Table<'a> {
    nft: Connection<Nftables>,
    name: &'a str,
    bridge: &'a str,
}

impl<'a> Table<'a> {
    pub(super) fn open(name: &'a str, bridge: &'a str) -> Result<Self, Trouble> {
        let nft = Connection::<Nftables>::new();
        let nft = nft.map_err(|error| trouble("open nftables for", name, error))?;
        Ok(Self { nft, name, bridge })
    }

    fn mark(&self) -> String {
        format!("banger {LAYOUT} {}", self.bridge)
    }

    fn set(&self) -> Set {
        Set::new(self.name, SET).family(FAMILY)
    }

    fn rule(&self, chain: &str) -> Rule {
        Rule::new(self.name, chain).family(FAMILY)
    }

    fn rules(&self) -> [Rule; 4] {
        let outward = || self.rule(FORWARD).match_iif(self.bridge).match_oif_not(self.bridge);
        [
            self.rule(POSTROUTING)
                .match_oif_not(self.bridge)
                .match_in_set(PacketField::Ip4Saddr, SET)
                .masquerade(),
            outward().match_in_set(PacketField::Ip4Saddr, SET).accept(),
            outward()
                .match_ct_state(CtState::ESTABLISHED | CtState::RELATED)
                .match_ct_direction(CtDirection::Reply)
                .accept(),
            outward().drop(),
        ]
    }

    /// Whether a table of our name is there and ours.
    async fn is_there(&self) -> Result<Option<bool>, Trouble> {
        let tables = self.nft.list_tables_in(FAMILY).await;
        let tables = tables.map_err(|error| trouble("list tables for", self.name, error))?;
        let Some(table) = tables.into_iter().find(|table| table.name == self.name) else {
            return Ok(None);
        };
        let comment = table.comment.unwrap_or_default();
        if !comment.starts_with("banger ") {
            let why = "a table of that name exists that banger did not make";
            return Err(Trouble::new(Code::Conflict, "use nftables table", self.name).because(why));
        }
        Ok(Some(comment == self.mark()))
    }

    /// Whether chains, set and rules are all there. Somebody may have flushed them.
    async fn is_whole(&self) -> Result<bool, Trouble> {
        let failed = |error| trouble("read nftables table", self.name, error);
        let rules = self.nft.list_rules(self.name, FAMILY).await.map_err(failed)?;
        let count = |chain: &str| rules.iter().filter(|rule| rule.chain == chain).count();
        let sets = self.nft.list_sets_in(self.name, FAMILY).await.map_err(failed)?;
        let has_set = sets.iter().any(|set| set.name == SET);
        Ok(has_set && count(POSTROUTING) == 1 && count(FORWARD) == 3)
    }

    /// A table that is not ours is none.
    pub(super) async fn is_ours_and_whole(&self) -> Result<bool, Trouble> {
        match self.is_there().await {
            Ok(Some(true)) => self.is_whole().await,
            Ok(_) => Ok(false),
            Err(error) if error.code == Code::Conflict => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Chains that see what is forwarded and drop what none of their rules accepts, as Docker's does.
    /// What our own accepts goes through them too.
    pub(super) async fn others_that_drop(&self) -> Result<Vec<String>, Trouble> {
        let chains = self.nft.list_chains().await;
        let chains = chains.map_err(|error| trouble("list chains beside", self.name, error))?;
        let drops = |chain: &ChainInfo| {
            let family = matches!(chain.family, Family::Ip | Family::Inet);
            family && chain.hook == Some(FORWARD_HOOK) && chain.policy == Some(DROP)
        };
        let name = |chain: &ChainInfo| {
            let family = if chain.family == Family::Ip { "ip" } else { "inet" };
            format!("{family} {} {}", chain.table, chain.name)
        };
        Ok(chains.iter().filter(|chain| drops(chain)).map(name).collect())
    }

    pub(super) async fn ensure(&self) -> Result<(), Trouble> {
        let there = self.is_there().await?;
        if there == Some(true) && self.is_whole().await? {
            return Ok(());
        }
        let mut transaction = self.nft.transaction();
        let mut elements = vec![];
        if there.is_some() {
            elements = self.elements().await.unwrap_or_default();
            transaction = transaction.del_table(self.name, FAMILY);
        }
        let chain = |name: &str, base: BaseChain| {
            let chain = Chain::new(self.name, name);
            let chain = chain.map_err(|error| trouble("name chain in", self.name, error))?;
            Ok::<_, Trouble>(chain.family(FAMILY).base(base.policy(Policy::Accept)))
        };
        let nat = BaseChain::nat(NatHook::Postrouting, Priority::SrcNat);
        let filter = BaseChain::filter(FilterHook::Forward, Priority::Filter);
        transaction = transaction
            .add_table_with_comment(self.name, FAMILY, 0, Some(&self.mark()))
            .add_set(self.set())
            .add_chain(chain(POSTROUTING, nat)?)
            .add_chain(chain(FORWARD, filter)?);
        for rule in self.rules() {
            transaction = transaction.add_rule(rule);
        }
        if !elements.is_empty() {
            transaction = transaction.add_set_elements(&self.set(), &elements);
        }
        let done = transaction.commit(&self.nft).await;
        done.map_err(|error| trouble("make nftables table", self.name, error))
    }

    pub(super) async fn remove(&self) -> Result<(), Trouble> {
        if self.is_there().await?.is_none() {
            return Ok(());
        }
        let done = self.nft.del_table_if_exists(self.name, FAMILY).await;
        done.map(drop).map_err(|error| trouble("delete nftables table", self.name, error))
    }

    async fn elements(&self) -> Result<Vec<SetElement>, Trouble> {
        let elements = self.nft.list_set_elements(self.name, SET, FAMILY).await;
        elements.map_err(|error| trouble("list the NAT set of table", self.name, error))
    }

    /// Who has NAT; nobody where the table is missing.
    pub(super) async fn list(&self) -> Result<Vec<(Option<VmId>, Ipv4Addr)>, Trouble> {
        if self.is_there().await?.is_none() {
            return Ok(vec![]);
        }
        let elements = self.elements().await?;
        Ok(elements.iter().filter_map(owner_and_address).collect())
    }

    async fn holder(&self, address: Ipv4Addr) -> Result<Option<Option<VmId>>, Trouble> {
        let all = self.list().await?;
        Ok(all.into_iter().find(|(_, at)| *at == address).map(|(vm, _)| vm))
    }

    /// The element with the VM's id. The address belongs to one VM at a time: an element that
    /// names another one is a leftover and is taken over.
    pub(super) async fn add(&self, vm: VmId, address: Ipv4Addr) -> Result<(), Trouble> {
        self.ensure().await?;
        let mut transaction = self.nft.transaction();
        match self.holder(address).await? {
            Some(holder) if holder == Some(vm) => return Ok(()),
            Some(_) => {
                let old = [SetElement::ipv4(address)];
                transaction = transaction.del_set_elements(&self.set(), &old);
            }
            None => {}
        }
        let element = SetElement::ipv4(address).with_comment(vm.to_string());
        let done = transaction.add_set_elements(&self.set(), &[element]).commit(&self.nft).await;
        done.map_err(|error| trouble("give NAT to", &address.to_string(), error))
    }

    /// Takes the VM's element out, and no other VM's that has the address by now.
    pub(super) async fn take(&self, vm: VmId, address: Ipv4Addr) -> Result<(), Trouble> {
        match self.holder(address).await? {
            Some(holder) if holder.is_none_or(|holder| holder == vm) => {}
            _ => return Ok(()),
        }
        let element = [SetElement::ipv4(address)];
        let done = self.nft.del_set_elements(&self.set(), &element).await;
        done.map_err(|error| trouble("take NAT from", &address.to_string(), error))
    }
}

fn owner_and_address(element: &SetElement) -> Option<(Option<VmId>, Ipv4Addr)> {
    let address = <[u8; 4]>::try_from(element.key()).ok()?;
    Some((element.comment().and_then(|id| id.parse().ok()), address.into()))
}

fn trouble(operation: &'static str, object: &str, error: nlink::Error) -> Trouble {
    Trouble::new(Code::Host, operation, object).because(error)
}
