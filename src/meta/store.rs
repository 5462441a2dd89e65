//! The state in redb: applies batches of commands, checkpoints, and gives short read views. Knows no log and no disk
//! beyond the backend that it is given.

mod view;

pub use view::View;

use crate::error::{Error, Result};
use crate::extent::ChunkMap;
use crate::limits::SEGMENT_BYTES;
use crate::meta::Reply;
use crate::meta::command::Command;
use crate::meta::model;
pub use crate::meta::tables::Totals;
use crate::meta::tables::{self, Txn, db, rows};
use crate::sync::{Mutex, PoisonError};
use crate::types::{FileKind, Ino, LogPosition, SegmentIndex, SlotIndex, Version};
use bytes::Bytes;
use redb::{Database, Durability, ReadableDatabase};

/// The materialised state.
pub struct Store {
    database: Database,
    /// Position and totals as of the last `apply`; held while one is under way.
    current: Mutex<(LogPosition, Totals)>,
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
        let current = match view::read_config(&database.begin_read().map_err(db)?)? {
            Some(current) => current,
            None => Self::create(&database)?,
        };
        Ok(Self { database, current: Mutex::new(current) })
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
        self.current.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    /// Sums over the volume as of the last `apply`.
    pub fn totals(&self) -> Totals {
        self.current.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Applies `commands` in one redb transaction that is not durable; `commands[i]` has position `first + i`.
    /// Internal error unless `first` is `applied()`. After any error the store must be reopened.
    pub fn apply(&self, first: LogPosition, commands: &[Command]) -> Result<Vec<Reply>> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != first {
            return Err(Error::internal(format!(
                "apply from position {first} on a state at {}",
                current.0
            )));
        }
        let mut transaction = self.database.begin_write().map_err(db)?;
        transaction.set_durability(Durability::None).map_err(db)?;
        let next = first.advance(commands.len() as u64);
        let (replies, totals) = {
            let mut txn = Txn::new(&transaction, current.1);
            let replies = commands.iter().map(|command| model::apply(&mut txn, command));
            let replies = replies.collect::<Result<Vec<Reply>>>()?;
            txn.put_config(next)?;
            (replies, txn.totals)
        };
        transaction.commit().map_err(db)?;
        *current = (next, totals);
        Ok(replies)
    }

    /// Gives an inode so many links at a stroke.
    #[cfg(test)]
    pub(crate) fn set_links(&self, ino: Ino, links: u32) -> Result<()> {
        let transaction = self.database.begin_write().map_err(db)?;
        {
            let mut txn = Txn::new(&transaction, self.totals());
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
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = checkpoint_transaction(&self.database)?;
        Txn::new(&transaction, current.1).put_config(current.0)?;
        transaction.commit().map_err(db)?;
        Ok(current.0)
    }

    /// The state as of the last `apply`.
    pub fn view(&self) -> Result<View> {
        Ok(View::new(self.database.begin_read().map_err(db)?))
    }
}

/// A transaction that is durable when it is committed, and leaves nothing to repair.
fn checkpoint_transaction(database: &Database) -> Result<redb::WriteTransaction> {
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
