//! The DNS server of the `vm` zone, and the only place that names the DNS crate.

mod answer;
mod server;
mod table;

pub use server::DnsServer;
