//! What commands on content share: dropping segments and hot bytes, overlaying hot bytes, and the account of which
//! slots lose an owner.

use super::{next_version, subtract};
use crate::error::Result;
use crate::extent::Place;
use crate::limits::{CHUNK_BYTES, CHUNKS_PER_COMMAND_MAX, SEGMENT_BYTES, SEGMENTS_PER_CHUNK};
use crate::meta::command::Inode;
use crate::meta::tables::{BackrefKey, Txn};
use crate::types::{ChunkIndex, Ino, SegmentAddress, SegmentIndex, StripeId, Version};
use std::collections::BTreeMap;
use std::ops::Range;

/// Neighbouring hot bytes become one row up to this size: appending line by line makes few rows, and rewrites
/// little.
const MERGE_BYTES_MAX: usize = 8 * 1024;

/// All segments of a chunk.
pub(super) const ALL: Range<u16> = 0..SEGMENTS_PER_CHUNK;

/// Slots that lose an owner in the course of one command, by stripe: each stripe's row is changed once.
#[derive(Default)]
pub(super) struct Released {
    slots: BTreeMap<StripeId, Vec<(u32, u64, SegmentAddress)>>,
}

impl Released {
    pub(super) fn add(&mut self, owner: SegmentAddress, place: &Place) {
        let slot = (place.slot.0, place.frame.stored_bytes(), owner);
        self.slots.entry(place.stripe).or_default().push(slot);
    }

    /// Writes the account down. Stripes that nobody names any more go to the delete queue.
    pub(super) fn settle(self, txn: &mut Txn<'_>) -> Result<()> {
        for (stripe, slots) in self.slots {
            let Some(mut live) = txn.live(stripe)? else {
                return Err(crate::error::Error::corrupt(format!(
                    "stripe {stripe} has no live row"
                )));
            };
            for (slot, bytes, owner) in slots {
                if live.shared && still_owned(txn, stripe, slot, owner)? {
                    continue;
                }
                if live.set(slot, false) {
                    subtract(&mut live.bytes, bytes)?;
                    subtract(&mut txn.totals.live_bytes, bytes)?;
                }
            }
            if live.is_dead() {
                super::stripes::bury(txn, stripe)?;
            } else {
                txn.put_live(stripe, &live)?;
            }
        }
        Ok(())
    }
}

pub(super) const fn backref(stripe: StripeId, slot: u32, owner: SegmentAddress) -> BackrefKey {
    (stripe.get(), slot, owner.ino.0, owner.chunk.0, owner.segment.0)
}

/// Takes one owner from a slot of a stripe with shared slots; answers whether another is left.
fn still_owned(
    txn: &mut Txn<'_>,
    stripe: StripeId,
    slot: u32,
    owner: SegmentAddress,
) -> Result<bool> {
    let gone = backref(stripe, slot, owner);
    txn.remove_backref(gone)?;
    Ok(!txn.backrefs(stripe, slot)?.is_empty())
}

/// Whether a pending cut hides content of this version in this chunk.
pub(super) fn is_hidden(inode: &Inode, chunk: ChunkIndex, version: Version) -> bool {
    inode.cut.is_some_and(|cut| chunk >= cut) && version < inode.floor
}

/// Byte range of segments in their chunk.
pub(super) const fn byte_range(segments: &Range<u16>) -> Range<u32> {
    segments.start as u32 * SEGMENT_BYTES..segments.end as u32 * SEGMENT_BYTES
}

/// Drops extents and hot bytes of some segments of a chunk; with `below`, only what is older than that version.
pub(super) fn drop_segments(
    txn: &mut Txn<'_>,
    inode: &mut Inode,
    (chunk, segments): (ChunkIndex, Range<u16>),
    below: Option<Version>,
    released: &mut Released,
) -> Result<()> {
    let goes = |version: Version| below.is_none_or(|below| version < below);
    let mut map = txn.chunk(inode.ino, chunk)?;
    let dropped: Vec<(SegmentIndex, Place)> = map
        .iter()
        .filter(|(segment, place)| segments.contains(&segment.0) && goes(place.version))
        .map(|(segment, place)| (segment, *place))
        .collect();
    for (segment, place) in &dropped {
        map.remove(*segment);
        released.add(SegmentAddress { ino: inode.ino, chunk, segment: *segment }, place);
        inode.allocated_bytes =
            inode.allocated_bytes.saturating_sub(u64::from(place.frame.raw_bytes));
    }
    if !dropped.is_empty() {
        txn.put_chunk(inode.ino, chunk, &map)?;
    }
    for (offset, version, data) in txn.hot(inode.ino, chunk, byte_range(&segments))? {
        if goes(version) {
            drop_hot(txn, inode, (chunk, offset), data.len())?;
        }
    }
    Ok(())
}

/// Drops one row of hot bytes.
pub(super) fn drop_hot(
    txn: &mut Txn<'_>,
    inode: &mut Inode,
    (chunk, offset): (ChunkIndex, u32),
    length: usize,
) -> Result<()> {
    txn.remove_hot(inode.ino, chunk, offset)?;
    inode.allocated_bytes = inode.allocated_bytes.saturating_sub(length as u64);
    subtract(&mut txn.totals.hot_bytes, length as u64)
}

