//! Commands on names: create, link, unlink, rmdir, rename.

use super::{answer, existing, reap};
use crate::error::{Posix, Result};
use crate::limits::LINKS_MAX;
use crate::meta::command::{Answer, Inode, NewNode, Rename, RenameMode};
use crate::meta::tables::Txn;
use crate::meta::tables::rows::{self, Dentry};
use crate::types::{FileKind, Ino, ROOT_INO, Timestamp};
use bytes::Bytes;

/// A directory that names can be made in.
fn directory(txn: &Txn<'_>, ino: Ino) -> Result<Inode> {
    let inode = existing(txn, ino)?;
    if inode.kind != FileKind::Directory {
        return Err(Posix::NotDirectory.into());
    }
    if inode.links == 0 {
        return Err(Posix::NotFound.into());
    }
    Ok(inode)
}

fn named(txn: &Txn<'_>, parent: Ino, name: &[u8]) -> Result<Dentry> {
    Ok(txn.dentry(parent, name)?.ok_or(Posix::NotFound)?)
}

const fn is_dir(kind: FileKind) -> bool {
    matches!(kind, FileKind::Directory)
}

fn stamp(directory: &mut Inode, time: Timestamp) {
    directory.mtime = time;
    directory.ctime = time;
}

/// Adds a name to a directory; the caller stores the directory.
fn add_name(
    txn: &mut Txn<'_>,
    directory: &mut Inode,
    name: &[u8],
    (ino, kind): (Ino, FileKind),
) -> Result<()> {
    let dentry = Dentry { ino, kind, cookie: directory.next_cookie };
    txn.put_dentry(directory.ino, name, dentry)?;
    directory.next_cookie += 1;
    directory.size += 1;
    directory.links += u32::from(is_dir(kind));
    Ok(())
}

/// Takes a name from a directory; the caller stores the directory.
fn take_name(txn: &mut Txn<'_>, directory: &mut Inode, name: &[u8], dentry: Dentry) -> Result<()> {
    txn.remove_dentry(directory.ino, name, dentry.cookie)?;
    directory.size = directory.size.saturating_sub(1);
    directory.links -= u32::from(is_dir(dentry.kind)).min(directory.links);
    Ok(())
}

pub(super) fn create(
    txn: &mut Txn<'_>,
    parent: Ino,
    name: &[u8],
    node: &NewNode,
    time: Timestamp,
) -> Result<Answer> {
    let mut directory = directory(txn, parent)?;
    if txn.dentry(parent, name)?.is_some() {
        return Err(Posix::Exists.into());
    }
    if is_dir(node.kind) && directory.links >= LINKS_MAX {
        return Err(Posix::TooManyLinks.into());
    }
    check_new(txn, node)?;
    stamp(&mut directory, time);
    add_name(txn, &mut directory, name, (node.ino, node.kind))?;
    txn.put_inode(&directory)?;
    let inode = make_node(txn, &directory, node, time)?;
    answer(txn, inode)
}

fn check_new(txn: &Txn<'_>, node: &NewNode) -> Result<()> {
    if txn.inode(node.ino)?.is_some() || txn.is_reaped(node.ino)? || node.ino <= ROOT_INO {
        return Err(Posix::Exists.into());
    }
    match node.class {
        Some(class) if !txn.has_class(class.0)? => Err(Posix::Invalid.into()),
        Some(_) | None => Ok(()),
    }
}

/// The inode of a checked new node; the caller stores it.
fn make_node(
    txn: &mut Txn<'_>,
    directory: &Inode,
    node: &NewNode,
    time: Timestamp,
) -> Result<Inode> {
    let mut inode = rows::new_inode(node.ino, node.kind);
    (inode.mode, inode.uid, inode.gid, inode.rdev) = (node.mode, node.uid, node.gid, node.rdev);
    inode.links = 1 + u32::from(is_dir(node.kind));
    (inode.atime, inode.mtime, inode.ctime) = (time, time, time);
    inode.class = node.class.unwrap_or(directory.class);
    inode.parent = directory.ino;
    inode.has_xattrs = !node.xattrs.is_empty();
    if node.kind == FileKind::Symlink {
        inode.size = node.target.len() as u64;
        inode.inline = Bytes::copy_from_slice(&node.target);
    }
    for (name, value) in &node.xattrs {
        txn.put_xattr(node.ino, name, value)?;
    }
    txn.totals.next_ino = txn.totals.next_ino.max(node.ino.0 + 1);
    txn.totals.inodes += 1;
    Ok(inode)
}

pub(super) fn link(
    txn: &mut Txn<'_>,
    ino: Ino,
    parent: Ino,
    name: &[u8],
    time: Timestamp,
) -> Result<Answer> {
    let mut directory = directory(txn, parent)?;
    let mut inode = existing(txn, ino)?;
    if is_dir(inode.kind) {
        return Err(Posix::NotPermitted.into());
    }
    if inode.links == 0 {
        return Err(Posix::NotFound.into());
    }
    if inode.links >= LINKS_MAX {
        return Err(Posix::TooManyLinks.into());
    }
    if txn.dentry(parent, name)?.is_some() {
        return Err(Posix::Exists.into());
    }
    stamp(&mut directory, time);
    add_name(txn, &mut directory, name, (ino, inode.kind))?;
    txn.put_inode(&directory)?;
    gain_parent(txn, &mut inode, parent)?;
    inode.ctime = time;
    answer(txn, inode)
}

