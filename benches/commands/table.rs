//! The result: what was measured, what it may be, whether it is.

use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<[String; 4]>,
}

impl Table {
    pub(crate) fn row(
        &mut self,
        what: &str,
        measured: impl Into<String>,
        goal: impl Into<String>,
        met: bool,
    ) {
        let verdict = if met { "yes" } else { "NO" }.to_owned();
        let row = [what.to_owned(), measured.into(), goal.into(), verdict];
        eprintln!("{}: {} (goal {}: {})", row[0], row[1], row[2], row[3]);
        self.rows.push(row);
    }

    pub(crate) fn render(&self) -> String {
        let head = "| what | measured | goal | met |\n|---|---|---|---|\n".to_owned();
        self.rows.iter().fold(head, |text, [what, measured, goal, met]| {
            format!("{text}| {what} | {measured} | {goal} | {met} |\n")
        })
    }
}

pub(crate) fn median(times: &[Duration]) -> Duration {
    quantile(times, 50)
}

pub(crate) fn quantile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

pub(crate) fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Resident memory of a process, KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
