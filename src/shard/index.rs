//! Index of one disk's shards in a small redb: lists them without walking directories. Its loss is harmless: it is
//! never synced in service, and is rebuilt from the files unless it was closed cleanly.
//!
//! File `index.redb`: table `shards` (stripe u64, index u8) -> (); table `state` "complete" -> 1 while the file may be
//! believed. The mark is taken away before the first change of a mount and set again by `close`.

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Posix, Result};
use crate::net::ShardKey;
use crate::types::{ShardIndex, StripeId};
use redb::{Database, Durability, ReadableDatabase as _, TableDefinition};
use std::sync::{Arc, Mutex, PoisonError};

const FILE_NAME: &str = "index.redb";
/// redb's cache: the index is small and read in runs.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
const SHARDS: TableDefinition<'_, (u64, u8), ()> = TableDefinition::new("shards");
const STATE: TableDefinition<'_, &str, u64> = TableDefinition::new("state");
const COMPLETE: &str = "complete";

/// The index, or nothing once it has failed: then the directories are walked instead.
#[derive(Debug)]
pub(super) struct ShardIndexDb {
    database: Mutex<Option<Database>>,
    complete: std::sync::atomic::AtomicBool,
}

/// redb on one file of a disk.
#[derive(Debug)]
struct Backend(Arc<dyn DiskFile>);

fn io(error: Error) -> std::io::Error {
    std::io::Error::other(error)
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> std::io::Result<u64> {
        self.0.len().map_err(io)
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        self.0.read(offset, out).map_err(io)
    }
    fn set_len(&self, length: u64) -> std::io::Result<()> {
        self.0.set_len(length).map_err(io)
    }
    fn sync_data(&self) -> std::io::Result<()> {
        // Nothing here has to survive: a lost index is rebuilt.
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.0.write(offset, data).map_err(io)
    }
}

fn wrong(error: impl std::fmt::Display) -> Error {
    Error::unavailable(format!("the shard index: {error}"))
}

impl ShardIndexDb {
    /// Opens the index, or makes an empty, incomplete one. Read-only mounts use none.
    pub(super) fn open(disk: &Arc<dyn Disk>, read_only: bool) -> Self {
        let none = || Self { database: Mutex::new(None), complete: false.into() };
        if read_only {
            return none();
        }
        match Self::try_open(disk).or_else(|_damaged| Self::create(disk)) {
            Ok((database, complete)) => {
                Self { database: Mutex::new(Some(database)), complete: complete.into() }
            }
            Err(error) => {
                tracing::warn!("{}: {error}; its directories are walked instead", disk.label());
                none()
            }
        }
    }

