//! Opens the metadata of a volume: which epoch counts, which log and state copies are believed, what is replayed.
//! Knows nothing of stripes and files.

use crate::class::Class;
use crate::disk::Disk;
use crate::disk::queue::DiskQueue;
use crate::disk::set::DiskSet;
use crate::disk::superblock::Superblock;
use crate::error::{Error, Result};
use crate::meta::local::LocalLog;
use crate::types::{Incarnation, Timestamp, VolumeId};
use std::sync::Arc;

/// A disk that is there and has a superblock. The caller has locked it.
#[derive(Debug)]
pub struct PresentDisk {
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Where its blocking work runs.
    pub queue: DiskQueue,
    /// What it says about itself.
    pub superblock: Superblock,
}

/// How a volume's metadata is opened.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    /// Replay in memory and write nothing anywhere.
    pub read_only: bool,
    /// Bound of redb's cache.
    pub cache_bytes: usize,
    /// Size of a log file.
    pub segment_bytes: u64,
    /// Most bytes of the log that wait for a sync; proposers wait beyond.
    pub buffer_bytes: usize,
}

/// Metadata that is open.
#[derive(Debug)]
pub struct Opened {
    /// The log, which also gives views.
    pub log: Arc<LocalLog>,
    /// All members' disks; those that are absent are down.
    pub disks: Arc<DiskSet>,
    /// Identity of the volume.
    pub volume: VolumeId,
    /// Name of the volume.
    pub name: String,
    /// This mount, durable in the state (read-only: the latest mount).
    pub incarnation: Incarnation,
    /// Whether the mount before ended with a shutdown.
    pub clean: bool,
    /// Whether every member that is not out was there, so that the newest epoch was seen completely.
    pub complete: bool,
}

/// What a new volume is.
#[derive(Clone, Debug)]
pub struct NewVolume {
    /// Identity, random.
    pub volume: VolumeId,
    /// Name.
    pub name: String,
    /// Class of the root directory.
    pub class: Class,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
    /// When.
    pub time: Timestamp,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            cache_bytes: 128 << 20,
            segment_bytes: crate::meta::log::SEGMENT_BYTES,
            buffer_bytes: crate::meta::log::BUFFER_BYTES,
        }
    }
}

/// Opens the metadata on the disks that are present; the others are taken for absent.
///
/// Errors: `Refused` with a sentence that names what is missing, or what does not belong together.
pub async fn open(present: Vec<PresentDisk>, options: OpenOptions) -> Result<Opened> {
    std::future::ready(()).await;
    Err(Error::internal(format!("open {} disks with {options:?}", present.len())))
}

/// Makes a new volume on empty disks (locked by the caller), numbered from 1 in their order. Durable on return.
///
/// Errors: `Refused` if a disk is not empty.
pub async fn format(disks: Vec<(Arc<dyn Disk>, DiskQueue)>, new: NewVolume) -> Result<()> {
    std::future::ready(()).await;
    Err(Error::internal(format!("format {} disks as {new:?}", disks.len())))
}
