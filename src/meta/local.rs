//! The log of an embedded volume: orders, applies and makes durable in this process. Knows nothing of FUSE, stripes
//! or the network.
//!
//! Commands are encoded, applied by one job at a time, and kept in memory until the state is durable behind them.
//! A *round* takes what was applied since the last one and appends it on all log disks at once. The member list names
//! only disks that are complete: a disk joins by getting a copy of the state and the log from there, and is named
//! after that. So every list can be recovered from by itself.
//!
//! Locks, in this order: `side` (durability and members), `gate` (whoever changes the state), `order` and `state`
//! (short, never across a wait).

use crate::config::labels::Labels;
use crate::disk::set::DiskHandle;
use crate::disk::superblock::{Member, MemberList, MemberState};
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::limits::COMMAND_BYTES_MAX;
use crate::meta::changes::Changes;
use crate::meta::client::Views;
use crate::meta::command::{Command, Inode};
use crate::meta::store::{Store, Totals, View};
use crate::meta::{Log, Reply};
use crate::sync::atomic::Ordering;
use crate::types::{DiskId, Epoch, Ino, LogPosition};
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

mod members;
mod order;
mod outage;
mod reopen;
mod rounds;
pub mod state;
#[cfg(test)]
mod tests;

pub(crate) use order::Start;

use order::{Proposal, Shared, position};

/// How often a reader tries again while the state is opened anew.
const READ_ATTEMPTS: usize = 200;
/// How often one reader opens the state anew.
const REOPENED_MAX: u32 = 1;
/// How often it is looked whether the state has room again.
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// The ordered log of an embedded volume and the state that it is applied to.
#[derive(Debug)]
pub struct LocalLog {
    shared: Arc<Shared>,
    /// Rounds and ticks run to their end even if their caller goes away.
    tasks: TaskTracker,
}

/// Figures for `status` and metrics.
#[derive(Clone, Debug, Default)]
pub struct LogStatus {
    /// Everything before is applied.
    pub applied: LogPosition,
    /// Everything before is durable.
    pub durable: LogPosition,
    /// The state is durable up to here.
    pub checkpointed: LogPosition,
    /// Checkpoints since the mount.
    pub checkpoints: u64,
    /// Disks that keep the log and a complete state.
    pub disks: Vec<DiskId>,
    /// Disks that should: 1 + tolerance, or all that are healthy.
    pub wanted: usize,
    /// Why nothing can be changed any more.
    pub read_only: Option<String>,
    /// Why changes wait for now.
    pub waiting: Option<String>,
    /// Whether the disks have hardly any room for more metadata: nothing new is accepted.
    pub cramped: bool,
    /// Whether they have none, and what changes is in the log and in memory only.
    pub in_memory: bool,
}

impl LocalLog {
    /// The log that recovery has prepared. No disk has it yet: `begin` does that.
    pub(crate) fn new(start: Start) -> Self {
        Self { shared: Arc::new(Shared::new(start)), tasks: TaskTracker::new() }
    }

    /// Begins a new chain on `preferred` disks and others until enough have the log and the state, and puts `list`
    /// in force with them. Everything recovered is durable under the new epoch then.
    pub(crate) async fn begin(
        &self,
        list: MemberList,
        preferred: Vec<DiskId>,
        old: Epoch,
    ) -> Result<()> {
        let shared = self.shared.clone();
        self.detached(async move { shared.begin(list, preferred, old).await }).await
    }

    /// The member list in force.
    pub fn members(&self) -> MemberList {
        self.shared.members.borrow().clone()
    }

    /// Tells each new epoch.
    pub fn epochs(&self) -> watch::Receiver<MemberList> {
        self.shared.members.subscribe()
    }

    /// Epoch of the member list in force.
    pub fn epoch(&self) -> Epoch {
        self.shared.members.borrow().epoch
    }

    /// Records the state of a disk in the member list. Durable on return. May be cancelled: it goes on.
    ///
    /// Errors: `Refused` if there is no such disk; `ReadOnly` if the log has stopped.
    pub async fn set_disk_state(&self, disk: DiskId, state: MemberState) -> Result<()> {
        let shared = self.shared.clone();
        self.detached(async move { shared.set_disk_state(disk, state).await }).await
    }

    /// Gives a disk other labels, by which the next stripes are placed. Durable on return. May be cancelled: it goes on.
    ///
    /// Errors: `Refused` if there is no such disk, or the labels are too long; `ReadOnly` if the log has stopped.
    pub async fn set_disk_labels(&self, disk: DiskId, labels: Labels) -> Result<()> {
        let shared = self.shared.clone();
        self.detached(async move { shared.set_disk_labels(disk, labels).await }).await
    }

