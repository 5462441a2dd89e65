//! Superblock of a disk: two alternating slots that name the volume, the disk, the epoch and the members. Knows
//! nothing of what else the disk holds.
//!
//! The file `superblock` has two slots of 64 KiB. An update with sequence s goes to slot s % 2 and is synced, so the
//! other slot keeps what was valid before; the valid slot with the larger sequence counts. One slot, all integers
//! little-endian:
//!
//! | offset | bytes | name | meaning |
//! |---|---|---|---|
//! | 0 | 8 | magic | `IRONFSSB` |
//! | 8 | 2 | version | 1 or 2; magic, version and sum keep their places in all versions |
//! | 10 | 2 | | zero |
//! | 12 | 4 | body_bytes | length of the body |
//! | 16 | 8 | sum | XXH3-64 of the 64 KiB of the slot, this field taken as zero |
//! | 24 | body_bytes | body | see below; zeros behind it, which need not be read |
//!
//! The body: sequence u64, volume 16 bytes, disk u32, name (u32 length, bytes), epoch u64, previous epoch u64,
//! tolerance u8, then three lists, each behind a u32 count: members (disk u32, state u8, capacity u64, device u64,
//! path with u32 length, labels), log disks (disk u32, start u64) and log disks of the previous epoch (the same). The
//! labels of a member: node, rack and zone (at most 32 bytes each) and, behind a u8 count of at most 8, its tags in order
//! (at most 16 bytes each), all with u8 lengths.
//!
//! Behind these, in version 2, the nodes: a u32 count of at most 128, and for each its name (at most 32 bytes) and address
//! (`host:port`, at most 259 bytes), both with u32 lengths; by name, each once.
//!
//! Versions: 1 is the first. 2 adds the nodes, and is written if there are any, so that the disks of a volume without nodes
//! stay what older programs read.
//!
//! Assumed of the medium: a write to one slot never changes the other, and a synced write stays.
#![deny(clippy::indexing_slicing)]

use crate::config::labels::{Labels, TAGS_MAX};
use crate::config::{
    ADDRESS_BYTES_MAX, HOLDER_BYTES_MAX, Place, VOLUME_NAME_BYTES_MAX, validate_address,
    validate_holder, validate_name,
};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Posix, Result};
use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::limits::{DISKS_MAX, NODES_MAX};
use crate::sum::xxh3;
use crate::types::{DiskId, Epoch, LogPosition, VolumeId};
use std::collections::BTreeMap;
use std::path::Path;

#[cfg(test)]
mod tests;

/// Name of the superblock's file.
pub const SUPERBLOCK_FILE: &str = "superblock";
/// Size of a slot: `DISKS_MAX` members fit whose paths and labels have 96 bytes together. Nodes take of the same room.
pub const SLOT_BYTES: usize = 64 * 1024;
/// Longest path of a member (Linux PATH_MAX).
const PATH_BYTES_MAX: usize = 4096;

/// What is read of a slot at first: bodies of some ten members fit.
const FRONT_BYTES: usize = 4096;

const MAGIC: [u8; 8] = *b"IRONFSSB";
/// Newest version.
const VERSION: u16 = 2;
/// What is written where no nodes are known.
const VERSION_WITHOUT_NODES: u16 = 1;
const BODY_BYTES_OFFSET: usize = 12;
const SUM_OFFSET: usize = 16;
const BODY_OFFSET: usize = 24;
/// Least bytes of a node: two lengths.
const NODE_BYTES_MIN: usize = 8;

// As many nodes as there may be fit by themselves, whatever they are called.
const _: () = assert!(
    NODES_MAX * (NODE_BYTES_MIN + HOLDER_BYTES_MAX + ADDRESS_BYTES_MAX) < SLOT_BYTES - BODY_OFFSET
);

