//! The state in redb: applies batches of commands, checkpoints, and gives short read views. Knows no log and no disk
//! beyond the backend that it is given.
//!
//! Most of what a small change costs is beginning and committing a redb transaction. So one stays open over many small
//! commands, and is committed when somebody wants a view, when it has many of them, or when a large one follows. What is
//! asked after each change, one inode or one name, is read from the open one. Commits are not durable; `checkpoint` is.

#[cfg(test)]
mod tests;
mod view;

pub use view::View;

use crate::error::{Error, Result};
use crate::extent::ChunkMap;
use crate::limits::SEGMENT_BYTES;
use crate::meta::Reply;
use crate::meta::command::{Command, Inode};
use crate::meta::model;
pub use crate::meta::tables::Totals;
use crate::meta::tables::{self, Txn, db, rows};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::types::{FileKind, Ino, LogPosition, SegmentIndex, SlotIndex, Version};
use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase, WriteTransaction};

/// Most commands of one transaction: bounds what a view waits for, and what is kept to be done again after an error; the
/// largest of them carry 64 KiB each.
const OPEN_COMMANDS_MAX: usize = 512;

/// The materialised state.
pub struct Store {
    /// Held while a batch is applied. Dropped before the database, which would outlive it otherwise.
    current: Mutex<Current>,
    /// Whether the open transaction has commands that were answered: what is committed is too old then.
    ahead: AtomicBool,
    /// Position and totals behind the last batch; locked for a copy only.
    sums: Mutex<(LogPosition, Totals)>,
    database: Database,
}

/// What changes with each batch.
struct Current {
    applied: LogPosition,
    totals: Totals,
    open: Option<Open>,
    /// Commands that were applied are lost from the state; it must be opened anew.
    lost: bool,
}

/// A transaction that is not committed yet.
struct Open {
    transaction: WriteTransaction,
    /// Totals before it.
    before: Totals,
    /// What it has, to do it again if the command behind it fails half-way.
    commands: Vec<Command>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// Entry of a directory, in cookie order. Cookies start at 1 and never change while the entry lives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// Position of the entry, stable.
    pub cookie: u64,
    /// Name.
    pub name: Vec<u8>,
    /// Inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
}

/// Hot bytes of a chunk; never crosses a segment boundary, never overlaps another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HotBytes {
    /// Where it starts in the chunk.
    pub offset: u32,
    /// Version of the content.
    pub version: Version,
    /// Content.
    pub data: Bytes,
}

/// Content of one chunk as the metadata knows it. Hot bytes lie over extents; what neither has is a hole.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChunkView {
    /// Extents (none that a pending cut hides).
    pub map: ChunkMap,
    /// Hot extents by offset.
    pub hot: Vec<HotBytes>,
    /// Version of segments that have neither.
    pub floor: Version,
}

impl ChunkView {
    /// Version of a segment's content: the newest of floor, extent and hot bytes.
    pub fn version(&self, segment: SegmentIndex) -> Version {
        let start = u32::from(segment.0) * SEGMENT_BYTES;
        let hot = self.hot.iter().filter(|hot| hot.offset / SEGMENT_BYTES * SEGMENT_BYTES == start);
        let extent = self.map.get(segment).map(|place| place.version);
        hot.map(|hot| hot.version).chain(extent).chain([self.floor]).max().unwrap_or(self.floor)
    }
}

/// How much of a stripe is still named by a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct StripeUsage {
    /// Bytes of live frames, headers included.
    pub live_bytes: u64,
    /// Live slots in order.
    pub live: Vec<SlotIndex>,
    /// Whether any slot may have several owners.
    pub shared: bool,
}

impl Store {
    /// Opens the state on `backend`, or creates it if the backend is empty. `cache_bytes` bounds redb's cache.
    /// Until the first `Genesis` command it has no root directory.
    ///
    /// Errors: `Refused` if a newer program wrote it; `Unavailable` or `Corrupt` if it cannot be read.
    pub fn open(backend: impl redb::StorageBackend, cache_bytes: usize) -> Result<Self> {
        let database = Database::builder()
            .set_cache_size(cache_bytes)
            .create_with_backend(backend)
            .map_err(db)?;
        let (applied, totals) = match view::read_config(&database.begin_read().map_err(db)?)? {
            Some(found) => found,
            None => Self::create(&database)?,
        };
        Ok(Self {
            current: Mutex::new(Current { applied, totals, open: None, lost: false }),
            ahead: AtomicBool::new(false),
            sums: Mutex::new((applied, totals)),
            database,
        })
    }

