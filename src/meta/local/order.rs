//! The order of commands, and the state that they are applied to. One job at a time changes the state.

use super::reopen::Growth;
use super::state::StateHandle;
use super::{read_only, rounds};
use crate::disk::queue::DiskQueue;
use crate::disk::set::DiskSet;
use crate::disk::superblock::MemberList;
use crate::error::{Error, Result};
use crate::meta::Reply;
use crate::meta::changes::Changes;
use crate::meta::command::Command;
use crate::meta::recover::OpenOptions;
use crate::meta::store::Store;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use crate::types::{LogPosition, VolumeId};
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// How often the state is opened anew for one change: copies may fail for one reason after another.
const RECOVERIES_MAX: usize = 3;

/// Commands that the log may hold while the copies of the state have no room, before it takes only what frees some: there is
/// not much room for the log either.
const IN_MEMORY_LOG_MAX: u64 = 4 << 20;
/// ... and before it takes nothing any more.
const IN_MEMORY_FREEING_MAX: u64 = 64 << 20;
/// Pages of the state that are kept in memory at most.
const IN_MEMORY_BYTES_MAX: u64 = 1 << 30;

/// What recovery hands over.
#[derive(Debug)]
pub(crate) struct Start {
    /// Identity of the volume.
    pub(crate) volume: VolumeId,
    /// Name of the volume.
    pub(crate) name: String,
    /// All disks.
    pub(crate) disks: Arc<DiskSet>,
    /// The list found.
    pub(crate) members: MemberList,
    /// Where commands are applied.
    pub(crate) queue: DiskQueue,
    /// Sizes.
    pub(crate) options: OpenOptions,
    /// The state with all of `recent` applied.
    pub(crate) state: StateHandle,
    /// Position at which the copies of the state are durable.
    pub(crate) checkpointed: LogPosition,
    /// Commands from there on.
    pub(crate) recent: VecDeque<Bytes>,
    /// Why nothing may be changed.
    pub(crate) stopped: Option<String>,
}

/// Commands that wait to be applied.
#[derive(Debug)]
pub(super) struct Proposal {
    pub(super) commands: Vec<Command>,
    pub(super) encoded: Vec<Bytes>,
    pub(super) answer: Answerer,
    /// It met an outage. If its proposer goes away before it is applied, it never is.
    pub(super) deferred: bool,
}

/// Whom the replies and the position behind the last command go to.
type Answerer = oneshot::Sender<Result<(Vec<Reply>, LogPosition)>>;

/// Everything that is applied and not yet in a durable state, in order.
#[derive(Debug)]
pub(super) struct Order {
    /// Position of the first of `recent`.
    pub(super) first: LogPosition,
    pub(super) recent: VecDeque<Bytes>,
    /// Bytes of `recent`.
    pub(super) recent_bytes: u64,
    /// Bytes that no round has taken.
    pub(super) pending_bytes: usize,
    /// When the oldest of them came.
    pub(super) pending_since: Option<Instant>,
}

/// All that the log's jobs share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) volume: VolumeId,
    pub(super) name: String,
    pub(super) disks: Arc<DiskSet>,
    pub(super) members: watch::Sender<MemberList>,
    pub(super) queue: DiskQueue,
    pub(super) options: OpenOptions,
    pub(super) side: tokio::sync::Mutex<rounds::Side>,
    pub(super) gate: Arc<tokio::sync::Mutex<()>>,
    pub(super) applied: AtomicU64,
    pub(super) durable: AtomicU64,
    pub(super) checkpointed: AtomicU64,
    /// Checkpoints since the start.
    pub(super) checkpoints: AtomicU64,
    /// Why changes wait, while they do.
    pub(super) waits: watch::Sender<Option<String>>,
    pub(super) changes: Changes,
    waiting: Mutex<Vec<Proposal>>,
    order: Mutex<Order>,
    /// The copies of the state can hardly grow any more.
    tight: AtomicBool,
    growth: Mutex<Growth>,
    state: RwLock<StateHandle>,
    /// What was in use before: views of it are read to their end, for a while.
    previous: Mutex<Option<StateHandle>>,
    stopped: Mutex<Option<String>>,
}

impl Order {
    /// Commands from `position` on.
    pub(super) fn from(&self, position: LogPosition) -> Vec<Bytes> {
        let skip = usize::try_from(position.get().saturating_sub(self.first.get()));
        self.recent.iter().skip(skip.unwrap_or(usize::MAX)).cloned().collect()
    }

