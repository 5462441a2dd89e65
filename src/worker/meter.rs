//! How fast work goes at present.

use crate::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// Length of a window; the rate is that of the last one to two of them.
const WINDOW: Duration = Duration::from_secs(10);

/// Bytes per second, of late.
#[derive(Debug)]
pub(super) struct Meter(Mutex<Windows>);

#[derive(Debug)]
struct Windows {
    begun: Instant,
    present: u64,
    /// Bytes of the window before, and whether there was one.
    before: Option<u64>,
}

impl Windows {
    /// Begins a new window if the present one is over.
    fn roll(&mut self, now: Instant) {
        let elapsed = now.duration_since(self.begun);
        if elapsed < WINDOW {
            return;
        }
        self.before = Some(if elapsed < WINDOW * 2 { self.present } else { 0 });
        self.present = 0;
        self.begun = if elapsed < WINDOW * 2 { self.begun + WINDOW } else { now };
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self(Mutex::new(Windows { begun: Instant::now(), present: 0, before: None }))
    }
}

impl Meter {
    /// So many bytes are done.
    pub(super) fn note(&self, bytes: u64) {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        windows.roll(Instant::now());
        if windows.before.is_none() && windows.present == 0 {
            // Work that begins only now has not been slow before.
            windows.begun = Instant::now();
        }
        windows.present += bytes;
    }

    /// Bytes per second.
    pub(super) fn rate(&self) -> u64 {
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        windows.roll(now);
        let (before, time) = match windows.before {
            Some(bytes) => (bytes, WINDOW),
            None => (0, Duration::ZERO),
        };
        let elapsed = (time + now.duration_since(windows.begun)).max(Duration::from_secs(1));
        let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        (before + windows.present).saturating_mul(1000) / millis
    }
}
