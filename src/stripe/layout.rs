//! Rows and cells of a stripe, and the record that names its shards. Pure arithmetic; knows no disk and no peer.
//!
//! The payload (frames back to back, each starting on a multiple of 64) is cut into data cells. A full row takes
//! `k * cell_bytes` of it, cell after cell; the last row takes what is left, in cells of a k-th of that, rounded up
//! to 64 bytes, with zeros behind the end. Shard i keeps cell i of every row back to back: its *column space*.
//! Because the codes work on 64-byte units one by one, the n shards at any 64-byte aligned range of the column space
//! form a code word of their own, whatever rows the range touches.
#![deny(clippy::indexing_slicing)]

use crate::class::Class;
use crate::limits::FRAME_ALIGN_BYTES;
use crate::types::{ClassId, DiskId, Epoch, RowIndex, ShardIndex, StripeId};
use std::ops::Range;

mod record;
#[cfg(test)]
mod tests;

/// Unit of the codes: cells and aligned ranges are multiples of it.
pub const UNIT_BYTES: u64 = FRAME_ALIGN_BYTES as u64;

/// Stands in a record for the disk of a shard that never had one, because the volume has too few disks.
pub const NO_DISK: DiskId = DiskId(u32::MAX);

/// Where a byte of the payload lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CellOffset {
    /// Row.
    pub row: RowIndex,
    /// Data shard that holds this cell of the row.
    pub shard: ShardIndex,
    /// Offset in the cell, in bytes.
    pub offset: u64,
}

/// A range of one data shard's column space that holds a part of the payload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ColumnPart {
    /// The data shard.
    pub shard: ShardIndex,
    /// Where in its column space.
    pub columns: Range<u64>,
}

/// How one payload is cut into rows and cells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    data_shards: u64,
    shards: u64,
    cell_bytes: u64,
    payload_bytes: u64,
}

impl Geometry {
    /// The geometry of `payload_bytes` bytes under a valid `class`.
    pub fn new(class: &Class, payload_bytes: u64) -> Self {
        let data_shards = u64::from(class.scheme.k().max(1));
        let cell_bytes = u64::from(class.cell_bytes.max(FRAME_ALIGN_BYTES));
        Self { data_shards, shards: u64::from(class.scheme.n()), cell_bytes, payload_bytes }
    }

    /// Payload bytes of a full row.
    pub const fn row_bytes(&self) -> u64 {
        self.data_shards * self.cell_bytes
    }

    /// Rows, a short last one included.
    pub const fn rows(&self) -> u64 {
        self.payload_bytes.div_ceil(self.row_bytes())
    }

    /// Length of each cell of a row below `rows()`.
    pub const fn cell_bytes_of(&self, row: u64) -> u64 {
        let rest = self.payload_bytes.saturating_sub(row * self.row_bytes());
        if rest >= self.row_bytes() {
            self.cell_bytes
        } else {
            rest.div_ceil(self.data_shards).next_multiple_of(UNIT_BYTES)
        }
    }

    /// Bytes of all cells of one shard.
    pub const fn shard_bytes(&self) -> u64 {
        let full = self.payload_bytes / self.row_bytes();
        full * self.cell_bytes + self.cell_bytes_of(full)
    }

    /// Bytes of all cells of all shards: what the payload takes on disks, without headers and footers.
    pub const fn coded_bytes(&self) -> u64 {
        self.shard_bytes() * self.shards
    }

    /// Column range of a row.
    pub const fn columns_of(&self, row: u64) -> Range<u64> {
        let start = row * self.cell_bytes;
        start..start + self.cell_bytes_of(row)
    }

    /// Where the byte at `offset` of the payload lies; `offset < payload_bytes`.
    pub fn locate(&self, offset: u64) -> CellOffset {
        let row = offset / self.row_bytes();
        let (cell, within) = (self.cell_bytes_of(row), offset % self.row_bytes());
        CellOffset {
            row: RowIndex(u32::try_from(row).expect("a payload is below 2^32 bytes")),
            shard: ShardIndex(u8::try_from(within / cell).expect("k is at most 32")),
            offset: within % cell,
        }
    }

    /// The payload offset of a place in a data cell; the reverse of `locate`. It may lie behind the payload's end,
    /// where the last row is padded.
    pub fn payload_offset(&self, place: CellOffset) -> u64 {
        let row = u64::from(place.row.0);
        let cell = self.cell_bytes_of(row);
        row * self.row_bytes() + u64::from(place.shard.0) * cell + place.offset
    }

    /// The parts of `range`, in payload order. `range` ends within the payload.
    pub fn parts(&self, range: Range<u64>) -> impl Iterator<Item = ColumnPart> + use<> {
        let (geometry, mut start) = (*self, range.start);
        std::iter::from_fn(move || {
            if start >= range.end {
                return None;
            }
            let place = geometry.locate(start);
            let row = u64::from(place.row.0);
            let take = (geometry.cell_bytes_of(row) - place.offset).min(range.end - start);
            start += take;
            let column = row * geometry.cell_bytes + place.offset;
            Some(ColumnPart { shard: place.shard, columns: column..column + take })
        })
    }
}

/// `range`, widened to whole units of the codes.
pub const fn align(range: &Range<u64>) -> Range<u64> {
    range.start / UNIT_BYTES * UNIT_BYTES..range.end.next_multiple_of(UNIT_BYTES)
}

/// The union of `ranges`, in order; neighbours with a gap of at most `gap` bytes become one.
pub fn merge(mut ranges: Vec<Range<u64>>, gap: u64) -> Vec<Range<u64>> {
    ranges.retain(|range| range.start < range.end);
    ranges.sort_unstable_by_key(|range| range.start);
    let mut merged: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(gap) => {
                last.end = last.end.max(range.end);
            }
            _ => merged.push(range),
        }
    }
    merged
}

/// What the metadata keeps of a stripe: enough to read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StripeRecord {
    /// The stripe.
    pub id: StripeId,
    /// Class id at the time of writing.
    pub class_id: ClassId,
    /// Scheme, compression and cell size at the time of writing: a class may be redefined later.
    pub class: Class,
    /// Epoch of the placement.
    pub epoch: Epoch,
    /// Bytes of the payload: frames back to back.
    pub payload_bytes: u64,
    /// Number of slots.
    pub slots: u32,
    /// Disk of each shard, n of them.
    pub disks: Vec<DiskId>,
    /// Bit i set: shard i was never acknowledged and is not believed.
    pub missing: u64,
    /// BLAKE3 over the cell hashes of each shard, n of them (zeros for one that is missing).
    pub shard_roots: Vec<[u8; 32]>,
}

impl StripeRecord {
    /// Whether shard `index` is recorded as missing.
    pub fn is_missing(&self, index: ShardIndex) -> bool {
        self.missing & (1 << index.0) != 0
    }

    /// How its payload is cut.
    pub fn geometry(&self) -> Geometry {
        Geometry::new(&self.class, self.payload_bytes)
    }

    /// All its shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardIndex> + use<> {
        (0..self.class.scheme.n()).map(ShardIndex)
    }
}
