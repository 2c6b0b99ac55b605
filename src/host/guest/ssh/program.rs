//! What to run in a guest, and how it ended.

use crate::model::OpId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecSpec {
    pub program: Program,
    /// Over what the guest sets by itself.
    pub env: Vec<(String, String)>,
    pub op_id: OpId,
    /// A terminal in the guest. Its output and errors are one stream.
    pub tty: Option<Pty>,
    /// It may use the keys of our agent; see [`super::Incoming::Agent`].
    pub agent: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// Run without a shell, each argument as it is. `cwd`: instead of the user's home.
    Argv { argv: Vec<String>, cwd: Option<String> },
    /// Given to the user's shell, as `ssh host LINE` does.
    Line(String),
    /// The user's login shell.
    Shell,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pty {
    /// Value of TERM.
    pub term: String,
    pub cols: u32,
    pub rows: u32,
}

/// The caller's ends. Reading ends at the end of `stdin`; [`tokio::io::empty`] is none at all.
#[derive(Debug)]
pub struct GuestIo<I, O, E> {
    pub stdin: I,
    pub stdout: O,
    pub stderr: E,
}

/// What happens to a program while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// The caller's terminal changed its size.
    Resize { cols: u32, rows: u32 },
    /// Without `SIG`: `TERM`.
    Signal(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitKind {
    Code(u8),
    /// Without `SIG`: `TERM`.
    Signal(String),
}

impl ExitKind {
    /// As shells count: a death by signal N is 128 + N.
    #[must_use]
    pub fn status(&self) -> u8 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(name) => 128 + signal_number(name),
        }
    }
}

/// Linux numbers (signal(7)); of a name that is none, only that there was a signal is known.
fn signal_number(name: &str) -> u8 {
    let signal = format!("SIG{name}").parse::<nix::sys::signal::Signal>();
    signal.ok().and_then(|signal| u8::try_from(signal as i32).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_counts_signals_as_shells_do() {
        assert_eq!(ExitKind::Code(7).status(), 7);
        assert_eq!(ExitKind::Signal("KILL".into()).status(), 137);
        assert_eq!(ExitKind::Signal("TERM".into()).status(), 143);
        assert_eq!(ExitKind::Signal("WINCH".into()).status(), 156);
        assert_eq!(ExitKind::Signal("none@such".into()).status(), 128);
    }
}