    fn builder() -> redb::Builder {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE_BYTES);
        builder
    }

    /// Only an index that was closed cleanly is opened; the mark is taken away at once.
    fn try_open(disk: &Arc<dyn Disk>) -> Result<(Database, bool)> {
        let file = disk.open(FILE_NAME, OpenMode::Write)?;
        let database = Self::builder().create_with_backend(Backend(file)).map_err(wrong)?;
        let complete = {
            let read = database.begin_read().map_err(wrong)?;
            let state = read.open_table(STATE).map_err(wrong)?;
            state.get(COMPLETE).map_err(wrong)?.is_some_and(|mark| mark.value() == 1)
        };
        if !complete {
            return Err(wrong("it was not closed"));
        }
        let mut write = database.begin_write().map_err(wrong)?;
        write.set_durability(Durability::Immediate).map_err(wrong)?;
        write.open_table(STATE).map_err(wrong)?.insert(COMPLETE, 0).map_err(wrong)?;
        write.commit().map_err(wrong)?;
        // The medium must have forgotten the mark before the first change: the one sync of a mount.
        disk.open(FILE_NAME, OpenMode::Write)?.sync_data()?;
        Ok((database, true))
    }

    fn create(disk: &Arc<dyn Disk>) -> Result<(Database, bool)> {
        match disk.remove(FILE_NAME) {
            Err(error) if !error.is(Posix::NotFound) => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = disk.open(FILE_NAME, OpenMode::CreateNew)?;
        disk.sync_dir("")?;
        let database = Self::builder().create_with_backend(Backend(file)).map_err(wrong)?;
        let write = database.begin_write().map_err(wrong)?;
        write.open_table(SHARDS).map_err(wrong)?;
        write.open_table(STATE).map_err(wrong)?.insert(COMPLETE, 0).map_err(wrong)?;
        write.commit().map_err(wrong)?;
        Ok((database, false))
    }

    /// Whether it lists everything.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Makes it list exactly `keys`.
    pub(super) fn fill(&self, keys: &[ShardKey]) {
        self.change(|table| {
            keys.iter().try_for_each(|key| table.insert(encode(*key), ()).map(drop))
        });
        self.complete.store(true, std::sync::atomic::Ordering::Release);
    }

    pub(super) fn insert(&self, key: ShardKey) {
        self.change(|table| table.insert(encode(key), ()).map(drop));
    }

    pub(super) fn remove(&self, key: ShardKey) {
        self.change(|table| table.remove(encode(key)).map(drop));
    }

    /// Whether it lists a key; `None` if there is no index.
    pub(super) fn has(&self, key: ShardKey) -> Option<bool> {
        let before =
            key.index.0.checked_sub(1).map(|index| ShardKey { index: ShardIndex(index), ..key });
        let before = before.or_else(|| {
            let stripe = key.stripe.get().checked_sub(1).map(StripeId)?;
            Some(ShardKey { stripe, index: ShardIndex(u8::MAX) })
        });
        self.list(before, 1).map(|found| found == [key])
    }

    /// Up to `limit` keys behind `after`; `None` if there is no index.
    pub(super) fn list(&self, after: Option<ShardKey>, limit: usize) -> Option<Vec<ShardKey>> {
        if !self.is_complete() {
            return None;
        }
        let database = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        match list(database.as_ref()?, after, limit) {
            Ok(keys) => Some(keys),
            Err(error) => {
                tracing::warn!("{error}; the directories are walked instead");
                None
            }
        }
    }

    /// Marks it complete, so that the next opening believes it.
    pub(super) fn close(&self) {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = slot.take().filter(|_database| self.is_complete()) else { return };
        let closed = || -> Result<()> {
            let write = database.begin_write().map_err(wrong)?;
            write.open_table(STATE).map_err(wrong)?.insert(COMPLETE, 1).map_err(wrong)?;
            write.commit().map_err(wrong)
        };
        if let Err(error) = closed() {
            tracing::warn!("{error}; it is rebuilt at the next mount");
        }
    }

    /// One change that is not synced. An index that fails is given up: it must never fail a put.
    fn change(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, (u64, u8), ()>) -> Result<(), redb::StorageError>,
    ) {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(database) = slot.as_ref() else { return };
        let changed = || -> Result<()> {
            let mut write = database.begin_write().map_err(wrong)?;
            write.set_durability(Durability::None).map_err(wrong)?;
            change(&mut write.open_table(SHARDS).map_err(wrong)?).map_err(wrong)?;
            write.commit().map_err(wrong)
        };
        if let Err(error) = changed() {
            tracing::warn!("{error}; the directories are walked instead until the next mount");
            *slot = None;
            self.complete.store(false, std::sync::atomic::Ordering::Release);
        }
    }
}

fn encode(key: ShardKey) -> (u64, u8) {
    (key.stripe.get(), key.index.0)
}

fn list(database: &Database, after: Option<ShardKey>, limit: usize) -> Result<Vec<ShardKey>> {
    let read = database.begin_read().map_err(wrong)?;
    let table = read.open_table(SHARDS).map_err(wrong)?;
    let from =
        after.map_or(std::ops::Bound::Unbounded, |key| std::ops::Bound::Excluded(encode(key)));
    let range = table.range::<(u64, u8)>((from, std::ops::Bound::Unbounded)).map_err(wrong)?;
    let mut keys = Vec::new();
    for row in range.take(limit) {
        let (stripe, index) = row.map_err(wrong)?.0.value();
        keys.push(ShardKey { stripe: StripeId(stripe), index: ShardIndex(index) });
    }
    Ok(keys)
}
