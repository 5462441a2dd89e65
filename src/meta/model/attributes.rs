//! Commands on attributes and extended attributes.

use super::{answer, existing, set_attributes};
use crate::error::{Posix, Result};
use crate::limits::XATTR_LIST_BYTES_MAX;
use crate::meta::command::{Answer, SetAttributes, XattrMode};
use crate::meta::tables::Txn;
use crate::types::{ClassId, Ino, Timestamp};

pub(super) fn set(txn: &mut Txn<'_>, ino: Ino, set: &SetAttributes) -> Result<Answer> {
    let mut inode = existing(txn, ino)?;
    set_attributes(&mut inode, set);
    answer(txn, inode)
}

pub(super) fn set_access_times(txn: &mut Txn<'_>, times: &[(Ino, Timestamp)]) -> Result<Answer> {
    for (ino, time) in times {
        if let Some(mut inode) = txn.inode(*ino)? {
            inode.atime = *time;
            txn.put_inode(&inode)?;
        }
    }
    Ok(Answer::Done)
}

pub(super) fn set_xattr(
    txn: &mut Txn<'_>,
    ino: Ino,
    (name, value): (&[u8], &[u8]),
    mode: XattrMode,
    set: &SetAttributes,
) -> Result<Answer> {
    let mut inode = existing(txn, ino)?;
    let exists = inode.has_xattrs && txn.has_xattr(ino, name)?;
    match mode {
        XattrMode::Create if exists => return Err(Posix::Exists.into()),
        XattrMode::Replace if !exists => return Err(Posix::NoData.into()),
        XattrMode::Set | XattrMode::Create | XattrMode::Replace => {}
    }
    if !exists && inode.has_xattrs {
        let names = txn.xattr_names(ino)?;
        let listed: usize = names.iter().map(|name| name.len() + 1).sum();
        if listed + name.len() + 1 > XATTR_LIST_BYTES_MAX {
            return Err(Posix::NoSpace.into());
        }
    }
    txn.put_xattr(ino, name, value)?;
    inode.has_xattrs = true;
    set_attributes(&mut inode, set);
    answer(txn, inode)
}

pub(super) fn remove_xattr(
    txn: &mut Txn<'_>,
    ino: Ino,
    name: &[u8],
    set: &SetAttributes,
) -> Result<Answer> {
    let mut inode = existing(txn, ino)?;
    if !inode.has_xattrs || !txn.has_xattr(ino, name)? {
        return Err(Posix::NoData.into());
    }
    txn.remove_xattr(ino, name)?;
    inode.has_xattrs = !txn.xattr_names(ino)?.is_empty();
    set_attributes(&mut inode, set);
    answer(txn, inode)
}

pub(super) fn set_class(
    txn: &mut Txn<'_>,
    ino: Ino,
    class: ClassId,
    time: Timestamp,
) -> Result<Answer> {
    let mut inode = existing(txn, ino)?;
    if !txn.has_class(class.0)? {
        return Err(Posix::Invalid.into());
    }
    inode.class = class;
    inode.ctime = time;
    answer(txn, inode)
}
