//! banger's guest agent. The library holds the contract with the host and nothing else: every
//! type that crosses the border between host and guest, with its bytes pinned by tests.
//!
//! What must not be done here: nothing of the agent itself (that is the binary's), no I/O, no
//! dependency beyond the codec and error derives, for the host links this too.

pub mod contract;
