//! Nodes: inodes that the kernel or an open handle knows, with what is in memory about them.

use crate::fs::data::DataState;
use crate::meta::command::Inode;
use crate::types::{Ino, Timestamp};
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

/// An inode in memory.
#[derive(Debug)]
pub struct Node {
    /// Number.
    pub ino: Ino,
    /// Last known metadata plus what is ahead of it.
    pub meta: Mutex<NodeMeta>,
    /// Kernel's lookup count.
    pub lookups: AtomicU64,
    /// Open handles.
    pub handles: AtomicU64,
    /// Dirty data and cached extents; owned by `fs::data`.
    pub data: DataState,
}

/// Metadata of a node in memory.
#[derive(Clone, Debug)]
pub struct NodeMeta {
    /// The inode as the last command that touched it answered.
    pub inode: Inode,
    /// Size as users see it: ahead of `inode.size` while data is dirty.
    pub size: u64,
    /// Times as users see them, ahead of the inode while `times_dirty`.
    pub mtime: Timestamp,
    /// As `mtime`.
    pub ctime: Timestamp,
    /// As `mtime`; flushed lazily.
    pub atime: Timestamp,
    /// Whether mtime or ctime are ahead of the inode.
    pub times_dirty: bool,
    /// Whether atime is ahead of the inode.
    pub atime_dirty: bool,
}

impl Node {
    /// A node for `inode` as just read from or answered by the metadata.
    pub fn new(inode: Inode) -> Self {
        let meta = NodeMeta {
            size: inode.size,
            mtime: inode.mtime,
            ctime: inode.ctime,
            atime: inode.atime,
            times_dirty: false,
            atime_dirty: false,
            inode,
        };
        Self {
            ino: meta.inode.ino,
            meta: Mutex::new(meta),
            lookups: AtomicU64::new(0),
            handles: AtomicU64::new(0),
            data: DataState::default(),
        }
    }
}
