//! Operations on ranges of a file: punch, reserve, seek, copy.

use super::flush::How;
use super::{Data, DataState};
use crate::error::{Error, Posix, Result};
use crate::fs::node::Node;
use crate::limits::{CHUNKS_PER_COMMAND_MAX, SEGMENT_BYTES, SEGMENTS_PER_CHUNK};
use crate::meta::command::{Command, FileUpdate, Inode, SetAttributes, segment_address};
use crate::meta::store::{ChunkView, View};
use crate::types::{ChunkIndex, SegmentIndex, Timestamp};
use std::ops::Range;
use std::sync::Arc;

const SEGMENT: u64 = SEGMENT_BYTES as u64;
/// Segments of one command.
const COMMAND_SEGMENTS_MAX: u64 = CHUNKS_PER_COMMAND_MAX as u64 * SEGMENTS_PER_CHUNK as u64;
/// Segments that one clone shares: its command touches two maps each.
const CLONE_SEGMENTS_MAX: u64 = 4 * SEGMENTS_PER_CHUNK as u64;
/// Bytes that a copy moves at a time where it cannot share.
const COPY_BYTES: u64 = 1 << 20;
/// Chunks looked up at a time.
const CHUNK_PAGE: usize = 64;

/// What a hole-aware seek looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// Next byte that has data.
    Data,
    /// Next hole, the end of file at the latest.
    Hole,
}

/// Whether a segment has content in the metadata.
fn has_content(inode: &Inode, content: &ChunkView, number: u64, segment: SegmentIndex) -> bool {
    let start = u32::from(segment.0) * SEGMENT_BYTES;
    let is_inline = number == 0 && !inode.inline.is_empty();
    is_inline
        || content.map.get(segment).is_some()
        || content.hot.iter().any(|hot| (start..start + SEGMENT_BYTES).contains(&hot.offset))
}

/// Segments that a punch of `range` removes as a whole, in a file of `size` bytes.
const fn whole_segments(range: Range<u64>, size: u64) -> Range<u64> {
    let end = if range.end == size { range.end.div_ceil(SEGMENT) } else { range.end / SEGMENT };
    range.start.div_ceil(SEGMENT)..end
}

impl Data {
    /// Makes a range a hole: whole segments by command, the edges by zero writes. Size stays.
    pub async fn punch(
        &self,
        node: &Arc<Node>,
        offset: u64,
        length: u64,
        set: SetAttributes,
    ) -> Result<()> {
        let _gate = Self::gate(node).await;
        let (size, committed) = {
            let meta = node.locked();
            (meta.size, meta.inode.size)
        };
        let end = (offset + length).min(size);
        if offset >= end {
            return Ok(());
        }
        if size > committed {
            // The dirty data that goes may be all that would have brought the size along.
            let set = SetAttributes::default();
            let extend = Command::Truncate { ino: node.ino, size, set };
            let (inode, position) = self.propose_inode(extend).await?;
            node.install(inode, position);
        }
        let whole = whole_segments(offset..end, size);
        let mut at = whole.start;
        while at < whole.end {
            let count = (whole.end - at).min(COMMAND_SEGMENTS_MAX);
            let command = Command::Punch { ino: node.ino, first: at, count, set };
            let (inode, position) = self.propose_inode(command).await?;
            let freed = {
                let mut meta = node.locked();
                meta.install(inode, position);
                node.data.dirty().remove(at..at + count)
            };
            self.freed(node, freed);
            at += count;
        }
        let edges = match whole.is_empty() {
            true => [offset..end, 0..0],
            false => [offset..whole.start * SEGMENT, (whole.end * SEGMENT).min(end)..end],
        };
        for edge in edges {
            self.zero(node, edge, set.mtime)?;
        }
        Ok(())
    }

