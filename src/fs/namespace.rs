//! Names: lookup, create and its kin, link, unlink, rename.

use crate::error::{Posix, Result};
use crate::fs::acl::{self, Acl};
use crate::fs::file::Opened;
use crate::fs::handle::Handle;
use crate::fs::node::Node;
use crate::fs::privilege::S_ISGID;
use crate::fs::{Attributes, Caller, Fs, check_name};
use crate::limits::SYMLINK_BYTES_MAX;
use crate::meta::command::{Answer, Command, NewNode, Rename, RenameMode};
use crate::sync::atomic::Ordering;
use crate::types::{FileKind, Ino, LogPosition};
use bytes::Bytes;
use std::sync::Arc;

const RENAME_NOREPLACE: u32 = 1;
const RENAME_EXCHANGE: u32 = 2;
const RENAME_WHITEOUT: u32 = 4;

const O_EXCL: i32 = 0o200;

/// What mknod, mkdir and create make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewFile {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits that the caller asks for.
    pub mode: u32,
    /// Bits that the caller does not want, unless the directory has a default ACL.
    pub umask: u32,
    /// Device number of a device node.
    pub rdev: u32,
}

impl Fs {
    /// The inode that a name leads to; counts a look-up. `.` and `..` are looked up by number alone, for file
    /// handles that come without a path; `Stale` if the inode is gone.
    #[expect(clippy::unused_async, reason = "in a cluster a name comes from the leader")]
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attributes> {
        let node = match name {
            b"." => self.named(parent)?,
            b".." => {
                let node = self.named(parent)?;
                let above = node.locked().inode.parent;
                self.named(above)?
            }
            _ => {
                check_name(name)?;
                self.child(parent, name)?
            }
        };
        self.counted(&node)
    }

    /// The kernel forgets `count` look-ups.
    pub fn forget(&self, ino: Ino, count: u64) {
        let Some(node) = self.nodes.get(ino) else { return };
        // More than were counted would be a kernel's bug; below zero nobody could ever let go.
        let less = |lookups: u64| Some(lookups.saturating_sub(count));
        if node.lookups.fetch_update(Ordering::AcqRel, Ordering::Acquire, less) == Ok(count) {
            self.settle(&node);
        }
    }

