//! Runs the blocking work of one disk on threads of its own, so that a slow disk delays only its own work. Knows
//! nothing of what the jobs do.

use crate::disk::pace::Pace;
use crate::error::Result;
use crate::lane::{Lane, Urgency};
use crate::metrics::JobTimes;
use futures_util::future::BoxFuture;
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// Where the jobs of one disk run, and how long they take.
#[derive(Debug)]
pub struct DiskQueue {
    lanes: Option<Lanes>,
    times: Arc<JobTimes>,
    pace: Pace,
}

/// The threads of one disk, in three lanes. Background jobs have threads of their own, so they neither wait for ever
/// behind foreground jobs nor fill their queue; and who looks whether the disk answers waits for no job at all.
#[derive(Debug)]
struct Lanes {
    foreground: Lane,
    background: Lane,
    probe: Lane,
}

/// Looks that may wait: who looks waits for the answer, so there are no more than a few.
const PROBES_MAX: usize = 4;

impl DiskQueue {
    /// Jobs run in the caller: for simulated disks, which must not leave the paused clock.
    pub fn inline() -> Self {
        Self { lanes: None, times: Arc::default(), pace: Pace::default() }
    }

    /// Threads of its own, named `label`; `threads` of them, at most `depth` jobs waiting. A quarter as many
    /// threads again (at least one) with a queue of the same depth do the background jobs, and one the looks.
    pub fn threads(label: &str, threads: usize, depth: usize) -> Result<Self> {
        let foreground = Lane::start(label, threads.max(1), depth.max(1), Urgency::Foreground)?;
        let (name, count) = (format!("{label}-bg"), (threads / 4).max(1));
        let background = Lane::start(&name, count, depth.max(1), Urgency::Background)?;
        let name = format!("{label}-probe");
        let probe = Lane::start(&name, 1, PROBES_MAX, Urgency::Foreground)?;
        let lanes = Some(Lanes { foreground, background, probe });
        Ok(Self { lanes, times: Arc::default(), pace: Pace::default() })
    }

    /// Whether jobs run in the caller.
    pub const fn is_inline(&self) -> bool {
        self.lanes.is_none()
    }

    /// How long the jobs took, not counting their time in the queue.
    pub fn times(&self) -> &JobTimes {
        &self.times
    }

    /// How fast reads are answered, waiting included.
    pub const fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Runs `job` and answers with its result. Waits while the queue is full. May be cancelled: the job then
    /// still runs if it was in the queue already. A job that panics answers `Internal`.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        self.run_in(self.lanes.as_ref().map(|lanes| &lanes.foreground), job)
    }

    /// As `run`, for work that nobody waits for: repair, scrub, cleaning.
    pub fn run_background<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        self.run_in(self.lanes.as_ref().map(|lanes| &lanes.background), job)
    }

    /// Looks whether the disk answers: `look` waits only for other looks, and its time is not that of a job.
    pub fn run_probe<T: Send + 'static>(
        &self,
        look: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        match &self.lanes {
            None => Box::pin(async move { look() }),
            Some(lanes) => Box::pin(lanes.probe.run(look)),
        }
    }

    fn run_in<'q, T: Send + 'static>(
        &self,
        lane: Option<&'q Lane>,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> BoxFuture<'q, Result<T>> {
        let times = Arc::clone(&self.times);
        let timed = move || times.time(job);
        match lane {
            None => Box::pin(async move { timed() }),
            Some(lane) => Box::pin(lane.run(timed)),
        }
    }
}
