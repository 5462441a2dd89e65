//! Reads frames of stripes: plans which shards to fetch, verifies end to end, decodes around what is bad.

use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::extent::FrameRef;
use crate::net::{Peers, Priority};
use crate::stripe::layout::StripeRecord;
use crate::types::{DiskId, Epoch, NodeId, ShardIndex, StripeId};
use bytes::Bytes;
use std::sync::Arc;

/// A piece of one frame's segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The frame.
    pub frame: FrameRef,
    /// First byte of the segment that is wanted.
    pub offset: u32,
    /// Bytes wanted; `offset + length <= frame.raw_bytes`.
    pub length: u32,
}

/// Something that a reader noticed and repair should know.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The stripe.
    pub stripe: StripeId,
    /// Its shard that was not good.
    pub shard: ShardIndex,
    /// Where it should have been.
    pub disk: DiskId,
    /// What was wrong.
    pub error: Error,
}

/// Looks up what a reader needs beside the record: who serves a disk, and the present epoch.
pub trait Members: Send + Sync + std::fmt::Debug {
    /// Node that serves `disk`, and `None` while it is known to be down.
    fn node(&self, disk: DiskId) -> Option<NodeId>;
    /// Present epoch.
    fn epoch(&self) -> Epoch;
}

/// Reads stripes through the peers.
#[derive(Clone, Debug)]
pub struct StripeReader {
    peers: Arc<dyn Peers>,
    cpu: Arc<Cpu>,
    members: Arc<dyn Members>,
    findings: tokio::sync::mpsc::Sender<Finding>,
}

impl StripeReader {
    /// Reads through `peers`. Findings that do not fit into `findings` are dropped: a later read finds them again.
    pub fn new(
        peers: Arc<dyn Peers>,
        cpu: Arc<Cpu>,
        members: Arc<dyn Members>,
        findings: tokio::sync::mpsc::Sender<Finding>,
    ) -> Self {
        Self { peers, cpu, members, findings }
    }

    /// Reads the wanted pieces of one stripe, in order. Each is verified against its frame's header sum and the
    /// block sums in the header. A failed, slow or bad shard is decoded around and reported as a `Finding`.
    ///
    /// Errors: `Corrupt` when no combination of shards gives bytes that verify; `Unavailable` when fewer
    /// than k shards answer; `NotFound` when no shard is there at all (the caller reads the extents once more).
    pub async fn read(&self, record: &StripeRecord, pieces: &[Piece]) -> Result<Vec<Bytes>> {
        let _ = (record, pieces, &self.peers, &self.cpu, &self.members, &self.findings);
        Err(Error::internal("stripe reader"))
    }
}
#[allow(dead_code)]
fn _p(_: Priority) {}