    fn create(database: &Database) -> Result<(LogPosition, Totals)> {
        let current = (LogPosition(0), Totals::default());
        let transaction = checkpoint_transaction(database)?;
        {
            let mut txn = Txn::new(&transaction, current.1);
            txn.create()?;
            txn.put_config(current.0)?;
        }
        transaction.commit().map_err(db)?;
        Ok(current)
    }

    /// All commands before this position are applied.
    pub fn applied(&self) -> LogPosition {
        self.sums().0
    }

    /// Sums over the volume as of the last `apply`.
    pub fn totals(&self) -> Totals {
        self.sums().1
    }

    fn sums(&self) -> MutexGuard<'_, (LogPosition, Totals)> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Applies `commands`, not durably; `commands[i]` has position `first + i`. Internal error unless `first` is
    /// `applied()`. After any error the store must be reopened; until then views show what was applied before, or fail.
    pub fn apply(&self, first: LogPosition, commands: &[Command]) -> Result<Vec<Reply>> {
        let mut current = self.current();
        if current.applied != first {
            let at = current.applied;
            return Err(Error::internal(format!("apply from position {first} on a state at {at}")));
        }
        let large = commands.iter().any(is_large);
        if large {
            // Views need not wait for it then.
            self.commit(&mut current)?;
        }
        let replies = match self.extend(&mut current, commands) {
            Ok(replies) => replies,
            Err(error) => {
                self.redo(&mut current);
                return Err(error);
            }
        };
        let full = |open: &Open| open.commands.len() >= OPEN_COMMANDS_MAX;
        if large || current.open.as_ref().is_some_and(full) {
            self.commit(&mut current)?;
        } else {
            self.ahead.store(true, Ordering::SeqCst);
        }
        *self.sums() = (current.applied, current.totals);
        Ok(replies)
    }

    /// Applies `commands` in the open transaction.
    fn extend(&self, current: &mut Current, commands: &[Command]) -> Result<Vec<Reply>> {
        current.check()?;
        let open = match current.open.take() {
            Some(open) => open,
            None => self.begin(current.totals)?,
        };
        let open = current.open.insert(open);
        let mut txn = Txn::new(&open.transaction, current.totals);
        let replies = commands.iter().map(|command| model::apply(&mut txn, command));
        let replies = replies.collect::<Result<Vec<Reply>>>()?;
        current.totals = txn.totals;
        drop(txn);
        open.commands.extend_from_slice(commands);
        current.applied = current.applied.advance(commands.len() as u64);
        Ok(replies)
    }

    fn begin(&self, before: Totals) -> Result<Open> {
        let mut transaction = self.database.begin_write().map_err(db)?;
        transaction.set_durability(Durability::None).map_err(db)?;
        Ok(Open { transaction, before, commands: Vec::new() })
    }

    /// Gives up the open transaction, in which a command failed half-way, and does again what it had before that.
    fn redo(&self, current: &mut Current) {
        let Some(Open { transaction, before, commands }) = current.open.take() else { return };
        // That aborts it.
        drop(transaction);
        let again = self.begin(before).and_then(|open| {
            {
                let mut txn = Txn::new(&open.transaction, open.before);
                for command in &commands {
                    // It was answered the same way before.
                    drop(model::apply(&mut txn, command)?);
                }
                txn.put_config(current.applied)?;
            }
            open.transaction.commit().map_err(db)
        });
        match again {
            Ok(()) => self.ahead.store(false, Ordering::SeqCst),
            Err(_error) => self.lose(current),
        }
    }

    /// From now on nothing can be read: what was answered is not there.
    fn lose(&self, current: &mut Current) {
        current.lost = true;
        self.ahead.store(true, Ordering::SeqCst);
    }

