//! The table of nodes: one `Node` per inode in memory, and which idle ones to forget. Knows no metadata store.

use crate::fs::node::Node;
use crate::meta::command::Inode;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{Ino, LogPosition, ROOT_INO};
use std::collections::{HashMap, VecDeque};

/// Locks that the table is divided among: many more than threads, so that they seldom meet.
const SHARDS: u64 = 64;
/// Idle nodes kept for the next look-up: their extents and attributes are worth about 1 KiB each.
const IDLE_NODES_MAX: usize = 8192;

#[derive(Debug)]
pub(super) struct Nodes {
    shards: Vec<Mutex<Shard>>,
    /// Every node that nobody holds stands here, oldest first; some that are held again, too.
    idle: Mutex<VecDeque<Ino>>,
}

#[derive(Debug, Default)]
struct Shard {
    nodes: HashMap<Ino, Arc<Node>>,
    /// Newest position that a removed node knew of: an inode read before it may be older than what was forgotten.
    forgotten: LogPosition,
}

impl Nodes {
    pub(super) fn new() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { shards, idle: Mutex::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).nodes.len()).sum()
    }

    pub(super) fn get(&self, ino: Ino) -> Option<Arc<Node>> {
        lock(self.shard(ino)).nodes.get(&ino).cloned()
    }

    /// All nodes.
    pub(super) fn all(&self) -> Vec<Arc<Node>> {
        self.shards
            .iter()
            .flat_map(|shard| lock(shard).nodes.values().cloned().collect::<Vec<_>>())
            .collect()
    }

    /// Whether one of the nodes is like this.
    pub(super) fn any(&self, is: impl Fn(&Node) -> bool) -> bool {
        self.shards.iter().any(|shard| lock(shard).nodes.values().any(|node| is(node)))
    }

    /// The node of `inode`, which was read at `position`; made if there is none. `None`: what was read may be older
    /// than a node forgotten meanwhile, read again.
    pub(super) fn enter(&self, inode: Inode, position: LogPosition) -> Option<Arc<Node>> {
        let ino = inode.ino;
        let node = {
            let mut shard = lock(self.shard(ino));
            if let Some(node) = shard.nodes.get(&ino) {
                node.install(inode, position);
                return Some(Arc::clone(node));
            }
            if position < shard.forgotten {
                return None;
            }
            let node = Arc::new(Node::at(inode, position));
            shard.nodes.insert(ino, Arc::clone(&node));
            node
        };
        self.rest(&node);
        Some(node)
    }

    /// Queues a node that nobody holds; beyond the bound the oldest idle node is forgotten.
    pub(super) fn rest(&self, node: &Node) {
        if node.ino == ROOT_INO || node.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let oldest = {
            let mut idle = lock(&self.idle);
            idle.push_back(node.ino);
            if idle.len() > IDLE_NODES_MAX { idle.pop_front() } else { None }
        };
        if let Some(oldest) = oldest
            && !self.forget(oldest)
        {
            lock(&self.idle).push_back(oldest);
        }
    }

    /// Removes a node unless somebody uses it. `false`: nobody holds it, but it is in use at this moment.
    pub(super) fn forget(&self, ino: Ino) -> bool {
        let mut shard = lock(self.shard(ino));
        let Some(node) = shard.nodes.get(&ino) else { return true };
        if node.is_held() {
            node.queued.store(false, Ordering::Release);
            // It may have been let go just now, by someone who saw it queued.
            return node.is_held() || node.queued.swap(true, Ordering::AcqRel);
        }
        // New references come from this map or from an existing one: with a single one left there is no user.
        if Arc::strong_count(node) > 1 {
            return false;
        }
        let known = {
            let meta = node.locked();
            meta.position.max(meta.wanted)
        };
        shard.forgotten = shard.forgotten.max(known);
        shard.nodes.remove(&ino);
        true
    }

    fn shard(&self, ino: Ino) -> &Mutex<Shard> {
        let index = usize::try_from(ino.0 % SHARDS).expect("a shard number is small");
        &self.shards[index]
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
