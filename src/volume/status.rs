//! What `status` and `df` say of a volume: values with stable JSON keys, bytes and seconds as plain numbers.

use crate::config::labels::Labels;
use crate::fs::AtimeMode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A volume at a glance.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Name of the volume.
    pub name: String,
    /// Its identity.
    pub volume: String,
    /// `healthy`, `degraded`, `waiting` (changes wait for disks) or `read-only`.
    pub state: String,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// What to do about it, one sentence each.
    pub actions: Vec<String>,
    /// Where it is mounted.
    pub mount: Option<String>,
    /// Process that serves it.
    pub pid: Option<u32>,
    /// Version of the member list.
    pub epoch: u64,
    /// What only the metadata tells. In JSON its keys are among the others; they are absent while it cannot be read.
    #[serde(flatten)]
    pub metadata: Option<MetadataStatus>,
    /// Whether some disks share a device, whose loss is the loss of them all.
    pub shared_device: bool,
    /// The disks.
    pub disks: Vec<DiskStatus>,
    /// Written bytes that are not yet durable.
    pub dirty_bytes: u64,
    /// The log.
    pub log: LogStatus,
}

/// The part of a volume's status that is in its metadata.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct MetadataStatus {
    /// Class of the root directory.
    pub class: String,
    /// How many more disks may be lost without losing data, now.
    pub survives_disks: i64,
    /// The same in words, with what else has to be known.
    pub survives: String,
    /// Number of stripes by how many more shards each may lose.
    pub stripes_by_margin: BTreeMap<String, u64>,
    /// Bytes of small data in the log and metadata.
    pub hot_bytes: u64,
    /// Repair.
    pub repair: RepairStatus,
    /// Capacity for the class of the root directory.
    pub space: ClassSpace,
    /// Inodes in use.
    pub inodes: u64,
}

/// How far repair is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RepairStatus {
    /// Stripes that are known to wait for their repair, and can be repaired now.
    pub waiting: u64,
    /// Stripes with shards that were found bad, or with attempts that failed.
    pub noted: u64,
    /// Whether it is held.
    pub paused: bool,
    /// Seconds until every stripe has its full margin at the present rate; none while nothing is repaired.
    pub full_margin_seconds: Option<u64>,
}

/// Background work.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Job {
    /// `repair`, `scrub`, `rebalance` or `drain:` with the number of a disk.
    pub name: String,
    /// `idle`, `running` or `paused`.
    pub state: String,
    /// Bytes of shards that are done: of the pass for a scrub, of this disk since it drains for a drain, and in all for
    /// others; of all but a scrub since the mount.
    pub done_bytes: u64,
    /// Bytes of shards that are known to be left.
    pub left_bytes: u64,
    /// Bytes of shards in a second, of late; 0 unless it runs.
    pub bytes_per_second: u64,
    /// Seconds to the end at this rate, while it runs.
    pub eta_seconds: Option<u64>,
    /// What else there is to say.
    pub detail: Option<String>,
}

/// Where scrubbing is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// `idle`, `running` or `paused`.
    pub state: String,
    /// Whether a pass is under way, held or not; else what was read is that of the last one.
    pub under_way: bool,
    /// Passes that were completed.
    pub passes: u64,
    /// When the latest began, RFC 3339 in UTC.
    pub started: Option<String>,
    /// When the latest completed one ended.
    pub finished: Option<String>,
    /// Stripes read in the latest pass.
    pub stripes_checked: u64,
    /// Stripes that there are now: those written during a pass are not read in it.
    pub stripes: u64,
    /// Bytes of shards read in it.
    pub bytes_checked: u64,
    /// Bytes of shards that there are now.
    pub bytes: u64,
    /// Shards found bad in it, which repair restores.
    pub damaged: u64,
}

