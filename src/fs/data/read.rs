//! Reading: dirty buffers over hot bytes over extents and inline content.

use super::{Data, may_have_moved};
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::extent::Place;
use crate::fs::node::Node;
use crate::limits::{CHUNK_BYTES, SEGMENT_BYTES};
use crate::meta::command::segment_address;
use crate::meta::store::ChunkView;
use crate::stripe::layout::StripeRecord;
use crate::stripe::reader::Piece;
use crate::types::{ChunkIndex, Ino, SlotIndex, StripeId};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use tokio::time::Instant;

/// Bytes that were read, each run with the place in the answer where it goes.
type Pieces = Vec<(usize, Bytes)>;

const SEGMENT: u64 = SEGMENT_BYTES as u64;
/// How often a read looks anew whose extents moved under it.
const ATTEMPTS_MAX: u32 = 8;

/// A piece to be read, and where it goes.
struct Wanted {
    piece: Piece,
    slot: SlotIndex,
    /// Bytes of the read piece that are wanted, and where they start in the answer.
    part: Range<usize>,
    at: usize,
}

/// What has to be read from stripes for one range of a file, and what lies over it.
#[derive(Default)]
struct Plan {
    stripes: BTreeMap<StripeId, Vec<Wanted>>,
    /// Bytes that are in the metadata: where they start in the answer.
    inline: Vec<(usize, Bytes)>,
    hot: Vec<(usize, Bytes)>,
}

impl Data {
    /// Reads up to `length` bytes at `offset`, short only at the end of file.
    pub async fn read(&self, node: &Arc<Node>, offset: u64, length: u32) -> Result<Bytes> {
        let (end, pieces) = {
            let meta = node.locked();
            let end = meta.size.min(offset.saturating_add(u64::from(length)));
            if offset >= end {
                return Ok(Bytes::new());
            }
            (end, node.data.dirty().pieces(offset..end))
        };
        let covered: usize = pieces.iter().map(|(_at, bytes)| bytes.len()).sum();
        let length = buffer(end - offset);
        let mut out = match covered == length {
            true => vec![0; length],
            false => self.committed(node.ino, offset..end).await?,
        };
        for (at, bytes) in pieces {
            copy_into(&mut out, at, &bytes);
        }
        Ok(out.into())
    }

    /// Committed content of a range; zeros where there is none.
    ///
    /// Errors: `Stale` if the inode is gone, else what the stripes say.
    pub(super) async fn committed(&self, ino: Ino, range: Range<u64>) -> Result<Vec<u8>> {
        for _attempt in 1..ATTEMPTS_MAX {
            match self.committed_once(ino, range.clone()).await {
                Err(error) if may_have_moved(&error) => {}
                result => return result,
            }
        }
        let result = self.committed_once(ino, range).await;
        result.map_err(|error| match may_have_moved(&error) {
            true => {
                Error::with_source(ErrorKind::Corrupt, "an extent names what is not there", error)
            }
            false => error,
        })
    }

    async fn committed_once(&self, ino: Ino, range: Range<u64>) -> Result<Vec<u8>> {
        let (plan, records) = {
            let plan = self.plan(ino, &range)?;
            let stripes = plan.stripes.keys();
            let records = stripes.map(|stripe| self.chunks.record(&self.meta, *stripe));
            let records = records.collect::<Result<Vec<_>>>()?;
            (plan, records)
        };
        let mut out = vec![0; buffer(range.end - range.start)];
        for (at, bytes) in &plan.inline {
            copy_into(&mut out, *at, bytes);
        }
        let reads: Vec<BoxFuture<'_, Result<Pieces>>> = records
            .iter()
            .zip(plan.stripes.values())
            .map(|(record, wanted)| self.read_stripe(record, wanted).boxed())
            .collect();
        for pieces in try_join_all(reads).await? {
            for (at, bytes) in pieces {
                copy_into(&mut out, at, &bytes);
            }
        }
        for (at, bytes) in &plan.hot {
            copy_into(&mut out, *at, bytes);
        }
        Ok(out)
    }