/// State of a member as the volume has recorded it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum MemberState {
    /// In use.
    Healthy = 1,
    /// Known to be away: its log and state copies are stale; its shards are not.
    Down = 2,
    /// Given up: it counts no longer, and repair places anew what it held. If it comes back it is used again.
    Out = 3,
    /// Replaced or drained: it never comes back.
    Removed = 4,
    /// To be removed: it serves what it holds, takes nothing new, and what it holds is moved to others.
    Draining = 5,
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
    /// Where it stands: failure domains and tags.
    pub labels: Labels,
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
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MemberList {
    /// Version of the list.
    pub epoch: Epoch,
    /// Epoch of the list before.
    pub previous_epoch: Epoch,
    /// All disks, by id.
    pub disks: Vec<Member>,
    /// Disks with the log.
    pub log: Vec<LogMember>,
    /// Log disks of the list before, still read until every member of `log` is complete.
    pub previous_log: Vec<LogMember>,
    /// Largest m of any class in use: how many members may be absent at a mount.
    pub tolerance: u8,
    /// Where nodes are, `host:port` by name: those that serve disks, and those that may.
    pub nodes: BTreeMap<String, String>,
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

/// The superblock of `disk`, from its newest valid slot; `None` if the disk has none.
///
/// Errors: `Corrupt` if both slots are bad, `Refused` if a newer program wrote one.
pub fn read(disk: &dyn Disk) -> Result<Option<Superblock>> {
    let file = match disk.open(SUPERBLOCK_FILE, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.is(Posix::NotFound) => return Ok(None),
        Err(error) => return Err(error),
    };
    let length = file.len()?;
    let mut newest: Option<Superblock> = None;
    let mut reasons = Vec::new();
    for slot in 0..2_u64 {
        let start = slot * SLOT_BYTES as u64;
        if length < start + SLOT_BYTES as u64 {
            reasons.push(format!("slot {slot}: {}", FormatError::Short));
            continue;
        }
        let bytes = read_slot(&*file, start)?;
        match Superblock::decode(&bytes) {
            Ok(found) if newest.as_ref().is_none_or(|best| best.sequence < found.sequence) => {
                newest = Some(found);
            }
            Ok(_older) => {}
            Err(error @ FormatError::Newer { .. }) => {
                let context = format!("read the superblock of {}", disk.label());
                return Err(Error::from(error).while_doing(context));
            }
            Err(error) => reasons.push(format!("slot {slot}: {error}")),
        }
    }
    match newest {
        Some(found) => Ok(Some(found)),
        None => Err(Error::corrupt(format!(
            "both slots of the superblock of {} are bad ({}); replace this disk",
            disk.label(),
            reasons.join("; ")
        ))),
    }
}

/// The bytes of a slot, without reading the zeros behind a short body: disks are looked at twice a second, over a network too.
fn read_slot(file: &dyn DiskFile, start: u64) -> Result<Vec<u8>> {
    let mut front = vec![0; FRONT_BYTES];
    file.read(start, &mut front)?;
    let mut fields = Reader::new(&front);
    fields.take(BODY_BYTES_OFFSET)?;
    let is_whole = BODY_OFFSET as u64 + u64::from(fields.u32()?) <= FRONT_BYTES as u64;
    let mut rest = vec![0; SLOT_BYTES - FRONT_BYTES];
    if !is_whole {
        file.read(start + FRONT_BYTES as u64, &mut rest)?;
    }
    front.append(&mut rest);
    Ok(front)
}

/// Writes `superblock` into its slot of a disk that has one; durable on return. Its sequence must be one more than
/// that of the present one, so that the newest valid slot stays as it is.
pub fn write(disk: &dyn Disk, superblock: &Superblock) -> Result<()> {
    let bytes = superblock.encode()?;
    let file = disk.open(SUPERBLOCK_FILE, OpenMode::Write)?;
    file.write((superblock.sequence % 2) * SLOT_BYTES as u64, &bytes)?;
    file.sync_data()
}

/// Makes an empty directory a disk of a volume; durable on return.
///
/// Errors: `Refused` if the directory holds anything but its lock file and `lost+found`.
pub fn create(disk: &dyn Disk, superblock: &Superblock) -> Result<()> {
    let bytes = superblock.encode()?;
    let foreign = |name: &str| name != "lost+found" && name != super::LOCK_FILE;
    let entries = disk.list("")?;
    if let Some(entry) = entries.iter().find(|entry| foreign(&entry.name)) {
        let what = match entry.name.as_str() {
            SUPERBLOCK_FILE => "it is a disk of a volume already".to_owned(),
            name => format!("it contains {name:?}"),
        };
        return Err(Error::refused(format!("{} is not empty: {what}", disk.label())));
    }
    let file = disk.open(SUPERBLOCK_FILE, OpenMode::CreateNew)?;
    file.write(0, &bytes)?;
    file.write(SLOT_BYTES as u64, &bytes)?;
    file.sync_data()?;
    disk.sync_dir("")
}

/// What the disk says of itself, if it is where it was opened and is disk `id` of `volume`: for the start, for the
/// prober, and for a disk that comes back.
///
/// Errors: `Unavailable` if it is gone or empty, `Refused` if it is another disk or of another volume.
pub fn probe(disk: &dyn Disk, volume: VolumeId, id: DiskId) -> Result<Superblock> {
    disk.identity()?;
    let label = disk.label();
    let Some(found) = read(disk)? else {
        return Err(Error::unavailable(format!("{label} holds no superblock, expected disk {id}")));
    };
    if found.volume != volume {
        return Err(Error::refused(format!(
            "{label} belongs to volume {} ({}), expected {volume}",
            found.name, found.volume
        )));
    }
    if found.disk != id {
        return Err(Error::refused(format!("{label} is disk {}, expected disk {id}", found.disk)));
    }
    Ok(found)
}

impl MemberState {
    /// Whether the volume counts on the disk for what is to come, be it there or not.
    pub const fn counts(self) -> bool {
        matches!(self, Self::Healthy | Self::Down)
    }

    /// Whether the disk is expected to be there: it holds, or may hold, what the volume needs.
    pub const fn is_expected(self) -> bool {
        matches!(self, Self::Healthy | Self::Down | Self::Draining)
    }

    /// Whether the disk is in use as far as the list knows.
    pub const fn is_used(self) -> bool {
        matches!(self, Self::Healthy | Self::Draining)
    }

    /// The state with this stored number.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Healthy),
            2 => Some(Self::Down),
            3 => Some(Self::Out),
            4 => Some(Self::Removed),
            5 => Some(Self::Draining),
            _ => None,
        }
    }
}

