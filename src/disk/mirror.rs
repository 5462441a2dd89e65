//! redb's storage on several disks at once: every replica gets the same writes, and reads are checked, so the state
//! survives as long as one replica is good. Knows nothing of tables, commands or the log.
//!
//! Layout of a replica, in pages of 4 KiB (logical pages are redb's):
//!
//! | physical page | meaning |
//! |---|---|
//! | 0 | bytes 0..504: the same bytes of logical page 0, which holds redb's header of 320 bytes; bytes 504..512: XXH3-64 of these, mixed with a constant, so that header and sum are one sector; the rest is zero and unused |
//! | 1 + 513 g | sums of group g: 512 sums of 8 bytes, for the pages that follow |
//! | 1 + 513 g + 1 + i | logical page 1 + 512 g + i, for i in 0..512 |
//!
//! A page's sum is XXH3-64 of its bytes mixed with its number; 0 stands for a page of zeros that was never written.
//! All integers are little-endian. The logical length follows from the length of the file.
//! Versions: the layout has none of its own; it is part of the format that the superblock's version names.
//!
//! Why a crash does no harm: redb never overwrites a page that its last durable header needs, and a sum page is
//! overwritten only in sums of such free pages, so its sectors may be old or new. `sync_data` makes pages and sums
//! durable on all replicas before the first header is written. Headers are then written and synced one replica after
//! the other, so that at most one is in flight. This is stricter than what redb asks for (all that was written before
//! a sync is durable after it), so its two-phase commit keeps its meaning. Pages torn by a crash may fail their
//! check, but redb never reads them.
//!
//! Assumed of the medium: a sector of 512 bytes is written whole or not at all; a sync that succeeded is true.

use crate::disk::DiskFile;
use crate::error::{Error, ErrorKind, Posix, Result};
// redb calls this with locks of std in its hands: shuttle must not go on to another thread here.
use crate::types::DiskId;
use layout::{
    GROUP_PAGES, HEADER_BYTES, Header, LENGTH_MAX, PAGE, PAGE_BYTES, SECTOR_BYTES, Sums,
    check_pages, logical_pages, open_header, page_offset, page_sum, replica_bytes, run_length,
    seal_header, sum_offset,
};
use replica::Replica;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
};
use std::time::Duration;

mod layout;
mod replica;
#[cfg(test)]
mod tests;

/// Most replicas: the log is on 1 + m disks, m at most 16.
pub const REPLICAS_MAX: usize = 17;
/// How long a read waits for one replica before it asks another: far above what a busy disk takes for a page, and a
/// reader of files waits for it.
const PATIENCE: Duration = Duration::from_millis(300);
/// Most pages that one `copy_step` copies: readers and writers wait for it.
const COPY_PAGES_MAX: u64 = 1024;

/// Is told of each replica that died, and why; without any lock held, from the thread that met the error.
pub type OnDead = Arc<dyn Fn(DiskId, &Error) + Send + Sync>;

/// A file of redb on 1 to 17 disks. Clones are the same file: one goes to redb, another stays with the owner of the
/// disks.
///
/// A replica that fails a read, a check, a write or a sync is dead from then on. Reads go on as long as one replica
/// has the bytes; when the last one fails, redb gets the error and must be reopened.
#[derive(Clone, Debug)]
pub struct MirrorFile {
    shared: Arc<Shared>,
}

struct Shared {
    pages: RwLock<Pages>,
    /// Held by whoever syncs or finishes a join; taken before `pages`.
    syncing: Mutex<()>,
    fenced: AtomicBool,
    /// Whether growth goes on with the replicas that have room for it.
    may_lose_copies: AtomicBool,
    on_dead: OnDead,
}

/// What is true of all replicas. Writers hold it exclusively while they write, so that page and sum change together
/// for readers; syncs hold nothing while they wait for devices.
#[derive(Debug)]
struct Pages {
    /// Logical pages.
    count: u64,
    sums: Sums,
    /// Newest header; written to the replicas by the next sync.
    header: Header,
    /// Header on the replicas.
    synced_header: Header,
    replicas: Vec<Arc<Replica>>,
    joining: Option<Joining>,
}

/// A replica that is being filled: it gets all writes, and counts for nothing yet.
#[derive(Debug)]
struct Joining {
    replica: Arc<Replica>,
    /// Logical pages before this one are copied.
    next: u64,
}

