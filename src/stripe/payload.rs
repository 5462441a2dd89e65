//! Content of a stripe that is being written: sealed frames, cut into coded rows. Knows no disk and no peer.

use crate::class::Class;
use crate::cpu::Cpu;
use crate::erasure::{ErasureCoder, coder};
use crate::error::{Error, Result};
use crate::extent::FrameRef;
use crate::limits::{FRAME_HEADER_BYTES, SLOTS_PER_STRIPE_MAX, STRIPE_PAYLOAD_BYTES_MAX};
use crate::metrics::{CodingMetrics, Durations};
use crate::stripe::frame::Frame;
use crate::stripe::layout::Geometry;
use crate::stripe::slots::{Slot, SlotTable};
use crate::stripe::writer::NewSegment;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use std::ops::Range;
use std::sync::Arc;

/// Segments that one computation seals: enough to outweigh the cost of handing them over.
const SEGMENTS_PER_TASK: usize = 16;
/// Such computations of one stripe at once.
const TASKS: usize = 8;

/// Frames of one stripe. It can produce each row any number of times.
#[derive(Debug)]
pub(super) struct Payload {
    frames: Vec<Frame>,
    /// The owner and the place of each frame.
    pub(super) table: SlotTable,
    /// How it is cut.
    pub(super) geometry: Geometry,
    coder: Arc<dyn ErasureCoder>,
    /// Of the parity of a row.
    encoding: Durations,
}

impl Payload {
    /// Seals `segments` into frames that lie back to back.
    ///
    /// Error: `Internal` if these are no segments of one stripe.
    pub(super) async fn seal(
        cpu: &Cpu,
        metrics: &CodingMetrics,
        class: Class,
        segments: Vec<NewSegment>,
    ) -> Result<Self> {
        let in_bounds = (1..=SLOTS_PER_STRIPE_MAX as usize).contains(&segments.len());
        if !in_bounds {
            return Err(Error::internal(format!("a stripe of {} segments", segments.len())));
        }
        let owners: Vec<_> = segments.iter().map(|segment| segment.address).collect();
        let batches: Vec<Vec<Bytes>> = segments
            .chunks(SEGMENTS_PER_TASK)
            .map(|batch| batch.iter().map(|segment| segment.data.clone()).collect())
            .collect();
        let seal = |batch: Vec<Bytes>| {
            cpu.run(move || {
                let seal = |data| Frame::seal(class.compression, data);
                batch.into_iter().map(seal).collect::<Vec<_>>()
            })
        };
        let sealed: Vec<Vec<Frame>> =
            stream::iter(batches).map(seal).buffered(TASKS).collect().await;
        let frames: Vec<Frame> = sealed.into_iter().flatten().collect();

        let mut slots = Vec::with_capacity(frames.len());
        let mut offset = 0;
        for (owner, frame) in owners.into_iter().zip(&frames) {
            let start = u32::try_from(offset).unwrap_or(u32::MAX);
            let reference = frame.reference(start);
            offset += reference.stored_bytes();
            slots.push(Slot { owner, frame: reference });
        }
        if offset > STRIPE_PAYLOAD_BYTES_MAX {
            return Err(Error::internal(format!("a stripe of {offset} bytes")));
        }
        let geometry = Geometry::new(&class, offset);
        let (coder, encoding) = (coder(class.scheme), metrics.encode(&class));
        Ok(Self { frames, table: SlotTable { slots }, geometry, coder, encoding })
    }

    /// References of all frames.
    pub(super) fn references(&self) -> Vec<FrameRef> {
        self.table.slots.iter().map(|slot| slot.frame).collect()
    }

    /// The cells of some rows in order, for each of the n shards.
    pub(super) fn rows(&self, rows: Range<u64>) -> Vec<Vec<Bytes>> {
        let mut shards = vec![Vec::new(); usize::from(self.coder.scheme().n())];
        for row in rows {
            for (shard, cell) in shards.iter_mut().zip(self.row(row)) {
                shard.push(cell);
            }
        }
        shards
    }

    /// The n cells of a row.
    fn row(&self, row: u64) -> Vec<Bytes> {
        let scheme = self.coder.scheme();
        let length = self.geometry.cell_bytes_of(row);
        let mut start = row * self.geometry.row_bytes();
        let bytes = usize::try_from(length).expect("a cell fits into memory");
        let mut data = Vec::with_capacity(usize::from(scheme.k()));
        for _column in 0..scheme.k() {
            data.push(self.cell(start, bytes));
            start += length;
        }
        let mut parity: Vec<_> = (0..scheme.m()).map(|_cell| vec![0; bytes]).collect();
        let sources: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut targets: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        let timer = self.encoding.start();
        self.coder.encode(&sources, &mut targets);
        timer.stop();
        data.into_iter().chain(parity).map(Bytes::from).collect()
    }

    /// The payload from `start` on, with zeros behind its end.
    fn cell(&self, start: u64, bytes: usize) -> Vec<u8> {
        let mut cell = Vec::with_capacity(bytes);
        let end = start + bytes as u64;
        let offset_of = |slot: &Slot| u64::from(slot.frame.payload_offset);
        let behind = self.table.slots.partition_point(|slot| offset_of(slot) <= start);
        let first = behind.saturating_sub(1);
        for (slot, frame) in self.table.slots.iter().zip(&self.frames).skip(first) {
            let at = offset_of(slot);
            if at >= end {
                break;
            }
            append_overlap(&mut cell, start..end, at, &frame.header);
            append_overlap(&mut cell, start..end, at + u64::from(FRAME_HEADER_BYTES), &frame.body);
        }
        cell.resize(bytes, 0);
        cell
    }
}

/// Appends to a cell, which is `range` of the payload, what of `source` lies in it; `source` starts at `at`, behind all
/// that the cell has, and zeros fill the room before it.
fn append_overlap(cell: &mut Vec<u8>, range: Range<u64>, at: u64, source: &[u8]) {
    let from = at.max(range.start);
    let end = (at + source.len() as u64).min(range.end);
    if from < end {
        let index = |offset: u64| usize::try_from(offset).expect("within a stripe");
        cell.resize(index(from - range.start), 0);
        cell.extend_from_slice(&source[index(from - at)..index(end - at)]);
    }
}
