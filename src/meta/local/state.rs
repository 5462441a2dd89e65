//! The copies of the state: their files, one copy as a store, a private overlay over one. Knows nothing of the log.
//!
//! File `meta/clean`: epoch u64 and position u64 at which the volume was closed, XXH3-64 of these 16 bytes; all little-endian.

use crate::disk::behind::BehindFile;
use crate::disk::mirror::{MirrorFile, OnDead};
use crate::disk::set::DiskHandle;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Posix, Result};
use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::meta::command::Command;
use crate::meta::log::{SILENT, make_dir};
use crate::meta::store::Store;
use crate::sum::xxh3;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{Epoch, LogPosition};
use bytes::Bytes;
use redb::StorageBackend;
use std::collections::BTreeMap;
use std::io;

/// Directory of the state on a disk.
const STATE_DIR: &str = "meta";
/// The copy of the state that counts.
const STATE_FILE: &str = "meta/state.redb";
/// A copy that is being made.
const NEW_FILE: &str = "meta/state.new";
/// Says that the volume was closed, at which epoch and position.
const CLEAN_FILE: &str = "meta/clean";
/// Most commands that are replayed in one transaction: bounds redb's memory.
const REPLAY_COMMANDS: usize = 1000;
/// Unit of the overlay.
const PAGE: u64 = 4096;

/// Creates the file of a copy that counts at once: for a new volume.
pub(crate) fn create_copy(disk: &dyn Disk) -> Result<Arc<dyn DiskFile>> {
    make_dir(disk, STATE_DIR)?;
    let file = disk.open(STATE_FILE, OpenMode::CreateNew)?;
    disk.sync_dir(STATE_DIR)?;
    Ok(file)
}

/// The file of the copy that counts.
pub(crate) fn open_copy(disk: &dyn Disk, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
    disk.open(STATE_FILE, mode)
}

/// A new file for a copy beside the one that counts, which stays as it is until `promote`.
pub(crate) fn begin_copy(disk: &dyn Disk) -> Result<Arc<dyn DiskFile>> {
    make_dir(disk, STATE_DIR)?;
    match disk.remove(NEW_FILE) {
        Ok(()) => {}
        Err(error) if error.is(Posix::NotFound) => {}
        Err(error) => return Err(error),
    }
    disk.open(NEW_FILE, OpenMode::CreateNew)
}

/// Makes the finished new copy the one that counts; durable on return.
pub(crate) fn promote(disk: &dyn Disk) -> Result<()> {
    disk.rename(NEW_FILE, STATE_FILE)?;
    disk.sync_dir(STATE_DIR)
}

/// Notes that the volume was closed at `epoch` and `position`.
pub(crate) fn write_clean(disk: &dyn Disk, epoch: Epoch, position: LogPosition) -> Result<()> {
    let note = encode_clean(epoch, position);
    let file = match disk.open(CLEAN_FILE, OpenMode::Write) {
        Err(error) if error.is(Posix::NotFound) => disk.open(CLEAN_FILE, OpenMode::CreateNew)?,
        other => other?,
    };
    file.write(0, &note)?;
    file.sync_data()?;
    disk.sync_dir(STATE_DIR)
}

/// Epoch and position at which the volume was last closed, as far as this disk knows.
pub(crate) fn read_clean(disk: &dyn Disk) -> Option<(Epoch, LogPosition)> {
    let mut bytes = [0; 24];
    // A disk that cannot tell has not seen the volume closed: recovery does no harm.
    disk.open(CLEAN_FILE, OpenMode::Read).and_then(|file| file.read(0, &mut bytes)).ok()?;
    decode_clean(&bytes).ok()
}

/// Bytes of the file that says where the volume was closed.
pub fn encode_clean(epoch: Epoch, position: LogPosition) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.u64(epoch.get());
    writer.u64(position.get());
    writer.u64(xxh3(writer.as_slice()));
    writer.into_vec()
}

/// Reads what `encode_clean` wrote.
///
/// Error: `Sum` if it is not what was written, `Short` if it is cut.
pub fn decode_clean(bytes: &[u8]) -> Decoded<(Epoch, LogPosition)> {
    let mut reader = Reader::new(bytes);
    let summed = reader.take(16)?;
    if xxh3(summed) != reader.u64()? {
        return Err(FormatError::Sum);
    }
    let mut fields = Reader::new(summed);
    Ok((Epoch(fields.u64()?), LogPosition(fields.u64()?)))
}

/// The state on one disk as a mirror with one replica.
pub(crate) fn open_mirror(handle: &DiskHandle, on_dead: OnDead) -> Result<MirrorFile> {
    let file = beside(handle, open_copy(&*handle.disk, OpenMode::Write)?)?;
    MirrorFile::open(handle.id, file, on_dead)
}

