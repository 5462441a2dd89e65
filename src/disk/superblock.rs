//! Superblock of a disk: two alternating slots that name the volume, the disk, the epoch and the members.

use crate::types::{DiskId, Epoch, LogPosition, VolumeId};

/// State of a member as the volume has recorded it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum MemberState {
    /// In use.
    Healthy = 1,
    /// Known to be away: its log and state copies are stale; its shards are not.
    Down = 2,
    /// Given up: it counts no longer, and repair has replaced or will replace what it held.
    Out = 3,
}

/// A disk of the volume.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// The disk.
    pub disk: DiskId,
    /// Recorded state.
    pub state: MemberState,
    /// Size of its device when it was added; the weight on the ring.
    pub capacity_bytes: u64,
    /// Device number when it was added: members that share one can be lost together.
    pub device: u64,
    /// Where it was last seen, for messages and for `scan`.
    pub path: String,
}

/// A disk that keeps the log and a copy of the state, with the position from which its log is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogMember {
    /// The disk.
    pub disk: DiskId,
    /// The state copy of this disk is durable at or after this position, and its log is complete from there.
    pub start: LogPosition,
}

/// The member list of one epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberList {
    /// Version of the list.
    pub epoch: Epoch,
    /// All disks, by id.
    pub disks: Vec<Member>,
    /// Disks with the log.
    pub log: Vec<LogMember>,
    /// Log disks of the list before, still read until every member of `log` is complete.
    pub previous_log: Vec<LogMember>,
    /// Largest m of any class in use: how many members may be absent at a mount.
    pub tolerance: u8,
}

/// What a disk says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Volume that the disk belongs to.
    pub volume: VolumeId,
    /// Name of the volume, for messages and `scan`.
    pub name: String,
    /// This disk.
    pub disk: DiskId,
    /// Rises with each write of the superblock; the larger valid slot counts.
    pub sequence: u64,
    /// Members as this disk knows them.
    pub members: MemberList,
}
