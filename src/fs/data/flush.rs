//! Flushing: dirty buffers become inline content, hot extents or stripes. Nothing is clean before its commit.

use super::dirty::Piece;
use super::{Data, bulk};
use crate::error::{Error, Posix, Result};
use crate::fs::node::Node;
use crate::limits::{CHUNK_BYTES, INLINE_BYTES_MAX, SEGMENT_BYTES};
use crate::meta::command::{Answer, Command, FileUpdate, HotExtent, segment_address};
use crate::net::Priority;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::{ClassId, Ino, Timestamp};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::OwnedMutexGuard;

const SEGMENT: u64 = SEGMENT_BYTES as u64;
/// Dirty bytes of one background flush: bounds how long its files' gates are held.
const FLUSH_BYTES_MAX: u64 = 128 << 20;
/// Up to this much dirty data of all files together goes into the log rather than into a stripe of its own.
const HOT_FLUSH_BYTES_MAX: u64 = 512 << 10;
/// Hot bytes of one command.
const HOT_COMMAND_BYTES_MAX: usize = 1 << 20;
/// How often a flush is tried again whose segments changed under it.
const ATTEMPTS_MAX: u32 = 4;

/// What of a file is flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Select {
    /// Everything.
    All,
    /// Chunks that are dirty from end to end: the stream goes on behind them.
    FullChunks,
}

/// How it is flushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum How {
    /// Small amounts into the log, large ones into stripes.
    BySize {
        /// Largest small amount.
        hot_bytes_max: u64,
    },
    /// Into stripes, or inline.
    Stripes,
}

/// A dirty segment as it was when its file was looked at.
pub(super) struct Snap {
    /// Number in the file.
    pub(super) number: u64,
    pub(super) generation: u64,
    pub(super) pieces: Vec<Piece>,
    /// Bytes of the segment that are in the file.
    pub(super) visible: u32,
}

/// A file as it was when it was looked at, with its gate held.
pub(super) struct Snapshot {
    pub(super) node: Arc<Node>,
    pub(super) class: ClassId,
    /// Size as users saw it.
    pub(super) size: u64,
    /// Size as the metadata has it: no commit of a flush makes it smaller, in whatever order they come.
    committed_size: AtomicU64,
    pub(super) times: Option<(Timestamp, Timestamp)>,
    pub(super) segments: Vec<Snap>,
    /// Whether all that was dirty is here.
    pub(super) complete: bool,
    _gate: OwnedMutexGuard<()>,
}

impl Snapshot {
    fn bytes(&self) -> u64 {
        let pieces = self.segments.iter().flat_map(|segment| &segment.pieces);
        pieces.map(|piece| piece.bytes().len() as u64).sum()
    }

    /// Size and times that go with a commit of everything up to `end`.
    pub(super) fn update(&self, end: u64) -> FileUpdate {
        let is_last =
            self.complete && self.segments.last().is_none_or(|last| end > last.number * SEGMENT);
        let size = if is_last { self.size } else { end.min(self.size) };
        let size = size.max(self.committed_size.fetch_max(size, Ordering::Relaxed));
        FileUpdate {
            ino: self.node.ino,
            size,
            mtime: self.times.map(|(mtime, _ctime)| mtime),
            ctime: self.times.map(|(_mtime, ctime)| ctime),
        }
    }
}

impl Data {
    /// Pushes all dirty data (and dirty times) of a node into the log's order; not yet durable.
    pub async fn flush(&self, node: &Arc<Node>) -> Result<()> {
        let hot_bytes_max = u64::from(self.limits.hot_fsync_bytes);
        self.flush_node(node, How::BySize { hot_bytes_max }).await
    }

    /// As `flush`, then waits until the log is durable: fsync.
    pub async fn sync(&self, node: &Arc<Node>) -> Result<()> {
        self.flush(node).await?;
        self.meta.sync().await
    }

    /// Makes everything of all nodes durable.
    pub async fn sync_all(&self) -> Result<()> {
        loop {
            let nodes: Vec<_> = self.dirty_nodes().values().cloned().collect();
            if nodes.is_empty() {
                break;
            }
            for batch in batches(nodes) {
                self.flush_nodes(batch, How::BySize { hot_bytes_max: HOT_FLUSH_BYTES_MAX }).await?;
            }
        }
        self.meta.sync().await
    }

    /// Makes durable what can be, file by file, after all of them together failed. Waits for no disk.
    ///
    /// Error: the first of those that kept a file from being written.
    pub async fn write_out_each(&self) -> Result<()> {
        let nodes: Vec<_> = self.dirty_nodes().values().cloned().collect();
        let mut done = Ok(());
        for node in nodes {
            let class = node.locked().inode.class;
            let written = match self.may_place(class) {
                Ok(()) => self.flush_node(&node, How::Stripes).await,
                Err(error) => Err(error),
            };
            done = done.and(written);
        }
        done.and(self.meta.sync().await)
    }

    /// Whether enough disks are in use for a stripe of the class.
    fn may_place(&self, id: ClassId) -> Result<()> {
        let class = self.meta.view()?.class(id)?;
        let class = class.ok_or_else(|| Error::corrupt(format!("class {id} is not defined")))?;
        self.placer.target(id, class, Priority::Sync).map(drop)
    }

