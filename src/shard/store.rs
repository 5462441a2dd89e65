//! What one disk keeps of shards: puts, verified reads, deletion. All file work goes through `Disk`; runs on the
//! disk's own threads. Knows no other disk.
//!
//! A shard is written in place under its final name and becomes valid by its trailer, the last bytes written; it is
//! acknowledged only when the file and every directory that gained an entry are durable. What a crash leaves of a put
//! has no trailer that checks, is never believed, and is deleted by the next rebuild of the index.

use crate::disk::{Disk, DiskEntry, DiskFile, OpenMode, Space};
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::format::FormatError;
use crate::net::{Seal, ShardFooter, ShardHeader, ShardKey};
use crate::shard::file::{self, Footer, FooterBuilder, HEADER_BYTES, TRAILER_BYTES};
use crate::shard::index::ShardIndexDb;
use crate::sync::{Arc, Mutex, PoisonError};
use crate::types::{DiskId, VolumeId};
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Shards of one disk that are begun and not sealed: bounds the open files of writers.
const UNSEALED_MAX: usize = 256;
/// Directory of all shards.
const SHARDS_DIR: &str = "shards";

/// Limits of a store.
#[derive(Clone, Copy, Debug)]
pub struct StoreLimits {
    /// Footers kept in memory, in bytes.
    pub footer_bytes: u64,
    /// Files kept open for reading.
    pub open_files: usize,
}

/// An open, checked shard.
#[derive(Debug)]
struct OpenShard {
    file: Arc<dyn DiskFile>,
    footer: Footer,
}

#[derive(Clone, Debug)]
struct ByFooter;

impl Weighter<ShardKey, Arc<OpenShard>> for ByFooter {
    fn weight(&self, _key: &ShardKey, shard: &Arc<OpenShard>) -> u64 {
        u64::try_from(shard.footer.weight()).unwrap_or(u64::MAX)
    }
}

/// A put in progress.
#[derive(Debug)]
struct Unsealed {
    file: Arc<dyn DiskFile>,
    builder: FooterBuilder,
}

impl Unsealed {
    fn append(&mut self, disk: &dyn Disk, cells: &[Bytes]) -> Result<()> {
        check_room(disk, cells.iter().map(|cell| cell.len() as u64).sum())?;
        for cell in cells {
            let offset = HEADER_BYTES + self.builder.cells_bytes();
            self.file.write(offset, cell)?;
            self.builder.append(cell);
        }
        Ok(())
    }
}

/// The shards of one disk.
#[derive(Debug)]
pub struct ShardStore {
    volume: VolumeId,
    id: DiskId,
    disk: Arc<dyn Disk>,
    index: ShardIndexDb,
    open: Cache<ShardKey, Arc<OpenShard>, ByFooter>,
    unsealed: Mutex<BTreeMap<ShardKey, Arc<Mutex<Unsealed>>>>,
    /// Directories whose own entry is known to be durable.
    durable_dirs: Mutex<BTreeSet<String>>,
}

/// The two directories of a shard. Neighbouring stripes share them, so that one directory sync serves many.
fn directories(key: ShardKey) -> (String, String) {
    let hash = key.stripe.get() >> 7;
    let (first, second) = ((hash >> 8) & 0xff, hash & 0xff);
    (format!("{SHARDS_DIR}/{first:02x}"), format!("{SHARDS_DIR}/{first:02x}/{second:02x}"))
}

fn base_name(key: ShardKey) -> String {
    format!("{}.{}", key.stripe, key.index)
}

fn file_name(key: ShardKey) -> String {
    format!("{}/{}", directories(key).1, base_name(key))
}

/// The key that the name of a shard's file stands for; none for a name that no shard has.
pub fn parse_name(name: &str) -> Option<ShardKey> {
    let (stripe, index) = name.split_once('.')?;
    let stripe = crate::types::StripeId(u64::from_str_radix(stripe, 16).ok()?);
    let index = crate::types::ShardIndex(index.parse().ok()?);
    let key = ShardKey { stripe, index };
    file_name(key).ends_with(&format!("/{name}")).then_some(key)
}

/// The wanted range of what was read to cover it.
fn cut(covering: Vec<u8>, cover: &Range<u64>, range: &Range<u64>) -> Bytes {
    let skip = usize::try_from(range.start - cover.start).unwrap_or(covering.len());
    let wanted = usize::try_from(range.end - range.start).unwrap_or(0);
    Bytes::from(covering).slice(skip..skip + wanted)
}