    fn plan(&self, ino: Ino, range: &Range<u64>) -> Result<Plan> {
        let mut plan = Plan::default();
        let mut at = range.start;
        while at < range.end {
            let end = range.end.min((at / CHUNK_BYTES + 1) * CHUNK_BYTES);
            let index = u32::try_from(at / CHUNK_BYTES).map_err(|_far| Posix::FileTooBig)?;
            let chunk = self.chunks.chunk(&self.meta, ino, ChunkIndex(index))?;
            let inline_end = end.min(chunk.inline.len() as u64);
            if at < inline_end {
                plan.inline.push((0, chunk.inline.slice(buffer(at)..buffer(inline_end))));
            }
            self.plan_chunk(&mut plan, (&chunk.content, ino), (at..end, range.start))?;
            at = end;
        }
        Ok(plan)
    }

    /// Plans one chunk: `part` of the file lies in it, and the answer starts at `base`.
    fn plan_chunk(
        &self,
        plan: &mut Plan,
        (content, ino): (&ChunkView, Ino),
        (part, base): (Range<u64>, u64),
    ) -> Result<()> {
        for number in part.start / SEGMENT..part.end.div_ceil(SEGMENT) {
            let address = segment_address(ino, number).ok_or(Posix::FileTooBig)?;
            let Some(place) = content.map.get(address.segment) else { continue };
            let start = number * SEGMENT;
            let shown = start..start + u64::from(place.frame.raw_bytes);
            let wanted = part.start.max(shown.start)..part.end.min(shown.end);
            if wanted.start < wanted.end {
                let within = wanted.start - start..wanted.end - start;
                self.want(plan, place, within, buffer(wanted.start - base));
            }
        }
        let chunk_start = part.start / CHUNK_BYTES * CHUNK_BYTES;
        for hot in &content.hot {
            let start = chunk_start + u64::from(hot.offset);
            let shown = part.start.max(start)..part.end.min(start + hot.data.len() as u64);
            if shown.start < shown.end {
                let bytes = hot.data.slice(buffer(shown.start - start)..buffer(shown.end - start));
                plan.hot.push((buffer(shown.start - base), bytes));
            }
        }
        Ok(())
    }

    /// Plans bytes `within` of one segment. Of a compressed frame all is read, for the cache.
    fn want(&self, plan: &mut Plan, place: &Place, within: Range<u64>, at: usize) {
        let (start, end) = (buffer(within.start), buffer(within.end));
        if place.frame.compressed
            && let Some(segment) = self.frames.get(place.stripe, place.slot)
            && segment.len() >= end
        {
            plan.inline.push((at, segment.slice(start..end)));
            return;
        }
        let (offset, length) = match place.frame.compressed {
            true => (0, place.frame.raw_bytes),
            false => (bytes_of(start), bytes_of(end - start)),
        };
        let skip = start - offset as usize;
        let part = skip..skip + (end - start);
        let piece = Piece { frame: place.frame, offset, length };
        let wanted = Wanted { piece, slot: place.slot, part, at };
        plan.stripes.entry(place.stripe).or_default().push(wanted);
    }

    async fn read_stripe(
        &self,
        record: &StripeRecord,
        wanted: &[Wanted],
    ) -> Result<Vec<(usize, Bytes)>> {
        let pieces: Vec<Piece> = wanted.iter().map(|wanted| wanted.piece).collect();
        let start = Instant::now();
        let read = self.reader.read(record, &pieces).await?;
        // Large reads take longer by nature: what counts is the time for a segment.
        let segments = read.iter().map(Bytes::len).sum::<usize>().div_ceil(buffer(SEGMENT));
        self.load.note(start.elapsed() / u32::try_from(segments).unwrap_or(u32::MAX).max(1));
        let mut parts = Vec::with_capacity(read.len());
        for (wanted, bytes) in wanted.iter().zip(read) {
            if wanted.piece.frame.compressed {
                self.frames.insert(record.id, wanted.slot, bytes.clone());
            }
            parts.push((wanted.at, bytes.slice(wanted.part.clone())));
        }
        Ok(parts)
    }
}

fn copy_into(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(target) = out.get_mut(at..at + bytes.len()) {
        target.copy_from_slice(bytes);
    }
}

/// A length or offset inside a buffer in memory.
fn buffer(bytes: u64) -> usize {
    usize::try_from(bytes).expect("buffers are in memory")
}

fn bytes_of(length: usize) -> u32 {
    u32::try_from(length).expect("within one segment")
}
