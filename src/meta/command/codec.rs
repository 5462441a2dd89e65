//! Stored form of commands, version 1: a tag byte, then the fields in order, little-endian; lists and byte strings
//! behind a u32 count; optional values behind a flag byte. The tags are fixed for ever.
#![deny(clippy::indexing_slicing)]

use super::{
    Command, FileUpdate, HotExtent, NewNode, Rename, RenameMode, ScrubState, SegmentCommit,
    SegmentMove, SetAttributes, XattrMode,
};
use crate::class::Class;
use crate::extent::FrameRef;
use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::limits::{
    COMMAND_BYTES_MAX, INLINE_BYTES_MAX, NAME_BYTES_MAX, SEGMENT_BYTES, SEGMENTS_PER_CHUNK,
    SYMLINK_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX,
};
use crate::stripe::layout::StripeRecord;
use crate::types::{
    ChunkIndex, ClassId, DiskId, FileKind, Incarnation, Ino, SegmentAddress, SegmentIndex,
    ShardIndex, SlotIndex, StripeId, Timestamp, Version,
};

/// Version of `Command`'s stored form and of what `apply` makes of it: a log is replayed under its own version or
/// refused.
pub const APPLY_VERSION: u16 = 1;

impl Command {
    /// Appends the stored form.
    pub fn encode(&self, w: &mut Writer) {
        match self {
            Self::StartMount { .. }
            | Self::SetClass { .. }
            | Self::Genesis { .. }
            | Self::Reap { .. }
            | Self::ForgetStripes { .. }
            | Self::PlaceShard { .. }
            | Self::NoteDamage { .. }
            | Self::NoteRepair { .. }
            | Self::SetScrub { .. }
            | Self::ReleaseOrphans { .. } => self.encode_volume(w),
            Self::Create { .. }
            | Self::Link { .. }
            | Self::Unlink { .. }
            | Self::Rmdir { .. }
            | Self::Rename(_) => self.encode_names(w),
            Self::SetAttributes { .. }
            | Self::SetAccessTimes { .. }
            | Self::SetXattr { .. }
            | Self::RemoveXattr { .. }
            | Self::SetInodeClass { .. } => self.encode_attributes(w),
            Self::Truncate { .. }
            | Self::Punch { .. }
            | Self::CommitExtents { .. }
            | Self::MoveExtents { .. }
            | Self::CommitHot { .. }
            | Self::CommitInline { .. }
            | Self::CloneExtents { .. }
            | Self::Reserve { .. } => self.encode_data(w),
        }
    }

    fn encode_volume(&self, w: &mut Writer) {
        match self {
            Self::StartMount { incarnation } => {
                w.u8(1);
                w.u32(incarnation.0);
            }
            Self::SetClass { id, class } => {
                w.u8(2);
                w.u16(id.0);
                class.encode(w);
            }
            Self::Genesis { class, uid, gid, time } => {
                w.u8(3);
                class.encode(w);
                w.u32(*uid);
                w.u32(*gid);
                put_time(w, *time);
            }
            Self::Reap { chunks } => {
                w.u8(4);
                w.u32(*chunks);
            }
            Self::ForgetStripes { stripes } => {
                w.u8(5);
                put_list(w, stripes, |w, stripe| w.u64(stripe.get()));
            }
            Self::PlaceShard { stripe, index, from, disk, root } => {
                w.u8(6);
                w.u64(stripe.get());
                w.u8(index.0);
                w.u32(from.0);
                w.u32(disk.0);
                w.raw(root);
            }
            Self::NoteDamage { shards, time } => {
                w.u8(7);
                put_list(w, shards, |w, (stripe, index)| {
                    w.u64(stripe.get());
                    w.u8(index.0);
                });
                put_time(w, *time);
            }
            Self::NoteRepair { stripe, good, retry, time } => {
                w.u8(9);
                w.u64(stripe.get());
                w.u64(*good);
                put_option(w, *retry, put_time);
                put_time(w, *time);
            }
            Self::SetScrub { state } => {
                w.u8(10);
                put_scrub(w, state);
            }
            Self::ReleaseOrphans { inos } => {
                w.u8(8);
                put_list(w, inos, |w, ino| w.u64(ino.0));
            }
            _ => unreachable_group(),
        }
    }

