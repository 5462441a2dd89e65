//! Open files and directories. Knows nothing of what is done with them.

use crate::fs::node::Node;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, PoisonError};
use crate::types::HandleId;
use std::collections::HashMap;

/// One open file or directory.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) node: Arc<Node>,
    /// Whether the kernel passes reads and writes through, so that the server appends.
    pub(super) direct: bool,
    /// Whether the open cut the file: then closing flushes it.
    pub(super) truncated: bool,
    /// Largest stored cookie that a directory stream goes to.
    pub(super) bound: AtomicU64,
}

impl Handle {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node, direct: false, truncated: false, bound: AtomicU64::new(0) }
    }
}

/// All open files of a mount.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: Mutex<HashMap<HandleId, Arc<Handle>>>,
    next: AtomicU64,
}

impl Handles {
    /// Opens: counts the handle on its node.
    pub(super) fn insert(&self, handle: Handle) -> HandleId {
        handle.node.handles.fetch_add(1, Ordering::AcqRel);
        let id = HandleId(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        self.lock().insert(id, Arc::new(handle));
        id
    }

    pub(super) fn get(&self, id: HandleId) -> Option<Arc<Handle>> {
        self.lock().get(&id).cloned()
    }

    /// Closes: no longer counts on its node.
    pub(super) fn remove(&self, id: HandleId) -> Option<Arc<Handle>> {
        let handle = self.lock().remove(&id)?;
        handle.node.handles.fetch_sub(1, Ordering::AcqRel);
        Some(handle)
    }

    fn lock(&self) -> crate::sync::MutexGuard<'_, HashMap<HandleId, Arc<Handle>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
