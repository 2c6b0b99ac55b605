//! The only way to stdout and stderr. Results go to stdout, everything else to stderr.
//!
//! A reader that has gone (`banger ps | head -1`) is no failure: Rust ignores SIGPIPE, so the
//! write fails instead, and [`CliError::stdout_closed`] then ends the command quietly. What is
//! lost on stderr is lost; a command does not fail for that.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;

use super::error::CliError;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    #[default]
    Auto,
    Always,
    Never,
}

#[derive(Debug)]
pub(crate) struct Output {
    stdout_color: bool,
    /// One that takes commands to move its cursor.
    pub(crate) stdout_is_terminal: bool,
    stderr_color: bool,
    pub(crate) stderr_is_terminal: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: bool,
}

pub(crate) const RED: Style = AnsiColor::Red.on_default().bold();
pub(crate) const GREEN: Style = AnsiColor::Green.on_default();
pub(crate) const YELLOW: Style = AnsiColor::Yellow.on_default();
pub(crate) const CYAN: Style = AnsiColor::Cyan.on_default();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const BOLD: Style = Style::new().bold();

impl Output {
    pub(crate) fn new(color: ColorChoice, quiet: bool, verbose: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let wanted = |terminal: bool| match color {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !set("NO_COLOR") && !dumb,
        };
        let stdout_is_terminal = io::stdout().is_terminal();
        let stderr_is_terminal = io::stderr().is_terminal();
        Self {
            stdout_color: wanted(stdout_is_terminal),
            stdout_is_terminal: stdout_is_terminal && !dumb,
            stderr_color: wanted(stderr_is_terminal),
            stderr_is_terminal: stderr_is_terminal && !dumb,
            quiet,
            verbose,
        }
    }

    /// One line of the result.
    pub(crate) fn line(&self, text: impl Display) -> Result<(), CliError> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// A piece of the result, as it is.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        written.map_err(|error| stdout_error(&error))
    }

    /// A whole result for programs.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), CliError> {
        self.line(serde_json::to_string_pretty(value).map_err(json_error)?)
    }

    /// One of a stream of results for programs.
    pub(crate) fn json_line(&self, value: &impl Serialize) -> Result<(), CliError> {
        self.line(serde_json::to_string(value).map_err(json_error)?)
    }

    /// A notice that a quiet user does not want.
    pub(crate) fn note(&self, text: impl Display) {
        if !self.quiet {
            self.to_stderr(&format!("{text}\n"));
        }
    }

    /// What only a curious user wants.
    pub(crate) fn verbose(&self, text: impl Display) {
        if self.verbose {
            self.to_stderr(&format!("{}\n", self.err_paint(DIM, text)));
        }
    }

    /// The one form in which a failure is shown.
    pub(crate) fn error(&self, error: &CliError) {
        if error.is_silent() {
            return;
        }
        let op = error.op.as_ref().map(|op| format!(" ({op})")).unwrap_or_default();
        let mut text = format!("{} {}{op}\n", self.err_paint(RED, "banger:"), error.message);
        for line in &error.detail {
            text.push_str(&format!("    {}\n", printable(line)));
        }
        for hint in &error.hints {
            text.push_str(&format!("{} {hint}\n", self.err_paint(CYAN, "hint:")));
        }
        self.to_stderr(&text);
    }

    /// Colours `text` if stdout is to have colours.
    pub(crate) fn paint(&self, style: Style, text: impl Display) -> String {
        paint(self.stdout_color, style, text)
    }

    pub(crate) fn err_paint(&self, style: Style, text: impl Display) -> String {
        paint(self.stderr_color, style, text)
    }

    pub(crate) fn to_stderr(&self, text: &str) {
        // One write, so that the lines of commands that run side by side do not mix.
        drop(io::stderr().lock().write_all(text.as_bytes()));
    }
}

/// What a failed write to stdout means for the command.
pub(crate) fn stdout_error(error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::BrokenPipe => CliError::stdout_closed(),
        _ => CliError::from_error("write to stdout", error),
    }
}

fn json_error(error: serde_json::Error) -> CliError {
    CliError::from_error("print as JSON", &error)
}

fn paint(color: bool, style: Style, text: impl Display) -> String {
    if color { format!("{style}{text}{style:#}") } else { text.to_string() }
}

/// A guest's console may hold escape sequences; in an error they would play with the terminal.
fn printable(line: &str) -> String {
    line.chars().filter(|c| !c.is_control() || *c == '\t').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn console_lines_cannot_drive_the_terminal() {
        assert_eq!(printable("\x1b[2Jpanic:\tno init\r\x07"), "[2Jpanic:\tno init");
    }

    #[test]
    fn paint_is_plain_without_colour() {
        assert_eq!(paint(false, RED, "x"), "x");
        assert_eq!(paint(true, GREEN, "x"), "\x1b[32mx\x1b[0m");
    }
}
