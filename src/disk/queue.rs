//! Runs the blocking work of one disk on threads of its own, so that a slow disk delays only its own work. Knows
//! nothing of what the jobs do.

use crate::error::{Error, Result};
use crate::metrics::JobTimes;
use futures_util::future::BoxFuture;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

#[cfg(test)]
mod tests;

/// Where the jobs of one disk run, and how long they take.
#[derive(Debug)]
pub struct DiskQueue {
    lanes: Option<Lanes>,
    times: Arc<JobTimes>,
}

/// The threads of one disk, in three lanes. Background jobs have threads of their own, so they neither wait for ever
/// behind foreground jobs nor fill their queue; and who looks whether the disk answers waits for no job at all.
#[derive(Debug)]
struct Lanes {
    foreground: Lane,
    background: Lane,
    probe: Lane,
}

/// How long a queue that is dropped waits for jobs under way. One that hangs longer is on a device that does not
/// answer; its thread is left behind, so that shutting down does not hang too.
const DROP_WAIT: Duration = Duration::from_secs(2);

/// Looks that may wait: who looks waits for the answer, so there are no more than a few.
const PROBES_MAX: usize = 4;

type Job = Box<dyn FnOnce() + Send>;

/// Some threads behind one bounded queue.
#[derive(Debug)]
struct Lane {
    name: String,
    /// One permit for each place in the queue, so that submitting never blocks a thread.
    room: Arc<Semaphore>,
    jobs: Option<SyncSender<(Job, OwnedSemaphorePermit)>>,
    /// Closed when the last thread has ended. In a mutex only to be `Sync`.
    ended: Mutex<Receiver<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl DiskQueue {
    /// Jobs run in the caller: for simulated disks, which must not leave the paused clock.
    pub fn inline() -> Self {
        Self { lanes: None, times: Arc::default() }
    }

    /// Threads of its own, named `label`; `threads` of them, at most `depth` jobs waiting. A quarter as many
    /// threads again (at least one) with a queue of the same depth do the background jobs, and one the looks.
    pub fn threads(label: &str, threads: usize, depth: usize) -> Result<Self> {
        let foreground = Lane::start(label, threads.max(1), depth.max(1))?;
        let background = Lane::start(&format!("{label}-bg"), (threads / 4).max(1), depth.max(1))?;
        let probe = Lane::start(&format!("{label}-probe"), 1, PROBES_MAX)?;
        Ok(Self { lanes: Some(Lanes { foreground, background, probe }), times: Arc::default() })
    }

    /// Whether jobs run in the caller.
    pub const fn is_inline(&self) -> bool {
        self.lanes.is_none()
    }

    /// How long the jobs took, not counting their time in the queue.
    pub fn times(&self) -> &JobTimes {
        &self.times
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

impl Lane {
    fn start(name: &str, threads: usize, depth: usize) -> Result<Self> {
        let (sender, receiver) = sync_channel(depth);
        let receiver = Arc::new(Mutex::new(receiver));
        let (alive, ended) = channel();
        let thread = |number: usize| {
            let (receiver, alive) = (receiver.clone(), alive.clone());
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || serve(&receiver, alive))
                .map_err(|error| Error::from_io(format!("start thread {number} of {name}"), error))
        };
        let threads = (0..threads).map(thread).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            name: name.to_owned(),
            room: Arc::new(Semaphore::new(depth)),
            jobs: Some(sender),
            ended: Mutex::new(ended),
            threads,
        })
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let closed = || Error::internal(format!("the queue {} is closed", self.name));
        let room = self.room.clone().acquire_owned().await.map_err(|_closed| closed())?;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Nobody listens if the caller was cancelled; then the result concerns nobody.
            drop(answer.send(job()));
        });
        let jobs = self.jobs.as_ref().ok_or_else(closed)?;
        jobs.send((job, room)).map_err(|_closed| closed())?;
        let panicked = |_dropped| Error::internal(format!("a job of {} panicked", self.name));
        answered.await.map_err(panicked)?
    }
}

/// Runs jobs until the queue is closed. `_alive` tells the lane, by being dropped, that this thread has ended.
fn serve(jobs: &Mutex<Receiver<(Job, OwnedSemaphorePermit)>>, _alive: Sender<()>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((job, room)) = next else { return };
        drop(room);
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a disk job panicked; its caller gets an error. Please report this");
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.jobs = None;
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let own = std::thread::current().id();
        // The last owner may let go inside a job: that thread cannot wait for itself.
        let inside = self.threads.iter().any(|thread| thread.thread().id() == own);
        if !inside && ended.recv_timeout(DROP_WAIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(queue = self.name, "a job hangs; leaving its thread behind");
            return;
        }
        for thread in self.threads.drain(..).filter(|_thread| !inside) {
            // Jobs cannot unwind out of `serve`.
            drop(thread.join());
        }
    }
}
