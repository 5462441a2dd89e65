//! Index of one disk's shards in a small redb: lists them without walking directories. Its loss is harmless: it is
//! never synced in service, and is rebuilt from the files unless it was closed cleanly.
//!
//! File `index.redb`: table `shards` (stripe u64, index u8) -> (), laid out as one copy of `disk::mirror`, so that redb, which
//! panics over pages that it did not write, sees none that have changed. File `index.clean`, while `index.redb` is durable and
//! may be believed: magic `IRONIDX1`, XXH3-64 of the first 512 bytes of `index.redb`, XXH3-64 of these 16 bytes. It goes before
//! the first change of a mount, and `close` makes it again. An index without it is never opened: what a crash leaves of a file
//! that is not synced is anything.

use crate::disk::mirror::MirrorFile;
use crate::disk::{Disk, OpenMode};
use crate::error::{Error, Posix, Result};
use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::net::ShardKey;
use crate::sum::xxh3;
use crate::sync::{Arc, Mutex, PoisonError};
use crate::types::{DiskId, ShardIndex, StripeId};
use redb::{Database, Durability, ReadableDatabase as _, StorageBackend as _, TableDefinition};

const FILE_NAME: &str = "index.redb";
const CLEAN_FILE: &str = "index.clean";
const CLEAN_MAGIC: [u8; 8] = *b"IRONIDX1";
const CLEAN_BYTES: usize = 24;
const SECTOR_BYTES: usize = 512;
/// redb's cache: the index is small and read in runs.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
const SHARDS: TableDefinition<'_, (u64, u8), ()> = TableDefinition::new("shards");

/// The index, or nothing once it has failed: then the directories are walked instead.
#[derive(Debug)]
pub(super) struct ShardIndexDb {
    database: Mutex<Option<Database>>,
    /// The file below.
    file: Option<MirrorFile>,
    complete: std::sync::atomic::AtomicBool,
}

fn wrong(error: impl std::fmt::Display) -> Error {
    Error::unavailable(format!("the shard index: {error}"))
}

impl ShardIndexDb {
    /// Opens the index of disk `id`, or makes an empty, incomplete one. Read-only mounts use none.
    pub(super) fn open(id: DiskId, disk: &Arc<dyn Disk>, read_only: bool) -> Self {
        let none = || Self { database: Mutex::new(None), file: None, complete: false.into() };
        if read_only {
            return none();
        }
        let opened = Self::try_open(id, disk).map(|opened| (opened, true));
        match opened.or_else(|_damaged| Ok((Self::create(id, disk)?, false))) {
            Ok(((database, file), complete)) => {
                let database = Mutex::new(Some(database));
                Self { database, file: Some(file), complete: complete.into() }
            }
            Err::<_, Error>(error) => {
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

    /// Only an index that was closed is opened, and only once.
    fn try_open(id: DiskId, disk: &Arc<dyn Disk>) -> Result<(Database, MirrorFile)> {
        let mut note = [0; CLEAN_BYTES];
        disk.open(CLEAN_FILE, OpenMode::Read)?.read(0, &mut note)?;
        let closed = decode_clean(&note)?;
        // The medium must have forgotten it before the first change.
        disk.remove(CLEAN_FILE)?;
        disk.sync_dir("")?;
        if first_sector(&**disk)? != closed {
            return Err(wrong("it is not the one that was closed"));
        }
        let file = disk.open(FILE_NAME, OpenMode::Write)?;
        let file = MirrorFile::open(id, file, Arc::new(|_disk, _error| {}))?;
        let database = Self::builder().create_with_backend(file.clone()).map_err(wrong)?;
        Ok((database, file))
    }

    fn create(id: DiskId, disk: &Arc<dyn Disk>) -> Result<(Database, MirrorFile)> {
        for name in [CLEAN_FILE, FILE_NAME] {
            match disk.remove(name) {
                Err(error) if !error.is(Posix::NotFound) => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        let file = disk.open(FILE_NAME, OpenMode::CreateNew)?;
        disk.sync_dir("")?;
        let file = MirrorFile::create(vec![(id, file)], Arc::new(|_disk, _error| {}))?;
        let database = Self::builder().create_with_backend(file.clone()).map_err(wrong)?;
        let mut write = database.begin_write().map_err(wrong)?;
        write.set_durability(Durability::None).map_err(wrong)?;
        write.open_table(SHARDS).map_err(wrong)?;
        write.commit().map_err(wrong)?;
        Ok((database, file))
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

    /// Makes it durable and notes that, so that the next opening believes it.
    pub(super) fn close(&self, disk: &dyn Disk) {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(database), Some(file)) = (slot.take(), &self.file) else { return };
        if !self.is_complete() {
            return;
        }
        if let Err(error) = close(database, file, disk) {
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

fn close(database: Database, file: &MirrorFile, disk: &dyn Disk) -> Result<()> {
    let mut write = database.begin_write().map_err(wrong)?;
    write.set_durability(Durability::Immediate).map_err(wrong)?;
    write.set_quick_repair(true);
    write.commit().map_err(wrong)?;
    // redb writes once more when it goes.
    drop(database);
    file.sync_data().map_err(wrong)?;
    let note = encode_clean(first_sector(disk)?);
    let clean = disk.open(CLEAN_FILE, OpenMode::CreateNew)?;
    clean.write(0, &note)?;
    clean.sync_data()?;
    disk.sync_dir("")
}

/// Sum of the first sector of the index: redb's header, which each commit changes.
fn first_sector(disk: &dyn Disk) -> Result<u64> {
    let mut sector = [0; SECTOR_BYTES];
    disk.open(FILE_NAME, OpenMode::Read)?.read(0, &mut sector)?;
    Ok(xxh3(&sector))
}

/// Bytes of `index.clean` for an index whose first sector has this sum.
pub fn encode_clean(sum: u64) -> Vec<u8> {
    let mut writer = Writer::with_capacity(CLEAN_BYTES);
    writer.raw(&CLEAN_MAGIC);
    writer.u64(sum);
    writer.u64(xxh3(writer.as_slice()));
    writer.into_vec()
}

/// The sum of the first sector of an index that was closed.
///
/// Error: of the sum, the magic or the length.
pub fn decode_clean(bytes: &[u8]) -> Decoded<u64> {
    let mut reader = Reader::new(bytes);
    let summed = reader.take(16)?;
    if reader.u64()? != xxh3(summed) {
        return Err(FormatError::Sum);
    }
    let mut fields = Reader::new(summed);
    if fields.array()? != CLEAN_MAGIC {
        return Err(FormatError::Invalid("magic"));
    }
    fields.u64()
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

#[cfg(test)]
mod tests {
    use super::{CLEAN_BYTES, decode_clean, encode_clean};

    #[test]
    fn the_note_of_a_closed_index_is_pinned() {
        let sum = [93, 98, 196, 163, 135, 161, 210, 30];
        let pinned = [&b"IRONIDX1"[..], &[8, 7, 6, 5, 4, 3, 2, 1], &sum].concat();
        assert_eq!(encode_clean(0x0102_0304_0506_0708), pinned);
        let bytes: [u8; CLEAN_BYTES] = pinned.try_into().unwrap();
        assert_eq!(decode_clean(&bytes), Ok(0x0102_0304_0506_0708));
        for at in 0..CLEAN_BYTES {
            let mut wrong = bytes;
            wrong[at] ^= 1;
            assert!(decode_clean(&wrong).is_err(), "byte {at}");
        }
    }
}
