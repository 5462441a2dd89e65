//! The disks of a volume as this process sees them: who is there, who is down, and why. The one place that
//! decides whether a disk is used.

use crate::disk::Disk;
use crate::disk::queue::DiskQueue;
use crate::error::Error;
use crate::types::DiskId;
use std::sync::Arc;
use tokio::sync::watch;

/// A disk in use.
#[derive(Debug)]
pub struct DiskHandle {
    /// The disk's number.
    pub id: DiskId,
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Where its blocking work runs.
    pub queue: DiskQueue,
}

/// Whether a disk is used.
#[derive(Clone, Debug)]
pub enum DiskState {
    /// In use.
    Healthy,
    /// Not used since an error, which is told.
    Down(String),
}

/// All disks of a volume.
#[derive(Debug)]
pub struct DiskSet {}

impl DiskSet {
    /// The disk, if it is in use.
    pub fn get(&self, _disk: DiskId) -> Option<Arc<DiskHandle>> {
        None
    }
    /// All disks and their states, by id.
    pub fn states(&self) -> Vec<(DiskId, DiskState)> {
        Vec::new()
    }
    /// Takes a disk out of use at once, because of `error`. Idempotent.
    pub fn fail(&self, _disk: DiskId, _error: &Error) {}
    /// Takes a disk into use (again).
    pub fn admit(&self, _handle: Arc<DiskHandle>) {}
    /// Changes with each change of any state.
    pub fn changes(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }
}
