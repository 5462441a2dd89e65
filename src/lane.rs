//! Threads for blocking work, behind one bounded queue. Knows nothing of what the jobs do.

use crate::error::{Error, Result};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How long a queue that is dropped waits for jobs under way. One that hangs longer is on a device that does not
/// answer; its thread is left behind, so that shutting down does not hang too.
const DROP_WAIT: Duration = Duration::from_secs(2);

/// How much less of a busy processor background threads get: at this nice value a tenth of what a foreground thread does
/// (sched(7)). Enough that whoever waits for them for once does not wait for long.
const BACKGROUND_NICE: i32 = 10;

/// Whether somebody waits for what a thread does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Urgency {
    /// Somebody does.
    Foreground,
    /// Nobody does: it takes what others leave of the processors.
    Background,
}

impl Urgency {
    /// Makes it that of the calling thread.
    fn adopt(self) {
        if self == Self::Background {
            // Of the calling thread alone, on Linux: setpriority(2). To be nicer is always allowed.
            if let Err(error) = rustix::process::setpriority_process(None, BACKGROUND_NICE) {
                tracing::debug!(%error, "a background thread runs like the others");
            }
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// Some threads behind one bounded queue.
#[derive(Debug)]
pub struct Lane {
    name: String,
    /// One permit for each place in the queue, so that submitting never blocks a thread.
    room: Arc<Semaphore>,
    jobs: Option<SyncSender<(Job, OwnedSemaphorePermit)>>,
    /// Closed when the last thread has ended. In a mutex only to be `Sync`.
    ended: Mutex<Receiver<()>>,
    threads: Vec<JoinHandle<()>>,
}

impl Lane {
    /// Places that are free in the queue.
    #[cfg(test)]
    pub(crate) fn free_places(&self) -> usize {
        self.room.available_permits()
    }

    /// Threads with this name, and at most `depth` jobs waiting for them.
    ///
    /// Error: a thread could not be started.
    pub fn start(name: &str, threads: usize, depth: usize, urgency: Urgency) -> Result<Self> {
        let (sender, receiver) = sync_channel(depth);
        let receiver = Arc::new(Mutex::new(receiver));
        let (alive, ended) = channel();
        let thread = |number: usize| {
            let (receiver, alive) = (receiver.clone(), alive.clone());
            std::thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || {
                    urgency.adopt();
                    serve(&receiver, alive);
                })
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

    /// Runs `job` and answers with its result. Waits while the queue is full. May be cancelled: the job then still runs if
    /// it was in the queue already. A job that panics answers `Internal`.
    pub async fn run<T: Send + 'static>(
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
            tracing::error!("a job panicked; its caller gets an error. Please report this");
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
