//! Extended attributes: plain ones, ACLs, and the class of an inode as an attribute.

use crate::class::Class;
use crate::error::{Posix, Result};
use crate::fs::acl::{self, Acl};
use crate::fs::node::Node;
use crate::fs::privilege::{CAPABILITY, S_ISGID};
use crate::fs::{Caller, Fs};
use crate::limits::{
    CLASSES_MAX, XATTR_LIST_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX,
};
use crate::meta::command::{Command, SetAttributes, XattrMode};
use crate::types::{ClassId, FileKind, Ino, Timestamp};

/// Attribute that tells and sets the class. It is not stored, and not listed: copying programs would carry the
/// class of one directory to another.
pub const CLASS: &[u8] = b"user.ironfs.class";

const XATTR_CREATE: i32 = 1;
const XATTR_REPLACE: i32 = 2;

impl Fs {
    /// Sets an attribute; `flags` as in setxattr(2).
    pub async fn setxattr(
        &self,
        caller: &Caller,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Result<()> {
        self.check_writable()?;
        check_xattr_name(name)?;
        check_namespace(name)?;
        if value.len() > XATTR_VALUE_BYTES_MAX {
            return Err(Posix::TooBig.into());
        }
        let mode = match flags {
            0 => XattrMode::Set,
            XATTR_CREATE => XattrMode::Create,
            XATTR_REPLACE => XattrMode::Replace,
            _ => return Err(Posix::Invalid.into()),
        };
        let node = self.node(ino)?;
        let time = self.now();
        let order = node.order.lock().await;
        let done = match name {
            CLASS => self.set_class(&node, value, mode, time).await,
            acl::ACCESS => self.set_access_list(&node, caller, value, time).await,
            acl::DEFAULT => self.set_default_list(&node, value, time).await,
            _ => self.set_plain(&node, name, value, (mode, changed(time))).await,
        };
        drop(order);
        done
    }

    /// Value of an attribute; `NoData` if there is none.
    #[expect(clippy::unused_async, reason = "in a cluster attributes come from the leader")]
    pub async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        check_xattr_name(name)?;
        let node = self.node(ino)?;
        let (has_xattrs, class, kind) = {
            let inode = &node.locked().inode;
            (inode.has_xattrs, inode.class, inode.kind)
        };
        if name == CLASS && has_class(kind) {
            let class = self.meta.view()?.class(class)?.ok_or(Posix::NoData)?;
            return Ok(class.to_string().into_bytes());
        }
        if !has_xattrs {
            return Err(Posix::NoData.into());
        }
        let value = self.meta.view()?.xattr(ino, name)?;
        Ok(value.ok_or(Posix::NoData)?)
    }

    /// Names of all attributes, each ended by a zero; `trusted.*` only for the superuser.
    #[expect(clippy::unused_async, reason = "in a cluster attributes come from the leader")]
    pub async fn listxattr(&self, caller: &Caller, ino: Ino) -> Result<Vec<u8>> {
        let node = self.node(ino)?;
        if !node.locked().inode.has_xattrs {
            return Ok(Vec::new());
        }
        let mut list = Vec::new();
        for name in self.meta.view()?.xattrs(ino)? {
            if caller.uid == 0 || !name.starts_with(b"trusted.") {
                list.extend(name);
                list.push(0);
            }
        }
        if list.len() > XATTR_LIST_BYTES_MAX {
            return Err(Posix::TooBig.into());
        }
        Ok(list)
    }

    /// Removes an attribute; `NoData` if there is none.
    pub async fn removexattr(&self, _caller: &Caller, ino: Ino, name: &[u8]) -> Result<()> {
        self.check_writable()?;
        check_xattr_name(name)?;
        let node = self.node(ino)?;
        if name == CLASS && has_class(node.kind()) {
            return Err(Posix::NotPermitted.into());
        }
        let order = node.order.lock().await;
        let done = self.remove_stored(&node, name, changed(self.now())).await;
        drop(order);
        done
    }

    async fn set_plain(
        &self,
        node: &Node,
        name: &[u8],
        value: &[u8],
        (mode, set): (XattrMode, SetAttributes),
    ) -> Result<()> {
        self.check_list_room(node, name)?;
        let ino = node.ino;
        let (name, value) = (name.to_vec(), value.to_vec());
        let capability = name == CAPABILITY;
        self.change_inode(node, Command::SetXattr { ino, name, value, mode, set }).await?;
        if capability {
            node.locked().capability = Some(true);
        }
        Ok(())
    }

    async fn remove_stored(&self, node: &Node, name: &[u8], set: SetAttributes) -> Result<()> {
        let command = Command::RemoveXattr { ino: node.ino, name: name.to_vec(), set };
        self.change_inode(node, command).await
    }

