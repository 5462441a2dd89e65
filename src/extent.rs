//! Extent map of one chunk: which segment lies where. Pure algebra on segments; knows no table and no disk.
//!
//! # Stored form, version 2
//!
//! All integers are little-endian. Byte 0 is the version, then a `u16` count of runs, then the runs in order
//! of segments. A run is a stretch of neighbouring segments in consecutive slots of one stripe, with one version,
//! back to back in its payload, and with frames of one shape.
//!
//! | offset | width | name | meaning |
//! |---|---|---|---|
//! | 0 | 2 | first | first segment |
//! | 2 | 2 | count | segments, at least 1 |
//! | 4 | 1 | shape | see below |
//! | 5 | 8 | stripe | stripe id |
//! | 13 | 2 | slot | slot of the first segment; the others follow |
//! | 15 | 8 | version | version of the content |
//! | 23 | 4 | offset | payload offset of the first frame; each next one starts behind the one before, rounded up to 64 |
//! | 27 | | frames | per segment: what the shape says, then header sum `u64` |
//!
//! | shape | bodies | per segment |
//! |---|---|---|
//! | 0 | whole segments, uncompressed | nothing |
//! | 1 | uncompressed, shown from end to end | body bytes - 1 `u16` |
//! | 2 | others | body bytes - 1 `u16`, raw bytes - 1 `u16`, compressed `u8` |
//!
//! Version 1 is still read: a `u32` count of runs; of a run first, count, stripe, slot `u32`, version, offset, full
//! `u8`; per segment, unless full, body bytes `u32`, raw bytes `u32`, compressed `u8`; then header sum.
#![deny(clippy::indexing_slicing)]

use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::limits::{
    FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, SEGMENT_BYTES, SEGMENTS_PER_CHUNK, SLOTS_PER_STRIPE_MAX,
    STRIPE_PAYLOAD_BYTES_MAX,
};
use crate::types::{SegmentIndex, SlotIndex, StripeId, Version};

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;

/// Version of the stored form.
const FORMAT: u8 = 2;
/// The one before.
const OLD_FORMAT: u8 = 1;
/// Stored bytes of a run without its frames: bounds the count of runs before anything is allocated.
const RUN_BYTES: usize = 27;

/// A frame as its extent names it: enough to find it in the payload and to check its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameRef {
    /// Where the frame starts in the stripe's payload; a multiple of 64.
    pub payload_offset: u32,
    /// Bytes of the body that follows the 64-byte header.
    pub body_bytes: u32,
    /// Bytes of the segment that count, 1..=65536; behind them it reads as zeros. The segment that was framed has
    /// exactly so many, or more if a truncate has cut it since.
    pub raw_bytes: u32,
    /// Whether the body is compressed (zstd) or the segment as it is.
    pub compressed: bool,
    /// XXH3-64 of the frame's 64-byte header.
    pub header_sum: u64,
}

impl FrameRef {
    /// Bytes of the stored form: bounds counts of frames before anything is allocated for them.
    pub const STORED_BYTES: usize = 21;

    /// Checks the relations that every frame keeps: alignment, sizes within a segment, the end within a payload,
    /// and no more bytes shown than an uncompressed body has.
    pub fn check(&self) -> Decoded<()> {
        let in_segment = |bytes: u32| (1..=SEGMENT_BYTES).contains(&bytes);
        let end = u64::from(self.payload_offset) + self.stored_bytes();
        if !self.payload_offset.is_multiple_of(FRAME_ALIGN_BYTES) || end > STRIPE_PAYLOAD_BYTES_MAX
        {
            return Err(FormatError::Invalid("payload offset of a frame"));
        }
        if !in_segment(self.body_bytes) {
            return Err(FormatError::Invalid("body length of a frame"));
        }
        if !in_segment(self.raw_bytes) || (!self.compressed && self.raw_bytes > self.body_bytes) {
            return Err(FormatError::Invalid("raw length of a frame"));
        }
        Ok(())
    }

    /// Bytes from the start of this frame to the start of the next: header and body, rounded up to 64.
    pub fn stored_bytes(&self) -> u64 {
        let bytes = u64::from(FRAME_HEADER_BYTES) + u64::from(self.body_bytes);
        bytes.next_multiple_of(u64::from(FRAME_ALIGN_BYTES))
    }

    /// Appends the stored form: payload offset `u32`, body bytes `u32`, raw bytes `u32`, compressed `u8`,
    /// header sum `u64`.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u32(self.payload_offset);
        writer.u32(self.body_bytes);
        writer.u32(self.raw_bytes);
        writer.flag(self.compressed);
        writer.u64(self.header_sum);
    }

    /// Reads the stored form and checks it.
    pub fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let frame = Self {
            payload_offset: reader.u32()?,
            body_bytes: reader.u32()?,
            raw_bytes: reader.u32()?,
            compressed: reader.flag("compressed flag of a frame")?,
            header_sum: reader.u64()?,
        };
        frame.check()?;
        Ok(frame)
    }

    const fn shape(&self) -> Shape {
        match (self.compressed, self.raw_bytes == self.body_bytes) {
            (false, true) if self.body_bytes == SEGMENT_BYTES => Shape::Full,
            (false, true) => Shape::Plain,
            (true, _) | (false, false) => Shape::Other,
        }
    }
}

