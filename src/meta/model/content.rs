//! Commands on the content of files: truncate, punch, hot and inline data, clones, reservations.

use super::segments::{
    ALL, Released, backref, byte_range, drop_segments, few_chunks, is_hidden, locate, overlay_hot,
    shorten_segment,
};
use super::{allocate, answer, file, next_version, set_attributes, unreserve, update_file};
use crate::error::{Posix, Result};
use crate::extent::Place;
use crate::limits::{
    CHUNK_BYTES, CHUNKS_PER_COMMAND_MAX, FILE_BYTES_MAX, INLINE_BYTES_MAX, SEGMENT_BYTES,
    SEGMENTS_PER_CHUNK,
};
use crate::meta::command::{Answer, FileUpdate, HotExtent, Inode, SetAttributes, segment_address};
use crate::meta::tables::Txn;
use crate::meta::tables::rows::ReapEntry;
use crate::types::{ChunkIndex, Ino, SegmentAddress, Version};
use bytes::Bytes;
use std::ops::Range;

pub(super) fn truncate(
    txn: &mut Txn<'_>,
    ino: Ino,
    size: u64,
    set: &SetAttributes,
) -> Result<Answer> {
    let mut inode = file(txn, ino)?;
    if size > FILE_BYTES_MAX {
        return Err(Posix::FileTooBig.into());
    }
    if size < inode.size {
        if inode.cut.is_some() {
            return Err(Posix::Again.into());
        }
        cut(txn, &mut inode, size)?;
    }
    inode.size = size;
    set_attributes(&mut inode, set);
    answer(txn, inode)
}

/// Drops what lies behind the new end.
fn cut(txn: &mut Txn<'_>, inode: &mut Inode, size: u64) -> Result<()> {
    let mut released = Released::default();
    shorten_segment(txn, inode, size)?;
    let whole = size.next_multiple_of(u64::from(SEGMENT_BYTES));
    let mut first = whole / CHUNK_BYTES;
    if !whole.is_multiple_of(CHUNK_BYTES) {
        let (chunk, segment) = locate(whole);
        let rest = segment.0..SEGMENTS_PER_CHUNK;
        drop_segments(txn, inode, (chunk, rest), None, &mut released)?;
        first += 1;
    }
    if let Ok(first) = u32::try_from(first).map(ChunkIndex) {
        match few_chunks(txn, inode.ino, first)? {
            Some(chunks) => {
                for chunk in chunks {
                    drop_segments(txn, inode, (chunk, ALL), None, &mut released)?;
                }
            }
            None => {
                inode.cut = Some(first);
                txn.put_reap(inode.ino, ReapEntry { from: first, whole: false })?;
            }
        }
    }
    inode.floor = next_version(inode);
    let kept = usize::try_from(size).unwrap_or(usize::MAX).min(inode.inline.len());
    set_inline(inode, inode.inline.slice(..kept));
    unreserve(txn, inode);
    released.settle(txn)
}

fn set_inline(inode: &mut Inode, data: Bytes) {
    inode.allocated_bytes = inode.allocated_bytes.saturating_sub(inode.inline.len() as u64);
    inode.allocated_bytes += data.len() as u64;
    // A slice would keep the whole row in memory.
    inode.inline = Bytes::copy_from_slice(&data);
}

/// The segments `first..first + count` of a file, chunk by chunk; `Invalid` if they are too many for one command.
fn by_chunk(first: u64, count: u64) -> Result<Vec<(ChunkIndex, Range<u16>)>> {
    let per_chunk = u64::from(SEGMENTS_PER_CHUNK);
    let end = first.checked_add(count).ok_or(Posix::Invalid)?;
    if count == 0
        || count > CHUNKS_PER_COMMAND_MAX as u64 * per_chunk
        || segment_address(Ino(0), end - 1).is_none()
    {
        return Err(Posix::Invalid.into());
    }
    let mut parts = Vec::new();
    let mut at = first;
    while at < end {
        let address = segment_address(Ino(0), at).ok_or(Posix::Invalid)?;
        let start = u64::from(address.segment.0);
        let stop = (start + (end - at)).min(per_chunk);
        let segments = address.segment.0..u16::try_from(stop).unwrap_or(SEGMENTS_PER_CHUNK);
        parts.push((address.chunk, segments));
        at += stop - start;
    }
    Ok(parts)
}

