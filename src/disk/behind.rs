//! A file whose calls run on a thread of its own: whoever writes goes on at once, and a device that does not answer
//! holds nobody up for longer than a deadline. Knows nothing of what the file holds.
//!
//! All calls run one after the other, in the order in which they came. A write that fails is told by all later calls,
//! the sync that was to make it durable among them; so does a device that was silent, even if it answers again: what
//! waited for it is dropped, and the file is to be opened anew.

use crate::disk::DiskFile;
use crate::error::{Error, Result};
use crate::lane::{Crew, Urgency, drop_apart};
use crate::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use crate::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// Most bytes that wait to be written; who writes more waits.
const QUEUE_BYTES: usize = 8 << 20;
/// Most calls that wait.
const QUEUE_CALLS: usize = if cfg!(feature = "shuttle") { 2 } else { 4096 };
/// How long writes gather before the thread is at them: waking it for each page would cost more than the page.
const LINGER: Duration = Duration::from_millis(5);
/// Waiting bytes at which it gathers no more.
const GATHERED_BYTES: usize = 256 << 10;
/// Most that is written in one call.
const BATCH_BYTES: usize = 1 << 20;
const BATCH_CALLS: usize = 256;

/// A file with a thread.
#[derive(Debug)]
pub struct BehindFile {
    shared: Arc<Shared>,
    /// Waited for, but not for ever, when the file is dropped.
    crew: Option<Crew>,
}

#[derive(Debug)]
struct Shared {
    file: Arc<dyn DiskFile>,
    /// How long one call may take.
    silent: Duration,
    state: Mutex<State>,
    /// There is something to do.
    work: Condvar,
    /// There is room again, or there never will be.
    room: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Call>,
    /// Bytes of `waiting` and of what runs.
    bytes: usize,
    running: Option<Running>,
    /// Somebody waits for an answer.
    asked: bool,
    failed: Option<Error>,
    closed: bool,
}

struct Running {
    /// Where it writes.
    writes: Vec<Range<u64>>,
    since: Instant,
}

/// A call whose answer somebody waits for.
type Question = Box<dyn FnOnce(&dyn DiskFile) + Send>;

enum Call {
    Write { offset: u64, data: Bytes },
    Ask(Question),
}

/// What the thread does at once.
enum Work {
    /// Writes that followed each other, with their offsets.
    Writes(Vec<(u64, Bytes)>),
    Answer(Question),
}

impl BehindFile {
    /// A thread named `name` for `file`. A call that takes longer than `silent` fails, and all that follow.
    ///
    /// Error: the thread could not be started.
    pub fn start(name: &str, file: Arc<dyn DiskFile>, silent: Duration) -> Result<Self> {
        let shared = Arc::new(Shared {
            file,
            silent,
            state: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
        });
        let served = shared.clone();
        let crew = Crew::start(name, 1, Urgency::Foreground, move || served.serve())?;
        Ok(Self { shared, crew: Some(crew) })
    }
}

impl Drop for BehindFile {
    /// What waits was not synced, so it was promised to nobody.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        state.waiting.clear();
        self.shared.work.notify_all();
        if state.failed.is_some() {
            // Its device may hang still: nobody waits for it here.
            self.crew.take().into_iter().for_each(drop_apart);
        }
    }
}

impl DiskFile for BehindFile {
    fn len(&self) -> Result<u64> {
        self.shared.ask(|file| file.len())
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let end = offset.saturating_add(buffer.len() as u64);
        if self.shared.holds_nothing_of(&(offset..end))?
            && self.shared.file.read_now(offset, buffer)
        {
            return Ok(());
        }
        let bytes = self.shared.ask(read_of(offset, buffer.len()))?;
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    fn read_soon(&self, offset: u64, buffer: &mut [u8], patience: Duration) -> Result<bool> {
        let end = offset.saturating_add(buffer.len() as u64);
        if self.shared.holds_nothing_of(&(offset..end))?
            && self.shared.file.read_now(offset, buffer)
        {
            return Ok(true);
        }
        let answered = self.shared.question(read_of(offset, buffer.len()))?;
        match answered.recv_timeout(patience) {
            Ok(bytes) => buffer.copy_from_slice(&bytes?),
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => return Err(self.shared.lock().failure()),
        }
        Ok(true)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.shared.push(Call::Write { offset, data: Bytes::copy_from_slice(data) })
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.shared.ask(move |file| file.set_len(length))
    }

    fn sync_data(&self) -> Result<()> {
        self.shared.ask(|file| file.sync_data())
    }
}

/// Reads `length` bytes of a file.
fn read_of(
    offset: u64,
    length: usize,
) -> impl FnOnce(&dyn DiskFile) -> Result<Vec<u8>> + Send + 'static {
    move |file| {
        let mut bytes = vec![0; length];
        file.read(offset, &mut bytes).map(|()| bytes)
    }
}