/// A disk.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Number of the disk in the volume.
    pub id: u32,
    /// Where it is.
    pub path: String,
    /// `healthy`, `suspect` (slow), `full`, `draining`, `down`, `out` (given up until it returns) or `removed`.
    pub state: String,
    /// Why, unless healthy.
    pub reason: Option<String>,
    /// Size of its device.
    pub total_bytes: u64,
    /// Free on its device.
    pub free_bytes: u64,
    /// Failed calls since the mount.
    pub errors: u64,
    /// Milliseconds that half of its jobs took longer than, in about the last minute, waiting in its queue not
    /// counted; `null` if it had none, or is not in use.
    pub latency_median_ms: Option<f64>,
    /// Milliseconds that one of a hundred took longer than.
    pub latency_p99_ms: Option<f64>,
    /// Whether it keeps the log and a copy of the metadata.
    pub log: bool,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

/// A node that the volume knows.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name, which its certificate has.
    pub name: String,
    /// Where it is: `host:port`.
    pub address: String,
    /// Whether it answers.
    pub reachable: bool,
    /// Why not, unless it does.
    pub reason: Option<String>,
    /// Disks of the volume that it serves, or has to.
    pub disks: Vec<DiskStatus>,
    /// Directories that it serves and that are no disk, as `disk add` takes them.
    pub spare: Vec<String>,
}

/// A node of which somebody has said where it is.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct AddedNode {
    /// The node.
    pub node: NodeStatus,
    /// Where it was before, if the volume knew it elsewhere.
    pub before: Option<String>,
    /// Where the configuration says that it is, if that is elsewhere: this counts at the next mount.
    pub configured: Option<String>,
}

/// Positions of the log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct LogStatus {
    /// Commands applied.
    pub applied: u64,
    /// Commands durable.
    pub durable: u64,
    /// Disks in use that keep it.
    pub disks: Vec<u32>,
    /// Disks that should keep it.
    pub wanted: u32,
}

/// Space as a class sees it: what a user can write, after redundancy and reserve.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ClassSpace {
    /// The class.
    pub class: String,
    /// All of it.
    pub total_bytes: u64,
    /// Written.
    pub used_bytes: u64,
    /// Still to be written.
    pub available_bytes: u64,
    /// Bytes on all disks, before redundancy.
    pub raw_total_bytes: u64,
    /// Free on all disks, before redundancy.
    pub raw_free_bytes: u64,
    /// Kept for repair, cleaning and deletion, before redundancy.
    pub raw_reserved_bytes: u64,
}

/// What a remount of a mount changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Remount {
    /// Whether changes are refused from now on.
    pub read_only: bool,
    /// Access times.
    pub atime: AtimeMode,
    /// Whether directories keep theirs.
    pub nodiratime: bool,
}

/// What a repair sweep did.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RepairReport {
    /// Stripes looked at.
    pub stripes_checked: u64,
    /// Stripes that had something to repair.
    pub stripes_touched: u64,
    /// Shards written anew.
    pub shards_restored: u64,
    /// Bytes of those shards.
    pub bytes_restored: u64,
    /// What could not be done, shards and whole stripes, the first hundred in words.
    pub failures: Vec<String>,
    /// How much could not be done.
    pub failure_count: u64,
}

/// What disks have of the repair log.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RepairHistory {
    /// The last attempts, the latest first.
    pub lines: Vec<RepairLine>,
    /// Paths of disks whose part cannot be read now: there may be more attempts.
    pub unread: Vec<String>,
}

/// One attempt to restore a stripe, a line of the repair log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RepairLine {
    /// When it began, RFC 3339 in UTC.
    pub time: String,
    /// The stripe.
    pub stripe: String,
    /// Its class.
    pub class: String,
    /// Shards that were absent, damaged or on a disk that is given up.
    pub missing_shards: Vec<u8>,
    /// What was done.
    pub action: String,
    /// Bytes of the shards that were written.
    pub bytes: u64,
    /// Disks with good shards.
    pub source_disks: Vec<u32>,
    /// Disks that got shards.
    pub target_disks: Vec<u32>,
    /// How long it took.
    pub milliseconds: u64,
    /// `done`, `partial`, `skipped` (it is tried again at `next_retry`) or `failed`.
    pub result: String,
    /// Why not all was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_retry: Option<String>,
}
