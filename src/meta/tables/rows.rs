//! Stored form of the rows of the state: a version byte, then the fields in the order in which they are written below,
//! little-endian. The version is 1, of an inode 2; stripe records and chunk maps have forms of their own.
//!
//! # Inode, version 2
//!
//! | offset | width | name | meaning |
//! |---|---|---|---|
//! | 0 | 1 | version | 2 |
//! | 1 | 2 | flags | which of the fields behind `atime` are there |
//! | 3 | 8 | ino | number |
//! | 11 | 1 | kind | `FileKind` |
//! | 12 | 2 | mode | permission bits |
//! | 14 | 2 | class | class id |
//! | 16 | 8 | parent | parent inode |
//! | 24 | 8 | version | next version of content |
//! | 32 | 8 | size | bytes |
//! | 40 | 12 | atime | seconds `i64`, nanoseconds `u32` |
//!
//! Then, each only if its flag is set, in this order:
//!
//! | flag | fields | otherwise |
//! |---|---|---|
//! | 1 | uid `u32`, gid `u32` | both 0 |
//! | 2 | links `u32` | 1 |
//! | 4 | rdev `u32` | 0 |
//! | 8 | mtime | as atime |
//! | 16 | ctime | as mtime |
//! | 32 | floor `u64` | 0 |
//! | 64 | cut `u32` | none is pending |
//! | 128 | allocated bytes `u64` | as size |
//! | 256 | reserved bytes `u64` | 0 |
//! | 512 | has xattrs (no bytes) | it has none |
//! | 1024 | next cookie `u64` | 1 |
//!
//! The inline content is the rest of the row. Version 1, which is still read, has all fields at full width.
#![deny(clippy::indexing_slicing)]

use crate::error::{Error, Result};
use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::limits::{SEGMENT_BYTES, SLOTS_PER_STRIPE_MAX, SYMLINK_BYTES_MAX};
use crate::meta::command::{Inode, ScrubState, put_scrub, put_time, take_scrub, take_time};
use crate::meta::tables::Totals;
use crate::types::{ChunkIndex, ClassId, FileKind, Incarnation, Ino, Timestamp, Version};
use bytes::Bytes;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;

const VERSION: u8 = 1;

fn open<'a>(row: &'a [u8], what: &'static str) -> Decoded<Reader<'a>> {
    let mut reader = Reader::new(row);
    match reader.u8()? {
        VERSION => Ok(reader),
        0 => Err(FormatError::Invalid(what)),
        found => Err(FormatError::Newer { known: u16::from(VERSION), found: u16::from(found) }),
    }
}

/// What a name leads to, and its place in the listing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dentry {
    /// Inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Place in the listing.
    pub cookie: u64,
}

/// Version of an inode row.
const INODE_VERSION: u8 = 2;
const OWNER: u16 = 1;
const LINKS: u16 = 2;
const RDEV: u16 = 4;
const MTIME: u16 = 8;
const CTIME: u16 = 16;
const FLOOR: u16 = 32;
const CUT: u16 = 64;
const ALLOCATED: u16 = 128;
const RESERVED: u16 = 256;
const XATTRS: u16 = 512;
const COOKIE: u16 = 1024;

/// Appends an inode.
pub fn encode_inode(inode: &Inode, w: &mut Writer) {
    let fields = [
        (OWNER, (inode.uid, inode.gid) != (0, 0)),
        (LINKS, inode.links != 1),
        (RDEV, inode.rdev != 0),
        (MTIME, inode.mtime != inode.atime),
        (CTIME, inode.ctime != inode.mtime),
        (FLOOR, inode.floor != Version(0)),
        (CUT, inode.cut.is_some()),
        (ALLOCATED, inode.allocated_bytes != inode.size),
        (RESERVED, inode.reserved_bytes != 0),
        (XATTRS, inode.has_xattrs),
        (COOKIE, inode.next_cookie != 1),
    ];
    let present = fields.iter().filter(|(_flag, present)| *present);
    let flags = present.fold(0, |flags, (flag, _present)| flags | flag);
    w.u8(INODE_VERSION);
    w.u16(flags);
    w.u64(inode.ino.0);
    w.u8(inode.kind.code());
    w.u16(u16::try_from(inode.mode & 0o7777).unwrap_or_default());
    w.u16(inode.class.0);
    w.u64(inode.parent.0);
    w.u64(inode.version.0);
    w.u64(inode.size);
    put_time(w, inode.atime);
    let mut put = |flag: u16, write: &dyn Fn(&mut Writer)| {
        if flags & flag != 0 {
            write(w);
        }
    };
    put(OWNER, &|w| {
        w.u32(inode.uid);
        w.u32(inode.gid);
    });
    put(LINKS, &|w| w.u32(inode.links));
    put(RDEV, &|w| w.u32(inode.rdev));
    put(MTIME, &|w| put_time(w, inode.mtime));
    put(CTIME, &|w| put_time(w, inode.ctime));
    put(FLOOR, &|w| w.u64(inode.floor.0));
    put(CUT, &|w| w.u32(inode.cut.unwrap_or_default().0));
    put(ALLOCATED, &|w| w.u64(inode.allocated_bytes));
    put(RESERVED, &|w| w.u64(inode.reserved_bytes));
    put(COOKIE, &|w| w.u64(inode.next_cookie));
    w.raw(&inode.inline);
}

