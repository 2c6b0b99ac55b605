//! What shall go wrong, as a test planned it. One fault a line:
//!
//! ```text
//! version 1.11.0                what --version and the API say
//! slow POINT MILLISECONDS       before the answer; `*` is any point
//! refuse POINT WORDS            400 with these words as its fault_message
//! die POINT CODE                ends with that exit code instead of an answer
//! lose socket                   the API's socket is gone once the guest runs
//! ignore shutdown               the guest answers, and goes on
//! ignore ctrl-alt-del
//! guest silent                  it never tells how its boot went
//! guest fails STAGE: WORDS      it tells that it failed
//! no taps                       names of taps are not looked at
//! ```
//!
//! A point is a request's path (`/vsock`) or, of `/actions`, the action (`InstanceStart`). A line
//! that is none of these ends the program: a fault that is not played would pass for a success.

use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Faults {
    pub(crate) version: String,
    slow: Vec<(String, Duration)>,
    refuse: Vec<(String, String)>,
    die: Vec<(String, i32)>,
    pub(crate) lose_socket: bool,
    pub(crate) guest: Planned,
    pub(crate) ignore_ctrl_alt_del: bool,
    pub(crate) no_taps: bool,
}

/// How the guest misbehaves.
#[derive(Clone, Debug, Default)]
pub(crate) struct Planned {
    pub(crate) silent: bool,
    /// Stage and error.
    pub(crate) fails: Option<(String, String)>,
    pub(crate) ignore_shutdown: bool,
}

impl Faults {
    pub(crate) fn read(path: &str) -> Self {
        let mut faults = Self {
            version: crate::VERSION.to_owned(),
            slow: vec![],
            refuse: vec![],
            die: vec![],
            lose_socket: false,
            guest: Planned::default(),
            ignore_ctrl_alt_del: false,
            no_taps: false,
        };
        let text = std::fs::read_to_string(path).unwrap_or_default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            faults.plan(line).unwrap_or_else(|| panic!("{path}: no such fault: {line}"));
        }
        faults
    }

    fn plan(&mut self, line: &str) -> Option<()> {
        let (kind, rest) = line.split_once(' ')?;
        let pair = || {
            let (point, value) = rest.split_once(' ')?;
            Some((point.to_owned(), value.to_owned()))
        };
        match (kind, rest) {
            ("version", version) => self.version = version.to_owned(),
            ("slow", _) => {
                let (point, millis) = pair()?;
                self.slow.push((point, Duration::from_millis(millis.parse().ok()?)));
            }
            ("refuse", _) => self.refuse.push(pair()?),
            ("die", _) => {
                let (point, code) = pair()?;
                self.die.push((point, code.parse().ok()?));
            }
            ("lose", "socket") => self.lose_socket = true,
            ("ignore", "shutdown") => self.guest.ignore_shutdown = true,
            ("ignore", "ctrl-alt-del") => self.ignore_ctrl_alt_del = true,
            ("guest", "silent") => self.guest.silent = true,
            ("guest", _) => {
                let (stage, words) = rest.strip_prefix("fails ")?.split_once(": ")?;
                self.guest.fails = Some((stage.to_owned(), words.to_owned()));
            }
            ("no", "taps") => self.no_taps = true,
            _ => return None,
        }
        Some(())
    }

    /// Waits or dies here if that was planned, or gives the words of a refusal.
    pub(crate) fn meet(&self, point: &str) -> Option<String> {
        let here = |planned: &str| planned == point || planned == "*";
        for (_, time) in self.slow.iter().filter(|(planned, _)| here(planned)) {
            std::thread::sleep(*time);
        }
        if let Some((_, code)) = self.die.iter().find(|(planned, _)| here(planned)) {
            std::process::exit(*code);
        }
        self.refuse.iter().find(|(planned, _)| here(planned)).map(|(_, words)| words.clone())
    }
}