/// Stores one row of hot bytes where none is.
fn add_hot(
    txn: &mut Txn<'_>,
    inode: &mut Inode,
    place: (ChunkIndex, u32),
    version: Version,
    data: &[u8],
) -> Result<()> {
    txn.put_hot(inode.ino, place, version, data)?;
    inode.allocated_bytes += data.len() as u64;
    txn.totals.hot_bytes += data.len() as u64;
    Ok(())
}

/// Lays hot bytes over those that a segment has. `data` does not cross the segment's end.
pub(super) fn overlay_hot(
    txn: &mut Txn<'_>,
    inode: &mut Inode,
    (chunk, offset): (ChunkIndex, u32),
    version: Version,
    data: &[u8],
) -> Result<()> {
    let segment = offset / SEGMENT_BYTES * SEGMENT_BYTES;
    let end = offset + length(data);
    let (mut start, mut merged) = (offset, data.to_vec());
    for (at, old_version, old) in txn.hot(inode.ino, chunk, segment..segment + SEGMENT_BYTES)? {
        let old_end = at + length(&old);
        if is_hidden(inode, chunk, old_version) {
            drop_hot(txn, inode, (chunk, at), old.len())?;
            continue;
        }
        if old_end < offset || at > end {
            continue;
        }
        drop_hot(txn, inode, (chunk, at), old.len())?;
        if at < offset {
            let head = old.get(..(offset - at) as usize).unwrap_or(&old);
            if head.len() + merged.len() <= MERGE_BYTES_MAX {
                merged.splice(..0, head.iter().copied());
                start = at;
            } else {
                add_hot(txn, inode, (chunk, at), old_version, head)?;
            }
        }
        if old_end > end {
            let tail = old.get((end.max(at) - at) as usize..).unwrap_or_default();
            if tail.len() + merged.len() <= MERGE_BYTES_MAX {
                merged.extend_from_slice(tail);
            } else {
                add_hot(txn, inode, (chunk, end.max(at)), old_version, tail)?;
            }
        }
    }
    add_hot(txn, inode, (chunk, start), version, &merged)
}

fn length(data: &[u8]) -> u32 {
    u32::try_from(data.len()).expect("hot bytes are within one segment")
}

/// Cuts the segment that the new end of file lies in: what is behind the end goes.
pub(super) fn shorten_segment(txn: &mut Txn<'_>, inode: &mut Inode, size: u64) -> Result<()> {
    let rest = u32::try_from(size % u64::from(SEGMENT_BYTES)).unwrap_or(0);
    if rest == 0 {
        return Ok(());
    }
    let version = next_version(inode);
    let (chunk, segment) = locate(size);
    let mut map = txn.chunk(inode.ino, chunk)?;
    if let Some(place) = map.get(segment).copied()
        && place.frame.raw_bytes > rest
    {
        let cut = u64::from(place.frame.raw_bytes - rest);
        inode.allocated_bytes = inode.allocated_bytes.saturating_sub(cut);
        let frame = crate::extent::FrameRef { raw_bytes: rest, ..place.frame };
        map.insert(segment, Place { frame, version, ..place });
        txn.put_chunk(inode.ino, chunk, &map)?;
    }
    let start = u32::from(segment.0) * SEGMENT_BYTES;
    for (offset, hot_version, data) in txn.hot(inode.ino, chunk, start..start + SEGMENT_BYTES)? {
        let kept = (start + rest).saturating_sub(offset) as usize;
        if kept < data.len() {
            drop_hot(txn, inode, (chunk, offset), data.len())?;
            if kept > 0 {
                let data = data.get(..kept).unwrap_or_default();
                add_hot(txn, inode, (chunk, offset), hot_version, data)?;
            }
        }
    }
    Ok(())
}

/// Chunk and segment of a byte of a file that is within `FILE_BYTES_MAX`.
pub(super) fn locate(offset: u64) -> (ChunkIndex, SegmentIndex) {
    let chunk = u32::try_from(offset / CHUNK_BYTES).expect("within the largest file");
    let segment = offset % CHUNK_BYTES / u64::from(SEGMENT_BYTES);
    (ChunkIndex(chunk), SegmentIndex(u16::try_from(segment).expect("512 segments")))
}

/// First chunk at or behind `from` that has extents or hot bytes.
pub(super) fn next_chunk(txn: &Txn<'_>, ino: Ino, from: ChunkIndex) -> Result<Option<ChunkIndex>> {
    let extents = txn.next_chunk(ino, from)?;
    let hot = txn.next_hot_chunk(ino, from)?;
    Ok(extents.into_iter().chain(hot).min())
}

/// The chunks at or behind `from` that have something, if one command may release them all.
pub(super) fn few_chunks(
    txn: &Txn<'_>,
    ino: Ino,
    from: ChunkIndex,
) -> Result<Option<Vec<ChunkIndex>>> {
    let (mut chunks, mut next) = (Vec::new(), Some(from));
    while let Some(from) = next {
        let Some(chunk) = next_chunk(txn, ino, from)? else { break };
        if chunks.len() == CHUNKS_PER_COMMAND_MAX {
            return Ok(None);
        }
        chunks.push(chunk);
        next = chunk.0.checked_add(1).map(ChunkIndex);
    }
    Ok(Some(chunks))
}
