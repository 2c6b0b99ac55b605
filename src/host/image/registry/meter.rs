//! How far one blob is, told every so often.

use std::time::{Duration, Instant};

use crate::model::Transfer;
use crate::ports::TransferSink;

const EVERY: Duration = Duration::from_secs(1);
/// What the last second counts for in the speed that is told.
const WEIGHT: f64 = 0.3;

pub(super) struct Meter {
    sink: TransferSink,
    seen: Transfer,
    /// When it was told last, how far it was then, and bytes per second, once there are any.
    told: Option<(Instant, u64)>,
    speed: Option<f64>,
}

impl Meter {
    pub(super) fn new(sink: TransferSink, seen: Transfer) -> Self {
        Self { sink, seen, told: None, speed: None }
    }

    /// What was there before it began counts for no speed.
    pub(super) fn begin(&mut self, bytes: u64) {
        self.tell(bytes, Instant::now());
    }

    pub(super) fn at(&mut self, bytes: u64) {
        let now = Instant::now();
        match self.told {
            Some((last, _)) if now - last < EVERY => {}
            _ => self.tell(bytes, now),
        }
    }

    pub(super) fn whole(&mut self) {
        self.tell(self.seen.size, Instant::now());
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "shown, never counted with"
    )]
    fn tell(&mut self, bytes: u64, now: Instant) {
        if let Some((last, before)) = self.told {
            let seconds = (now - last).as_secs_f64().max(1e-3);
            let speed = bytes.saturating_sub(before) as f64 / seconds;
            let known = self.speed.map_or(speed, |known| known + WEIGHT * (speed - known));
            self.speed = Some(known);
        }
        let speed = self.speed.unwrap_or(0.0);
        let left = self.seen.size.saturating_sub(bytes) as f64 / speed;
        self.seen.bytes = bytes;
        self.seen.bytes_per_second = speed as u64;
        self.seen.left_ms = left.is_finite().then_some((left * 1e3) as u64);
        self.told = Some((now, bytes));
        (self.sink)(self.seen.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn speed_is_of_what_came() {
        let told = Arc::new(Mutex::new(vec![]));
        let sink = Arc::clone(&told);
        let blob = "sha256:abc".to_owned();
        let seen = Transfer {
            blob,
            number: 1,
            of: 2,
            bytes: 0,
            size: 5000,
            bytes_per_second: 0,
            left_ms: None,
        };
        let mut meter = Meter::new(Arc::new(move |seen| sink.lock().unwrap().push(seen)), seen);
        let began = Instant::now();
        meter.tell(1000, began);
        meter.tell(3000, began + Duration::from_secs(2));
        meter.at(3001); // too soon
        meter.told = Some((Instant::now(), 3000));
        meter.whole();
        let told = told.lock().unwrap();
        let seen: Vec<_> = told.iter().map(|seen| (seen.bytes, seen.left_ms)).collect();
        assert_eq!(seen, [(1000, None), (3000, Some(2000)), (5000, Some(0))]);
        assert_eq!((told[0].bytes_per_second, told[1].bytes_per_second), (0, 1000));
        assert!(told[2].is_whole() && !told[1].is_whole());
    }
}
