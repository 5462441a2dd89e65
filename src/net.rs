//! The seam to the processes that serve disks: a request to a node, a response from it. Knows nothing of what
//! shards contain.
#![warn(missing_docs)]

use crate::error::Result;
use crate::types::{DiskId, Epoch, NodeId, ShardIndex, StripeId};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::fmt::Debug;
use std::ops::Range;

/// What goes first when a disk is busy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Priority {
    /// Somebody waits for an fsync.
    Sync,
    /// Somebody waits for a read.
    Read,
    /// Repair, cleaning.
    Background,
}

/// Name of one shard on one disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardKey {
    /// Stripe that the shard belongs to.
    pub stripe: StripeId,
    /// Which of its shards.
    pub index: ShardIndex,
}

/// What a put says at its end, once for all shards of the stripe.
#[derive(Clone, Debug)]
pub struct Seal {
    /// Payload bytes of the whole stripe.
    pub payload_bytes: u64,
    /// Encoded slot table, the same bytes on every shard.
    pub slot_table: Bytes,
}

/// Header facts of a shard, said when a put begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShardHeader {
    /// Which shard.
    pub key: ShardKey,
    /// Class under which the stripe was written.
    pub class: crate::types::ClassId,
    /// Data shards of the stripe's scheme.
    pub data_shards: u8,
    /// Parity shards of the stripe's scheme.
    pub parity_shards: u8,
    /// Full cell size; the last row may have shorter cells.
    pub cell_bytes: u32,
    /// Epoch of the placement.
    pub epoch: Epoch,
}

/// An operation on one disk.
#[derive(Clone, Debug)]
pub enum Operation {
    /// Starts a shard; nothing is visible before `Seal`.
    Begin(ShardHeader),
    /// Appends the cells of the next rows to a shard that was begun.
    Append(ShardKey, Vec<Bytes>),
    /// Ends a shard; answers `Sealed` when the file and all directories are durable.
    Seal(ShardKey, Seal),
    /// Forgets a shard that was begun and not sealed.
    Abort(ShardKey),
    /// Reads byte ranges of the shard's cells (offset 0 is the first byte of row 0's cell), each checked
    /// against the CRCs of all blocks it touches. Answers `Bytes`, one per range. `Corrupt` if a check fails,
    /// `NotFound` if there is no such valid shard.
    Fetch(ShardKey, Vec<Range<u64>>),
    /// Answers `Footer`: what the sealed shard says of itself, from a footer that checks.
    Stat(ShardKey),
    /// Checks every block CRC and cell hash against the footer. Answers `Done`; `Corrupt` if one fails.
    Verify(ShardKey),
    /// Removes a shard durably; fine if it is not there.
    Delete(ShardKey),
    /// Answers `Keys`: up to `limit` sealed shards after `after`, in order.
    List {
        /// Exclusive lower end; `None` starts at the front.
        after: Option<ShardKey>,
        /// Most keys in the answer.
        limit: usize,
        /// Whether each is seen to be there, not only in the index, which forgets what is not.
        seen: bool,
    },
    /// Has the index take in what lies in one part of the directories of shards without being in it: `part` of
    /// `ADOPT_PARTS`. Answers `Done`.
    Adopt {
        /// From 0.
        part: u16,
    },
    /// Answers `Space`.
    Space,
}

/// Parts in which directories are adopted: each is done within a fraction of a second, so that nothing waits for long.
pub const ADOPT_PARTS: u16 = 4096;

/// A request to a node.
#[derive(Clone, Debug)]
pub struct Request {
    /// Disk that is meant.
    pub disk: DiskId,
    /// Member list that the caller goes by.
    pub epoch: Epoch,
    /// What goes first when the disk is busy.
    pub priority: Priority,
    /// What to do.
    pub operation: Operation,
}

/// Footer facts of a sealed shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ShardFooter {
    /// Facts of its header.
    pub header: ShardHeader,
    /// Payload bytes of the whole stripe.
    pub payload_bytes: u64,
    /// Bytes of all cells of this shard.
    pub cells_bytes: u64,
    /// BLAKE3 over the cell hashes of this shard.
    pub root: [u8; 32],
    /// Encoded slot table.
    pub slot_table: Bytes,
}

/// Answer to a request.
#[derive(Clone, Debug)]
pub enum Response {
    /// The operation is done.
    Done,
    /// The shard is durable; BLAKE3 over its cell hashes.
    Sealed {
        /// Root of the shard's cell hashes.
        root: [u8; 32],
    },
    /// Bytes of a fetch, one per range.
    Bytes(Vec<Bytes>),
    /// Answer to `Stat`.
    Footer(ShardFooter),
    /// Answer to `List`.
    Keys(Vec<ShardKey>),
    /// Answer to `Space`.
    Space(crate::disk::Space),
}

/// The nodes that serve disks.
pub trait Peers: Send + Sync + Debug {
    /// Sends a request and waits for the answer. May be cancelled; the operation may then still happen.
    ///
    /// Errors: `Unavailable` when the disk or node does not answer, else what the operation says.
    fn call(&self, node: NodeId, request: Request) -> BoxFuture<'_, Result<Response>>;
}
