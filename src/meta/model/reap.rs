//! Commands that release what no name leads to any more: orphans, deleted files, large cuts.

use super::segments::{ALL, Released, drop_segments, few_chunks, next_chunk};
use super::{existing, subtract, unreserve};
use crate::error::Result;
use crate::meta::command::{Answer, Inode};
use crate::meta::tables::Txn;
use crate::meta::tables::rows::{self, ReapEntry};
use crate::types::{ChunkIndex, FileKind, Ino};

/// Removes an inode that no name leads to. The content of a small one goes at once, that of a large one through the
/// reaping queue.
pub(super) fn remove(txn: &mut Txn<'_>, inode: &Inode) -> Result<()> {
    let mut inode = inode.clone();
    unreserve(txn, &mut inode);
    txn.remove_inode(inode.ino)?;
    subtract(&mut txn.totals.inodes, 1)?;
    let chunks = match inode.kind {
        FileKind::File => few_chunks(txn, inode.ino, ChunkIndex(0))?,
        FileKind::Directory
        | FileKind::Symlink
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice
        | FileKind::BlockDevice => Some(Vec::new()),
    };
    let Some(chunks) = chunks else {
        return txn.put_reap(inode.ino, ReapEntry { from: ChunkIndex(0), whole: true });
    };
    let mut released = Released::default();
    for chunk in chunks {
        drop_segments(txn, &mut inode, (chunk, ALL), None, &mut released)?;
    }
    released.settle(txn)?;
    if inode.cut.is_some() {
        txn.remove_reap(inode.ino)?;
    }
    if inode.has_xattrs { remove_xattrs(txn, inode.ino) } else { Ok(()) }
}

fn remove_xattrs(txn: &mut Txn<'_>, ino: Ino) -> Result<()> {
    for name in txn.xattr_names(ino)? {
        txn.remove_xattr(ino, &name)?;
    }
    Ok(())
}

pub(super) fn release_orphans(txn: &mut Txn<'_>, inos: &[Ino]) -> Result<Answer> {
    for ino in inos {
        if txn.remove_orphan(txn.totals.incarnation.0, *ino)? {
            let inode = existing(txn, *ino)?;
            remove(txn, &inode)?;
        }
    }
    Ok(Answer::Done)
}

pub(super) fn reap(txn: &mut Txn<'_>, chunks: u32) -> Result<Answer> {
    let mut done = 0;
    while done < chunks {
        if let Some((incarnation, ino)) = txn.first_old_orphan(txn.totals.incarnation.0)? {
            txn.remove_orphan(incarnation, ino)?;
            if let Some(inode) = txn.inode(ino)? {
                remove(txn, &inode)?;
            }
            done += 1;
            continue;
        }
        let Some((ino, entry)) = txn.first_reap()? else { break };
        match next_chunk(txn, ino, entry.from)? {
            Some(chunk) => reap_chunk(txn, ino, chunk, entry)?,
            None => finish(txn, ino, entry)?,
        }
        done += 1;
    }
    let more = pending(txn)?;
    Ok(Answer::Reaped { chunks: done, more })
}

fn pending(txn: &Txn<'_>) -> Result<bool> {
    let orphans = txn.first_old_orphan(txn.totals.incarnation.0)?.is_some();
    Ok(orphans || txn.first_reap()?.is_some())
}

fn reap_chunk(txn: &mut Txn<'_>, ino: Ino, chunk: ChunkIndex, entry: ReapEntry) -> Result<()> {
    let mut released = Released::default();
    if entry.whole {
        let mut gone = rows::new_inode(ino, FileKind::File);
        drop_segments(txn, &mut gone, (chunk, ALL), None, &mut released)?;
    } else {
        let mut inode = existing(txn, ino)?;
        let floor = inode.floor;
        drop_segments(txn, &mut inode, (chunk, ALL), Some(floor), &mut released)?;
        txn.put_inode(&inode)?;
    }
    released.settle(txn)?;
    match chunk.0.checked_add(1) {
        Some(next) => txn.put_reap(ino, ReapEntry { from: ChunkIndex(next), ..entry }),
        None => finish(txn, ino, entry),
    }
}

fn finish(txn: &mut Txn<'_>, ino: Ino, entry: ReapEntry) -> Result<()> {
    txn.remove_reap(ino)?;
    if entry.whole {
        return remove_xattrs(txn, ino);
    }
    if let Some(mut inode) = txn.inode(ino)? {
        inode.cut = None;
        txn.put_inode(&inode)?;
    }
    Ok(())
}
