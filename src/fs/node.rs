//! Nodes: inodes that the kernel or an open handle knows, with what is in memory about them.

use crate::fs::Attributes;
use crate::fs::data::DataState;
use crate::meta::command::Inode;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::types::{FileKind, Ino, LogPosition, ROOT_INO, Timestamp};

/// Unit of `st_blocks`.
const STAT_BLOCK_BYTES: u64 = 512;

/// An inode in memory.
#[derive(Debug)]
pub struct Node {
    /// Number.
    pub ino: Ino,
    /// Last known metadata plus what is ahead of it.
    pub meta: Mutex<NodeMeta>,
    /// Held by operations that read metadata, decide, and change it: names of a directory, mode and ACL of any
    /// node. `fs::data` never takes it.
    pub order: tokio::sync::Mutex<()>,
    /// Kernel's lookup count.
    pub lookups: AtomicU64,
    /// Open handles.
    pub handles: AtomicU64,
    /// Dirty data and cached extents; owned by `fs::data`.
    pub data: DataState,
    /// Whether the node stands in the queue of idle nodes; owned by `fs::nodes`.
    pub(super) queued: AtomicBool,
}

/// Metadata of a node in memory.
///
/// Commands on one inode may be answered in another order than they were applied in, and some change an inode
/// without answering it. Therefore each inode comes with the log position that it was true at: an older one never
/// replaces a newer one, and `wanted` says from where on the one in memory is too old.
#[derive(Clone, Debug)]
pub struct NodeMeta {
    /// The inode as the last command that touched it answered.
    pub inode: Inode,
    /// Size as users see it: ahead of `inode.size` while data is dirty. Of files `fs::data` alone sets it.
    pub size: u64,
    /// Times as users see them, ahead of the inode while `times_dirty`.
    pub mtime: Timestamp,
    /// As `mtime`.
    pub ctime: Timestamp,
    /// As `mtime`; flushed lazily.
    pub atime: Timestamp,
    /// Whether mtime or ctime are ahead of the inode. Who commits them clears it when it takes the values, before
    /// the commit, and sets it again if the commit fails: so times set meanwhile stay dirty.
    pub times_dirty: bool,
    /// Whether atime is ahead of the inode.
    pub atime_dirty: bool,
    /// Position that `inode` was true at.
    pub position: LogPosition,
    /// A command before this position changed the inode without answering it.
    pub wanted: LogPosition,
    /// Whether the file carries `security.capability`, once known.
    pub capability: Option<bool>,
    /// Whether its orphan was given back: happens once.
    pub released: bool,
}

impl NodeMeta {
    /// Takes over `inode`, which was true at `position`, unless a newer one is here. Size of files and dirty times
    /// stay as they are. Answers whether it was taken.
    pub fn install(&mut self, inode: Inode, position: LogPosition) -> bool {
        if position < self.position {
            return false;
        }
        if !self.times_dirty {
            (self.mtime, self.ctime) = (inode.mtime, inode.ctime);
        }
        if !self.atime_dirty {
            self.atime = inode.atime;
        }
        if inode.kind != FileKind::File {
            self.size = inode.size;
        }
        self.position = position;
        self.inode = inode;
        true
    }

    /// Whether no command is known to have changed the inode since.
    pub fn is_current(&self) -> bool {
        self.position >= self.wanted
    }
}

impl Node {
    /// A node for `inode` as just read from or answered by the metadata.
    pub fn new(inode: Inode) -> Self {
        Self::at(inode, LogPosition(0))
    }

    /// A node for `inode` as it was at `position`.
    pub fn at(inode: Inode, position: LogPosition) -> Self {
        let meta = NodeMeta {
            size: inode.size,
            mtime: inode.mtime,
            ctime: inode.ctime,
            atime: inode.atime,
            times_dirty: false,
            atime_dirty: false,
            position,
            wanted: position,
            capability: if inode.has_xattrs { None } else { Some(false) },
            released: false,
            inode,
        };
        Self {
            ino: meta.inode.ino,
            meta: Mutex::new(meta),
            order: tokio::sync::Mutex::new(()),
            lookups: AtomicU64::new(0),
            handles: AtomicU64::new(0),
            data: DataState::default(),
            queued: AtomicBool::new(false),
        }
    }

    /// The metadata, locked. A panic elsewhere ends the process, so poison says nothing.
    pub fn locked(&self) -> MutexGuard<'_, NodeMeta> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// As `NodeMeta::install`.
    pub fn install(&self, inode: Inode, position: LogPosition) -> bool {
        self.locked().install(inode, position)
    }

    /// Notes that a command before `position` changed the inode: the next look at it reads it anew.
    pub fn outdate(&self, position: LogPosition) {
        let mut meta = self.locked();
        meta.wanted = meta.wanted.max(position);
    }

    /// What it is; never changes.
    pub fn kind(&self) -> FileKind {
        self.locked().inode.kind
    }

    /// Whether the kernel or a handle holds it.
    pub fn is_held(&self) -> bool {
        self.lookups.load(Ordering::Acquire) > 0 || self.handles.load(Ordering::Acquire) > 0
    }

    /// Whether it has no name and no descriptor: the kernel lets go of it any moment.
    pub fn is_leaving(&self) -> bool {
        let meta = self.locked();
        meta.inode.links == 0 && !meta.released && self.handles.load(Ordering::Acquire) == 0
    }

    /// Attributes with `dirty_bytes` counted as used.
    pub fn attributes(&self, dirty_bytes: u64) -> Attributes {
        let meta = self.locked();
        let inode = &meta.inode;
        let used =
            inode.allocated_bytes.saturating_add(inode.reserved_bytes).saturating_add(dirty_bytes);
        Attributes {
            ino: inode.ino,
            generation: u32::from(inode.ino != ROOT_INO),
            kind: inode.kind,
            mode: inode.mode,
            links: inode.links,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev,
            size: meta.size,
            blocks: used.div_ceil(STAT_BLOCK_BYTES),
            atime: meta.atime,
            mtime: meta.mtime,
            ctime: meta.ctime,
        }
    }
}
