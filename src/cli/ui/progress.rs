//! What an operation is doing: on a terminal a line with a spinner that becomes a check mark and a
//! time, else a plain line per finished step. Always on stderr, never when quiet.

use std::fmt::{Display, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::text;
use super::transfers::{Seen, Transfers};
use crate::cli::output::{GREEN, Output, RED, YELLOW};
use crate::wire::reply::EventKindInfo;

/// The board that the operations of one command share.
#[derive(Debug)]
pub(crate) struct Progress<'a> {
    out: &'a Output,
    live: Option<MultiProgress>,
    silent: bool,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(out: &'a Output) -> Self {
        let live = (out.stderr_is_terminal && !out.quiet)
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Self { out, live, silent: out.quiet }
    }

    /// For work that nobody asked about, such as tidying up.
    pub(crate) fn silent(out: &'a Output) -> Self {
        Self { out, live: None, silent: true }
    }

    /// The lines of one operation; `label` tells them from those of others beside it.
    pub(crate) fn track(&self, label: Option<&str>) -> Track<'_> {
        let label = label.map(|label| format!("{label}  ")).unwrap_or_default();
        Track { board: self, label, bar: None, step: None, transfers: Transfers::default() }
    }

    /// A line among the moving ones.
    pub(crate) fn note(&self, text: impl Display) {
        if self.silent {
            return;
        }
        match &self.live {
            Some(live) => drop(live.println(text.to_string())),
            None => self.out.note(text),
        }
    }
}

impl Progress<'_> {
    /// Other output, out of the way of the moving lines.
    pub(crate) fn hidden<R>(&self, print: impl FnOnce() -> R) -> R {
        match &self.live {
            Some(live) => live.suspend(print),
            None => print(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Track<'a> {
    board: &'a Progress<'a>,
    label: String,
    bar: Option<ProgressBar>,
    step: Option<String>,
    transfers: Transfers,
}

impl Track<'_> {
    pub(crate) fn event(&mut self, event: &EventKindInfo) {
        match event {
            EventKindInfo::StepStarted { step } => self.begin(step),
            EventKindInfo::StepDone { step, elapsed_us } => {
                let time = text::elapsed(Duration::from_micros(*elapsed_us));
                self.finished('✓', step, &time, |out, mark| out.err_paint(GREEN, mark));
            }
            EventKindInfo::StepFailed { step, cause } => {
                let cause = first_line(cause);
                self.finished('✗', step, cause, |out, mark| out.err_paint(RED, mark));
            }
            EventKindInfo::StepUndone { step } => {
                self.finished('↩', step, "undone", |out, mark| out.err_paint(YELLOW, mark));
            }
            EventKindInfo::Progress { text } => self.say(text),
            EventKindInfo::Note { text } => self.note(text),
            EventKindInfo::Missed { count } => self.note(format!("{count} events were missed")),
            EventKindInfo::Lost { count } => self.note(format!("{count} events were lost")),
            EventKindInfo::Transfer {
                blob,
                number,
                of,
                bytes,
                size_bytes,
                bytes_per_second,
                left_ms,
            } => self.transfer(Seen {
                blob,
                number: *number,
                of: *of,
                bytes: *bytes,
                size: *size_bytes,
                bytes_per_second: *bytes_per_second,
                left_ms: *left_ms,
            }),
            EventKindInfo::Forgotten { .. }
            | EventKindInfo::OpStarted { .. }
            | EventKindInfo::OpEnded { .. }
            | EventKindInfo::VmChanged { .. }
            | EventKindInfo::VmExited { .. }
            | EventKindInfo::ActorRebuilt { .. }
            | EventKindInfo::ActorQuarantined { .. } => {}
        }
    }

    pub(crate) fn note(&self, text: impl Display) {
        self.board.note(format!("{}{text}", self.label));
    }

    fn transfer(&mut self, seen: Seen<'_>) {
        if let Some(live) = &self.board.live {
            self.transfers.moving(live, seen);
        } else if let Some(line) = self.transfers.plain(seen) {
            self.note(line);
        }
    }

    fn begin(&mut self, step: &str) {
        self.step = Some(step.to_owned());
        let Some(live) = &self.board.live else { return };
        let bar = self.bar.get_or_insert_with(|| {
            let bar = live.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {msg}  {time}") {
                bar.set_style(style.with_key(
                    "time",
                    |state: &ProgressState, line: &mut dyn Write| {
                        let _ = line.write_str(&text::elapsed(state.elapsed()));
                    },
                ));
            }
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        bar.reset_elapsed();
        bar.set_message(format!("{}{step}", self.label));
    }

    fn finished(
        &mut self,
        mark: char,
        step: &str,
        tail: &str,
        paint: impl Fn(&Output, char) -> String,
    ) {
        let step_name = format!("{}{step}", self.label);
        if self.board.live.is_some() {
            let mark = paint(self.board.out, mark);
            self.board.note(format!("{mark} {step_name:<28}  {tail}"));
        } else {
            let mark = if mark == '✗' { "failed: " } else { "" };
            self.board.note(format!("{step_name}  {mark}{tail}"));
        }
        if let Some(bar) = &self.bar {
            bar.set_message(self.label.clone());
        }
    }

    /// On a terminal a running commentary in place; else a line each.
    fn say(&self, text: &str) {
        match (&self.bar, &self.step) {
            (Some(bar), Some(step)) => bar.set_message(format!("{}{step}: {text}", self.label)),
            _ => self.note(text),
        }
    }
}

impl Drop for Track<'_> {
    fn drop(&mut self) {
        self.transfers.clear();
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
