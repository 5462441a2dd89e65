//! The file system: one method per FUSE operation, plain async methods that tests call without a mount. Knows
//! neither QUIC nor redb nor fuser, nor how many nodes there are.
//!
//! Lock order: node's order, handle table, node table, node's metadata, node's data, caches. Only a node's order
//! (a `tokio` lock) is held across an await; where two directories change, the smaller number is locked first.

pub mod acl;
pub mod attr;
pub mod data;
pub mod dir;
pub mod file;
mod handle;
pub mod keep;
pub mod namespace;
pub mod node;
mod nodes;
mod privilege;
pub mod statfs;
mod times;
pub mod xattr;

use crate::error::{Posix, Result};
use crate::fs::data::Data;
use crate::fs::handle::Handles;
use crate::fs::node::Node;
use crate::fs::nodes::Nodes;
use crate::fs::statfs::SpaceSource;
use crate::limits::NAME_BYTES_MAX;
use crate::meta::client::MetaClient;
use crate::sync::{Arc, Mutex};
use crate::types::{FileKind, HandleId, Ino, Timestamp};
use std::collections::HashMap;
use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

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

/// When reading updates the access time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum AtimeMode {
    /// If it is not newer than the last change, or a day old (`relatime`).
    #[default]
    Relative = 0,
    /// At every read (`strictatime`).
    Strict = 1,
    /// Never (`noatime`).
    Never = 2,
}

/// How one mount behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FsOptions {
    /// Every change answers EROFS.
    pub read_only: bool,
    /// When reading updates the access time.
    pub atime: AtimeMode,
    /// Directories keep their access time.
    pub nodiratime: bool,
    /// The kernel caches writes and owns size, mtime and ctime of regular files.
    pub writeback: bool,
}

/// The wall clock, read once per operation.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What a file system is made of.
#[expect(missing_debug_implementations, reason = "a clock has nothing to show")]
pub struct FsParts {
    /// Metadata, behind a `StartMount`.
    pub meta: MetaClient,
    /// File data.
    pub data: Arc<Data>,
    /// Wall clock.
    pub clock: Clock,
    /// Free space per class.
    pub space: Arc<dyn SpaceSource>,
    /// How the mount behaves.
    pub options: FsOptions,
}

/// One mounted file system.
pub struct Fs {
    meta: MetaClient,
    data: Arc<Data>,
    clock: Clock,
    space: Arc<dyn SpaceSource>,
    /// Held while a class is looked up or defined.
    new_class: tokio::sync::Mutex<()>,
    writeback: bool,
    read_only: AtomicBool,
    atime: AtomicU8,
    nodiratime: AtomicBool,
    nodes: Nodes,
    handles: Handles,
    next_ino: AtomicU64,
    /// Nodes whose times are ahead of the metadata; being here keeps them in memory.
    late_times: Mutex<HashMap<Ino, Arc<Node>>>,
    /// Orphans that nobody holds any more.
    released: Mutex<Vec<Ino>>,
    /// Held while they are proposed.
    releasing: tokio::sync::Mutex<()>,
    /// Wakes the keeper early when much has piled up.
    wake: tokio::sync::Notify,
    /// Tells the kernel that what it knows of an inode is out of date.
    stale: OnceLock<StaleHook>,
}

/// Called with an inode whose attributes changed without the caller's asking.
pub type StaleHook = Box<dyn Fn(Ino) + Send + Sync>;

impl fmt::Debug for Fs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fs").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

impl Fs {
    /// A file system over `parts`. Reads the next inode number from the metadata: no other `Fs` may write to the
    /// same metadata.
    pub fn new(parts: FsParts) -> Result<Self> {
        let next_ino = parts.meta.totals().next_ino;
        let options = parts.options;
        Ok(Self {
            meta: parts.meta,
            data: parts.data,
            clock: parts.clock,
            space: parts.space,
            new_class: tokio::sync::Mutex::default(),
            writeback: options.writeback,
            read_only: AtomicBool::new(options.read_only),
            atime: AtomicU8::new(options.atime as u8),
            nodiratime: AtomicBool::new(options.nodiratime),
            nodes: Nodes::new(),
            handles: Handles::default(),
            next_ino: AtomicU64::new(next_ino),
            late_times: Mutex::default(),
            released: Mutex::default(),
            releasing: tokio::sync::Mutex::default(),
            wake: tokio::sync::Notify::new(),
            stale: OnceLock::new(),
        })
    }

    /// Has `hook` called, before the operation answers, with each inode that loses suid, sgid or capabilities because its
    /// content changes: the kernel asks for size and times again after a write, and not for the mode. Once.
    pub fn on_stale(&self, hook: StaleHook) {
        // A second hook would mean a second kernel.
        drop(self.stale.set(hook));
    }

    fn tell_stale(&self, ino: Ino) {
        if let Some(hook) = self.stale.get() {
            hook(ino);
        }
    }

    /// Remounts: changes answer EROFS from now on, or no longer. The caller syncs first when it turns read-only.
    pub fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Release);
    }

    /// Whether changes answer EROFS.
    pub fn read_only(&self) -> bool {
        self.read_only.load(Ordering::Acquire)
    }

    /// Remounts: when access times are updated.
    pub fn set_atime_mode(&self, mode: AtimeMode, nodiratime: bool) {
        self.atime.store(mode as u8, Ordering::Relaxed);
        self.nodiratime.store(nodiratime, Ordering::Relaxed);
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }

    fn check_writable(&self) -> Result<()> {
        if self.read_only() { Err(Posix::ReadOnly.into()) } else { Ok(()) }
    }

    fn new_ino(&self) -> Ino {
        Ino(self.next_ino.fetch_add(1, Ordering::Relaxed))
    }

    /// The node that an operation means: that of its handle, or of its number.
    fn node_of(&self, ino: Ino, handle: Option<HandleId>) -> Result<Arc<Node>> {
        match handle.and_then(|id| self.handles.get(id)) {
            Some(handle) if handle.node.ino == ino => Ok(Arc::clone(&handle.node)),
            Some(_) | None => self.node(ino),
        }
    }

    /// The node of an inode; `Stale` if there is none.
    fn node(&self, ino: Ino) -> Result<Arc<Node>> {
        if let Some(node) = self.nodes.get(ino) {
            return Ok(node);
        }
        loop {
            let (inode, position) = self.meta.inode(ino)?;
            if let Some(node) = self.nodes.enter(inode.ok_or(Posix::Stale)?, position) {
                return Ok(node);
            }
        }
    }

    /// The node that a name leads to, without counting a look-up.
    fn child(&self, parent: Ino, name: &[u8]) -> Result<Arc<Node>> {
        loop {
            let (inode, position) = self.meta.lookup_inode(parent, name)?;
            if let Some(node) = self.nodes.enter(inode.ok_or(Posix::NotFound)?, position) {
                return Ok(node);
            }
        }
    }

    /// Reads the inode anew if a command changed it without answering it.
    fn refresh(&self, node: &Node) -> Result<()> {
        if node.locked().is_current() {
            return Ok(());
        }
        if let (Some(inode), position) = self.meta.inode(node.ino)? {
            node.install(inode, position);
        }
        Ok(())
    }

    /// The attributes of a node as users see them now.
    fn attributes(&self, node: &Node) -> Result<Attributes> {
        self.refresh(node)?;
        Ok(node.attributes(self.data.dirty_bytes(node)))
    }
}

/// Checks a name that is to be looked up or made.
fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Posix::NameTooLong.into());
    }
    if name.is_empty() || name.contains(&b'/') || name.contains(&0) {
        return Err(Posix::Invalid.into());
    }
    Ok(())
}
