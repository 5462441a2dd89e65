//! Placement: which disks hold a stripe. A pure function of members, class and stripe id; its result is
//! recorded, never recomputed for reading.
//!
//! Consistent hashing (Karger et al., STOC 1997) with virtual nodes: each disk owns points on a ring of 64-bit
//! numbers, in proportion to its weight, and a stripe takes the disks of the points that follow its own. Points
//! depend on nothing but the disk, so a disk that comes or goes moves only what it gains or held.

use crate::sum::blake3;
use crate::types::{DiskId, StripeId};

#[cfg(test)]
mod tests;

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
    /// Points in order, each with the index of its disk.
    points: Vec<(u64, usize)>,
    disks: Vec<DiskId>,
}

impl Ring {
    /// A ring of `candidates` with `points` virtual nodes for a disk of mean weight and at least one for each disk.
    /// Their order does not matter, and of two with one id the first counts.
    pub fn new(candidates: &[Candidate], points: u32) -> Self {
        let mut candidates = candidates.to_vec();
        candidates.sort_by_key(|candidate| candidate.disk);
        candidates.dedup_by_key(|candidate| candidate.disk);
        let total: u128 = candidates.iter().map(|candidate| u128::from(candidate.weight)).sum();
        let all_points = u128::from(points) * candidates.iter().map(|_each| 1_u128).sum::<u128>();

        let mut ring = Vec::new();
        for (index, candidate) in candidates.iter().enumerate() {
            // Rounded to the nearest; without any weight all disks are equal.
            let share = (u128::from(candidate.weight) * all_points + total / 2).checked_div(total);
            let own = share.unwrap_or_else(|| u128::from(points)).max(1);
            for number in 0..u32::try_from(own).unwrap_or(u32::MAX) {
                ring.push((point_of_disk(candidate.disk, number), index));
            }
        }
        ring.sort_unstable();
        Self { points: ring, disks: candidates.iter().map(|candidate| candidate.disk).collect() }
    }

    /// All usable disks in the order of this stripe's walk around the ring: the first n hold its shards, the
    /// others are spares. Each disk appears once.
    pub fn walk(&self, stripe: StripeId) -> Vec<DiskId> {
        let start = point_of_stripe(stripe);
        let start = self.points.partition_point(|(point, _disk)| *point < start);
        let (behind, ahead) = self.points.split_at(start);
        let mut seen = vec![false; self.disks.len()];
        let mut walk = Vec::with_capacity(self.disks.len());
        for (_point, index) in ahead.iter().chain(behind) {
            if !std::mem::replace(&mut seen[*index], true) {
                walk.push(self.disks[*index]);
                if walk.len() == self.disks.len() {
                    break;
                }
            }
        }
        walk
    }
}

fn point_of_disk(disk: DiskId, number: u32) -> u64 {
    position(b"disk", [disk.0.to_le_bytes(), number.to_le_bytes()].as_flattened())
}

fn point_of_stripe(stripe: StripeId) -> u64 {
    position(b"stripe", &stripe.get().to_le_bytes())
}

/// A place on the ring; `kind` keeps stripes apart from points with the same bytes.
fn position(kind: &[u8], id: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = blake3(&[kind, id].concat());
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}