    /// Refuses a new name that a listing would have no room for.
    fn check_list_room(&self, node: &Node, name: &[u8]) -> Result<()> {
        if !node.locked().inode.has_xattrs {
            return Ok(());
        }
        let names = self.meta.view()?.xattrs(node.ino)?;
        let listed: usize = names.iter().map(|name| name.len() + 1).sum();
        let known = names.iter().any(|known| known == name);
        if !known && listed + name.len() + 1 > XATTR_LIST_BYTES_MAX {
            return Err(Posix::NoSpace.into());
        }
        Ok(())
    }

    async fn set_class(
        &self,
        node: &Node,
        value: &[u8],
        mode: XattrMode,
        time: Timestamp,
    ) -> Result<()> {
        if !has_class(node.kind()) {
            return Err(Posix::NotPermitted.into());
        }
        if mode == XattrMode::Create {
            return Err(Posix::Exists.into());
        }
        let text = std::str::from_utf8(value).map_err(|_not_text| Posix::Invalid)?;
        let wanted: Class = text.trim().parse().map_err(|_unknown| Posix::Invalid)?;
        let class = self.class_id(wanted).await?;
        let command = Command::SetInodeClass { ino: node.ino, class, time };
        self.change_inode(node, command).await
    }

    /// Number of a class; one that the volume has not met is defined.
    async fn class_id(&self, wanted: Class) -> Result<ClassId> {
        // One at a time: two new classes must not take the same number.
        let _turn = self.new_class.lock().await;
        let classes = self.meta.view()?.classes()?;
        if let Some((id, _class)) = classes.iter().find(|(_id, class)| *class == wanted) {
            return Ok(*id);
        }
        if !self.space.can_place(&wanted) || classes.len() >= CLASSES_MAX {
            return Err(Posix::NoSpace.into());
        }
        let last = classes.iter().map(|(id, _class)| id.0).max();
        let id = last.map_or(Some(0), |last| last.checked_add(1)).ok_or(Posix::NoSpace)?;
        self.meta.propose(Command::SetClass { id: ClassId(id), class: wanted }).await?;
        Ok(ClassId(id))
    }

    /// setfacl: the mode follows the list, and a list that says no more than the mode is not kept.
    async fn set_access_list(
        &self,
        node: &Node,
        caller: &Caller,
        value: &[u8],
        time: Timestamp,
    ) -> Result<()> {
        let (mode, gid) = {
            let inode = &node.locked().inode;
            check_list_kind(inode.kind)?;
            (inode.mode, inode.gid)
        };
        let Some(list) = Acl::decode(value)? else {
            return self.remove_list(node, acl::ACCESS, changed(time)).await;
        };
        let kept = if caller.may_set_group_id(gid) { !0o777 } else { !0o777 & !S_ISGID };
        let mode = mode & kept | list.mode();
        let set = SetAttributes { mode: Some(mode), ..changed(time) };
        if list.is_mode() {
            return self.remove_list(node, acl::ACCESS, set).await;
        }
        self.set_plain(node, acl::ACCESS, &list.encode(), (XattrMode::Set, set)).await
    }

    async fn set_default_list(&self, node: &Node, value: &[u8], time: Timestamp) -> Result<()> {
        let kind = node.kind();
        check_list_kind(kind)?;
        let Some(list) = Acl::decode(value)? else {
            return self.remove_list(node, acl::DEFAULT, changed(time)).await;
        };
        if kind != FileKind::Directory {
            return Err(Posix::Access.into());
        }
        let set = changed(time);
        self.set_plain(node, acl::DEFAULT, &list.encode(), (XattrMode::Set, set)).await
    }

    /// Removes a list that may not be there; the attributes are set in any case.
    async fn remove_list(&self, node: &Node, name: &[u8], set: SetAttributes) -> Result<()> {
        match self.remove_stored(node, name, set).await {
            Err(error) if error.is(Posix::NoData) => self.set_attributes(node, set).await,
            done => done,
        }
    }
}

const fn has_class(kind: FileKind) -> bool {
    matches!(kind, FileKind::File | FileKind::Directory)
}

fn check_list_kind(kind: FileKind) -> Result<()> {
    if kind == FileKind::Symlink { Err(Posix::NotSupported.into()) } else { Ok(()) }
}

fn check_xattr_name(name: &[u8]) -> Result<()> {
    if name.is_empty() || name.len() > XATTR_NAME_BYTES_MAX {
        return Err(Posix::Range.into());
    }
    Ok(())
}

/// Names begin with a namespace (xattr(7)); of `system` there are only the access lists.
fn check_namespace(name: &[u8]) -> Result<()> {
    if name == acl::ACCESS || name == acl::DEFAULT {
        return Ok(());
    }
    let spaces: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];
    match spaces.iter().find_map(|space| name.strip_prefix(*space)) {
        None => Err(Posix::NotSupported.into()),
        Some([]) => Err(Posix::Invalid.into()),
        Some(_rest) => Ok(()),
    }
}

/// Setting an attribute is a change of the inode.
fn changed(time: Timestamp) -> SetAttributes {
    SetAttributes { ctime: Some(time), ..SetAttributes::default() }
}
