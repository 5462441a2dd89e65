//! How much of a class fits on disks of any sizes. Pure arithmetic.

use crate::disk::Space;
use crate::erasure::Scheme;
use std::collections::BTreeMap;

/// Bytes of one disk that shards may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Share {
    /// All of it.
    pub(super) total_bytes: u64,
    /// Free of it, the reserve included.
    pub(super) free_bytes: u64,
    /// Kept for repair, cleaning and deletion.
    pub(super) reserved_bytes: u64,
    /// Something else than this volume's data has filled the disk.
    pub(super) full: bool,
}

/// The share of each disk: those on one device divide it evenly, so that its space counts once.
/// Each space comes with whether something else has filled its disk.
pub(super) fn shares(spaces: &[(Space, bool)], reserve_percent: u32) -> Vec<Share> {
    let mut on_device: BTreeMap<u64, u64> = BTreeMap::new();
    for (space, _full) in spaces {
        *on_device.entry(space.device).or_default() += 1;
    }
    spaces
        .iter()
        .map(|(space, full)| {
            let neighbours = on_device.get(&space.device).copied().unwrap_or(1);
            let total_bytes = space.total_bytes / neighbours;
            Share {
                total_bytes,
                free_bytes: space.free_bytes / neighbours,
                reserved_bytes: total_bytes / 100 * u64::from(reserve_percent),
                full: *full,
            }
        })
        .collect()
}

/// The shares that new stripes of `scheme` use. Disks that something else has filled are passed over like lost ones, as
/// long as the scheme survives the loss of so many.
pub(super) fn usable(shares: &[Share], scheme: Scheme) -> Vec<Share> {
    let roomy: Vec<Share> = shares.iter().copied().filter(|share| !share.full).collect();
    let passed_over = shares.len() - roomy.len();
    let enough = roomy.len() >= usize::from(scheme.k()) && passed_over <= usize::from(scheme.m());
    if enough { roomy } else { shares.to_vec() }
}

/// Payload bytes that fit when disk i has room for `rooms[i]` bytes of shards. Each stripe takes n different
/// disks, so a disk holds at most one shard of each: the largest column height X with
/// sum(min(room, X)) >= n * X; the payload is k * X. While fewer than n disks are in use (but k at least) each stripe
/// takes all of them.
pub(super) fn payload_capacity(rooms: &[u64], scheme: Scheme) -> u64 {
    let (k, n) = (u128::from(scheme.k()), u128::from(scheme.n()));
    let n = n.min(rooms.len() as u128);
    if n < k {
        return 0;
    }
    let fits = |height: u64| {
        let sum: u128 = rooms.iter().map(|room| u128::from(*room.min(&height))).sum();
        sum >= n * u128::from(height)
    };
    let total: u128 = rooms.iter().map(|room| u128::from(*room)).sum();
    let (mut low, mut high) = (0u64, u64::try_from(total / n.max(1)).unwrap_or(u64::MAX));
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    u64::try_from(k * u128::from(low)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Share, payload_capacity, shares, usable};
    use crate::disk::Space;
    use crate::erasure::Scheme;

    fn check(rooms: &[u64], scheme: Scheme, expected: u64) {
        assert_eq!(payload_capacity(rooms, scheme), expected, "{rooms:?} {scheme:?}");
    }

    #[test]
    fn capacity_of_mixed_disks() {
        let four_two = Scheme::ReedSolomon { k: 4, m: 2 };
        check(&[100; 6], four_two, 400);
        check(&[100; 8], four_two, 532); // 800 / 6 = 133 rows of 4
        check(&[100; 5], four_two, 400);
        check(&[100; 3], four_two, 0);
        check(&[1000, 10, 10, 10, 10, 10], four_two, 40);
        check(&[200, 200, 100, 100, 100, 100], four_two, 400);
        check(&[], four_two, 0);
        check(&[5, 5, 10], Scheme::Replica(2), 10);
        check(&[u64::MAX; 6], four_two, u64::MAX);
    }

    #[test]
    fn a_shared_device_counts_once() {
        let space = Space { total_bytes: 1000, free_bytes: 600, device: 1 };
        let other = Space { device: 2, ..space };
        let half = Share { total_bytes: 500, free_bytes: 300, reserved_bytes: 25, full: false };
        let whole = Share { total_bytes: 1000, free_bytes: 600, reserved_bytes: 50, full: true };
        assert_eq!(
            shares(&[(space, false), (space, false), (other, true)], 5),
            [half, half, whole]
        );
    }

    #[test]
    fn full_disks_are_passed_over_like_lost_ones() {
        let four_two = Scheme::ReedSolomon { k: 4, m: 2 };
        let roomy = Share { total_bytes: 100, free_bytes: 50, reserved_bytes: 5, full: false };
        let full = Share { free_bytes: 0, full: true, ..roomy };
        assert_eq!(usable(&[full, full, roomy, roomy, roomy, roomy], four_two), [roomy; 4]);
        let three_full = [full, full, full, roomy, roomy, roomy];
        assert_eq!(usable(&three_full, four_two), three_full);
        let three_of_eight = [full, full, full, roomy, roomy, roomy, roomy, roomy];
        assert_eq!(usable(&three_of_eight, four_two), three_of_eight);
    }
}
