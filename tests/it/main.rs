//! Fast tests over the whole tree: no KVM, no root, no network beyond loopback.

mod boundaries;
mod wire_compat;