/// Reads an inode.
pub fn decode_inode(row: &[u8]) -> Result<Inode> {
    inode(row).map_err(|error| Error::from(error).while_doing("read an inode row"))
}

fn inode(row: &[u8]) -> Decoded<Inode> {
    let mut r = Reader::new(row);
    match r.u8()? {
        INODE_VERSION => {}
        VERSION => return old_inode(r),
        0 => return Err(FormatError::Invalid("version of an inode")),
        found => {
            return Err(FormatError::Newer {
                known: u16::from(INODE_VERSION),
                found: u16::from(found),
            });
        }
    }
    let flags = r.u16()?;
    if flags >= COOKIE << 1 {
        return Err(FormatError::Invalid("flags of an inode"));
    }
    let has = |flag: u16| flags & flag != 0;
    let ino = Ino(r.u64()?);
    let kind = FileKind::from_code(r.u8()?).ok_or(FormatError::Invalid("kind of an inode"))?;
    let mut inode = new_inode(ino, kind);
    (inode.mode, inode.class) = (mode(u32::from(r.u16()?))?, ClassId(r.u16()?));
    (inode.parent, inode.version, inode.size) = (Ino(r.u64()?), Version(r.u64()?), r.u64()?);
    inode.atime = take_time(&mut r)?;
    if has(OWNER) {
        (inode.uid, inode.gid) = (r.u32()?, r.u32()?);
    }
    inode.links = if has(LINKS) { r.u32()? } else { 1 };
    inode.rdev = if has(RDEV) { r.u32()? } else { 0 };
    inode.mtime = if has(MTIME) { take_time(&mut r)? } else { inode.atime };
    inode.ctime = if has(CTIME) { take_time(&mut r)? } else { inode.mtime };
    inode.floor = Version(if has(FLOOR) { r.u64()? } else { 0 });
    inode.cut = if has(CUT) { Some(ChunkIndex(r.u32()?)) } else { None };
    inode.allocated_bytes = if has(ALLOCATED) { r.u64()? } else { inode.size };
    inode.reserved_bytes = if has(RESERVED) { r.u64()? } else { 0 };
    inode.has_xattrs = has(XATTRS);
    inode.next_cookie = if has(COOKIE) { r.u64()? } else { 1 };
    let length = r.remaining();
    if length > SYMLINK_BYTES_MAX {
        return Err(FormatError::Invalid("inline content"));
    }
    inode.inline = Bytes::copy_from_slice(r.take(length)?);
    Ok(inode)
}

/// Permission bits: what else there was would be lost when the row is written again.
fn mode(bits: u32) -> Decoded<u32> {
    if bits & !0o7777 == 0 { Ok(bits) } else { Err(FormatError::Invalid("mode of an inode")) }
}

