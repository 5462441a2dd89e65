//! Commands on stripes: commit, move, forget, and where their shards are.

use super::content::version;
use super::repairs;
use super::segments::{Released, backref, byte_range, drop_hot};
use super::{allocate, next_version, subtract, update_file};
use crate::error::{Error, Posix, Result};
use crate::extent::{ChunkMap, FrameRef, Place};
use crate::meta::command::{Answer, FileUpdate, Inode, SegmentCommit, SegmentMove};
use crate::meta::tables::Txn;
use crate::meta::tables::rows::Live;
use crate::stripe::layout::StripeRecord;
use crate::types::{
    ChunkIndex, DiskId, FileKind, Ino, SegmentAddress, ShardIndex, SlotIndex, StripeId,
};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Items of a command with their index in it, by file and chunk.
type ByChunk<'c, T> = BTreeMap<Ino, BTreeMap<ChunkIndex, Vec<(u32, &'c T)>>>;

fn group<T>(items: &[T], address: impl Fn(&T) -> SegmentAddress) -> ByChunk<'_, T> {
    let mut groups = ByChunk::new();
    for (index, item) in (0..).zip(items) {
        let at = address(item);
        groups.entry(at.ino).or_default().entry(at.chunk).or_default().push((index, item));
    }
    groups
}

/// The record of a new stripe must be one, and its frames must lie within its payload.
fn check_new(txn: &Txn<'_>, record: &StripeRecord) -> Result<()> {
    if txn.stripe(record.id)?.is_some() || txn.dead(record.id)?.is_some() {
        return Err(Posix::Exists.into());
    }
    Ok(())
}

fn check_frame(record: &StripeRecord, slot: SlotIndex, frame: &FrameRef) -> Result<()> {
    let end = u64::from(frame.payload_offset) + frame.stored_bytes();
    if slot.0 >= record.slots || frame.check().is_err() || end > record.payload_bytes {
        return Err(Posix::Invalid.into());
    }
    Ok(())
}

pub(super) fn commit(
    txn: &mut Txn<'_>,
    record: &StripeRecord,
    segments: &[SegmentCommit],
    files: &[FileUpdate],
) -> Result<Answer> {
    check_new(txn, record)?;
    let mut seen = Live::new(record.slots);
    for commit in segments {
        check_frame(record, commit.slot, &commit.frame)?;
        if !seen.set(commit.slot.0, true) {
            return Err(Posix::Invalid.into());
        }
    }
    let mut committing = Committing {
        record,
        live: Live::new(record.slots),
        released: Released::default(),
        skipped: Vec::new(),
    };
    let mut inodes = BTreeMap::new();
    for (ino, chunks) in group(segments, |commit| commit.address) {
        match txn.inode(ino)?.filter(|inode| inode.kind == FileKind::File) {
            Some(mut inode) => {
                committing.file(txn, &mut inode, &chunks)?;
                inodes.insert(ino, inode);
            }
            None => committing.skip(chunks.values().flatten()),
        }
    }
    for update in files {
        let inode = match inodes.remove(&update.ino) {
            Some(inode) => Some(inode),
            None => txn.inode(update.ino)?,
        };
        if let Some(mut inode) = inode.filter(|inode| inode.kind == FileKind::File) {
            update_file(&mut inode, update);
            inodes.insert(update.ino, inode);
        }
    }
    let Committing { live, released, mut skipped, .. } = committing;
    enter(txn, record, &live)?;
    released.settle(txn)?;
    let inodes: Vec<Inode> = inodes.into_values().collect();
    inodes.iter().try_for_each(|inode| txn.put_inode(inode))?;
    skipped.sort_unstable();
    Ok(Answer::Committed { skipped, inodes })
}

/// A commit under way.
struct Committing<'c> {
    record: &'c StripeRecord,
    live: Live,
    released: Released,
    skipped: Vec<u32>,
}

impl Committing<'_> {
    fn skip<'i>(&mut self, items: impl Iterator<Item = &'i (u32, &'i SegmentCommit)>) {
        self.skipped.extend(items.map(|(index, _commit)| *index));
    }

    fn file(
        &mut self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
        chunks: &BTreeMap<ChunkIndex, Vec<(u32, &SegmentCommit)>>,
    ) -> Result<()> {
        let before = inode.allocated_bytes;
        let version = next_version(inode);
        for (chunk, commits) in chunks {
            let mut map = txn.chunk(inode.ino, *chunk)?;
            for (index, commit) in commits {
                if self.segment(txn, inode, &mut map, commit)? {
                    let place = Place {
                        stripe: self.record.id,
                        slot: commit.slot,
                        frame: commit.frame,
                        version,
                    };
                    if let Some(old) = map.insert(commit.address.segment, place) {
                        let raw = u64::from(old.frame.raw_bytes);
                        inode.allocated_bytes = inode.allocated_bytes.saturating_sub(raw);
                        self.released.add(commit.address, &old);
                    }
                    inode.allocated_bytes += u64::from(commit.frame.raw_bytes);
                    self.live.set(commit.slot.0, true);
                    self.live.bytes += commit.frame.stored_bytes();
                } else {
                    self.skipped.push(*index);
                }
            }
            txn.put_chunk(inode.ino, *chunk, &map)?;
        }
        allocate(txn, inode, before);
        Ok(())
    }

    /// Whether a segment is still what the commit was built from; if so its hot and inline bytes go.
    fn segment(
        &self,
        txn: &mut Txn<'_>,
        inode: &mut Inode,
        map: &mut ChunkMap,
        commit: &SegmentCommit,
    ) -> Result<bool> {
        let SegmentAddress { chunk, segment, .. } = commit.address;
        let hot = txn.hot(inode.ino, chunk, byte_range(&(segment.0..segment.0 + 1)))?;
        if version(inode, chunk, map.get(segment), &hot) != commit.expected {
            return Ok(false);
        }
        for (offset, _version, data) in hot {
            drop_hot(txn, inode, (chunk, offset), data.len())?;
        }
        if chunk.0 == 0 && segment.0 == 0 {
            let inline = inode.inline.len() as u64;
            inode.allocated_bytes = inode.allocated_bytes.saturating_sub(inline);
            inode.inline = Bytes::new();
        }
        Ok(true)
    }
}

