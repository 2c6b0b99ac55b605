//! Wall time and fresh ids: the CLI's only sources of either.

use std::time::{SystemTime, UNIX_EPOCH};

use super::error::CliError;
use crate::model::OpId;

#[allow(clippy::disallowed_methods, reason = "the CLI has no ports; this is its clock")]
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn new_op_id() -> Result<OpId, CliError> {
    let mut random = [0; 10];
    getrandom::fill(&mut random)
        .map_err(|error| CliError::failed(format!("make an operation id: {error}")))?;
    Ok(OpId::from_parts(unix_ms(), random))
}
