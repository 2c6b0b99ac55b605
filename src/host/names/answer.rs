//! What a query is answered with. Pure, but for the table it reads.
//!
//! Negative answers carry no SOA record, so that no resolver remembers them: a VM that starts is
//! found by the next query.

use std::net::Ipv4Addr;

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::rdata::{A, PTR};
use hickory_server::proto::rr::{DNSClass, LowerName, Name, RData, Record, RecordType};

use super::table::Table;
use crate::model::Subnet;

const ZONE: &str = "vm";
/// Seconds. Names come and go with VMs.
const TTL: u32 = 5;

#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Record(Box<Record>),
    /// The name exists, but not with this type.
    NoData,
    Code(ResponseCode),
}

pub(super) fn answer(
    table: &Table,
    subnet: Subnet,
    name: &LowerName,
    class: DNSClass,
    kind: RecordType,
) -> Answer {
    if class != DNSClass::IN {
        return Answer::Code(ResponseCode::Refused);
    }
    match Place::of(name, subnet) {
        Place::Elsewhere => Answer::Code(ResponseCode::Refused),
        Place::Zone => Answer::NoData,
        Place::Nobody => Answer::Code(ResponseCode::NXDomain),
        Place::Vm(label) => match table.address(&label) {
            None => Answer::Code(ResponseCode::NXDomain),
            Some(address) => of_kind(kind, RecordType::A, name, || Some(RData::A(A(address)))),
        },
        Place::Address(address) => match table.name(address) {
            None => Answer::Code(ResponseCode::NXDomain),
            Some(owner) => of_kind(kind, RecordType::PTR, name, || {
                Name::from_ascii(format!("{owner}.{ZONE}.")).ok().map(|name| RData::PTR(PTR(name)))
            }),
        },
    }
}

fn of_kind(
    asked: RecordType,
    has: RecordType,
    name: &LowerName,
    data: impl FnOnce() -> Option<RData>,
) -> Answer {
    if asked != has && asked != RecordType::ANY {
        return Answer::NoData;
    }
    match data() {
        Some(data) => Answer::Record(Box::new(Record::from_rdata(Name::from(name), TTL, data))),
        None => Answer::Code(ResponseCode::ServFail),
    }
}

/// Where a name lies, seen from us.
enum Place {
    /// The zone itself.
    Zone,
    Vm(String),
    /// A guest's address, asked backwards.
    Address(Ipv4Addr),
    /// In our zone, and no VM can have that name.
    Nobody,
    Elsewhere,
}

impl Place {
    fn of(name: &LowerName, subnet: Subnet) -> Self {
        let name = Name::from(name);
        let labels: Option<Vec<&str>> =
            name.iter().map(|label| std::str::from_utf8(label).ok()).collect();
        // Bytes that are no text are nobody's name either way; whose business they are is told by
        // the last label alone.
        let Some(labels) = labels else {
            let ours = name.iter().next_back() == Some(ZONE.as_bytes());
            return if ours { Self::Nobody } else { Self::Elsewhere };
        };
        match labels.as_slice() {
            [ZONE] => Self::Zone,
            [label, ZONE] => Self::Vm((*label).to_owned()),
            [.., ZONE] => Self::Nobody,
            [d, c, b, a, "in-addr", "arpa"] => match format!("{a}.{b}.{c}.{d}").parse() {
                Ok(address) if subnet.contains(address) => Self::Address(address),
                _ => Self::Elsewhere,
            },
            _ => Self::Elsewhere,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(name: &str, kind: RecordType) -> Answer {
        let mut table = Table::default();
        table.set("web", Ipv4Addr::new(172, 16, 0, 2));
        let subnet = "172.16.0.0/24".parse().unwrap();
        let name = LowerName::from(Name::from_ascii(name).unwrap());
        answer(&table, subnet, &name, DNSClass::IN, kind)
    }

    fn data(answer: Answer) -> RData {
        match answer {
            Answer::Record(record) => record.data,
            other => panic!("no record: {other:?}"),
        }
    }

    #[test]
    fn names_and_addresses_of_vms_are_known() {
        let a = RData::A(A(Ipv4Addr::new(172, 16, 0, 2)));
        assert_eq!(data(ask("web.vm.", RecordType::A)), a);
        assert_eq!(data(ask("WEB.VM.", RecordType::A)), a);
        assert_eq!(data(ask("web.vm.", RecordType::ANY)), a);
        let ptr = RData::PTR(PTR(Name::from_ascii("web.vm.").unwrap()));
        assert_eq!(data(ask("2.0.16.172.in-addr.arpa.", RecordType::PTR)), ptr);
    }

    #[test]
    fn what_a_name_has_not_is_no_data_and_what_is_not_there_is_said_so() {
        assert_eq!(ask("web.vm.", RecordType::AAAA), Answer::NoData);
        assert_eq!(ask("vm.", RecordType::SOA), Answer::NoData);
        assert_eq!(ask("2.0.16.172.in-addr.arpa.", RecordType::TXT), Answer::NoData);
        let nobody = Answer::Code(ResponseCode::NXDomain);
        for name in ["db.vm.", "a.web.vm.", "*.vm."] {
            assert_eq!(ask(name, RecordType::A), nobody, "{name}");
        }
        assert_eq!(ask("3.0.16.172.in-addr.arpa.", RecordType::PTR), nobody);
        // Labels are bytes; these are no text.
        let table = Table::default();
        let subnet = "172.16.0.0/24".parse().unwrap();
        for (zone, code) in [("vm", ResponseCode::NXDomain), ("com", ResponseCode::Refused)] {
            let name = Name::from_labels([&b"\xff"[..], zone.as_bytes()]).unwrap();
            let answer =
                answer(&table, subnet, &LowerName::from(name), DNSClass::IN, RecordType::A);
            assert_eq!(answer, Answer::Code(code), "{zone}");
        }
    }

    #[test]
    fn the_rest_of_the_world_is_refused() {
        let refused = Answer::Code(ResponseCode::Refused);
        for name in [
            ".",
            "example.com.",
            "web.",
            "webvm.",
            "web.vm.example.",
            "2.0.17.172.in-addr.arpa.",
            "0.16.172.in-addr.arpa.",
            "02.0.16.172.in-addr.arpa.",
            "x.0.16.172.in-addr.arpa.",
        ] {
            assert_eq!(ask(name, RecordType::A), refused, "{name}");
        }
        let name = LowerName::from(Name::from_ascii("web.vm.").unwrap());
        let subnet = "172.16.0.0/24".parse().unwrap();
        let chaos = answer(&Table::default(), subnet, &name, DNSClass::CH, RecordType::TXT);
        assert_eq!(chaos, refused);
    }
}
