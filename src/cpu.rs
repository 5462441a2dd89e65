//! The one way out of the async threads for heavy computation: a bounded number of tasks.

use crate::error::Result;
use crate::lane::{Lane, Urgency};
use tokio::sync::Semaphore;

/// Background computations that may wait.
const DEPTH: usize = 64;

/// Runs heavy computations, at most a fixed number at once.
#[derive(Debug)]
pub struct Cpu {
    permits: Semaphore,
    background: Option<Lane>,
    /// In the caller: the order of what happens must not depend on threads.
    inline: bool,
}

impl Cpu {
    /// At most `concurrency` computations at once, those that nobody waits for among them.
    pub fn new(concurrency: usize) -> Self {
        Self { permits: Semaphore::new(concurrency.max(1)), background: None, inline: false }
    }

    /// Computations run in the caller, for simulated disks: what follows from a seed must be the same each time.
    pub fn inline() -> Self {
        Self { inline: true, ..Self::new(1) }
    }

    /// As `new`, with as many threads again for what nobody waits for: they take what others leave.
    ///
    /// Error: a thread could not be started.
    pub fn with_background(concurrency: usize) -> Result<Self> {
        let threads = concurrency.max(1);
        let background = Lane::start("cpu-bg", threads, DEPTH, Urgency::Background)?;
        Ok(Self { background: Some(background), ..Self::new(concurrency) })
    }

    /// Runs `work` on a blocking thread of the current runtime and answers with its value. A paused test
    /// clock waits for it. May be cancelled: the work then still ends, unheard.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        if self.inline || cfg!(feature = "shuttle") {
            // With shuttle no thread of the runtime may come near the locks.
            return work();
        }
        #[expect(clippy::disallowed_methods, reason = "this is the one place for it")]
        let task = tokio::task::spawn_blocking(work);
        match task.await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// As `run`, for what nobody waits for: repair.
    ///
    /// Errors: that of `work`; `Internal` if it panics.
    pub async fn run_background<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match &self.background {
            Some(lane) => lane.run(work).await,
            None => self.run(work).await,
        }
    }
}