    fn encode_names(&self, w: &mut Writer) {
        match self {
            Self::Create { parent, name, node, time } => {
                w.u8(20);
                w.u64(parent.0);
                w.bytes(name);
                put_node(w, node);
                put_time(w, *time);
            }
            Self::Link { ino, parent, name, time } => {
                w.u8(21);
                w.u64(ino.0);
                w.u64(parent.0);
                w.bytes(name);
                put_time(w, *time);
            }
            Self::Unlink { parent, name, keep, time }
            | Self::Rmdir { parent, name, keep, time } => {
                w.u8(if matches!(self, Self::Unlink { .. }) { 22 } else { 23 });
                w.u64(parent.0);
                w.bytes(name);
                w.flag(*keep);
                put_time(w, *time);
            }
            Self::Rename(rename) => {
                w.u8(24);
                w.u64(rename.from.0);
                w.bytes(&rename.from_name);
                w.u64(rename.to.0);
                w.bytes(&rename.to_name);
                w.u8(match rename.mode {
                    RenameMode::Replace => 0,
                    RenameMode::NoReplace => 1,
                    RenameMode::Exchange => 2,
                });
                put_option(w, rename.whiteout.as_ref(), put_node);
                put_time(w, rename.time);
            }
            _ => unreachable_group(),
        }
    }

    fn encode_attributes(&self, w: &mut Writer) {
        match self {
            Self::SetAttributes { ino, set } => {
                w.u8(40);
                w.u64(ino.0);
                put_set(w, set);
            }
            Self::SetAccessTimes { times } => {
                w.u8(41);
                put_list(w, times, |w, (ino, time)| {
                    w.u64(ino.0);
                    put_time(w, *time);
                });
            }
            Self::SetXattr { ino, name, value, mode, set } => {
                w.u8(42);
                w.u64(ino.0);
                w.bytes(name);
                w.bytes(value);
                w.u8(match mode {
                    XattrMode::Set => 0,
                    XattrMode::Create => 1,
                    XattrMode::Replace => 2,
                });
                put_set(w, set);
            }
            Self::RemoveXattr { ino, name, set } => {
                w.u8(43);
                w.u64(ino.0);
                w.bytes(name);
                put_set(w, set);
            }
            Self::SetInodeClass { ino, class, time } => {
                w.u8(44);
                w.u64(ino.0);
                w.u16(class.0);
                put_time(w, *time);
            }
            _ => unreachable_group(),
        }
    }

    fn encode_data(&self, w: &mut Writer) {
        match self {
            Self::Truncate { ino, size, set } => {
                w.u8(60);
                w.u64(ino.0);
                w.u64(*size);
                put_set(w, set);
            }
            Self::Punch { ino, first, count, set } => {
                w.u8(61);
                w.u64(ino.0);
                w.u64(*first);
                w.u64(*count);
                put_set(w, set);
            }
            Self::CommitExtents { stripe, segments, files } => {
                w.u8(62);
                stripe.encode(w);
                put_list(w, segments, put_commit);
                put_list(w, files, put_file);
            }
            Self::MoveExtents { stripe, segments } => {
                w.u8(63);
                stripe.encode(w);
                put_list(w, segments, put_move);
            }
            Self::CommitHot { file, extents } => {
                w.u8(64);
                put_file(w, file);
                put_list(w, extents, |w, hot| {
                    w.u32(hot.chunk.0);
                    w.u32(hot.offset);
                    w.bytes(&hot.data);
                });
            }
            Self::CommitInline { file, data } => {
                w.u8(65);
                put_file(w, file);
                w.bytes(data);
            }
            Self::CloneExtents { from, from_first, to, to_first, count, file } => {
                w.u8(66);
                w.u64(from.0);
                w.u64(*from_first);
                w.u64(to.0);
                w.u64(*to_first);
                w.u64(*count);
                put_file(w, file);
            }
            Self::Reserve { ino, bytes, file } => {
                w.u8(67);
                w.u64(ino.0);
                w.u64(*bytes);
                put_file(w, file);
            }
            _ => unreachable_group(),
        }
    }

    /// Reads the stored form.
    pub fn decode(r: &mut Reader<'_>) -> Decoded<Self> {
        if r.remaining() > COMMAND_BYTES_MAX {
            return Err(FormatError::Invalid("length of a command"));
        }
        match r.u8()? {
            tag @ 1..20 => Self::decode_volume(tag, r),
            tag @ 20..40 => Self::decode_names(tag, r),
            tag @ 40..60 => Self::decode_attributes(tag, r),
            tag => Self::decode_data(tag, r),
        }
    }

