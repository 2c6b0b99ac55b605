//! The root helper's own small protocol.
