//! What a file system is, as plainly as it can be said: nodes in memory, bytes in vectors. The measure of the
//! harnesses. Knows no disk, no crash and nothing of ironfs but the names of errors and kinds.

use ironfs::error::Posix;
use ironfs::types::{FileKind, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

/// Number of a node; given out once.
pub(crate) type Id = u64;
/// The root directory.
pub(crate) const ROOT: Id = 0;

const S_ISUID: u32 = 0o4000;
const S_ISGID: u32 = 0o2000;
const S_IXGRP: u32 = 0o0010;

pub(crate) type Result<T> = std::result::Result<T, Posix>;

/// A file, directory or whatever.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Node {
    pub(crate) kind: FileKind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Modification time, if it was set since the last change: nobody knows the others.
    pub(crate) mtime: Option<Timestamp>,
    pub(crate) links: u32,
    pub(crate) content: Vec<u8>,
    pub(crate) target: Vec<u8>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) entries: BTreeMap<Vec<u8>, Id>,
    pub(crate) parent: Id,
    pub(crate) handles: u32,
}

/// How a rename treats what is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rename {
    Replace,
    NoReplace,
    Exchange,
}

impl Rename {
    /// Its flag of renameat2(2).
    pub(crate) const fn flags(self) -> u32 {
        match self {
            Self::Replace => 0,
            Self::NoReplace => 1,
            Self::Exchange => 2,
        }
    }
}

/// A whole file system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reference {
    pub(crate) nodes: BTreeMap<Id, Node>,
    next: Id,
}