    fn decode_volume(tag: u8, r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(match tag {
            1 => Self::StartMount { incarnation: Incarnation(r.u32()?) },
            2 => Self::SetClass { id: ClassId(r.u16()?), class: Class::decode(r)? },
            3 => Self::Genesis {
                class: Class::decode(r)?,
                uid: r.u32()?,
                gid: r.u32()?,
                time: take_time(r)?,
            },
            4 => Self::Reap { chunks: r.u32()? },
            5 => Self::ForgetStripes { stripes: take_list(r, 8, |r| r.u64().map(StripeId))? },
            6 => Self::PlaceShard {
                stripe: StripeId(r.u64()?),
                index: ShardIndex(r.u8()?),
                from: DiskId(r.u32()?),
                disk: DiskId(r.u32()?),
                root: r.array()?,
            },
            7 => Self::NoteDamage {
                shards: take_list(r, 9, |r| Ok((StripeId(r.u64()?), ShardIndex(r.u8()?))))?,
                time: take_time(r)?,
            },
            8 => Self::ReleaseOrphans { inos: take_list(r, 8, |r| r.u64().map(Ino))? },
            9 => Self::NoteRepair {
                stripe: StripeId(r.u64()?),
                good: r.u64()?,
                retry: take_option(r, take_time)?,
                time: take_time(r)?,
            },
            10 => Self::SetScrub { state: take_scrub(r)? },
            _ => return Err(FormatError::Invalid("tag of a command")),
        })
    }

    fn decode_names(tag: u8, r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(match tag {
            20 => Self::Create {
                parent: Ino(r.u64()?),
                name: take_name(r)?,
                node: take_node(r)?,
                time: take_time(r)?,
            },
            21 => Self::Link {
                ino: Ino(r.u64()?),
                parent: Ino(r.u64()?),
                name: take_name(r)?,
                time: take_time(r)?,
            },
            22 | 23 => {
                let (parent, name) = (Ino(r.u64()?), take_name(r)?);
                let (keep, time) = (r.flag("keep")?, take_time(r)?);
                if tag == 22 {
                    Self::Unlink { parent, name, keep, time }
                } else {
                    Self::Rmdir { parent, name, keep, time }
                }
            }
            24 => Self::Rename(Rename {
                from: Ino(r.u64()?),
                from_name: take_name(r)?,
                to: Ino(r.u64()?),
                to_name: take_name(r)?,
                mode: match r.u8()? {
                    0 => RenameMode::Replace,
                    1 => RenameMode::NoReplace,
                    2 => RenameMode::Exchange,
                    _ => return Err(FormatError::Invalid("mode of a rename")),
                },
                whiteout: take_option(r, take_node)?,
                time: take_time(r)?,
            }),
            _ => return Err(FormatError::Invalid("tag of a command")),
        })
    }

    fn decode_attributes(tag: u8, r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(match tag {
            40 => Self::SetAttributes { ino: Ino(r.u64()?), set: take_set(r)? },
            41 => Self::SetAccessTimes {
                times: take_list(r, 20, |r| Ok((Ino(r.u64()?), take_time(r)?)))?,
            },
            42 => Self::SetXattr {
                ino: Ino(r.u64()?),
                name: r.bytes(XATTR_NAME_BYTES_MAX, "name of an xattr")?.to_vec(),
                value: r.bytes(XATTR_VALUE_BYTES_MAX, "value of an xattr")?.to_vec(),
                mode: match r.u8()? {
                    0 => XattrMode::Set,
                    1 => XattrMode::Create,
                    2 => XattrMode::Replace,
                    _ => return Err(FormatError::Invalid("mode of an xattr")),
                },
                set: take_set(r)?,
            },
            43 => Self::RemoveXattr {
                ino: Ino(r.u64()?),
                name: r.bytes(XATTR_NAME_BYTES_MAX, "name of an xattr")?.to_vec(),
                set: take_set(r)?,
            },
            44 => Self::SetInodeClass {
                ino: Ino(r.u64()?),
                class: ClassId(r.u16()?),
                time: take_time(r)?,
            },
            _ => return Err(FormatError::Invalid("tag of a command")),
        })
    }

