//! What goes over a connection between machines: a header, a body and a payload, for requests and for answers. Knows bytes
//! only: no socket, no disk.
//!
//! Each request has a stream of its own, on which the answer comes back; only those of one put, which are carried out in order,
//! may follow each other on a stream before they are answered. An answer that is an error is the last. All have this form, all
//! integers little-endian:
//!
//! | offset | bytes | name | meaning |
//! |---|---|---|---|
//! | 0 | 4 | magic | `IRNW` |
//! | 4 | 2 | version | 1 |
//! | 6 | 1 | code | what is asked or answered, see `Order` and `Answer` |
//! | 7 | 1 | priority | 0 sync, 1 read, 2 background; 0 in answers |
//! | 8 | 4 | disk | which disk is meant, for calls of files which slot of the node; 0 in answers |
//! | 12 | 4 | body_bytes | length of the body, at most 1 MiB |
//! | 16 | 8 | id | number of the request on its connection, for log lines; the answer repeats it |
//! | 24 | 8 | epoch | member list that the caller goes by; 0 in answers |
//! | 32 | 8 | payload_bytes | length of the payload, at most 64 MiB |
//! | 40 | 8 | body_sum | XXH3-64 of the body |
//! | 48 | 8 | mount | number of the mount that asks, random; 0 in answers |
//! | 56 | 8 | sum | XXH3-64 of the 56 bytes before |
//! | 64 | body_bytes | body | the pieces: u32 count, and for each its length u32 and XXH3-64; then the fields of the code |
//! | behind | payload_bytes | payload | the pieces, back to back: cells, ranges, slot tables, bytes of files |
//!
//! Pieces are sent and received without being copied. TLS below protects against others; the sums protect against memory
//! and cards that err.
//!
//! Versions: 1 is the first. A peer that meets a newer one says so, with the newest that it knows. Codes are added within a
//! version: a peer that does not know one answers with an error.
#![deny(clippy::indexing_slicing)]

use super::{DiskCall, DiskReply, Operation, Request, Response, ShardHeader, ShardKey};
use crate::config::labels::DOMAIN_BYTES_MAX;
use crate::disk::Space;
use crate::error::{Error, ErrorKind, Posix};
use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::sum::xxh3;
use crate::types::{ClassId, DiskId, Epoch, MountId, ShardIndex, StripeId};
use bytes::Bytes;

mod files;
mod shards;
#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 64;
/// Longest body.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest payload: all cells of a shard of the largest stripe fit.
pub const PAYLOAD_BYTES_MAX: u64 = 64 << 20;
/// Longest text of an error.
const TEXT_BYTES_MAX: usize = 4096;
/// Longest name of a file on a disk, and longest path of a disk on its node.
const NAME_BYTES_MAX: usize = 4096;
const MAGIC: [u8; 4] = *b"IRNW";
const VERSION: u16 = 1;
const SUMMED_BYTES: usize = 56;
/// A piece in the body: length and sum.
const PIECE_BYTES: usize = 12;
/// Least bytes of a slot in an answer.
const SLOT_BYTES_MIN: usize = 9;

const DISKS: u8 = 64;
const SERVED: u8 = 192;
const ERROR: u8 = 255;

/// What one machine asks of another.
#[derive(Clone, Debug)]
pub enum Order {
    /// Something of the shards of a disk.
    Shard(Request),
    /// Something of the other files of a disk.
    Disk {
        /// Slot of the node.
        slot: u32,
        /// What.
        call: DiskCall,
    },
    /// Which directories are served, each in a slot.
    Disks,
}

/// What comes back.
#[derive(Clone, Debug)]
pub enum Answer {
    /// To `Order::Shard`.
    Shard(Response),
    /// To `Order::Disk`.
    Disk(DiskReply),
    /// To `Order::Disks`.
    Disks(Served),
    /// It could not be done.
    Error(Error),
}

/// What a node serves.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Served {
    /// The rack that it stands in; empty if it does not say.
    pub rack: String,
    /// The zone that it stands in; empty if it does not say.
    pub zone: String,
    /// Its directories.
    pub slots: Vec<ServedSlot>,
}

/// A directory that a node serves.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServedSlot {
    /// Number of the slot on its node: its place in the node's configuration.
    pub slot: u32,
    /// The disk that lies there, unless the directory is empty or away.
    pub disk: Option<DiskId>,
    /// Path on the node.
    pub path: String,
}