pub(super) fn punch(
    txn: &mut Txn<'_>,
    ino: Ino,
    first: u64,
    count: u64,
    set: &SetAttributes,
) -> Result<Answer> {
    let mut inode = file(txn, ino)?;
    let parts = by_chunk(first, count)?;
    if inode.cut.is_some() {
        return Err(Posix::Again.into());
    }
    let mut released = Released::default();
    for part in parts {
        drop_segments(txn, &mut inode, part, None, &mut released)?;
    }
    if first == 0 {
        set_inline(&mut inode, Bytes::new());
    }
    inode.floor = next_version(&mut inode);
    released.settle(txn)?;
    set_attributes(&mut inode, set);
    answer(txn, inode)
}

pub(super) fn commit_hot(
    txn: &mut Txn<'_>,
    update: &FileUpdate,
    extents: &[HotExtent],
) -> Result<Answer> {
    let mut inode = file(txn, update.ino)?;
    let before = inode.allocated_bytes;
    let version = next_version(&mut inode);
    for hot in extents {
        overlay_hot(txn, &mut inode, (hot.chunk, hot.offset), version, &hot.data)?;
    }
    allocate(txn, &mut inode, before);
    update_file(&mut inode, update);
    answer(txn, inode)
}

pub(super) fn commit_inline(
    txn: &mut Txn<'_>,
    update: &FileUpdate,
    data: &Bytes,
) -> Result<Answer> {
    let mut inode = file(txn, update.ino)?;
    if inode.size > CHUNK_BYTES || data.len() > INLINE_BYTES_MAX as usize {
        return Err(Posix::Invalid.into());
    }
    let mut released = Released::default();
    let before = inode.allocated_bytes;
    drop_segments(txn, &mut inode, (ChunkIndex(0), ALL), None, &mut released)?;
    released.settle(txn)?;
    set_inline(&mut inode, data.clone());
    allocate(txn, &mut inode, before);
    inode.floor = next_version(&mut inode);
    update_file(&mut inode, update);
    answer(txn, inode)
}

pub(super) fn reserve(
    txn: &mut Txn<'_>,
    ino: Ino,
    bytes: u64,
    update: &FileUpdate,
) -> Result<Answer> {
    let mut inode = file(txn, ino)?;
    unreserve(txn, &mut inode);
    inode.reserved_bytes = bytes;
    txn.totals.reserved_bytes += bytes;
    update_file(&mut inode, update);
    answer(txn, inode)
}

/// Sources of a clone, by number from its first segment.
type Sources = Vec<(u64, SegmentAddress, Place)>;

pub(super) fn clone_segments(
    txn: &mut Txn<'_>,
    (from, from_first): (Ino, u64),
    (to, to_first): (Ino, u64),
    count: u64,
    update: &FileUpdate,
) -> Result<Answer> {
    let source = file(txn, from)?;
    let mut target = file(txn, to)?;
    let (from_parts, to_parts) = (by_chunk(from_first, count)?, by_chunk(to_first, count)?);
    if update.ino != to || (from == to && from_first.abs_diff(to_first) < count) {
        return Err(Posix::Invalid.into());
    }
    let inline = from_first == 0 && !source.inline.is_empty();
    if source.cut.is_some() || target.cut.is_some() || inline {
        return Err(Posix::Again.into());
    }
    let sources = clone_sources(txn, &source, from_first, &from_parts)?;

    let before = target.allocated_bytes;
    let version = next_version(&mut target);
    let mut released = Released::default();
    // The new owners are entered before the old ones go: a slot that is cloned over itself stays alive.
    for (number, owner, place) in &sources {
        let address = segment_address(to, to_first + number).ok_or(Posix::Invalid)?;
        share(txn, place, *owner, address)?;
    }
    let kept = replace_segments(txn, &mut target, &to_parts, &mut released)?;
    enter_clones(txn, &mut target, to_first, (&sources, version))?;
    for (address, place) in kept {
        let again = sources.iter().any(|(number, _owner, source)| {
            segment_address(to, to_first + number) == Some(address)
                && (source.stripe, source.slot) == (place.stripe, place.slot)
        });
        if !again {
            released.add(address, &place);
        }
    }
    released.settle(txn)?;
    if to_first == 0 {
        set_inline(&mut target, Bytes::new());
    }
    target.floor = next_version(&mut target);
    allocate(txn, &mut target, before);
    update_file(&mut target, update);
    answer(txn, target)
}

