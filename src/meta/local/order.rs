//! The order of commands, and the state that they are applied to. One job at a time changes the state.

use super::state::{attach, open_mirror, replay};
use super::{read_only, rounds};
use crate::disk::mirror::{MirrorFile, OnDead};
use crate::disk::queue::DiskQueue;
use crate::disk::set::DiskSet;
use crate::disk::superblock::{LogMember, MemberList};
use crate::error::{Error, Result};
use crate::meta::Reply;
use crate::meta::changes::Changes;
use crate::meta::command::Command;
use crate::meta::recover::OpenOptions;
use crate::meta::store::Store;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use crate::types::{DiskId, LogPosition, VolumeId};
use bytes::Bytes;
use std::collections::VecDeque;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

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
    /// Is told of copies of the state that die.
    pub(crate) deaths: Deaths,
    /// Position at which the copies of the state are durable.
    pub(crate) checkpointed: LogPosition,
    /// Commands from there on.
    pub(crate) recent: VecDeque<Bytes>,
    /// Why nothing may be changed.
    pub(crate) stopped: Option<String>,
}

/// The state in use.
#[derive(Clone, Debug)]
pub(crate) struct StateHandle {
    /// redb and what is in it.
    pub(crate) store: Arc<Store>,
    /// The file below; none if the state is a private overlay.
    pub(crate) mirror: Option<MirrorFile>,
}

/// Copies of the state that died and have not been dealt with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Deaths(Arc<Mutex<Vec<DiskId>>>);

impl Deaths {
    /// What a mirror calls.
    pub(crate) fn listener(&self, disks: Arc<DiskSet>) -> OnDead {
        let list = self.clone();
        Arc::new(move |disk, error| {
            tracing::warn!(disk = disk.get(), %error, "a copy of the metadata is lost; it is made anew");
            disks.report(disk, error);
            list.lock().push(disk);
        })
    }

    /// Those so far.
    pub(super) fn take(&self) -> Vec<DiskId> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DiskId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    pub(super) deaths: Deaths,
    /// Why changes wait, while they do.
    pub(super) waits: watch::Sender<Option<String>>,
    pub(super) changes: Changes,
    waiting: Mutex<Vec<Proposal>>,
    order: Mutex<Order>,
    state: RwLock<StateHandle>,
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
            deaths: start.deaths,
            waits: watch::channel(None).0,
            changes: Changes::default(),
            waiting: Mutex::new(Vec::new()),
            order: Mutex::new(order),
            state: RwLock::new(start.state),
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
        let error = match self.store().apply(first, commands) {
            Ok(replies) => return Ok(replies),
            Err(error) => error,
        };
        if self.recover_state(&error)? {
            let again = self.store().apply(first, commands);
            return again.inspect_err(|error| self.stop(&format!("apply commands: {error}")));
        }
        self.stop(&format!("apply commands: {error}"));
        Err(read_only(&error.to_string()))
    }

    /// If the state was lost with its last copy in use, opens another copy and replays the log on it. Answers
    /// whether it did; an error means that the log has stopped.
    pub(super) fn recover_state(&self, error: &Error) -> Result<bool> {
        let lost = |mirror: &MirrorFile| mirror.replicas().iter().all(|(_disk, alive)| !alive);
        let handle = self.state();
        if !handle.mirror.as_ref().is_some_and(lost) {
            return Ok(false);
        }
        tracing::error!(%error, "all copies of the metadata in use failed; opening one anew");
        if let Some(mirror) = &handle.mirror {
            mirror.fence();
        }
        let log = self.members.borrow().log.clone();
        let mut away = false;
        for member in &log {
            match self.reopen(member.disk, &log) {
                Ok((state, used)) => {
                    *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
                    // The others are made anew as copies of these.
                    let mut deaths = self.deaths.lock();
                    deaths.clear();
                    deaths.extend(log.iter().map(|m| m.disk).filter(|disk| !used.contains(disk)));
                    return Ok(true);
                }
                Err(error) => {
                    away |= self.disks.get(member.disk).is_none();
                    tracing::warn!(disk = member.disk.get(), %error, "this copy does not open");
                }
            }
        }
        if away {
            return Err(self.pause("the disks with the metadata are away"));
        }
        self.stop(&format!("no copy of the metadata can be opened: {error}"));
        Err(read_only("no copy of the metadata can be opened"))
    }

    /// The copy on `disk` and those of `log` that are equal to it, with all that was applied.
    fn reopen(&self, disk: DiskId, log: &[LogMember]) -> Result<(StateHandle, Vec<DiskId>)> {
        let handle = self.disks.get(disk);
        let handle = handle.ok_or_else(|| Error::unavailable("the disk is down"))?;
        let mirror = open_mirror(&handle, self.deaths.listener(self.disks.clone()))?;
        let mut used = vec![disk];
        let others = log.iter().filter(|member| member.disk != disk);
        for other in others.filter_map(|member| self.disks.get(member.disk)) {
            match attach(&mirror, &other) {
                Ok(true) => used.push(other.id),
                Ok(false) => {}
                Err(error) => drop(self.disks.report(other.id, &error)),
            }
        }
        let opened = Store::open(mirror.clone(), self.options.cache_bytes).and_then(|store| {
            let at = store.applied();
            let order = self.order();
            if at < order.first || at > position(&self.applied) {
                return Err(Error::corrupt(format!("it is at {at}, not in the recent log")));
            }
            replay(&store, at, order.from(at).iter())?;
            Ok(store)
        });
        if opened.is_err() {
            mirror.fence();
        }
        Ok((StateHandle { store: Arc::new(opened?), mirror: Some(mirror) }, used))
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
