//! Which name has which address. Held in memory only: the DNS actor owns the truth and can write
//! it all again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

#[derive(Debug, Default)]
pub(super) struct Table {
    addresses: BTreeMap<String, Ipv4Addr>,
    names: BTreeMap<Ipv4Addr, String>,
}

impl Table {
    pub(super) fn set(&mut self, name: &str, address: Ipv4Addr) {
        self.remove(name);
        self.addresses.insert(name.to_owned(), address);
        // An address that changed hands names its new owner.
        self.names.insert(address, name.to_owned());
    }

    pub(super) fn remove(&mut self, name: &str) {
        let Some(address) = self.addresses.remove(name) else { return };
        if self.names.get(&address).is_some_and(|owner| owner == name) {
            self.names.remove(&address);
        }
    }

    /// `name` in lower case.
    pub(super) fn address(&self, name: &str) -> Option<Ipv4Addr> {
        self.addresses.get(name).copied()
    }

    pub(super) fn name(&self, address: Ipv4Addr) -> Option<&str> {
        self.names.get(&address).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_stay_together() {
        let address = |last| Ipv4Addr::new(172, 16, 0, last);
        let mut table = Table::default();
        table.set("web", address(2));
        table.set("web", address(3));
        assert_eq!((table.name(address(2)), table.name(address(3))), (None, Some("web")));
        table.set("db", address(3));
        table.remove("web");
        assert_eq!((table.address("web"), table.address("db")), (None, Some(address(3))));
        assert_eq!(table.name(address(3)), Some("db"));
        table.remove("db");
        table.remove("db");
        assert_eq!(table.name(address(3)), None);
    }
}