/// What the frames of a run have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Shape {
    /// A whole segment as it is: the usual frame of a large file.
    Full = 0,
    /// Uncompressed and shown from end to end: the usual frame of a small file.
    Plain = 1,
    /// Compressed, or cut by a truncate.
    Other = 2,
}

impl Shape {
    fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        match reader.u8()? {
            0 => Ok(Self::Full),
            1 => Ok(Self::Plain),
            2 => Ok(Self::Other),
            _ => Err(FormatError::Invalid("shape of a run")),
        }
    }
}

/// Where one segment lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Stripe that holds it.
    pub stripe: StripeId,
    /// Slot of the stripe.
    pub slot: SlotIndex,
    /// Its frame.
    pub frame: FrameRef,
    /// Version of the content.
    pub version: Version,
}

impl Place {
    /// Whether `next`, the place of the next segment, continues a stored run that ends with this one.
    fn is_continued_by(&self, next: &Self) -> bool {
        self.stripe == next.stripe
            && self.version == next.version
            && self.slot.0.checked_add(1) == Some(next.slot.0)
            && self.frame.shape() == next.frame.shape()
            && u64::from(self.frame.payload_offset) + self.frame.stored_bytes()
                == u64::from(next.frame.payload_offset)
    }
}

/// Extents of one chunk: segment -> place; what is absent is a hole. In memory a vector in the order of segments,
/// so that a map which is filled front to back only appends.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChunkMap {
    places: Vec<(SegmentIndex, Place)>,
}

impl ChunkMap {
    /// Where `segment` lies.
    pub fn get(&self, segment: SegmentIndex) -> Option<&Place> {
        let at = self.position(segment).ok()?;
        self.places.get(at).map(|(_segment, place)| place)
    }

    /// Maps a segment (below `SEGMENTS_PER_CHUNK`); answers what was there.
    pub fn insert(&mut self, segment: SegmentIndex, place: Place) -> Option<Place> {
        match self.position(segment) {
            Ok(at) => {
                self.places.get_mut(at).map(|(_segment, held)| std::mem::replace(held, place))
            }
            Err(at) => {
                self.places.insert(at, (segment, place));
                None
            }
        }
    }

    /// Makes a hole; answers what was there.
    pub fn remove(&mut self, segment: SegmentIndex) -> Option<Place> {
        let at = self.position(segment).ok()?;
        Some(self.places.remove(at).1)
    }

    /// All mapped segments in order.
    pub fn iter(&self) -> impl Iterator<Item = (SegmentIndex, &Place)> {
        self.places.iter().map(|(segment, place)| (*segment, place))
    }

    /// Number of mapped segments.
    pub const fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether all is hole.
    pub const fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Appends the stored form.
    pub fn encode(&self, writer: &mut Writer) {
        writer.u8(FORMAT);
        let runs = || {
            self.places.chunk_by(|(segment, place), (next_segment, next)| {
                segment.0.checked_add(1) == Some(next_segment.0) && place.is_continued_by(next)
            })
        };
        writer.u16(u16::try_from(runs().count()).expect("a chunk has 512 segments"));
        for run in runs() {
            encode_run(writer, run);
        }
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let mut places = Vec::new();
        match reader.u8()? {
            FORMAT => {
                let runs = usize::from(reader.u16()?);
                if runs * RUN_BYTES > reader.remaining() {
                    return Err(FormatError::Invalid("count of runs"));
                }
                for _ in 0..runs {
                    decode_run(reader, &mut places)?;
                }
            }
            OLD_FORMAT => {
                for _ in 0..reader.count(RUN_BYTES, "count of runs")? {
                    decode_old_run(reader, &mut places)?;
                }
            }
            0 => return Err(FormatError::Invalid("version of a chunk map")),
            found => {
                return Err(FormatError::Newer {
                    known: u16::from(FORMAT),
                    found: u16::from(found),
                });
            }
        }
        Ok(Self { places })
    }

    fn position(&self, segment: SegmentIndex) -> Result<usize, usize> {
        // Reading and appending at the end are by far the most common.
        match self.places.last() {
            Some((last, _place)) if *last < segment => Err(self.places.len()),
            _ => self.places.binary_search_by_key(&segment, |(held, _place)| *held),
        }
    }
}

impl FromIterator<(SegmentIndex, Place)> for ChunkMap {
    fn from_iter<I: IntoIterator<Item = (SegmentIndex, Place)>>(places: I) -> Self {
        let mut map = Self::default();
        for (segment, place) in places {
            map.insert(segment, place);
        }
        map
    }
}

