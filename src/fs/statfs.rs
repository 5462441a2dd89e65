//! How much room there is. Knows no disk: the numbers come from a `SpaceSource`.

use crate::class::Class;
use crate::error::Result;
use crate::fs::Fs;
use crate::limits::NAME_BYTES_MAX;
use crate::sync::atomic::AtomicU64;
use crate::types::{ClassId, Ino};
use futures_util::future::BoxFuture;
use std::fmt::Debug;

/// Unit of the block counts.
const STATFS_BLOCK_BYTES: u32 = 4096;
/// Room that an inode is counted with: its records in all metadata copies stay well below.
const BYTES_PER_INODE: u64 = 4096;

/// Bytes of file data that a class has room for, redundancy already subtracted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SpaceForClass {
    /// All of it.
    pub total_bytes: u64,
    /// Free of it, the reserve included.
    pub free_bytes: u64,
    /// Free for users.
    pub available_bytes: u64,
    /// Free for users at this moment: what is being deleted counts for `free_bytes` and `available_bytes` already, and
    /// has not left the disks.
    pub writable_bytes: u64,
    /// Free at this moment for holding data twice while it is moved: half of the reserve is not.
    pub movable_bytes: u64,
}

/// Tells the room of a class; answers from memory.
pub trait SpaceSource: Send + Sync + Debug {
    /// Room for data of `class`.
    fn space(&self, class: ClassId) -> SpaceForClass;

    /// Waits until users may write `bytes` of `class`, if what is being deleted makes room for that, or disks that are down
    /// may. What `space` answers from memory is a moment old, so the disks are looked at again in any case.
    ///
    /// Errors: `NoSpace`; `Unavailable` if too few disks are in use to write anything.
    fn wait_for(&self, class: ClassId, bytes: u64) -> BoxFuture<'_, Result<()>>;

    /// Takes note of a stripe that was put: its room is taken before the disks are looked at again.
    fn note_put(&self, payload_bytes: u64);

    /// Bytes that users have written and no stripe holds yet, of all classes. Who writes counts them here, so that what
    /// can wait leaves them their room.
    fn dirty_bytes(&self) -> &AtomicU64;

    /// Whether each shard of a stripe of `class` finds a disk of its own.
    fn can_place(&self, class: &Class) -> bool;
}

/// Answer of statfs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatFs {
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub free: u64,
    /// Free blocks for users.
    pub available: u64,
    /// Inodes that there are room for in all.
    pub files: u64,
    /// Inodes that can still be made.
    pub files_free: u64,
    /// Bytes of a block.
    pub block_bytes: u32,
    /// Longest name.
    pub name_bytes: u32,
}

impl Fs {
    /// Room in the class of `ino`: what a write into that directory or file could use.
    #[expect(clippy::unused_async, reason = "in a cluster the numbers come from peers")]
    pub async fn statfs(&self, ino: Ino) -> Result<StatFs> {
        let class = self.node(ino)?.locked().inode.class;
        let space = self.space.space(class);
        let inodes = self.meta.totals().inodes;
        let dirty = self.data.total_dirty_bytes();
        let blocks = |bytes: u64| bytes / u64::from(STATFS_BLOCK_BYTES);
        let available_bytes = space.available_bytes.saturating_sub(dirty);
        let files_free = available_bytes / BYTES_PER_INODE;
        Ok(StatFs {
            blocks: blocks(space.total_bytes),
            free: blocks(space.free_bytes.saturating_sub(dirty)),
            available: blocks(available_bytes),
            files: inodes.saturating_add(files_free),
            files_free,
            block_bytes: STATFS_BLOCK_BYTES,
            name_bytes: u32::try_from(NAME_BYTES_MAX).expect("a name is short"),
        })
    }
}
