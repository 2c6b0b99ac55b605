//! JSON lines on stderr, one per event, with the spans' `op_id`, `vm_id` and `step`.

use tracing_subscriber::EnvFilter;

/// `BANGER_LOG_LEVEL` overrides `level`; both are a level or a filter of tracing's. What cannot be
/// understood counts as `info`, for a daemon without logs is worse than one with too many.
pub fn start_logging(level: &str) {
    let wanted = std::env::var("BANGER_LOG_LEVEL");
    let wanted = wanted.as_deref().unwrap_or(level);
    let filter = EnvFilter::try_new(wanted).unwrap_or_else(|_| EnvFilter::new("info"));
    let logs = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(true)
        .with_target(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if logs.try_init().is_err() {
        tracing::debug!("logging was started before");
    }
}