    /// Records where nodes are (`host:port`, by name); others stay where they are. Durable on return. May be cancelled: it
    /// goes on.
    ///
    /// Errors: `Refused` if they do not fit; `ReadOnly` if the log has stopped.
    pub async fn set_addresses(&self, addresses: BTreeMap<String, String>) -> Result<()> {
        let shared = self.shared.clone();
        self.detached(async move { shared.set_addresses(addresses).await }).await
    }

    /// Takes an empty, locked disk into the volume: `handle` and what the list says of it. Durable on return. May be
    /// cancelled: it goes on.
    ///
    /// Errors: `Refused` if its number is taken; `ReadOnly` if the log has stopped.
    pub async fn add_disk(&self, handle: Arc<DiskHandle>, member: Member) -> Result<()> {
        let shared = self.shared.clone();
        self.detached(async move { shared.add_disk(handle, member).await }).await
    }

    /// Figures for people.
    pub fn status(&self) -> LogStatus {
        let list = self.shared.members.borrow().clone();
        LogStatus {
            applied: self.applied(),
            durable: self.durable(),
            checkpointed: position(&self.shared.checkpointed),
            checkpoints: self.shared.checkpoints.load(Ordering::Relaxed),
            disks: list.log.iter().map(|member| member.disk).collect(),
            wanted: self.shared.wanted(&list),
            read_only: self.shared.stopped(),
            waiting: self.shared.paused(),
            cramped: self.shared.is_cramped(),
            in_memory: self.shared.state().overlay.is_some(),
        }
    }

    /// Does what is due: flush, checkpoint, trim, member changes, copies of the state. Called every 100 ms by a
    /// task of the volume. May be cancelled: it goes on.
    pub async fn tick(&self) -> Result<()> {
        if self.shared.stopped().is_some() {
            return Ok(());
        }
        let shared = self.shared.clone();
        self.detached(async move { shared.tick().await }).await?;
        if self.shared.has_waiting() {
            // What an outage has put off; others are at it already otherwise.
            self.apply_waiting(self.enter().await).await?;
        }
        Ok(())
    }

    /// Copies the state to further disks until as many keep the log as should, or none is left that could. Answers
    /// whether there are enough. May be cancelled: it goes on.
    pub async fn restore_copies(&self) -> Result<bool> {
        self.shared.check_running()?;
        let shared = self.shared.clone();
        self.detached(async move { shared.restore_copies().await }).await
    }

    /// Makes the state durable as it is now. May be cancelled: it goes on.
    pub async fn checkpoint(&self) -> Result<()> {
        self.shared.check_running()?;
        let shared = self.shared.clone();
        self.detached(async move { shared.checkpoint_now().await }).await
    }

    /// Syncs, checkpoints and closes. Later calls answer `ReadOnly`.
    pub async fn shutdown(&self) -> Result<()> {
        if self.shared.stopped().is_some() {
            return self.sync().await;
        }
        let shared = self.shared.clone();
        self.detached(async move { shared.shutdown().await }).await
    }

    /// Runs `work` to its end, whatever becomes of the caller. It begins here: what it hands to the threads of disks
    /// goes there without waking another thread first.
    async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let mut work = Box::pin(work);
        if let Poll::Ready(answer) = futures_util::poll!(&mut work) {
            return answer;
        }
        if cfg!(feature = "shuttle") {
            // There no caller goes away, and no runtime is there to hand work to.
            return work.await;
        }
        let ended = |error| Error::with_source(ErrorKind::Internal, "run a task of the log", error);
        self.tasks.spawn(work).await.map_err(ended)?
    }

    /// The right to change the state, for whoever has the answer.
    async fn enter(&self) -> Gate {
        self.shared.gate.clone().lock_owned().await
    }

    /// Applies what waits. A thread that runs no task, as those that serve the kernel, does it itself: two hand-overs between
    /// threads take longer than most commands. Tasks never block their thread; if one ends here, the gate stays shut until
    /// what it has handed over is done.
    async fn apply_waiting(&self, gate: Gate) -> Result<()> {
        if tokio::task::try_id().is_none() {
            self.shared.apply_waiting();
            return Ok(());
        }
        let shared = self.shared.clone();
        let apply = move || {
            shared.apply_waiting();
            drop(gate);
            Ok(())
        };
        self.shared.queue.run(apply).await
    }

    async fn order(&self, commands: Vec<Command>) -> Result<(Vec<Reply>, LogPosition)> {
        self.shared.check_running()?;
        if commands.is_empty() {
            return Ok((Vec::new(), self.applied()));
        }
        self.until_room_for(&commands).await?;
        let encoded: Vec<_> = commands.iter().map(state::encode).collect();
        if encoded.iter().any(|bytes| bytes.len() > COMMAND_BYTES_MAX) {
            return Err(Error::internal(format!("a command exceeds {COMMAND_BYTES_MAX} bytes")));
        }
        while self.shared.is_full() {
            self.sync().await?;
        }
        if self.shared.is_paused() {
            self.shared.until_running(self.shared.patience()).await?;
        }
        let (answer, mut answered) = oneshot::channel();
        self.shared.submit(Proposal { commands, encoded, answer, deferred: false });
        {
            let gate = self.enter().await;
            // Whoever had the gate before may have taken these commands along.
            if let Ok(answer) = answered.try_recv() {
                return answer;
            }
            self.apply_waiting(gate).await?;
        }
        match answered.try_recv() {
            Ok(answer) => answer,
            Err(oneshot::error::TryRecvError::Empty) => self.until_applied(answered).await,
            Err(oneshot::error::TryRecvError::Closed) => Err(gave_no_answer()),
        }
    }

    /// Waits while the state is moved to disks with room.
    ///
    /// Error: `NoSpace` if there is none.
    async fn until_room_for(&self, commands: &[Command]) -> Result<()> {
        let deadline = self.shared.patience();
        while !self.shared.has_room_for(commands) {
            if !self.shared.makes_room() || Instant::now() >= deadline {
                let context =
                    "the disks have no room for more metadata: remove files or add a disk";
                return Err(Error::new(ErrorKind::Posix(Posix::NoSpace), context));
            }
            self.shared.check_running()?;
            tokio::time::sleep(ROOM_PAUSE).await;
        }
        Ok(())
    }

    /// Waits for what an outage has put off. Given up, it is never applied.
    async fn until_applied(&self, answered: oneshot::Receiver<Answer>) -> Answer {
        match tokio::time::timeout_at(self.shared.patience(), answered).await {
            Ok(answer) => answer.map_err(|_closed| gave_no_answer())?,
            Err(_late) => Err(Error::unavailable("the volume waits for disks")),
        }
    }
}