/// Takes the copy on a further disk into `mirror`, which nobody has opened yet, if it is equal.
pub(crate) fn attach(mirror: &MirrorFile, handle: &DiskHandle) -> Result<bool> {
    let file = beside(handle, open_copy(&*handle.disk, OpenMode::Write)?)?;
    mirror.attach(handle.id, file)
}

/// The file of a copy, written by a thread of its own: a disk that hangs must not hold up the others, and all copies
/// are written at once.
pub(crate) fn beside(handle: &DiskHandle, file: Arc<dyn DiskFile>) -> Result<Arc<dyn DiskFile>> {
    if handle.queue.is_inline() {
        return Ok(file);
    }
    Ok(Arc::new(BehindFile::start(&format!("state-{}", handle.id), file, SILENT)?))
}

/// Applies encoded commands of the log.
pub(crate) fn replay<'a>(
    store: &Store,
    first: LogPosition,
    commands: impl Iterator<Item = &'a Bytes>,
) -> Result<()> {
    let mut at = first;
    let mut batch = Vec::new();
    let flush = |at: &mut LogPosition, batch: &mut Vec<Command>| -> Result<()> {
        // Replies were given when the commands were proposed.
        drop(store.apply(*at, batch)?);
        *at = at.advance(batch.len() as u64);
        batch.clear();
        Ok(())
    };
    for bytes in commands {
        batch.push(decode(bytes)?);
        if batch.len() == REPLAY_COMMANDS {
            flush(&mut at, &mut batch)?;
        }
    }
    if batch.is_empty() { Ok(()) } else { flush(&mut at, &mut batch) }
}

/// The stored form of a command.
pub(crate) fn encode(command: &Command) -> Bytes {
    let mut writer = Writer::new();
    command.encode(&mut writer);
    writer.into_vec().into()
}

fn decode(bytes: &[u8]) -> Result<Command> {
    let mut reader = Reader::new(bytes);
    let command = Command::decode(&mut reader)?;
    reader.finish()?;
    Ok(command)
}

/// A copy of the state that is read only; what redb writes stays in memory.
#[derive(Debug)]
pub(crate) struct Overlay {
    base: MirrorFile,
    pages: Mutex<Pages>,
}

#[derive(Debug)]
struct Pages {
    /// Length as redb sees it.
    length: u64,
    /// Bytes before this are the base's unless they were written.
    base_length: u64,
    written: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    /// An overlay over the copy on one disk.
    pub(crate) fn open(handle: &DiskHandle, on_dead: OnDead) -> Result<Self> {
        let file = open_copy(&*handle.disk, OpenMode::Read)?;
        let base = MirrorFile::open(handle.id, file, on_dead)?;
        let context = |error| Error::from_io("measure the state", error);
        let length = base.len().map_err(context)?;
        let pages = Pages { length, base_length: length, written: BTreeMap::new() };
        Ok(Self { base, pages: Mutex::new(pages) })
    }

    // A page is replaced whole, so a poisoned lock is good.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, pages: &Pages, page: u64) -> io::Result<Vec<u8>> {
        if let Some(written) = pages.written.get(&page) {
            return Ok(written.clone());
        }
        let mut content = vec![0; 4096];
        if (page + 1) * PAGE <= pages.base_length {
            self.base.read(page * PAGE, &mut content)?;
        }
        Ok(content)
    }
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.pages().length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let pages = self.pages();
        let mut at = offset;
        let mut rest = out;
        while !rest.is_empty() {
            let content = self.page(&pages, at / PAGE)?;
            let skip = usize::try_from(at % PAGE).unwrap_or(0);
            let length = rest.len().min(content.len() - skip);
            let (here, behind) = rest.split_at_mut(length);
            here.iter_mut().zip(content.iter().skip(skip)).for_each(|(to, from)| *to = *from);
            at += length as u64;
            rest = behind;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let mut pages = self.pages();
        pages.length = length;
        pages.base_length = pages.base_length.min(length);
        drop(pages.written.split_off(&length.div_ceil(PAGE)));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut pages = self.pages();
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let mut content = self.page(&pages, at / PAGE)?;
            let skip = usize::try_from(at % PAGE).unwrap_or(0);
            let (here, behind) = rest.split_at(rest.len().min(content.len() - skip));
            content.iter_mut().skip(skip).zip(here).for_each(|(to, from)| *to = *from);
            pages.written.insert(at / PAGE, content);
            at += here.len() as u64;
            rest = behind;
        }
        Ok(())
    }
}