impl Member {
    /// How many of `others` share its zone, its rack, its node and its device: the less, the fewer are lost together.
    pub fn closeness(&self, others: &[&Self]) -> [usize; 4] {
        let own = &self.labels;
        let count =
            |same: &dyn Fn(&Self) -> bool| others.iter().filter(|other| same(other)).count();
        let zone = |other: &Self| other.labels.zone == own.zone;
        let rack = |other: &Self| zone(other) && other.labels.rack == own.rack;
        let node = |other: &Self| rack(other) && other.labels.node == own.node;
        [count(&zone), count(&rack), count(&node), count(&|other| other.device == self.device)]
    }
}

impl MemberList {
    /// The member with this number.
    pub fn member(&self, disk: DiskId) -> Option<&Member> {
        self.disks.iter().find(|member| member.disk == disk)
    }

    /// Whether a disk that the volume counts on is at a node, where other machines may reach it too.
    pub fn is_shared(&self) -> bool {
        let at_node = |path: &str| matches!(Place::of(Path::new(path)), Place::Node { .. });
        self.disks.iter().any(|member| member.state.is_expected() && at_node(&member.path))
    }
}

impl Superblock {
    /// One slot of `SLOT_BYTES`.
    ///
    /// Errors: `Refused` if the members do not fit.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let MemberList { disks, nodes, .. } = &self.members;
        validate_name(&self.name)?;
        for member in disks {
            member.labels.clone().validate()?;
        }
        for (name, address) in nodes {
            validate_holder(name)?;
            validate_address(address)?;
        }
        if nodes.len() > NODES_MAX {
            let count = nodes.len();
            let context = format!("{count} nodes are too many: a volume knows {NODES_MAX} at most");
            return Err(Error::refused(context));
        }
        let body = self.encode_body();
        if disks.len() > DISKS_MAX || body.len() > SLOT_BYTES - BODY_OFFSET {
            return Err(Error::refused(format!(
                "{} disks with paths of {} bytes and {} nodes do not fit into a superblock: use fewer disks, or shorter \
                 paths and labels",
                disks.len(),
                disks.iter().map(|member| member.path.len()).sum::<usize>(),
                nodes.len()
            )));
        }
        let version = if nodes.is_empty() { VERSION_WITHOUT_NODES } else { VERSION };
        let assemble = |sum: u64| {
            let mut writer = Writer::with_capacity(SLOT_BYTES);
            writer.raw(&MAGIC);
            writer.u16(version);
            writer.u16(0);
            writer.count(body.len());
            writer.u64(sum);
            writer.raw(&body);
            writer.pad_to(SLOT_BYTES);
            writer.into_vec()
        };
        Ok(assemble(xxh3(&assemble(0))))
    }

    /// The superblock in one slot of `SLOT_BYTES`.
    pub fn decode(slot: &[u8]) -> Decoded<Self> {
        let mut reader = Reader::new(slot);
        if reader.array::<8>()? != MAGIC {
            return Err(FormatError::Invalid("magic"));
        }
        let version = reader.u16()?;
        let _zero = reader.u16()?;
        let body_bytes = reader.u32()?;
        let sum = reader.u64()?;
        if slot.len() != SLOT_BYTES {
            return Err(FormatError::Short);
        }
        let mut unsummed = slot.to_vec();
        unsummed.get_mut(SUM_OFFSET..BODY_OFFSET).ok_or(FormatError::Short)?.fill(0);
        if xxh3(&unsummed) != sum {
            return Err(FormatError::Sum);
        }
        if version > VERSION {
            return Err(FormatError::Newer { known: VERSION, found: version });
        }
        let body_bytes = usize::try_from(body_bytes).map_err(|_e| FormatError::Short)?;
        let mut body = Reader::new(reader.take(body_bytes)?);
        let mut superblock = Self::decode_body(&mut body)?;
        if version > VERSION_WITHOUT_NODES {
            superblock.members.nodes = decode_nodes(&mut body)?;
        }
        body.finish()?;
        Ok(superblock)
    }

    fn encode_body(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u64(self.sequence);
        writer.raw(&self.volume.0);
        writer.u32(self.disk.get());
        writer.bytes(self.name.as_bytes());
        writer.u64(self.members.epoch.get());
        writer.u64(self.members.previous_epoch.get());
        writer.u8(self.members.tolerance);
        writer.count(self.members.disks.len());
        for member in &self.members.disks {
            writer.u32(member.disk.get());
            writer.u8(member.state as u8);
            writer.u64(member.capacity_bytes);
            writer.u64(member.device);
            writer.bytes(member.path.as_bytes());
            encode_labels(&mut writer, &member.labels);
        }
        for list in [&self.members.log, &self.members.previous_log] {
            writer.count(list.len());
            for member in list {
                writer.u32(member.disk.get());
                writer.u64(member.start.get());
            }
        }
        if !self.members.nodes.is_empty() {
            encode_nodes(&mut writer, &self.members.nodes);
        }
        writer.into_vec()
    }

    /// What all versions have.
    fn decode_body(reader: &mut Reader<'_>) -> Decoded<Self> {
        let sequence = reader.u64()?;
        let volume = VolumeId(reader.array()?);
        let disk = DiskId(reader.u32()?);
        let name = decode_text(reader, VOLUME_NAME_BYTES_MAX, "name")?;
        validate_name(&name).map_err(|_e| FormatError::Invalid("name"))?;
        let epoch = Epoch(reader.u64()?);
        let previous_epoch = Epoch(reader.u64()?);
        let tolerance = reader.u8()?;
        let disks = decode_list(reader, 29, "members", decode_member)?;
        let log = decode_list(reader, 12, "log", decode_log_member)?;
        let previous_log = decode_list(reader, 12, "previous log", decode_log_member)?;
        let nodes = BTreeMap::new();
        let members =
            MemberList { epoch, previous_epoch, disks, log, previous_log, tolerance, nodes };
        Ok(Self { volume, name, disk, sequence, members })
    }
}

