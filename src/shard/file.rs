//! Format of a shard file. Knows bytes only: no disk, no inode, and the slot table is opaque.
//!
//! Version 1, little-endian throughout:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 8192 | header: magic `IRONSHRD`, version u16, volume 16, stripe u64, index u8, class u16, k u8, m u8, cell bytes u32, epoch u64, XXH3-64 of all before, zeros |
//! | 8192 | cells | the cells of the rows, back to back |
//! | behind | footer | see below |
//! | end - 32 | 32 | trailer: magic `IRONTAIL`, footer length u64, XXH3-64 of the footer, XXH3-64 of the 24 bytes before |
//!
//! Footer: copy of the header's first 64 bytes, payload bytes u64, bytes of all cells u64, root 32 (BLAKE3 over the
//! cell hashes), slot table (u32 length, bytes), block CRCs (u32 count, u32 each), cell hashes (u32 count, 32 each).
//! A cell's blocks are its first 64 bytes, which are the frame header of a raw segment, then 8 KiB each, the last one
//! shorter; each has a CRC-32C.
//!
//! A shard is written once and is valid only with a trailer and a footer that check: a file without them is what a
//! crash left of a put. The medium may return old or foreign bytes, so all of it is checked at each use.
#![deny(clippy::indexing_slicing)]

use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::limits::{
    BLOCK_BYTES, CELL_BYTES, DATA_SHARDS_MAX, FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES,
    PARITY_SHARDS_MAX, STRIPE_PAYLOAD_BYTES_MAX,
};
use crate::net::{ShardFooter, ShardHeader, ShardKey};
use crate::sum::{blake3, crc32c, xxh3};
use crate::types::{ClassId, Epoch, ShardIndex, StripeId, VolumeId};
use bytes::Bytes;
use std::ops::Range;

/// Bytes before the first cell.
pub const HEADER_BYTES: u64 = 8192;
/// Bytes at the very end.
pub const TRAILER_BYTES: u64 = 32;
/// Longest footer: slot table, CRCs and hashes of the largest shard with the smallest cells.
pub const FOOTER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Longest slot table.
pub const SLOT_TABLE_BYTES_MAX: usize = 4 * 1024 * 1024;
const VERSION: u16 = 1;
const MAGIC: &[u8; 8] = b"IRONSHRD";
const TRAILER_MAGIC: &[u8; 8] = b"IRONTAIL";
/// Header fields in use; the footer repeats them.
const HEADER_FIELDS_BYTES: usize = 64;

/// Encodes the header of a shard of `volume`, zeros up to `HEADER_BYTES`.
pub fn encode_header(volume: VolumeId, header: &ShardHeader) -> Vec<u8> {
    let mut writer = Writer::with_capacity(8192);
    writer.raw(&header_fields(volume, header));
    writer.pad_to(8192);
    writer.into_vec()
}

fn header_fields(volume: VolumeId, header: &ShardHeader) -> Vec<u8> {
    let mut writer = Writer::with_capacity(HEADER_FIELDS_BYTES);
    writer.raw(MAGIC);
    writer.u16(VERSION);
    writer.raw(&volume.0);
    writer.u64(header.key.stripe.get());
    writer.u8(header.key.index.0);
    writer.u16(header.class.0);
    writer.u8(header.data_shards);
    writer.u8(header.parity_shards);
    writer.u32(header.cell_bytes);
    writer.u64(header.epoch.0);
    let sum = xxh3(writer.as_slice());
    writer.u64(sum);
    writer.pad_to(HEADER_FIELDS_BYTES);
    writer.into_vec()
}