/// Counts one more name. Rows of parents exist only while there are several names.
fn gain_parent(txn: &mut Txn<'_>, inode: &mut Inode, parent: Ino) -> Result<()> {
    if inode.links == 1 {
        txn.put_link(inode.ino, inode.parent, 1)?;
    }
    let count = txn.link(inode.ino, parent)?;
    txn.put_link(inode.ino, parent, count + 1)?;
    inode.links += 1;
    Ok(())
}

/// Counts one name less, of something that is no directory.
fn lose_parent(txn: &mut Txn<'_>, inode: &mut Inode, parent: Ino) -> Result<()> {
    inode.links = inode.links.saturating_sub(1);
    if inode.links == 0 {
        return Ok(());
    }
    let count = txn.link(inode.ino, parent)?;
    txn.put_link(inode.ino, parent, count.saturating_sub(1))?;
    let some = txn.any_link(inode.ino)?.unwrap_or(inode.parent);
    if inode.links == 1 {
        txn.put_link(inode.ino, some, 0)?;
    }
    if inode.links == 1 || (inode.parent == parent && count <= 1) {
        inode.parent = some;
    }
    Ok(())
}

pub(super) fn unlink(
    txn: &mut Txn<'_>,
    parent: Ino,
    name: &[u8],
    keep: bool,
    time: Timestamp,
) -> Result<Answer> {
    let mut directory = directory(txn, parent)?;
    let dentry = named(txn, parent, name)?;
    if is_dir(dentry.kind) {
        return Err(Posix::IsDirectory.into());
    }
    let inode = existing(txn, dentry.ino)?;
    take_name(txn, &mut directory, name, dentry)?;
    stamp(&mut directory, time);
    txn.put_inode(&directory)?;
    lose_name(txn, inode, parent, (keep, time))
}

/// An inode has lost a name. Without any, it is kept as an orphan or goes.
fn lose_name(
    txn: &mut Txn<'_>,
    mut inode: Inode,
    parent: Ino,
    (keep, time): (bool, Timestamp),
) -> Result<Answer> {
    inode.ctime = time;
    if is_dir(inode.kind) {
        inode.links = 0;
    } else {
        lose_parent(txn, &mut inode, parent)?;
    }
    if inode.links == 0 && !keep {
        reap::remove(txn, &inode)?;
    } else {
        if inode.links == 0 {
            txn.put_orphan(txn.totals.incarnation.0, inode.ino)?;
        }
        txn.put_inode(&inode)?;
    }
    Ok(Answer::Removed(Some(Box::new(inode))))
}

pub(super) fn rmdir(
    txn: &mut Txn<'_>,
    parent: Ino,
    name: &[u8],
    keep: bool,
    time: Timestamp,
) -> Result<Answer> {
    let mut directory = directory(txn, parent)?;
    let dentry = named(txn, parent, name)?;
    if !is_dir(dentry.kind) {
        return Err(Posix::NotDirectory.into());
    }
    let inode = existing(txn, dentry.ino)?;
    if inode.size != 0 {
        return Err(Posix::NotEmpty.into());
    }
    take_name(txn, &mut directory, name, dentry)?;
    stamp(&mut directory, time);
    txn.put_inode(&directory)?;
    lose_name(txn, inode, parent, (keep, time))
}

/// The two directories of a rename, as they will be stored: one or two inodes.
struct Directories {
    from: Inode,
    to: Option<Inode>,
}

impl Directories {
    fn load(txn: &Txn<'_>, rename: &Rename) -> Result<Self> {
        let from = directory(txn, rename.from)?;
        let to = match rename.to == rename.from {
            true => None,
            false => Some(directory(txn, rename.to)?),
        };
        Ok(Self { from, to })
    }

    fn target(&mut self) -> &mut Inode {
        self.to.as_mut().unwrap_or(&mut self.from)
    }

    fn store(mut self, txn: &mut Txn<'_>, time: Timestamp) -> Result<()> {
        stamp(&mut self.from, time);
        txn.put_inode(&self.from)?;
        if let Some(mut to) = self.to {
            stamp(&mut to, time);
            txn.put_inode(&to)?;
        }
        Ok(())
    }
}

pub(super) fn rename(txn: &mut Txn<'_>, rename: &Rename) -> Result<Answer> {
    let directories = Directories::load(txn, rename)?;
    let source = named(txn, rename.from, &rename.from_name)?;
    let target = txn.dentry(rename.to, &rename.to_name)?;
    check_loop(txn, rename, source)?;
    match (rename.mode, target) {
        (RenameMode::Exchange, None) => Err(Posix::NotFound.into()),
        (RenameMode::Exchange, Some(target)) => {
            exchange(txn, rename, directories, (source, target))
        }
        (RenameMode::NoReplace, Some(_)) => Err(Posix::Exists.into()),
        (RenameMode::Replace | RenameMode::NoReplace, target) => {
            move_name(txn, rename, directories, (source, target))
        }
    }
}

