//! Writes stripes: frames, rows, parity, shards on their disks, sealed and durable. Never commits.

use crate::class::Class;
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::extent::FrameRef;
use crate::net::{Peers, Priority};
use crate::stripe::layout::StripeRecord;
use crate::types::{ClassId, DiskId, Epoch, NodeId, SegmentAddress, StripeId};
use bytes::Bytes;
use std::sync::Arc;

/// A segment to be written.
#[derive(Clone, Debug)]
pub struct NewSegment {
    /// Owner.
    pub address: SegmentAddress,
    /// Content, 1..=65536 bytes; a shorter one reads as zeros behind its end.
    pub data: Bytes,
}

/// Where and how a stripe is to be written.
#[derive(Clone, Debug)]
pub struct Target {
    /// Fresh stripe id.
    pub id: StripeId,
    /// Class of the data.
    pub class_id: ClassId,
    /// Its policy.
    pub class: Class,
    /// Epoch of the placement.
    pub epoch: Epoch,
    /// At least k+1 disks (k if the volume has no more): the first n take the shards in order, the others are
    /// spares for those that fail. With fewer than n, the shards without a disk are recorded as missing.
    pub disks: Vec<(NodeId, DiskId)>,
    /// Priority of the puts.
    pub priority: Priority,
}

/// Says where new stripes go: gives each a fresh id and walks the ring for it.
pub trait Placer: Send + Sync + std::fmt::Debug {
    /// A target for one new stripe of this class.
    ///
    /// Errors: `NoSpace` when too many disks are full, `Unavailable` when too few answer.
    fn target(&self, class_id: ClassId, class: Class, priority: Priority) -> Result<Target>;
}

/// A written stripe, durable but not committed.
#[derive(Clone, Debug)]
pub struct Written {
    /// Record to commit.
    pub record: StripeRecord,
    /// Frame of each segment; slot i holds segment i.
    pub frames: Vec<FrameRef>,
}

/// Writes stripes through the peers.
#[derive(Clone, Debug)]
pub struct StripeWriter {
    peers: Arc<dyn Peers>,
    cpu: Arc<Cpu>,
}

impl StripeWriter {
    /// Writes through `peers`, computing on `cpu`.
    pub fn new(peers: Arc<dyn Peers>, cpu: Arc<Cpu>) -> Self {
        Self { peers, cpu }
    }

    /// Writes `segments` (not empty; payload within `STRIPE_PAYLOAD_BYTES_MAX`, slots within
    /// `SLOTS_PER_STRIPE_MAX`) as one stripe. On return every shard that is not recorded missing is durable on its
    /// disk, directories included. Rows are encoded as they fill: besides the segments it holds a few rows.
    /// May be cancelled: what was put is an orphan.
    ///
    /// Errors: `NoSpace` when disks are full and too few others remain; `Unavailable` when fewer than k + 1
    /// shards (k where no more than k disks exist) can be made durable.
    pub async fn write(&self, target: Target, segments: Vec<NewSegment>) -> Result<Written> {
        let _ = (target, segments, &self.peers, &self.cpu);
        Err(Error::internal("stripe writer"))
    }
}
