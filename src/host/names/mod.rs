//! The DNS server of the `vm` zone.