    /// Commits the open transaction, so that views show what it has.
    fn commit(&self, current: &mut Current) -> Result<()> {
        current.check()?;
        if let Some(Open { transaction, .. }) = current.open.take() {
            let written = Txn::new(&transaction, current.totals).put_config(current.applied);
            if let Err(error) = written.and_then(|()| transaction.commit().map_err(db)) {
                self.lose(current);
                return Err(error);
            }
        }
        self.ahead.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// Gives an inode so many links at a stroke.
    #[cfg(test)]
    pub(crate) fn set_links(&self, ino: Ino, links: u32) -> Result<()> {
        let mut current = self.current();
        self.commit(&mut current)?;
        let transaction = self.database.begin_write().map_err(db)?;
        {
            let mut txn = Txn::new(&transaction, current.totals);
            let inode = txn.inode(ino)?;
            let mut inode = inode.ok_or_else(|| Error::internal("no such inode"))?;
            inode.links = links;
            txn.put_inode(&inode)?;
        }
        transaction.commit().map_err(db)
    }

    /// Makes the state durable (two-phase, quick repair) and answers its position. The caller has synced the log up
    /// to `applied()` first, and lets nobody apply meanwhile.
    pub fn checkpoint(&self) -> Result<LogPosition> {
        let mut current = self.current();
        self.commit(&mut current)?;
        let transaction = checkpoint_transaction(&self.database)?;
        Txn::new(&transaction, current.totals).put_config(current.applied)?;
        transaction.commit().map_err(db)?;
        Ok(current.applied)
    }

    /// One inode, as `View::inode`, and the position that it was true at. Cheaper than a view where changes go on.
    pub fn inode(&self, ino: Ino) -> Result<(Option<Inode>, LogPosition)> {
        self.look(|txn| txn.inode(ino), |view| view.inode(ino))
    }

    /// A name's inode, as `View::lookup_inode`, and the position that it was true at.
    pub fn lookup_inode(&self, parent: Ino, name: &[u8]) -> Result<(Option<Inode>, LogPosition)> {
        let open = |txn: &Txn<'_>| match txn.dentry(parent, name)? {
            Some(dentry) => txn.inode(dentry.ino),
            None => Ok(None),
        };
        self.look(open, |view| view.lookup_inode(parent, name))
    }

    /// Reads from the open transaction if it is ahead, or else from what is committed.
    fn look<T>(
        &self,
        open: impl FnOnce(&Txn<'_>) -> Result<T>,
        committed: impl FnOnce(&View) -> Result<T>,
    ) -> Result<(T, LogPosition)> {
        if self.ahead.load(Ordering::SeqCst) {
            let current = self.current();
            current.check()?;
            if let Some(Open { transaction, .. }) = &current.open {
                return Ok((open(&Txn::new(transaction, current.totals))?, current.applied));
            }
        }
        let view = self.committed()?;
        Ok((committed(&view)?, view.applied()?))
    }

    /// The state as of the last `apply`.
    pub fn view(&self) -> Result<View> {
        if self.ahead.load(Ordering::SeqCst) {
            self.commit(&mut self.current())?;
        }
        self.committed()
    }

    fn committed(&self) -> Result<View> {
        Ok(View::new(self.database.begin_read().map_err(db)?))
    }
}

impl Current {
    fn check(&self) -> Result<()> {
        if self.lost {
            return Err(Error::unavailable("the state in use is lost; it is opened anew"));
        }
        Ok(())
    }
}

/// Whether a command may change so much that nobody should wait for it who does not need it.
const fn is_large(command: &Command) -> bool {
    match command {
        Command::CommitExtents { .. }
        | Command::MoveExtents { .. }
        | Command::CloneExtents { .. }
        | Command::Truncate { .. }
        | Command::Punch { .. }
        | Command::ReleaseOrphans { .. }
        | Command::Reap { .. }
        | Command::ForgetStripes { .. } => true,
        Command::Genesis { .. }
        | Command::StartMount { .. }
        | Command::SetClass { .. }
        | Command::Create { .. }
        | Command::Link { .. }
        | Command::Unlink { .. }
        | Command::Rmdir { .. }
        | Command::Rename(_)
        | Command::SetAttributes { .. }
        | Command::SetAccessTimes { .. }
        | Command::SetXattr { .. }
        | Command::RemoveXattr { .. }
        | Command::SetInodeClass { .. }
        | Command::CommitHot { .. }
        | Command::CommitInline { .. }
        | Command::Reserve { .. }
        | Command::PlaceShard { .. }
        | Command::SetScrub { .. }
        | Command::NoteDamage { .. }
        | Command::NoteRepair { .. } => false,
    }
}

/// A transaction that is durable when it is committed, and leaves nothing to repair.
fn checkpoint_transaction(database: &Database) -> Result<WriteTransaction> {
    let mut transaction = database.begin_write().map_err(db)?;
    transaction.set_durability(Durability::Immediate).map_err(db)?;
    transaction.set_two_phase_commit(true);
    transaction.set_quick_repair(true);
    Ok(transaction)
}

/// What `tables` says of the state as a whole.
fn check_format(found: u16) -> Result<()> {
    if found == tables::FORMAT {
        return Ok(());
    }
    let known = tables::FORMAT;
    Err(Error::refused(format!(
        "the metadata has format {found}; this program knows {known}: use a newer ironfs"
    )))
}

/// The totals row.
fn decode_totals(row: &[u8]) -> Result<Totals> {
    rows::decode_totals(row)
}