fn locked<T>(mutex: &Mutex<T>) -> crate::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks whether a disk has room for so many bytes of shards besides what they leave free. It looks at the disk each time:
/// many are put at once, and what was seen a moment ago may be taken by now.
fn check_room(disk: &dyn Disk, bytes: u64) -> Result<()> {
    let space = disk.space()?;
    let floor = space.floor_bytes();
    if space.free_bytes >= floor.saturating_add(bytes) {
        return Ok(());
    }
    let context = format!(
        "disk {}: {} bytes are free, and shards leave {floor} to the metadata",
        disk.label(),
        space.free_bytes
    );
    Err(Error::new(ErrorKind::Posix(Posix::NoSpace), context))
}

/// Whether a disk has its directory of shards.
pub fn has_directory(disk: &dyn Disk) -> Result<bool> {
    Ok(disk.list("")?.iter().any(|entry| entry.is_dir && entry.name == SHARDS_DIR))
}

impl ShardStore {
    /// Opens the shards of `disk`, which is disk `id` of `volume`. Rebuilds the index if it is missing, damaged or was
    /// not closed; what interrupted puts left is deleted then. With `read_only` nothing is written.
    pub fn open(
        volume: VolumeId,
        id: DiskId,
        disk: Arc<dyn Disk>,
        limits: StoreLimits,
        read_only: bool,
    ) -> Result<Self> {
        if !read_only {
            match disk.create_dir(SHARDS_DIR) {
                Ok(()) => disk.sync_dir("")?,
                Err(error) if error.is(Posix::Exists) => {}
                Err(error) => return Err(error),
            }
        }
        let open = Cache::with_weighter(limits.open_files, limits.footer_bytes, ByFooter);
        let index = ShardIndexDb::open(id, &disk, read_only);
        let store = Self {
            volume,
            id,
            disk,
            index,
            open,
            unsealed: Mutex::new(BTreeMap::new()),
            durable_dirs: Mutex::new(BTreeSet::new()),
        };
        if !store.index.is_complete() {
            store.rebuild_index(read_only)?;
        }
        Ok(store)
    }

    /// Fills the index from the directories. Files that are no valid shards are leftovers of puts and are deleted.
    fn rebuild_index(&self, read_only: bool) -> Result<()> {
        let mut keys = Vec::new();
        for name in self.list_names()? {
            let (dir, base) = name.rsplit_once('/').unwrap_or(("", &name));
            let valid = match parse_name(base) {
                Some(key) if file_name(key) == name => match self.trailer_checks(&name) {
                    Ok(()) => Some(key),
                    Err(error) if error.kind() == ErrorKind::Unavailable => {
                        return Err(error);
                    }
                    Err(_leftover) => None,
                },
                Some(_) | None => None,
            };
            match valid {
                Some(key) => keys.push(key),
                None if read_only => {}
                None => {
                    tracing::info!(
                        "disk {}: {name} is what a crash left of a put; deleting it",
                        self.id
                    );
                    self.disk.remove(&name)?;
                    self.disk.sync_dir(dir)?;
                }
            }
        }
        keys.sort();
        self.index.fill(&keys);
        Ok(())
    }

