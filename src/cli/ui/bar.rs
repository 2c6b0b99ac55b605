//! How far a copy is: a bar on a terminal, nothing anywhere else.

use std::time::Duration;

use banger_copy::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cli::output::Output;

const TICK: Duration = Duration::from_millis(100);
const KNOWN: &str = "{bytes:>12} of {total_bytes}  {wide_bar:.cyan}  {bytes_per_sec}  {eta}";
const UNKNOWN: &str = "{bytes:>12}  {spinner:.cyan}  {bytes_per_sec}";

/// Shown until it is dropped.
#[derive(Debug)]
pub(crate) struct Shown(Option<(ProgressBar, JoinHandle<()>)>);

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some((bar, task)) = self.0.take() {
            task.abort();
            bar.finish_and_clear();
        }
    }
}

pub(crate) fn bytes(out: &Output, mut told: watch::Receiver<Progress>) -> Shown {
    if !out.stderr_is_terminal || out.quiet {
        return Shown(None);
    }
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let shown = bar.clone();
    let task = tokio::spawn(async move {
        let mut styled = None;
        loop {
            let now = *told.borrow_and_update();
            let known = now.total > 0;
            if styled != Some(known) {
                if let Ok(style) = ProgressStyle::with_template(if known { KNOWN } else { UNKNOWN })
                {
                    shown.set_style(style);
                }
                styled = Some(known);
            }
            if known {
                shown.set_length(now.total);
            }
            shown.set_position(now.done);
            tokio::time::sleep(TICK).await;
            if told.changed().await.is_err() {
                return;
            }
        }
    });
    Shown(Some((bar, task)))
}
