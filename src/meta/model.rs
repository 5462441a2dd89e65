//! The state machine: what each command does to the tables. Deterministic: no clock, no randomness, no float, no
//! order of hash maps; the only writer of metadata. Knows no disk, no log and no lock.
//!
//! Every function checks all that may be refused before its first change, so a command that answers an error has
//! changed nothing.

mod attributes;
mod content;
mod names;
mod reap;
mod repairs;
mod segments;
mod stripes;
#[cfg(test)]
mod tests;

use crate::class::Class;
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::format::Writer;
use crate::meta::Reply;
use crate::meta::command::{Answer, Command, FileUpdate, Inode, SetAttributes};
use crate::meta::tables::{Txn, rows};
use crate::types::{ClassId, FileKind, Incarnation, Ino, ROOT_INO, Timestamp, Version};

/// Class that the format command defines.
pub const FIRST_CLASS: ClassId = ClassId(0);

/// Applies one command.
///
/// The inner result is the answer that belongs to the command. The outer error means that the state could not be
/// read or changed: the transaction must be given up.
pub fn apply(txn: &mut Txn<'_>, command: &Command) -> Result<Reply> {
    match perform(txn, command) {
        Ok(answer) => Ok(Ok(answer)),
        Err(error) => match error.kind() {
            ErrorKind::Posix(posix) => Ok(Err(posix)),
            ErrorKind::Unavailable
            | ErrorKind::Fenced
            | ErrorKind::Superseded
            | ErrorKind::Corrupt
            | ErrorKind::Refused
            | ErrorKind::Internal => Err(error),
        },
    }
}

fn perform(txn: &mut Txn<'_>, command: &Command) -> Result<Answer> {
    match command {
        Command::Genesis { class, uid, gid, time } => genesis(txn, class, (*uid, *gid), *time),
        Command::StartMount { incarnation } => start_mount(txn, *incarnation),
        Command::SetClass { id, class } => set_class(txn, *id, class),
        Command::Create { parent, name, node, time } => {
            names::create(txn, *parent, name, node, *time)
        }
        Command::Link { ino, parent, name, time } => names::link(txn, *ino, *parent, name, *time),
        Command::Unlink { parent, name, keep, time } => {
            names::unlink(txn, *parent, name, *keep, *time)
        }
        Command::Rmdir { parent, name, keep, time } => {
            names::rmdir(txn, *parent, name, *keep, *time)
        }
        Command::Rename(rename) => names::rename(txn, rename),
        Command::SetAttributes { ino, set } => attributes::set(txn, *ino, set),
        Command::SetAccessTimes { times } => attributes::set_access_times(txn, times),
        Command::SetXattr { ino, name, value, mode, set } => {
            attributes::set_xattr(txn, *ino, (name, value), *mode, set)
        }
        Command::RemoveXattr { ino, name, set } => attributes::remove_xattr(txn, *ino, name, set),
        Command::SetInodeClass { ino, class, time } => {
            attributes::set_class(txn, *ino, *class, *time)
        }
        Command::Truncate { ino, size, set } => content::truncate(txn, *ino, *size, set),
        Command::Punch { ino, first, count, set } => content::punch(txn, *ino, *first, *count, set),
        Command::CommitHot { file, extents } => content::commit_hot(txn, file, extents),
        Command::CommitInline { file, data } => content::commit_inline(txn, file, data),
        Command::Reserve { ino, bytes, file } => content::reserve(txn, *ino, *bytes, file),
        Command::CommitExtents { stripe, segments, files } => {
            stripes::commit(txn, stripe, segments, files)
        }
        Command::MoveExtents { stripe, segments } => stripes::relocate(txn, stripe, segments),
        Command::CloneExtents { from, from_first, to, to_first, count, file } => {
            let (from, to) = ((*from, *from_first), (*to, *to_first));
            content::clone_segments(txn, from, to, *count, file)
        }
        Command::ReleaseOrphans { inos } => reap::release_orphans(txn, inos),
        Command::Reap { chunks } => reap::reap(txn, *chunks),
        Command::ForgetStripes { stripes } => stripes::forget(txn, stripes),
        Command::PlaceShard { stripe, index, from, disk, root } => {
            stripes::place_shard(txn, (*stripe, *index), (*from, *disk), root)
        }
        Command::SetScrub { state } => repairs::set_scrub(txn, state),
        Command::NoteDamage { shards, time } => repairs::note_damage(txn, shards, *time),
        Command::NoteRepair { stripe, good, retry, time } => {
            repairs::note_repair(txn, *stripe, *good, *retry, *time)
        }
    }
}

