//! Instruments: what is counted and timed while it happens, and the page on which it is told to Prometheus. Whoever has
//! something to count holds its instrument, so recording is a few atomic additions: nothing is looked up by name, nothing
//! is locked and nothing allocated. What is known elsewhere is not counted here but asked for when the page is written
//! (`volume/measures`). The only module that knows the crate `prometheus`, whose histograms are recorded without a lock.
#![warn(missing_docs)]

mod coding;
mod jobs;
mod moves;
mod operations;
mod page;
mod repairs;
#[cfg(test)]
mod tests;

pub use coding::{CodingMetrics, Purpose};
pub use jobs::{JobTimes, Latency};
pub use moves::{Move, MoveMetrics};
pub use operations::{Operation, RequestMetrics};
pub use page::{Page, TEXT_FORMAT};
pub use repairs::{RepairMetrics, RepairResult};

use prometheus::{Histogram, HistogramOpts};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// All instruments of one volume; each part of it gets those that it uses.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Computing of parity and of lost cells.
    pub coding: Arc<CodingMetrics>,
    /// Requests of the kernel.
    pub requests: Arc<RequestMetrics>,
    /// Attempts to restore stripes.
    pub repairs: Arc<RepairMetrics>,
    /// File data that workers have moved to new stripes.
    pub moves: Arc<MoveMetrics>,
}

/// Upper bounds, in seconds, of what waits for disks: from an answer out of memory to a disk that hangs.
const WAITS: &[f64] = &[
    10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Upper bounds, in seconds, of what only computes: a row of cells takes from microseconds to milliseconds.
const COMPUTATIONS: &[f64] = &[
    1e-6, 2.5e-6, 5e-6, 10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 0.01, 0.05,
];

/// A distribution of durations. Clones record into the same.
#[derive(Clone, Debug)]
pub struct Durations(Histogram);

impl Durations {
    /// Counts in the buckets that end at `bounds`, in seconds.
    fn new(bounds: &[f64]) -> Self {
        // Name and help are on the page; a single histogram has no use for them.
        let options = HistogramOpts::new("durations", "durations").buckets(bounds.to_vec());
        Self(Histogram::with_opts(options).expect("the bounds rise"))
    }

    /// One more took so long.
    pub fn record(&self, duration: Duration) {
        self.0.observe(duration.as_secs_f64());
    }

    /// Begins to time one more.
    pub fn start(&self) -> Timer {
        Timer { durations: self.clone(), since: Instant::now() }
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.0.get_sample_count()
    }
}

/// Something that is being timed. It is not counted unless it is stopped.
#[derive(Debug)]
pub struct Timer {
    durations: Durations,
    since: Instant,
}

impl Timer {
    /// It has ended: records how long it took.
    pub fn stop(self) {
        self.durations.record(self.since.elapsed());
    }
}

/// Look-ups in a cache.
#[derive(Debug, Default)]
pub struct Lookups {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Lookups {
    /// One more look-up has ended, with or without a find.
    pub fn note(&self, found: bool) {
        let counter = if found { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Look-ups with and without a find so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }
}
