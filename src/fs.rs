//! The file system: one method per FUSE operation, plain async methods that tests call without a mount. Knows
//! neither QUIC nor redb nor fuser, nor how many nodes there are.
//!
//! Lock order: handle table, node's metadata, node's data, caches. No lock is held across an await, a disk or the
//! network; what must stay still across one is guarded by the node's `tokio` locks (`fs::node`).

pub mod data;
pub mod node;

use crate::types::{FileKind, Ino, Timestamp};

/// Who asks.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Caller {
    /// Effective user.
    pub uid: u32,
    /// Effective group.
    pub gid: u32,
    /// Supplementary groups; filled in for operations that need them (FUSE.md 1.5).
    pub groups: Vec<u32>,
    /// Whether the caller has CAP_FSETID (keeps suid and sgid bits).
    pub cap_fsetid: bool,
}

/// Attributes of an inode as a file system user sees them: dirty data and size included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes {
    /// Number.
    pub ino: Ino,
    /// 0 for the root, else 1: numbers are never reused.
    pub generation: u32,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits (07777).
    pub mode: u32,
    /// Number of names.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Size in bytes.
    pub size: u64,
    /// 512-byte units in use, dirty and reserved bytes included.
    pub blocks: u64,
    /// Access time.
    pub atime: Timestamp,
    /// Modification time.
    pub mtime: Timestamp,
    /// Change time.
    pub ctime: Timestamp,
}
