//! Commands: every change of metadata as a value, and its stored form.

use crate::class::Class;
use crate::extent::FrameRef;
use crate::stripe::layout::StripeRecord;
use crate::types::{
    ChunkIndex, ClassId, DiskId, FileKind, Incarnation, Ino, SegmentAddress, SegmentIndex,
    ShardIndex, SlotIndex, StripeId, Timestamp, Version,
};
use bytes::Bytes;

mod codec;
#[cfg(test)]
mod tests;

pub use codec::APPLY_VERSION;
pub(crate) use codec::{put_scrub, put_time, take_scrub, take_time};

/// A node that `Create` makes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewNode {
    /// Number; at or above the volume's next inode number, which rises behind it.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits incl. suid, sgid, sticky (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Target of a symbolic link, else empty.
    pub target: Vec<u8>,
    /// Class; `None` takes the parent's.
    pub class: Option<ClassId>,
    /// Attributes to start with (inherited ACLs).
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl NewNode {
    /// A node of root's with the class of its parent, and nothing else about it.
    pub const fn new(ino: Ino, kind: FileKind, mode: u32) -> Self {
        Self {
            ino,
            kind,
            mode,
            uid: 0,
            gid: 0,
            rdev: 0,
            target: Vec::new(),
            class: None,
            xattrs: Vec::new(),
        }
    }
}

/// How `Rename` treats an existing target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RenameMode {
    /// Replaced.
    Replace,
    /// `Exists`.
    NoReplace,
    /// Source and target change places.
    Exchange,
}

/// A rename.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rename {
    /// Source directory.
    pub from: Ino,
    /// Source name.
    pub from_name: Vec<u8>,
    /// Target directory.
    pub to: Ino,
    /// Target name.
    pub to_name: Vec<u8>,
    /// What happens to an existing target.
    pub mode: RenameMode,
    /// A whiteout (character device 0:0) left at the source.
    pub whiteout: Option<NewNode>,
    /// Times to stamp.
    pub time: Timestamp,
}

/// Attributes to set; `None` leaves one as it is. The caller has applied all rules; `apply` stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttributes {
    /// Permission bits (07777).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Access time.
    pub atime: Option<Timestamp>,
    /// Modification time.
    pub mtime: Option<Timestamp>,
    /// Change time.
    pub ctime: Option<Timestamp>,
}

/// Whether `SetXattr` may create or replace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum XattrMode {
    /// Either.
    Set,
    /// `Exists` if it is there.
    Create,
    /// `NoData` if it is not there.
    Replace,
}

/// Size and times of a file that go with committed data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileUpdate {
    /// File.
    pub ino: Ino,
    /// New size.
    pub size: u64,
    /// New modification and change time, unless they stay.
    pub mtime: Option<Timestamp>,
    /// New change time.
    pub ctime: Option<Timestamp>,
}

/// One segment that a stripe now holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentCommit {
    /// Owner.
    pub address: SegmentAddress,
    /// Version of the segment that the new content was built from.
    pub expected: Version,
    /// Slot of the stripe.
    pub slot: SlotIndex,
    /// Frame in that slot.
    pub frame: FrameRef,
}

/// A segment that the cleaner moved: the same frame content in another stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentMove {
    /// One owner, as the slot table or the backrefs name it.
    pub address: SegmentAddress,
    /// Stripe it lay in; the owner is skipped unless it still points there.
    pub from_stripe: StripeId,
    /// Slot it lay in.
    pub from_slot: SlotIndex,
    /// New slot. Several moves may name one: shared runs.
    pub slot: SlotIndex,
    /// New frame.
    pub frame: FrameRef,
}

/// A piece of file data kept in the metadata.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HotExtent {
    /// Chunk of the file.
    pub chunk: ChunkIndex,
    /// Where it starts in the chunk. It does not cross a segment boundary.
    pub offset: u32,
    /// Content, 1..=65536 bytes.
    pub data: Bytes,
}

/// Where scrubbing is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScrubState {
    /// Passes that were completed.
    pub passes: u64,
    /// Whether one is under way.
    pub running: bool,
    /// Whether it is held.
    pub paused: bool,
    /// Whether it reads as fast as it may.
    pub hurried: bool,
    /// When the latest pass began.
    pub started: Timestamp,
    /// When the latest completed one ended.
    pub finished: Option<Timestamp>,
    /// Last stripe of this pass that was read.
    pub after: Option<StripeId>,
    /// Stripes read in the latest pass.
    pub stripes: u64,
    /// Bytes of shards read in it.
    pub bytes: u64,
    /// Shards found bad in it.
    pub damaged: u64,
}

