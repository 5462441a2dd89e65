//! Which privileges a file loses when it is changed: suid, sgid and file capabilities (FUSE.md 5.2).

use crate::error::{Posix, Result};
use crate::fs::node::Node;
use crate::fs::{Caller, Fs};
use crate::meta::command::{Command, SetAttributes};
use crate::types::Timestamp;

pub(super) const S_ISUID: u32 = 0o4000;
pub(super) const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

/// Attribute that gives a program capabilities.
pub(super) const CAPABILITY: &[u8] = b"security.capability";

impl Caller {
    /// Whether the caller keeps suid and sgid bits. The capability is only known where it was asked for; without
    /// it, the superuser counts.
    pub(super) const fn keeps_privileges(&self) -> bool {
        self.cap_fsetid || self.uid == 0
    }

    fn is_member(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    /// Whether the caller may leave S_ISGID on an inode of group `gid`.
    pub(super) fn may_set_group_id(&self, gid: u32) -> bool {
        self.keeps_privileges() || self.is_member(gid)
    }
}

/// `mode` without suid, and without sgid if the group may execute or the caller has no business with the group.
pub(super) fn without_privileges(mode: u32, gid: u32, caller: &Caller) -> u32 {
    let group_id = mode & S_IXGRP != 0 || !caller.may_set_group_id(gid);
    mode & !S_ISUID & if group_id { !S_ISGID } else { !0 }
}

impl Fs {
    /// Takes suid and sgid from a file whose content `caller` changes, unless it keeps privileges.
    pub(super) async fn drop_set_id(
        &self,
        node: &Node,
        caller: &Caller,
        time: Timestamp,
    ) -> Result<()> {
        let (mode, gid) = {
            let meta = node.locked();
            (meta.inode.mode, meta.inode.gid)
        };
        let kept = without_privileges(mode, gid, caller);
        if kept == mode {
            return Ok(());
        }
        let set = SetAttributes { mode: Some(kept), ctime: Some(time), ..SetAttributes::default() };
        self.set_attributes(node, set).await?;
        self.tell_stale(node.ino);
        Ok(())
    }

    /// Takes file capabilities from a file whose content or owner changes.
    pub(super) async fn drop_capability(&self, node: &Node, time: Timestamp) -> Result<()> {
        if node.locked().capability == Some(false) {
            return Ok(());
        }
        let ino = node.ino;
        if self.meta.view()?.xattr(ino, CAPABILITY)?.is_some() {
            let set = SetAttributes { ctime: Some(time), ..SetAttributes::default() };
            let command = Command::RemoveXattr { ino, name: CAPABILITY.to_vec(), set };
            match self.change_inode(node, command).await {
                Ok(()) => {}
                // Somebody else was faster.
                Err(error) if error.is(Posix::NoData) => {}
                Err(error) => return Err(error),
            }
        }
        node.locked().capability = Some(false);
        Ok(())
    }
}