    /// Flushes one node completely, as it is now.
    pub(super) async fn flush_node(&self, node: &Arc<Node>, how: How) -> Result<()> {
        for _attempt in 0..ATTEMPTS_MAX {
            if node.data.dirty().is_empty() {
                // What another flush has taken is in the log once that one has let go of the gate.
                let _gate = Self::gate(node).await;
                if node.data.dirty().is_empty() {
                    return Ok(());
                }
            }
            if self.flush_nodes(vec![(Arc::clone(node), Select::All)], how).await? == 0 {
                return Ok(());
            }
        }
        Err(Error::internal(format!("flush inode {}: its segments keep changing", node.ino)))
    }

    /// One round of the background flusher: what is old, what is large, and most of everything when room is short.
    pub(super) async fn tick(&self) -> Result<()> {
        let now = tokio::time::Instant::now();
        let short = self.total_dirty_bytes() > self.limits.dirty_bytes / 2;
        let nodes: Vec<Arc<Node>> = self.dirty_nodes().values().cloned().collect();
        let mut chosen = Vec::new();
        for node in nodes {
            let (bytes, since) = {
                let dirty = node.data.dirty();
                (dirty.bytes(), dirty.since())
            };
            let old = since.is_some_and(|since| since + self.limits.flush_age <= now);
            if old {
                chosen.push((bytes, node, Select::All));
            } else if bytes >= CHUNK_BYTES {
                let select = if short { Select::All } else { Select::FullChunks };
                chosen.push((bytes, node, select));
            } else if short {
                chosen.push((bytes, node, Select::All));
            }
        }
        chosen.sort_by_key(|(bytes, node, _select)| (std::cmp::Reverse(*bytes), node.ino));
        let chosen = chosen.into_iter().map(|(_bytes, node, select)| (node, select));
        for batch in batches_of(chosen) {
            self.flush_nodes(batch, How::BySize { hot_bytes_max: HOT_FLUSH_BYTES_MAX }).await?;
        }
        Ok(())
    }

    /// Flushes several nodes together, so that small files share stripes. Answers how many segments were passed over
    /// because they had changed; they stay dirty.
    pub(super) async fn flush_nodes(
        &self,
        mut nodes: Vec<(Arc<Node>, Select)>,
        how: How,
    ) -> Result<usize> {
        nodes.sort_by_key(|(node, _select)| node.ino);
        nodes.dedup_by_key(|(node, _select)| node.ino);
        let mut snapshots = Vec::with_capacity(nodes.len());
        for (node, select) in nodes {
            let gate = Self::gate(&node).await;
            if let Some(snapshot) = snapshot(node, gate, select) {
                snapshots.push(snapshot);
            }
        }
        let result = self.flush_snapshots(&snapshots, how).await;
        if result.is_err() {
            for snapshot in snapshots.iter().filter(|snapshot| snapshot.times.is_some()) {
                snapshot.node.locked().times_dirty = true;
            }
        }
        result
    }

    async fn flush_snapshots(&self, snapshots: &[Snapshot], how: How) -> Result<usize> {
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for snapshot in snapshots {
            match self.inline_content(snapshot).await? {
                Some(data) => self.commit_inline(snapshot, data).await?,
                None if snapshot.segments.is_empty() => {}
                None => large.push(snapshot),
            }
        }
        if let How::BySize { hot_bytes_max } = how
            && large.iter().map(|snapshot| snapshot.bytes()).sum::<u64>() <= hot_bytes_max
            && self.meta.totals().hot_bytes <= self.limits.hot_bytes
        {
            small = std::mem::take(&mut large);
        }
        for snapshot in small {
            let all: Vec<&Snap> = snapshot.segments.iter().collect();
            self.commit_hot(snapshot, &all).await?;
        }
        bulk::flush(self, &large).await
    }

