//! Frames: a segment as stripes store it, a 64-byte header and a body. Seals and checks them; knows no stripe.
//!
//! # Frame, version 1
//!
//! All integers are little-endian. The kind of a frame is not in it but in the `FrameRef` of the extent that names it.
//!
//! | offset | width | raw frame | compressed frame |
//! |---|---|---|---|
//! | 0 | 8 | XXH3-64 of block 0 of the body | XXH3-64 of the body |
//! | 8 | 8 | ... of block 1, 0 if the body has no such block | bytes of the segment |
//! | 16 | 8 | ... of block 2 | bytes of the body |
//! | 24 | 40 | ... of blocks 3 to 7 | zeros |
//! | 64 | | the segment as it is; its last block may be short | the segment, compressed |
//!
//! Zeros follow up to a multiple of 64, where the next frame starts; nobody reads them. The header itself is
//! covered by `FrameRef::header_sum`, its XXH3-64.
#![deny(clippy::indexing_slicing)]

use crate::class::Compression;
use crate::codec;
use crate::error::{Error, Result};
use crate::extent::FrameRef;
use crate::format::{Reader, Writer};
use crate::limits::{BLOCK_BYTES, FRAME_HEADER_BYTES, SEGMENT_BYTES};
use crate::sum::xxh3;
use bytes::Bytes;
use std::ops::Range;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;

const HEADER_BYTES: usize = FRAME_HEADER_BYTES as usize;
const BLOCK: usize = BLOCK_BYTES as usize;

/// A frame that has no place yet.
#[derive(Clone, Debug)]
pub struct Frame {
    /// The first 64 bytes.
    pub header: [u8; HEADER_BYTES],
    /// What follows.
    pub body: Bytes,
    raw_bytes: u32,
    compressed: bool,
}

impl Frame {
    /// Frames a segment of 1..=65536 bytes. A raw body shares the segment's memory.
    pub fn seal(compression: Compression, segment: Bytes) -> Self {
        let raw_bytes = u32::try_from(segment.len()).unwrap_or(u32::MAX);
        assert!((1..=SEGMENT_BYTES).contains(&raw_bytes), "a segment of {raw_bytes} bytes");
        let mut writer = Writer::with_capacity(HEADER_BYTES);
        let compressed = codec::compress(compression, &segment);
        let is_compressed = compressed.is_some();
        let body = match compressed {
            Some(body) => {
                writer.u64(xxh3(&body));
                writer.u64(u64::from(raw_bytes));
                writer.u64(body.len() as u64);
                Bytes::from(body)
            }
            None => {
                segment.chunks(BLOCK).for_each(|block| writer.u64(xxh3(block)));
                segment
            }
        };
        writer.pad_to(HEADER_BYTES);
        let header = Reader::new(writer.as_slice()).array().expect("padded to its length");
        Self { header, body, raw_bytes, compressed: is_compressed }
    }

    /// How an extent names this frame at `payload_offset`.
    pub fn reference(&self, payload_offset: u32) -> FrameRef {
        FrameRef {
            payload_offset,
            body_bytes: u32::try_from(self.body.len()).expect("a body is no longer than a segment"),
            raw_bytes: self.raw_bytes,
            compressed: self.compressed,
            header_sum: xxh3(&self.header),
        }
    }
}

/// Payload bytes that a segment of `raw_bytes` takes at most.
pub const fn stored_bytes_max(raw_bytes: u32) -> u64 {
    (FRAME_HEADER_BYTES as u64 + raw_bytes as u64).next_multiple_of(FRAME_HEADER_BYTES as u64)
}

/// The bytes of a frame that are needed to read a part of its segment and to check what was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cover {
    /// Payload range of the header.
    pub header: Range<u64>,
    /// Payload range of the body bytes: whole blocks, or everything if the frame is compressed.
    pub body: Range<u64>,
    /// Number of the first block of `body`; 0 if the frame is compressed.
    pub first_block: usize,
}

