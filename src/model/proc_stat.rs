//! Some fields of `/proc/<pid>/stat`, read the same way by daemon and helper.

/// What tells one process from the next one with its pid, and a live one from a dead one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcStat {
    /// `R`, `S`, … `Z` for a zombie, `X` for dead (proc_pid_stat(5), field 3).
    pub state: char,
    pub parent: u32,
    /// The pid of the session's leader (field 6).
    pub session: u32,
    /// CPU time in user and kernel mode, in clock ticks (fields 14 and 15).
    pub cpu_ticks: u64,
    /// Clock ticks between boot and the process's start (field 22).
    pub start_ticks: u64,
}

impl ProcStat {
    /// The command name, field 2, may hold spaces and parentheses: the last `)` ends it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        // Field 7 comes next; 14, 15 and 22 are wanted.
        let user: u64 = fields.nth(7)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let start_ticks = fields.nth(6)?.parse().ok()?;
        let cpu_ticks = user.saturating_add(system);
        Some(Self { state, parent, session, cpu_ticks, start_ticks })
    }

    /// A zombie has ended; only its parent has not noticed.
    #[must_use]
    pub fn runs(self) -> bool {
        !matches!(self.state, 'Z' | 'X' | 'x')
    }

    /// By a signal, or by a debugger.
    #[must_use]
    pub fn is_stopped(self) -> bool {
        matches!(self.state, 'T' | 't')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_shift_fields() {
        let text = "42 (a) b (c)) S 1 40 41 0 -1 4194560 1 0 0 0 30 12 0 0 20 0 1 0 9876 1 2 3\n";
        let stat = ProcStat::parse(text).unwrap();
        let expected =
            ProcStat { state: 'S', parent: 1, session: 41, cpu_ticks: 42, start_ticks: 9876 };
        assert_eq!(stat, expected);
        assert!(stat.runs());
        assert!(!ProcStat { state: 'Z', ..stat }.runs());
        for bad in ["", "42 (x", "42 (x) S", "42 (x) S 1 2 3 4"] {
            assert_eq!(ProcStat::parse(bad), None, "{bad}");
        }
    }
}
