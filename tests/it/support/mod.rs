//! What several tests need.

pub(crate) mod banger;
pub(crate) mod canned;
pub(crate) mod guest;
pub(crate) mod simulated;
