//! Requests about shards, and their answers, as bytes.

use super::super::gather::{Gather, NodeAddress, Source};
use super::super::{Operation, Priority, Response, Seal, ShardFooter};
use super::{Body, Parts, pack_error, unpack_error};
use crate::config::HOLDER_BYTES_MAX;
use crate::erasure::Scheme;
use crate::format::{Decoded, FormatError};
use crate::limits::DATA_SHARDS_MAX;
use crate::types::{DiskId, ShardIndex};
use std::ops::Range;

/// Bytes of a key in a list.
const KEY_BYTES: usize = 9;
const RANGE_BYTES: usize = 16;
/// Least bytes of a source.
const SOURCE_BYTES_MIN: usize = 13;
/// Longest address of a node: a name of DNS (RFC 1035), a colon and a port.
const ADDRESS_BYTES_MAX: usize = 255 + 6;

const BEGIN: u8 = 1;
const APPEND: u8 = 2;
const SEAL: u8 = 3;
const ABORT: u8 = 4;
const FETCH: u8 = 5;
const STAT: u8 = 6;
const VERIFY: u8 = 7;
const DELETE: u8 = 8;
const LIST: u8 = 9;
const ADOPT: u8 = 10;
const SPACE: u8 = 11;
const GATHER: u8 = 12;
const DONE: u8 = 128;
const SEALED: u8 = 129;
const BYTES: u8 = 130;
const FOOTER: u8 = 131;
const KEYS: u8 = 132;
const SPACED: u8 = 133;
const LACKING: u8 = 134;
/// Kinds of schemes, as in the stored form of a class.
const COPIES: u8 = 1;
const REED_SOLOMON: u8 = 2;

pub(super) const fn priority_code(priority: Priority) -> u8 {
    match priority {
        Priority::Sync => 0,
        Priority::Read => 1,
        Priority::Background => 2,
    }
}

pub(super) const fn priority_from(code: u8) -> Decoded<Priority> {
    match code {
        0 => Ok(Priority::Sync),
        1 => Ok(Priority::Read),
        2 => Ok(Priority::Background),
        _ => Err(FormatError::Invalid("priority")),
    }
}

pub(super) fn pack_operation(body: &mut Body, operation: Operation) -> u8 {
    match operation {
        Operation::Begin(header) => {
            body.header(&header);
            BEGIN
        }
        Operation::Append(key, cells) => {
            body.key(key);
            body.pieces = cells;
            APPEND
        }
        Operation::Seal(key, seal) => {
            body.key(key);
            body.fields.u64(seal.payload_bytes);
            body.pieces.push(seal.slot_table);
            SEAL
        }
        Operation::Abort(key) => {
            body.key(key);
            ABORT
        }
        Operation::Fetch(key, ranges) => {
            body.key(key);
            body.fields.count(ranges.len());
            for range in ranges {
                body.fields.u64(range.start);
                body.fields.u64(range.end);
            }
            FETCH
        }
        Operation::Stat(key) => {
            body.key(key);
            STAT
        }
        Operation::Verify(key) => {
            body.key(key);
            VERIFY
        }
        Operation::Delete(key) => {
            body.key(key);
            DELETE
        }
        Operation::List { after, limit, seen } => {
            body.fields.flag(after.is_some());
            if let Some(after) = after {
                body.key(after);
            }
            body.fields.count(limit);
            body.fields.flag(seen);
            LIST
        }
        Operation::Adopt { part } => {
            body.fields.u16(part);
            ADOPT
        }
        Operation::Space => SPACE,
        Operation::Gather(gather) => {
            pack_gather(body, gather);
            GATHER
        }
    }
}

fn pack_gather(body: &mut Body, gather: Gather) {
    let Gather { header, scheme, columns, sources } = gather;
    body.header(&header);
    // Its counts are those of the header.
    body.fields.u8(match scheme {
        Scheme::Replica(_) => COPIES,
        Scheme::ReedSolomon { .. } => REED_SOLOMON,
    });
    body.fields.u64(columns.start);
    body.fields.u64(columns.end);
    body.fields.count(sources.len());
    for Source { index, disk, node } in sources {
        body.fields.u8(index.0);
        body.fields.u32(disk.get());
        body.text(&node.name);
        body.text(&node.address);
    }
}

