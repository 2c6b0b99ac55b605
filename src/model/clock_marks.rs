//! Three clocks read at one moment; what they disagree about later is what happened to the host.

use std::fmt;

/// All in milliseconds, and of one boot of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockMarks {
    /// What people set: since 1970.
    pub unix_ms: u64,
    /// Goes on while the host sleeps.
    pub boot_ms: u64,
    /// Stands still while the host sleeps.
    pub awake_ms: u64,
}

/// Less is what reading three clocks one after the other costs on a busy host, or a correction that
/// guests are spared.
const NOTICED_MS: i64 = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockJump {
    pub slept_ms: i64,
    /// Of the wall clock, against the time that went by; negative: it was set back.
    pub set_by_ms: i64,
}

impl ClockMarks {
    /// What happened since, beside that time went by.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Option<ClockJump> {
        let passed = |now: u64, then: u64| {
            let signed = |ms| i64::try_from(ms).unwrap_or(i64::MAX);
            signed(now).saturating_sub(signed(then))
        };
        let boot = passed(self.boot_ms, earlier.boot_ms);
        let seen = |ms: i64| if ms.abs() >= NOTICED_MS { ms } else { 0 };
        let slept_ms = seen(boot.saturating_sub(passed(self.awake_ms, earlier.awake_ms)));
        let set_by_ms = seen(passed(self.unix_ms, earlier.unix_ms).saturating_sub(boot));
        (slept_ms > 0 || set_by_ms != 0).then_some(ClockJump { slept_ms, set_by_ms })
    }
}

impl fmt::Display for ClockJump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slept_ms, set_by_ms } = self;
        let by = set_by_ms.unsigned_abs();
        match (slept_ms, set_by_ms) {
            (1.., 0) => write!(f, "the host slept for {slept_ms} ms"),
            (1.., _) => write!(f, "the host slept for {slept_ms} ms and its clock was set"),
            (_, 1..) => write!(f, "the host's clock was set {by} ms forward"),
            _ => write!(f, "the host's clock was set {by} ms back"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEN: ClockMarks = ClockMarks { unix_ms: 1_700_000_000_000, boot_ms: 9000, awake_ms: 50 };

    fn after(unix: i64, boot: i64, awake: i64) -> Option<ClockJump> {
        let add = |clock: u64, ms: i64| clock.checked_add_signed(ms).unwrap();
        let now = ClockMarks {
            unix_ms: add(THEN.unix_ms, unix),
            boot_ms: add(THEN.boot_ms, boot),
            awake_ms: add(THEN.awake_ms, awake),
        };
        now.since(&THEN)
    }

    #[test]
    fn time_that_goes_by_is_no_jump() {
        assert_eq!(after(1000, 1000, 1000), None);
        assert_eq!(after(3_600_400, 3_600_000, 3_600_000), None, "a small correction");
        assert_eq!(after(1000, 1000, 1400), None, "clocks read one after the other");
    }

    #[test]
    fn sleeping_and_setting_are_told_apart() {
        let slept = after(60_000, 60_000, 1000).unwrap();
        assert_eq!(slept, ClockJump { slept_ms: 59_000, set_by_ms: 0 });
        assert_eq!(slept.to_string(), "the host slept for 59000 ms");
        let back = after(-3_599_000, 1000, 1000).unwrap();
        assert_eq!(back.to_string(), "the host's clock was set 3600000 ms back");
        let forward = after(3_601_000, 1000, 1000).unwrap();
        assert_eq!(forward.to_string(), "the host's clock was set 3600000 ms forward");
        let both = after(120_000, 60_000, 1000).unwrap();
        assert!(both.to_string().contains("slept") && both.to_string().contains("was set"));
    }
}
