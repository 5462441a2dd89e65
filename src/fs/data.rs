//! File data: absorbs writes, flushes them into hot extents and stripes, reads through caches.
//!
//! `Data` is shared by all nodes of a mount; `DataState` is what one node carries.

use crate::error::{Error, Result};
use crate::fs::node::Node;
use crate::meta::command::{FileUpdate, SetAttributes};
use crate::types::Timestamp;
use bytes::Bytes;
use std::sync::Arc;

/// Dirty data and cached extents of one node.
#[derive(Debug, Default)]
pub struct DataState {}

/// What a hole-aware seek looks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// Next byte that has data.
    Data,
    /// Next hole, the end of file at the latest.
    Hole,
}

/// The data half of the file system.
#[derive(Debug)]
pub struct Data {}

fn absent<T>() -> Result<T> {
    Err(Error::internal("data"))
}

#[expect(clippy::unused_async, reason = "signatures first")]
impl Data {
    /// Reads up to `length` bytes at `offset`, short only at the end of file.
    pub async fn read(&self, _node: &Arc<Node>, _offset: u64, _length: u32) -> Result<Bytes> {
        absent()
    }
    /// Absorbs a write: copies into dirty buffers, extends the size, reserves space. Waits only for room. `time`
    /// stamps mtime and ctime unless `None` (the kernel's write-back owns them).
    pub async fn write(
        &self,
        _node: &Arc<Node>,
        _offset: u64,
        _bytes: &[u8],
        _time: Option<Timestamp>,
    ) -> Result<()> {
        absent()
    }
    /// Sets the size together with other attributes, in one command. Dirty data behind a smaller size is dropped.
    pub async fn truncate(&self, _node: &Arc<Node>, _size: u64, _set: SetAttributes) -> Result<()> {
        absent()
    }
    /// Pushes all dirty data (and dirty times) of a node into the log's order; not yet durable.
    pub async fn flush(&self, _node: &Arc<Node>) -> Result<()> {
        absent()
    }
    /// As `flush`, then waits until the log is durable: fsync.
    pub async fn sync(&self, _node: &Arc<Node>) -> Result<()> {
        absent()
    }
    /// Makes everything of all nodes durable.
    pub async fn sync_all(&self) -> Result<()> {
        absent()
    }
    /// Makes a range a hole: whole segments by command, the edges by zero writes. Size stays.
    pub async fn punch(
        &self,
        _node: &Arc<Node>,
        _offset: u64,
        _length: u64,
        _set: SetAttributes,
    ) -> Result<()> {
        absent()
    }
    /// fallocate mode 0 and KEEP_SIZE: reserves space for the holes in a range, extends the size if asked.
    pub async fn reserve(
        &self,
        _node: &Arc<Node>,
        _offset: u64,
        _length: u64,
        _update: Option<FileUpdate>,
    ) -> Result<()> {
        absent()
    }
    /// lseek SEEK_DATA / SEEK_HOLE with dirty data taken into account. `NoSuchAddress` past the end.
    pub async fn seek(&self, _node: &Arc<Node>, _offset: u64, _what: Seek) -> Result<u64> {
        absent()
    }
    /// copy_file_range: shares aligned whole segments, copies the rest. Answers bytes copied.
    pub async fn copy(
        &self,
        _from: (&Arc<Node>, u64),
        _to: (&Arc<Node>, u64),
        _length: u64,
        _time: Timestamp,
    ) -> Result<u64> {
        absent()
    }
    /// Bytes of a node that are dirty.
    pub fn dirty_bytes(&self, _node: &Node) -> u64 {
        0
    }
    /// Bytes of all nodes that are dirty.
    pub fn total_dirty_bytes(&self) -> u64 {
        0
    }
    /// Forgets what is in memory of a node that is gone (orphan released).
    pub fn discard(&self, _node: &Node) {}
}