    /// Forgets commands before `position`: a durable state holds them.
    pub(super) fn forget(&mut self, position: LogPosition) {
        while self.first < position
            && let Some(bytes) = self.recent.pop_front()
        {
            self.recent_bytes -= bytes.len() as u64;
            self.first = self.first.advance(1);
        }
    }

    fn push(&mut self, commands: Vec<Bytes>) {
        for bytes in commands {
            self.recent_bytes += bytes.len() as u64;
            self.pending_bytes += bytes.len();
            self.recent.push_back(bytes);
        }
        self.pending_since.get_or_insert_with(Instant::now);
    }
}

impl Shared {
    pub(super) fn new(start: Start) -> Self {
        let applied = start.checkpointed.advance(start.recent.len() as u64).get();
        let recent_bytes = start.recent.iter().map(|bytes| bytes.len() as u64).sum();
        let order = Order {
            first: start.checkpointed,
            recent: start.recent,
            recent_bytes,
            pending_bytes: 0,
            pending_since: None,
        };
        Self {
            side: tokio::sync::Mutex::new(rounds::Side::new(start.volume, start.members.epoch)),
            volume: start.volume,
            name: start.name,
            disks: start.disks,
            members: watch::channel(start.members).0,
            queue: start.queue,
            options: start.options,
            gate: Arc::default(),
            applied: AtomicU64::new(applied),
            durable: AtomicU64::new(applied),
            checkpointed: AtomicU64::new(start.checkpointed.get()),
            checkpoints: AtomicU64::new(0),
            waits: watch::channel(None).0,
            changes: Changes::default(),
            waiting: Mutex::new(Vec::new()),
            order: Mutex::new(order),
            tight: AtomicBool::new(false),
            growth: Mutex::default(),
            state: RwLock::new(start.state),
            previous: Mutex::new(None),
            stopped: Mutex::new(start.stopped),
        }
    }

