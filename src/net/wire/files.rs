//! Calls of the files of a disk, and their replies, as bytes.

use super::super::{DiskCall, DiskReply, FileId};
use super::{Body, NAME_BYTES_MAX, Parts};
use crate::disk::{DiskEntry, DiskIdentity, OpenMode};
use crate::format::{Decoded, FormatError};
use bytes::Bytes;
use std::ops::RangeInclusive;

/// Codes of calls.
pub(super) const CALLS: RangeInclusive<u8> = OPEN..=WRITE_MANY;
/// Codes of replies.
pub(super) const REPLIES: RangeInclusive<u8> = FILE_DONE..=IDENTIFIED;

/// Bytes of an offset.
const OFFSET_BYTES: usize = 8;

const OPEN: u8 = 32;
const LENGTH: u8 = 33;
const READ: u8 = 34;
const WRITE: u8 = 35;
const SET_LENGTH: u8 = 36;
const SYNC: u8 = 37;
const CLOSE: u8 = 38;
const REMOVE: u8 = 39;
const RENAME: u8 = 40;
const CREATE_DIR: u8 = 41;
const LIST_DIR: u8 = 42;
const SYNC_DIR: u8 = 43;
const IDENTITY: u8 = 44;
const DISK_SPACE: u8 = 45;
const LOCK: u8 = 46;
const UNLOCK: u8 = 47;
const WRITE_MANY: u8 = 48;
const FILE_DONE: u8 = 160;
const OPENED: u8 = 161;
const NUMBER: u8 = 162;
const CONTENT: u8 = 163;
const ENTRIES: u8 = 164;
const DISK_SPACED: u8 = 165;
const IDENTIFIED: u8 = 166;

pub(super) fn pack_call(body: &mut Body, call: DiskCall) -> u8 {
    match call {
        DiskCall::Open { name, mode } => {
            body.text(&name);
            body.fields.u8(mode_code(mode));
            OPEN
        }
        DiskCall::Length(file) => {
            body.fields.u64(file.0);
            LENGTH
        }
        DiskCall::Read { file, offset, length } => {
            body.fields.u64(file.0);
            body.fields.u64(offset);
            body.fields.u32(length);
            READ
        }
        DiskCall::Write { file, offset, data, durable } => {
            body.fields.u64(file.0);
            body.fields.u64(offset);
            body.fields.flag(durable);
            body.pieces.push(data);
            WRITE
        }
        DiskCall::SetLength { file, length } => {
            body.fields.u64(file.0);
            body.fields.u64(length);
            SET_LENGTH
        }
        DiskCall::Sync(file) => {
            body.fields.u64(file.0);
            SYNC
        }
        DiskCall::Close(file) => {
            body.fields.u64(file.0);
            CLOSE
        }
        DiskCall::Remove(name) => {
            body.text(&name);
            REMOVE
        }
        DiskCall::Rename { from, to } => {
            body.text(&from);
            body.text(&to);
            RENAME
        }
        DiskCall::CreateDir(name) => {
            body.text(&name);
            CREATE_DIR
        }
        DiskCall::ListDir(name) => {
            body.text(&name);
            LIST_DIR
        }
        DiskCall::SyncDir(name) => {
            body.text(&name);
            SYNC_DIR
        }
        DiskCall::Identity => IDENTITY,
        DiskCall::Space => DISK_SPACE,
        DiskCall::Lock { holder } => {
            body.text(&holder);
            LOCK
        }
        DiskCall::Unlock => UNLOCK,
        DiskCall::WriteMany { file, parts } => {
            pack_parts(body, file, parts);
            WRITE_MANY
        }
    }
}

fn pack_parts(body: &mut Body, file: FileId, parts: Vec<(u64, Bytes)>) {
    body.fields.u64(file.0);
    body.fields.count(parts.len());
    for (offset, data) in parts {
        body.fields.u64(offset);
        body.pieces.push(data);
    }
}

