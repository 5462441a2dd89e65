//! What all workers use to reach shards: calls to disks with a deadline, and claims on shards that are not yet where
//! the metadata says. Knows no kind of work.

use crate::error::{Error, Result};
use crate::net::{Operation, Peers, Priority, Request, Response, ShardKey};
use crate::stripe::reader::{Members, Presence};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{DiskId, NodeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Longest wait for one background operation: whole shards are read in one, so it is far above what a disk takes.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The shards of a volume as workers see them; cheap to clone. All workers of a mount share one.
#[derive(Clone, Debug)]
pub struct Shards {
    peers: Arc<dyn Peers>,
    members: Arc<dyn Members>,
    claims: Arc<Mutex<BTreeSet<(DiskId, ShardKey)>>>,
}

impl Shards {
    /// Reaches shards through `peers`.
    pub fn new(peers: Arc<dyn Peers>, members: Arc<dyn Members>) -> Self {
        Self { peers, members, claims: Arc::default() }
    }

    /// Node that serves `disk`, and `None` while it is down.
    pub(super) fn node(&self, disk: DiskId) -> Option<NodeId> {
        self.members.node(disk)
    }

    /// All disks of the volume.
    pub(super) fn disks(&self) -> BTreeMap<DiskId, Presence> {
        self.members.disks()
    }

    /// Whether work that could wait may put shards on `disk`.
    pub(super) fn has_room(&self, disk: DiskId) -> bool {
        self.members.has_room(disk)
    }

    /// One operation on one disk, in the background. `Unavailable` if the disk is down or silent.
    pub(super) async fn call(&self, disk: DiskId, operation: Operation) -> Result<Response> {
        let down = || Error::unavailable(format!("disk {disk} is down"));
        let node = self.node(disk).ok_or_else(down)?;
        let epoch = self.members.epoch();
        let request = Request { disk, epoch, priority: Priority::Background, operation };
        match tokio::time::timeout(CALL_TIMEOUT, self.peers.call(node, request)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(Error::unavailable(format!("disk {disk} does not answer"))),
        }
    }

    /// The right to put or to remove a shard that the metadata does not name for this disk: until the claim is
    /// dropped nobody else gets it.
    pub(super) fn claim(&self, disk: DiskId, key: ShardKey) -> Option<Claim> {
        let fresh = self.lock().insert((disk, key));
        fresh.then(|| Claim { shards: self.clone(), disk, key })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<(DiskId, ShardKey)>> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A shard that one worker is at.
#[derive(Debug)]
pub(super) struct Claim {
    shards: Shards,
    disk: DiskId,
    key: ShardKey,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shards.lock().remove(&(self.disk, self.key));
    }
}
