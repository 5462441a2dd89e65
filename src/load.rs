//! How long foreground requests take at present, so that background work can give way. A few atomics for each request.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Buckets: four for each doubling of the time, from 1 us to 67 s.
const BUCKETS: usize = 104;
const STEPS: u32 = 4;

/// Latencies since they were taken last, in buckets whose bounds grow by a quarter of a doubling.
#[derive(Debug)]
pub struct Latencies {
    buckets: [AtomicU32; BUCKETS],
}

/// What was measured in one window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Window {
    /// Requests.
    pub count: u64,
    /// Nine of ten took at most this long; the upper bound of the bucket, at most 25 % above the value.
    pub p90: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { buckets: std::array::from_fn(|_bucket| AtomicU32::new(0)) }
    }
}

impl Latencies {
    /// Takes note of one request.
    pub fn note(&self, latency: Duration) {
        if let Some(bucket) = self.buckets.get(bucket(latency)) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What was noted since the last call; begins a new window.
    pub fn take(&self) -> Window {
        let counts: [u64; BUCKETS] = std::array::from_fn(|at| {
            self.buckets.get(at).map_or(0, |bucket| u64::from(bucket.swap(0, Ordering::Relaxed)))
        });
        let count: u64 = counts.iter().sum();
        let mut below = 0;
        let reached = counts.iter().position(|bucket| {
            below += bucket;
            below * 10 >= count * 9
        });
        let p90 = reached.filter(|_at| count > 0).map_or(Duration::ZERO, bound);
        Window { count, p90 }
    }
}

fn bucket(latency: Duration) -> usize {
    let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
    let doubling = micros.ilog2();
    // The part of the doubling: the two bits behind the highest.
    let part =
        if doubling >= 2 { micros >> (doubling - 2) & 3 } else { micros << (2 - doubling) & 3 };
    let at = u64::from(doubling * STEPS) + part;
    usize::try_from(at).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The least time that is above a bucket.
fn bound(bucket: usize) -> Duration {
    let bucket = u32::try_from(bucket).unwrap_or(u32::MAX);
    let (doubling, part) = (bucket / STEPS, u64::from(bucket % STEPS));
    let micros = ((4 + part + 1) << doubling).div_ceil(4);
    Duration::from_micros(micros)
}