/// Replicas that died in the course of one call.
type Deaths = Vec<(DiskId, Error)>;

impl MirrorFile {
    /// A new, empty file on `replicas` (1 to 17 of them), whatever these files held before. The caller makes their
    /// directory entries durable.
    pub fn create(replicas: Vec<(DiskId, Arc<dyn DiskFile>)>, on_dead: OnDead) -> Result<Self> {
        if replicas.is_empty() || replicas.len() > REPLICAS_MAX {
            return Err(Error::internal(format!("{} replicas of the state", replicas.len())));
        }
        for (_disk, file) in &replicas {
            file.set_len(0)?;
        }
        let header = [0; HEADER_BYTES];
        Ok(Self::with_pages(replicas, 0, Sums::default(), header, on_dead))
    }

    /// The file as one replica has it; others are added as copies of it.
    ///
    /// Errors: `Corrupt` if the replica was never completed or its header is bad.
    pub fn open(disk: DiskId, file: Arc<dyn DiskFile>, on_dead: OnDead) -> Result<Self> {
        let context =
            |error: Error| error.while_doing(format!("open the state copy on disk {disk}"));
        let count = logical_pages(file.len()?);
        if count == 0 || count > LENGTH_MAX / PAGE {
            return Err(context(Error::corrupt(format!("it has {count} pages"))));
        }
        let mut sector = [0; SECTOR_BYTES];
        file.read(0, &mut sector).map_err(context)?;
        let header = open_header(&sector).map_err(context)?;
        // redb makes a file shorter only behind the header that says so; it panics over one that was cut off.
        let told = layout::told_bytes(&header).map_err(|error| context(error.into()))?;
        if count * PAGE < told {
            let context_of = format!("it has {} bytes, its header tells of {told}", count * PAGE);
            return Err(context(Error::corrupt(context_of)));
        }
        let mut sums = Sums::default();
        sums.resize(count);
        let mut page = vec![0; PAGE_BYTES];
        for group in 0..sums.groups() {
            file.read(sum_offset(group), &mut page).map_err(context)?;
            sums.load(group, &page);
        }
        Ok(Self::with_pages(vec![(disk, file)], count, sums, header, on_dead))
    }

