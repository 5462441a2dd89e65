//! The state in redb: applies batches of commands, checkpoints, and gives short read views.

use crate::class::Class;
use crate::error::{Error, Result};
use crate::extent::ChunkMap;
use crate::meta::Reply;
use crate::meta::command::{Command, Inode};
use crate::stripe::layout::StripeRecord;
use crate::types::{
    ChunkIndex, ClassId, FileKind, Incarnation, Ino, LogPosition, SegmentAddress, SegmentIndex,
    SlotIndex, StripeId, Version,
};
use bytes::Bytes;

/// The materialised state.
#[derive(Debug)]
pub struct Store {}

/// The state at one position: a short redb read transaction. Drop it soon, it pins pages.
#[derive(Debug)]
pub struct View {}

/// Sums over the volume, kept by `apply`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Next inode number to give.
    pub next_ino: u64,
    /// Latest mount.
    pub incarnation: Incarnation,
    /// Inodes that exist.
    pub inodes: u64,
    /// Stripes that are live.
    pub stripes: u64,
    /// Bytes of all shards of live stripes (payload times n/k), parity included.
    pub stripe_bytes: u64,
    /// Bytes of all shards of stripes in the delete queue.
    pub dead_bytes: u64,
    /// Bytes of live frames (bodies and headers, before redundancy).
    pub live_bytes: u64,
    /// Bytes in hot extents.
    pub hot_bytes: u64,
    /// Bytes reserved by fallocate beyond what is allocated.
    pub reserved_bytes: u64,
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
        let start = u32::from(segment.0) * crate::limits::SEGMENT_BYTES;
        let hot = self.hot.iter().filter(|hot| {
            hot.offset / crate::limits::SEGMENT_BYTES * crate::limits::SEGMENT_BYTES == start
        });
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

fn absent<T>() -> Result<T> {
    Err(Error::internal("store"))
}

impl Store {
    /// Opens the state on `backend`, or creates it if the backend is empty. `cache_bytes` bounds redb's cache.
    /// Until the first `Genesis` command it has no root directory.
    pub fn open(backend: impl redb::StorageBackend, cache_bytes: usize) -> Result<Self> {
        let _ = (backend, cache_bytes);
        absent()
    }
    /// All commands before this position are applied.
    pub fn applied(&self) -> LogPosition {
        LogPosition(0)
    }
    /// Applies `commands` in one redb transaction that is not durable; `commands[i]` has position `first + i`.
    /// Internal error unless `first` is `applied()`. After any error the store must be reopened.
    pub fn apply(&self, first: LogPosition, commands: &[Command]) -> Result<Vec<Reply>> {
        let _ = (first, commands);
        absent()
    }
    /// Makes the state durable (two-phase, quick repair). The caller has synced the log up to `applied()` first.
    pub fn checkpoint(&self) -> Result<LogPosition> {
        absent()
    }
    /// The state as of the last `apply`.
    pub fn view(&self) -> Result<View> {
        absent()
    }
}

impl View {
    /// Position that this view shows.
    pub fn applied(&self) -> Result<LogPosition> {
        absent()
    }
    /// Sums over the volume.
    pub fn totals(&self) -> Result<Totals> {
        absent()
    }
    /// All classes.
    pub fn classes(&self) -> Result<Vec<(ClassId, Class)>> {
        absent()
    }
    /// One class.
    pub fn class(&self, _id: ClassId) -> Result<Option<Class>> {
        absent()
    }
    /// One inode. Orphans are found; inodes in the reaping queue are not.
    pub fn inode(&self, _ino: Ino) -> Result<Option<Inode>> {
        absent()
    }
    /// What a name leads to.
    pub fn lookup(&self, _parent: Ino, _name: &[u8]) -> Result<Option<(Ino, FileKind)>> {
        absent()
    }
    /// A name's inode: `lookup` and `inode` in one.
    pub fn lookup_inode(&self, _parent: Ino, _name: &[u8]) -> Result<Option<Inode>> {
        absent()
    }
    /// Up to `limit` entries of a directory behind `after` (0 starts), in cookie order, without `.` and `..`.
    pub fn list(&self, _dir: Ino, _after: u64, _limit: usize) -> Result<Vec<DirEntry>> {
        absent()
    }
    /// Content of a chunk, as far as it is in extents and hot bytes (inline content is in the inode).
    pub fn chunk(&self, _inode: &Inode, _chunk: ChunkIndex) -> Result<ChunkView> {
        absent()
    }
    /// Up to `limit` chunks from `from` on that have extents or hot bytes.
    pub fn data_chunks(
        &self,
        _inode: &Inode,
        _from: ChunkIndex,
        _limit: usize,
    ) -> Result<Vec<ChunkIndex>> {
        absent()
    }
    /// Value of an attribute.
    pub fn xattr(&self, _ino: Ino, _name: &[u8]) -> Result<Option<Vec<u8>>> {
        absent()
    }
    /// Names of all attributes.
    pub fn xattrs(&self, _ino: Ino) -> Result<Vec<Vec<u8>>> {
        absent()
    }
    /// A live stripe.
    pub fn stripe(&self, _id: StripeId) -> Result<Option<StripeRecord>> {
        absent()
    }
    /// How much of a live stripe is in use.
    pub fn stripe_usage(&self, _id: StripeId) -> Result<Option<StripeUsage>> {
        absent()
    }
    /// Up to `limit` live stripes behind `after`, in order of id, each with the bytes of its live frames.
    pub fn stripes(
        &self,
        _after: Option<StripeId>,
        _limit: usize,
    ) -> Result<Vec<(StripeRecord, u64)>> {
        absent()
    }
    /// Up to `limit` stripes of the delete queue behind `after`.
    pub fn dead_stripes(
        &self,
        _after: Option<StripeId>,
        _limit: usize,
    ) -> Result<Vec<StripeRecord>> {
        absent()
    }
    /// Owners of a shared slot; empty for a slot with a single owner (which the slot table names).
    pub fn owners(&self, _stripe: StripeId, _slot: SlotIndex) -> Result<Vec<SegmentAddress>> {
        absent()
    }
    /// Up to `limit` orphans behind `after`.
    pub fn orphans(&self, _after: Option<Ino>, _limit: usize) -> Result<Vec<Ino>> {
        absent()
    }
    /// Whether the reaping queue has work.
    pub fn reap_pending(&self) -> Result<bool> {
        absent()
    }
    /// Up to `limit` files with hot extents behind `after`, with their hot bytes.
    pub fn hot_files(&self, _after: Option<Ino>, _limit: usize) -> Result<Vec<(Ino, u64)>> {
        absent()
    }
    /// Up to `limit` inodes behind `after`, orphans and those being reaped included.
    pub fn inodes(&self, _after: Option<Ino>, _limit: usize) -> Result<Vec<Inode>> {
        absent()
    }
    /// Parent directories of an inode (several for hard links), without names.
    pub fn parents(&self, _ino: Ino) -> Result<Vec<Ino>> {
        absent()
    }
}
