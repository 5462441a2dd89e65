//! Directories as streams: opendir, readdir, fsyncdir.
//!
//! A stream position is 0 at the start, 1 behind `.`, 2 behind `..`, and `DOTS` above the stored cookie behind an
//! entry. Entries keep their cookie as long as they live; one that is renamed gets a new, larger one. So a stream
//! ends at the largest cookie that there was at its start, or it would meet the same file again and again.

use crate::error::{Posix, Result};
use crate::fs::Fs;
use crate::fs::file::Opened;
use crate::fs::handle::Handle;
use crate::fs::{Attributes, node::Node};
use crate::meta::store::{DirEntry, View};
use crate::sync::atomic::Ordering;
use crate::types::{FileKind, HandleId, Ino};
use std::sync::Arc;

/// Positions of `.` and `..`.
const DOTS: u64 = 2;
/// Entries read at a time: about what one reply of 4 to 32 KiB holds.
const ENTRIES_PER_READ: usize = 128;

/// One entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirItem<'a> {
    /// Inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Position behind the entry: where to go on.
    pub cookie: u64,
    /// Name.
    pub name: &'a [u8],
    /// Attributes, if asked for; never of `.` and `..`.
    pub attributes: Option<Attributes>,
}

/// Takes entries; `true` says that the last one had no room and was not taken.
pub type Sink<'a> = &'a mut (dyn FnMut(DirItem<'_>) -> bool + Send);

impl Fs {
    /// Opens a directory.
    #[expect(clippy::unused_async, reason = "in a cluster a lease is asked for")]
    pub async fn opendir(&self, ino: Ino) -> Result<Opened> {
        let node = self.node(ino)?;
        if node.kind() != FileKind::Directory {
            return Err(Posix::NotDirectory.into());
        }
        self.refresh(&node)?;
        let now = self.now();
        let keep_cache = !self.is_atime_due(&node.locked(), now);
        let handle = Handle::new(node);
        handle.bound.store(last_cookie(&handle.node), Ordering::Relaxed);
        let handle = self.handles.insert(handle);
        Ok(Opened { handle, keep_cache, direct_io: false })
    }

    /// Hands entries behind position `cookie` to `sink` until it is full. With `plus` each entry but the dots comes
    /// with attributes and counts a look-up if it is taken.
    #[expect(clippy::unused_async, reason = "in a cluster entries come from the leader")]
    pub async fn readdir(
        &self,
        ino: Ino,
        handle: HandleId,
        cookie: u64,
        plus: bool,
        sink: Sink<'_>,
    ) -> Result<()> {
        let handle = self.handles.get(handle).ok_or(Posix::BadHandle)?;
        let node = &handle.node;
        if node.ino != ino || node.kind() != FileKind::Directory {
            return Err(Posix::BadHandle.into());
        }
        if cookie == 0 {
            self.refresh(node)?;
            handle.bound.store(last_cookie(node), Ordering::Relaxed);
        }
        self.touch(node, 0);
        let above = node.locked().inode.parent;
        let dots = [(0, ino, b".".as_slice()), (1, above, b"..".as_slice())];
        for (position, ino, name) in dots.into_iter().skip_while(|dot| dot.0 < cookie) {
            let (kind, cookie) = (FileKind::Directory, position + 1);
            if sink(DirItem { ino, kind, cookie, name, attributes: None }) {
                return Ok(());
            }
        }
        let bound = handle.bound.load(Ordering::Relaxed);
        self.read_entries(node, (cookie.saturating_sub(DOTS), bound), plus, sink)
    }

    fn read_entries(
        &self,
        node: &Node,
        (mut after, bound): (u64, u64),
        plus: bool,
        sink: Sink<'_>,
    ) -> Result<()> {
        let view = self.meta.view()?;
        while after < bound {
            let entries = view.list(node.ino, after, ENTRIES_PER_READ)?;
            let Some(last) = entries.last() else { return Ok(()) };
            after = last.cookie;
            for entry in entries.iter().take_while(|entry| entry.cookie <= bound) {
                if self.pass_entry(&view, entry, plus, sink)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Passes one entry on; answers whether there was no room for it.
    fn pass_entry(
        &self,
        view: &View,
        entry: &DirEntry,
        plus: bool,
        sink: Sink<'_>,
    ) -> Result<bool> {
        let node = if plus { self.entry_node(view, entry.ino)? } else { None };
        let attributes = node.as_ref().map(|node| self.attributes(node)).transpose()?;
        let item = DirItem {
            ino: entry.ino,
            kind: entry.kind,
            cookie: entry.cookie + DOTS,
            name: &entry.name,
            attributes,
        };
        let full = sink(item);
        if let Some(node) = node
            && !full
        {
            node.lookups.fetch_add(1, Ordering::AcqRel);
        }
        Ok(full)
    }

    /// The node of an entry; `None` if its inode is gone by now, then the entry goes without attributes.
    fn entry_node(&self, view: &View, ino: Ino) -> Result<Option<Arc<Node>>> {
        if let Some(node) = self.nodes.get(ino) {
            return Ok(Some(node));
        }
        let Some(inode) = view.inode(ino)? else { return Ok(None) };
        if let Some(node) = self.nodes.enter(inode, view.applied()?) {
            return Ok(Some(node));
        }
        match self.node(ino) {
            Ok(node) => Ok(Some(node)),
            Err(error) if error.is(Posix::Stale) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Closes a directory.
    #[expect(clippy::unused_async, reason = "in a cluster a lease is given back")]
    pub async fn releasedir(&self, _ino: Ino, handle: HandleId) -> Result<()> {
        let handle = self.handles.remove(handle).ok_or(Posix::BadHandle)?;
        self.settle(&handle.node);
        Ok(())
    }

    /// Makes the entries of a directory durable, and with them everything before in the log.
    pub async fn fsyncdir(&self, _ino: Ino, _handle: HandleId) -> Result<()> {
        self.meta.sync().await
    }
}

fn last_cookie(node: &Node) -> u64 {
    node.locked().inode.next_cookie.saturating_sub(1)
}