pub(super) fn unpack_operation(code: u8, parts: &mut Parts<'_>) -> Decoded<Operation> {
    Ok(match code {
        BEGIN => Operation::Begin(parts.header()?),
        APPEND => Operation::Append(parts.key()?, parts.all_pieces()),
        SEAL => {
            let key = parts.key()?;
            let payload_bytes = parts.fields.u64()?;
            Operation::Seal(key, Seal { payload_bytes, slot_table: parts.piece()? })
        }
        ABORT => Operation::Abort(parts.key()?),
        FETCH => {
            let key = parts.key()?;
            let count = parts.fields.count(RANGE_BYTES, "ranges")?;
            let ranges: Decoded<Vec<Range<u64>>> =
                (0..count).map(|_| Ok(parts.fields.u64()?..parts.fields.u64()?)).collect();
            Operation::Fetch(key, ranges?)
        }
        STAT => Operation::Stat(parts.key()?),
        VERIFY => Operation::Verify(parts.key()?),
        DELETE => Operation::Delete(parts.key()?),
        LIST => {
            let after = if parts.fields.flag("after")? { Some(parts.key()?) } else { None };
            let limit = usize::try_from(parts.fields.u32()?).unwrap_or(usize::MAX);
            Operation::List { after, limit, seen: parts.fields.flag("seen")? }
        }
        ADOPT => Operation::Adopt { part: parts.fields.u16()? },
        SPACE => Operation::Space,
        GATHER => Operation::Gather(unpack_gather(parts)?),
        _ => return Err(FormatError::Invalid("code of a request")),
    })
}

fn unpack_gather(parts: &mut Parts<'_>) -> Decoded<Gather> {
    let header = parts.header()?;
    let scheme = match (parts.fields.u8()?, header.data_shards, header.parity_shards) {
        (COPIES, 1, m) => m.checked_add(1).map(Scheme::Replica),
        (REED_SOLOMON, k, m) => Some(Scheme::ReedSolomon { k, m }),
        _ => None,
    };
    let scheme = scheme.ok_or(FormatError::Invalid("scheme"))?;
    let columns = parts.fields.u64()?..parts.fields.u64()?;
    let count = parts.fields.count(SOURCE_BYTES_MIN, "sources")?;
    if count > usize::from(DATA_SHARDS_MAX) {
        return Err(FormatError::Invalid("sources"));
    }
    let sources = (0..count).map(|_source| unpack_source(parts)).collect::<Decoded<_>>()?;
    Ok(Gather { header, scheme, columns, sources })
}

fn unpack_source(parts: &mut Parts<'_>) -> Decoded<Source> {
    let (index, disk) = (ShardIndex(parts.fields.u8()?), DiskId(parts.fields.u32()?));
    let name = parts.text(HOLDER_BYTES_MAX)?;
    let node = NodeAddress { name, address: parts.text(ADDRESS_BYTES_MAX)? };
    Ok(Source { index, disk, node })
}

pub(super) fn pack_response(body: &mut Body, response: Response) -> u8 {
    match response {
        Response::Done => DONE,
        Response::Sealed { root } => {
            body.fields.raw(&root);
            SEALED
        }
        Response::Bytes(ranges) => {
            body.pieces = ranges;
            BYTES
        }
        Response::Footer(footer) => {
            body.header(&footer.header);
            body.fields.u64(footer.payload_bytes);
            body.fields.u64(footer.cells_bytes);
            body.fields.raw(&footer.root);
            body.pieces.push(footer.slot_table);
            FOOTER
        }
        Response::Keys(keys) => {
            body.fields.count(keys.len());
            keys.into_iter().for_each(|key| body.key(key));
            KEYS
        }
        Response::Space(space) => {
            body.space(space);
            SPACED
        }
        Response::Lacking { index, error } => {
            body.fields.u8(index.0);
            pack_error(body, &error);
            LACKING
        }
    }
}

pub(super) fn unpack_response(code: u8, parts: &mut Parts<'_>) -> Decoded<Response> {
    Ok(match code {
        DONE => Response::Done,
        SEALED => Response::Sealed { root: parts.fields.array()? },
        BYTES => Response::Bytes(parts.all_pieces()),
        FOOTER => Response::Footer(ShardFooter {
            header: parts.header()?,
            payload_bytes: parts.fields.u64()?,
            cells_bytes: parts.fields.u64()?,
            root: parts.fields.array()?,
            slot_table: parts.piece()?,
        }),
        KEYS => {
            let count = parts.fields.count(KEY_BYTES, "keys")?;
            Response::Keys((0..count).map(|_key| parts.key()).collect::<Decoded<_>>()?)
        }
        SPACED => Response::Space(parts.space()?),
        LACKING => {
            Response::Lacking { index: ShardIndex(parts.fields.u8()?), error: unpack_error(parts)? }
        }
        _ => return Err(FormatError::Invalid("code of an answer")),
    })
}