/// An inode of version 1.
fn old_inode(mut r: Reader<'_>) -> Decoded<Inode> {
    let ino = Ino(r.u64()?);
    let kind = FileKind::from_code(r.u8()?).ok_or(FormatError::Invalid("kind of an inode"))?;
    let (mode, uid, gid) = (mode(r.u32()?)?, r.u32()?, r.u32()?);
    let (links, rdev) = (r.u32()?, r.u32()?);
    let size = r.u64()?;
    let (atime, mtime, ctime) = (take_time(&mut r)?, take_time(&mut r)?, take_time(&mut r)?);
    let class = ClassId(r.u16()?);
    let parent = Ino(r.u64()?);
    let (version, floor) = (Version(r.u64()?), Version(r.u64()?));
    let (is_cut, cut) = (r.flag("pending cut")?, ChunkIndex(r.u32()?));
    let (allocated_bytes, reserved_bytes) = (r.u64()?, r.u64()?);
    let has_xattrs = r.flag("presence of xattrs")?;
    let next_cookie = r.u64()?;
    let inline = r.owned(SYMLINK_BYTES_MAX, "inline content")?;
    r.finish()?;
    Ok(Inode {
        ino,
        kind,
        mode,
        uid,
        gid,
        links,
        rdev,
        size,
        atime,
        mtime,
        ctime,
        class,
        parent,
        version,
        floor,
        cut: is_cut.then_some(cut),
        allocated_bytes,
        reserved_bytes,
        has_xattrs,
        next_cookie,
        inline,
    })
}

/// The stored form of a name.
pub fn encode_dentry(dentry: Dentry) -> Vec<u8> {
    let mut w = Writer::with_capacity(18);
    w.u8(VERSION);
    w.u64(dentry.ino.0);
    w.u8(dentry.kind.code());
    w.u64(dentry.cookie);
    w.into_vec()
}

/// Reads a name.
pub fn decode_dentry(row: &[u8]) -> Result<Dentry> {
    let mut r = open(row, "version of a name")?;
    let dentry = Dentry { ino: Ino(r.u64()?), kind: super::kind(r.u8()?)?, cookie: r.u64()? };
    r.finish()?;
    Ok(dentry)
}

/// The stored form of a place in a listing.
pub fn encode_listing(ino: Ino, kind: FileKind, name: &[u8]) -> Vec<u8> {
    let mut w = Writer::with_capacity(10 + name.len());
    w.u8(VERSION);
    w.u64(ino.0);
    w.u8(kind.code());
    w.raw(name);
    w.into_vec()
}

/// Reads a place in a listing.
pub fn decode_listing(row: &[u8]) -> Result<(Ino, FileKind, &[u8])> {
    let mut r = open(row, "version of a listing entry")?;
    let (ino, kind) = (Ino(r.u64()?), super::kind(r.u8()?)?);
    let rest = r.remaining();
    Ok((ino, kind, r.take(rest)?))
}

/// Reads hot bytes: version, then content.
pub fn decode_hot(row: &[u8]) -> Result<(Version, &[u8])> {
    let mut r = Reader::new(row);
    let version = Version(r.u64()?);
    let length = r.remaining();
    if length == 0 || length > SEGMENT_BYTES as usize {
        return Err(Error::corrupt(format!("{length} hot bytes in one row")));
    }
    Ok((version, r.take(length)?))
}

/// Which slots of a stripe some file still names.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Live {
    /// Bytes of the live frames, headers included.
    pub bytes: u64,
    /// Whether any slot may have several owners.
    pub shared: bool,
    /// Number of slots, live or not.
    pub slots: u32,
    bitmap: Vec<u8>,
}

impl Live {
    /// A stripe of `slots` slots, none of them live.
    pub fn new(slots: u32) -> Self {
        Self { bytes: 0, shared: false, slots, bitmap: vec![0; slots.div_ceil(8) as usize] }
    }

    /// Whether a slot is live.
    pub fn get(&self, slot: u32) -> bool {
        self.bitmap.get((slot / 8) as usize).is_some_and(|byte| byte & (1 << (slot % 8)) != 0)
    }

    /// Marks a slot; answers whether that changed anything.
    pub fn set(&mut self, slot: u32, live: bool) -> bool {
        if slot >= self.slots || self.get(slot) == live {
            return false;
        }
        if let Some(byte) = self.bitmap.get_mut((slot / 8) as usize) {
            *byte ^= 1 << (slot % 8);
        }
        true
    }

    /// Whether no slot is live.
    pub fn is_dead(&self) -> bool {
        self.bitmap.iter().all(|byte| *byte == 0)
    }

