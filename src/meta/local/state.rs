//! The copies of the state: their files, one copy as a store, a private overlay over one. Knows nothing of the log.
//!
//! File `meta/clean`: epoch u64 and position u64 at which the volume was closed, XXH3-64 of these 16 bytes; all little-endian.

use crate::disk::behind::BehindFile;
use crate::disk::mirror::{MirrorFile, OnDead};
use crate::disk::set::{DiskHandle, DiskSet};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::meta::command::Command;
use crate::meta::log::{SILENT, make_dir};
use crate::meta::store::Store;
use crate::sum::xxh3;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{DiskId, Epoch, LogPosition};
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
const PAGE_BYTES: usize = 4096;
const PAGE: u64 = PAGE_BYTES as u64;

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
    discard_copy(disk)?;
    disk.open(NEW_FILE, OpenMode::CreateNew)
}

/// Gives up what `begin_copy` has begun.
pub(crate) fn discard_copy(disk: &dyn Disk) -> Result<()> {
    match disk.remove(NEW_FILE) {
        Err(error) if !error.is(Posix::NotFound) => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
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
pub(crate) fn attach(mirror: &MirrorFile, handle: &DiskHandle, keep: Keep) -> Result<bool> {
    let file = beside(handle, open_copy(&*handle.disk, OpenMode::Write)?)?;
    mirror.attach(handle.id, file, keep == Keep::InMemory)
}

/// The file of a copy, written by a thread of its own: a disk that hangs must not hold up the others, and all copies
/// are written at once.
pub(crate) fn beside(handle: &DiskHandle, file: Arc<dyn DiskFile>) -> Result<Arc<dyn DiskFile>> {
    if handle.queue.is_inline() {
        return Ok(file);
    }
    Ok(Arc::new(BehindFile::start(&format!("state-{}", handle.id), file, SILENT)?))
}

/// Applies the encoded commands of the log that `tail` answers for the position of a state.
fn fill(store: &Store, tail: impl FnOnce(LogPosition) -> Result<Vec<Bytes>>) -> Result<()> {
    let mut at = store.applied();
    for bytes in tail(at)?.chunks(REPLAY_COMMANDS) {
        let commands = bytes.iter().map(|bytes| decode(bytes)).collect::<Result<Vec<_>>>()?;
        // Replies were given when the commands were proposed.
        drop(store.apply(at, &commands)?);
        at = at.advance(commands.len() as u64);
    }
    Ok(())
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

/// Where changes of the state go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keep {
    /// To its copies.
    OnDisks,
    /// Nowhere else: the copies have no room for them.
    InMemory,
}

/// The state in use.
#[derive(Clone, Debug)]
pub(crate) struct StateHandle {
    /// redb and what is in it.
    pub(crate) store: Arc<Store>,
    /// The copies below; none if the state is the private overlay of a mount that changes nothing.
    pub(crate) mirror: Option<MirrorFile>,
    /// What is kept in memory because the copies have no room for it.
    pub(crate) overlay: Option<Overlay>,
    /// Copies of these that died and have not been dealt with.
    pub(crate) deaths: Deaths,
}

/// Copies of the state that died.
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
    pub(crate) fn take(&self) -> Vec<DiskId> {
        std::mem::take(&mut *self.lock())
    }

    /// Whether there are some.
    pub(crate) fn are_there(&self) -> bool {
        !self.lock().is_empty()
    }

    /// These are to be dealt with, too.
    pub(crate) fn add(&self, disks: impl Iterator<Item = DiskId>) {
        self.lock().extend(disks);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DiskId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateHandle {
    /// Opens the copies of `mirror`, which nobody has opened yet and whose deaths are told to `deaths`, and applies what
    /// `tail` answers for the position that they are at.
    ///
    /// Error: `NoSpace` if they have no room for it.
    pub(crate) fn open(
        mirror: MirrorFile,
        deaths: Deaths,
        keep: Keep,
        cache_bytes: usize,
        tail: impl FnOnce(LogPosition) -> Result<Vec<Bytes>>,
    ) -> Result<Self> {
        let open = || match keep {
            Keep::OnDisks => {
                let store = Store::open(mirror.clone(), cache_bytes)?;
                // Before redb is dropped: that commits.
                let filled = fill(&store, tail).inspect_err(|_error| mirror.fence());
                filled.map(|()| (Arc::new(store), None))
            }
            Keep::InMemory => {
                let overlay = Overlay::over(mirror.clone())?;
                Ok((overlay.store(cache_bytes, tail)?, Some(overlay)))
            }
        };
        let (store, overlay) = open().map_err(|error| {
            mirror.fence();
            Self::why(&mirror, error)
        })?;
        Ok(Self { store, mirror: Some(mirror), overlay, deaths })
    }

    /// Disks whose copies are in use.
    pub(crate) fn used(&self) -> Vec<DiskId> {
        let replicas = self.mirror.iter().flat_map(MirrorFile::replicas);
        replicas.filter(|(_disk, alive)| *alive).map(|(disk, _alive)| disk).collect()
    }

    /// What is wrong, told apart if copies had no room for what was to be written.
    fn why(mirror: &MirrorFile, error: Error) -> Error {
        if !mirror.lacks_room() {
            return error;
        }
        Error::with_source(ErrorKind::Posix(Posix::NoSpace), "no room for more metadata", error)
    }
}

/// Copies of the state that are only read; what redb writes stays in memory. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct Overlay {
    base: MirrorFile,
    pages: Arc<Mutex<Pages>>,
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
    /// An overlay over the copy on one disk, to which nothing is written.
    pub(crate) fn open(handle: &DiskHandle, on_dead: OnDead) -> Result<Self> {
        let file = open_copy(&*handle.disk, OpenMode::Read)?;
        Self::over(MirrorFile::open(handle.id, file, on_dead)?)
    }

    fn over(base: MirrorFile) -> Result<Self> {
        let context = |error| Error::from_io("measure the state", error);
        let length = base.len().map_err(context)?;
        let pages = Pages { length, base_length: length, written: BTreeMap::new() };
        Ok(Self { base, pages: Arc::new(Mutex::new(pages)) })
    }

    /// The state on top of it, with what `tail` answers for the position of the base.
    pub(crate) fn store(
        &self,
        cache_bytes: usize,
        tail: impl FnOnce(LogPosition) -> Result<Vec<Bytes>>,
    ) -> Result<Arc<Store>> {
        let store = Store::open(self.clone(), cache_bytes)?;
        fill(&store, tail)?;
        Ok(Arc::new(store))
    }

    /// Bytes that are in memory.
    pub(crate) fn bytes(&self) -> u64 {
        self.pages().written.len() as u64 * PAGE
    }

    /// Bytes that the copies would have to grow by.
    pub(crate) fn grown_bytes(&self) -> Result<u64> {
        let base = self.base.len().map_err(|error| Error::from_io("measure the state", error))?;
        Ok(self.pages().length.saturating_sub(base))
    }

    // A page is replaced whole, so a poisoned lock is good.
    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn page(&self, pages: &Pages, page: u64) -> io::Result<Vec<u8>> {
        if let Some(written) = pages.written.get(&page) {
            return Ok(written.clone());
        }
        let mut content = vec![0; PAGE_BYTES];
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
            let skip = usize::try_from(at % PAGE).unwrap_or(0);
            let (here, behind) = rest.split_at(rest.len().min(PAGE_BYTES - skip));
            // What is replaced whole is not read: a crash may have left anything in a free page.
            let mut content = match here.len() {
                PAGE_BYTES => vec![0; PAGE_BYTES],
                _part => self.page(&pages, at / PAGE)?,
            };
            content.iter_mut().skip(skip).zip(here).for_each(|(to, from)| *to = *from);
            pages.written.insert(at / PAGE, content);
            at += here.len() as u64;
            rest = behind;
        }
        Ok(())
    }
}