/// Enters a new stripe: among the live ones, or in the delete queue if all its segments were skipped.
fn enter(txn: &mut Txn<'_>, record: &StripeRecord, live: &Live) -> Result<()> {
    let coded = record.geometry().coded_bytes();
    if live.is_dead() {
        txn.totals.dead_bytes += coded;
        return txn.put_dead(record);
    }
    txn.totals.stripes += 1;
    txn.totals.stripe_bytes += coded;
    txn.totals.live_bytes += live.bytes;
    txn.put_stripe(record)?;
    txn.put_live(record.id, live)
}

/// Moves a stripe that nobody names from the live ones to the delete queue.
pub(super) fn bury(txn: &mut Txn<'_>, id: StripeId) -> Result<()> {
    let record = txn
        .stripe(id)?
        .ok_or_else(|| Error::corrupt(format!("stripe {id} is named and has no record")))?;
    let coded = record.geometry().coded_bytes();
    txn.remove_stripe(id)?;
    txn.remove_repair(id)?;
    txn.put_dead(&record)?;
    subtract(&mut txn.totals.stripes, 1)?;
    subtract(&mut txn.totals.stripe_bytes, coded)?;
    txn.totals.dead_bytes += coded;
    Ok(())
}

pub(super) fn relocate(
    txn: &mut Txn<'_>,
    record: &StripeRecord,
    segments: &[SegmentMove],
) -> Result<Answer> {
    check_new(txn, record)?;
    for moved in segments {
        check_frame(record, moved.slot, &moved.frame)?;
    }
    let (mut live, mut released) = (Live::new(record.slots), Released::default());
    let mut owners: BTreeMap<u32, Vec<SegmentAddress>> = BTreeMap::new();
    let mut skipped = Vec::new();
    for (ino, chunks) in group(segments, |moved| moved.address) {
        for (chunk, moves) in chunks {
            let mut map = txn.chunk(ino, chunk)?;
            for (index, moved) in moves {
                let at = moved.address.segment;
                let from = |place: &&Place| {
                    (place.stripe, place.slot) == (moved.from_stripe, moved.from_slot)
                };
                let Some(place) = map.get(at).filter(from).copied() else {
                    skipped.push(index);
                    continue;
                };
                let raw_bytes = place.frame.raw_bytes.min(moved.frame.raw_bytes);
                let frame = FrameRef { raw_bytes, ..moved.frame };
                map.insert(at, Place { stripe: record.id, slot: moved.slot, frame, ..place });
                released.add(moved.address, &place);
                owners.entry(moved.slot.0).or_default().push(moved.address);
                if live.set(moved.slot.0, true) {
                    live.bytes += moved.frame.stored_bytes();
                }
            }
            txn.put_chunk(ino, chunk, &map)?;
        }
    }
    for (slot, owners) in owners.iter().filter(|(_slot, owners)| owners.len() > 1) {
        live.shared = true;
        for owner in owners {
            txn.put_backref(backref(record.id, *slot, *owner))?;
        }
    }
    enter(txn, record, &live)?;
    released.settle(txn)?;
    skipped.sort_unstable();
    Ok(Answer::Committed { skipped, inodes: Vec::new() })
}

pub(super) fn forget(txn: &mut Txn<'_>, stripes: &[StripeId]) -> Result<Answer> {
    for id in stripes {
        if let Some(record) = txn.dead(*id)? {
            subtract(&mut txn.totals.dead_bytes, record.geometry().coded_bytes())?;
            txn.remove_dead(*id)?;
        }
    }
    Ok(Answer::Done)
}

pub(super) fn place_shard(
    txn: &mut Txn<'_>,
    (stripe, index): (StripeId, ShardIndex),
    (from, disk): (DiskId, DiskId),
    root: &[u8; 32],
) -> Result<Answer> {
    let mut record = txn.stripe(stripe)?.ok_or(Posix::NotFound)?;
    let at = usize::from(index.0);
    if record.disks.get(at) != Some(&from) {
        return Err(Posix::Stale.into());
    }
    let elsewhere =
        record.disks.iter().enumerate().any(|(other, held)| other != at && *held == disk);
    let (Some(held), Some(kept)) = (record.disks.get_mut(at), record.shard_roots.get_mut(at))
    else {
        return Err(Posix::Invalid.into());
    };
    if elsewhere {
        return Err(Posix::Exists.into());
    }
    (*held, *kept) = (disk, *root);
    record.missing &= !(1 << index.0);
    txn.put_stripe(&record)?;
    repairs::placed(txn, stripe, index)?;
    Ok(Answer::Done)
}
