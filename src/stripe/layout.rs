//! Rows and cells of a stripe, and the record that names its shards.

use crate::class::Class;
use crate::types::{ClassId, DiskId, Epoch, ShardIndex, StripeId};

/// What the metadata keeps of a stripe: enough to read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StripeRecord {
    /// The stripe.
    pub id: StripeId,
    /// Class id at the time of writing.
    pub class_id: ClassId,
    /// Scheme, compression and cell size at the time of writing: a class may be redefined later.
    pub class: Class,
    /// Epoch of the placement.
    pub epoch: Epoch,
    /// Bytes of the payload: frames back to back.
    pub payload_bytes: u64,
    /// Number of slots.
    pub slots: u32,
    /// Disk of each shard, n of them.
    pub disks: Vec<DiskId>,
    /// Bit i set: shard i was never acknowledged and is not believed.
    pub missing: u64,
    /// BLAKE3 over the cell hashes of each shard, n of them (zeros for one that is missing).
    pub shard_roots: Vec<[u8; 32]>,
}

impl StripeRecord {
    /// Whether shard `index` is recorded as missing.
    pub fn is_missing(&self, index: ShardIndex) -> bool {
        self.missing & (1 << index.0) != 0
    }
}