fn genesis(
    txn: &mut Txn<'_>,
    class: &Class,
    (uid, gid): (u32, u32),
    time: Timestamp,
) -> Result<Answer> {
    if txn.totals.next_ino != 0 {
        return Err(Posix::Exists.into());
    }
    put_class(txn, FIRST_CLASS, class)?;
    let mut root = rows::new_inode(ROOT_INO, FileKind::Directory);
    (root.mode, root.uid, root.gid, root.links) = (0o755, uid, gid, 2);
    (root.atime, root.mtime, root.ctime) = (time, time, time);
    root.class = FIRST_CLASS;
    txn.put_inode(&root)?;
    txn.totals.next_ino = ROOT_INO.0 + 1;
    txn.totals.inodes = 1;
    Ok(Answer::Done)
}

fn start_mount(txn: &mut Txn<'_>, incarnation: Incarnation) -> Result<Answer> {
    if incarnation <= txn.totals.incarnation {
        return Err(Posix::Stale.into());
    }
    txn.totals.incarnation = incarnation;
    Ok(Answer::Done)
}

fn set_class(txn: &mut Txn<'_>, id: ClassId, class: &Class) -> Result<Answer> {
    put_class(txn, id, class)?;
    Ok(Answer::Done)
}

fn put_class(txn: &mut Txn<'_>, id: ClassId, class: &Class) -> Result<()> {
    let mut row = Writer::with_capacity(Class::STORED_BYTES_MAX);
    class.encode(&mut row);
    txn.put_class(id.0, row.as_slice())
}

/// An inode that must be there.
fn existing(txn: &Txn<'_>, ino: Ino) -> Result<Inode> {
    Ok(txn.inode(ino)?.ok_or(Posix::NotFound)?)
}

/// A regular file that must be there.
fn file(txn: &Txn<'_>, ino: Ino) -> Result<Inode> {
    let inode = existing(txn, ino)?;
    Posix::unless_file(inode.kind)?;
    Ok(inode)
}

/// Stores an inode and answers with it.
fn answer(txn: &mut Txn<'_>, inode: Inode) -> Result<Answer> {
    txn.put_inode(&inode)?;
    Ok(Answer::Inode(Box::new(inode)))
}

/// A version for content that changes now.
fn next_version(inode: &mut Inode) -> Version {
    let version = inode.version;
    inode.version = Version(version.0 + 1);
    version
}

fn set_attributes(inode: &mut Inode, set: &SetAttributes) {
    inode.mode = set.mode.unwrap_or(inode.mode);
    inode.uid = set.uid.unwrap_or(inode.uid);
    inode.gid = set.gid.unwrap_or(inode.gid);
    inode.atime = set.atime.unwrap_or(inode.atime);
    inode.mtime = set.mtime.unwrap_or(inode.mtime);
    inode.ctime = set.ctime.unwrap_or(inode.ctime);
}

fn update_file(inode: &mut Inode, file: &FileUpdate) {
    inode.size = file.size;
    inode.mtime = file.mtime.unwrap_or(inode.mtime);
    inode.ctime = file.ctime.unwrap_or(inode.ctime);
}

/// Content grew or shrank: what was reserved for it is used up as it grows.
fn allocate(txn: &mut Txn<'_>, inode: &mut Inode, before: u64) {
    let grown = inode.allocated_bytes.saturating_sub(before).min(inode.reserved_bytes);
    inode.reserved_bytes -= grown;
    txn.totals.reserved_bytes -= grown;
}

/// Forgets what was reserved.
fn unreserve(txn: &mut Txn<'_>, inode: &mut Inode) {
    txn.totals.reserved_bytes -= inode.reserved_bytes;
    inode.reserved_bytes = 0;
}

/// A sum that can only be wrong if the state is.
fn subtract(total: &mut u64, bytes: u64) -> Result<()> {
    *total = total
        .checked_sub(bytes)
        .ok_or_else(|| Error::corrupt(format!("a total of {total} loses {bytes}")))?;
    Ok(())
}
