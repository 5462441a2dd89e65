//! Which shards of a stripe are where the ring does not want them, and where they go. A pure function.

use crate::stripe::layout::{NO_DISK, StripeRecord};
use crate::stripe::reader::Presence;
use crate::types::{DiskId, ShardIndex};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// A shard that belongs elsewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Move {
    /// The shard.
    pub(super) index: ShardIndex,
    /// Where it is.
    pub(super) from: DiskId,
    /// Where it is to be; `None` if it has to leave and no disk can take it now.
    pub(super) to: Option<DiskId>,
}

/// What is to be moved of a stripe that belongs on the first disks of `home`. Only good shards on disks that answer are
/// moved, each at most once, and onto disks that hold none: the others are the business of repair. A shard that nothing
/// forces to leave stays where it is if its place has no room.
pub(super) fn moves(
    record: &StripeRecord,
    home: &[DiskId],
    disks: &BTreeMap<DiskId, Presence>,
    has_room: impl Fn(DiskId) -> bool,
) -> Vec<Move> {
    let n = usize::from(record.class.scheme.n()).min(home.len());
    let (wanted, spares) = home.split_at(n);
    let can_take = |disk: &&DiskId| {
        !record.disks.contains(disk)
            && disks.get(*disk) == Some(&Presence::Here)
            && has_room(**disk)
    };
    let mut wanted_free = wanted.iter().filter(can_take);
    let mut spares_free = spares.iter().filter(can_take);
    let mut moves = Vec::new();
    for (index, from) in record.shards().zip(&record.disks) {
        let presence = if *from == NO_DISK { None } else { disks.get(from) };
        let leaves = presence == Some(&Presence::Leaving);
        let stays = wanted.contains(from) || !(leaves || presence == Some(&Presence::Here));
        if stays || record.is_missing(index) {
            continue;
        }
        let to = wanted_free.next().or_else(|| if leaves { spares_free.next() } else { None });
        if to.is_some() || leaves {
            moves.push(Move { index, from: *from, to: to.copied() });
        }
    }
    moves
}