impl Shared {
    /// Has the thread do `job` behind all that waits, and waits for the answer.
    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&dyn DiskFile) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let answered = self.question(job)?;
        loop {
            let patience = self.lock().patience(self.silent);
            match answered.recv_timeout(patience) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Timeout) => drop(self.heed_silence(self.lock())?),
                Err(RecvTimeoutError::Disconnected) => return Err(self.lock().failure()),
            }
        }
    }

    /// Has the thread do `job` behind all that waits; the answer comes here.
    fn question<T: Send + 'static>(
        &self,
        job: impl FnOnce(&dyn DiskFile) -> Result<T> + Send + 'static,
    ) -> Result<Receiver<Result<T>>> {
        let (answer, answered) = sync_channel(1);
        self.push(Call::Ask(Box::new(move |file| {
            // Nobody listens any more if the device was silent for too long.
            drop(answer.send(job(file)));
        })))?;
        Ok(answered)
    }

    fn push(&self, call: Call) -> Result<()> {
        let mut state = self.lock();
        while state.failed.is_none()
            && (state.bytes >= QUEUE_BYTES || state.waiting.len() >= QUEUE_CALLS)
        {
            let patience = state.patience(self.silent);
            let waited = self.room.wait_timeout(state, patience);
            state = self.heed_silence(waited.unwrap_or_else(PoisonError::into_inner).0)?;
        }
        if state.failed.is_some() {
            return Err(state.failure());
        }
        let (idle, rushed) = (state.waiting.is_empty(), state.is_rushed());
        state.bytes += call.bytes();
        state.asked |= matches!(call, Call::Ask(_));
        state.waiting.push_back(call);
        if idle || state.is_rushed() != rushed {
            self.work.notify_one();
        }
        Ok(())
    }

    /// Whether no write that `range` meets waits.
    fn holds_nothing_of(&self, range: &Range<u64>) -> Result<bool> {
        let state = self.lock();
        if state.failed.is_some() {
            return Err(state.failure());
        }
        let meets = |other: &Range<u64>| other.start < range.end && range.start < other.end;
        let running =
            state.running.as_ref().is_some_and(|running| running.writes.iter().any(meets));
        Ok(!running && !state.waiting.iter().any(|call| meets(&call.writes())))
    }

    /// Gives the file up if its device has not answered for too long.
    fn heed_silence<'s>(
        &'s self,
        mut state: MutexGuard<'s, State>,
    ) -> Result<MutexGuard<'s, State>> {
        let running = state.running.as_ref().map(|running| running.since.elapsed());
        if running.is_some_and(|elapsed| elapsed >= self.silent) {
            let silent = self.silent;
            self.give_up(&mut state, Error::unavailable(format!("no answer for {silent:?}")));
            return Err(state.failure());
        }
        Ok(state)
    }

    fn give_up(&self, state: &mut State, error: Error) {
        state.failed.get_or_insert(error);
        // Whoever waits for one of these learns it by its being dropped.
        state.waiting.clear();
        state.bytes = 0;
        self.room.notify_all();
    }

    /// What the thread does until the file is closed.
    fn serve(&self) {
        while let Some(work) = self.next() {
            let bytes = work.bytes();
            let result = match work {
                Work::Writes(parts) => self.file.write_many(parts),
                Work::Answer(job) => {
                    job(&*self.file);
                    Ok(())
                }
            };
            let mut state = self.lock();
            state.running = None;
            state.bytes = state.bytes.saturating_sub(bytes);
            match result {
                Ok(()) => self.room.notify_all(),
                Err(error) => self.give_up(&mut state, error),
            }
        }
    }

    fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if state.waiting.is_empty() {
                state.asked = false;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                let gather = |state: &mut State| !state.closed && !state.is_rushed();
                let gathered = self.work.wait_timeout_while(state, LINGER, gather);
                state = gathered.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let work = state.take_work()?;
            let writes = match &work {
                Work::Writes(parts) => parts.iter().map(range_of).collect(),
                Work::Answer(_) => Vec::new(),
            };
            state.running = Some(Running { writes, since: Instant::now() });
            return Some(work);
        }
    }

    // A state is changed in steps that leave it whole: a poisoned lock is good.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether the thread should be at work now.
    fn is_rushed(&self) -> bool {
        self.asked || self.bytes >= GATHERED_BYTES || self.waiting.len() >= QUEUE_CALLS
    }

    /// The first call that waits or, if it writes, all writes that follow it, up to `BATCH_BYTES`.
    fn take_work(&mut self) -> Option<Work> {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        while let Some(call) = self.waiting.pop_front() {
            match call {
                Call::Write { offset, data }
                    if parts.len() < BATCH_CALLS
                        && (parts.is_empty() || bytes + data.len() <= BATCH_BYTES) =>
                {
                    bytes += data.len();
                    parts.push((offset, data));
                }
                Call::Ask(job) if parts.is_empty() => return Some(Work::Answer(job)),
                other => {
                    self.waiting.push_front(other);
                    break;
                }
            }
        }
        (!parts.is_empty()).then_some(Work::Writes(parts))
    }

    /// How long to wait before the device may be called silent.
    fn patience(&self, silent: Duration) -> Duration {
        let elapsed = self.running.as_ref().map(|running| running.since.elapsed());
        // The least wait there is: an answer may be on its way.
        silent.saturating_sub(elapsed.unwrap_or_default()).max(Duration::from_millis(1))
    }

    fn failure(&self) -> Error {
        self.failed.clone().unwrap_or_else(|| Error::internal("the thread of a file has ended"))
    }
}

impl Call {
    fn bytes(&self) -> usize {
        match self {
            Self::Write { data, .. } => data.len(),
            Self::Ask(_) => 0,
        }
    }

    fn writes(&self) -> Range<u64> {
        match self {
            Self::Write { offset, data } => *offset..offset.saturating_add(data.len() as u64),
            Self::Ask(_) => 0..0,
        }
    }
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Self::Writes(parts) => parts.iter().map(|(_offset, data)| data.len()).sum(),
            Self::Answer(_) => 0,
        }
    }
}

fn range_of((offset, data): &(u64, Bytes)) -> Range<u64> {
    *offset..offset.saturating_add(data.len() as u64)
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let calls = self.waiting.len();
        f.debug_struct("State")
            .field("calls", &calls)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
