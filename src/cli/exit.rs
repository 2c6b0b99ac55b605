//! What the process ends with. The only place that knows the numbers.

/// Scripts rely on each of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok,
    /// Refused or failed.
    Failed,
    Usage,
    /// The daemon does not answer.
    Unreachable,
    NotFound,
    Busy,
    /// Ended by Ctrl-C, or by a signal that asks for an end.
    Interrupted(u8),
    /// banger itself failed where a guest's command was to give the status.
    BesideGuest,
    /// The guest's command ended with this status; 126 and 127 are the guest's own words for a
    /// program that cannot be run or found.
    Guest(u8),
    /// The guest's command died of this signal.
    GuestSignal(u8),
}

impl Exit {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::NotFound => 4,
            Self::Busy => 5,
            Self::BesideGuest => 125,
            Self::Guest(status) => status,
            Self::Interrupted(signal) | Self::GuestSignal(signal) => 128_u8.saturating_add(signal),
        }
    }

    /// What a command ends with. Where the status is promised to the guest's, no failure of ours
    /// may be taken for one of its.
    pub(crate) fn of_command(self, enters_guest: bool) -> Self {
        match self {
            Self::Failed | Self::Usage | Self::Unreachable | Self::NotFound | Self::Busy
                if enters_guest =>
            {
                Self::BesideGuest
            }
            other => other,
        }
    }

    /// The exit of one command about several objects: what they share, else a plain failure.
    pub(crate) fn of_many(all: &[Self]) -> Self {
        match all {
            [first, rest @ ..] if rest.iter().all(|exit| exit == first) => *first,
            [] => Self::Ok,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_frozen() {
        let table = [
            (Exit::Ok, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Unreachable, 3),
            (Exit::NotFound, 4),
            (Exit::Busy, 5),
            (Exit::BesideGuest, 125),
            (Exit::Guest(0), 0),
            (Exit::Guest(42), 42),
            (Exit::Guest(126), 126),
            (Exit::Guest(127), 127),
            (Exit::GuestSignal(9), 137),
            (Exit::GuestSignal(15), 143),
            (Exit::Interrupted(2), 130),
        ];
        for (exit, code) in table {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }

    #[test]
    fn failures_beside_a_guest_are_125_and_guests_keep_theirs() {
        for ours in [Exit::Failed, Exit::Usage, Exit::Unreachable, Exit::NotFound, Exit::Busy] {
            assert_eq!(ours.of_command(true).code(), 125, "{ours:?}");
            assert_eq!(ours.of_command(false), ours);
        }
        assert_eq!(Exit::Guest(3).of_command(true).code(), 3);
        assert_eq!(Exit::Interrupted(2).of_command(true).code(), 130);
        assert_eq!(Exit::Ok.of_command(true).code(), 0);
    }

    #[test]
    fn several_objects_share_a_code_only_if_all_do() {
        use Exit as E;
        assert_eq!(E::of_many(&[]), E::Ok);
        assert_eq!(E::of_many(&[E::Ok, E::Ok]), E::Ok);
        assert_eq!(E::of_many(&[E::NotFound, E::NotFound]), E::NotFound);
        assert_eq!(E::of_many(&[E::Ok, E::NotFound]), E::Failed);
        assert_eq!(E::of_many(&[E::Busy, E::NotFound]), E::Failed);
    }
}
