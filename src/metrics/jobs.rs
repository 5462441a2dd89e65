//! How long the jobs of one disk take: since it is in use, and of late.

use super::{Durations, WAITS};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// Length of one span of "of late".
const SPAN: Duration = Duration::from_secs(15);
/// Spans that are kept; one of them is just being filled.
const SPANS: usize = 5;
/// Durations are told apart by their first bits: this many behind the leading one, so within an eighth.
const FINE_BITS: u32 = 2;
/// Up to this many nanoseconds all durations are one: 2^10, a microsecond.
const FIRST_BIT: u32 = 10;
/// From this many nanoseconds on too: 2^37, two minutes.
const LAST_BIT: u32 = 37;
/// Classes of durations.
const CLASSES: usize = ((LAST_BIT - FIRST_BIT) << FINE_BITS) as usize + 1;

const _: () = assert!(FIRST_BIT >= FINE_BITS);

/// Durations of the jobs of one disk.
#[derive(Debug)]
pub struct JobTimes {
    all: Durations,
    /// What the numbers of spans count from.
    since: Instant,
    spans: [Span; SPANS],
}

/// Jobs that ended in one span of time.
#[derive(Debug)]
struct Span {
    /// Which one since the beginning.
    number: AtomicU64,
    counts: [AtomicU32; CLASSES],
}

/// How long jobs took of late.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Latency {
    /// Half of them took longer.
    pub median: Duration,
    /// One of a hundred took longer.
    pub p99: Duration,
}

impl Default for JobTimes {
    fn default() -> Self {
        let span = |_span| Span {
            number: AtomicU64::new(0),
            counts: std::array::from_fn(|_class| AtomicU32::new(0)),
        };
        Self { all: Durations::new(WAITS), since: Instant::now(), spans: std::array::from_fn(span) }
    }
}

impl JobTimes {
    /// Runs a job and records how long it took.
    pub fn time<T>(&self, job: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = job();
        let end = Instant::now();
        self.record(end.duration_since(start), end);
        result
    }

    /// Waits for a job that runs elsewhere and records how long it took.
    pub async fn follow<T>(&self, job: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let result = job.await;
        let end = Instant::now();
        self.record(end.duration_since(start), end);
        result
    }

    /// All of them.
    pub fn all(&self) -> &Durations {
        &self.all
    }

    /// Those of about the last minute before `now`; `None` if there were none.
    pub fn of_late(&self, now: Instant) -> Option<Latency> {
        let present = self.number(now);
        let mut counts = [0_u64; CLASSES];
        for span in &self.spans {
            // A span that is older lies where the next one will begin.
            let age = present.saturating_sub(span.number.load(Ordering::Acquire));
            if age < SPANS as u64 {
                let held = span.counts.iter().map(|count| u64::from(count.load(Ordering::Relaxed)));
                counts.iter_mut().zip(held).for_each(|(sum, count)| *sum += count);
            }
        }
        let total: u64 = counts.iter().sum();
        let quantile = |percent: u64| {
            let rank = (total * percent).div_ceil(100);
            let mut below = 0;
            let reached = counts.iter().position(|count| {
                below += count;
                below >= rank
            });
            reached.map(middle)
        };
        if total == 0 {
            return None;
        }
        Some(Latency { median: quantile(50)?, p99: quantile(99)? })
    }

    fn record(&self, duration: Duration, now: Instant) {
        self.all.record(duration);
        let number = self.number(now);
        let at = usize::try_from(number % SPANS as u64).unwrap_or(0);
        let Some(span) = self.spans.get(at) else { return };
        let held = span.number.load(Ordering::Acquire);
        // Whoever begins a span empties it; what others record meanwhile may be lost, which no quantile shows.
        if held < number
            && span
                .number
                .compare_exchange(held, number, Ordering::AcqRel, Ordering::Acquire)
                .is_ok()
        {
            span.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
        }
        if let Some(count) = span.counts.get(class(duration)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn number(&self, now: Instant) -> u64 {
        now.duration_since(self.since).as_secs() / SPAN.as_secs()
    }
}

/// The class of a duration.
fn class(duration: Duration) -> usize {
    let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let nanoseconds = nanoseconds.clamp(1 << FIRST_BIT, 1 << LAST_BIT);
    let bit = nanoseconds.ilog2();
    let fine = nanoseconds >> (bit - FINE_BITS) & ((1 << FINE_BITS) - 1);
    let class = u64::from((bit - FIRST_BIT) << FINE_BITS) + fine;
    usize::try_from(class).unwrap_or(0).min(CLASSES - 1)
}

/// A duration in the middle of a class.
fn middle(class: usize) -> Duration {
    let class = u32::try_from(class).unwrap_or(0);
    let (bit, fine) = (FIRST_BIT + (class >> FINE_BITS), class & ((1 << FINE_BITS) - 1));
    let step = 1_u64 << (bit - FINE_BITS);
    let first = (1_u64 << bit) + u64::from(fine) * step;
    Duration::from_nanos(first + step / 2)
}