/// Decodes a header, or its copy in the footer.
pub fn decode_header(bytes: &[u8]) -> Decoded<(VolumeId, ShardHeader)> {
    let mut reader = Reader::new(bytes);
    if reader.array::<8>()? != *MAGIC {
        return Err(FormatError::Invalid("magic of a shard"));
    }
    let version = reader.u16()?;
    if version > VERSION {
        return Err(FormatError::Newer { known: VERSION, found: version });
    }
    let volume = VolumeId(reader.array()?);
    let key = ShardKey { stripe: StripeId(reader.u64()?), index: ShardIndex(reader.u8()?) };
    let header = ShardHeader {
        key,
        class: ClassId(reader.u16()?),
        data_shards: reader.u8()?,
        parity_shards: reader.u8()?,
        cell_bytes: reader.u32()?,
        epoch: Epoch(reader.u64()?),
    };
    let covered = bytes.len() - reader.remaining();
    if reader.u64()? != xxh3(bytes.get(..covered).ok_or(FormatError::Short)?) {
        return Err(FormatError::Sum);
    }
    let (k, m) = (header.data_shards, header.parity_shards);
    if k == 0 || k > DATA_SHARDS_MAX || m > PARITY_SHARDS_MAX || key.index.0 >= k + m {
        return Err(FormatError::Invalid("scheme of a shard"));
    }
    if header.cell_bytes == 0 || !header.cell_bytes.is_multiple_of(FRAME_ALIGN_BYTES) {
        return Err(FormatError::Invalid("cell size of a shard"));
    }
    Ok((volume, header))
}

/// Full rows of a stripe and the cell length of the short row behind them (0: there is none).
pub fn cell_lengths(payload_bytes: u64, data_shards: u8, cell_bytes: u32) -> (u64, u32) {
    let row = u64::from(data_shards) * u64::from(cell_bytes);
    let (full, rest) = (payload_bytes / row, payload_bytes % row);
    let last = rest.div_ceil(u64::from(data_shards)).next_multiple_of(u64::from(FRAME_ALIGN_BYTES));
    (full, u32::try_from(last).unwrap_or(cell_bytes).min(cell_bytes))
}

/// Block `index` of a cell of `length` bytes, as a range in the cell.
const fn block_range(index: u32, length: u32) -> Range<u32> {
    if index == 0 {
        let end = if length < FRAME_HEADER_BYTES { length } else { FRAME_HEADER_BYTES };
        return 0..end;
    }
    let start = FRAME_HEADER_BYTES + (index - 1) * BLOCK_BYTES;
    let end = if start + BLOCK_BYTES < length { start + BLOCK_BYTES } else { length };
    start..end
}

/// Blocks of a cell of `length` bytes.
const fn block_count(length: u32) -> u32 {
    if length <= FRAME_HEADER_BYTES {
        1
    } else {
        1 + (length - FRAME_HEADER_BYTES).div_ceil(BLOCK_BYTES)
    }
}

/// The block of a cell that holds byte `offset` of it.
const fn block_at(offset: u32) -> u32 {
    if offset < FRAME_HEADER_BYTES { 0 } else { 1 + (offset - FRAME_HEADER_BYTES) / BLOCK_BYTES }
}

/// Where the cells of a shard lie and how they are cut into blocks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Geometry {
    cell_bytes: u32,
    cells_bytes: u64,
}

impl Geometry {
    fn cell_length(&self, row: u64) -> u32 {
        let start = row * u64::from(self.cell_bytes);
        let rest = self.cells_bytes.saturating_sub(start);
        u32::try_from(rest).map_or(self.cell_bytes, |rest| rest.min(self.cell_bytes))
    }

    fn rows(&self) -> u64 {
        self.cells_bytes.div_ceil(u64::from(self.cell_bytes))
    }

    fn blocks(&self) -> u64 {
        let full = self.cells_bytes / u64::from(self.cell_bytes);
        let rest = u32::try_from(self.cells_bytes % u64::from(self.cell_bytes)).unwrap_or(0);
        let last = if rest == 0 { 0 } else { u64::from(block_count(rest)) };
        full * u64::from(block_count(self.cell_bytes)) + last
    }

    /// Number of the block that holds byte `offset` of the cells, and its range in them.
    fn block_of(&self, offset: u64) -> (u64, Range<u64>) {
        let row = offset / u64::from(self.cell_bytes);
        let in_cell = u32::try_from(offset % u64::from(self.cell_bytes)).unwrap_or(0);
        let block = block_at(in_cell);
        let range = block_range(block, self.cell_length(row));
        let start = row * u64::from(self.cell_bytes);
        let number = row * u64::from(block_count(self.cell_bytes)) + u64::from(block);
        (number, start + u64::from(range.start)..start + u64::from(range.end))
    }
}

