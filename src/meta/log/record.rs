//! Bytes of a log file: its header and its records. Knows nothing of disks.
//!
//! Header, one sector, little-endian:
//!
//! | offset | bytes | name | meaning |
//! |---|---|---|---|
//! | 0 | 4 | magic | `IFLG` |
//! | 4 | 2 | version | 1 |
//! | 6 | 2 | apply | version of `apply` that the records were written for |
//! | 8 | 16 | volume | |
//! | 24 | 8 | base | epoch at which the chain was begun |
//! | 32 | 8 | epoch | epoch when the file was made |
//! | 40 | 8 | first | position of the first record |
//! | 48 | 8 | sum | XXH3-64 of bytes 0..48 |
//!
//! Record, on a multiple of 8 bytes:
//!
//! | offset | bytes | name | meaning |
//! |---|---|---|---|
//! | 0 | 8 | sum | XXH3-64 of all that follows, xor the seed of the chain |
//! | 8 | 4 | check | CRC-32C of bytes 12..40, xor the low half of the seed: whether `length` can be trusted |
//! | 12 | 4 | length | bytes of the command, never 0 |
//! | 16 | 8 | position | |
//! | 24 | 8 | epoch | epoch when it was written |
//! | 32 | 8 | batch | position of the first record of its batch |
//! | 40 | length | command | as `Command::encode` has it; zeros up to a multiple of 8 |
//!
//! The seed is XXH3-64 of volume and base, so a record of another volume or chain never passes.
#![deny(clippy::indexing_slicing)]

use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::limits::COMMAND_BYTES_MAX;
use crate::meta::command::APPLY_VERSION;
use crate::meta::log::Chain;
use crate::sum::{crc32c, xxh3};
use crate::types::{Epoch, LogPosition, VolumeId};
use bytes::Bytes;

/// Unit that the medium writes whole.
pub const SECTOR_BYTES: usize = 512;
/// Bytes of a record before its command.
pub const RECORD_HEADER_BYTES: usize = 40;
/// Records start on a multiple of this.
const RECORD_ALIGN: usize = 8;

const MAGIC: [u8; 4] = *b"IFLG";
const VERSION: u16 = 1;

/// First sector of a log file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Chain that the file belongs to.
    pub chain: Chain,
    /// Version of `apply` that its records need.
    pub apply_version: u16,
    /// Epoch when it was made.
    pub epoch: Epoch,
    /// Position of its first record.
    pub first: LogPosition,
}

impl Header {
    /// Header of a new file.
    pub const fn new(chain: Chain, epoch: Epoch, first: LogPosition) -> Self {
        Self { chain, apply_version: APPLY_VERSION, epoch, first }
    }

    /// One sector.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::with_capacity(SECTOR_BYTES);
        writer.raw(&MAGIC);
        writer.u16(VERSION);
        writer.u16(self.apply_version);
        writer.raw(&self.chain.volume.0);
        writer.u64(self.chain.base.get());
        writer.u64(self.epoch.get());
        writer.u64(self.first.get());
        writer.u64(xxh3(writer.as_slice()));
        writer.pad_to(SECTOR_BYTES);
        writer.into_vec()
    }

    /// The header in the first sector of a file.
    pub fn decode(sector: &[u8]) -> Decoded<Self> {
        let mut sealed = Reader::new(sector);
        let summed = sealed.take(48)?;
        if xxh3(summed) != sealed.u64()? {
            return Err(FormatError::Sum);
        }
        let mut reader = Reader::new(summed);
        if reader.array::<4>()? != MAGIC {
            return Err(FormatError::Invalid("magic"));
        }
        let version = reader.u16()?;
        if version > VERSION {
            return Err(FormatError::Newer { known: VERSION, found: version });
        }
        let apply_version = reader.u16()?;
        let chain = Chain { volume: VolumeId(reader.array()?), base: Epoch(reader.u64()?) };
        let epoch = Epoch(reader.u64()?);
        let first = LogPosition(reader.u64()?);
        reader.finish()?;
        Ok(Self { chain, apply_version, epoch, first })
    }
}

/// One command in the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its place.
    pub position: LogPosition,
    /// Epoch when it was written.
    pub epoch: Epoch,
    /// First position of the batch it was written with: everything before was durable by then.
    pub batch: LogPosition,
    /// The encoded command.
    pub command: Bytes,
}

/// What is at one place of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Found {
    /// A good record, and the length that it takes.
    Record(Record, usize),
    /// A record whose command is damaged, and the length that it takes.
    Damaged(usize),
    /// No record starts here.
    Nothing,
}