impl Log for LocalLog {
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<(Vec<Reply>, LogPosition)>> {
        Box::pin(self.order(commands))
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let target = self.applied();
            if self.durable() >= target {
                return Ok(());
            }
            self.shared.check_running()?;
            let shared = self.shared.clone();
            self.detached(async move { shared.sync_to(target).await }).await
        })
    }

    fn settle(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            self.shared.check_running()?;
            let gate = self.enter().await;
            // In an outage nothing is applied before enough disks are back, and what is put off may be.
            self.shared.check_not_paused()?;
            self.apply_waiting(gate).await?;
            self.shared.check_not_paused()
        })
    }

    fn durable(&self) -> LogPosition {
        position(&self.shared.durable)
    }

    fn applied(&self) -> LogPosition {
        position(&self.shared.applied)
    }
}

impl LocalLog {
    /// What `read` answers, of the state that is opened anew if the one in use is lost just now: no reader is to see that. It
    /// may block for as long as that takes.
    fn read<T>(&self, read: impl Fn(&Store) -> Result<T>) -> Result<T> {
        let mut store = self.shared.store();
        let mut answer = read(&store);
        let mut reopened = 0;
        for _attempt in 0..READ_ATTEMPTS {
            let Err(error) = &answer else { break };
            match self.shared.recover_for_reader(error) {
                None if Arc::ptr_eq(&store, &self.shared.store()) => break,
                None => {}
                Some(here) => reopened += u32::from(here),
            }
            if reopened > REOPENED_MAX {
                // What it reads is bad on all copies.
                break;
            }
            store = self.shared.store();
            answer = read(&store);
        }
        answer
    }
}

impl Views for LocalLog {
    fn view(&self) -> Result<View> {
        self.read(Store::view)
    }

    fn inode(&self, ino: Ino) -> Result<(Option<Inode>, LogPosition)> {
        self.read(|store| store.inode(ino))
    }

    fn lookup_inode(&self, parent: Ino, name: &[u8]) -> Result<(Option<Inode>, LogPosition)> {
        self.read(|store| store.lookup_inode(parent, name))
    }

    fn totals(&self) -> Totals {
        self.shared.store().totals()
    }

    fn changes(&self) -> &Changes {
        &self.shared.changes
    }
}

/// The replies to what was proposed, and the position behind it.
type Answer = Result<(Vec<Reply>, LogPosition)>;

/// Held by whoever changes the state.
type Gate = tokio::sync::OwnedMutexGuard<()>;

fn gave_no_answer() -> Error {
    Error::internal("the log gave no answer")
}

/// What a log that has stopped answers.
fn read_only(reason: &str) -> Error {
    Error::new(ErrorKind::Posix(Posix::ReadOnly), format!("the volume is read-only: {reason}"))
}

impl Drop for LocalLog {
    /// Nothing that was not synced may become durable behind the log's back: redb commits when it is dropped.
    fn drop(&mut self) {
        self.shared.fence();
    }
}
