//! Threads for blocking work, behind one bounded queue. Knows nothing of what the jobs do.

use crate::error::{Error, Result};
use crate::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, thread};
use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// How long threads that should end are waited for. One that hangs longer is on a device that does not answer; it is
/// left behind, so that shutting down does not hang too.
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
pub struct Lane {
    name: String,
    /// One permit for each place in the queue, so that submitting never blocks a thread.
    room: Arc<Semaphore>,
    queue: Arc<Queue>,
    /// Dropped after the queue is closed, which ends them.
    _crew: Crew,
}

/// Jobs that wait. A job wakes one thread, and only if one has nothing to do: threads that took turns at one end of a channel
/// would wake each other once for each job.
#[derive(Default)]
struct Queue {
    state: Mutex<Waiting>,
    filled: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<(Job, OwnedSemaphorePermit)>,
    /// Threads that have nothing to do.
    idle: usize,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job, room: OwnedSemaphorePermit) {
        let mut state = self.lock();
        state.jobs.push_back((job, room));
        let somebody_waits = state.idle > 0;
        drop(state);
        if somebody_waits {
            self.filled.notify_one();
        }
    }

    /// The next job, waited for; None once the queue is closed and empty.
    fn pop(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some((job, room)) = state.jobs.pop_front() {
                drop(state);
                drop(room);
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    /// Threads end when they have done what waits.
    fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_all();
    }
}

/// Threads that do the same. Whoever drops it has told them to end.
#[derive(Debug)]
pub(crate) struct Crew {
    name: String,
    /// Closed when the last thread has ended. In a mutex only to be `Sync`.
    ended: Mutex<Receiver<()>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = self.room.available_permits();
        f.debug_struct("Lane")
            .field("name", &self.name)
            .field("free", &free)
            .finish_non_exhaustive()
    }
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
        let queue = Arc::<Queue>::default();
        let served = queue.clone();
        let crew = Crew::start(name, threads, urgency, move || serve(&served));
        // Those that have started wait for jobs.
        let crew = crew.inspect_err(|_error| queue.close())?;
        let room = Arc::new(Semaphore::new(depth));
        Ok(Self { name: name.to_owned(), room, queue, _crew: crew })
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
        self.queue.push(job, room);
        let panicked = |_dropped| Error::internal(format!("a job of {} panicked", self.name));
        answered.await.map_err(panicked)?
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.queue.close();
    }
}

/// Runs jobs until the queue is closed.
fn serve(queue: &Queue) {
    while let Some(job) = queue.pop() {
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a job panicked; its caller gets an error. Please report this");
        }
    }
}

/// Drops `thing` on a thread of its own: what is closed with it may hang on a device that does not answer.
pub fn drop_apart(thing: impl Send + 'static) {
    let dropping = thread::Builder::new().name("closing".into()).spawn(move || drop(thing));
    if let Err(error) = dropping {
        // The closure, and with it the thing, is dropped in this thread: slower, and right.
        tracing::warn!(%error, "no thread to close files with");
    }
}

impl Crew {
    /// So many threads with this name that run `body` once.
    ///
    /// Error: a thread could not be started.
    pub(crate) fn start(
        name: &str,
        threads: usize,
        urgency: Urgency,
        body: impl Fn() + Clone + Send + 'static,
    ) -> Result<Self> {
        // Tells, by being dropped, that a thread has ended.
        let (alive, ended) = channel::<()>();
        let thread = |number: usize| {
            let (body, alive) = (body.clone(), alive.clone());
            thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || {
                    let _alive = alive;
                    urgency.adopt();
                    body();
                })
                .map_err(|error| Error::from_io(format!("start thread {number} of {name}"), error))
        };
        let threads = (0..threads).map(thread).collect::<Result<Vec<_>>>()?;
        Ok(Self { name: name.to_owned(), ended: Mutex::new(ended), threads })
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let own = thread::current().id();
        // The last owner may let go inside one of them: it cannot wait for itself.
        let inside = self.threads.iter().any(|thread| thread.thread().id() == own);
        if !inside && ended.recv_timeout(DROP_WAIT) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!(name = self.name, "a thread hangs; leaving it behind");
            return;
        }
        for thread in self.threads.drain(..).filter(|_thread| !inside) {
            // What it panicked with was logged.
            drop(thread.join());
        }
    }
}