/// What all sums of a chain are mixed with.
pub fn seed(chain: Chain) -> u64 {
    let mut writer = Writer::with_capacity(24);
    writer.raw(&chain.volume.0);
    writer.u64(chain.base.get());
    xxh3(writer.as_slice())
}

/// Looks for a record at the front of `bytes`.
pub fn find(bytes: &[u8], seed: u64) -> Found {
    let Ok((sum, check)) = read_sums(bytes) else { return Found::Nothing };
    let Some(fields) = bytes.get(12..RECORD_HEADER_BYTES) else { return Found::Nothing };
    if crc32c(fields) ^ low_half(seed) != check {
        return Found::Nothing;
    }
    let Ok((length, position, epoch, batch)) = read_fields(fields) else { return Found::Nothing };
    if length == 0 || length > COMMAND_BYTES_MAX {
        return Found::Nothing;
    }
    let end = RECORD_HEADER_BYTES + length;
    let taken = end.next_multiple_of(RECORD_ALIGN);
    match (bytes.get(8..end), bytes.get(RECORD_HEADER_BYTES..end)) {
        (Some(summed), Some(command)) if xxh3(summed) ^ seed == sum => {
            let command = Bytes::copy_from_slice(command);
            Found::Record(Record { position, epoch, batch, command }, taken)
        }
        _ => Found::Damaged(taken),
    }
}

fn read_sums(bytes: &[u8]) -> Decoded<(u64, u32)> {
    let mut reader = Reader::new(bytes);
    Ok((reader.u64()?, reader.u32()?))
}

fn read_fields(fields: &[u8]) -> Decoded<(usize, LogPosition, Epoch, LogPosition)> {
    let mut reader = Reader::new(fields);
    let length = usize::try_from(reader.u32()?).map_err(|_e| FormatError::Invalid("length"))?;
    Ok((length, LogPosition(reader.u64()?), Epoch(reader.u64()?), LogPosition(reader.u64()?)))
}

fn low_half(seed: u64) -> u32 {
    u32::try_from(seed & u64::from(u32::MAX)).expect("the mask leaves 32 bits")
}

/// Records that are written and synced together, sealed for one chain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    first: LogPosition,
    end: LogPosition,
    epoch: Epoch,
    bytes: Bytes,
}

impl Batch {
    /// Seals `commands` (encoded, each 1 to `COMMAND_BYTES_MAX` bytes), the first of them at position `first`. An
    /// empty batch is one sector of zeros: it opens a file and holds nothing.
    pub fn seal(chain: Chain, epoch: Epoch, first: LogPosition, commands: &[Bytes]) -> Self {
        let seed = seed(chain);
        let room = |command: &Bytes| RECORD_HEADER_BYTES + command.len() + RECORD_ALIGN;
        let capacity: usize = commands.iter().map(room).sum();
        let mut out = Vec::with_capacity(capacity.next_multiple_of(SECTOR_BYTES));
        for (position, command) in (first.get()..).zip(commands) {
            put_record(&mut out, seed, [position, epoch.get(), first.get()], command);
        }
        out.resize(out.len().next_multiple_of(SECTOR_BYTES).max(SECTOR_BYTES), 0);
        let end = first.advance(commands.len() as u64);
        Self { first, end, epoch, bytes: out.into() }
    }

    /// Position of the first record.
    pub const fn first(&self) -> LogPosition {
        self.first
    }

    /// Position behind the last record.
    pub const fn end(&self) -> LogPosition {
        self.end
    }

    /// Epoch of the records.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whole sectors.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Appends one record; `numbers` are its position, epoch and batch.
fn put_record(out: &mut Vec<u8>, seed: u64, numbers: [u64; 3], command: &[u8]) {
    let mut fields = Writer::with_capacity(RECORD_HEADER_BYTES - 12);
    fields.count(command.len());
    numbers.into_iter().for_each(|number| fields.u64(number));
    let check = crc32c(fields.as_slice()) ^ low_half(seed);
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&check.to_le_bytes());
    out.extend_from_slice(fields.as_slice());
    out.extend_from_slice(command);
    let sum = xxh3(out.get(start + 8..).unwrap_or_default()) ^ seed;
    if let Some(place) = out.get_mut(start..start + 8) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(RECORD_ALIGN), 0);
}

const _: () = assert!(RECORD_HEADER_BYTES.is_multiple_of(RECORD_ALIGN));
const _: () = assert!(SECTOR_BYTES.is_multiple_of(RECORD_ALIGN));