/// A message in pieces.
#[derive(Clone, Debug)]
pub struct Packed {
    /// Header and body.
    pub head: Bytes,
    /// The payload.
    pub pieces: Vec<Bytes>,
}

impl Packed {
    /// All pieces, header and body first.
    pub fn chunks(self) -> Vec<Bytes> {
        let mut chunks = Vec::with_capacity(1 + self.pieces.len());
        chunks.push(self.head);
        chunks.extend(self.pieces.into_iter().filter(|piece| !piece.is_empty()));
        chunks
    }
}

/// A header that checks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What is asked or answered.
    pub code: u8,
    /// How urgent.
    pub priority: u8,
    /// Disk.
    pub disk: u32,
    /// Length of the body.
    pub body_bytes: u32,
    /// Number of the request.
    pub id: u64,
    /// Member list.
    pub epoch: u64,
    /// Length of the payload.
    pub payload_bytes: u64,
    /// Sum of the body.
    pub body_sum: u64,
    /// The mount that asks.
    pub mount: MountId,
}

impl Header {
    fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(HEADER_BYTES);
        writer.raw(&MAGIC);
        writer.u16(VERSION);
        writer.u8(self.code);
        writer.u8(self.priority);
        writer.u32(self.disk);
        writer.u32(self.body_bytes);
        writer.u64(self.id);
        writer.u64(self.epoch);
        writer.u64(self.payload_bytes);
        writer.u64(self.body_sum);
        writer.u64(self.mount.get());
        let sum = xxh3(writer.as_slice());
        writer.u64(sum);
        writer.into_vec()
    }

    /// Reads a header; its lengths are within their limits.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Decoded<Self> {
        let mut reader = Reader::new(bytes);
        if reader.array::<4>()? != MAGIC {
            return Err(FormatError::Invalid("magic"));
        }
        let version = reader.u16()?;
        let header = Self {
            code: reader.u8()?,
            priority: reader.u8()?,
            disk: reader.u32()?,
            body_bytes: reader.u32()?,
            id: reader.u64()?,
            epoch: reader.u64()?,
            payload_bytes: reader.u64()?,
            body_sum: reader.u64()?,
            mount: MountId(reader.u64()?),
        };
        let (summed, _sum) = bytes.split_at_checked(SUMMED_BYTES).ok_or(FormatError::Short)?;
        if reader.u64()? != xxh3(summed) {
            return Err(FormatError::Sum);
        }
        if version != VERSION {
            return Err(FormatError::Newer { known: VERSION, found: version });
        }
        if header.body_bytes as usize > BODY_BYTES_MAX {
            return Err(FormatError::Invalid("length of the body"));
        }
        if header.payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(FormatError::Invalid("length of the payload"));
        }
        Ok(header)
    }
}

/// A body under construction, and the pieces that go behind it.
#[derive(Default)]
struct Body {
    fields: Writer,
    pieces: Vec<Bytes>,
}

impl Body {
    fn key(&mut self, key: ShardKey) {
        self.fields.u64(key.stripe.get());
        self.fields.u8(key.index.0);
    }

    fn text(&mut self, text: &str) {
        self.fields.bytes(text.as_bytes());
    }

    fn header(&mut self, header: &ShardHeader) {
        self.key(header.key);
        self.fields.u16(header.class.0);
        self.fields.u8(header.data_shards);
        self.fields.u8(header.parity_shards);
        self.fields.u32(header.cell_bytes);
        self.fields.u64(header.epoch.get());
    }

    fn space(&mut self, space: Space) {
        self.fields.u64(space.total_bytes);
        self.fields.u64(space.free_bytes);
        self.fields.u64(space.device);
    }

    fn pack(self, code: u8, (id, mount): (u64, MountId), target: Target) -> Packed {
        let mut writer = Writer::new();
        writer.count(self.pieces.len());
        for piece in &self.pieces {
            writer.count(piece.len());
            writer.u64(xxh3(piece));
        }
        writer.raw(self.fields.as_slice());
        let body = writer.into_vec();
        let header = Header {
            code,
            priority: target.priority,
            disk: target.disk,
            body_bytes: u32::try_from(body.len()).expect("bodies are bounded far below 2^32"),
            id,
            epoch: target.epoch,
            payload_bytes: self.pieces.iter().map(|piece| piece.len() as u64).sum(),
            body_sum: xxh3(&body),
            mount,
        };
        let mut head = header.encode();
        head.extend_from_slice(&body);
        Packed { head: Bytes::from(head), pieces: self.pieces }
    }
}