/// What has to be read for bytes `offset..offset + length` of the segment, not empty and within `raw_bytes`.
pub fn cover(frame: &FrameRef, offset: u32, length: u32) -> Cover {
    let start = u64::from(frame.payload_offset);
    let body = start + u64::from(FRAME_HEADER_BYTES);
    let (first, end) = if frame.compressed {
        (0, u64::from(frame.body_bytes))
    } else {
        let end = u64::from(offset) + u64::from(length);
        let end = end.next_multiple_of(u64::from(BLOCK_BYTES)).min(u64::from(frame.body_bytes));
        (offset / BLOCK_BYTES, end)
    };
    Cover {
        header: start..body,
        body: body + u64::from(first) * u64::from(BLOCK_BYTES)..body + end,
        first_block: first as usize,
    }
}

/// Checks the bytes of a cover and answers bytes `offset..offset + length` of the segment.
///
/// Error: `Corrupt` when a sum, a length or the compressed form is wrong.
pub fn open(
    frame: &FrameRef,
    wanted: Range<u32>,
    first_block: usize,
    header: &[u8],
    body: Vec<u8>,
) -> Result<Bytes> {
    let header = check_header(frame, header)?;
    let (start, end) = (wanted.start as usize, wanted.end as usize);
    let (bytes, start, end) = if frame.compressed {
        (open_compressed(frame, &header, &body)?, start, end)
    } else {
        check_blocks(&header, first_block, &body)?;
        let skipped = first_block * BLOCK;
        (body, start.saturating_sub(skipped), end.saturating_sub(skipped))
    };
    if start > end || end > bytes.len() {
        return Err(Error::corrupt(format!("read a frame: {} bytes, wanted {end}", bytes.len())));
    }
    Ok(Bytes::from(bytes).slice(start..end))
}

/// Checks a header of a frame against its reference and answers its eight words.
///
/// Error: `Corrupt`.
pub fn check_header(frame: &FrameRef, header: &[u8]) -> Result<[u64; 8]> {
    let found = xxh3(header);
    if found != frame.header_sum {
        return Err(Error::corrupt(format!(
            "check a frame header: expected sum {:016x}, found {found:016x}",
            frame.header_sum
        )));
    }
    let mut reader = Reader::new(header);
    let mut words = [0; 8];
    for word in &mut words {
        *word = reader.u64()?;
    }
    reader.finish()?;
    Ok(words)
}

/// Checks consecutive blocks of a raw body, the first of which is block `first`, against a checked header.
///
/// Error: `Corrupt`.
pub fn check_blocks(header: &[u64; 8], first: usize, blocks: &[u8]) -> Result<()> {
    for (number, block) in (first..).zip(blocks.chunks(BLOCK)) {
        let found = xxh3(block);
        let expected = header.get(number).copied();
        if expected != Some(found) {
            return Err(Error::corrupt(format!(
                "check block {number} of a frame: expected sum {:016x}, found {found:016x}",
                expected.unwrap_or(0)
            )));
        }
    }
    Ok(())
}

/// Checks a compressed body against a checked header and answers the part of its segment that counts.
fn open_compressed(frame: &FrameRef, header: &[u64; 8], body: &[u8]) -> Result<Vec<u8>> {
    let [sum, raw_bytes, body_bytes, ..] = *header;
    let found = xxh3(body);
    if found != sum || body_bytes != body.len() as u64 || raw_bytes < u64::from(frame.raw_bytes) {
        return Err(Error::corrupt(format!(
            "check a compressed frame: expected sum {sum:016x} of {body_bytes} bytes for {raw_bytes} or \
             more, found {found:016x} of {} bytes for {}",
            body.len(),
            frame.raw_bytes
        )));
    }
    codec::decompress(body, frame.raw_bytes as usize)
        .ok_or_else(|| Error::corrupt("decompress a frame whose sum fits"))
}