fn encode_run(writer: &mut Writer, run: &[(SegmentIndex, Place)]) {
    let Some((first, place)) = run.first() else { return };
    let shape = place.frame.shape();
    writer.u16(first.0);
    writer.u16(u16::try_from(run.len()).expect("a chunk has 512 segments"));
    writer.u8(shape as u8);
    writer.u64(place.stripe.get());
    writer.u16(u16::try_from(place.slot.0).expect("a stripe has 16384 slots"));
    writer.u64(place.version.0);
    writer.u32(place.frame.payload_offset);
    for (_segment, Place { frame, .. }) in run {
        if shape != Shape::Full {
            writer.u16(less_one(frame.body_bytes));
        }
        if shape == Shape::Other {
            writer.u16(less_one(frame.raw_bytes));
            writer.flag(frame.compressed);
        }
        writer.u64(frame.header_sum);
    }
}

/// A length of 1..=65536 as it is stored.
pub(crate) fn less_one(bytes: u32) -> u16 {
    let less = bytes.checked_sub(1).and_then(|less| u16::try_from(less).ok());
    less.expect("a frame's lengths are 1..=65536")
}

/// A run without its frames.
struct Run {
    first: u16,
    count: u16,
    stripe: StripeId,
    slot: u32,
    version: Version,
    payload_offset: u32,
}

/// Body bytes, raw bytes, compressed.
type Lengths = (u32, u32, bool);

fn decode_run(reader: &mut Reader<'_>, places: &mut Vec<(SegmentIndex, Place)>) -> Decoded<()> {
    let (first, count) = (reader.u16()?, reader.u16()?);
    let shape = Shape::decode(reader)?;
    let run = Run {
        first,
        count,
        stripe: StripeId(reader.u64()?),
        slot: u32::from(reader.u16()?),
        version: Version(reader.u64()?),
        payload_offset: reader.u32()?,
    };
    run.decode_frames(reader, places, |reader| match shape {
        Shape::Full => Ok((SEGMENT_BYTES, SEGMENT_BYTES, false)),
        Shape::Plain => {
            let bytes = u32::from(reader.u16()?) + 1;
            Ok((bytes, bytes, false))
        }
        Shape::Other => {
            let (body_bytes, raw_bytes) = (reader.u16()?, reader.u16()?);
            let compressed = reader.flag("compressed flag of a frame")?;
            Ok((u32::from(body_bytes) + 1, u32::from(raw_bytes) + 1, compressed))
        }
    })
}

/// A run of version 1.
fn decode_old_run(reader: &mut Reader<'_>, places: &mut Vec<(SegmentIndex, Place)>) -> Decoded<()> {
    let run = Run {
        first: reader.u16()?,
        count: reader.u16()?,
        stripe: StripeId(reader.u64()?),
        slot: reader.u32()?,
        version: Version(reader.u64()?),
        payload_offset: reader.u32()?,
    };
    let full = reader.flag("full flag of a run")?;
    run.decode_frames(reader, places, |reader| match full {
        true => Ok((SEGMENT_BYTES, SEGMENT_BYTES, false)),
        false => Ok((reader.u32()?, reader.u32()?, reader.flag("compressed flag of a frame")?)),
    })
}

impl Run {
    /// Reads the frames; `lengths` reads what stands before each sum.
    fn decode_frames(
        self,
        reader: &mut Reader<'_>,
        places: &mut Vec<(SegmentIndex, Place)>,
        lengths: impl Fn(&mut Reader<'_>) -> Decoded<Lengths>,
    ) -> Decoded<()> {
        let Self { first, count, stripe, slot, version, mut payload_offset } = self;
        let end = u32::from(first) + u32::from(count);
        if count == 0 || end > u32::from(SEGMENTS_PER_CHUNK) {
            return Err(FormatError::Invalid("segments of a run"));
        }
        if places.last().is_some_and(|(last, _place)| last.0 >= first) {
            return Err(FormatError::Invalid("order of runs"));
        }
        if slot.checked_add(u32::from(count)).is_none_or(|end| end > SLOTS_PER_STRIPE_MAX) {
            return Err(FormatError::Invalid("slots of a run"));
        }
        places.reserve(usize::from(count));
        for (segment, slot) in (first..first + count).zip(slot..) {
            let (body_bytes, raw_bytes, compressed) = lengths(reader)?;
            let header_sum = reader.u64()?;
            let frame = FrameRef { payload_offset, body_bytes, raw_bytes, compressed, header_sum };
            frame.check()?;
            let place = Place { stripe, slot: SlotIndex(slot), frame, version };
            places.push((SegmentIndex(segment), place));
            let next = u64::from(payload_offset) + frame.stored_bytes();
            payload_offset =
                u32::try_from(next).map_err(|_e| FormatError::Invalid("payload offset"))?;
        }
        Ok(())
    }
}