    fn decode_data(tag: u8, r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(match tag {
            60 => Self::Truncate { ino: Ino(r.u64()?), size: r.u64()?, set: take_set(r)? },
            61 => Self::Punch {
                ino: Ino(r.u64()?),
                first: r.u64()?,
                count: r.u64()?,
                set: take_set(r)?,
            },
            62 => Self::CommitExtents {
                stripe: StripeRecord::decode(r)?,
                segments: take_list(r, 46, take_commit)?,
                files: take_list(r, 18, take_file)?,
            },
            63 => Self::MoveExtents {
                stripe: StripeRecord::decode(r)?,
                segments: take_list(r, 50, take_move)?,
            },
            64 => Self::CommitHot { file: take_file(r)?, extents: take_list(r, 12, take_hot)? },
            65 => Self::CommitInline {
                file: take_file(r)?,
                data: r.owned(INLINE_BYTES_MAX as usize, "inline content")?,
            },
            66 => Self::CloneExtents {
                from: Ino(r.u64()?),
                from_first: r.u64()?,
                to: Ino(r.u64()?),
                to_first: r.u64()?,
                count: r.u64()?,
                file: take_file(r)?,
            },
            67 => Self::Reserve { ino: Ino(r.u64()?), bytes: r.u64()?, file: take_file(r)? },
            _ => return Err(FormatError::Invalid("tag of a command")),
        })
    }
}

/// The four groups of `encode` list every command, and each handles exactly its own.
const fn unreachable_group() {
    debug_assert!(false, "a command is in another group than encode says");
}

pub(crate) fn put_time(w: &mut Writer, time: Timestamp) {
    w.i64(time.seconds);
    w.u32(time.nanoseconds);
}

pub(crate) fn take_time(r: &mut Reader<'_>) -> Decoded<Timestamp> {
    let time = Timestamp { seconds: r.i64()?, nanoseconds: r.u32()? };
    if time.nanoseconds >= 1_000_000_000 {
        return Err(FormatError::Invalid("nanoseconds"));
    }
    Ok(time)
}

/// Appends where scrubbing is; also the row of the state.
pub(crate) fn put_scrub(w: &mut Writer, state: &ScrubState) {
    w.u64(state.passes);
    w.flag(state.running);
    w.flag(state.paused);
    w.flag(state.hurried);
    put_time(w, state.started);
    put_option(w, state.finished, put_time);
    put_option(w, state.after, |w, stripe| w.u64(stripe.get()));
    w.u64(state.stripes);
    w.u64(state.bytes);
    w.u64(state.damaged);
}

pub(crate) fn take_scrub(r: &mut Reader<'_>) -> Decoded<ScrubState> {
    Ok(ScrubState {
        passes: r.u64()?,
        running: r.flag("whether scrub runs")?,
        paused: r.flag("whether scrub is held")?,
        hurried: r.flag("whether scrub hurries")?,
        started: take_time(r)?,
        finished: take_option(r, take_time)?,
        after: take_option(r, |r| r.u64().map(StripeId))?,
        stripes: r.u64()?,
        bytes: r.u64()?,
        damaged: r.u64()?,
    })
}

fn put_option<T>(w: &mut Writer, value: Option<T>, put: impl FnOnce(&mut Writer, T)) {
    w.flag(value.is_some());
    if let Some(value) = value {
        put(w, value);
    }
}

