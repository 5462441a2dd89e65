//! The words of ironfs as types: identifiers, indexes and times. Knows nothing of any other module.
#![warn(missing_docs)]

use std::fmt;

/// Defines a newtype over an integer with `get` and a plain `Display`.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The bare number, for encoding and arithmetic.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id!(
    /// Number of an inode; never reused within a volume.
    Ino(u64)
);
id!(
    /// Aligned 32 MiB span of a file, counted from its start.
    ChunkIndex(u32)
);
id!(
    /// 64 KiB segment of a chunk, 0..512.
    SegmentIndex(u16)
);
id!(
    /// Frame of a stripe, in payload order.
    SlotIndex(u32)
);
id!(
    /// Shard of a stripe: 0..k hold data, k..n parity.
    ShardIndex(u8)
);
id!(
    /// Row of a stripe.
    RowIndex(u32)
);
id!(
    /// Disk of a volume; numbers are given out once and never reused.
    DiskId(u32)
);
id!(
    /// One mount of a volume over a network, a random number: leases of disks belong to it. 0 is none.
    MountId(u64)
);
id!(
    /// Process that serves disks; 0 is the mounting process itself.
    NodeId(u32)
);
id!(
    /// Redundancy class of a volume.
    ClassId(u16)
);
id!(
    /// Version of the member list; rises only.
    Epoch(u64)
);
id!(
    /// Place in the ordered log: the number of the next command. The first command has position 0, and
    /// "applied to p" means that all commands before p are applied.
    LogPosition(u64)
);
id!(
    /// One mount of the volume; rises with each read-write mount and is part of stripe ids.
    Incarnation(u32)
);
id!(
    /// An open file or directory of one mount.
    HandleId(u64)
);
id!(
    /// Version of a segment's content: taken from its inode's rising counter at each change.
    Version(u64)
);

/// The root directory.
pub const ROOT_INO: Ino = Ino(1);

impl LogPosition {
    /// The position `count` commands later.
    pub const fn advance(self, count: u64) -> Self {
        Self(self.0 + count)
    }
}

impl Epoch {
    /// The epoch after this one.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Identity of one file system, random.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VolumeId(pub [u8; 16]);

impl fmt::Display for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for VolumeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VolumeId({self})")
    }
}

/// Identity of a stripe: the mount that wrote it and a counter of that mount. Never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StripeId(pub u64);

impl StripeId {
    /// Stripe `counter` of mount `incarnation`.
    pub const fn new(incarnation: Incarnation, counter: u32) -> Self {
        Self(((incarnation.0 as u64) << 32) | counter as u64)
    }

    /// The mount that wrote this stripe.
    pub const fn incarnation(self) -> Incarnation {
        Incarnation((self.0 >> 32) as u32)
    }

    /// The bare number, for encoding.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for StripeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for StripeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StripeId({self})")
    }
}

/// A segment of a file: the unit of the extent map and of compression.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SegmentAddress {
    /// File that the segment belongs to.
    pub ino: Ino,
    /// Chunk of the file.
    pub chunk: ChunkIndex,
    /// Segment of the chunk.
    pub segment: SegmentIndex,
}

/// A point in time as files carry it: seconds since 1970 (negative before) plus nanoseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, below 1 000 000 000.
    pub nanoseconds: u32,
}

/// What an inode is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum FileKind {
    /// Regular file.
    File = 1,
    /// Directory.
    Directory = 2,
    /// Symbolic link.
    Symlink = 3,
    /// FIFO.
    Fifo = 4,
    /// Unix socket.
    Socket = 5,
    /// Character device.
    CharDevice = 6,
    /// Block device.
    BlockDevice = 7,
}

impl FileKind {
    /// The kind with this stored number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::File),
            2 => Some(Self::Directory),
            3 => Some(Self::Symlink),
            4 => Some(Self::Fifo),
            5 => Some(Self::Socket),
            6 => Some(Self::CharDevice),
            7 => Some(Self::BlockDevice),
            _ => None,
        }
    }

    /// The number under which the kind is stored.
    pub const fn code(self) -> u8 {
        self as u8
    }
}
