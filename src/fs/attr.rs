//! Attributes: getattr and setattr.

use crate::error::{Posix, Result};
use crate::fs::acl::{self, Acl};
use crate::fs::node::Node;
use crate::fs::privilege::without_privileges;
use crate::fs::{Attributes, Caller, Fs};
use crate::limits::FILE_BYTES_MAX;
use crate::meta::command::{Command, SetAttributes, XattrMode};
use crate::types::{FileKind, HandleId, Ino, Timestamp};
use std::sync::Arc;

/// A time to set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SetTime {
    /// The clock's.
    Now,
    /// This one.
    At(Timestamp),
}

/// What setattr changes; `None` leaves it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SetAttr {
    /// Permission bits; other bits are ignored.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// Change time, from a kernel that owns it; else the clock's.
    pub ctime: Option<Timestamp>,
    /// Handle through which the change came.
    pub handle: Option<HandleId>,
}

impl Fs {
    /// Attributes of an inode; of an unlinked one as long as it is held.
    #[expect(clippy::unused_async, reason = "in a cluster attributes come from the leader")]
    pub async fn getattr(&self, ino: Ino, handle: Option<HandleId>) -> Result<Attributes> {
        let node = self.node_of(ino, handle)?;
        self.attributes(&node)
    }

    /// Changes attributes. The kernel has checked who may; suid, sgid, capabilities and the ACL follow.
    pub async fn setattr(&self, caller: &Caller, ino: Ino, set: SetAttr) -> Result<Attributes> {
        self.check_writable()?;
        let node = self.node_of(ino, set.handle)?;
        let order = node.order.lock().await;
        self.refresh(&node)?;
        let change = Change::plan(&node, caller, &set, self.now());
        if let Some(size) = set.size {
            self.set_size(&node, size, change.set).await?;
        } else if change.only_times && node.kind() == FileKind::File {
            self.stamp(&node, change.set);
        } else if change.set != SetAttributes::default() {
            self.change_attributes(&node, &change, set.mode.is_some()).await?;
        }
        if change.drops_capability {
            self.drop_capability(&node, change.time).await?;
        }
        drop(order);
        self.attributes(&node)
    }

    /// Cuts or extends a file, with attributes that go along.
    pub(super) async fn set_size(
        &self,
        node: &Arc<Node>,
        size: u64,
        set: SetAttributes,
    ) -> Result<()> {
        Posix::unless_file(node.kind())?;
        if size > FILE_BYTES_MAX {
            return Err(Posix::FileTooBig.into());
        }
        self.data.truncate(node, size, set).await
    }

    async fn change_attributes(
        &self,
        node: &Arc<Node>,
        change: &Change,
        chmod: bool,
    ) -> Result<()> {
        let list = if chmod { self.access_list(node)? } else { None };
        let (ino, set) = (node.ino, change.set);
        let command = match (list, set.mode) {
            (Some(list), Some(mode)) => Command::SetXattr {
                ino,
                name: acl::ACCESS.to_vec(),
                value: list.with_mode(mode).encode(),
                mode: XattrMode::Replace,
                set,
            },
            (Some(_), None) | (None, _) => Command::SetAttributes { ino, set },
        };
        self.change_inode(node, command).await?;
        let late = {
            let mut meta = node.locked();
            meta.atime = set.atime.unwrap_or(meta.atime);
            meta.atime_dirty &= set.atime.is_none();
            meta.times_dirty || self.data.dirty_bytes(node) > 0
        };
        if late {
            // A flush under way may carry older times: these follow it.
            self.stamp(node, SetAttributes { atime: None, ..set });
        }
        Ok(())
    }

    /// The access list of an inode, if it has one.
    fn access_list(&self, node: &Node) -> Result<Option<Acl>> {
        if !node.locked().inode.has_xattrs {
            return Ok(None);
        }
        let value = self.meta.view()?.xattr(node.ino, acl::ACCESS)?;
        Ok(value.map(|value| Acl::decode(&value)).transpose()?.flatten())
    }
}

/// What a setattr amounts to.
struct Change {
    set: SetAttributes,
    only_times: bool,
    drops_capability: bool,
    time: Timestamp,
}

impl Change {
    fn plan(node: &Node, caller: &Caller, set: &SetAttr, now: Timestamp) -> Self {
        let (old_mode, gid, kind) = {
            let meta = node.locked();
            (meta.inode.mode, meta.inode.gid, meta.inode.kind)
        };
        let owner = set.uid.is_some() || set.gid.is_some();
        let mut mode = set.mode.map_or(old_mode, |mode| mode & 0o7777);
        if owner && kind != FileKind::Directory || set.size.is_some() && !caller.keeps_privileges()
        {
            mode = without_privileges(mode, gid, caller);
        }
        let mtime = set.mtime.or_else(|| set.size.map(|_| SetTime::Now));
        let at = |time: SetTime| match time {
            SetTime::Now => now,
            SetTime::At(time) => time,
        };
        let only_times = set.mode.is_none() && !owner && set.size.is_none() && mode == old_mode;
        let any = !only_times || set.atime.is_some() || set.mtime.is_some();
        let attributes = SetAttributes {
            mode: (set.mode.is_some() || mode != old_mode).then_some(mode),
            uid: set.uid,
            gid: set.gid,
            atime: set.atime.map(at),
            mtime: mtime.map(at),
            ctime: set.ctime.or_else(|| any.then_some(now)),
        };
        let drops_capability = owner && kind == FileKind::File || set.size.is_some();
        Self { set: attributes, only_times, drops_capability, time: now }
    }
}