impl Reference {
    pub(crate) fn new() -> Self {
        let root = Node { links: 2, ..node(FileKind::Directory, 0o755, ROOT) };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1 }
    }

    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[&id]
    }

    fn node_mut(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).unwrap()
    }

    /// Nodes with a name that `wanted` likes.
    pub(crate) fn named(&self, wanted: impl Fn(&Node) -> bool) -> Vec<Id> {
        let named = self.nodes.iter().filter(|(_id, node)| node.links > 0 && wanted(node));
        named.map(|(id, _node)| *id).collect()
    }

    pub(crate) fn lookup(&self, parent: Id, name: &[u8]) -> Result<Id> {
        self.node(parent).entries.get(name).copied().ok_or(Posix::NotFound)
    }

    pub(crate) fn create(
        &mut self,
        parent: Id,
        name: &[u8],
        (kind, mode, target): (FileKind, u32, &[u8]),
    ) -> Result<Id> {
        if self.lookup(parent, name).is_ok() {
            return Err(Posix::Exists);
        }
        let id = self.next;
        self.next += 1;
        let is_dir = kind == FileKind::Directory;
        let links = 1 + u32::from(is_dir);
        // A directory hands its group down where it has the set-group-id bit, and to directories that too (inode(7)).
        let group_id = self.node(parent).mode & S_ISGID;
        let mode = mode | if is_dir { group_id } else { 0 };
        let gid = if group_id != 0 { self.node(parent).gid } else { 0 };
        let target = target.to_vec();
        self.nodes.insert(id, Node { links, target, gid, ..node(kind, mode, parent) });
        self.put(parent, name, id);
        Ok(id)
    }

    pub(crate) fn link(&mut self, id: Id, parent: Id, name: &[u8]) -> Result<()> {
        if self.node(id).kind == FileKind::Directory {
            return Err(Posix::NotPermitted);
        }
        if self.lookup(parent, name).is_ok() {
            return Err(Posix::Exists);
        }
        self.put(parent, name, id);
        self.node_mut(id).links += 1;
        Ok(())
    }

    pub(crate) fn unlink(&mut self, parent: Id, name: &[u8]) -> Result<()> {
        let id = self.lookup(parent, name)?;
        if self.node(id).kind == FileKind::Directory {
            return Err(Posix::IsDirectory);
        }
        self.take(parent, name);
        self.lose(id);
        Ok(())
    }

    pub(crate) fn rmdir(&mut self, parent: Id, name: &[u8]) -> Result<()> {
        let id = self.lookup(parent, name)?;
        let node = self.node(id);
        if node.kind != FileKind::Directory {
            return Err(Posix::NotDirectory);
        }
        if !node.entries.is_empty() {
            return Err(Posix::NotEmpty);
        }
        self.take(parent, name);
        self.lose(id);
        Ok(())
    }

    /// Takes a name out of its directory.
    fn take(&mut self, parent: Id, name: &[u8]) -> Id {
        let above = self.node_mut(parent);
        let id = above.entries.remove(name).unwrap();
        above.mtime = None;
        let is_dir = self.node(id).kind == FileKind::Directory;
        self.node_mut(parent).links -= u32::from(is_dir);
        id
    }

    fn put(&mut self, parent: Id, name: &[u8], id: Id) {
        let is_dir = self.node(id).kind == FileKind::Directory;
        let above = self.node_mut(parent);
        above.entries.insert(name.to_vec(), id);
        above.links += u32::from(is_dir);
        above.mtime = None;
        if is_dir {
            self.node_mut(id).parent = parent;
        }
    }

    /// One name less.
    fn lose(&mut self, id: Id) {
        let node = self.node_mut(id);
        node.links = if node.kind == FileKind::Directory { 0 } else { node.links - 1 };
        self.forget_unless_used(id);
    }

    fn forget_unless_used(&mut self, id: Id) {
        let node = self.node(id);
        if node.links == 0 && node.handles == 0 {
            self.nodes.remove(&id);
        }
    }

    fn is_within(&self, mut id: Id, ancestor: Id) -> bool {
        while id != ancestor {
            if id == ROOT {
                return false;
            }
            id = self.node(id).parent;
        }
        true
    }

    pub(crate) fn rename(
        &mut self,
        (from, from_name): (Id, &[u8]),
        (to, to_name): (Id, &[u8]),
        mode: Rename,
    ) -> Result<()> {
        let moved = self.lookup(from, from_name)?;
        let there = self.lookup(to, to_name);
        if mode == Rename::Exchange {
            there?;
        }
        if self.is_within(to, moved) {
            return Err(Posix::Invalid);
        }
        match there {
            Ok(_) if mode == Rename::NoReplace => return Err(Posix::Exists),
            Ok(there) if there == moved => return Ok(()),
            Ok(there) if mode == Rename::Exchange => {
                if self.is_within(from, there) {
                    return Err(Posix::Invalid);
                }
                self.take(from, from_name);
                self.take(to, to_name);
                self.put(from, from_name, there);
                self.put(to, to_name, moved);
                return Ok(());
            }
            Ok(there) => {
                self.check_replace(moved, there)?;
                self.take(to, to_name);
                self.lose(there);
            }
            Err(_) => {}
        }
        self.take(from, from_name);
        self.put(to, to_name, moved);
        Ok(())
    }

    fn check_replace(&self, moved: Id, there: Id) -> Result<()> {
        let (moved, there) = (self.node(moved), self.node(there));
        let (from_dir, to_dir) =
            (moved.kind == FileKind::Directory, there.kind == FileKind::Directory);
        match (from_dir, to_dir) {
            (true, false) => Err(Posix::NotDirectory),
            (false, true) => Err(Posix::IsDirectory),
            (true, true) if !there.entries.is_empty() => Err(Posix::NotEmpty),
            _ => Ok(()),
        }
    }

    pub(crate) fn open(&mut self, id: Id) {
        self.node_mut(id).handles += 1;
    }

    pub(crate) fn close(&mut self, id: Id) {
        self.node_mut(id).handles -= 1;
        self.forget_unless_used(id);
    }

    /// All processes are gone, and what they held open.
    pub(crate) fn close_all(&mut self) {
        let ids: Vec<Id> = self.nodes.keys().copied().collect();
        for id in ids {
            self.node_mut(id).handles = 0;
            self.forget_unless_used(id);
        }
    }

    pub(crate) fn write(&mut self, id: Id, offset: usize, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        let content = self.change(id);
        let end = offset + data.len();
        if content.len() < end {
            content.resize(end, 0);
        }
        content[offset..end].copy_from_slice(data);
    }

    pub(crate) fn truncate(&mut self, id: Id, size: usize) {
        self.change(id).resize(size, 0);
    }

    /// The content, which is about to be changed.
    fn change(&mut self, id: Id) -> &mut Vec<u8> {
        let node = self.node_mut(id);
        node.mtime = None;
        &mut node.content
    }

    pub(crate) fn read(&self, id: Id, offset: usize, length: usize) -> &[u8] {
        let content = &self.node(id).content;
        let start = offset.min(content.len());
        &content[start..(offset + length).clamp(start, content.len())]
    }

    /// fallocate: zeroes (punch, zero-range), and extends unless the size is to stay.
    pub(crate) fn fallocate(
        &mut self,
        id: Id,
        (offset, length): (usize, usize),
        (zeroes, keeps_size): (bool, bool),
    ) -> Result<()> {
        if length == 0 {
            return Err(Posix::Invalid);
        }
        let content = self.change(id);
        let end = offset + length;
        if zeroes {
            let stop = end.min(content.len());
            content[offset.min(stop)..stop].fill(0);
        }
        if !keeps_size && content.len() < end {
            content.resize(end, 0);
        }
        Ok(())
    }

    /// Answers how much was copied.
    pub(crate) fn copy(
        &mut self,
        (from, from_offset): (Id, usize),
        (to, to_offset): (Id, usize),
        length: usize,
    ) -> Result<usize> {
        let bytes = self.read(from, from_offset, length).to_vec();
        if !bytes.is_empty() && from == to && from_offset.abs_diff(to_offset) < bytes.len() {
            return Err(Posix::Invalid);
        }
        self.write(to, to_offset, &bytes);
        Ok(bytes.len())
    }

    pub(crate) fn set_xattr(
        &mut self,
        id: Id,
        (name, value): (&[u8], &[u8]),
        flags: i32,
    ) -> Result<()> {
        let xattrs = &mut self.node_mut(id).xattrs;
        match (flags, xattrs.contains_key(name)) {
            (1, true) => return Err(Posix::Exists),
            (2, false) => return Err(Posix::NoData),
            _ => {}
        }
        xattrs.insert(name.to_vec(), value.to_vec());
        Ok(())
    }

    pub(crate) fn remove_xattr(&mut self, id: Id, name: &[u8]) -> Result<()> {
        let removed = self.node_mut(id).xattrs.remove(name);
        removed.map(drop).ok_or(Posix::NoData)
    }

    pub(crate) fn chmod(&mut self, id: Id, mode: u32) {
        self.node_mut(id).mode = mode;
    }

    /// As the superuser does it: set-id bits go, but of directories (chown(2)).
    pub(crate) fn chown(&mut self, id: Id, (uid, gid): (Option<u32>, Option<u32>)) {
        let node = self.node_mut(id);
        node.uid = uid.unwrap_or(node.uid);
        node.gid = gid.unwrap_or(node.gid);
        if node.kind != FileKind::Directory {
            let group_id = if node.mode & S_IXGRP != 0 { S_ISGID } else { 0 };
            node.mode &= !(S_ISUID | group_id);
        }
    }

    pub(crate) fn set_mtime(&mut self, id: Id, mtime: Timestamp) {
        self.node_mut(id).mtime = Some(mtime);
    }

    /// Every node below the root by its path, the root first.
    pub(crate) fn paths(&self) -> Vec<(Vec<u8>, Id)> {
        let mut paths = vec![(Vec::new(), ROOT)];
        let mut next = 0;
        while let Some((path, id)) = paths.get(next).cloned() {
            next += 1;
            for (name, child) in &self.node(id).entries {
                paths.push(([path.as_slice(), b"/", name.as_slice()].concat(), *child));
            }
        }
        paths
    }

    /// Nodes that are held open and have no name.
    pub(crate) fn orphans(&self) -> BTreeSet<Id> {
        let nodes = self.nodes.iter().filter(|(_id, node)| node.links == 0);
        nodes.map(|(id, _node)| *id).collect()
    }
}

fn node(kind: FileKind, mode: u32, parent: Id) -> Node {
    Node {
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: None,
        links: 1,
        content: Vec::new(),
        target: Vec::new(),
        xattrs: BTreeMap::new(),
        entries: BTreeMap::new(),
        parent,
        handles: 0,
    }
}
