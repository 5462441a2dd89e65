//! Slot table of a stripe: the owner and frame of every slot, kept in each shard's footer. Knows no shard file.
//!
//! # Stored form, version 2
//!
//! All integers are little-endian.
//!
//! | offset | width | name | meaning |
//! |---|---|---|---|
//! | 0 | 4 | magic | `IFSL` |
//! | 4 | 2 | version | 2 |
//! | 6 | 4 | count | number of slots |
//! | 10 | | slots | in payload order |
//! | end - 8 | 8 | sum | XXH3-64 of everything before |
//!
//! A slot is a flag byte, then the owner (inode `u64`, chunk `u32`, segment `u16`), body bytes - 1 (`u16`), raw bytes - 1
//! (`u16`) and header sum (`u64`). Bit 0: compressed. Bit 1: the owner is the segment behind the previous slot's, in the
//! same chunk, and is not stored. Bit 2: the owner is the first segment of the inode behind the previous slot's, and is
//! not stored: small files that were made one after the other. Bit 3: as many raw bytes as body bytes, and not stored.
//! Payload offsets are not stored: each frame starts where the one before ends, rounded up to 64.
//!
//! Version 1, which is still read, is the same without bits 2 and 3.
#![deny(clippy::indexing_slicing)]

use crate::extent::{FrameRef, less_one};
use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::limits::{SEGMENTS_PER_CHUNK, SLOTS_PER_STRIPE_MAX};
use crate::sum::xxh3;
use crate::types::{ChunkIndex, Ino, SegmentAddress, SegmentIndex};

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;

const MAGIC: [u8; 4] = *b"IFSL";
const FORMAT: u16 = 2;
const OLD_FORMAT: u16 = 1;
const COMPRESSED: u8 = 1;
const NEXT_SEGMENT: u8 = 2;
const NEXT_FILE: u8 = 4;
const RAW_IS_BODY: u8 = 8;
/// Bytes of the sum at the end.
const SUM_BYTES: usize = 8;
/// Stored bytes of the smallest slot: bounds the count before anything is allocated.
const SLOT_BYTES_MIN: usize = 11;
/// Stored bytes of the largest table.
pub const TABLE_BYTES_MAX: usize = 10 + SLOTS_PER_STRIPE_MAX as usize * 27 + SUM_BYTES;

/// A slot: which segment its frame held when the stripe was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Owner at the time of writing.
    pub owner: SegmentAddress,
    /// The frame.
    pub frame: FrameRef,
}

/// All slots of a stripe, in payload order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SlotTable {
    /// Slot i is entry i.
    pub slots: Vec<Slot>,
}

impl SlotTable {
    /// Bytes of the payload that these frames fill.
    pub fn payload_bytes(&self) -> u64 {
        self.slots
            .last()
            .map_or(0, |slot| u64::from(slot.frame.payload_offset) + slot.frame.stored_bytes())
    }

    /// The stored form. The frames lie back to back from payload offset 0, and there are at most
    /// `SLOTS_PER_STRIPE_MAX`.
    pub fn encode(&self) -> Vec<u8> {
        assert!(self.slots.len() <= SLOTS_PER_STRIPE_MAX as usize, "too many slots");
        let mut writer = Writer::new();
        writer.raw(&MAGIC);
        writer.u16(FORMAT);
        writer.count(self.slots.len());
        let mut previous = None;
        for slot in &self.slots {
            encode_slot(&mut writer, slot, previous);
            previous = Some(slot.owner);
        }
        writer.u64(xxh3(writer.as_slice()));
        writer.into_vec()
    }

