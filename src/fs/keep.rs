//! What the file system does on its own: commits late times, gives orphans back, syncs, ends.

use crate::error::{Posix, Result};
use crate::fs::Fs;
use crate::fs::node::Node;
use crate::meta::command::{Answer, Command, SetAttributes};
use crate::sync::{Arc, PoisonError};
use crate::types::{Ino, LogPosition};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long late times and released orphans wait: as long as the log's own background flush.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Orphans per command: 8 bytes each, and `apply` moves each to the reaping queue.
const ORPHANS_PER_COMMAND: usize = 1024;
/// How often a writer that finds no room looks whether unlinked files give some back: once for those that nobody holds
/// any more, then while the kernel is about to let go of others.
const ROOM_LOOKS: u32 = 10;
/// Pause between these looks.
const ROOM_PAUSE: Duration = Duration::from_millis(100);

impl Fs {
    /// Runs until `stop`: once a second, and early when many orphans wait, commits late times and gives orphans
    /// back. Errors are logged; what failed is tried again.
    pub async fn run_keeper(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = tokio::time::sleep(KEEP_INTERVAL) => {}
            }
            if self.read_only() {
                continue;
            }
            if let Err(error) = self.flush_times().await {
                tracing::warn!("commit times of files: {error}; they are tried again");
            }
            if let Err(error) = self.release_orphans().await {
                tracing::warn!("give up unlinked files: {error}; they are tried again");
            }
        }
    }

    /// Makes everything durable that was done before: data, times, names.
    pub async fn sync_all(&self) -> Result<()> {
        self.flush_times().await?;
        self.data.sync_all().await?;
        // Times whose data was dirty at first.
        self.flush_times().await?;
        self.release_orphans().await?;
        self.meta.sync().await
    }

    /// Bytes of an inode that are dirty, as far as it is in memory.
    pub fn dirty_bytes(&self, ino: Ino) -> u64 {
        self.nodes.get(ino).map_or(0, |node| self.data.dirty_bytes(&node))
    }

    /// Size of an inode as users see it, if it is in memory.
    pub fn size(&self, ino: Ino) -> Option<u64> {
        self.nodes.get(ino).map(|node| node.locked().size)
    }

    /// Ends the mount: the kernel is gone and holds nothing any more. Gives back every orphan, makes everything
    /// durable. The caller has stopped all operations.
    pub async fn shutdown(&self) -> Result<()> {
        if self.read_only() {
            return Ok(());
        }
        for node in self.nodes.all() {
            self.release_orphan(&node);
        }
        self.sync_all().await
    }

    /// Whether to do again what found no room: the room of files that were unlinked a moment ago counts for nothing
    /// before they are in the reaping queue. `looks` counts what was done for one caller, from 0.
    pub(super) async fn gives_back_room(&self, done: &Result<()>, looks: &mut u32) -> bool {
        let full = matches!(done, Err(error) if error.is(Posix::NoSpace));
        if !full || *looks >= ROOM_LOOKS {
            return false;
        }
        if *looks > 0 {
            if !self.nodes.any(Node::is_leaving) {
                return false;
            }
            tokio::time::sleep(ROOM_PAUSE).await;
        }
        *looks += 1;
        let released = self.release_orphans().await;
        released.inspect_err(|error| tracing::warn!("give up unlinked files: {error}")).is_ok()
    }

    /// Proposes the release of orphans that nobody holds any more, in batches. Once it returns, those that somebody else
    /// was proposing are released too.
    pub async fn release_orphans(&self) -> Result<()> {
        let _one = self.releasing.lock().await;
        loop {
            let inos: Vec<Ino> = {
                let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
                let keep = released.len().saturating_sub(ORPHANS_PER_COMMAND);
                released.split_off(keep)
            };
            if inos.is_empty() {
                return Ok(());
            }
            let command = Command::ReleaseOrphans { inos: inos.clone() };
            if let Err(error) = self.meta.propose(command).await {
                self.released.lock().unwrap_or_else(PoisonError::into_inner).extend(inos);
                return Err(error);
            }
        }
    }

    /// Looks whether anybody still holds a node: without names it is given back, with names it becomes idle.
    pub(super) fn settle(&self, node: &Node) {
        if node.is_held() {
            return;
        }
        if node.locked().inode.links == 0 {
            self.release_orphan(node);
        }
        self.nodes.rest(node);
    }

    /// Queues an orphan for release, once.
    fn release_orphan(&self, node: &Node) {
        {
            let mut meta = node.locked();
            if meta.inode.links > 0 || std::mem::replace(&mut meta.released, true) {
                return;
            }
        }
        self.data.discard(node);
        let mut released = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        released.push(node.ino);
        if released.len() >= ORPHANS_PER_COMMAND {
            self.wake.notify_one();
        }
    }

    /// Proposes a command about one inode that answers it, and takes the answer over.
    pub(super) async fn change_inode(&self, node: &Node, command: Command) -> Result<()> {
        let (answer, position) = self.meta.propose_at(command).await?;
        self.take_answer(node, answer, position);
        Ok(())
    }

    /// Takes over an answer about `node`; one about another inode only says that this one changed.
    pub(super) fn take_answer(&self, node: &Node, answer: Answer, position: LogPosition) {
        match answer {
            Answer::Inode(inode) | Answer::Removed(Some(inode)) if inode.ino == node.ino => {
                node.install(*inode, position);
            }
            Answer::Done
            | Answer::Inode(_)
            | Answer::Removed(_)
            | Answer::Committed { .. }
            | Answer::Reaped { .. } => node.outdate(position),
        }
    }

    pub(super) async fn set_attributes(&self, node: &Node, set: SetAttributes) -> Result<()> {
        self.change_inode(node, Command::SetAttributes { ino: node.ino, set }).await
    }
}