    fn with_pages(
        replicas: Vec<(DiskId, Arc<dyn DiskFile>)>,
        count: u64,
        sums: Sums,
        header: Header,
        on_dead: OnDead,
    ) -> Self {
        let replicas = replicas.into_iter().map(|(disk, file)| Replica::new(disk, file)).collect();
        let synced_header = header;
        let pages = Pages { count, sums, header, synced_header, replicas, joining: None };
        let shared = Shared {
            pages: RwLock::new(pages),
            syncing: Mutex::new(()),
            fenced: AtomicBool::new(false),
            may_lose_copies: AtomicBool::new(false),
            on_dead,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Refuses all that comes later: reads, writes, syncs. A call under way stops at its next step.
    pub fn fence(&self) {
        self.shared.fenced.store(true, Ordering::SeqCst);
    }

    /// Growth that some replicas have no room for fails, unless others may take their place: then these die.
    pub fn set_may_lose_copies(&self, may: bool) {
        self.shared.may_lose_copies.store(may, Ordering::SeqCst);
    }

    /// The disks of all replicas, and whether they are alive. One that is joining is not among them.
    pub fn replicas(&self) -> Vec<(DiskId, bool)> {
        let pages = self.shared.read();
        pages.replicas.iter().map(|replica| (replica.disk, replica.is_alive())).collect()
    }

    /// Whether a replica died because its disk has no room. What it held when it was last synced is as good as before.
    pub fn lacks_room(&self) -> bool {
        self.shared.read().replicas.iter().any(|replica| replica.full.load(Ordering::SeqCst))
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        self.shared.read().count * PAGE
    }

    /// Bytes of the file, those of them that were never written, and the disks of the replicas that are alive. `None` while
    /// it is being written: that may take as long as a disk is silent.
    pub fn look(&self) -> Option<(u64, u64, Vec<DiskId>)> {
        let pages = match self.shared.pages.try_read() {
            Ok(pages) => pages,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let alive = pages.replicas.iter().filter(|replica| replica.is_alive());
        let alive = alive.map(|replica| replica.disk).collect();
        Some((pages.count * PAGE, pages.sums.unused() * PAGE, alive))
    }

    /// Takes a further replica that is a copy already: its header is the same, so the pages that count are too.
    /// Only before redb opens this file. Answers false, and leaves `file` as it is, if it is no copy.
    /// With `as_is` nothing may be written to either: the file keeps its length.
    pub fn attach(&self, disk: DiskId, file: Arc<dyn DiskFile>, as_is: bool) -> Result<bool> {
        let _one = self.shared.sync_lock();
        let mut sector = [0; SECTOR_BYTES];
        file.read(0, &mut sector)?;
        let mut pages = self.shared.write();
        let same = open_header(&sector).is_ok_and(|header| header == pages.synced_header);
        if !same || pages.replicas.len() >= REPLICAS_MAX {
            return Ok(false);
        }
        // A crash may have cut only some of the files to their new length; what counts is within the shorter one.
        if as_is {
            let own = logical_pages(file.len()?).min(pages.count);
            if own * PAGE < layout::told_bytes(&pages.synced_header)? {
                return Ok(false);
            }
            pages.count = own;
            pages.sums.resize(own);
        } else {
            file.set_len(replica_bytes(pages.count))?;
        }
        pages.replicas.push(Replica::new(disk, file));
        Ok(true)
    }

    /// Starts a further replica in `file`, whatever it held before. It gets all writes from now on; what was there
    /// before follows by `copy_step`, and it counts from `finish` on. One at a time.
    pub fn add_replica(&self, disk: DiskId, file: Arc<dyn DiskFile>) -> Result<()> {
        let _one = self.shared.sync_lock();
        self.shared.check_fence()?;
        let mut pages = self.shared.write();
        let known = pages.replicas.iter().any(|replica| replica.disk == disk);
        if pages.joining.is_some() || known || pages.replicas.len() >= REPLICAS_MAX {
            return Err(Error::internal(format!(
                "disk {disk} cannot join the state's replicas now"
            )));
        }
        file.set_len(0)?;
        file.set_len(replica_bytes(pages.count))?;
        pages.joining = Some(Joining { replica: Replica::new(disk, file), next: 1 });
        Ok(())
    }

    /// Copies up to `max_pages` pages to the replica that is joining. Answers whether all are copied. After an error
    /// nothing is joining any more, and the file is as good as before.
    pub fn copy_step(&self, max_pages: u64) -> Result<bool> {
        self.shared.check_fence()?;
        let mut deaths = Deaths::new();
        let result = self.shared.write().copy(max_pages.clamp(1, COPY_PAGES_MAX), &mut deaths);
        self.shared.bury(deaths);
        result
    }

    /// Makes the replica that is joining count: durable on return. After an error nothing is joining any more.
    pub fn finish(&self) -> Result<()> {
        let _one = self.shared.sync_lock();
        self.shared.check_fence()?;
        let (replica, header) = {
            let pages = self.shared.read();
            let joining = pages.joining.as_ref().filter(|joining| joining.next >= pages.count);
            let joining = joining.ok_or_else(|| Error::internal("no replica is copied in full"))?;
            for group in 0..pages.sums.groups() {
                // On failure the joiner stays half done; it is dropped below.
                if let Err(error) = joining.replica.write_sums(group, &pages.sums) {
                    drop(pages);
                    return Err(self.give_up_joining(error));
                }
            }
            (joining.replica.clone(), pages.synced_header)
        };
        // Writes that come in meanwhile reach this replica too, and the next sync brings their sums.
        let file = &replica.file;
        let header = seal_header(&header);
        let sealed = file.sync_data().and_then(|()| file.write(0, &header));
        if let Err(error) = sealed.and_then(|()| file.sync_data()) {
            return Err(self.give_up_joining(error));
        }
        let mut pages = self.shared.write();
        match pages.joining.take() {
            Some(joining) => pages.replicas.push(joining.replica),
            None => return Err(Error::unavailable("the joining replica died")),
        }
        Ok(())
    }

    /// Forgets a replica, dead or alive, or the one that is joining. The last one alive stays: `Refused`.
    pub fn remove_replica(&self, disk: DiskId) -> Result<()> {
        let _one = self.shared.sync_lock();
        let mut pages = self.shared.write();
        if pages.joining.as_ref().is_some_and(|joining| joining.replica.disk == disk) {
            pages.joining = None;
        }
        let other = |replica: &Arc<Replica>| replica.disk != disk;
        if !pages.replicas.iter().any(|replica| other(replica) && replica.is_alive()) {
            return Err(Error::refused(format!("disk {disk} has the only copy of the state")));
        }
        pages.replicas.retain(other);
        Ok(())
    }

    /// Asks each replica whether its file can be used still. One that cannot be is dead, and nobody is told: for whoever
    /// knows that disks were away.
    pub fn look_at_files(&self) {
        let replicas = self.shared.read().replicas.clone();
        for replica in replicas.iter().filter(|replica| replica.file.len().is_err()) {
            replica.alive.store(false, Ordering::SeqCst);
        }
    }

    fn give_up_joining(&self, error: Error) -> Error {
        let joining = self.shared.write().joining.take();
        let died = joining.map(|joining| (joining.replica.disk, error.clone()));
        self.shared.bury(died.into_iter().collect());
        error
    }
}

impl redb::StorageBackend for MirrorFile {
    fn len(&self) -> io::Result<u64> {
        self.shared.check_fence().map_err(to_io)?;
        Ok(self.shared.read().count * PAGE)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.shared.check_fence().map_err(to_io)?;
        let mut deaths = Deaths::new();
        let result = self.shared.read().fetch(offset, out, &mut deaths);
        self.shared.bury(deaths);
        result.map_err(to_io)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let may_lose = self.shared.may_lose_copies.load(Ordering::SeqCst);
        self.shared.change(|pages, deaths| pages.set_len(length, may_lose, deaths)).map_err(to_io)
    }

    fn sync_data(&self) -> io::Result<()> {
        let _one = self.shared.sync_lock();
        let mut deaths = Deaths::new();
        let result = self.shared.sync(&mut deaths);
        self.shared.bury(deaths);
        result.map_err(to_io)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.shared.change(|pages, deaths| pages.put(offset, data, deaths)).map_err(to_io)
    }
}

impl Shared {
    fn change(&self, work: impl FnOnce(&mut Pages, &mut Deaths) -> Result<()>) -> Result<()> {
        let mut deaths = Deaths::new();
        let result = {
            let mut pages = self.write();
            self.check_fence().and_then(|()| work(&mut pages, &mut deaths))
        };
        self.bury(deaths);
        result
    }

    /// Sums and pages first, on all replicas; then the header, one replica after the other.
    fn sync(&self, deaths: &mut Deaths) -> Result<()> {
        self.check_fence()?;
        let (replicas, header, changed) = {
            let mut pages = self.write();
            let dirty = pages.sums.take_dirty();
            for group in dirty {
                pages.on_all(deaths, |replica| replica.write_sums(group, &pages.sums));
            }
            (pages.replicas.clone(), pages.header, pages.header != pages.synced_header)
        };
        for replica in &replicas {
            if replica.attempt(deaths, |replica| replica.file.sync_data()) {
                replica.late.store(false, Ordering::Relaxed);
            }
        }
        if changed && replicas.iter().any(|replica| replica.is_alive()) {
            let sector = seal_header(&header);
            for replica in &replicas {
                self.check_fence()?;
                replica.attempt(deaths, |replica| {
                    replica.file.write(0, &sector)?;
                    replica.file.sync_data()
                });
            }
            self.write().synced_header = header;
        }
        some_alive(&replicas, deaths)
    }

    fn check_fence(&self) -> Result<()> {
        if self.fenced.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Fenced, "the state is fenced: input/output error"));
        }
        Ok(())
    }