/// What a header says besides lengths and sums.
#[derive(Clone, Copy, Default)]
struct Target {
    priority: u8,
    disk: u32,
    epoch: u64,
}

impl Order {
    /// Whether another request may come behind it on the same stream: a put goes on until it is sealed.
    pub const fn may_be_followed(&self) -> bool {
        matches!(
            self,
            Self::Shard(Request { operation: Operation::Begin(_) | Operation::Append(..), .. })
        )
    }

    /// How urgent it is: 0 is the most.
    pub const fn priority(&self) -> u8 {
        match self {
            Self::Shard(request) => shards::priority_code(request.priority),
            Self::Disk { .. } | Self::Disks => 0,
        }
    }

    /// The bytes of request number `id` of `mount`.
    pub fn pack(self, id: u64, mount: MountId) -> Packed {
        let mut body = Body::default();
        let (code, target) = match self {
            Self::Shard(request) => {
                let target = Target {
                    priority: shards::priority_code(request.priority),
                    disk: request.disk.0,
                    epoch: request.epoch.get(),
                };
                (shards::pack_operation(&mut body, request.operation), target)
            }
            Self::Disk { slot, call } => {
                (files::pack_call(&mut body, call), Target { disk: slot, ..Target::default() })
            }
            Self::Disks => (DISKS, Target::default()),
        };
        body.pack(code, (id, mount), target)
    }

    /// What a request with this header asks.
    pub fn unpack(header: &Header, body: &[u8], payload: Bytes) -> Decoded<Self> {
        let mut parts = Parts::new(header, body, payload)?;
        let order = match header.code {
            DISKS => Self::Disks,
            code if files::CALLS.contains(&code) => {
                Self::Disk { slot: header.disk, call: files::unpack_call(code, &mut parts)? }
            }
            code => Self::Shard(Request {
                disk: DiskId(header.disk),
                epoch: Epoch(header.epoch),
                priority: shards::priority_from(header.priority)?,
                operation: shards::unpack_operation(code, &mut parts)?,
            }),
        };
        parts.finish()?;
        Ok(order)
    }
}

/// A body that is being read, and the pieces that came behind it.
struct Parts<'a> {
    fields: Reader<'a>,
    pieces: std::vec::IntoIter<Bytes>,
}

impl<'a> Parts<'a> {
    /// Checks body and pieces against their sums.
    fn new(header: &Header, body: &'a [u8], payload: Bytes) -> Decoded<Self> {
        if body.len() != header.body_bytes as usize || payload.len() as u64 != header.payload_bytes
        {
            return Err(FormatError::Short);
        }
        if xxh3(body) != header.body_sum {
            return Err(FormatError::Sum);
        }
        let mut reader = Reader::new(body);
        let count = usize::try_from(reader.u32()?).map_err(|_e| FormatError::Invalid("pieces"))?;
        let table = count.checked_mul(PIECE_BYTES).ok_or(FormatError::Invalid("pieces"))?;
        let mut table = Reader::new(reader.take(table)?);
        let mut pieces = Vec::with_capacity(count);
        let mut rest = payload;
        for _piece in 0..count {
            let length =
                usize::try_from(table.u32()?).map_err(|_e| FormatError::Invalid("piece"))?;
            if length > rest.len() {
                return Err(FormatError::Short);
            }
            let piece = rest.split_to(length);
            if table.u64()? != xxh3(&piece) {
                return Err(FormatError::Sum);
            }
            pieces.push(piece);
        }
        if !rest.is_empty() {
            return Err(FormatError::Trailing);
        }
        Ok(Self { fields: reader, pieces: pieces.into_iter() })
    }

    fn key(&mut self) -> Decoded<ShardKey> {
        let stripe = StripeId(self.fields.u64()?);
        Ok(ShardKey { stripe, index: ShardIndex(self.fields.u8()?) })
    }

    fn text(&mut self, most: usize) -> Decoded<String> {
        let bytes = self.fields.bytes(most, "text")?;
        String::from_utf8(bytes.to_vec()).map_err(|_e| FormatError::Invalid("text"))
    }

    fn header(&mut self) -> Decoded<ShardHeader> {
        Ok(ShardHeader {
            key: self.key()?,
            class: ClassId(self.fields.u16()?),
            data_shards: self.fields.u8()?,
            parity_shards: self.fields.u8()?,
            cell_bytes: self.fields.u32()?,
            epoch: Epoch(self.fields.u64()?),
        })
    }