    /// Reads the stored form and checks its sum, its frames and its payload length.
    pub fn decode(bytes: &[u8]) -> Decoded<Self> {
        let length = bytes.len().checked_sub(SUM_BYTES).ok_or(FormatError::Short)?;
        let (content, sum) = bytes.split_at_checked(length).ok_or(FormatError::Short)?;
        let mut reader = Reader::new(content);
        if reader.array()? != MAGIC {
            return Err(FormatError::Invalid("magic of a slot table"));
        }
        let known_flags = match reader.u16()? {
            FORMAT => COMPRESSED | NEXT_SEGMENT | NEXT_FILE | RAW_IS_BODY,
            OLD_FORMAT => COMPRESSED | NEXT_SEGMENT,
            0 => return Err(FormatError::Invalid("version of a slot table")),
            found => return Err(FormatError::Newer { known: FORMAT, found }),
        };
        if Reader::new(sum).u64()? != xxh3(content) {
            return Err(FormatError::Sum);
        }
        let count = reader.count(SLOT_BYTES_MIN, "count of slots")?;
        if count > SLOTS_PER_STRIPE_MAX as usize {
            return Err(FormatError::Invalid("count of slots"));
        }
        let mut slots: Vec<Slot> = Vec::with_capacity(count);
        let mut payload = 0;
        for _slot in 0..count {
            let flags = reader.u8()?;
            if flags & !known_flags != 0 {
                return Err(FormatError::Invalid("flags of a slot"));
            }
            let slot = decode_slot(&mut reader, flags, slots.last(), payload)?;
            payload += slot.frame.stored_bytes();
            slots.push(slot);
        }
        reader.finish()?;
        Ok(Self { slots })
    }
}

fn encode_slot(writer: &mut Writer, slot: &Slot, previous: Option<SegmentAddress>) {
    let Slot { owner, frame } = slot;
    let owner_flag = if previous.and_then(next_segment) == Some(*owner) {
        NEXT_SEGMENT
    } else if previous.and_then(next_file) == Some(*owner) {
        NEXT_FILE
    } else {
        0
    };
    let raw_flag = if frame.raw_bytes == frame.body_bytes { RAW_IS_BODY } else { 0 };
    writer.u8(u8::from(frame.compressed) | owner_flag | raw_flag);
    if owner_flag == 0 {
        writer.u64(owner.ino.0);
        writer.u32(owner.chunk.0);
        writer.u16(owner.segment.0);
    }
    writer.u16(less_one(frame.body_bytes));
    if raw_flag == 0 {
        writer.u16(less_one(frame.raw_bytes));
    }
    writer.u64(frame.header_sum);
}

fn decode_slot(
    reader: &mut Reader<'_>,
    flags: u8,
    previous: Option<&Slot>,
    offset: u64,
) -> Decoded<Slot> {
    let previous = previous.map(|slot| slot.owner);
    let owner = match flags & (NEXT_SEGMENT | NEXT_FILE) {
        0 => Some(SegmentAddress {
            ino: Ino(reader.u64()?),
            chunk: ChunkIndex(reader.u32()?),
            segment: SegmentIndex(reader.u16()?),
        }),
        NEXT_SEGMENT => previous.and_then(next_segment),
        NEXT_FILE => previous.and_then(next_file),
        _both => None,
    };
    let owner = owner.ok_or(FormatError::Invalid("owner of a slot"))?;
    if owner.segment.0 >= SEGMENTS_PER_CHUNK {
        return Err(FormatError::Invalid("segment of a slot"));
    }
    let body_bytes = u32::from(reader.u16()?) + 1;
    let raw_bytes =
        if flags & RAW_IS_BODY != 0 { body_bytes } else { u32::from(reader.u16()?) + 1 };
    let frame = FrameRef {
        payload_offset: u32::try_from(offset)
            .map_err(|_too_long| FormatError::Invalid("payload of a slot table"))?,
        body_bytes,
        raw_bytes,
        compressed: flags & COMPRESSED != 0,
        header_sum: reader.u64()?,
    };
    frame.check()?;
    Ok(Slot { owner, frame })
}

/// The segment behind this one in its chunk.
fn next_segment(address: SegmentAddress) -> Option<SegmentAddress> {
    let segment = address.segment.0.checked_add(1).filter(|next| *next < SEGMENTS_PER_CHUNK)?;
    Some(SegmentAddress { segment: SegmentIndex(segment), ..address })
}

/// The first segment of the inode behind this one's.
fn next_file(address: SegmentAddress) -> Option<SegmentAddress> {
    let ino = Ino(address.ino.0.checked_add(1)?);
    Some(SegmentAddress { ino, chunk: ChunkIndex(0), segment: SegmentIndex(0) })
}
