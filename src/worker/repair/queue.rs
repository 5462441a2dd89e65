//! Which stripe is repaired next: the one that may lose the fewest shards more, then the oldest trouble. In memory, and
//! bounded; what is true is in the metadata, and a scan of it fills the queue anew. Knows no disk and no call.

use crate::stripe::layout::{NO_DISK, StripeRecord};
use crate::stripe::reader::Presence;
use crate::types::{DiskId, StripeId, Timestamp};
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// A stripe that can be repaired; the least is the most urgent.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Due {
    /// Shards that may still be lost.
    pub(super) margin: i64,
    /// When the trouble was found; the epoch if nobody noted it: a stripe that was written without all its shards.
    pub(super) since: Timestamp,
    /// The stripe.
    pub(super) id: StripeId,
    /// Bytes of the cells of its shards that are to be restored.
    pub(super) bytes: u64,
}

/// Stripes that wait, the most urgent first.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: BTreeSet<Due>,
    places: BTreeMap<StripeId, Due>,
    max: usize,
    overflowed: bool,
    bytes: u64,
}

impl Queue {
    /// Keeps the `max` most urgent ones.
    pub(super) const fn new(max: usize) -> Self {
        Self { waiting: BTreeSet::new(), places: BTreeMap::new(), max, overflowed: false, bytes: 0 }
    }

    /// Enters a stripe, or gives it its new place.
    pub(super) fn push(&mut self, due: Due) {
        self.bytes += due.bytes;
        if let Some(before) = self.places.insert(due.id, due) {
            self.waiting.remove(&before);
            self.bytes -= before.bytes;
        }
        self.waiting.insert(due);
        if self.waiting.len() > self.max
            && let Some(last) = self.waiting.pop_last()
        {
            self.places.remove(&last.id);
            self.bytes -= last.bytes;
            self.overflowed = true;
        }
    }

    /// Takes the most urgent one.
    pub(super) fn pop(&mut self) -> Option<Due> {
        let first = self.waiting.pop_first()?;
        self.places.remove(&first.id);
        self.bytes -= first.bytes;
        Some(first)
    }

    /// Bytes that are to be restored of those that wait.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Stripes that wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether some found no place since this was asked last.
    pub(super) fn take_overflowed(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }
}

/// What is to be expected of a stripe, without a look at its shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Outlook {
    /// Shards to be placed anew, a bit each: never placed, noted as bad, or on a disk that is given up.
    pub(super) lost: u64,
    /// Shards that may still be lost; those on disks that are away count as lost.
    pub(super) margin: i64,
    /// Whether enough shards are there to compute from, and a disk is there that may take one.
    pub(super) possible: bool,
}

/// The outlook of a stripe of which the shards `bad` are noted.
pub(super) fn outlook(
    record: &StripeRecord,
    bad: u64,
    disks: &BTreeMap<DiskId, Presence>,
) -> Outlook {
    let (mut lost, mut away) = (0_u64, 0_u64);
    let mut taken = BTreeSet::new();
    for (index, disk) in record.shards().zip(&record.disks) {
        let bit = 1_u64 << index.0;
        let presence = if *disk == NO_DISK { None } else { disks.get(disk) };
        let gone = matches!(presence, None | Some(Presence::Out));
        if gone || record.is_missing(index) {
            lost |= bit;
            continue;
        }
        if presence == Some(&Presence::Away) {
            away |= bit;
        }
        if bad & bit == 0 {
            taken.insert(*disk);
        }
    }
    let (n, k) = (i64::from(record.class.scheme.n()), i64::from(record.class.scheme.k()));
    let left = |gone: u64| n - i64::from(gone.count_ones()) - k;
    // What is noted may be a false alarm, or wrong in a few bytes: it counts for the order, and a look decides.
    let enough = left(lost | away) >= 0;
    lost |= bad & ((1_u64 << record.class.scheme.n()) - 1);
    let here = |(disk, presence): (&DiskId, &Presence)| {
        *presence == Presence::Here && !taken.contains(disk)
    };
    Outlook { lost, margin: left(lost | away), possible: enough && disks.iter().any(here) }
}