    /// The whole content of a file that fits into its inode record.
    async fn inline_content(&self, snapshot: &Snapshot) -> Result<Option<Bytes>> {
        let committed_size = snapshot.committed_size.load(Ordering::Relaxed);
        if snapshot.size > u64::from(INLINE_BYTES_MAX) || committed_size > CHUNK_BYTES {
            return Ok(None);
        }
        let [segment] = snapshot.segments.as_slice() else { return Ok(None) };
        if segment.number != 0 {
            return Ok(None);
        }
        match self.content(snapshot, segment).await {
            Ok(content) => Ok(Some(content)),
            // It stays hot, below.
            Err(error) if bulk::is_unreadable(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The whole content of a dirty segment: what is dirty over what is committed.
    pub(super) async fn content(&self, snapshot: &Snapshot, segment: &Snap) -> Result<Bytes> {
        let whole = segment
            .pieces
            .first()
            .filter(|piece| piece.start == 0 && piece.bytes().len() >= segment.visible as usize);
        if let Some(piece) = whole {
            return Ok(piece.shared().slice(..segment.visible as usize));
        }
        let start = segment.number * SEGMENT;
        let mut content =
            self.committed(snapshot.node.ino, start..start + u64::from(segment.visible)).await?;
        for piece in &segment.pieces {
            let at = piece.start as usize;
            if let Some(target) = content.get_mut(at..at + piece.bytes().len()) {
                target.copy_from_slice(piece.bytes());
            }
        }
        Ok(content.into())
    }

    async fn commit_inline(&self, snapshot: &Snapshot, data: Bytes) -> Result<()> {
        let file = snapshot.update(u64::MAX);
        self.commit_file(snapshot, Command::CommitInline { file, data }).await?;
        self.clean(snapshot, &snapshot.segments.iter().collect::<Vec<_>>());
        Ok(())
    }

    /// Puts segments into the log as hot extents.
    pub(super) async fn commit_hot(&self, snapshot: &Snapshot, segments: &[&Snap]) -> Result<()> {
        let mut at = 0;
        while at < segments.len() {
            let (mut bytes, first) = (0, at);
            let mut extents = Vec::new();
            while let Some(segment) = segments.get(at) {
                let size: usize = segment.pieces.iter().map(|piece| piece.bytes().len()).sum();
                if bytes > 0 && bytes + size > HOT_COMMAND_BYTES_MAX {
                    break;
                }
                bytes += size;
                at += 1;
                add_hot(&mut extents, snapshot.node.ino, segment)?;
            }
            let done = segments.get(first..at).unwrap_or_default();
            let end = done.last().map_or(0, |last| last.number * SEGMENT + u64::from(last.visible));
            let file = snapshot.update(end);
            self.commit_file(snapshot, Command::CommitHot { file, extents }).await?;
            self.clean(snapshot, done);
        }
        Ok(())
    }

    /// Commits to one file. A file that is gone takes its dirty data with it.
    async fn commit_file(&self, snapshot: &Snapshot, command: Command) -> Result<()> {
        match self.meta.propose_at(command).await {
            Ok((Answer::Inode(inode), position)) => {
                snapshot.node.install(*inode, position);
                Ok(())
            }
            Ok(_) => Err(Error::internal("a commit to a file answered no inode")),
            Err(error) if error.is(Posix::NotFound) => {
                self.discard(&snapshot.node);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Forgets dirty segments that are committed, unless they have changed since.
    pub(super) fn clean(&self, snapshot: &Snapshot, segments: &[&Snap]) {
        let freed = {
            let mut dirty = snapshot.node.data.dirty();
            let clean = segments.iter().map(|snap| dirty.clean(snap.number, snap.generation));
            clean.sum()
        };
        self.freed(&snapshot.node, freed);
    }
}

fn add_hot(extents: &mut Vec<HotExtent>, ino: Ino, segment: &Snap) -> Result<()> {
    let address = segment_address(ino, segment.number).ok_or(Posix::FileTooBig)?;
    for piece in &segment.pieces {
        extents.push(HotExtent {
            chunk: address.chunk,
            offset: u32::from(address.segment.0) * SEGMENT_BYTES + piece.start,
            data: piece.shared(),
        });
    }
    Ok(())
}

/// Looks at a file. `None` if there is nothing to flush.
fn snapshot(node: Arc<Node>, gate: OwnedMutexGuard<()>, select: Select) -> Option<Snapshot> {
    let mut meta = node.locked();
    let dirty = node.data.dirty();
    let (size, mut segments) = (meta.size, Vec::new());
    for (number, segment) in dirty.iter() {
        let visible = size.saturating_sub(number * SEGMENT).min(SEGMENT);
        segments.push(Snap {
            number,
            generation: segment.generation,
            pieces: segment.pieces.clone(),
            visible: u32::try_from(visible).unwrap_or(SEGMENT_BYTES),
        });
    }
    let all = segments.len();
    if select == Select::FullChunks {
        segments = bulk::full_chunks(segments);
    }
    let complete = segments.len() == all;
    if segments.is_empty() {
        return None;
    }
    let times = std::mem::take(&mut meta.times_dirty).then_some((meta.mtime, meta.ctime));
    let (class, committed_size) = (meta.inode.class, AtomicU64::new(meta.inode.size));
    drop(dirty);
    drop(meta);
    Some(Snapshot { node, class, size, committed_size, times, segments, complete, _gate: gate })
}

fn batches(nodes: Vec<Arc<Node>>) -> Vec<Vec<(Arc<Node>, Select)>> {
    batches_of(nodes.into_iter().map(|node| (node, Select::All)))
}

/// Groups nodes, in order, so that each group has about `FLUSH_BYTES_MAX` dirty bytes.
fn batches_of(nodes: impl Iterator<Item = (Arc<Node>, Select)>) -> Vec<Vec<(Arc<Node>, Select)>> {
    let mut batches: Vec<Vec<(Arc<Node>, Select)>> = Vec::new();
    let mut room = 0;
    for (node, select) in nodes {
        let bytes = node.data.dirty().bytes();
        match batches.last_mut() {
            Some(batch) if room >= bytes => batch.push((node, select)),
            _ => {
                batches.push(vec![(node, select)]);
                room = FLUSH_BYTES_MAX;
            }
        }
        room = room.saturating_sub(bytes);
    }
    batches
}