pub(super) fn unpack_call(code: u8, parts: &mut Parts<'_>) -> Decoded<DiskCall> {
    let name = |parts: &mut Parts<'_>| parts.text(NAME_BYTES_MAX);
    let file = |parts: &mut Parts<'_>| Ok(FileId(parts.fields.u64()?));
    Ok(match code {
        OPEN => DiskCall::Open { name: name(parts)?, mode: mode_from(parts.fields.u8()?)? },
        LENGTH => DiskCall::Length(file(parts)?),
        READ => DiskCall::Read {
            file: file(parts)?,
            offset: parts.fields.u64()?,
            length: parts.fields.u32()?,
        },
        WRITE => DiskCall::Write {
            file: file(parts)?,
            offset: parts.fields.u64()?,
            durable: parts.fields.flag("durable")?,
            data: parts.piece()?,
        },
        SET_LENGTH => DiskCall::SetLength { file: file(parts)?, length: parts.fields.u64()? },
        SYNC => DiskCall::Sync(file(parts)?),
        CLOSE => DiskCall::Close(file(parts)?),
        REMOVE => DiskCall::Remove(name(parts)?),
        RENAME => DiskCall::Rename { from: name(parts)?, to: name(parts)? },
        CREATE_DIR => DiskCall::CreateDir(name(parts)?),
        LIST_DIR => DiskCall::ListDir(name(parts)?),
        SYNC_DIR => DiskCall::SyncDir(name(parts)?),
        IDENTITY => DiskCall::Identity,
        DISK_SPACE => DiskCall::Space,
        LOCK => DiskCall::Lock { holder: name(parts)? },
        UNLOCK => DiskCall::Unlock,
        WRITE_MANY => {
            let file = file(parts)?;
            let count = parts.fields.count(OFFSET_BYTES, "parts")?;
            let part = |_| Ok((parts.fields.u64()?, parts.piece()?));
            DiskCall::WriteMany { file, parts: (0..count).map(part).collect::<Decoded<_>>()? }
        }
        _ => return Err(FormatError::Invalid("code of a request")),
    })
}

const fn mode_code(mode: OpenMode) -> u8 {
    match mode {
        OpenMode::Read => 0,
        OpenMode::Write => 1,
        OpenMode::CreateNew => 2,
    }
}

const fn mode_from(code: u8) -> Decoded<OpenMode> {
    match code {
        0 => Ok(OpenMode::Read),
        1 => Ok(OpenMode::Write),
        2 => Ok(OpenMode::CreateNew),
        _ => Err(FormatError::Invalid("mode")),
    }
}

pub(super) fn pack_reply(body: &mut Body, reply: DiskReply) -> u8 {
    match reply {
        DiskReply::Done => FILE_DONE,
        DiskReply::Opened(file) => {
            body.fields.u64(file.0);
            OPENED
        }
        DiskReply::Length(number) => {
            body.fields.u64(number);
            NUMBER
        }
        DiskReply::Bytes(bytes) => {
            body.pieces.push(bytes);
            CONTENT
        }
        DiskReply::Entries(entries) => {
            body.fields.count(entries.len());
            for entry in entries {
                body.text(&entry.name);
                body.fields.flag(entry.is_dir);
            }
            ENTRIES
        }
        DiskReply::Space(space) => {
            body.space(space);
            DISK_SPACED
        }
        DiskReply::Identity(identity) => {
            body.fields.u64(identity.device);
            body.fields.u64(identity.inode);
            IDENTIFIED
        }
    }
}

pub(super) fn unpack_reply(code: u8, parts: &mut Parts<'_>) -> Decoded<DiskReply> {
    Ok(match code {
        FILE_DONE => DiskReply::Done,
        OPENED => DiskReply::Opened(FileId(parts.fields.u64()?)),
        NUMBER => DiskReply::Length(parts.fields.u64()?),
        CONTENT => DiskReply::Bytes(parts.piece()?),
        ENTRIES => {
            let count = parts.fields.count(5, "entries")?;
            let entry = |_| {
                let name = parts.text(NAME_BYTES_MAX)?;
                Ok(DiskEntry { name, is_dir: parts.fields.flag("directory")? })
            };
            DiskReply::Entries((0..count).map(entry).collect::<Decoded<_>>()?)
        }
        DISK_SPACED => DiskReply::Space(parts.space()?),
        IDENTIFIED => DiskReply::Identity(DiskIdentity {
            device: parts.fields.u64()?,
            inode: parts.fields.u64()?,
        }),
        _ => return Err(FormatError::Invalid("code of an answer")),
    })
}
