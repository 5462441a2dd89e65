//! POSIX access control lists in the binary form of extended attributes (version 2), and what create, chmod and
//! setfacl make of them. Pure values; knows no inode. The kernel evaluates the lists; the rules here keep them in
//! step with the mode (POSIX 1003.1e draft 17; acl(5)).
#![deny(clippy::indexing_slicing)]

use crate::error::Posix;
use crate::format::{Reader, Writer};

/// Attribute that holds the list which decides about access.
pub const ACCESS: &[u8] = b"system.posix_acl_access";
/// Attribute that holds the list which new children inherit.
pub const DEFAULT: &[u8] = b"system.posix_acl_default";

/// The only version of the binary form.
const VERSION: u32 = 2;
/// Bytes of an entry: tag, permissions, id.
const ENTRY_BYTES: usize = 8;
/// Id of entries that name nobody.
const NOBODY: u32 = u32::MAX;

/// Whom an entry is about, in the order that lists keep.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Tag {
    /// Owner.
    Owner,
    /// A named user.
    User(u32),
    /// Owning group.
    OwningGroup,
    /// A named group.
    Group(u32),
    /// Upper bound of all but owner and other.
    Mask,
    /// Everyone else.
    Other,
}

impl Tag {
    const fn code(self) -> (u16, u32) {
        match self {
            Self::Owner => (0x01, NOBODY),
            Self::User(id) => (0x02, id),
            Self::OwningGroup => (0x04, NOBODY),
            Self::Group(id) => (0x08, id),
            Self::Mask => (0x10, NOBODY),
            Self::Other => (0x20, NOBODY),
        }
    }

    const fn from_code(code: u16, id: u32) -> Option<Self> {
        match (code, id) {
            (0x01, _) => Some(Self::Owner),
            (0x02 | 0x08, NOBODY) => None,
            (0x02, _) => Some(Self::User(id)),
            (0x04, _) => Some(Self::OwningGroup),
            (0x08, _) => Some(Self::Group(id)),
            (0x10, _) => Some(Self::Mask),
            (0x20, _) => Some(Self::Other),
            _ => None,
        }
    }

    /// Place of the entry's sort in a list; named entries of one sort come in any order.
    const fn rank(self) -> u8 {
        match self {
            Self::Owner => 0,
            Self::User(_) => 1,
            Self::OwningGroup => 2,
            Self::Group(_) => 3,
            Self::Mask => 4,
            Self::Other => 5,
        }
    }

    const fn is_named(self) -> bool {
        matches!(self, Self::User(_) | Self::Group(_))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    tag: Tag,
    /// Read 4, write 2, execute 1.
    permissions: u32,
}

/// A list that is valid: one owner, owning group and other, a mask if anyone is named, in order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Acl {
    entries: Vec<Entry>,
}

/// What a new inode gets from its directory's default list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Inherited {
    /// Permission bits.
    pub mode: u32,
    /// Access list, unless the mode says it all.
    pub access: Option<Acl>,
}

impl Acl {
    /// Reads the binary form. `None`: a list without entries, which stands for no list. Errors: `NotSupported` for
    /// another version, `Invalid` for anything else that is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, Posix> {
        let mut reader = Reader::new(bytes);
        if reader.u32().map_err(|_short| Posix::Invalid)? != VERSION {
            return Err(Posix::NotSupported);
        }
        let rest = bytes.len() - size_of::<u32>();
        if !rest.is_multiple_of(ENTRY_BYTES) {
            return Err(Posix::Invalid);
        }
        let entries = (0..rest / ENTRY_BYTES)
            .map(|_| read_entry(&mut reader).ok_or(Posix::Invalid))
            .collect::<Result<Vec<_>, _>>()?;
        if entries.is_empty() {
            return Ok(None);
        }
        let acl = Self { entries };
        if acl.is_valid() { Ok(Some(acl)) } else { Err(Posix::Invalid) }
    }

    /// The binary form.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(4 + self.entries.len() * ENTRY_BYTES);
        writer.u32(VERSION);
        for entry in &self.entries {
            let (code, id) = entry.tag.code();
            writer.u16(code);
            writer.u16(u16::try_from(entry.permissions).unwrap_or_default());
            writer.u32(id);
        }
        writer.into_vec()
    }

    fn is_valid(&self) -> bool {
        let count = |rank| self.entries.iter().filter(|entry| entry.tag.rank() == rank).count();
        let ordered = self.entries.is_sorted_by_key(|entry| entry.tag.rank());
        let named = self.entries.iter().any(|entry| entry.tag.is_named());
        let single = [0, 2, 5].into_iter().all(|rank| count(rank) == 1);
        let masks = count(4);
        ordered && single && masks <= 1 && (masks == 1 || !named)
    }

    /// The nine permission bits that the list amounts to; the group's are the mask's if there is one.
    pub fn mode(&self) -> u32 {
        let group = self.get(Tag::Mask).or_else(|| self.get(Tag::OwningGroup)).unwrap_or(0);
        let owner = self.get(Tag::Owner).unwrap_or(0);
        owner << 6 | group << 3 | self.get(Tag::Other).unwrap_or(0)
    }

    /// Whether a mode says all that the list says.
    pub fn is_mode(&self) -> bool {
        !self.entries.iter().any(|entry| entry.tag.is_named() || entry.tag == Tag::Mask)
    }

    /// chmod: owner and other get the mode's bits, and so does the mask or, without one, the owning group.
    #[must_use]
    pub fn with_mode(mut self, mode: u32) -> Self {
        self.change(|tag, _permissions| bits_of(tag, mode));
        self
    }

    /// What a new inode that asks for `mode` inherits from this default list. Neither gives more than the other.
    pub fn inherit(&self, mode: u32) -> Inherited {
        let mut access = self.clone();
        access.change(|tag, permissions| bits_of(tag, mode) & permissions);
        let mode = mode & !0o777 | access.mode();
        Inherited { mode, access: (!access.is_mode()).then_some(access) }
    }

    fn get(&self, tag: Tag) -> Option<u32> {
        self.entries.iter().find(|entry| entry.tag == tag).map(|entry| entry.permissions)
    }

    /// Changes the entries that a mode's three digits stand for.
    fn change(&mut self, permissions: impl Fn(Tag, u32) -> u32) {
        let group = if self.get(Tag::Mask).is_some() { Tag::Mask } else { Tag::OwningGroup };
        for entry in &mut self.entries {
            if [Tag::Owner, group, Tag::Other].contains(&entry.tag) {
                entry.permissions = permissions(entry.tag, entry.permissions);
            }
        }
    }
}

const fn bits_of(tag: Tag, mode: u32) -> u32 {
    let shift = match tag {
        Tag::Owner => 6,
        Tag::Other => 0,
        Tag::User(_) | Tag::OwningGroup | Tag::Group(_) | Tag::Mask => 3,
    };
    mode >> shift & 7
}

fn read_entry(reader: &mut Reader<'_>) -> Option<Entry> {
    let (code, permissions) = (reader.u16().ok()?, u32::from(reader.u16().ok()?));
    let tag = Tag::from_code(code, reader.u32().ok()?)?;
    (permissions <= 7).then_some(Entry { tag, permissions })
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;