    fn space(&mut self) -> Decoded<Space> {
        Ok(Space {
            total_bytes: self.fields.u64()?,
            free_bytes: self.fields.u64()?,
            device: self.fields.u64()?,
        })
    }

    fn slot(&mut self) -> Decoded<ServedSlot> {
        let slot = self.fields.u32()?;
        let (is_disk, disk) = (self.fields.flag("disk")?, DiskId(self.fields.u32()?));
        let path = self.text(NAME_BYTES_MAX)?;
        Ok(ServedSlot { slot, disk: is_disk.then_some(disk), path })
    }

    fn piece(&mut self) -> Decoded<Bytes> {
        self.pieces.next().ok_or(FormatError::Short)
    }

    fn all_pieces(&mut self) -> Vec<Bytes> {
        self.pieces.by_ref().collect()
    }

    /// Nothing may be left over.
    fn finish(mut self) -> Decoded<()> {
        if self.pieces.next().is_some() {
            return Err(FormatError::Trailing);
        }
        self.fields.finish()
    }
}

impl Answer {
    /// The bytes of the answer to request number `id`.
    pub fn pack(self, id: u64) -> Packed {
        let mut body = Body::default();
        let code = match self {
            Self::Shard(response) => shards::pack_response(&mut body, response),
            Self::Disk(reply) => files::pack_reply(&mut body, reply),
            Self::Disks(Served { rack, zone, slots }) => {
                body.text(&rack);
                body.text(&zone);
                body.fields.count(slots.len());
                for served in slots {
                    body.fields.u32(served.slot);
                    body.fields.flag(served.disk.is_some());
                    body.fields.u32(served.disk.unwrap_or_default().get());
                    body.text(&served.path);
                }
                SERVED
            }
            Self::Error(error) => {
                pack_error(&mut body, &error);
                ERROR
            }
        };
        body.pack(code, (id, MountId::default()), Target::default())
    }

    /// What an answer with this header says.
    pub fn unpack(header: &Header, body: &[u8], payload: Bytes) -> Decoded<Self> {
        let mut parts = Parts::new(header, body, payload)?;
        let answer = match header.code {
            SERVED => {
                let (rack, zone) = (parts.text(DOMAIN_BYTES_MAX)?, parts.text(DOMAIN_BYTES_MAX)?);
                let count = parts.fields.count(SLOT_BYTES_MIN, "slots")?;
                let slots = (0..count).map(|_slot| parts.slot()).collect::<Decoded<_>>()?;
                Self::Disks(Served { rack, zone, slots })
            }
            ERROR => Self::Error(unpack_error(&mut parts)?),
            code if files::REPLIES.contains(&code) => {
                Self::Disk(files::unpack_reply(code, &mut parts)?)
            }
            code => Self::Shard(shards::unpack_response(code, &mut parts)?),
        };
        parts.finish()?;
        Ok(answer)
    }
}

fn pack_error(body: &mut Body, error: &Error) {
    let (kind, posix) = match error.kind() {
        ErrorKind::Posix(posix) => (0, posix.code()),
        ErrorKind::Unavailable => (1, 0),
        ErrorKind::Fenced => (2, 0),
        ErrorKind::Corrupt => (3, 0),
        ErrorKind::Refused => (4, 0),
        ErrorKind::Internal => (5, 0),
        ErrorKind::Superseded => (6, 0),
    };
    body.fields.u8(kind);
    body.fields.u8(posix);
    let mut text = error.to_string();
    // On the boundary of a letter.
    let most = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at));
    text.truncate(most.unwrap_or(0));
    body.text(&text);
}

fn unpack_error(parts: &mut Parts<'_>) -> Decoded<Error> {
    let (kind, posix) = (parts.fields.u8()?, parts.fields.u8()?);
    let kind = match kind {
        0 => ErrorKind::Posix(Posix::from_code(posix).ok_or(FormatError::Invalid("error"))?),
        1 => ErrorKind::Unavailable,
        2 => ErrorKind::Fenced,
        3 => ErrorKind::Corrupt,
        4 => ErrorKind::Refused,
        5 => ErrorKind::Internal,
        6 => ErrorKind::Superseded,
        _ => return Err(FormatError::Invalid("kind of an error")),
    };
    Ok(Error::new(kind, parts.text(TEXT_BYTES_MAX)?))
}
