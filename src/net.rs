//! The seam to the processes that serve disks: a request to a node, a response from it. Knows nothing of what
//! shards contain.
#![warn(missing_docs)]

use crate::disk::{DiskEntry, DiskIdentity, OpenMode, Space};
use crate::error::{Error, Result};
use crate::types::{DiskId, Epoch, NodeId, ShardIndex, StripeId};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use gather::Gather;
use std::fmt::Debug;
use std::ops::Range;
use std::time::Duration;

pub mod authority;
pub mod disk;
pub mod gather;
pub mod neighbours;
pub mod quic;
pub mod remote;
#[cfg(test)]
mod testing;
pub mod tls;
pub mod way;
pub mod wire;

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
    /// As `Append` of the next rows, whose cells the node makes of what other nodes hold; the first ones begin the shard,
    /// as `Begin` does. Answers `Done`, or `Lacking` if they could not be had.
    Gather(Gather),
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
    Space(Space),
    /// Answer to `Gather`: a source could not be had, and nothing was done. Not an error, which would be one of the disk
    /// that was asked.
    Lacking {
        /// Which of its sources.
        index: ShardIndex,
        /// Why not: `Unavailable` or `Refused` if its node could not be reached.
        error: Error,
    },
}

/// A file that a node holds open for a mount.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FileId(pub u64);

/// A call of the files of a disk that are not shards, as those of `Disk` and `DiskFile`: superblock, log, state.
#[derive(Clone, Debug)]
pub enum DiskCall {
    /// Answers `Opened`.
    Open {
        /// Path below the disk.
        name: String,
        /// What it must be.
        mode: OpenMode,
    },
    /// Answers `Length`.
    Length(FileId),
    /// Answers `Bytes`.
    Read {
        /// Which file.
        file: FileId,
        /// From where.
        offset: u64,
        /// How much: all of it, or an error.
        length: u32,
    },
    /// Writes all of `data`.
    Write {
        /// Which file.
        file: FileId,
        /// To where.
        offset: u64,
        /// What.
        data: Bytes,
        /// Whether the answer waits until content and length are durable.
        durable: bool,
    },
    /// Sets the length.
    SetLength {
        /// Which file.
        file: FileId,
        /// Bytes.
        length: u64,
    },
    /// Makes content and length durable.
    Sync(FileId),
    /// Forgets an open file.
    Close(FileId),
    /// Removes a file.
    Remove(String),
    /// Renames a file over another.
    Rename {
        /// Present name.
        from: String,
        /// New name.
        to: String,
    },
    /// Makes a directory.
    CreateDir(String),
    /// Answers `Entries`.
    ListDir(String),
    /// Makes the entries of a directory durable.
    SyncDir(String),
    /// Answers `Identity`.
    Identity,
    /// Answers `Space`.
    Space,
    /// Takes the lease of the disk for the mount that asks.
    Lock {
        /// Who that is, for whoever is refused.
        holder: String,
    },
    /// Gives the lease back.
    Unlock,
    /// Writes each of `parts`, in order.
    WriteMany {
        /// Which file.
        file: FileId,
        /// Offsets and data.
        parts: Vec<(u64, Bytes)>,
    },
}

/// Reply to a `DiskCall`.
#[derive(Clone, Debug)]
pub enum DiskReply {
    /// It is done.
    Done,
    /// The file is open.
    Opened(FileId),
    /// Bytes of a file.
    Length(u64),
    /// What was read.
    Bytes(Bytes),
    /// What a directory holds.
    Entries(Vec<DiskEntry>),
    /// Room.
    Space(Space),
    /// What the path leads to.
    Identity(DiskIdentity),
}

/// The nodes that serve disks.
pub trait Peers: Send + Sync + Debug {
    /// Sends a request and waits for the answer. May be cancelled; the operation may then still happen.
    ///
    /// Errors: `Unavailable` when the disk or node does not answer, else what the operation says.
    fn call(&self, node: NodeId, request: Request) -> BoxFuture<'_, Result<Response>>;

    /// Sends requests for one disk that are carried out in order, up to the first that fails, and answers what the last one
    /// is answered. On the way to another machine some are sent ahead. May be cancelled.
    ///
    /// Errors: those of `call`; `Unavailable` if a request is not answered within `silence` of its turn.
    fn call_in_order<'a>(
        &'a self,
        at: (NodeId, DiskId),
        requests: BoxStream<'a, Request>,
        silence: Duration,
    ) -> BoxFuture<'a, Result<Response>> {
        Box::pin(one_by_one(self, at, requests, silence))
    }
}

/// Sends each request when the one before is answered; says what the last one is answered.
///
/// Errors: those of `Peers::call_in_order`.
pub async fn one_by_one(
    peers: &(impl Peers + ?Sized),
    (node, disk): (NodeId, DiskId),
    mut requests: BoxStream<'_, Request>,
    silence: Duration,
) -> Result<Response> {
    let late = |_late| {
        Error::unavailable(format!("disk {disk} has not answered for {} s", silence.as_secs()))
    };
    let mut last = None;
    while let Some(request) = requests.next().await {
        let asked = tokio::time::timeout(silence, peers.call(node, request));
        last = Some(asked.await.map_err(late)??);
    }
    last.ok_or_else(|| Error::internal("nothing was asked"))
}