fn take_option<T>(
    r: &mut Reader<'_>,
    take: impl FnOnce(&mut Reader<'_>) -> Decoded<T>,
) -> Decoded<Option<T>> {
    if r.flag("presence of a value")? { take(r).map(Some) } else { Ok(None) }
}

fn put_list<T>(w: &mut Writer, list: &[T], mut put: impl FnMut(&mut Writer, &T)) {
    w.count(list.len());
    list.iter().for_each(|item| put(w, item));
}

/// A list whose items take at least `each_bytes`.
fn take_list<T>(
    r: &mut Reader<'_>,
    each_bytes: usize,
    mut take: impl FnMut(&mut Reader<'_>) -> Decoded<T>,
) -> Decoded<Vec<T>> {
    let count = r.count(each_bytes, "length of a list")?;
    (0..count).map(|_item| take(r)).collect()
}

fn take_name(r: &mut Reader<'_>) -> Decoded<Vec<u8>> {
    Ok(r.bytes(NAME_BYTES_MAX, "name")?.to_vec())
}

fn put_set(w: &mut Writer, set: &SetAttributes) {
    for value in [set.mode, set.uid, set.gid] {
        put_option(w, value, Writer::u32);
    }
    for time in [set.atime, set.mtime, set.ctime] {
        put_option(w, time, put_time);
    }
}

fn take_set(r: &mut Reader<'_>) -> Decoded<SetAttributes> {
    Ok(SetAttributes {
        mode: take_option(r, |r| r.u32())?,
        uid: take_option(r, |r| r.u32())?,
        gid: take_option(r, |r| r.u32())?,
        atime: take_option(r, take_time)?,
        mtime: take_option(r, take_time)?,
        ctime: take_option(r, take_time)?,
    })
}

fn put_node(w: &mut Writer, node: &NewNode) {
    w.u64(node.ino.0);
    w.u8(node.kind.code());
    for value in [node.mode, node.uid, node.gid, node.rdev] {
        w.u32(value);
    }
    w.bytes(&node.target);
    put_option(w, node.class, |w, class| w.u16(class.0));
    put_list(w, &node.xattrs, |w, (name, value)| {
        w.bytes(name);
        w.bytes(value);
    });
}

fn take_node(r: &mut Reader<'_>) -> Decoded<NewNode> {
    Ok(NewNode {
        ino: Ino(r.u64()?),
        kind: FileKind::from_code(r.u8()?).ok_or(FormatError::Invalid("kind of an inode"))?,
        mode: r.u32()?,
        uid: r.u32()?,
        gid: r.u32()?,
        rdev: r.u32()?,
        target: r.bytes(SYMLINK_BYTES_MAX, "target of a symbolic link")?.to_vec(),
        class: take_option(r, |r| r.u16().map(ClassId))?,
        xattrs: take_list(r, 8, |r| {
            let name = r.bytes(XATTR_NAME_BYTES_MAX, "name of an xattr")?.to_vec();
            Ok((name, r.bytes(XATTR_VALUE_BYTES_MAX, "value of an xattr")?.to_vec()))
        })?,
    })
}

fn put_file(w: &mut Writer, file: &FileUpdate) {
    w.u64(file.ino.0);
    w.u64(file.size);
    put_option(w, file.mtime, put_time);
    put_option(w, file.ctime, put_time);
}

fn take_file(r: &mut Reader<'_>) -> Decoded<FileUpdate> {
    Ok(FileUpdate {
        ino: Ino(r.u64()?),
        size: r.u64()?,
        mtime: take_option(r, take_time)?,
        ctime: take_option(r, take_time)?,
    })
}

fn put_address(w: &mut Writer, address: &SegmentAddress) {
    w.u64(address.ino.0);
    w.u32(address.chunk.0);
    w.u16(address.segment.0);
}

fn take_address(r: &mut Reader<'_>) -> Decoded<SegmentAddress> {
    let address = SegmentAddress {
        ino: Ino(r.u64()?),
        chunk: ChunkIndex(r.u32()?),
        segment: SegmentIndex(r.u16()?),
    };
    if address.segment.0 >= SEGMENTS_PER_CHUNK {
        return Err(FormatError::Invalid("segment"));
    }
    Ok(address)
}

fn put_commit(w: &mut Writer, commit: &SegmentCommit) {
    put_address(w, &commit.address);
    w.u64(commit.expected.0);
    w.u32(commit.slot.0);
    commit.frame.encode(w);
}

fn take_commit(r: &mut Reader<'_>) -> Decoded<SegmentCommit> {
    Ok(SegmentCommit {
        address: take_address(r)?,
        expected: Version(r.u64()?),
        slot: SlotIndex(r.u32()?),
        frame: FrameRef::decode(r)?,
    })
}

fn put_move(w: &mut Writer, moved: &SegmentMove) {
    put_address(w, &moved.address);
    w.u64(moved.from_stripe.get());
    w.u32(moved.from_slot.0);
    w.u32(moved.slot.0);
    moved.frame.encode(w);
}

fn take_move(r: &mut Reader<'_>) -> Decoded<SegmentMove> {
    Ok(SegmentMove {
        address: take_address(r)?,
        from_stripe: StripeId(r.u64()?),
        from_slot: SlotIndex(r.u32()?),
        slot: SlotIndex(r.u32()?),
        frame: FrameRef::decode(r)?,
    })
}

fn take_hot(r: &mut Reader<'_>) -> Decoded<HotExtent> {
    let hot = HotExtent {
        chunk: ChunkIndex(r.u32()?),
        offset: r.u32()?,
        data: r.owned(SEGMENT_BYTES as usize, "hot bytes")?,
    };
    let length = u32::try_from(hot.data.len()).unwrap_or(u32::MAX);
    let room = SEGMENT_BYTES - hot.offset % SEGMENT_BYTES;
    if length == 0 || length > room || u64::from(hot.offset) >= crate::limits::CHUNK_BYTES {
        return Err(FormatError::Invalid("place of hot bytes"));
    }
    Ok(hot)
}
