//! The one way out of the async threads for heavy computation: a bounded number of blocking tasks.

use tokio::sync::Semaphore;

/// Runs heavy computations, at most a fixed number at once.
#[derive(Debug)]
pub struct Cpu {
    permits: Semaphore,
}

impl Cpu {
    /// At most `concurrency` computations at once.
    pub fn new(concurrency: usize) -> Self {
        Self { permits: Semaphore::new(concurrency.max(1)) }
    }

    /// Runs `work` on a blocking thread of the current runtime and answers with its value. A paused test
    /// clock waits for it. May be cancelled: the work then still ends, unheard.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        #[expect(clippy::disallowed_methods, reason = "this is the one place for it")]
        let task = tokio::task::spawn_blocking(work);
        match task.await {
            Ok(value) => value,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}