/// Everything behind the cells, and the way to check them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Footer {
    /// What the shard says of itself.
    pub facts: ShardFooter,
    volume: VolumeId,
    block_crcs: Vec<u32>,
    cell_hashes: Vec<[u8; 32]>,
}

impl Footer {
    /// Encodes the footer with its trailer.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.raw(&header_fields(self.volume, &self.facts.header));
        writer.u64(self.facts.payload_bytes);
        writer.u64(self.facts.cells_bytes);
        writer.raw(&self.facts.root);
        writer.bytes(&self.facts.slot_table);
        writer.count(self.block_crcs.len());
        self.block_crcs.iter().for_each(|crc| writer.u32(*crc));
        writer.count(self.cell_hashes.len());
        self.cell_hashes.iter().for_each(|hash| writer.raw(hash));
        let (length, sum) = (writer.len(), xxh3(writer.as_slice()));
        let start = writer.len();
        writer.raw(TRAILER_MAGIC);
        writer.u64(u64::try_from(length).unwrap_or(u64::MAX));
        writer.u64(sum);
        let trailer_sum = xxh3(writer.as_slice().get(start..).unwrap_or_default());
        writer.u64(trailer_sum);
        writer.into_vec()
    }

    /// Decodes a footer (without trailer) and checks that everything in it fits together.
    pub fn decode(bytes: &[u8]) -> Decoded<(VolumeId, Self)> {
        let mut reader = Reader::new(bytes);
        let (volume, header) = decode_header(reader.take(HEADER_FIELDS_BYTES)?)?;
        let payload_bytes = reader.u64()?;
        if payload_bytes == 0 || payload_bytes > STRIPE_PAYLOAD_BYTES_MAX {
            return Err(FormatError::Invalid("payload of a stripe"));
        }
        let cells_bytes = reader.u64()?;
        let (full, last) = cell_lengths(payload_bytes, header.data_shards, header.cell_bytes);
        if cells_bytes != full * u64::from(header.cell_bytes) + u64::from(last) {
            return Err(FormatError::Invalid("length of the cells"));
        }
        let root = reader.array()?;
        let slot_table = reader.owned(SLOT_TABLE_BYTES_MAX, "slot table")?;
        let geometry = Geometry { cell_bytes: header.cell_bytes, cells_bytes };
        let count = reader.count(4, "block CRCs")?;
        if u64::try_from(count) != Ok(geometry.blocks()) {
            return Err(FormatError::Invalid("number of block CRCs"));
        }
        let block_crcs = (0..count).map(|_block| reader.u32()).collect::<Decoded<Vec<_>>>()?;
        let count = reader.count(32, "cell hashes")?;
        if u64::try_from(count) != Ok(geometry.rows()) {
            return Err(FormatError::Invalid("number of cell hashes"));
        }
        let cell_hashes = (0..count).map(|_row| reader.array()).collect::<Decoded<Vec<_>>>()?;
        reader.finish()?;
        if root != blake3(cell_hashes.as_flattened()) {
            return Err(FormatError::Sum);
        }
        let facts = ShardFooter { header, payload_bytes, cells_bytes, root, slot_table };
        Ok((volume, Self { facts, volume, block_crcs, cell_hashes }))
    }

    fn geometry(&self) -> Geometry {
        Geometry { cell_bytes: self.facts.header.cell_bytes, cells_bytes: self.facts.cells_bytes }
    }

    /// The smallest range of whole blocks around `range` of the cells. `None` if it is empty or goes beyond them.
    pub fn cover(&self, range: &Range<u64>) -> Option<Range<u64>> {
        if range.start >= range.end || range.end > self.facts.cells_bytes {
            return None;
        }
        let geometry = self.geometry();
        let (_, first) = geometry.block_of(range.start);
        let (_, last) = geometry.block_of(range.end - 1);
        Some(first.start..last.end)
    }

    /// Whether `bytes`, the whole blocks that start at `start` of the cells, fit their CRCs.
    pub fn check_blocks(&self, start: u64, bytes: &[u8]) -> bool {
        let geometry = self.geometry();
        let (mut at, mut rest) = (start, bytes);
        while !rest.is_empty() {
            let (number, range) = geometry.block_of(at);
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
            let Some((block, behind)) = rest.split_at_checked(length) else { return false };
            let expected = usize::try_from(number).ok().and_then(|at| self.block_crcs.get(at));
            if expected != Some(&crc32c(block)) {
                return false;
            }
            at = range.end;
            rest = behind;
        }
        true
    }

    /// Whether `cell` is the cell of `row`.
    pub fn check_cell(&self, row: u64, cell: &[u8]) -> bool {
        let expected = usize::try_from(row).ok().and_then(|row| self.cell_hashes.get(row));
        expected == Some(&blake3(cell))
    }

    /// Number of rows.
    pub fn rows(&self) -> u64 {
        self.geometry().rows()
    }

    /// Length of the cell of `row`.
    pub fn cell_length(&self, row: u64) -> u32 {
        self.geometry().cell_length(row)
    }

    /// Bytes that this takes in memory, about.
    pub fn weight(&self) -> usize {
        self.facts.slot_table.len() + 4 * self.block_crcs.len() + 32 * self.cell_hashes.len() + 256
    }
}

