//! File data: absorbs writes, flushes them into hot extents and stripes, reads through caches. Knows no names.
//!
//! `Data` is shared by all nodes of a mount; `DataState` is what one node carries.
//!
//! Whoever commits or drops content of a file holds its *gate*: flushes, truncates, punches, clones. Reads and writes
//! do not. A write changes buffers and size under the locks of the node, so a snapshot never shows one without the
//! other; a read looks at the buffers before it looks at the metadata, so what moves from one to the other meanwhile is
//! seen at least once. Gates of several files are taken in the order of their numbers.

mod bulk;
mod cache;
mod chunks;
mod dirty;
mod flush;
mod ranges;
mod read;

pub use ranges::Seek;

use crate::error::{Error, ErrorKind, Posix, Result};
use crate::fs::node::Node;
use crate::fs::statfs::SpaceSource;
use crate::limits::CHUNKS_PER_COMMAND_MAX;
use crate::load::Latencies;
use crate::meta::client::MetaClient;
use crate::meta::command::{Answer, Command, Inode, SetAttributes};
use crate::metrics::Lookups;
use crate::stripe::reader::StripeReader;
use crate::stripe::writer::{Placer, StripeWriter};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{ClassId, Ino, LogPosition, Timestamp};
use cache::FrameCache;
use chunks::ChunkCache;
use dirty::Dirty;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How often the flusher looks for old data.
const TICK: Duration = Duration::from_millis(250);
/// How long a writer waits for room, that is for other dirty data to be flushed, before it gets the error.
const ROOM_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes beyond the room that are absorbed of writes that have arrived: about what a kernel has in flight. They would
/// otherwise wait in memory of their own, as copies of the requests.
const ARRIVED_BYTES: u64 = 64 << 20;

/// Dirty data of one node.
#[derive(Debug, Default)]
pub struct DataState {
    gate: Arc<tokio::sync::Mutex<()>>,
    dirty: Mutex<Dirty>,
}

impl DataState {
    fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bounds of what the data half may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataLimits {
    /// Written bytes that are not flushed yet, of all files, after which writers wait.
    pub dirty_bytes: u64,
    /// Decompressed frames kept for reading again.
    pub read_cache_bytes: u64,
    /// Extents and stripe records kept decoded.
    pub extent_cache_bytes: u64,
    /// Largest fsync of one file that goes into the log.
    pub hot_fsync_bytes: u32,
    /// Hot bytes of the volume beyond which an fsync makes stripes instead.
    pub hot_bytes: u64,
    /// Age at which dirty data is flushed.
    pub flush_age: Duration,
    /// Stripes written at once, beside small ones.
    pub stripes_in_flight: usize,
    /// How long a flush waits while too few disks take it.
    pub patience: Duration,
}

/// What the data half is made of.
#[derive(Debug)]
pub struct DataParts {
    /// Metadata.
    pub meta: MetaClient,
    /// Reads stripes.
    pub reader: StripeReader,
    /// Writes stripes.
    pub writer: StripeWriter,
    /// Says where stripes go.
    pub placer: Arc<dyn Placer>,
    /// Room of each class.
    pub space: Arc<dyn SpaceSource>,
    /// Is told how long reads of stripes take.
    pub load: Arc<Latencies>,
    /// Bounds.
    pub limits: DataLimits,
}

/// The data half of the file system.
pub struct Data {
    meta: MetaClient,
    reader: StripeReader,
    load: Arc<Latencies>,
    writer: StripeWriter,
    placer: Arc<dyn Placer>,
    space: Arc<dyn SpaceSource>,
    limits: DataLimits,
    lanes: bulk::Lanes,
    frames: FrameCache,
    chunks: ChunkCache,
    /// Nodes with dirty data; being here keeps them in memory.
    dirty_nodes: Mutex<BTreeMap<Ino, Arc<Node>>>,
    /// Rings when dirty bytes become fewer.
    room: Notify,
    /// Wakes the flusher early.
    wake: Notify,
    /// Why the last background flush failed.
    failure: Mutex<Option<Error>>,
}

impl std::fmt::Debug for Data {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Data")
            .field("dirty_bytes", &self.total_dirty_bytes())
            .finish_non_exhaustive()
    }
}