    /// Writes zeros where there is content; within two segments.
    fn zero(&self, node: &Arc<Node>, range: Range<u64>, time: Option<Timestamp>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min((at / SEGMENT + 1) * SEGMENT);
            if self.is_allocated(node, at / SEGMENT)? {
                let zeros = vec![0; usize::try_from(end - at).unwrap_or(0)];
                self.absorb(node, at, &zeros, time);
            }
            at = end;
        }
        Ok(())
    }

    /// Whether a segment has dirty or committed content.
    fn is_allocated(&self, node: &Node, number: u64) -> Result<bool> {
        if node.data.dirty().contains(number) {
            return Ok(true);
        }
        let view = self.meta.view()?;
        let inode = view.inode(node.ino)?.ok_or(Posix::Stale)?;
        let address = segment_address(node.ino, number).ok_or(Posix::FileTooBig)?;
        let content = view.chunk(&inode, address.chunk)?;
        Ok(has_content(&inode, &content, number, address.segment))
    }

    /// fallocate mode 0 and KEEP_SIZE: reserves space for the holes in a range, extends the size if asked. With
    /// `punches` what will be a hole when the range is punched counts as one already: who is refused has lost nothing.
    pub async fn reserve(
        &self,
        node: &Arc<Node>,
        range: Range<u64>,
        punches: bool,
        update: Option<FileUpdate>,
    ) -> Result<()> {
        let _gate = Self::gate(node).await;
        let (size, held, class) = {
            let meta = node.locked();
            (meta.size, meta.inode.reserved_bytes, meta.inode.class)
        };
        let mut file =
            update.unwrap_or(FileUpdate { ino: node.ino, size, mtime: None, ctime: None });
        file.size = file.size.max(size);
        let punched = match punches {
            true => whole_segments(range.start..range.end.min(file.size), file.size),
            false => 0..0,
        };
        let holes = self.hole_bytes(node, range.clone(), &punched)?;
        // Reserving a hole twice reserves it once.
        let all = self.hole_bytes(node, 0..range.end.max(file.size), &punched)?;
        let bytes = (held + holes).min(all).max(held.min(holes));
        let wanted = bytes.saturating_sub(held);
        if self.space.space(class).writable_bytes < wanted {
            self.space.wait_for(class, wanted).await?;
        }
        let (inode, position) =
            self.propose_inode(Command::Reserve { ino: node.ino, bytes, file }).await?;
        let mut meta = node.locked();
        meta.install(inode, position);
        meta.size = meta.size.max(file.size);
        if let (Some(mtime), Some(ctime)) = (file.mtime, file.ctime) {
            (meta.mtime, meta.ctime) = (mtime, ctime);
        }
        Ok(())
    }

    /// Bytes of the segments that a range touches and that have no content, or are among `punched`.
    fn hole_bytes(&self, node: &Node, range: Range<u64>, punched: &Range<u64>) -> Result<u64> {
        let numbers = range.start / SEGMENT..range.end.div_ceil(SEGMENT);
        let view = self.meta.view()?;
        let inode = view.inode(node.ino)?.ok_or(Posix::Stale)?;
        let mut filled = 0;
        let mut next = segment_address(node.ino, numbers.start).map(|address| address.chunk);
        'pages: while let Some(from) = next {
            let page = view.data_chunks(&inode, from, CHUNK_PAGE)?;
            for chunk in &page {
                let first = u64::from(chunk.0) * u64::from(SEGMENTS_PER_CHUNK);
                if first >= numbers.end {
                    break 'pages;
                }
                let content = view.chunk(&inode, *chunk)?;
                for segment in 0..SEGMENTS_PER_CHUNK {
                    let number = first + u64::from(segment);
                    let is_in = numbers.contains(&number) && !punched.contains(&number);
                    filled += u64::from(
                        is_in && has_content(&inode, &content, number, SegmentIndex(segment)),
                    );
                }
            }
            next = page.last().and_then(|last| last.0.checked_add(1)).map(ChunkIndex);
        }
        Ok((numbers.end - numbers.start).saturating_sub(filled) * SEGMENT)
    }

    /// lseek SEEK_DATA / SEEK_HOLE with dirty data taken into account. `NoSuchAddress` past the end.
    pub async fn seek(&self, node: &Arc<Node>, offset: u64, what: Seek) -> Result<u64> {
        let size = node.locked().size;
        if offset >= size {
            return Err(Posix::NoSuchAddress.into());
        }
        // What a flush under way has committed and not yet dropped is data either way.
        let _gate = Self::gate(node).await;
        let view = self.meta.view()?;
        let inode = view.inode(node.ino)?.ok_or(Posix::Stale)?;
        let found = match what {
            Seek::Data => next_data(&view, &inode, &node.data, offset / SEGMENT)?,
            Seek::Hole => next_hole(&view, &inode, &node.data, (offset / SEGMENT, size))?,
        };
        match (found.map(|number| (number * SEGMENT).max(offset)), what) {
            (Some(at), Seek::Data) if at < size => Ok(at),
            (_, Seek::Data) => Err(Posix::NoSuchAddress.into()),
            (Some(at), Seek::Hole) => Ok(at.min(size)),
            (None, Seek::Hole) => Ok(size),
        }
    }

    /// copy_file_range: shares aligned whole segments, copies the rest. Answers bytes copied: an error that comes when
    /// some are is for the next call.
    pub async fn copy(
        &self,
        from: (&Arc<Node>, u64),
        to: (&Arc<Node>, u64),
        length: u64,
        time: Timestamp,
    ) -> Result<u64> {
        let mut copied = 0;
        match self.copy_parts(from, to, (length, time), &mut copied).await {
            Err(error) if copied == 0 => Err(error),
            Ok(()) | Err(_) => Ok(copied),
        }
    }

    async fn copy_parts(
        &self,
        (from, from_offset): (&Arc<Node>, u64),
        (to, to_offset): (&Arc<Node>, u64),
        (length, time): (u64, Timestamp),
        copied: &mut u64,
    ) -> Result<()> {
        let through_memory = (from, from_offset, to, to_offset, time);
        if from_offset % SEGMENT != to_offset % SEGMENT || length < SEGMENT {
            return self.copy_bytes(through_memory, length, copied).await;
        }
        let head = (from_offset.next_multiple_of(SEGMENT) - from_offset).min(length);
        let whole_end = head + (length - head) / SEGMENT * SEGMENT;
        self.copy_bytes(through_memory, head, copied).await?;
        if *copied < head {
            return Ok(());
        }
        while *copied < whole_end {
            let bytes = (whole_end - *copied).min(CLONE_SEGMENTS_MAX * SEGMENT);
            let (source, target) = ((from, from_offset + *copied), (to, to_offset + *copied));
            if self.share(source, target, bytes, time).await? {
                *copied += bytes;
                continue;
            }
            let end = *copied + bytes;
            self.copy_bytes(through_memory, end, copied).await?;
            if *copied < end {
                // The source has become shorter.
                return Ok(());
            }
        }
        self.copy_bytes(through_memory, length, copied).await
    }

    /// Copies through memory from `copied` bytes behind the offsets on, until these are `end`.
    async fn copy_bytes(
        &self,
        (from, from_offset, to, to_offset, time): (&Arc<Node>, u64, &Arc<Node>, u64, Timestamp),
        end: u64,
        copied: &mut u64,
    ) -> Result<()> {
        while *copied < end {
            let count = u32::try_from((end - *copied).min(COPY_BYTES)).unwrap_or(u32::MAX);
            let bytes = self.read(from, from_offset + *copied, count).await?;
            if bytes.is_empty() {
                return Ok(());
            }
            self.write(to, to_offset + *copied, &bytes, Some(time)).await?;
            *copied += bytes.len() as u64;
        }
        Ok(())
    }

    /// Lets whole segments of one file share the frames of another's. Answers false if the source is not in stripes.
    async fn share(
        &self,
        (from, from_offset): (&Arc<Node>, u64),
        (to, to_offset): (&Arc<Node>, u64),
        bytes: u64,
        time: Timestamp,
    ) -> Result<bool> {
        self.flush_node(from, How::Stripes).await?;
        self.flush_node(to, How::Stripes).await?;
        let _gates = match from.ino.cmp(&to.ino) {
            std::cmp::Ordering::Less => (Self::gate(from).await, Some(Self::gate(to).await)),
            std::cmp::Ordering::Greater => (Self::gate(to).await, Some(Self::gate(from).await)),
            std::cmp::Ordering::Equal => (Self::gate(from).await, None),
        };
        let (first, to_first) = (from_offset / SEGMENT, to_offset / SEGMENT);
        let numbers = first..first + bytes / SEGMENT;
        if from.data.dirty().next(numbers.start).is_some_and(|next| next < numbers.end) {
            return Ok(false);
        }
        let size = to.locked().size.max(to_offset + bytes);
        let file = FileUpdate { ino: to.ino, size, mtime: Some(time), ctime: Some(time) };
        let command = Command::CloneExtents {
            from: from.ino,
            from_first: first,
            to: to.ino,
            to_first,
            count: bytes / SEGMENT,
            file,
        };
        let (inode, position) = match self.propose_inode(command).await {
            Ok(answer) => answer,
            Err(error) if error.is(Posix::Again) => return Ok(false),
            Err(error) => return Err(error),
        };
        let freed = {
            let mut meta = to.locked();
            meta.install(inode, position);
            meta.size = meta.size.max(size);
            (meta.mtime, meta.ctime) = (time, time);
            to.data.dirty().remove(to_first..to_first + bytes / SEGMENT)
        };
        self.freed(to, freed);
        Ok(true)
    }
}

