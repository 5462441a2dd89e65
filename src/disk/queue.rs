//! Runs the blocking work of one disk on threads of its own, so that a slow disk delays only its own work.

use crate::error::{Error, Result};
use futures_util::future::BoxFuture;

/// Where the jobs of one disk run.
#[derive(Debug)]
pub enum DiskQueue {
    /// In the caller: for simulated disks, which must not leave the paused clock.
    Inline,
}

impl DiskQueue {
    /// Threads of its own, named `label`; `threads` of them, at most `depth` jobs waiting.
    pub fn threads(label: &str, threads: usize, depth: usize) -> Result<Self> {
        let _ = (label, threads, depth);
        Err(Error::internal("disk queue"))
    }

    /// Runs `job` and answers with its result. Waits while the queue is full. May be cancelled: the job then
    /// still runs.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> BoxFuture<'_, Result<T>> {
        Box::pin(async move { job() })
    }
}