impl Data {
    /// The data half over `parts`.
    pub fn new(parts: DataParts) -> Arc<Self> {
        Arc::new(Self {
            meta: parts.meta,
            reader: parts.reader,
            load: parts.load,
            writer: parts.writer,
            placer: parts.placer,
            space: parts.space,
            frames: FrameCache::new(parts.limits.read_cache_bytes),
            chunks: ChunkCache::new(parts.limits.extent_cache_bytes),
            lanes: bulk::Lanes::new(parts.limits.stripes_in_flight),
            limits: parts.limits,
            dirty_nodes: Mutex::default(),
            room: Notify::new(),
            wake: Notify::new(),
            failure: Mutex::default(),
        })
    }

    /// Flushes old and large dirty data until `stop`. Errors are logged; the data stays dirty and is tried again.
    pub async fn run_flusher(self: Arc<Self>, stop: CancellationToken) {
        let mut pause = TICK;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.wake.notified(), if pause == TICK => {}
                () = tokio::time::sleep(pause) => {}
            }
            pause = TICK;
            let done = self.tick().await;
            if let Err(error) = &done {
                tracing::warn!("write out file data: {error}; it is kept and tried again");
                pause = TICK * 4;
            }
            *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = done.err();
        }
    }

    /// Absorbs a write: copies into dirty buffers, extends the size. Waits only for room. `time` stamps mtime and ctime
    /// unless `None` (the kernel's write-back owns them).
    ///
    /// Errors: `NoSpace` when the class has no room for it; `Unavailable` when too few disks are in use; what keeps older data from being flushed when that takes
    /// longer than a minute.
    pub async fn write(
        &self,
        node: &Arc<Node>,
        offset: u64,
        bytes: &[u8],
        time: Option<Timestamp>,
    ) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.wait_for_room(bytes.len() as u64).await?;
        let length = bytes.len() as u64;
        if !self.has_space(node, length) {
            let (class, wanted) = self.wanted(node, length);
            self.space.wait_for(class, wanted).await?;
        }
        self.absorb(node, offset, bytes, time);
        Ok(())
    }

    /// As `write`, and somewhat beyond the room, so that a write which has arrived need not be copied to wait; call
    /// `pace` before it is answered. `None` when that is used up too, or the disks seem to be full: then nothing happened.
    pub fn write_now(
        &self,
        node: &Arc<Node>,
        offset: u64,
        bytes: &[u8],
        time: Option<Timestamp>,
    ) -> Option<()> {
        let length = bytes.len() as u64;
        let used = self.total_dirty_bytes();
        let has_room = used + length <= self.limits.dirty_bytes + ARRIVED_BYTES;
        if length == 0 || !has_room || !self.has_space(node, length) {
            return None;
        }
        self.absorb(node, offset, bytes, time);
        Some(())
    }

    fn absorb(&self, node: &Arc<Node>, offset: u64, bytes: &[u8], time: Option<Timestamp>) {
        let (total, was_clean) = {
            let mut meta = node.locked();
            let mut dirty = node.data.dirty();
            let was_clean = dirty.is_empty();
            let grown = dirty.write(offset, bytes, Instant::now());
            meta.size = meta.size.max(offset + bytes.len() as u64);
            if let Some(time) = time {
                (meta.mtime, meta.ctime, meta.times_dirty) = (time, time, true);
            }
            // Counted before a flush can take them: the sum never falls below zero.
            (self.space.dirty_bytes().fetch_add(grown, Ordering::Relaxed) + grown, was_clean)
        };
        if was_clean {
            let mut nodes = self.dirty_nodes();
            // A flush may have taken them meanwhile, and looked for the node here before it came: nobody would ever
            // take it out again.
            if !node.data.dirty().is_empty() {
                nodes.insert(node.ino, Arc::clone(node));
            }
        }
        if total > self.limits.dirty_bytes / 2 {
            self.wake.notify_one();
        }
    }

    fn dirty_nodes(&self) -> MutexGuard<'_, BTreeMap<Ino, Arc<Node>>> {
        self.dirty_nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while there are more dirty bytes than there is room for: writers that are answered late write less.
    ///
    /// Error: what keeps older data from being flushed when that takes longer than a minute.
    pub async fn pace(&self) -> Result<()> {
        self.wait_for_room(0).await
    }

    fn has_room(&self, bytes: u64) -> bool {
        self.total_dirty_bytes() + bytes <= self.limits.dirty_bytes
    }

    async fn wait_for_room(&self, bytes: u64) -> Result<()> {
        let deadline = Instant::now() + ROOM_TIMEOUT;
        loop {
            let room = self.room.notified();
            if self.has_room(bytes) {
                return Ok(());
            }
            self.wake.notify_one();
            if tokio::time::timeout_at(deadline, room).await.is_err() {
                let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
                return Err(failure.unwrap_or_else(|| {
                    Error::unavailable("write: older data could not be written out in time")
                }));
            }
        }
    }

    /// Whether a class has space for so many bytes beyond those that are dirty.
    fn has_space(&self, node: &Node, bytes: u64) -> bool {
        let (class, wanted) = self.wanted(node, bytes);
        self.space.space(class).writable_bytes >= wanted
    }

    /// The class of a file, and what has to be free of it.
    fn wanted(&self, node: &Node, bytes: u64) -> (ClassId, u64) {
        let class = node.locked().inode.class;
        (class, self.total_dirty_bytes() + bytes)
    }

    /// Dirty bytes became fewer.
    fn freed(&self, node: &Node, bytes: u64) {
        if bytes > 0 {
            self.space.dirty_bytes().fetch_sub(bytes, Ordering::Relaxed);
            self.room.notify_waiters();
        }
        let mut nodes = self.dirty_nodes();
        if node.data.dirty().is_empty() {
            nodes.remove(&node.ino);
        }
    }

    async fn gate(node: &Node) -> OwnedMutexGuard<()> {
        Arc::clone(&node.data.gate).lock_owned().await
    }

    /// Sets the size together with other attributes, in one command. Dirty data behind a smaller size is dropped.
    pub async fn truncate(&self, node: &Arc<Node>, size: u64, set: SetAttributes) -> Result<()> {
        let _gate = Self::gate(node).await;
        let command = Command::Truncate { ino: node.ino, size, set };
        let (inode, position) = self.propose_inode(command).await?;
        let freed = {
            let mut meta = node.locked();
            if let (Some(mtime), Some(ctime)) = (set.mtime, set.ctime) {
                (meta.mtime, meta.ctime, meta.times_dirty) = (mtime, ctime, false);
            }
            meta.install(inode, position);
            meta.size = size;
            node.data.dirty().truncate(size)
        };
        self.freed(node, freed);
        Ok(())
    }

    /// Proposes a command that answers an inode; while a large cut of the file stands in its way, the reaping queue is
    /// worked off first.
    async fn propose_inode(&self, command: Command) -> Result<(Inode, LogPosition)> {
        loop {
            match self.meta.propose_at(command.clone()).await {
                Ok((Answer::Inode(inode), position)) => return Ok((*inode, position)),
                Ok(_) => return Err(Error::internal("a command on a file answered no inode")),
                Err(error) if error.is(Posix::Again) => {
                    let chunks = u32::try_from(CHUNKS_PER_COMMAND_MAX).unwrap_or(u32::MAX);
                    let reaped = self.meta.propose(Command::Reap { chunks }).await?;
                    if matches!(reaped, Answer::Reaped { chunks: 0, .. }) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Bytes of a node that are dirty.
    pub fn dirty_bytes(&self, node: &Node) -> u64 {
        node.data.dirty().bytes()
    }

    /// How often each cache was asked, by its name.
    pub const fn lookups(&self) -> [(&'static str, &Lookups); 3] {
        [
            ("frames", &self.frames.lookups),
            ("chunks", &self.chunks.chunk_lookups),
            ("stripes", &self.chunks.record_lookups),
        ]
    }

    /// Bytes of all nodes that are dirty.
    pub fn total_dirty_bytes(&self) -> u64 {
        self.space.dirty_bytes().load(Ordering::Relaxed)
    }

    /// Forgets what is in memory of a node that is gone (orphan released).
    pub fn discard(&self, node: &Node) {
        let freed = node.data.dirty().remove(0..u64::MAX);
        self.freed(node, freed);
    }
}

/// Whether an error means that reading the extents once more may help: they may have moved meanwhile.
fn may_have_moved(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Posix(Posix::NotFound))
}
