use super::{Move, moves};
use crate::config::labels::Labels;
use crate::placement::policy::Policy;
use crate::placement::{Candidate, Ring, Wanted};
use crate::stripe::layout::StripeRecord;
use crate::stripe::reader::Presence;
use crate::types::{ClassId, DiskId, Epoch, Incarnation, ShardIndex, StripeId};
use std::collections::BTreeMap;

fn record(number: u32, disks: &[u32], missing: u64) -> StripeRecord {
    let n = disks.len();
    StripeRecord {
        id: StripeId::new(Incarnation(1), number),
        class_id: ClassId(0),
        class: format!("{}+2", n - 2).parse().unwrap(),
        epoch: Epoch(1),
        payload_bytes: 64,
        slots: 1,
        disks: disks.iter().copied().map(DiskId).collect(),
        missing,
        shard_roots: vec![[0; 32]; n],
    }
}

/// `disks` says how disks 0, 1, ... are: Here, Leaving, Away, Out, and Full for one that is here without room.
fn check(
    shards: &[u32],
    missing: u64,
    home: &[u32],
    disks: &str,
    expected: &[(u8, u32, Option<u32>)],
) {
    let presence = |letter| match letter {
        'h' | 'f' => Presence::Here,
        'l' => Presence::Leaving,
        'a' => Presence::Away,
        _out => Presence::Out,
    };
    let full: Vec<DiskId> = (0..)
        .map(DiskId)
        .zip(disks.chars())
        .filter(|(_id, l)| *l == 'f')
        .map(|(id, _)| id)
        .collect();
    let disks = (0..).map(DiskId).zip(disks.chars().map(presence)).collect();
    let home: Vec<DiskId> = home.iter().copied().map(DiskId).collect();
    let found = moves(&record(1, shards, missing), &home, &disks, |disk| !full.contains(&disk));
    let expected: Vec<Move> = expected
        .iter()
        .map(|(index, from, to)| Move {
            index: ShardIndex(*index),
            from: DiskId(*from),
            to: to.map(DiskId),
        })
        .collect();
    assert_eq!(found, expected, "{shards:?} {home:?}");
}

#[test]
fn only_what_is_elsewhere_moves() {
    let at = [0, 1, 2, 3];
    check(&at, 0, &[0, 1, 2, 3, 4], "hhhhh", &[]);
    // The order among the wanted ones does not matter.
    check(&at, 0, &[3, 2, 1, 0, 4], "hhhhh", &[]);
    check(&at, 0, &[4, 1, 2, 3, 0], "hhhhh", &[(0, 0, Some(4))]);
    check(&at, 0, &[4, 5, 2, 3, 0, 1], "hhhhhh", &[(0, 0, Some(4)), (1, 1, Some(5))]);
    // Without room, or away: it stays.
    check(&at, 0, &[4, 1, 2, 3, 0], "hhhhf", &[]);
    check(&at, 0, &[4, 1, 2, 3, 0], "hhhha", &[]);
    check(&at, 0, &[4, 5, 2, 3, 0, 1], "hhhhfh", &[(0, 0, Some(5))]);
}

#[test]
fn what_leaves_takes_a_spare_too() {
    let at = [0, 1, 2, 3];
    check(&at, 0, &[1, 2, 3, 4, 5], "lhhhhh", &[(0, 0, Some(4))]);
    check(&at, 0, &[1, 2, 3, 4, 5], "lhhhfh", &[(0, 0, Some(5))]);
    check(&at, 0, &[1, 2, 3, 4, 5], "lhhhff", &[(0, 0, None)]);
    check(&at, 0, &[1, 2, 3], "lhhh", &[(0, 0, None)]);
    check(&at, 0, &[2, 3, 4, 5, 6], "llhhhhh", &[(0, 0, Some(4)), (1, 1, Some(5))]);
}

#[test]
fn what_repair_has_to_do_is_left_to_it() {
    let at = [0, 1, 2, 3];
    check(&at, 0b1, &[1, 2, 3, 4], "lhhhh", &[]);
    check(&at, 0, &[4, 1, 2, 3], "ahhhh", &[]);
    check(&at, 0, &[4, 1, 2, 3], "ohhhh", &[]);
}

#[test]
fn a_disk_that_is_added_gets_its_share_and_the_others_keep_the_rest() {
    let ring = |count: u32| {
        let labels = Labels::default;
        let disks = (0..count).map(DiskId);
        let disks = disks.map(|disk| Candidate { disk, weight: 1, room: None, labels: labels() });
        let wanted = Wanted { n: 6, m: 2, policy: Policy::RING, here: String::new() };
        Ring::new(&disks.collect::<Vec<_>>(), &wanted)
    };
    let (before, after) = (ring(9), ring(10));
    let here: BTreeMap<DiskId, Presence> =
        (0..10).map(|disk| (DiskId(disk), Presence::Here)).collect();
    let (mut moved, mut to_new) = (0_u32, 0_u32);
    for number in 0..2000 {
        let mut stripe = record(number, &[0; 6], 0);
        stripe.disks = before.walk(stripe.id).into_iter().take(6).collect();
        let home = after.walk(stripe.id);
        let found = moves(&stripe, &home, &here, |_disk| true);
        for found in &found {
            moved += 1;
            to_new += u32::from(found.to == Some(DiskId(9)));
            stripe.disks[usize::from(found.index.0)] = found.to.unwrap();
        }
        assert_eq!(moves(&stripe, &home, &here, |_disk| true), [], "one pass is enough");
    }
    assert_eq!(moved, to_new, "nothing moves between the others");
    let share = f64::from(moved) / (2000.0 * 6.0);
    assert!((0.06..0.14).contains(&share), "about a tenth: {share}");
}
