//! Dirty buffers of one file: pieces of segments that are ahead of the metadata. Pure memory; knows no stripe and no
//! command.

use crate::limits::SEGMENT_BYTES;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

const SEGMENT: u64 = SEGMENT_BYTES as u64;

/// A stretch of dirty bytes in one segment. A snapshot shares the bytes; writing on copies them then.
#[derive(Clone, Debug)]
#[expect(
    clippy::rc_buffer,
    reason = "appending writes extend the vector in place while it is not shared"
)]
pub(super) struct Piece {
    /// Where it starts in the segment.
    pub(super) start: u32,
    data: Arc<Vec<u8>>,
}

impl Piece {
    /// Range in the segment.
    pub(super) fn range(&self) -> Range<u32> {
        self.start..self.start + length(&self.data)
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// The bytes, shared.
    pub(super) fn shared(&self) -> Bytes {
        #[expect(clippy::rc_buffer, reason = "shares what a piece holds")]
        struct Shared(Arc<Vec<u8>>);
        impl AsRef<[u8]> for Shared {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        Bytes::from_owner(Shared(Arc::clone(&self.data)))
    }
}

/// Dirty pieces of one segment: in order, neither overlapping nor touching.
#[derive(Clone, Debug, Default)]
pub(super) struct DirtySegment {
    pub(super) pieces: Vec<Piece>,
    /// Rises with each change: who flushed a snapshot sees whether it is still the latest.
    pub(super) generation: u64,
}

impl DirtySegment {
    fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.data.len() as u64).sum()
    }

    fn write(&mut self, start: u32, data: &[u8]) {
        let end = start + length(data);
        let first = self.pieces.partition_point(|piece| piece.range().end < start);
        let last = self.pieces.partition_point(|piece| piece.start <= end);
        match self.pieces.get_mut(first..last) {
            Some([piece]) if piece.start <= start => {
                let at = (start - piece.start) as usize;
                let held = Arc::make_mut(&mut piece.data);
                let inside = held.len().saturating_sub(at).min(data.len());
                let (over, behind) = data.split_at(inside);
                if let Some(place) = held.get_mut(at..at + inside) {
                    place.copy_from_slice(over);
                }
                held.extend_from_slice(behind);
            }
            Some(touched) => {
                let mut merged = Vec::new();
                let merged_start = touched.first().map_or(start, |piece| piece.start.min(start));
                if let Some(head) = touched.first().filter(|piece| piece.start < start) {
                    let kept = (start - head.start) as usize;
                    merged.extend_from_slice(head.data.get(..kept).unwrap_or_default());
                }
                merged.extend_from_slice(data);
                if let Some(tail) = touched.last().filter(|piece| piece.range().end > end) {
                    let skip = (end - tail.start) as usize;
                    merged.extend_from_slice(tail.data.get(skip..).unwrap_or_default());
                }
                let piece = Piece { start: merged_start, data: Arc::new(merged) };
                self.pieces.splice(first..last, [piece]);
            }
            None => {}
        }
    }

    /// Drops what is at or behind `end`.
    fn truncate(&mut self, end: u32) {
        self.pieces.retain(|piece| piece.start < end);
        if let Some(piece) = self.pieces.last_mut().filter(|piece| piece.range().end > end) {
            let kept = (end - piece.start) as usize;
            Arc::make_mut(&mut piece.data).truncate(kept);
        }
    }
}

/// Dirty segments of one file, by number in the file.
#[derive(Debug, Default)]
pub(super) struct Dirty {
    segments: BTreeMap<u64, DirtySegment>,
    bytes: u64,
    generation: u64,
    since: Option<Instant>,
}

impl Dirty {
    /// Bytes of all pieces.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether nothing is dirty.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// When the oldest of it was written.
    pub(super) const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Absorbs a write; answers by how many bytes the buffers grew.
    pub(super) fn write(&mut self, offset: u64, mut data: &[u8], now: Instant) -> u64 {
        let before = self.bytes;
        let mut at = offset;
        self.generation += 1;
        while !data.is_empty() {
            let start = u32::try_from(at % SEGMENT).unwrap_or(0);
            let room = (SEGMENT_BYTES - start) as usize;
            let (head, rest) = data.split_at(room.min(data.len()));
            let segment = self.segments.entry(at / SEGMENT).or_default();
            let held = segment.bytes();
            segment.write(start, head);
            segment.generation = self.generation;
            self.bytes = self.bytes - held + segment.bytes();
            at += head.len() as u64;
            data = rest;
        }
        if !self.is_empty() {
            self.since.get_or_insert(now);
        }
        self.bytes - before
    }

    /// What is dirty of `range`: where it starts in the range, and the bytes, shared.
    pub(super) fn pieces(&self, range: Range<u64>) -> Vec<(usize, Bytes)> {
        let mut found = Vec::new();
        let numbers = range.start / SEGMENT..range.end.div_ceil(SEGMENT);
        for (number, segment) in self.segments.range(numbers) {
            for piece in &segment.pieces {
                let start = number * SEGMENT + u64::from(piece.start);
                let end = (start + piece.data.len() as u64).min(range.end);
                let from = start.max(range.start);
                if from < end {
                    let bytes = piece.shared().slice(index(from - start)..index(end - start));
                    found.push((index(from - range.start), bytes));
                }
            }
        }
        found
    }

    /// Segments in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &DirtySegment)> {
        self.segments.iter().map(|(number, segment)| (*number, segment))
    }

    /// First dirty segment at or behind `number`.
    pub(super) fn next(&self, number: u64) -> Option<u64> {
        self.segments.range(number..).next().map(|(number, _segment)| *number)
    }

    /// Whether a segment has dirty bytes.
    pub(super) fn contains(&self, number: u64) -> bool {
        self.segments.contains_key(&number)
    }

    /// Forgets a segment that was flushed, unless it has changed since; answers the bytes freed.
    pub(super) fn clean(&mut self, number: u64, generation: u64) -> u64 {
        match self.segments.get(&number) {
            Some(segment) if segment.generation == generation => self.remove(number..number + 1),
            Some(_) | None => 0,
        }
    }

    /// Forgets segments; answers the bytes freed.
    pub(super) fn remove(&mut self, numbers: Range<u64>) -> u64 {
        let gone: Vec<u64> =
            self.segments.range(numbers).map(|(number, _segment)| *number).collect();
        let freed = gone
            .iter()
            .filter_map(|number| self.segments.remove(number))
            .map(|segment| segment.bytes())
            .sum();
        self.bytes -= freed;
        if self.is_empty() {
            self.since = None;
        }
        freed
    }

    /// Forgets what is at or behind `size`; answers the bytes freed.
    pub(super) fn truncate(&mut self, size: u64) -> u64 {
        let mut freed = self.remove(size.div_ceil(SEGMENT)..u64::MAX);
        self.generation += 1;
        let number = size / SEGMENT;
        if let Some(segment) = self.segments.get_mut(&number) {
            let held = segment.bytes();
            segment.truncate(u32::try_from(size % SEGMENT).unwrap_or(0));
            segment.generation = self.generation;
            let (left, empty) = (segment.bytes(), segment.pieces.is_empty());
            self.bytes -= held - left;
            freed += held - left;
            if empty {
                self.remove(number..number + 1);
            }
        }
        freed
    }
}

fn length(data: &[u8]) -> u32 {
    u32::try_from(data.len()).expect("a piece is within one segment")
}

/// An offset inside a buffer in memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("buffers are in memory")
}
