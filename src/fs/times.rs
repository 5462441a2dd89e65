//! Times that reach the metadata later: access times, and what the kernel tells about files that it caches. Each
//! would otherwise be a log record of its own.

use crate::error::Result;
use crate::fs::node::{Node, NodeMeta};
use crate::fs::{AtimeMode, Fs};
use crate::meta::command::{Command, SetAttributes};
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, MutexGuard, PoisonError};
use crate::types::{FileKind, Ino, Timestamp};
use std::collections::HashMap;

/// O_NOATIME of Linux; the file was opened so.
const O_NOATIME: i32 = 0o1_000_000;
/// relatime renews an access time that is older than a day.
const RELATIVE_SECONDS: i64 = 24 * 60 * 60;
/// Access times per command: 24 bytes each, far below the largest command.
const TIMES_PER_COMMAND: usize = 4096;

impl Fs {
    /// Notes a read: moves the access time in memory if the mount's mode wants it.
    pub(super) fn touch(&self, node: &Arc<Node>, flags: i32) {
        if flags & O_NOATIME != 0 {
            return;
        }
        let now = self.now();
        {
            let mut meta = node.locked();
            if !self.is_atime_due(&meta, now) {
                return;
            }
            meta.atime = now;
            if std::mem::replace(&mut meta.atime_dirty, true) {
                return;
            }
        }
        self.remember_times(node);
    }

    /// Whether a read at `now` would move the access time: then the kernel must not answer reads from its cache.
    pub(super) fn is_atime_due(&self, meta: &NodeMeta, now: Timestamp) -> bool {
        let directory = meta.inode.kind == FileKind::Directory;
        if self.read_only() || directory && self.nodiratime.load(Ordering::Relaxed) {
            return false;
        }
        match self.atime.load(Ordering::Relaxed) {
            mode if mode == AtimeMode::Never as u8 => false,
            mode if mode == AtimeMode::Strict as u8 => meta.atime != now,
            _ => {
                let age = now.seconds.saturating_sub(meta.atime.seconds);
                meta.atime <= meta.mtime || meta.atime <= meta.ctime || age >= RELATIVE_SECONDS
            }
        }
    }

    /// Takes over times of a file in memory; the metadata follows with its data or with `flush_times`.
    pub(super) fn stamp(&self, node: &Arc<Node>, set: SetAttributes) {
        {
            let mut meta = node.locked();
            meta.times_dirty |= set.mtime.is_some() || set.ctime.is_some();
            meta.atime_dirty |= set.atime.is_some();
            meta.mtime = set.mtime.unwrap_or(meta.mtime);
            meta.ctime = set.ctime.unwrap_or(meta.ctime);
            meta.atime = set.atime.unwrap_or(meta.atime);
        }
        self.remember_times(node);
    }

    fn remember_times(&self, node: &Arc<Node>) {
        self.late_times().entry(node.ino).or_insert_with(|| Arc::clone(node));
    }

    /// Files whose times of change are not yet in the metadata.
    pub fn late(&self) -> usize {
        let nodes: Vec<Arc<Node>> = self.late_times().values().cloned().collect();
        nodes.iter().filter(|node| node.locked().times_dirty).count()
    }

    fn late_times(&self) -> MutexGuard<'_, HashMap<Ino, Arc<Node>>> {
        self.late_times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commits the times of one node, access time included: what fsync owes besides data.
    pub(super) async fn flush_node_times(&self, node: &Arc<Node>) -> Result<()> {
        self.flush_access_times(std::slice::from_ref(node)).await?;
        self.flush_change_times(node).await
    }

    /// Commits all late times. What fails stays late.
    pub async fn flush_times(&self) -> Result<()> {
        let nodes: Vec<Arc<Node>> = self.late_times().drain().map(|(_, node)| node).collect();
        let done = self.flush_times_of(&nodes).await;
        for node in nodes {
            let late = {
                let meta = node.locked();
                meta.inode.links > 0 && (meta.times_dirty || meta.atime_dirty)
            };
            if late {
                self.remember_times(&node);
            }
            self.settle(&node);
        }
        done
    }

    async fn flush_times_of(&self, nodes: &[Arc<Node>]) -> Result<()> {
        for batch in nodes.chunks(TIMES_PER_COMMAND) {
            self.flush_access_times(batch).await?;
        }
        for node in nodes {
            // Times of a file with dirty data go with the data.
            if self.data.dirty_bytes(node) == 0 {
                self.flush_change_times(node).await?;
            }
        }
        Ok(())
    }

    async fn flush_access_times(&self, nodes: &[Arc<Node>]) -> Result<()> {
        let mut times = Vec::new();
        for node in nodes {
            let mut meta = node.locked();
            if std::mem::take(&mut meta.atime_dirty) && meta.inode.links > 0 {
                times.push((node.ino, meta.atime));
            }
        }
        if times.is_empty() {
            return Ok(());
        }
        let done = self.meta.propose(Command::SetAccessTimes { times }).await;
        if done.is_err() {
            for node in nodes {
                node.locked().atime_dirty = true;
                self.remember_times(node);
            }
        }
        done.map(drop)
    }

    async fn flush_change_times(&self, node: &Arc<Node>) -> Result<()> {
        let set = {
            let mut meta = node.locked();
            if !std::mem::take(&mut meta.times_dirty) || meta.inode.links == 0 {
                return Ok(());
            }
            SetAttributes {
                mtime: Some(meta.mtime),
                ctime: Some(meta.ctime),
                ..SetAttributes::default()
            }
        };
        let done = self.change_inode(node, Command::SetAttributes { ino: node.ino, set }).await;
        if done.is_err() {
            node.locked().times_dirty = true;
            self.remember_times(node);
        }
        done
    }
}