    fn bury(&self, deaths: Deaths) {
        for (disk, error) in deaths {
            (self.on_dead)(disk, &error);
        }
    }

    // A thread that panics in here leaves at worst sums that do not fit, which readers find: a poisoned lock is good.
    fn read(&self) -> RwLockReadGuard<'_, Pages> {
        self.pages.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pages> {
        self.pages.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn sync_lock(&self) -> MutexGuard<'_, ()> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("pages", &self.pages).finish_non_exhaustive()
    }
}

impl Pages {
    /// Fills `out` from the first replica whose bytes check.
    fn fetch(&self, offset: u64, out: &mut [u8], deaths: &mut Deaths) -> Result<()> {
        let end = offset.checked_add(out.len() as u64);
        if end.is_none_or(|end| end > self.count * PAGE) {
            return Err(Error::internal(format!("read at {offset} beyond the end of the state")));
        }
        let (offset, out) = self.fetch_header(offset, out);
        if out.is_empty() {
            return Ok(());
        }
        let several = self.replicas.len() > 1;
        for replica in self.replicas.iter().filter(|replica| several && !replica.is_late()) {
            let mut read = false;
            let attempted = replica.attempt(deaths, |replica| {
                read = replica.read(offset, out, &self.sums, Some(PATIENCE))?;
                Ok(())
            });
            if read {
                return Ok(());
            }
            replica.late.store(attempted, Ordering::Relaxed);
        }
        for replica in &self.replicas {
            let read = |replica: &Replica| replica.read(offset, out, &self.sums, None).map(drop);
            if replica.attempt(deaths, read) {
                return Ok(());
            }
        }
        some_alive(&[], deaths)
    }