    /// Live slots in order.
    pub fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.slots).filter(|slot| self.get(*slot))
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(18 + self.bitmap.len());
        w.u8(VERSION);
        w.u64(self.bytes);
        w.flag(self.shared);
        w.u32(self.slots);
        w.raw(&self.bitmap);
        w.into_vec()
    }

    /// Reads the stored form.
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut r = open(row, "version of a live row")?;
        let (bytes, shared, slots) = (r.u64()?, r.flag("shared")?, r.u32()?);
        if slots > SLOTS_PER_STRIPE_MAX {
            return Err(FormatError::Invalid("slots of a stripe").into());
        }
        let bitmap = r.take(slots.div_ceil(8) as usize)?.to_vec();
        r.finish()?;
        Ok(Self { bytes, shared, slots, bitmap })
    }
}

/// What is to be reaped of an inode.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReapEntry {
    /// First chunk that may have something.
    pub from: ChunkIndex,
    /// Whether everything goes, because the inode is gone; else only what the cut hides.
    pub whole: bool,
}

impl ReapEntry {
    /// The stored form.
    pub fn encode(self) -> Vec<u8> {
        let mut w = Writer::with_capacity(6);
        w.u8(VERSION);
        w.u32(self.from.0);
        w.flag(self.whole);
        w.into_vec()
    }

    /// Reads the stored form.
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut r = open(row, "version of a reap row")?;
        let entry = Self { from: ChunkIndex(r.u32()?), whole: r.flag("whole inode")? };
        r.finish()?;
        Ok(entry)
    }
}

/// A stripe of the repair queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RepairEntry {
    /// When it was found.
    pub since: Timestamp,
    /// Shards that were found absent or damaged where the record names them, a bit each.
    pub bad: u64,
    /// Attempts that have failed since a shard was last placed.
    pub attempts: u32,
    /// Before this the next attempt is not due.
    pub retry: Timestamp,
}

impl RepairEntry {
    /// Nothing is known to be bad yet.
    pub const fn new(time: Timestamp) -> Self {
        Self { since: time, bad: 0, attempts: 0, retry: time }
    }

    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(37);
        w.u8(VERSION);
        put_time(&mut w, self.since);
        w.u64(self.bad);
        w.u32(self.attempts);
        put_time(&mut w, self.retry);
        w.into_vec()
    }

    /// Reads the stored form.
    pub fn decode(row: &[u8]) -> Result<Self> {
        let mut r = open(row, "version of a repair row")?;
        let since = take_time(&mut r)?;
        let (bad, attempts) = (r.u64()?, r.u32()?);
        let retry = take_time(&mut r)?;
        r.finish()?;
        Ok(Self { since, bad, attempts, retry })
    }
}

/// Where scrubbing is, as it is stored.
pub fn encode_scrub(state: &ScrubState) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION);
    put_scrub(&mut w, state);
    w.into_vec()
}

/// Reads where scrubbing is.
pub fn decode_scrub(row: &[u8]) -> Result<ScrubState> {
    let mut r = open(row, "version of the scrub row")?;
    let state = take_scrub(&mut r)?;
    r.finish()?;
    Ok(state)
}

/// Appends the totals.
pub fn encode_totals(totals: &Totals, w: &mut Writer) {
    w.u8(VERSION);
    w.u64(totals.next_ino);
    w.u32(totals.incarnation.0);
    for value in [
        totals.inodes,
        totals.stripes,
        totals.stripe_bytes,
        totals.dead_bytes,
        totals.live_bytes,
        totals.hot_bytes,
        totals.reserved_bytes,
    ] {
        w.u64(value);
    }
}

/// Reads the totals.
pub fn decode_totals(row: &[u8]) -> Result<Totals> {
    let mut r = open(row, "version of the totals")?;
    let totals = Totals {
        next_ino: r.u64()?,
        incarnation: Incarnation(r.u32()?),
        inodes: r.u64()?,
        stripes: r.u64()?,
        stripe_bytes: r.u64()?,
        dead_bytes: r.u64()?,
        live_bytes: r.u64()?,
        hot_bytes: r.u64()?,
        reserved_bytes: r.u64()?,
    };
    r.finish()?;
    Ok(totals)
}

/// An inode with nothing set, for tests and for the format command.
pub fn new_inode(ino: Ino, kind: FileKind) -> Inode {
    Inode {
        ino,
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        links: 0,
        rdev: 0,
        size: 0,
        atime: Timestamp::default(),
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        class: ClassId(0),
        parent: ino,
        version: Version(1),
        floor: Version(0),
        cut: None,
        allocated_bytes: 0,
        reserved_bytes: 0,
        has_xattrs: false,
        next_cookie: 1,
        inline: Bytes::new(),
    }
}
