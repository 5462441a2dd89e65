//! The seam to storage: one directory on one device. Every store does its file work through `Disk`, so a
//! simulated disk can stand in for it. Knows nothing of stripes, metadata or the network.
#![warn(missing_docs)]

use crate::config::labels::Labels;
use crate::error::Result;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

pub mod behind;
pub mod local;
pub mod mirror;
pub mod pace;
pub mod queue;
pub mod set;
#[cfg(test)]
#[path = "../tests/it/sim/disk.rs"]
#[expect(missing_docs, reason = "fields of a test double explain themselves")]
pub mod sim;
pub mod superblock;

/// File in the root of each disk that the lock is taken on.
pub const LOCK_FILE: &str = "lock";

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Read only; it must exist.
    Read,
    /// Read and write; it must exist.
    Write,
    /// Read and write; it must not exist yet.
    CreateNew,
}

/// Entry of a directory listing.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct DiskEntry {
    /// Name inside the directory.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// Capacity of the device in bytes. `device` is equal for disks that share one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Size of the device.
    pub total_bytes: u64,
    /// Bytes that a writer without privilege may still use.
    pub free_bytes: u64,
    /// Device number.
    pub device: u64,
}

/// Shards leave this share of a device free ...
const FLOOR_SHARE: u64 = 128;
/// ... or this much, whichever is less.
const FLOOR_BYTES: u64 = 2 << 30;

impl Space {
    /// Bytes that shards leave free, those of repair and moves too: the log and the metadata have to go on growing.
    pub fn floor_bytes(&self) -> u64 {
        floor_bytes(self.total_bytes)
    }
}

/// What shards leave free of so many bytes.
pub fn floor_bytes(total_bytes: u64) -> u64 {
    (total_bytes / FLOOR_SHARE).min(FLOOR_BYTES)
}

/// What the path of the disk leads to now, found anew at each call. Two equal identities mean that the path
/// still leads to the directory that was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskIdentity {
    /// Device number of the root.
    pub device: u64,
    /// Inode number of the root.
    pub inode: u64,
}

/// One directory on one device. Names are relative paths with `/`, without `.` or `..`. The root itself is
/// never created: an unmounted disk must not come back empty.
///
/// Errors: `NotFound`, `Exists`, `NoSpace` as `Posix`; anything else is `Unavailable`.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn DiskFile>>;
    /// Removes a file. Durable after `sync_dir` of its directory.
    fn remove(&self, name: &str) -> Result<()>;
    /// Renames a file over another. Durable after `sync_dir` of both directories.
    fn rename(&self, from: &str, to: &str) -> Result<()>;
    /// Makes one directory; `Exists` if it is there. Durable after `sync_dir` of its parent.
    fn create_dir(&self, name: &str) -> Result<()>;
    /// Lists a directory ("" is the root), sorted by name.
    fn list(&self, dir: &str) -> Result<Vec<DiskEntry>>;
    /// Makes the entries of a directory durable ("" is the root).
    fn sync_dir(&self, dir: &str) -> Result<()>;
    /// Capacity.
    fn space(&self) -> Result<Space>;
    /// What the path leads to now.
    fn identity(&self) -> Result<DiskIdentity>;
    /// Takes the lock of this disk (held until the `Disk` is dropped), writing `holder` where a refused
    /// second caller can read it. `Refused` names the present holder.
    fn lock(&self, holder: &str) -> Result<()>;
    /// Gives the lock back, so that another process gets it before this one ends.
    fn release(&self) {}
    /// The path or name for people.
    fn label(&self) -> String;
    /// Where it stands, as far as what serves it tells: its node, and the rack and zone of that.
    fn labels(&self) -> Labels {
        Labels::default()
    }
}

/// An open file of a disk. Calls may come from several threads.
#[expect(clippy::len_without_is_empty, reason = "length is asked of the system and may fail")]
pub trait DiskFile: Send + Sync + Debug {
    /// Length in bytes.
    fn len(&self) -> Result<u64>;
    /// Fills `buffer` from `offset`. Bytes beyond the end are an error of kind `Corrupt`: a store knows the
    /// length of what it reads.
    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()>;
    /// Fills `buffer` as `read` does if that needs no waiting for a device, because the bytes are in memory. Answers
    /// whether it did; if not, what is in `buffer` is undefined, and `read` tells why.
    fn read_now(&self, _offset: u64, _buffer: &mut [u8]) -> bool {
        false
    }
    /// As `read`, but gives up after about `patience` where that is possible. Answers whether it did read; if not, what is
    /// in `buffer` is undefined.
    fn read_soon(&self, offset: u64, buffer: &mut [u8], _patience: Duration) -> Result<bool> {
        self.read(offset, buffer).map(|()| true)
    }
    /// Writes all of `data` at `offset`, extending the file.
    fn write(&self, offset: u64, data: &[u8]) -> Result<()>;
    /// As `write` for each of `parts` (offset and data), in order: one call where each costs a round trip. After an error
    /// any of them may be written.
    fn write_many(&self, parts: Vec<(u64, Bytes)>) -> Result<()> {
        parts.iter().try_for_each(|(offset, data)| self.write(*offset, data))
    }
    /// As `write`, then `sync_data`: one call where each costs a round trip.
    fn write_durably(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.write(offset, data)?;
        self.sync_data()
    }
    /// As `write_durably`, as something to wait for, which begins when it is first polled: where the file is on another
    /// machine a thread would only wait. `None` where the call blocks.
    fn durable_write(&self, _offset: u64, _data: &Bytes) -> Option<BoxFuture<'static, Result<()>>> {
        None
    }
    /// Sets the length; new space is zero and, where the device can, allocated.
    fn set_len(&self, length: u64) -> Result<()>;
    /// Makes content and length durable. After a failure the file's unsynced content is unknown.
    fn sync_data(&self) -> Result<()>;
}
