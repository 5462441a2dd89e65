//! Packing: small data that fsyncs have put into the metadata moves to stripes when it cools or grows too much. Knows no
//! shard and no disk.

use super::{Mover, Step, Worker};
use crate::class::Class;
use crate::error::{Error, Result};
use crate::limits::{CHUNK_BYTES, SEGMENT_BYTES, STRIPE_PAYLOAD_BYTES_MAX};
use crate::meta::client::MetaClient;
use crate::meta::command::{Command, Inode, SegmentCommit};
use crate::meta::store::{ChunkView, HotBytes, View};
use crate::metrics::Move;
use crate::net::Priority;
use crate::stripe::layout::StripeRecord;
use crate::stripe::pack::plan_stripes;
use crate::stripe::reader::Piece;
use crate::stripe::writer::NewSegment;
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::types::{
    ChunkIndex, ClassId, Ino, SegmentAddress, SegmentIndex, SlotIndex, StripeId, Version,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// Raw bytes that one step gathers: a full stripe of them.
const BATCH_BYTES: u64 = STRIPE_PAYLOAD_BYTES_MAX;
/// Most chunks that one step looks at: most of a large file's chunks have no hot bytes, and a view must not live long.
const BATCH_CHUNKS: usize = 1024;
/// Files of one look, chunks of one look.
const PAGE: usize = 64;

/// When hot bytes are packed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PackLimits {
    /// Above so many hot bytes in the volume they are packed down to half of it.
    pub hot_bytes: u64,
    /// Without change for so long all are packed ...
    pub idle: Duration,
    /// ... if they are more than this.
    pub idle_bytes: u64,
}

impl Default for PackLimits {
    /// Hot bytes live in the tables of the metadata: 64 MiB keep them and their copies small.
    fn default() -> Self {
        Self { hot_bytes: 64 << 20, idle: Duration::from_secs(30), idle_bytes: 64 << 10 }
    }
}

/// Moves hot bytes into stripes.
#[derive(Debug)]
pub struct Pack {
    meta: MetaClient,
    mover: Mover,
    limits: PackLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Hot bytes at the last look, and since when they are so many.
    seen: Option<(u64, Instant)>,
    /// Packing goes on until so few are left.
    goal: Option<u64>,
    /// The next file is behind this one and chunk.
    cursor: Cursor,
    /// Whether this pass over the files has packed anything.
    progress: bool,
    /// Not before this, because a whole pass has packed nothing.
    rest_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    /// The last file that is done.
    after: Option<Ino>,
    /// Chunks of the file behind it that are done.
    chunk: ChunkIndex,
}

/// A segment with hot bytes.
#[derive(Debug)]
struct HotSegment {
    address: SegmentAddress,
    class: ClassId,
    expected: Version,
    /// Content as far as hot bytes say it; its length is that of the segment within the file.
    content: Vec<u8>,
    hot: Vec<HotBytes>,
    /// What lies below, unless hot bytes cover everything.
    below: Option<(StripeId, Piece)>,
}

/// What one step packs.
#[derive(Debug, Default)]
struct Batch {
    segments: Vec<HotSegment>,
    bytes: u64,
    /// Chunks that were looked at.
    chunks: usize,
    records: BTreeMap<StripeId, StripeRecord>,
    classes: BTreeMap<ClassId, Class>,
    /// Where the next step goes on; `None` when all files have been seen.
    next: Option<Cursor>,
}

