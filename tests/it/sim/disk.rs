//! Simulated disks of one machine. They answer inline, take faults, and keep a journal from which the state after a
//! power cut at any moment can be built. Knows nothing of what the stores keep on them.
//!
//! Rules of the medium. `sync_data` makes content and length of a file durable, not its name; `sync_dir` makes
//! the names in one directory durable, not their content and not the directory's own name; a rename is atomic, and
//! certain once both directories are synced. Whatever is not synced may be there after a power cut or not, each
//! operation by itself, and a write may be torn between sectors of 512 bytes. After a failed sync nothing that it
//! covered becomes certain any more, although it can be read and later syncs succeed.

use ironfs::disk::Disk;
use ironfs::error::{Posix, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[path = "disk/crash.rs"]
mod crash;
#[path = "disk/handle.rs"]
mod handle;
#[path = "disk/image.rs"]
mod image;
#[cfg(test)]
#[path = "disk/tests.rs"]
mod tests;

pub use crash::{Choice, CrashState, CrashStates, Image, SimRng};
pub use image::{FileId, Op};

use crash::{Cut, TailRecord};
use handle::SimDisk;
use image::{DiskImage, Node, parent, to_u64, to_usize};

/// Size of a disk unless a test sets it.
const CAPACITY_BYTES: u64 = 1 << 40;
/// What a file takes is a multiple of this.
const ALLOCATION_BYTES: u64 = 4096;

/// Inode numbers of roots that replaced another begin here.
const WIPED_INODE: u64 = 1000;

/// Calls that a fault can be aimed at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Call {
    /// `open` of a file that exists.
    Open,
    /// `open` with `CreateNew`.
    Create,
    /// `read`.
    Read,
    /// `write`.
    Write,
    /// `set_len`.
    SetLen,
    /// `sync_data`.
    SyncData,
    /// `sync_data` of a file below `shards`, or else it counts as `SyncData`.
    SyncShard,
    /// `sync_dir`.
    SyncDir,
    /// `remove`.
    Remove,
    /// `rename`.
    Rename,
}

/// What happens to a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    /// It fails as `Unavailable`. A sync then leaves in doubt for ever what it covered.
    Fail,
    /// A sync that claims success and does nothing: the planted bug of a harness.
    Skip,
}

#[derive(Clone, Debug)]
struct Record {
    disk: usize,
    op: Op,
    /// Journal position of the sync that made it durable (or its own, if it never was in doubt).
    settled: Option<usize>,
}

#[derive(Debug)]
struct DiskState {
    live: Arc<DiskImage>,
    used_bytes: u64,
    capacity_bytes: u64,
    inode: u64,
    offline: bool,
    faults: BTreeMap<Call, (Fault, u32)>,
    holder: Option<(u64, String)>,
    /// Open files, and how many handles each has.
    open: BTreeMap<FileId, u32>,
    /// Journal positions of content in doubt, by file.
    pending_content: BTreeMap<FileId, Vec<usize>>,
    /// Journal positions of names in doubt, with the directories that have to be synced.
    pending_names: Vec<(usize, Vec<String>)>,
    /// Files that no power cut can bring back.
    gone: BTreeSet<FileId>,
    /// Files with names that will be in doubt for ever.
    doubtful: BTreeSet<FileId>,
}

#[derive(Debug)]
struct State {
    disks: Vec<DiskState>,
    base: Vec<Arc<DiskImage>>,
    journal: Vec<Record>,
    /// The journal up to a position applied to `base`, all of it certain at a power cut at the other position.
    settled: (usize, usize, Vec<Arc<DiskImage>>),
    seed: u64,
    life: u64,
    next_id: u64,
}

/// A machine with simulated disks. Clones are the same machine.
#[derive(Clone, Debug)]
pub struct SimMachine(Arc<Mutex<State>>);