    pub(super) fn submit(&self, proposal: Proposal) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(proposal);
    }

    /// Whether proposers have to wait for a round.
    pub(super) fn is_full(&self) -> bool {
        self.order().pending_bytes > self.options.buffer_bytes
    }

    /// Applies all that waits in one transaction, and answers. The caller has the gate.
    pub(super) fn apply_waiting(&self) {
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let (mut commands, mut encoded, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        let wanted = |proposal: &Proposal| !proposal.deferred || !proposal.answer.is_closed();
        for proposal in waiting.into_iter().filter(wanted) {
            answers.push((proposal.commands.len(), proposal.answer));
            commands.extend(proposal.commands);
            encoded.extend(proposal.encoded);
        }
        if answers.is_empty() {
            return;
        }
        let first = position(&self.applied);
        let mut replies = match self.apply(first, &commands) {
            Ok(replies) if replies.len() == commands.len() => replies.into_iter(),
            Ok(replies) => {
                let reason = format!("{} replies to {} commands", replies.len(), commands.len());
                self.stop(&reason);
                return refuse(answers, &Error::internal(reason));
            }
            Err(_waiting) if self.is_paused() => return self.defer(answers, commands, encoded),
            Err(error) => return refuse(answers, &error),
        };
        commands.iter().for_each(|command| self.changes.note(command));
        self.order().push(encoded);
        self.applied.store(first.advance(commands.len() as u64).get(), Ordering::SeqCst);
        let mut end = first;
        for (count, answer) in answers {
            end = end.advance(count as u64);
            let replies = replies.by_ref().take(count).collect();
            // A proposer that is gone has its command applied all the same.
            drop(answer.send(Ok((replies, end))));
        }
    }

    /// Puts back what cannot be applied before disks are back.
    fn defer(
        &self,
        answers: Vec<(usize, Answerer)>,
        mut commands: Vec<Command>,
        mut encoded: Vec<Bytes>,
    ) {
        let mut deferred = Vec::with_capacity(answers.len());
        for (count, answer) in answers {
            let (commands, encoded) =
                (commands.drain(..count).collect(), encoded.drain(..count).collect());
            deferred.push(Proposal { commands, encoded, answer, deferred: true });
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        deferred.append(&mut waiting);
        *waiting = deferred;
    }

    /// Whether something waits to be applied.
    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    fn apply(&self, first: LogPosition, commands: &[Command]) -> Result<Vec<Reply>> {
        self.check_running()?;
        let mut applied = self.store().apply(first, commands);
        for attempt in 0..RECOVERIES_MAX {
            match &applied {
                Err(error) if self.recover_state(error, attempt == 0)? => {}
                Ok(_) | Err(_) => break,
            }
            applied = self.store().apply(first, commands);
        }
        applied.map_err(|error| {
            self.stop(&format!("apply commands: {error}"));
            read_only(&error.to_string())
        })
    }

    /// Ends all changes, because of `reason`. What is not durable by now never becomes so; whoever waits for disks learns
    /// it at once.
    pub(super) fn stop(&self, reason: &str) {
        self.fence();
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        if stopped.is_none() {
            tracing::error!(reason, "the metadata log has stopped; the volume is read-only now");
            *stopped = Some(reason.to_owned());
        }
        drop(stopped);
        self.end_waits(reason);
    }

    /// Answers whoever waits in an outage: what it waits for does not come.
    fn end_waits(&self, reason: &str) {
        self.waits.send_replace(None);
        let waiting =
            std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let answers = waiting.into_iter().map(|proposal| (0, proposal.answer));
        refuse(answers.collect(), &read_only(reason));
    }

    pub(super) fn fence(&self) {
        if let Some(mirror) = self.state().mirror {
            mirror.fence();
        }
    }

    pub(super) fn close(&self) {
        self.fence();
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(String::from("it was closed"));
        self.end_waits("it was closed");
    }

    pub(super) fn stopped(&self) -> Option<String> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn check_running(&self) -> Result<()> {
        match self.stopped() {
            Some(reason) => Err(read_only(&reason)),
            None => Ok(()),
        }
    }

    pub(super) fn order(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> StateHandle {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is in use from now on.
    pub(super) fn set_state(&self, state: StateHandle) {
        let before = std::mem::replace(
            &mut *self.state.write().unwrap_or_else(PoisonError::into_inner),
            state,
        );
        self.set_previous(Some(before));
    }

    /// Closes what was in use before, or keeps this in its place.
    pub(super) fn set_previous(&self, state: Option<StateHandle>) {
        let mut previous = self.previous.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *previous, state);
        drop(previous);
        drop(before);
    }

    /// Whether there is room for what `commands` add to the state. While it is in memory, the log is not trimmed: it
    /// takes less and less.
    pub(super) fn has_room_for(&self, commands: &[Command]) -> bool {
        let overlay = self.state().overlay;
        let adds = || commands.iter().any(Command::adds);
        let frees = || commands.iter().all(Command::frees);
        match overlay {
            None => !(self.tight.load(Ordering::SeqCst) && adds()),
            Some(overlay) => {
                let recent = self.order().recent_bytes;
                let much = recent > IN_MEMORY_FREEING_MAX || overlay.bytes() > IN_MEMORY_BYTES_MAX;
                let starts = || commands.iter().all(|it| matches!(it, Command::StartMount { .. }));
                !adds() && (recent <= IN_MEMORY_LOG_MAX || frees()) && !much || starts()
            }
        }
    }

    /// Whether there will be room soon, because the state is being moved to other disks.
    pub(super) fn makes_room(&self) -> bool {
        self.state().overlay.is_some() && !self.growth().failed && self.can_grow()
    }

    /// Whether only what takes something away is accepted, for want of room for the state.
    pub(super) fn is_cramped(&self) -> bool {
        self.tight.load(Ordering::SeqCst) || self.state().overlay.is_some()
    }

    /// The state as it will be soon.
    pub(super) fn growth(&self) -> Growth {
        *self.growth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_growth(&self, growth: Growth) {
        *self.growth.lock().unwrap_or_else(PoisonError::into_inner) = growth;
    }

    /// Whether the copies can hardly grow any more.
    pub(super) fn set_tight(&self, tight: bool) {
        if self.tight.swap(tight, Ordering::SeqCst) != tight && tight {
            tracing::warn!(
                "the disks with the metadata have hardly any room for more of it: nothing new is accepted"
            );
        }
    }

    pub(super) fn store(&self) -> Arc<Store> {
        self.state().store
    }
}

/// The position in `cell`.
pub(super) fn position(cell: &AtomicU64) -> LogPosition {
    LogPosition(cell.load(Ordering::SeqCst))
}

fn refuse(answers: Vec<(usize, Answerer)>, error: &Error) {
    for (_count, answer) in answers {
        drop(answer.send(Err(error.clone())));
    }
}