/// The extents to be shared; `Again` if a segment also has hot bytes.
fn clone_sources(
    txn: &Txn<'_>,
    source: &Inode,
    first: u64,
    parts: &[(ChunkIndex, Range<u16>)],
) -> Result<Sources> {
    let mut sources = Sources::new();
    for (chunk, segments) in parts {
        if !txn.hot(source.ino, *chunk, byte_range(segments))?.is_empty() {
            return Err(Posix::Again.into());
        }
        let map = txn.chunk(source.ino, *chunk)?;
        for (segment, place) in map.iter().filter(|(at, _place)| segments.contains(&at.0)) {
            let number = u64::from(chunk.0) * u64::from(SEGMENTS_PER_CHUNK) + u64::from(segment.0);
            let owner = SegmentAddress { ino: source.ino, chunk: *chunk, segment };
            sources.push((number - first, owner, *place));
        }
    }
    Ok(sources)
}

/// Enters one more owner of a slot. As soon as there are two, all have a row.
fn share(
    txn: &mut Txn<'_>,
    place: &Place,
    owner: SegmentAddress,
    further: SegmentAddress,
) -> Result<()> {
    let (stripe, slot) = (place.stripe, place.slot.0);
    let Some(mut live) = txn.live(stripe)? else {
        return Err(crate::error::Error::corrupt(format!("stripe {stripe} has no live row")));
    };
    if !live.shared {
        live.shared = true;
        txn.put_live(stripe, &live)?;
    }
    txn.put_backref(backref(stripe, slot, owner))?;
    txn.put_backref(backref(stripe, slot, further))
}

/// Takes all extents and hot bytes out of the target of a clone; answers the extents.
fn replace_segments(
    txn: &mut Txn<'_>,
    target: &mut Inode,
    parts: &[(ChunkIndex, Range<u16>)],
    released: &mut Released,
) -> Result<Vec<(SegmentAddress, Place)>> {
    let mut taken = Vec::new();
    for (chunk, segments) in parts {
        let mut map = txn.chunk(target.ino, *chunk)?;
        for segment in segments.clone().map(crate::types::SegmentIndex) {
            if let Some(place) = map.remove(segment) {
                let raw = u64::from(place.frame.raw_bytes);
                target.allocated_bytes = target.allocated_bytes.saturating_sub(raw);
                taken.push((SegmentAddress { ino: target.ino, chunk: *chunk, segment }, place));
            }
        }
        txn.put_chunk(target.ino, *chunk, &map)?;
        drop_segments(txn, target, (*chunk, segments.clone()), None, released)?;
    }
    Ok(taken)
}

/// Enters the shared extents into the target.
fn enter_clones(
    txn: &mut Txn<'_>,
    target: &mut Inode,
    to_first: u64,
    (sources, version): (&Sources, Version),
) -> Result<()> {
    let mut at = 0;
    while let Some((number, _owner, _place)) = sources.get(at) {
        let chunk = segment_address(target.ino, to_first + number).ok_or(Posix::Invalid)?.chunk;
        let mut map = txn.chunk(target.ino, chunk)?;
        while let Some((number, _owner, place)) = sources.get(at) {
            let address = segment_address(target.ino, to_first + number).ok_or(Posix::Invalid)?;
            if address.chunk != chunk {
                break;
            }
            map.insert(address.segment, Place { version, ..*place });
            target.allocated_bytes += u64::from(place.frame.raw_bytes);
            at += 1;
        }
        txn.put_chunk(target.ino, chunk, &map)?;
    }
    Ok(())
}

/// Version of a segment's content: the newest of floor, extent and hot bytes.
pub(super) fn version(
    inode: &Inode,
    chunk: ChunkIndex,
    place: Option<&Place>,
    hot: &[(u32, Version, Vec<u8>)],
) -> Version {
    let hot = hot.iter().map(|(_offset, version, _data)| *version);
    let seen = hot.chain(place.map(|place| place.version));
    seen.filter(|version| !is_hidden(inode, chunk, *version))
        .chain([inode.floor])
        .max()
        .unwrap_or(inode.floor)
}