impl SimMachine {
    /// `n` empty disks. Everything that is random follows from `seed`.
    pub fn new(seed: u64, n: usize) -> Self {
        Self::with_image(seed, Image { disks: vec![Arc::default(); n] })
    }

    /// A machine that boots with what a power cut has left.
    pub fn from_image(image: Image) -> Self {
        Self::with_image(0, image)
    }

    /// As `from_image`, with a seed.
    pub fn with_image(seed: u64, image: Image) -> Self {
        let last = image.disks.iter().filter_map(|disk| disk.files.keys().next_back()).max();
        let next_id = last.map_or(1, |last| last + 1);
        let disks =
            (1..).zip(&image.disks).map(|(inode, disk)| DiskState::new(inode, disk)).collect();
        let settled = (0, 0, image.disks.clone());
        let journal = Vec::new();
        Self(Arc::new(Mutex::new(State {
            disks,
            base: image.disks,
            journal,
            settled,
            seed,
            life: 0,
            next_id,
        })))
    }

    /// Number of disks.
    pub fn disk_count(&self) -> usize {
        self.state().disks.len()
    }

    /// Disk `index`, opened by the present life of the process.
    pub fn disk(&self, index: usize) -> Arc<dyn Disk> {
        let mut state = self.state();
        let id = state.new_id();
        Arc::new(SimDisk { machine: self.clone(), index, life: state.life, id })
    }

    /// All disks.
    pub fn disks(&self) -> Vec<Arc<dyn Disk>> {
        (0..self.disk_count()).map(|index| self.disk(index)).collect()
    }

    /// The process dies (kill -9): its locks are free, whatever it still holds answers `Unavailable`, and the
    /// page cache stays as it is.
    pub fn release_locks(&self) {
        let mut state = self.state();
        state.life += 1;
        for disk in &mut state.disks {
            disk.holder = None;
        }
    }

    /// Number of operations in the journal.
    pub fn journal_len(&self) -> usize {
        self.state().journal.len()
    }

    /// Disk and operation at a position of the journal.
    pub fn journal_entry(&self, at: usize) -> Option<(usize, Op)> {
        self.state().journal.get(at).map(|record| (record.disk, record.op.clone()))
    }

    /// The positions right behind each sync: the moments at which promises are made.
    pub fn sync_points(&self) -> Vec<usize> {
        let state = self.state();
        let syncs = (1..).zip(&state.journal).filter(|(_at, record)| record.op.is_sync());
        syncs.map(|(at, _record)| at).collect()
    }

    /// All that happened so far becomes durable, and the journal starts anew: for the set-up of a test, and to
    /// keep long ones small.
    pub fn settle(&self) {
        let mut state = self.state();
        let live: Vec<_> = state.disks.iter().map(|disk| disk.live.clone()).collect();
        state.settled = (0, 0, live.clone());
        state.base = live;
        state.journal.clear();
        for disk in &mut state.disks {
            disk.pending_content.clear();
            disk.pending_names.clear();
            disk.doubtful.clear();
        }
    }

    /// The state after a power cut right before the operation at journal position `at`, where `choose` decides
    /// about each operation in doubt (disk and operation), in order.
    pub fn crash(&self, at: usize, choose: &mut dyn FnMut(usize, &Op) -> Choice) -> CrashState {
        let cut = self.state().cut(at);
        cut.state(choose)
    }

    /// At most `limit` states that a power cut at `at` can leave; the sampled ones follow from both seeds.
    pub fn crash_states(&self, at: usize, limit: usize, seed: u64) -> CrashStates {
        let mut state = self.state();
        let mut rng = SimRng::new(state.seed ^ seed.rotate_left(32) ^ to_u64(at));
        CrashStates::new(state.cut(at), limit, rng.next())
    }

    /// What is on the disks now, the page cache included.
    pub fn live_image(&self) -> Image {
        let live = self.state().disks.iter().map(|disk| disk.live.clone()).collect::<Vec<_>>();
        Image { disks: live.into_iter().map(DiskImage::without_strays).collect() }
    }