/// First segment at or behind `from` that has dirty or committed content.
fn next_data(view: &View, inode: &Inode, state: &DataState, from: u64) -> Result<Option<u64>> {
    let dirty = state.dirty().next(from);
    if from == 0 && !inode.inline.is_empty() {
        return Ok(Some(0));
    }
    let Some(address) = segment_address(inode.ino, from) else { return Ok(dirty) };
    let mut next = Some(address.chunk);
    while let Some(start) = next {
        let page = view.data_chunks(inode, start, CHUNK_PAGE)?;
        for chunk in &page {
            let content = view.chunk(inode, *chunk)?;
            let first = u64::from(chunk.0) * u64::from(SEGMENTS_PER_CHUNK);
            let numbers =
                (0..SEGMENTS_PER_CHUNK).map(|segment| (first + u64::from(segment), segment));
            let mut filled = numbers.filter(|(number, segment)| {
                *number >= from && has_content(inode, &content, *number, SegmentIndex(*segment))
            });
            if let Some((number, _segment)) = filled.next() {
                return Ok(Some(dirty.map_or(number, |dirty| dirty.min(number))));
            }
        }
        next = page.last().and_then(|last| last.0.checked_add(1)).map(ChunkIndex);
        if dirty.is_some_and(|dirty| {
            next.is_some_and(|next| u64::from(next.0) * u64::from(SEGMENTS_PER_CHUNK) > dirty)
        }) {
            break;
        }
    }
    Ok(dirty)
}

/// First segment at or behind `from` that has neither dirty nor committed content, below `size`.
fn next_hole(
    view: &View,
    inode: &Inode,
    state: &DataState,
    (from, size): (u64, u64),
) -> Result<Option<u64>> {
    let mut content: Option<(ChunkIndex, ChunkView)> = None;
    for number in from..size.div_ceil(SEGMENT) {
        if state.dirty().contains(number) {
            continue;
        }
        let address = segment_address(inode.ino, number)
            .ok_or_else(|| Error::internal("a file reaches behind the largest"))?;
        let held = match content.take() {
            Some((chunk, held)) if chunk == address.chunk => held,
            _ => view.chunk(inode, address.chunk)?,
        };
        if !has_content(inode, &held, number, address.segment) {
            return Ok(Some(number));
        }
        content = Some((address.chunk, held));
    }
    Ok(None)
}
