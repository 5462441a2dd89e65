//! Background work of a read-write mount: small steps that are repeated for ever. Each step may be cut off by a crash
//! at any point. Knows neither the kernel nor where disks are.

pub mod clean;
pub mod delete;
pub mod inventory;
mod meter;
mod mover;
pub mod orphans;
pub mod pack;
pub mod reap;
pub mod rebalance;
pub mod repair;
pub mod scrub;
mod shards;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod throttle;

pub use mover::Mover;
pub use shards::Shards;

use crate::error::Result;
use futures_util::future::BoxFuture;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause of a worker without work. Short, so that nobody has to wake it; a look at an empty queue is cheap.
pub const IDLE_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after errors: a disk that comes back is used again within a minute.
pub const ERROR_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How a step ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Something was done, and there may be more.
    Busy,
    /// There is nothing to do now.
    Idle,
    /// There is work, but not before this time has passed.
    Throttled(Duration),
}

/// A kind of background work.
pub trait Worker: Send + Sync + Debug {
    /// One word for logs.
    fn name(&self) -> &'static str;

    /// Does one bounded piece of work. Must not be cancelled: it finishes once polled.
    fn step(&self) -> BoxFuture<'_, Result<Step>>;
}

/// Wakes one worker before its pause is over; cheap to clone.
#[derive(Clone, Debug)]
pub struct Kick(Arc<Notify>);

impl Kick {
    /// Lets the next step begin at once, or one more follow the one under way. A pause after an error goes on.
    pub fn kick(&self) {
        self.0.notify_one();
    }
}

/// Runs workers until it is told to stop.
#[derive(Debug)]
pub struct Runner {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Runner {
    /// Runs workers as tasks of `tasks` until `stop` is cancelled; a step under way then ends first.
    pub const fn new(tasks: TaskTracker, stop: CancellationToken) -> Self {
        Self { tasks, stop }
    }

    /// Runs `worker` from now on. Needs a runtime.
    pub fn start(&self, worker: Arc<dyn Worker>) -> Kick {
        let notify = Arc::new(Notify::new());
        self.tasks.spawn(run(worker, Arc::clone(&notify), self.stop.clone()));
        Kick(notify)
    }
}

async fn run(worker: Arc<dyn Worker>, notify: Arc<Notify>, stop: CancellationToken) {
    let mut troubles = Troubles::default();
    while !stop.is_cancelled() {
        let result = worker.step().await;
        let pause = match &result {
            Ok(Step::Busy) => Duration::ZERO,
            Ok(Step::Idle) => IDLE_PAUSE,
            Ok(Step::Throttled(pause)) => *pause,
            Err(_) => troubles.pause(),
        };
        troubles.note(worker.name(), &result);
        // A kick must not turn errors into a busy loop.
        let kicked = async {
            match result {
                Ok(_step) => notify.notified().await,
                Err(_error) => std::future::pending().await,
            }
        };
        if pause.is_zero() {
            tokio::task::yield_now().await;
            continue;
        }
        tokio::select! {
            () = stop.cancelled() => {}
            () = kicked => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Errors of one worker in a row.
#[derive(Debug, Default)]
struct Troubles {
    count: u32,
    last: Option<String>,
}

impl Troubles {
    /// Pause after one more error.
    fn pause(&self) -> Duration {
        let factor = 1_u32.checked_shl(self.count).unwrap_or(u32::MAX);
        IDLE_PAUSE.saturating_mul(factor).min(ERROR_PAUSE_MAX)
    }

    /// Logs what changed, once.
    fn note(&mut self, worker: &str, result: &Result<Step>) {
        let error = result.as_ref().err().map(ToString::to_string);
        match (&error, &self.last) {
            (Some(error), last) if last.as_ref() != Some(error) => {
                tracing::warn!(worker, error, "background work failed; it is tried again");
            }
            (None, Some(_)) => tracing::info!(worker, "background work goes on"),
            _ => {}
        }
        self.count = if error.is_some() { self.count.saturating_add(1).min(31) } else { 0 };
        self.last = error;
    }
}