fn decode_list<T>(
    reader: &mut Reader<'_>,
    each_bytes: usize,
    field: &'static str,
    decode: fn(&mut Reader<'_>) -> Decoded<T>,
) -> Decoded<Vec<T>> {
    let count = reader.count(each_bytes, field)?;
    if count > DISKS_MAX {
        return Err(FormatError::Invalid(field));
    }
    (0..count).map(|_index| decode(reader)).collect()
}

fn decode_member(reader: &mut Reader<'_>) -> Decoded<Member> {
    Ok(Member {
        disk: DiskId(reader.u32()?),
        state: MemberState::from_code(reader.u8()?).ok_or(FormatError::Invalid("state"))?,
        capacity_bytes: reader.u64()?,
        device: reader.u64()?,
        path: decode_text(reader, PATH_BYTES_MAX, "path")?,
        labels: decode_labels(reader)?,
    })
}

/// The words are within their limits.
fn encode_labels(writer: &mut Writer, labels: &Labels) {
    let length = |text: &str| u8::try_from(text.len()).unwrap_or(u8::MAX);
    for name in [&labels.node, &labels.rack, &labels.zone] {
        writer.u8(length(name));
        writer.raw(name.as_bytes());
    }
    writer.u8(u8::try_from(labels.tags.len()).unwrap_or(u8::MAX));
    for tag in &labels.tags {
        writer.u8(length(tag));
        writer.raw(tag.as_bytes());
    }
}

fn decode_labels(reader: &mut Reader<'_>) -> Decoded<Labels> {
    let word = |reader: &mut Reader<'_>| {
        let bytes = reader.u8()?;
        let bytes = reader.take(usize::from(bytes))?;
        String::from_utf8(bytes.to_vec()).map_err(|_e| FormatError::Invalid("label"))
    };
    let (node, rack, zone) = (word(reader)?, word(reader)?, word(reader)?);
    let count = usize::from(reader.u8()?);
    if count > TAGS_MAX {
        return Err(FormatError::Invalid("tags"));
    }
    let tags = (0..count).map(|_tag| word(reader)).collect::<Decoded<Vec<_>>>()?;
    let labels = Labels { node, rack, zone, tags };
    let valid = labels.clone().validate().map_err(|_sentence| FormatError::Invalid("label"))?;
    if valid == labels { Ok(labels) } else { Err(FormatError::Invalid("order of tags")) }
}