impl Pack {
    /// Packs hot bytes of this volume into new stripes. Only for read-write mounts.
    pub fn new(meta: MetaClient, mover: Mover, limits: PackLimits) -> Self {
        Self { meta, mover, limits, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pack(&self) -> Result<Step> {
        let hot_bytes = self.meta.totals().hot_bytes;
        let Some(cursor) = self.begin(hot_bytes) else { return Ok(Step::Idle) };
        let batch = gather(&self.meta.view()?, cursor)?;
        let next = batch.next;
        let packed = self.write(batch).await?;

        let mut state = self.state();
        state.progress |= packed > 0;
        state.cursor = next.unwrap_or_default();
        if next.is_none() && !std::mem::take(&mut state.progress) {
            // What is left cannot be packed now: its stripes cannot be read, or it changes all the time.
            state.goal = None;
            state.rest_until = Some(Instant::now() + self.limits.idle);
        }
        Ok(Step::Busy)
    }

    /// Whether to pack, and from where on.
    fn begin(&self, hot_bytes: u64) -> Option<Cursor> {
        let limits = self.limits;
        let now = Instant::now();
        let mut state = self.state();
        let since = match state.seen {
            Some((bytes, since)) if bytes == hot_bytes => since,
            Some(_) | None => now,
        };
        state.seen = Some((hot_bytes, since));
        if state.goal.is_none() {
            if hot_bytes > limits.hot_bytes {
                state.goal = Some(limits.hot_bytes / 2);
            } else if hot_bytes > limits.idle_bytes && now.duration_since(since) >= limits.idle {
                state.goal = Some(0);
            }
        }
        if state.goal.is_some_and(|goal| hot_bytes <= goal) {
            state.goal = None;
        }
        let resting = state.rest_until.is_some_and(|until| now < until);
        state.goal.filter(|_goal| !resting).map(|_goal| state.cursor)
    }

    /// Writes the batch, a stripe or more per class; answers the segments that were committed.
    async fn write(&self, mut batch: Batch) -> Result<usize> {
        let unreadable = self.read_below(&mut batch).await;
        let mut classes: BTreeMap<ClassId, Vec<HotSegment>> = BTreeMap::new();
        for segment in batch.segments {
            if !segment.below.is_some_and(|(stripe, _piece)| unreadable.contains(&stripe)) {
                classes.entry(segment.class).or_default().push(segment);
            }
        }
        let mut packed = 0;
        for (class_id, segments) in classes {
            let Some(class) = batch.classes.get(&class_id) else { continue };
            let raw_bytes: Vec<u32> = segments.iter().map(HotSegment::length).collect();
            let mut segments = segments.into_iter();
            for run in plan_stripes(&raw_bytes, STRIPE_PAYLOAD_BYTES_MAX) {
                let part: Vec<HotSegment> = segments.by_ref().take(run.len()).collect();
                packed += self.write_stripe(class_id, *class, part).await?;
            }
        }
        Ok(packed)
    }

    /// Fills in what lies below hot bytes. Answers the stripes that cannot be read: what lies over them stays hot.
    async fn read_below(&self, batch: &mut Batch) -> BTreeSet<StripeId> {
        let mut pieces: BTreeMap<StripeId, Vec<(usize, Piece)>> = BTreeMap::new();
        for (number, segment) in batch.segments.iter().enumerate() {
            if let Some((stripe, piece)) = segment.below {
                pieces.entry(stripe).or_default().push((number, piece));
            }
        }
        let mut unreadable = BTreeSet::new();
        for (stripe, wanted) in pieces {
            let list: Vec<Piece> = wanted.iter().map(|(_number, piece)| *piece).collect();
            let read = match batch.records.get(&stripe) {
                Some(record) => self.mover.reader.read(record, &list).await,
                None => Err(Error::internal(format!("stripe {stripe} is named and not known"))),
            };
            match read {
                Ok(contents) => {
                    for ((number, _piece), bytes) in wanted.into_iter().zip(contents) {
                        if let Some(segment) = batch.segments.get_mut(number) {
                            segment.lay_over(&bytes);
                        }
                    }
                }
                Err(error) => {
                    tracing::warn!(%stripe, %error, "small writes stay in the metadata: what they overwrite in part cannot be read");
                    unreadable.insert(stripe);
                }
            }
        }
        unreadable
    }

    async fn write_stripe(
        &self,
        class_id: ClassId,
        class: Class,
        segments: Vec<HotSegment>,
    ) -> Result<usize> {
        let facts: Vec<_> =
            segments.iter().map(|segment| (segment.address, segment.expected)).collect();
        let contents = segments.into_iter().map(|segment| NewSegment {
            address: segment.address,
            data: Bytes::from(segment.content),
        });
        let target = self.mover.placer.target(class_id, class, Priority::Background)?;
        let written = self.mover.writer.write(target, contents.collect()).await?;
        let commits =
            (0..).zip(facts).zip(&written.frames).map(|((number, (address, expected)), frame)| {
                SegmentCommit { address, expected, slot: SlotIndex(number), frame: *frame }
            });
        let segments: Vec<SegmentCommit> = commits.collect();
        let count = segments.len();
        let bytes = segments.iter().map(|segment| u64::from(segment.frame.raw_bytes)).sum();
        let stripe = written.record;
        self.meta.propose(Command::CommitExtents { stripe, segments, files: Vec::new() }).await?;
        self.mover.moves.note(Move::Pack, bytes);
        Ok(count)
    }
}

impl HotSegment {
    fn length(&self) -> u32 {
        u32::try_from(self.content.len()).unwrap_or(SEGMENT_BYTES)
    }

    /// Puts `below` under the hot bytes.
    fn lay_over(&mut self, below: &[u8]) {
        self.lay_under(below);
        self.overlay();
    }

    /// Puts `below` at the start; hot bytes go over it later.
    fn lay_under(&mut self, below: &[u8]) {
        let length = below.len().min(self.content.len());
        if let (Some(to), Some(from)) = (self.content.get_mut(..length), below.get(..length)) {
            to.copy_from_slice(from);
        }
    }

    /// Copies the hot bytes into the content, as far as they lie within it.
    fn overlay(&mut self) {
        for hot in &self.hot {
            let start = (hot.offset % SEGMENT_BYTES) as usize;
            let Some(to) = self.content.get_mut(start..) else { continue };
            let length = to.len().min(hot.data.len());
            if let (Some(to), Some(from)) = (to.get_mut(..length), hot.data.get(..length)) {
                to.copy_from_slice(from);
            }
        }
    }

    /// Whether hot bytes cover everything. They do not overlap.
    fn covered(&self) -> bool {
        let within = |hot: &HotBytes| {
            let start = (hot.offset % SEGMENT_BYTES) as usize;
            hot.data.len().min(self.content.len().saturating_sub(start))
        };
        self.hot.iter().map(within).sum::<usize>() >= self.content.len()
    }
}

/// Collects hot segments behind `cursor` until they fill a stripe.
fn gather(view: &View, mut cursor: Cursor) -> Result<Batch> {
    let mut batch = Batch::default();
    loop {
        let files = view.hot_files(cursor.after, PAGE)?;
        if files.is_empty() {
            return Ok(batch);
        }
        for (ino, _hot_bytes) in files {
            if let Some(inode) = view.inode(ino)?
                && let Some(chunk) = gather_file(view, &mut batch, &inode, cursor.chunk)?
            {
                batch.next = Some(Cursor { chunk, ..cursor });
                return Ok(batch);
            }
            cursor = Cursor { after: Some(ino), chunk: ChunkIndex(0) };
        }
    }
}

/// Collects hot segments of a file; answers the chunk to go on with if the batch is full before its end.
fn gather_file(
    view: &View,
    batch: &mut Batch,
    inode: &Inode,
    mut from: ChunkIndex,
) -> Result<Option<ChunkIndex>> {
    let Some(class) = view.class(inode.class)? else {
        return Err(Error::internal(format!("inode {}: no class {}", inode.ino, inode.class)));
    };
    batch.classes.insert(inode.class, class);
    loop {
        let chunks = view.data_chunks(inode, from, PAGE)?;
        let Some(last) = chunks.last().copied() else { return Ok(None) };
        for chunk in chunks {
            if batch.bytes >= BATCH_BYTES || batch.chunks >= BATCH_CHUNKS {
                return Ok(Some(chunk));
            }
            batch.chunks += 1;
            gather_chunk(view, batch, inode, chunk)?;
        }
        let Some(next) = last.0.checked_add(1) else { return Ok(None) };
        from = ChunkIndex(next);
    }
}

fn gather_chunk(view: &View, batch: &mut Batch, inode: &Inode, chunk: ChunkIndex) -> Result<()> {
    let mut content = view.chunk(inode, chunk)?;
    let hot = std::mem::take(&mut content.hot);
    if hot.is_empty() {
        return Ok(());
    }
    let whole = ChunkView { hot: hot.clone(), ..content };
    for run in hot.chunk_by(|one, next| segment_of(one) == segment_of(next)) {
        let Some(segment) = run.first().map(segment_of) else { continue };
        let start =
            u64::from(chunk.0) * CHUNK_BYTES + u64::from(segment.0) * u64::from(SEGMENT_BYTES);
        let length = inode.size.saturating_sub(start).min(u64::from(SEGMENT_BYTES));
        if length == 0 {
            continue;
        }
        let mut found = HotSegment {
            address: SegmentAddress { ino: inode.ino, chunk, segment },
            class: inode.class,
            expected: whole.version(segment),
            content: vec![0; usize::try_from(length).unwrap_or(0)],
            hot: run.to_vec(),
            below: None,
        };
        if (chunk.0, segment.0) == (0, 0) {
            // The rest of a file that was small until now; the commit takes it out of the inode.
            found.lay_under(&inode.inline);
        }
        found.overlay();
        if !found.covered()
            && let Some(place) = whole.map.get(segment)
        {
            let wanted = place.frame.raw_bytes.min(found.length());
            let piece = Piece { frame: place.frame, offset: 0, length: wanted };
            found.below = Some((place.stripe, piece));
            if let Some(record) = view.stripe(place.stripe)? {
                batch.records.insert(place.stripe, record);
            }
        }
        batch.bytes += length;
        batch.segments.push(found);
    }
    Ok(())
}

fn segment_of(hot: &HotBytes) -> SegmentIndex {
    SegmentIndex(u16::try_from(hot.offset / SEGMENT_BYTES).unwrap_or(u16::MAX))
}

impl Worker for Pack {
    fn name(&self) -> &'static str {
        "pack"
    }

    fn step(&self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.pack())
    }
}
