//! The user's terminal: whether there is one, its size, and its raw mode, which ends with its guard
//! whatever happens.

use std::io::{self, IsTerminal};

use rustix::termios::{self, OptionalActions, Termios};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TtyChoice {
    /// If stdin and stdout are both terminals.
    #[default]
    Auto,
    Always,
    Never,
}

impl TtyChoice {
    /// From `-t` and `-T`.
    pub(crate) fn from_flags(tty: bool, no_tty: bool) -> Self {
        match (tty, no_tty) {
            (true, _) => Self::Always,
            (_, true) => Self::Never,
            _ => Self::Auto,
        }
    }

    pub(crate) fn wanted(self) -> bool {
        match self {
            Self::Auto => interactive(),
            Self::Always => true,
            Self::Never => false,
        }
    }
}

/// Whether a person sits at both ends.
fn interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// Columns and rows; those of an old terminal where there is none.
pub(crate) fn size() -> (u32, u32) {
    let size = termios::tcgetwinsize(io::stdout()).or_else(|_| termios::tcgetwinsize(io::stdin()));
    match size {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            (u32::from(size.ws_col), u32::from(size.ws_row))
        }
        _ => (80, 24),
    }
}

/// Every byte typed goes to the guest while this lives. Dropped, by a panic too, the terminal is as
/// it was before.
pub(crate) struct RawMode {
    before: Termios,
}

impl RawMode {
    /// `None` if stdin is no terminal.
    pub(crate) fn enter() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nobody is left to be told if this fails.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

impl std::fmt::Debug for RawMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RawMode")
    }
}