fn encode_nodes(writer: &mut Writer, nodes: &BTreeMap<String, String>) {
    writer.count(nodes.len());
    for (name, address) in nodes {
        writer.bytes(name.as_bytes());
        writer.bytes(address.as_bytes());
    }
}

fn decode_nodes(reader: &mut Reader<'_>) -> Decoded<BTreeMap<String, String>> {
    let count = reader.count(NODE_BYTES_MIN, "nodes")?;
    if count > NODES_MAX {
        return Err(FormatError::Invalid("nodes"));
    }
    let mut nodes = BTreeMap::new();
    for _node in 0..count {
        let name = decode_text(reader, HOLDER_BYTES_MAX, "node")?;
        validate_holder(&name).map_err(|_sentence| FormatError::Invalid("node"))?;
        let address = decode_text(reader, ADDRESS_BYTES_MAX, "address of a node")?;
        validate_address(&address)
            .map_err(|_sentence| FormatError::Invalid("address of a node"))?;
        if nodes.last_key_value().is_some_and(|(last, _address)| *last >= name) {
            return Err(FormatError::Invalid("order of nodes"));
        }
        nodes.insert(name, address);
    }
    Ok(nodes)
}

fn decode_log_member(reader: &mut Reader<'_>) -> Decoded<LogMember> {
    Ok(LogMember { disk: DiskId(reader.u32()?), start: LogPosition(reader.u64()?) })
}

fn decode_text(reader: &mut Reader<'_>, most: usize, field: &'static str) -> Decoded<String> {
    let bytes = reader.bytes(most, field)?;
    String::from_utf8(bytes.to_vec()).map_err(|_e| FormatError::Invalid(field))
}
