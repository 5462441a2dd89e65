//! Stored form of the rows of the state, version 1 each: a version byte, then the fields in the order in which they
//! are written below, little-endian. Stripe records and chunk maps have forms of their own.
#![deny(clippy::indexing_slicing)]

use crate::error::{Error, Result};
use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::limits::{SEGMENT_BYTES, SLOTS_PER_STRIPE_MAX, SYMLINK_BYTES_MAX};
use crate::meta::command::{Inode, put_time, take_time};
use crate::meta::tables::Totals;
use crate::types::{ChunkIndex, ClassId, FileKind, Incarnation, Ino, Version};
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

/// Appends an inode.
pub fn encode_inode(inode: &Inode, w: &mut Writer) {
    w.u8(VERSION);
    w.u64(inode.ino.0);
    w.u8(inode.kind.code());
    for value in [inode.mode, inode.uid, inode.gid, inode.links, inode.rdev] {
        w.u32(value);
    }
    w.u64(inode.size);
    for time in [inode.atime, inode.mtime, inode.ctime] {
        put_time(w, time);
    }
    w.u16(inode.class.0);
    w.u64(inode.parent.0);
    w.u64(inode.version.0);
    w.u64(inode.floor.0);
    w.flag(inode.cut.is_some());
    w.u32(inode.cut.unwrap_or_default().0);
    w.u64(inode.allocated_bytes);
    w.u64(inode.reserved_bytes);
    w.flag(inode.has_xattrs);
    w.u64(inode.next_cookie);
    w.bytes(&inode.inline);
}

/// Reads an inode.
pub fn decode_inode(row: &[u8]) -> Result<Inode> {
    inode(row).map_err(|error| Error::from(error).while_doing("read an inode row"))
}

fn inode(row: &[u8]) -> Decoded<Inode> {
    let mut r = open(row, "version of an inode")?;
    let ino = Ino(r.u64()?);
    let kind = FileKind::from_code(r.u8()?).ok_or(FormatError::Invalid("kind of an inode"))?;
    let (mode, uid, gid, links, rdev) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?, r.u32()?);
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
        atime: crate::types::Timestamp::default(),
        mtime: crate::types::Timestamp::default(),
        ctime: crate::types::Timestamp::default(),
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
