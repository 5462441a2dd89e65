//! What `info FILE` says: chunks, stripes, and which disk holds which shard.

use serde::{Deserialize, Serialize};

/// A file, explained.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileInfo {
    /// Inode number.
    pub ino: u64,
    /// `file`, `directory`, ...
    pub kind: String,
    /// Class of new data.
    pub class: String,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of content that are not holes, before compression and redundancy.
    pub allocated_bytes: u64,
    /// Bytes reserved by fallocate.
    pub reserved_bytes: u64,
    /// Bytes in the inode record itself.
    pub inline_bytes: u64,
    /// Bytes in the log and metadata.
    pub hot_bytes: u64,
    /// Dirty bytes in memory.
    pub dirty_bytes: u64,
    /// How many more shards the worst of the stripes that are listed may lose; `None` without stripes.
    pub margin: Option<i64>,
    /// Chunks that have content.
    pub chunks: Vec<ChunkInfo>,
    /// Stripes that hold content.
    pub stripes: Vec<StripeInfo>,
    /// Whether the lists were cut short.
    pub truncated: bool,
}

/// A chunk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ChunkInfo {
    /// Number in the file.
    pub chunk: u32,
    /// Segments in stripes.
    pub segments: u32,
    /// Bytes in hot extents.
    pub hot_bytes: u64,
}

/// A stripe.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct StripeInfo {
    /// The stripe.
    pub stripe: String,
    /// Scheme and options under which it was written.
    pub class: String,
    /// Bytes of its payload.
    pub payload_bytes: u64,
    /// How many more shards it may lose.
    pub margin: i64,
    /// Its shards.
    pub shards: Vec<ShardInfo>,
}

/// A shard.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ShardInfo {
    /// Which.
    pub index: u8,
    /// `data` or `parity`.
    pub role: String,
    /// Disk that holds it.
    pub disk: u32,
    /// Path of that disk.
    pub path: String,
    /// `good`, `missing` or `down`.
    pub state: String,
}