/// One change of the metadata. Time, ids and randomness are inside; `apply` takes nothing from elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A read-write mount begins: incarnation rises, orphans of earlier mounts go to the reaping queue.
    /// `Stale` unless `incarnation` is above all earlier ones.
    StartMount { incarnation: Incarnation },
    /// Defines or redefines a class.
    SetClass { id: ClassId, class: Class },
    /// Makes a node and its name. Answers `Inode`.
    Create { parent: Ino, name: Vec<u8>, node: NewNode, time: Timestamp },
    /// One more name for an inode. Answers `Inode`.
    Link { ino: Ino, parent: Ino, name: Vec<u8>, time: Timestamp },
    /// Removes a name that is not a directory's. An inode without names becomes an orphan of the present
    /// mount if `keep`, else goes to the reaping queue. Answers `Removed`.
    Unlink { parent: Ino, name: Vec<u8>, keep: bool, time: Timestamp },
    /// Removes an empty directory. `keep` as in `Unlink`. Answers `Removed`.
    Rmdir { parent: Ino, name: Vec<u8>, keep: bool, time: Timestamp },
    /// Renames. A replaced inode without names is kept as an orphan. Answers `Removed` if one was replaced.
    Rename(Rename),
    /// Sets attributes. Answers `Inode`.
    SetAttributes { ino: Ino, set: SetAttributes },
    /// Sets access times only, of many inodes; unknown inodes are passed over.
    SetAccessTimes { times: Vec<(Ino, Timestamp)> },
    /// Sets the size. Cutting drops what lies behind it: whole segments at once or, beyond
    /// `CHUNKS_PER_COMMAND_MAX` chunks, invisibly at once and step by step through the reaping queue. The rest of
    /// the last segment is zeroed by dropping hot bytes and by shortening what the extent shows.
    /// `Again` while an earlier large cut of this file is not reaped. Answers `Inode`.
    Truncate { ino: Ino, size: u64, set: SetAttributes },
    /// Drops whole segments `first..first + count` of the file (global segment numbers), at most
    /// `CHUNKS_PER_COMMAND_MAX` chunks' worth. Size stays. Answers `Inode`.
    Punch { ino: Ino, first: u64, count: u64, set: SetAttributes },
    /// A new stripe holds segments. Skips (and counts dead) each whose version has moved on. Hot bytes of a
    /// committed segment are dropped. Makes file content inline no more. Answers `Committed`.
    CommitExtents { stripe: StripeRecord, segments: Vec<SegmentCommit>, files: Vec<FileUpdate> },
    /// A new stripe holds moved segments. Hot bytes above them stay. Answers `Committed`.
    MoveExtents { stripe: StripeRecord, segments: Vec<SegmentMove> },
    /// Small data goes into the metadata itself. Overlays what is there. Answers `Inode`.
    CommitHot { file: FileUpdate, extents: Vec<HotExtent> },
    /// The whole content of a small file goes into its inode record; extents and hot bytes are dropped.
    /// Answers `Inode`.
    CommitInline { file: FileUpdate, data: Bytes },
    /// Lets `count` whole segments of `to` share the frames of `from` (both at most one command's worth).
    /// Source holes become holes. `Again` if a source segment has hot or inline content. Answers `Inode` of `to`.
    CloneExtents {
        from: Ino,
        from_first: u64,
        to: Ino,
        to_first: u64,
        count: u64,
        file: FileUpdate,
    },
    /// Sets the bytes reserved for a file beyond what it has (fallocate). Answers `Inode`.
    Reserve { ino: Ino, bytes: u64, file: FileUpdate },
    /// Sets an attribute, and with it times and mode (ACLs). Answers `Inode`.
    SetXattr { ino: Ino, name: Vec<u8>, value: Vec<u8>, mode: XattrMode, set: SetAttributes },
    /// Removes an attribute; `NoData` if it is not there. Answers `Inode`.
    RemoveXattr { ino: Ino, name: Vec<u8>, set: SetAttributes },
    /// Sets the class of an inode; what it holds already stays where it is. Answers `Inode`.
    SetInodeClass { ino: Ino, class: ClassId, time: Timestamp },
    /// Orphans that nobody holds any more go to the reaping queue.
    ReleaseOrphans { inos: Vec<Ino> },
    /// Works through the front of the reaping queue, at most `chunks` chunks. Answers `Reaped`.
    Reap { chunks: u32 },
    /// The shards of these dead stripes are gone from every disk.
    ForgetStripes { stripes: Vec<StripeId> },
    /// Shard `index` is now on `disk`, verified and durable, with this root. `Stale` unless the record names
    /// `from` for it at present.
    PlaceShard { stripe: StripeId, index: ShardIndex, from: DiskId, disk: DiskId, root: [u8; 32] },
    /// Shards that were found absent or damaged: their stripes enter the repair queue, unless they are in it. Stripes
    /// that are not live are passed over.
    NoteDamage { shards: Vec<(StripeId, ShardIndex)>, time: Timestamp },
    /// How a repair of a stripe went. The shards of `good` (a bit each) are good after all. Without `retry` it is done,
    /// and the stripe leaves the queue unless other shards are noted; else one more attempt has failed, and the next is
    /// not due before `retry`. Stripes that are not live are passed over.
    NoteRepair { stripe: StripeId, good: u64, retry: Option<Timestamp>, time: Timestamp },
    /// Where scrubbing is.
    SetScrub { state: ScrubState },
    /// The format command: root directory and first class. Only on an empty state.
    Genesis { class: Class, uid: u32, gid: u32, time: Timestamp },
}

