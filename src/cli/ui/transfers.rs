//! The blobs of a pull: on a terminal a line each that moves, else a line when one is whole, and now
//! and then until it is.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::text;

/// Between two plain lines of one blob.
const PLAIN_PAUSE: Duration = Duration::from_secs(15);

/// As an event tells it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'a> {
    pub(crate) blob: &'a str,
    pub(crate) number: u32,
    pub(crate) of: u32,
    pub(crate) bytes: u64,
    pub(crate) size: u64,
    pub(crate) bytes_per_second: u64,
    pub(crate) left_ms: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Transfers {
    bars: HashMap<String, ProgressBar>,
    /// When a plain line was said of it.
    said: HashMap<String, Instant>,
}

impl Seen<'_> {
    fn is_whole(&self) -> bool {
        self.bytes >= self.size
    }

    /// `layer 2 of 5  sha256:0a1b2c3d4e5f  12.0 MiB of 40.1 MiB  3.4 MiB/s  8 s left`.
    pub(crate) fn line(&self) -> String {
        let Self { blob, number, of, bytes, size, bytes_per_second, left_ms } = *self;
        let layer = format!("layer {number} of {of}  {blob}");
        let size = text::size(size);
        if self.is_whole() {
            return format!("{layer}  {size}");
        }
        let mut line = format!("{layer}  {} of {size}", text::size(bytes));
        if bytes_per_second > 0 {
            line.push_str(&format!("  {}/s", text::size(bytes_per_second)));
        }
        if let Some(left) = left_ms {
            line.push_str(&match left.div_ceil(1000) {
                seconds @ 0..60 => format!("  {seconds} s left"),
                seconds => format!("  {} min {} s left", seconds / 60, seconds % 60),
            });
        }
        line
    }
}

impl Transfers {
    /// The line to say, if it is time for one.
    pub(super) fn plain(&mut self, seen: Seen<'_>) -> Option<String> {
        let now = Instant::now();
        let last = *self.said.entry(seen.blob.to_owned()).or_insert(now);
        if !seen.is_whole() && now - last < PLAIN_PAUSE {
            return None;
        }
        self.said.insert(seen.blob.to_owned(), now);
        Some(seen.line())
    }

    pub(super) fn moving(&mut self, live: &MultiProgress, seen: Seen<'_>) {
        if seen.is_whole() {
            if let Some(bar) = self.bars.remove(seen.blob) {
                bar.finish_and_clear();
            }
            return;
        }
        let bar = self.bars.entry(seen.blob.to_owned()).or_insert_with(|| {
            let bar = live.add(ProgressBar::new_spinner());
            if let Ok(style) = ProgressStyle::with_template("  {msg}") {
                bar.set_style(style);
            }
            bar
        });
        bar.set_message(seen.line());
    }

    pub(super) fn clear(&mut self) {
        self.bars.drain().for_each(|(_, bar)| bar.finish_and_clear());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known() {
        let begun = Seen {
            blob: "sha256:0a1b",
            number: 2,
            of: 5,
            bytes: 1 << 20,
            size: 4 << 20,
            bytes_per_second: 0,
            left_ms: None,
        };
        let size = text::size;
        let (one, four) = (size(1 << 20), size(4 << 20));
        assert_eq!(begun.line(), format!("layer 2 of 5  sha256:0a1b  {one} of {four}"));
        let under_way = Seen { bytes_per_second: 1 << 20, left_ms: Some(3400), ..begun };
        assert_eq!(under_way.line(), format!("{}  {one}/s  4 s left", begun.line()));
        let slow = Seen { left_ms: Some(125_000), ..under_way };
        assert!(slow.line().ends_with("/s  2 min 5 s left"), "{}", slow.line());
        let whole = Seen { bytes: 4 << 20, ..under_way };
        assert_eq!(whole.line(), format!("layer 2 of 5  sha256:0a1b  {four}"));
        let mut transfers = Transfers::default();
        assert_eq!(transfers.plain(begun), None);
        assert_eq!(transfers.plain(whole), Some(whole.line()));
    }
}