    /// Takes a disk away: all calls answer `Unavailable`. Or brings it back as it was.
    pub fn set_offline(&self, disk: usize, offline: bool) {
        self.state().disks[disk].offline = offline;
    }

    /// The next `count` calls of this kind fail as `Unavailable`.
    pub fn fail_next(&self, disk: usize, call: Call, count: u32) {
        self.state().disks[disk].faults.insert(call, (Fault::Fail, count));
    }

    /// The next `count` syncs of this kind (`SyncData`, `SyncShard` or `SyncDir`) claim success and do nothing.
    pub fn skip_syncs(&self, disk: usize, call: Call, count: u32) {
        self.state().disks[disk].faults.insert(call, (Fault::Skip, count));
    }

    /// Ends all faults of a disk, being offline too.
    pub fn heal(&self, disk: usize) {
        let mut state = self.state();
        state.disks[disk].faults.clear();
        state.disks[disk].offline = false;
    }

    /// Sets the size of a disk; what does not fit any more gets `NoSpace`.
    pub fn full(&self, disk: usize, capacity_bytes: u64) {
        self.state().disks[disk].capacity_bytes = capacity_bytes;
    }

    /// Bytes that the files of a disk take.
    pub fn used_bytes(&self, disk: usize) -> u64 {
        self.state().disks[disk].used_bytes
    }

    /// Replaces a disk by an empty one, as if another were mounted at its path. Implies `settle`.
    pub fn wipe(&self, disk: usize) {
        let mut state = self.state();
        let inode = state.new_id() + WIPED_INODE;
        let capacity_bytes = state.disks[disk].capacity_bytes;
        state.disks[disk] = DiskState { capacity_bytes, ..DiskState::new(inode, &Arc::default()) };
        drop(state);
        self.settle();
    }

    /// Names of all files of a disk, with their directories.
    pub fn file_names(&self, disk: usize) -> Vec<String> {
        let state = self.state();
        let names = state.disks[disk].live.names.iter();
        names
            .filter(|(_name, node)| **node != Node::Dir)
            .map(|(name, _node)| name.clone())
            .collect()
    }

    /// Whole content of a file; `None` if there is no such file.
    pub fn contents(&self, disk: usize, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let file = state.disks[disk].file(name)?;
        state.disks[disk].live.files.get(&file).map(image::Content::to_vec)
    }

