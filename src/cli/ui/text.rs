//! Times, durations, sizes and states in words.

use std::time::Duration;

use anstyle::Style;

use crate::cli::output::{GREEN, RED, YELLOW};
use crate::model::Size;

/// `2 minutes ago`.
pub(crate) fn ago(now_ms: u64, then_ms: u64) -> String {
    let seconds = now_ms.saturating_sub(then_ms) / 1000;
    let (count, unit) = match seconds {
        0..=1 => return "just now".to_owned(),
        2..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86_400 => (seconds / 3600, "hour"),
        86_400..2_592_000 => (seconds / 86_400, "day"),
        2_592_000..31_536_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// `0.4 ms`, `12 ms`, `1.24 s`, `2 min 5 s`.
pub(crate) fn elapsed(time: Duration) -> String {
    match time.as_micros() {
        us @ 0..1000 => format!("0.{} ms", us / 100),
        us @ 1000..1_000_000 => format!("{} ms", us / 1000),
        us @ 1_000_000..60_000_000 => format!("{}.{:02} s", us / 1_000_000, us / 10_000 % 100),
        us => format!("{} min {} s", us / 60_000_000, us / 1_000_000 % 60),
    }
}

pub(crate) fn elapsed_between(start_ms: u64, end_ms: u64) -> String {
    elapsed(Duration::from_millis(end_ms.saturating_sub(start_ms)))
}

pub(crate) fn size(bytes: u64) -> String {
    Size::from_bytes(bytes).to_string()
}

/// Twelve hex digits are enough to name a VM or a digest.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

pub(crate) fn state_style(state: &str) -> Style {
    match state {
        "running" | "done" | "pass" => GREEN,
        "starting" | "stopping" | "suspending" | "undoing" | "undone" | "rolled-back" | "warn" => {
            YELLOW
        }
        "error" | "crashed" | "failed" | "undo-failed" | "stuck" | "fail" => RED,
        _ => Style::new(),
    }
}

/// A point in time as this machine's users write it; `date` for more than the time of day.
pub(crate) fn local_time(unix_ms: u64, date: bool) -> String {
    let Some(stamp) =
        i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
    else {
        return "-".to_owned();
    };
    let zoned = stamp.to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime(if date { "%Y-%m-%d %H:%M:%S" } else { "%H:%M:%S%.3f" }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_well() {
        let table = [
            (0, "just now"),
            (5, "5 seconds ago"),
            (60, "1 minute ago"),
            (125, "2 minutes ago"),
            (7200, "2 hours ago"),
            (86_400 * 3, "3 days ago"),
            (86_400 * 70, "2 months ago"),
            (86_400 * 800, "2 years ago"),
        ];
        for (seconds, text) in table {
            assert_eq!(ago(seconds * 1000, 0), text);
        }
        assert_eq!(ago(0, 5000), "just now", "a clock that went back");
    }

    #[test]
    fn durations_read_well() {
        let table = [
            (400, "0.4 ms"),
            (12_345, "12 ms"),
            (1_240_000, "1.24 s"),
            (59_999_999, "59.99 s"),
            (125_000_000, "2 min 5 s"),
        ];
        for (us, text) in table {
            assert_eq!(elapsed(Duration::from_micros(us)), text);
        }
    }

    #[test]
    fn short_takes_anything() {
        assert_eq!(short("0123456789abcdef"), "0123456789ab");
        assert_eq!(short("é"), "é");
    }
}