    /// Fills what lies in page 0 from memory; answers what is left.
    fn fetch_header<'a>(&self, offset: u64, out: &'a mut [u8]) -> (u64, &'a mut [u8]) {
        let Some(start) = usize::try_from(offset).ok().filter(|start| *start < PAGE_BYTES) else {
            return (offset, out);
        };
        let (here, rest) = out.split_at_mut(out.len().min(PAGE_BYTES - start));
        let page = self.header.iter().chain(std::iter::repeat(&0));
        here.iter_mut().zip(page.skip(start)).for_each(|(to, from)| *to = *from);
        (PAGE, rest)
    }

    fn put(&mut self, offset: u64, data: &[u8], deaths: &mut Deaths) -> Result<()> {
        let end = offset.checked_add(data.len() as u64);
        if end.is_none_or(|end| end > self.count * PAGE) {
            return Err(Error::internal(format!("write at {offset} beyond the end of the state")));
        }
        let (offset, data) = self.put_header(offset, data)?;
        let (pages, odd) = data.as_chunks::<PAGE_BYTES>();
        if !offset.is_multiple_of(PAGE) || !odd.is_empty() {
            return Err(Error::internal(format!(
                "write of {} bytes at {offset} is not of whole pages",
                data.len()
            )));
        }
        let (mut page, mut pages) = (offset / PAGE, pages);
        while !pages.is_empty() {
            let length = run_length(page, pages.len() as u64);
            let length = usize::try_from(length).unwrap_or(pages.len());
            let (run, rest) = pages.split_at(length);
            for (number, content) in (page..).zip(run) {
                self.sums.set(number, page_sum(number, content));
            }
            self.on_all(deaths, |replica| {
                replica.file.write(page_offset(page), run.as_flattened())
            });
            self.on_joining(deaths, |replica| {
                replica.file.write(page_offset(page), run.as_flattened())
            });
            page += length as u64;
            pages = rest;
        }
        some_alive(&self.replicas, deaths)
    }

    /// Takes what lies in page 0 into memory, where the next sync finds it; answers what is left.
    fn put_header<'a>(&mut self, offset: u64, data: &'a [u8]) -> Result<(u64, &'a [u8])> {
        let Some(start) = usize::try_from(offset).ok().filter(|start| *start < PAGE_BYTES) else {
            return Ok((offset, data));
        };
        let (here, rest) = data.split_at(data.len().min(PAGE_BYTES - start));
        for (at, byte) in (start..).zip(here) {
            match self.header.get_mut(at) {
                Some(place) => *place = *byte,
                None if *byte == 0 => {}
                None => {
                    return Err(Error::internal(format!(
                        "redb wrote {byte} at byte {at} of page 0, expected nothing behind its header"
                    )));
                }
            }
        }
        Ok((PAGE, rest))
    }

    fn set_len(&mut self, length: u64, may_lose: bool, deaths: &mut Deaths) -> Result<()> {
        if !length.is_multiple_of(PAGE) || length > LENGTH_MAX {
            return Err(Error::internal(format!("the state cannot have {length} bytes")));
        }
        let (before, count) = (self.count, length / PAGE);
        self.on_all(deaths, |replica| replica.file.set_len(replica_bytes(count)));
        if !may_lose && deaths.iter().any(|(_disk, error)| error.is(Posix::NoSpace)) {
            // To go on with fewer copies is not decided here: it is as if none had room.
            for replica in self.replicas.iter().filter(|replica| replica.is_alive()) {
                replica.alive.store(false, Ordering::SeqCst);
                // A file that stays too long is as good, but takes room that others may need.
                drop(replica.file.set_len(replica_bytes(before)));
            }
            return Err(lost(deaths));
        }
        self.on_joining(deaths, |replica| replica.file.set_len(replica_bytes(count)));
        self.sums.resize(count);
        self.count = count;
        if let Some(joining) = &mut self.joining {
            // Pages that are new are zero in every replica: nothing to copy.
            let done = joining.next >= before;
            joining.next = if done { count.max(1) } else { joining.next.min(count) };
        }
        some_alive(&self.replicas, deaths)
    }

    fn copy(&mut self, max_pages: u64, deaths: &mut Deaths) -> Result<bool> {
        let nothing = || Error::internal("no replica is joining");
        let joining = self.joining.as_ref().ok_or_else(nothing)?;
        let (target, mut next) = (joining.replica.clone(), joining.next);
        let end = self.count.min(next + max_pages);
        while next < end {
            let length = run_length(next, end - next);
            // Pages that were never written are zero in the new file already.
            if (next..next + length).any(|page| self.sums.get(page) != 0) {
                let content = self.fetch_raw(next, length, deaths)?;
                if let Err(error) = target.file.write(page_offset(next), &content) {
                    self.joining = None;
                    deaths.push((target.disk, error.clone()));
                    return Err(error);
                }
            }
            next += length;
        }
        if let Some(joining) = &mut self.joining {
            joining.next = next;
        }
        Ok(next >= self.count)
    }

    /// Pages as they are, for a copy: from the first replica where they check, if any. A free page that a crash has
    /// torn checks nowhere; its copy does not check either, so it stays known as bad.
    fn fetch_raw(&self, first: u64, count: u64, deaths: &mut Deaths) -> Result<Vec<u8>> {
        let bytes = usize::try_from(count * PAGE).unwrap_or(0);
        let mut best: Option<Vec<u8>> = None;
        for replica in &self.replicas {
            let mut content = vec![0; bytes];
            if !replica.attempt(deaths, |r| r.file.read(page_offset(first), &mut content)) {
                continue;
            }
            if check_pages(first, &content, &self.sums).is_ok() {
                return Ok(content);
            }
            match &mut best {
                None => best = Some(content),
                Some(best) => merge_good(first, best, &content, &self.sums),
            }
        }
        best.ok_or_else(|| lost(deaths))
    }

    /// Does `work` on every replica that is alive; one where it fails is dead.
    fn on_all(&self, deaths: &mut Deaths, work: impl Fn(&Replica) -> Result<()>) {
        for replica in &self.replicas {
            replica.attempt(deaths, &work);
        }
    }

    fn on_joining(&mut self, deaths: &mut Deaths, work: impl Fn(&Replica) -> Result<()>) {
        if let Some(joining) = &self.joining
            && !joining.replica.attempt(deaths, work)
        {
            self.joining = None;
        }
    }
}

/// Replaces pages of `best` that do not check by those of `other` that do.
fn merge_good(first: u64, best: &mut [u8], other: &[u8], sums: &Sums) {
    let pairs = best.chunks_mut(PAGE_BYTES).zip(other.chunks(PAGE_BYTES));
    for (page, (best, other)) in (first..).zip(pairs) {
        let good = |content: &[u8]| check_pages(page, content, sums).is_ok();
        if !good(best) && good(other) {
            best.copy_from_slice(other);
        }
    }
}

fn some_alive(replicas: &[Arc<Replica>], deaths: &Deaths) -> Result<()> {
    if replicas.iter().any(|replica| replica.is_alive()) { Ok(()) } else { Err(lost(deaths)) }
}

/// The error when no replica is left: the last one's, if it died just now.
fn lost(deaths: &Deaths) -> Error {
    match deaths.last() {
        Some((_disk, error)) => error.clone(),
        None => Error::unavailable("no copy of the state is left"),
    }
}

fn to_io(error: Error) -> io::Error {
    let full = error.is(Posix::NoSpace);
    let kind = if full { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
    io::Error::new(kind, error)
}

const _: () = assert!(GROUP_PAGES == 512);