    /// Changes a file behind the back of the stores, on the medium too. Answers whether there is such a file.
    pub fn damage(&self, disk: usize, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> bool {
        let Some(mut bytes) = self.contents(disk, name) else { return false };
        change(&mut bytes);
        let mut state = self.state();
        let Some(file) = state.disks[disk].file(name) else { return false };
        state.settled_op(disk, Op::SetLen { file, length: 0 });
        state.settled_op(disk, Op::SetLen { file, length: to_u64(bytes.len()) });
        state.settled_op(disk, Op::Write { file, offset: 0, data: bytes.into() });
        true
    }

    /// Flips a bit of the byte at `offset`.
    pub fn flip(&self, disk: usize, name: &str, offset: u64) -> bool {
        self.damage(disk, name, |bytes| {
            if let Some(byte) = bytes.get_mut(to_usize(offset)) {
                *byte ^= 1 << (offset % 8);
            }
        })
    }

    /// Zeroes up to `length` bytes from `offset` on.
    pub fn zero(&self, disk: usize, name: &str, offset: u64, length: u64) -> bool {
        self.damage(disk, name, |bytes| {
            bytes
                .iter_mut()
                .skip(to_usize(offset))
                .take(to_usize(length))
                .for_each(|byte| *byte = 0);
        })
    }

    /// Cuts a file.
    pub fn truncate(&self, disk: usize, name: &str, length: u64) -> bool {
        self.damage(disk, name, |bytes| bytes.truncate(to_usize(length)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A test that has panicked elsewhere tells more than a poisoned lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskState {
    fn new(inode: u64, image: &Arc<DiskImage>) -> Self {
        let used_bytes = image.files.values().map(|content| allocated(content.len())).sum();
        Self {
            live: image.clone(),
            used_bytes,
            capacity_bytes: CAPACITY_BYTES,
            inode,
            offline: false,
            faults: BTreeMap::new(),
            holder: None,
            open: BTreeMap::new(),
            pending_content: BTreeMap::new(),
            pending_names: Vec::new(),
            gone: BTreeSet::new(),
            doubtful: BTreeSet::new(),
        }
    }

    fn file(&self, name: &str) -> Option<FileId> {
        match self.live.names.get(name) {
            Some(Node::File(file)) => Some(*file),
            Some(Node::Dir) | None => None,
        }
    }

    fn len(&self, file: FileId) -> u64 {
        self.live.files.get(&file).map_or(0, image::Content::len)
    }

    /// Refuses growth of `file` to `length` that does not fit.
    fn check_space(&self, file: FileId, length: u64) -> Result<()> {
        let more = allocated(length).saturating_sub(allocated(self.len(file)));
        if more > 0 && self.used_bytes + more > self.capacity_bytes {
            return Err(Posix::NoSpace.into());
        }
        Ok(())
    }

    /// Applies `op` to the live image.
    fn apply(&mut self, op: &Op) {
        let touched = match op {
            Op::Write { file, .. } | Op::SetLen { file, .. } => Some(*file),
            _ => None,
        };
        let before = touched.map_or(0, |file| allocated(self.len(file)));
        Arc::make_mut(&mut self.live).apply(op, u64::MAX);
        let after = touched.map_or(0, |file| allocated(self.len(file)));
        self.used_bytes = self.used_bytes + after - before;
        if let Op::Remove { file, .. } | Op::Rename { replaced: Some(file), .. } = op {
            self.free_unless_open(*file);
        }
    }

    fn free_unless_open(&mut self, file: FileId) {
        if !self.open.contains_key(&file) {
            let freed = Arc::make_mut(&mut self.live).files.remove(&file);
            self.used_bytes -= freed.map_or(0, |content| allocated(content.len()));
        }
    }

    fn close(&mut self, file: FileId) {
        let Some(handles) = self.open.get_mut(&file) else { return };
        *handles -= 1;
        if *handles == 0 {
            self.open.remove(&file);
            if !self.live.names.values().any(|node| *node == Node::File(file)) {
                self.free_unless_open(file);
            }
        }
    }

    /// What an injected fault does to this call.
    fn fault(&mut self, call: Call) -> Option<Fault> {
        let (fault, left) = self.faults.get_mut(&call)?;
        let fault = *fault;
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.faults.remove(&call);
        }
        Some(fault)
    }
}

impl State {
    const fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// An operation that happens and is in doubt until it is synced.
    fn op(&mut self, disk: usize, op: Op) {
        let at = self.journal.len();
        let target = &mut self.disks[disk];
        target.apply(&op);
        let mut settled = None;
        match &op {
            Op::Write { file, .. } | Op::SetLen { file, .. } if target.gone.contains(file) => {
                settled = Some(at);
            }
            Op::Write { file, .. } | Op::SetLen { file, .. } => {
                target.pending_content.entry(*file).or_default().push(at);
            }
            Op::Create { name, .. } | Op::Remove { name, .. } | Op::CreateDir { name } => {
                target.pending_names.push((at, vec![parent(name).to_owned()]));
            }
            Op::Rename { from, to, .. } => {
                let mut dirs = vec![parent(from).to_owned(), parent(to).to_owned()];
                dirs.dedup();
                target.pending_names.push((at, dirs));
            }
            Op::SyncData { .. } | Op::SyncDir { .. } => {}
        }
        self.journal.push(Record { disk, op, settled });
    }

    /// An operation on the medium itself, never in doubt.
    fn settled_op(&mut self, disk: usize, op: Op) {
        let at = self.journal.len();
        self.disks[disk].apply(&op);
        self.journal.push(Record { disk, op, settled: Some(at) });
    }

    fn sync_data(&mut self, disk: usize, file: FileId, failed: bool) {
        let at = self.journal.len();
        for position in self.disks[disk].pending_content.remove(&file).into_iter().flatten() {
            if !failed {
                self.journal[position].settled = Some(at);
            }
        }
        self.journal.push(Record { disk, op: Op::SyncData { file, failed }, settled: Some(at) });
    }

    fn sync_dir(&mut self, disk: usize, dir: &str, failed: bool) {
        let at = self.journal.len();
        let pending = std::mem::take(&mut self.disks[disk].pending_names);
        let mut ended = Vec::new();
        for (position, mut dirs) in pending {
            let touched = dirs.iter().any(|held| held == dir);
            dirs.retain(|held| held != dir);
            let (file, displaced) = named_by(&self.journal[position].op);
            if touched && failed {
                self.disks[disk].doubtful.extend(file.into_iter().chain(displaced));
            } else if dirs.is_empty() {
                self.journal[position].settled = Some(at);
                ended.extend(displaced);
            } else {
                self.disks[disk].pending_names.push((position, dirs));
            }
        }
        for file in ended {
            self.bury(disk, file, at);
        }
        let op = Op::SyncDir { dir: dir.to_owned(), failed };
        self.journal.push(Record { disk, op, settled: Some(at) });
    }

    /// The last name of `file` is durably gone at `at`: unless another operation can bring it back, its content is
    /// in doubt no more, because nobody can see it.
    fn bury(&mut self, disk: usize, file: FileId, at: usize) {
        let target = &mut self.disks[disk];
        let named = target.pending_names.iter().any(|(position, _dirs)| {
            let (named, displaced) = named_by(&self.journal[*position].op);
            named == Some(file) || displaced == Some(file)
        });
        if named || target.doubtful.contains(&file) {
            return;
        }
        target.gone.insert(file);
        for position in target.pending_content.remove(&file).into_iter().flatten() {
            self.journal[position].settled = Some(at);
        }
    }

    fn cut(&mut self, at: usize) -> Cut {
        let at = at.min(self.journal.len());
        let certain = |record: &Record| record.settled.is_some_and(|settled| settled < at);
        if self.settled.1 > at {
            self.settled = (0, 0, self.base.clone());
        }
        let (applied, _cut_at, images) = &mut self.settled;
        while let Some(record) = self.journal[..at].get(*applied).filter(|record| certain(record)) {
            if !record.op.is_sync() {
                Arc::make_mut(&mut images[record.disk]).apply(&record.op, u64::MAX);
            }
            *applied += 1;
        }
        let tail = self.journal[*applied..at].iter().filter(|record| !record.op.is_sync());
        let tail = tail.map(|record| TailRecord {
            disk: record.disk,
            op: record.op.clone(),
            certain: certain(record),
        });
        let cut = Cut { base: images.clone(), tail: tail.collect() };
        self.settled.1 = at;
        cut
    }
}

/// The file that an operation on names is about, and the one that loses its name.
const fn named_by(op: &Op) -> (Option<FileId>, Option<FileId>) {
    match op {
        Op::Create { file, .. } => (Some(*file), None),
        Op::Remove { file, .. } => (Some(*file), Some(*file)),
        Op::Rename { file, replaced, .. } => (Some(*file), *replaced),
        Op::Write { .. }
        | Op::SetLen { .. }
        | Op::CreateDir { .. }
        | Op::SyncData { .. }
        | Op::SyncDir { .. } => (None, None),
    }
}

const fn allocated(length: u64) -> u64 {
    length.next_multiple_of(ALLOCATION_BYTES)
}
