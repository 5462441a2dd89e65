//! What a read needs of each data shard, and how its pieces are put together again. Pure; does no I/O.
#![deny(clippy::indexing_slicing)]

use super::Piece;
use crate::error::{Error, Result};
use crate::stripe::frame::{self, Cover};
use crate::stripe::layout::{Geometry, StripeRecord, align, merge};
use crate::types::ShardIndex;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Range;

/// Fetching this much that nobody wants is cheaper than another range.
const GAP_BYTES: u64 = 4096;

/// A read of some pieces of a stripe.
#[derive(Debug)]
pub(super) struct ReadPlan {
    geometry: Geometry,
    /// Each piece with what it needs; `None` for one without bytes.
    pieces: Vec<(Piece, Option<Cover>)>,
    /// Aligned ranges of the columns of each data shard, in order and apart.
    pub(super) wanted: BTreeMap<ShardIndex, Vec<Range<u64>>>,
}

impl ReadPlan {
    /// Error: `Internal` if a piece is not within its frame, `Corrupt` if a frame is not within the stripe.
    pub(super) fn new(record: &StripeRecord, pieces: &[Piece]) -> Result<Self> {
        let geometry = record.geometry();
        let mut wanted: BTreeMap<ShardIndex, Vec<Range<u64>>> = BTreeMap::new();
        let mut planned = Vec::with_capacity(pieces.len());
        for piece in pieces {
            piece.frame.check()?;
            let end = u64::from(piece.frame.payload_offset) + piece.frame.stored_bytes();
            if end > record.payload_bytes {
                return Err(Error::corrupt(format!(
                    "a frame ends at {end} of the {} bytes of stripe {}",
                    record.payload_bytes, record.id
                )));
            }
            let last = u64::from(piece.offset) + u64::from(piece.length);
            if last > u64::from(piece.frame.raw_bytes) {
                return Err(Error::internal(format!("byte {last} of a frame is wanted")));
            }
            let cover =
                (piece.length > 0).then(|| frame::cover(&piece.frame, piece.offset, piece.length));
            for range in cover.iter().flat_map(|cover| [cover.header.clone(), cover.body.clone()]) {
                for part in geometry.parts(range) {
                    wanted.entry(part.shard).or_default().push(align(&part.columns));
                }
            }
            planned.push((*piece, cover));
        }
        for ranges in wanted.values_mut() {
            *ranges = merge(std::mem::take(ranges), GAP_BYTES);
        }
        Ok(Self { geometry, pieces: planned, wanted })
    }

    /// Bytes that `open` has to go through.
    pub(super) fn bytes(&self) -> u64 {
        let covers = self.pieces.iter().filter_map(|(_piece, cover)| cover.as_ref());
        covers.map(|cover| cover.body.end - cover.body.start).sum()
    }

    /// Verifies the pieces and cuts them out. Error: `Corrupt`.
    pub(super) fn open(&self, columns: &Columns) -> Result<Vec<Bytes>> {
        let open = |(piece, cover): &(Piece, Option<Cover>)| {
            let Some(cover) = cover else { return Ok(Bytes::new()) };
            let header = self.collect(columns, &cover.header)?;
            let body = self.collect(columns, &cover.body)?;
            let wanted = piece.offset..piece.offset + piece.length;
            frame::open(&piece.frame, wanted, cover.first_block, &header, body)
        };
        self.pieces.iter().map(open).collect()
    }

    fn collect(&self, columns: &Columns, range: &Range<u64>) -> Result<Vec<u8>> {
        let length = usize::try_from(range.end - range.start).unwrap_or(0);
        let mut bytes = Vec::with_capacity(length);
        for part in self.geometry.parts(range.clone()) {
            let found = columns.find(part.shard, &part.columns);
            bytes.extend_from_slice(
                found.ok_or_else(|| Error::internal("a planned range was not fetched"))?,
            );
        }
        Ok(bytes)
    }
}

/// Fetched ranges of columns.
#[derive(Debug, Default)]
pub(super) struct Columns(BTreeMap<ShardIndex, Vec<(Range<u64>, Bytes)>>);

impl Columns {
    /// Takes what was fetched of a shard; each range comes with as many bytes.
    pub(super) fn insert(&mut self, shard: ShardIndex, ranges: Vec<(Range<u64>, Bytes)>) {
        self.0.insert(shard, ranges);
    }

    /// Whether this shard is there.
    pub(super) fn has(&self, shard: ShardIndex) -> bool {
        self.0.contains_key(&shard)
    }

    /// The shards that are there.
    pub(super) fn shards(&self) -> Vec<ShardIndex> {
        self.0.keys().copied().collect()
    }

    /// Bytes of the range at this place in the order of ranges.
    pub(super) fn nth(&self, shard: ShardIndex, number: usize) -> Option<&[u8]> {
        self.0.get(&shard)?.get(number).map(|(_range, bytes)| &**bytes)
    }

    fn find(&self, shard: ShardIndex, columns: &Range<u64>) -> Option<&[u8]> {
        let ranges = self.0.get(&shard)?;
        let holds = |range: &Range<u64>| range.start <= columns.start && columns.end <= range.end;
        let (range, bytes) = ranges.iter().find(|(range, _bytes)| holds(range))?;
        let start = usize::try_from(columns.start - range.start).ok()?;
        let end = usize::try_from(columns.end - range.start).ok()?;
        bytes.get(start..end)
    }
}