/// A directory must not become a part of itself.
fn check_loop(txn: &Txn<'_>, rename: &Rename, moved: Dentry) -> Result<()> {
    if is_dir(moved.kind) && rename.from != rename.to && is_within(txn, rename.to, moved.ino)? {
        return Err(Posix::Invalid.into());
    }
    Ok(())
}

/// Whether `ino` is `ancestor` or lies below it.
fn is_within(txn: &Txn<'_>, mut ino: Ino, ancestor: Ino) -> Result<bool> {
    while ino != ancestor {
        if ino == ROOT_INO {
            return Ok(false);
        }
        ino = existing(txn, ino)?.parent;
    }
    Ok(true)
}

fn move_name(
    txn: &mut Txn<'_>,
    rename: &Rename,
    mut directories: Directories,
    (source, target): (Dentry, Option<Dentry>),
) -> Result<Answer> {
    let replaced = match target {
        Some(target) if target.ino == source.ino => return Ok(Answer::Removed(None)),
        Some(target) => {
            let inode = existing(txn, target.ino)?;
            check_replace(source, &inode)?;
            Some((target, inode))
        }
        None => None,
    };
    let moves_dir = is_dir(source.kind) && rename.from != rename.to && replaced.is_none();
    if moves_dir && directories.target().links >= LINKS_MAX {
        return Err(Posix::TooManyLinks.into());
    }
    if let Some(node) = &rename.whiteout {
        check_new(txn, node)?;
    }
    take_name(txn, &mut directories.from, &rename.from_name, source)?;
    if let Some((target, _inode)) = &replaced {
        take_name(txn, directories.target(), &rename.to_name, *target)?;
    }
    add_name(txn, directories.target(), &rename.to_name, (source.ino, source.kind))?;
    if let Some(node) = &rename.whiteout {
        add_name(txn, &mut directories.from, &rename.from_name, (node.ino, node.kind))?;
        let inode = make_node(txn, &directories.from, node, rename.time)?;
        txn.put_inode(&inode)?;
    }
    directories.store(txn, rename.time)?;
    change_parent(txn, source.ino, (rename.from, rename.to), rename.time)?;
    match replaced {
        None => Ok(Answer::Removed(None)),
        // Its row may have changed with the directories' only if it is one of them, and then it is not empty.
        Some((_target, inode)) => lose_name(txn, inode, rename.to, (true, rename.time)),
    }
}

fn check_replace(source: Dentry, target: &Inode) -> Result<()> {
    match (is_dir(source.kind), is_dir(target.kind)) {
        (true, false) => Err(Posix::NotDirectory.into()),
        (false, true) => Err(Posix::IsDirectory.into()),
        (true, true) if target.size != 0 => Err(Posix::NotEmpty.into()),
        (true, true) | (false, false) => Ok(()),
    }
}

/// A name of an inode has moved from one directory to another.
fn change_parent(
    txn: &mut Txn<'_>,
    ino: Ino,
    (from, to): (Ino, Ino),
    time: Timestamp,
) -> Result<()> {
    let mut inode = existing(txn, ino)?;
    inode.ctime = time;
    if is_dir(inode.kind) || inode.links <= 1 {
        inode.parent = to;
    } else if from != to {
        let count = txn.link(ino, from)?;
        txn.put_link(ino, from, count.saturating_sub(1))?;
        let count = txn.link(ino, to)?;
        txn.put_link(ino, to, count + 1)?;
        if inode.parent == from {
            inode.parent = to;
        }
    }
    txn.put_inode(&inode)
}

fn exchange(
    txn: &mut Txn<'_>,
    rename: &Rename,
    mut directories: Directories,
    (source, target): (Dentry, Dentry),
) -> Result<Answer> {
    if source.ino == target.ino {
        return Ok(Answer::Removed(None));
    }
    if is_dir(target.kind) && rename.from != rename.to && is_within(txn, rename.from, target.ino)? {
        return Err(Posix::Invalid.into());
    }
    let (gains, loses) = (is_dir(source.kind), is_dir(target.kind));
    if rename.from != rename.to {
        let to_links = directories.target().links + u32::from(gains) - u32::from(loses);
        let from_links = directories.from.links + u32::from(loses) - u32::from(gains);
        if to_links.max(from_links) > LINKS_MAX {
            return Err(Posix::TooManyLinks.into());
        }
        directories.target().links = to_links;
        directories.from.links = from_links;
    }
    let at_source = Dentry { cookie: source.cookie, ..target };
    let at_target = Dentry { cookie: target.cookie, ..source };
    txn.put_dentry(rename.from, &rename.from_name, at_source)?;
    txn.put_dentry(rename.to, &rename.to_name, at_target)?;
    directories.store(txn, rename.time)?;
    change_parent(txn, source.ino, (rename.from, rename.to), rename.time)?;
    change_parent(txn, target.ino, (rename.to, rename.from), rename.time)?;
    Ok(Answer::Removed(None))
}