/// Length and checksum of the footer, from the last `TRAILER_BYTES` of a file.
pub fn decode_trailer(bytes: &[u8]) -> Decoded<(u64, u64)> {
    let mut reader = Reader::new(bytes);
    if reader.array::<8>()? != *TRAILER_MAGIC {
        return Err(FormatError::Invalid("magic of a trailer"));
    }
    let (length, sum) = (reader.u64()?, reader.u64()?);
    let covered = bytes.get(..24).ok_or(FormatError::Short)?;
    if reader.u64()? != xxh3(covered) {
        return Err(FormatError::Sum);
    }
    if length > FOOTER_BYTES_MAX {
        return Err(FormatError::Invalid("length of a footer"));
    }
    Ok((length, sum))
}

/// Collects checksums while cells are appended.
#[derive(Debug)]
pub struct FooterBuilder {
    volume: VolumeId,
    header: ShardHeader,
    cells_bytes: u64,
    block_crcs: Vec<u32>,
    cell_hashes: Vec<[u8; 32]>,
}

impl FooterBuilder {
    /// For a shard that has no cells yet.
    pub const fn new(volume: VolumeId, header: ShardHeader) -> Self {
        Self { volume, header, cells_bytes: 0, block_crcs: Vec::new(), cell_hashes: Vec::new() }
    }

    /// Takes the next row's cell. Only the last one may be shorter than the cell size.
    pub fn append(&mut self, cell: &[u8]) {
        let length = u32::try_from(cell.len()).unwrap_or(CELL_BYTES);
        for block in 0..block_count(length) {
            let range = block_range(block, length);
            let bytes = cell.get(range.start as usize..range.end as usize);
            self.block_crcs.push(crc32c(bytes.unwrap_or_default()));
        }
        self.cell_hashes.push(blake3(cell));
        self.cells_bytes += u64::from(length);
    }

    /// Bytes of the cells so far.
    pub const fn cells_bytes(&self) -> u64 {
        self.cells_bytes
    }

    /// The footer of what was appended; `None` if that is not what `payload_bytes` needs.
    pub fn finish(self, payload_bytes: u64, slot_table: Bytes) -> Option<Footer> {
        let header = self.header;
        let (full, last) = cell_lengths(payload_bytes, header.data_shards, header.cell_bytes);
        if self.cells_bytes != full * u64::from(header.cell_bytes) + u64::from(last) {
            return None;
        }
        let root = blake3(self.cell_hashes.as_flattened());
        let cells_bytes = self.cells_bytes;
        Some(Footer {
            facts: ShardFooter { header, payload_bytes, cells_bytes, root, slot_table },
            volume: self.volume,
            block_crcs: self.block_crcs,
            cell_hashes: self.cell_hashes,
        })
    }
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