impl Command {
    /// Whether a user asks for something new that the metadata has to keep. Without room for it such a command is refused,
    /// and all others are not: they take something away, or end what was begun.
    pub const fn adds(&self) -> bool {
        matches!(
            self,
            Self::Create { .. }
                | Self::Link { .. }
                | Self::SetXattr { mode: XattrMode::Set | XattrMode::Create, .. }
                | Self::SetClass { .. }
                | Self::CloneExtents { .. }
                | Self::Reserve { .. }
        )
    }

    /// Whether it gives room on the disks, now or by what it leads to.
    pub const fn frees(&self) -> bool {
        matches!(
            self,
            Self::Unlink { .. }
                | Self::Rmdir { .. }
                | Self::Truncate { .. }
                | Self::Punch { .. }
                | Self::RemoveXattr { .. }
                | Self::ReleaseOrphans { .. }
                | Self::Reap { .. }
                | Self::ForgetStripes { .. }
        )
    }
}

/// What `apply` answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Done, nothing to tell.
    Done,
    /// The inode as it is now.
    Inode(Box<Inode>),
    /// A name was removed; the inode it led to, as it is now (links 0: orphan or in the reaping queue).
    Removed(Option<Box<Inode>>),
    /// Segments that were skipped because their version had moved on, and the files as they are now.
    Committed {
        /// Indexes into the command's segments.
        skipped: Vec<u32>,
        /// Version that every segment that was not skipped has now (per file).
        inodes: Vec<Inode>,
    },
    /// Chunks released, and whether the queue has more.
    Reaped {
        /// Chunks released.
        chunks: u32,
        /// Whether the queue has more.
        more: bool,
    },
}

/// An inode as stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inode {
    /// Number.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits (07777).
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names of it; a directory: 2 + sub-directories.
    pub links: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Size in bytes; a symbolic link: length of its target; a directory: number of entries.
    pub size: u64,
    /// Access time.
    pub atime: Timestamp,
    /// Modification time.
    pub mtime: Timestamp,
    /// Change time.
    pub ctime: Timestamp,
    /// Class for new data (directories: for new children too).
    pub class: ClassId,
    /// Parent: of a directory, or of one name of anything else. Meaningless without links.
    pub parent: Ino,
    /// Rises with each change of content; the next version to give.
    pub version: Version,
    /// Version of every segment without extent; also the latest cut (see `cut`).
    pub floor: Version,
    /// While a large cut is being reaped: chunks from here on whose version is below `floor` are not there.
    pub cut: Option<ChunkIndex>,
    /// Bytes of content in stripes (raw, before redundancy), in hot extents and inline.
    pub allocated_bytes: u64,
    /// Bytes that fallocate has reserved on top.
    pub reserved_bytes: u64,
    /// Whether any xattr exists: saves a look-up.
    pub has_xattrs: bool,
    /// Next directory cookie to give (directories).
    pub next_cookie: u64,
    /// Target of a symbolic link, or the inline content of a small file.
    pub inline: Bytes,
}

/// Global segment number of a file and its inverse.
pub fn segment_address(ino: Ino, number: u64) -> Option<SegmentAddress> {
    let per_chunk = u64::from(crate::limits::SEGMENTS_PER_CHUNK);
    let chunk = u32::try_from(number / per_chunk).ok()?;
    let segment = u16::try_from(number % per_chunk).ok()?;
    Some(SegmentAddress { ino, chunk: ChunkIndex(chunk), segment: SegmentIndex(segment) })
}