    /// Target of a symbolic link.
    #[expect(clippy::unused_async, reason = "in a cluster a target comes from the leader")]
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let node = self.node(ino)?;
        let target = {
            let meta = node.locked();
            if meta.inode.kind != FileKind::Symlink {
                return Err(Posix::Invalid.into());
            }
            meta.inode.inline.clone()
        };
        self.touch(&node, 0);
        Ok(target)
    }

    /// Makes a file, fifo, socket or device node; counts a look-up.
    pub async fn mknod(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        new: NewFile,
    ) -> Result<Attributes> {
        if matches!(new.kind, FileKind::Directory | FileKind::Symlink) {
            return Err(Posix::Invalid.into());
        }
        let node = self.make(caller, parent, name, (new, b"")).await?;
        self.counted(&node)
    }

    /// Makes a directory; counts a look-up.
    pub async fn mkdir(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        mode: u32,
        umask: u32,
    ) -> Result<Attributes> {
        let new = NewFile { kind: FileKind::Directory, mode, umask, rdev: 0 };
        let node = self.make(caller, parent, name, (new, b"")).await?;
        self.counted(&node)
    }

    /// Makes a symbolic link; counts a look-up.
    pub async fn symlink(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        target: &[u8],
    ) -> Result<Attributes> {
        match target.len() {
            0 => return Err(Posix::NotFound.into()),
            1..=SYMLINK_BYTES_MAX => {}
            _ => return Err(Posix::NameTooLong.into()),
        }
        let new = NewFile { kind: FileKind::Symlink, mode: 0o777, umask: 0, rdev: 0 };
        let node = self.make(caller, parent, name, (new, target)).await?;
        self.counted(&node)
    }

    /// Makes a file and opens it; counts a look-up and a handle. A file that is already there is opened, unless
    /// O_EXCL.
    pub async fn create(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        new: NewFile,
        flags: i32,
    ) -> Result<(Attributes, Opened)> {
        if new.kind != FileKind::File {
            return Err(Posix::Invalid.into());
        }
        match self.make(caller, parent, name, (new, b"")).await {
            Ok(node) => {
                let attributes = self.counted(&node)?;
                let direct_io = self.is_space_low(&node);
                let handle = Handle { direct: direct_io, ..Handle::new(node) };
                let handle = self.handles.insert(handle);
                Ok((attributes, Opened { handle, keep_cache: true, direct_io }))
            }
            Err(error) if error.is(Posix::Exists) && flags & O_EXCL == 0 => {
                let node = self.child(parent, name)?;
                let opened = self.open(caller, node.ino, flags).await?;
                Ok((self.counted(&node)?, opened))
            }
            Err(error) => Err(error),
        }
    }

    /// One more name for an inode; counts a look-up.
    pub async fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attributes> {
        self.check_writable()?;
        check_name(name)?;
        let (node, directory) = (self.node(ino)?, self.node(parent)?);
        if node.kind() == FileKind::Directory {
            return Err(Posix::NotPermitted.into());
        }
        let name = name.to_vec();
        let command = Command::Link { ino, parent, name, time: self.now() };
        let order = directory.order.lock().await;
        let (answer, position) = self.meta.propose_at(command).await?;
        drop(order);
        directory.outdate(position);
        self.take_answer(&node, answer, position);
        self.counted(&node)
    }

    /// Removes the name of anything but a directory.
    pub async fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.remove(parent, name, false).await
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        self.remove(parent, name, true).await
    }

    /// Renames; `flags` are those of renameat2(2). What is dirty of the file enters the log first, so that a
    /// crash never shows the new name with less than the old one had.
    pub async fn rename(
        &self,
        caller: &Caller,
        (from, from_name): (Ino, &[u8]),
        (to, to_name): (Ino, &[u8]),
        flags: u32,
    ) -> Result<()> {
        self.check_writable()?;
        check_name(from_name)?;
        check_name(to_name)?;
        let mode = rename_mode(flags)?;
        self.flush_before_rename(from, from_name).await?;
        if mode == RenameMode::Exchange {
            self.flush_before_rename(to, to_name).await?;
        }
        let time = self.now();
        let whiteout = (flags & RENAME_WHITEOUT != 0).then(|| self.whiteout(caller));
        let rename = Rename {
            from,
            from_name: from_name.to_vec(),
            to,
            to_name: to_name.to_vec(),
            mode,
            whiteout,
            time,
        };
        let (source, target) = (self.node(from)?, self.node(to)?);
        let (first, second) = if from <= to { (&source, &target) } else { (&target, &source) };
        let order = first.order.lock().await;
        let second_order = if from == to { None } else { Some(second.order.lock().await) };
        // Held until the answer is taken over, so that no stale copy of them can be read in meanwhile.
        let moved = self.child(from, from_name)?;
        let replaced = self.child(to, to_name).ok();
        let (answer, position) = self.meta.propose_at(Command::Rename(rename)).await?;
        source.outdate(position);
        target.outdate(position);
        moved.outdate(position);
        if let Some(replaced) = &replaced {
            self.take_answer(replaced, answer, position);
        }
        drop((order, second_order));
        if let Some(replaced) = &replaced {
            self.settle(replaced);
        }
        Ok(())
    }

    async fn flush_before_rename(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let node = self.child(parent, name)?;
        if node.kind() == FileKind::File && self.data.dirty_bytes(&node) > 0 {
            self.data.flush(&node).await?;
        }
        Ok(())
    }

    fn whiteout(&self, caller: &Caller) -> NewNode {
        let node = NewNode::new(self.new_ino(), FileKind::CharDevice, 0);
        NewNode { uid: caller.uid, gid: caller.gid, ..node }
    }

    /// Removes a name. The inode is always kept as an orphan: the kernel has nearly always looked it up, and who
    /// holds it can only be told when the name is gone.
    async fn remove(&self, parent: Ino, name: &[u8], directory: bool) -> Result<()> {
        self.check_writable()?;
        check_removable(name, directory)?;
        let above = self.node(parent)?;
        let order = above.order.lock().await;
        let node = self.child(parent, name)?;
        let (name, keep, time) = (name.to_vec(), true, self.now());
        let command = if directory {
            Command::Rmdir { parent, name, keep, time }
        } else {
            Command::Unlink { parent, name, keep, time }
        };
        let (answer, position) = self.meta.propose_at(command).await?;
        above.outdate(position);
        self.take_answer(&node, answer, position);
        drop(order);
        self.settle(&node);
        Ok(())
    }

    /// Makes an inode with its name.
    async fn make(
        &self,
        caller: &Caller,
        parent: Ino,
        name: &[u8],
        (new, target): (NewFile, &[u8]),
    ) -> Result<Arc<Node>> {
        self.check_writable()?;
        check_name(name)?;
        let directory = self.node(parent)?;
        let node = self.new_node(caller, &directory, new, target)?;
        let name = name.to_vec();
        let command = Command::Create { parent, name, node, time: self.now() };
        let (answer, position) = self.meta.propose_at(command).await?;
        directory.outdate(position);
        self.enter_answer(answer, position)
    }

    /// The node of a new inode.
    fn enter_answer(&self, answer: Answer, position: LogPosition) -> Result<Arc<Node>> {
        let Answer::Inode(inode) = answer else {
            return Err(crate::error::Error::internal("create answered without an inode"));
        };
        let ino = inode.ino;
        // `None` says that another inode of the table was forgotten meanwhile: read this one anew.
        self.nodes.enter(*inode, position).map_or_else(|| self.node(ino), Ok)
    }

    /// Mode, group and lists of a new inode (FUSE.md 5.4, 5.6).
    fn new_node(
        &self,
        caller: &Caller,
        directory: &Node,
        new: NewFile,
        target: &[u8],
    ) -> Result<NewNode> {
        let (directory_mode, directory_gid, has_xattrs) = {
            let inode = &directory.locked().inode;
            if inode.kind != FileKind::Directory {
                return Err(Posix::NotDirectory.into());
            }
            (inode.mode, inode.gid, inode.has_xattrs)
        };
        let mut mode = new.mode & 0o7777;
        let mut gid = caller.gid;
        if directory_mode & S_ISGID != 0 {
            gid = directory_gid;
            mode |= if new.kind == FileKind::Directory { S_ISGID } else { 0 };
        }
        let mut xattrs = Vec::new();
        let default = if has_xattrs && new.kind != FileKind::Symlink {
            self.meta.view()?.xattr(directory.ino, acl::DEFAULT)?
        } else {
            None
        };
        match default.as_deref().map(Acl::decode).transpose()?.flatten() {
            Some(default) => {
                let inherited = default.inherit(mode);
                mode = inherited.mode;
                if let Some(access) = inherited.access {
                    xattrs.push((acl::ACCESS.to_vec(), access.encode()));
                }
                if new.kind == FileKind::Directory {
                    xattrs.push((acl::DEFAULT.to_vec(), default.encode()));
                }
            }
            None => mode &= !(new.umask & 0o777),
        }
        Ok(NewNode {
            ino: self.new_ino(),
            kind: new.kind,
            mode,
            uid: caller.uid,
            gid,
            rdev: new.rdev,
            target: target.to_vec(),
            class: None,
            xattrs,
        })
    }

    /// An inode by number, as long as it has a name.
    fn named(&self, ino: Ino) -> Result<Arc<Node>> {
        let node = self.node(ino)?;
        self.refresh(&node)?;
        if node.locked().inode.links == 0 {
            return Err(Posix::Stale.into());
        }
        Ok(node)
    }

    /// Counts a look-up, which the answer with these attributes tells the kernel.
    fn counted(&self, node: &Node) -> Result<Attributes> {
        let attributes = self.attributes(node)?;
        node.lookups.fetch_add(1, Ordering::AcqRel);
        Ok(attributes)
    }
}

fn rename_mode(flags: u32) -> Result<RenameMode> {
    match flags {
        RENAME_EXCHANGE => Ok(RenameMode::Exchange),
        _ if flags & !(RENAME_NOREPLACE | RENAME_WHITEOUT) != 0 => Err(Posix::Invalid.into()),
        _ if flags & RENAME_NOREPLACE != 0 => Ok(RenameMode::NoReplace),
        _ => Ok(RenameMode::Replace),
    }
}

/// `rmdir` of a dot is never right, whatever it leads to (rmdir(2)).
fn check_removable(name: &[u8], directory: bool) -> Result<()> {
    match name {
        b"." if directory => Err(Posix::Invalid.into()),
        b".." if directory => Err(Posix::NotEmpty.into()),
        _ => check_name(name),
    }
}