    /// All files below the two levels of directories.
    fn list_names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let list = |dir: &str| match self.disk.list(dir) {
            Err(error) if error.is(Posix::NotFound) => Ok(Vec::new()),
            other => other,
        };
        for first in list(SHARDS_DIR)?.into_iter().filter(|entry| entry.is_dir) {
            let first = format!("{SHARDS_DIR}/{}", first.name);
            for second in list(&first)?.into_iter().filter(|entry| entry.is_dir) {
                let second = format!("{first}/{}", second.name);
                let files = list(&second)?.into_iter().filter(|entry| !entry.is_dir);
                names.extend(files.map(|file| format!("{second}/{}", file.name)));
            }
        }
        Ok(names)
    }

    fn trailer_checks(&self, name: &str) -> Result<()> {
        let file = self.disk.open(name, OpenMode::Read)?;
        read_trailer(&*file).map(drop)
    }

    /// Starts a shard. What an earlier put left under the same name is replaced.
    pub fn begin(&self, header: ShardHeader) -> Result<()> {
        let key = header.key;
        if locked(&self.unsealed).len() >= UNSEALED_MAX {
            return Err(Error::unavailable(format!("disk {}: too many puts at once", self.id)));
        }
        let (first, second) = directories(key);
        let name = file_name(key);
        let file = match self.disk.open(&name, OpenMode::CreateNew) {
            Err(error) if error.is(Posix::NotFound) => {
                for dir in [&first, &second] {
                    match self.disk.create_dir(dir) {
                        Err(error) if !error.is(Posix::Exists) => return Err(error),
                        Ok(()) | Err(_) => {}
                    }
                }
                self.disk.open(&name, OpenMode::CreateNew)?
            }
            Err(error) if error.is(Posix::Exists) => {
                // Stripe ids are never reused, so this is a leftover, or repair writing its shard again.
                self.forget(key);
                self.disk.remove(&name)?;
                self.disk.open(&name, OpenMode::CreateNew)?
            }
            other => other?,
        };
        // What was there under this name has made room.
        if let Err(error) = check_room(&*self.disk, HEADER_BYTES) {
            ignore_absent(self.disk.remove(&name))?;
            return Err(error);
        }
        file.write(0, &file::encode_header(self.volume, &header))?;
        let builder = FooterBuilder::new(self.volume, header);
        let unsealed = Arc::new(Mutex::new(Unsealed { file, builder }));
        locked(&self.unsealed).insert(key, unsealed);
        Ok(())
    }

    /// Forgets all shards that were begun and not sealed: whoever began them has gone.
    pub fn abort_all(&self) -> Result<()> {
        let keys: Vec<ShardKey> = locked(&self.unsealed).keys().copied().collect();
        keys.into_iter().try_for_each(|key| self.abort(key))
    }

    fn unsealed(&self, key: ShardKey) -> Result<Arc<Mutex<Unsealed>>> {
        locked(&self.unsealed).get(&key).cloned().ok_or_else(|| {
            Error::internal(format!("disk {}: {} was not begun", self.id, name_of(key)))
        })
    }

    /// Appends the cells of the next rows.
    pub fn append(&self, key: ShardKey, cells: &[Bytes]) -> Result<()> {
        let unsealed = self.unsealed(key)?;
        let mut unsealed = locked(&unsealed);
        unsealed.append(&*self.disk, cells)
    }

    /// As `append`, for cells that were long under way: they must belong where the shard ends, at byte `at` of its cells.
    ///
    /// Error: `Internal` if it ends elsewhere, because it was begun anew meanwhile.
    pub fn append_at(&self, key: ShardKey, at: u64, cells: &[Bytes]) -> Result<()> {
        let unsealed = self.unsealed(key)?;
        let mut unsealed = locked(&unsealed);
        let end = unsealed.builder.cells_bytes();
        if end != at {
            let context = format!("disk {}: {} ends at {end}, not at {at}", self.id, name_of(key));
            return Err(Error::internal(context));
        }
        unsealed.append(&*self.disk, cells)
    }

    /// Ends a shard; on return it is durable, its directories included. Answers the root of its cell hashes.
    pub fn seal(&self, key: ShardKey, seal: &Seal) -> Result<[u8; 32]> {
        let unsealed = self.unsealed(key)?;
        locked(&self.unsealed).remove(&key);
        let Ok(unsealed) = Arc::try_unwrap(unsealed) else {
            return Err(Error::internal(format!("{} is sealed while it grows", name_of(key))));
        };
        let Unsealed { file, builder } =
            unsealed.into_inner().unwrap_or_else(PoisonError::into_inner);
        let offset = HEADER_BYTES + builder.cells_bytes();
        let footer = builder.finish(seal.payload_bytes, seal.slot_table.clone());
        let footer = footer.ok_or_else(|| {
            Error::internal(format!("{} does not have the cells of its payload", name_of(key)))
        })?;
        file.write(offset, &footer.encode())?;
        file.sync_data()?;
        self.sync_directories(key)?;
        self.index.insert(key);
        let root = footer.facts.root;
        self.open.insert(key, Arc::new(OpenShard { file, footer }));
        Ok(root)
    }

    /// Makes the name durable: its directory, and those above where they are not known to be.
    fn sync_directories(&self, key: ShardKey) -> Result<()> {
        let (first, second) = directories(key);
        self.disk.sync_dir(&second)?;
        for (dir, parent) in [(second, first.as_str()), (first.clone(), SHARDS_DIR)] {
            if !locked(&self.durable_dirs).contains(&dir) {
                self.disk.sync_dir(parent)?;
                locked(&self.durable_dirs).insert(dir);
            }
        }
        Ok(())
    }

    /// Forgets a shard that was begun; fine if it was not.
    pub fn abort(&self, key: ShardKey) -> Result<()> {
        if locked(&self.unsealed).remove(&key).is_some() {
            ignore_absent(self.disk.remove(&file_name(key)))?;
        }
        Ok(())
    }

    /// Reads byte ranges of the cells; each block that a range touches is checked.
    pub fn fetch(&self, key: ShardKey, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let shard = self.open_shard(key)?;
        ranges.iter().map(|range| self.fetch_range(key, &shard, range)).collect()
    }

    /// As `fetch`, if all of it is in memory: an open shard, and bytes that the kernel keeps. Blocks on nothing. `None` says
    /// that `fetch` has to look.
    pub fn fetch_now(&self, key: ShardKey, ranges: &[Range<u64>]) -> Option<Vec<Bytes>> {
        let shard = self.open.get(&key)?;
        let range_now = |range: &Range<u64>| {
            let cover = shard.footer.cover(range)?;
            let mut buffer = vec![0; usize::try_from(cover.end - cover.start).ok()?];
            let read = shard.file.read_now(HEADER_BYTES + cover.start, &mut buffer);
            let good = read && shard.footer.check_blocks(cover.start, &buffer);
            good.then(|| cut(buffer, &cover, range))
        };
        ranges.iter().map(range_now).collect()
    }

    fn fetch_range(&self, key: ShardKey, shard: &OpenShard, range: &Range<u64>) -> Result<Bytes> {
        let cover = shard.footer.cover(range).ok_or_else(|| {
            Error::internal(format!("{}: no bytes {range:?} in its cells", name_of(key)))
        })?;
        let length = usize::try_from(cover.end - cover.start)
            .map_err(|_too_long| Error::internal("a fetch beyond the address space"))?;
        let mut buffer = vec![0; length];
        shard.file.read(HEADER_BYTES + cover.start, &mut buffer)?;
        if !shard.footer.check_blocks(cover.start, &buffer) {
            self.open.remove(&key);
            return Err(Error::corrupt(format!(
                "read {} on disk {}: a block at {range:?} fails its CRC",
                name_of(key),
                self.id
            )));
        }
        Ok(cut(buffer, &cover, range))
    }

    /// What the shard says of itself.
    pub fn stat(&self, key: ShardKey) -> Result<ShardFooter> {
        // From the disk, not from memory: the file may have gone since.
        self.open.remove(&key);
        Ok(self.open_shard(key)?.footer.facts.clone())
    }

    /// Reads everything and checks block CRCs and cell hashes.
    pub fn verify(&self, key: ShardKey) -> Result<()> {
        self.open.remove(&key);
        let shard = self.open_shard(key)?;
        let mut offset = 0u64;
        for row in 0..shard.footer.rows() {
            let length = u64::from(shard.footer.cell_length(row));
            let cell = self.fetch_range(key, &shard, &(offset..offset + length))?;
            if !shard.footer.check_cell(row, &cell) {
                return Err(Error::corrupt(format!(
                    "verify {} on disk {}: the cell of row {row} fails its hash",
                    name_of(key),
                    self.id
                )));
            }
            offset += length;
        }
        Ok(())
    }

    /// Removes shards durably, each directory synced once; fine if they are not there.
    pub fn delete_many(&self, keys: &[ShardKey]) -> Result<()> {
        let mut dirs = BTreeSet::new();
        for key in keys {
            self.forget(*key);
            match self.disk.remove(&file_name(*key)) {
                Ok(()) => drop(dirs.insert(directories(*key).1)),
                Err(error) if error.is(Posix::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        dirs.iter().try_for_each(|dir| self.disk.sync_dir(dir))
    }

    fn forget(&self, key: ShardKey) {
        self.open.remove(&key);
        self.index.remove(key);
    }

    /// Up to `limit` sealed shards behind `after`, in order.
    pub fn list(&self, after: Option<ShardKey>, limit: usize) -> Result<Vec<ShardKey>> {
        if let Some(keys) = self.index.list(after, limit) {
            return Ok(keys);
        }
        let names = self.list_names()?;
        let bases = names.iter().filter_map(|name| name.rsplit('/').next());
        let mut keys: Vec<ShardKey> = bases
            .filter_map(parse_name)
            .filter(|key| after.is_none_or(|after| *key > after))
            .filter(|key| !locked(&self.unsealed).contains_key(key))
            .collect();
        keys.sort();
        keys.truncate(limit);
        Ok(keys)
    }

    /// As `list`, of those whose files are there. The index forgets the others: somebody has deleted them.
    pub fn list_seen(&self, mut after: Option<ShardKey>, limit: usize) -> Result<Vec<ShardKey>> {
        let mut names: (String, BTreeSet<String>) = Default::default();
        loop {
            let keys = self.list(after, limit)?;
            let Some(last) = keys.last().copied() else { return Ok(keys) };
            let mut seen = Vec::with_capacity(keys.len());
            for key in keys {
                // Neighbours share a directory: it is listed once.
                let directory = directories(key).1;
                if names.0 != directory {
                    let files = self.files_in(&directory)?;
                    names = (directory, files.collect());
                }
                if names.1.contains(&base_name(key)) || self.is_there(key)? {
                    seen.push(key);
                } else {
                    self.forget(key);
                }
            }
            if !seen.is_empty() {
                return Ok(seen);
            }
            after = Some(last);
        }
    }

    /// Has the index list every shard of `part` of `ADOPT_PARTS`, the 16 directories whose first three digits it is:
    /// somebody has put back what the index does not know. Whether they are good is not looked at.
    pub fn adopt(&self, part: u16) -> Result<()> {
        let first = format!("{SHARDS_DIR}/{:02x}", part >> 4);
        let digit = format!("{:x}", part & 15);
        let seconds = match self.disk.list(&first) {
            Err(error) if error.is(Posix::NotFound) => return Ok(()),
            other => other?,
        };
        let wanted = |entry: &DiskEntry| entry.is_dir && entry.name.starts_with(&digit);
        for second in seconds.into_iter().filter(wanted) {
            let second = format!("{first}/{}", second.name);
            for name in self.files_in(&second)? {
                let Some(key) = parse_name(&name) else { continue };
                let placed = directories(key).1 == second;
                let unsealed = locked(&self.unsealed).contains_key(&key);
                if placed
                    && !unsealed
                    && self.index.has(key) == Some(false)
                    && self.is_there(key)?
                {
                    tracing::info!("disk {}: {name} was not in the index", self.id);
                    self.index.insert(key);
                }
            }
        }
        Ok(())
    }

    fn is_there(&self, key: ShardKey) -> Result<bool> {
        match self.disk.open(&file_name(key), OpenMode::Read) {
            Ok(_file) => Ok(true),
            Err(error) if error.is(Posix::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Names of the files of a directory; none if it is not there.
    fn files_in(&self, directory: &str) -> Result<impl Iterator<Item = String> + use<>> {
        let entries = match self.disk.list(directory) {
            Err(error) if error.is(Posix::NotFound) => Vec::new(),
            other => other?,
        };
        Ok(entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name))
    }

    /// Capacity of the disk.
    pub fn space(&self) -> Result<Space> {
        self.disk.space()
    }

    /// Notes that the index is complete, so that the next opening need not rebuild it.
    pub fn close(&self) {
        self.index.close(&*self.disk);
    }

    fn open_shard(&self, key: ShardKey) -> Result<Arc<OpenShard>> {
        if let Some(shard) = self.open.get(&key) {
            return Ok(shard);
        }
        let doing = || format!("read {} on disk {}", name_of(key), self.id);
        let file = self.disk.open(&file_name(key), OpenMode::Read)?;
        let (end, length, sum) =
            read_trailer(&*file).map_err(|error| error.while_doing(doing()))?;
        let mut bytes = vec![0; usize::try_from(length).map_err(|_long| Error::corrupt(doing()))?];
        file.read(end - length, &mut bytes)?;
        if crate::sum::xxh3(&bytes) != sum {
            return Err(Error::corrupt(format!("{}: the footer fails its checksum", doing())));
        }
        let (volume, footer) =
            Footer::decode(&bytes).map_err(|error| Error::from(error).while_doing(doing()))?;
        let mut header = [0; 64];
        file.read(0, &mut header)?;
        let head = file::decode_header(&header)
            .map_err(|error: FormatError| Error::from(error).while_doing(doing()))?;
        let facts = &footer.facts;
        let fits = volume == self.volume
            && head == (volume, facts.header)
            && facts.header.key == key
            && end - length == HEADER_BYTES + facts.cells_bytes;
        if !fits {
            let found = name_of(facts.header.key);
            return Err(Error::corrupt(format!("{}: the file holds {found}", doing())));
        }
        let shard = Arc::new(OpenShard { file, footer });
        self.open.insert(key, Arc::clone(&shard));
        Ok(shard)
    }
}

/// End of the footer, its length and its checksum.
fn read_trailer(file: &dyn DiskFile) -> Result<(u64, u64, u64)> {
    let length = file.len()?;
    let end = length.checked_sub(TRAILER_BYTES).ok_or(FormatError::Short)?;
    let mut trailer = [0; 32];
    file.read(end, &mut trailer)?;
    let (footer, sum) = file::decode_trailer(&trailer)?;
    if footer + HEADER_BYTES > end {
        return Err(FormatError::Short.into());
    }
    Ok((end, footer, sum))
}

/// A shard for people: `stripe.index`.
fn name_of(key: ShardKey) -> String {
    format!("shard {}.{}", key.stripe, key.index)
}

fn ignore_absent(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.is(Posix::NotFound) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests;
