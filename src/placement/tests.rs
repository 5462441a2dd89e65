#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use super::policy::{Policy, Rule, Tag};
use super::{Candidate, Ring, Wanted, height_bytes};
use crate::config::labels::Labels;
use crate::types::{DiskId, Incarnation, StripeId};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

mod capacity;
mod domains;
mod rules;

const STRIPES: u32 = 20_000;
const GIB: u64 = 1 << 30;

fn candidates(weights: &[u64]) -> Vec<Candidate> {
    let candidate = |(disk, weight): (DiskId, &u64)| Candidate {
        disk,
        weight: *weight,
        room: None,
        labels: Labels::default(),
    };
    (1..).map(DiskId).zip(weights).map(candidate).collect()
}

/// Disks of one size with these labels; `.` for none.
fn labelled(labels: &[&str]) -> Vec<Candidate> {
    let mut candidates = candidates(&vec![GIB; labels.len()]);
    for (candidate, labels) in candidates.iter_mut().zip(labels).filter(|(_, l)| **l != ".") {
        candidate.labels = Labels::parse(labels).unwrap();
    }
    candidates
}

fn wanted(k: u8, m: u8) -> Wanted {
    Wanted { n: k + m, m, policy: Policy::RING, here: String::new() }
}

fn stripes() -> impl Iterator<Item = StripeId> {
    (0..STRIPES).map(|counter| StripeId::new(Incarnation(3), counter))
}

/// The disks that hold a stripe.
fn placed(ring: &Ring, stripe: StripeId, wanted: &Wanted) -> Vec<DiskId> {
    ring.walk(stripe).into_iter().take(wanted.n.into()).collect()
}

/// How many stripes have a shard on each disk.
fn held(ring: &Ring, wanted: &Wanted) -> BTreeMap<DiskId, u32> {
    let mut held = BTreeMap::new();
    for disk in stripes().flat_map(|stripe| placed(ring, stripe, wanted)) {
        *held.entry(disk).or_default() += 1;
    }
    held
}

/// Each disk holds its part of the weight, or a shard of every stripe, to within `tolerance` of that.
fn check_balance(weights: &[u64], (k, m): (u8, u8), tolerance: f64) {
    let wanted = wanted(k, m);
    let ring = Ring::new(&candidates(weights), &wanted);
    let held = held(&ring, &wanted);
    let total: f64 = ring.shares().map(|(_disk, share)| share).sum();
    assert!((total - f64::from(wanted.n)).abs() < 1e-9, "{weights:?}: {total} shares");
    for (disk, share) in ring.shares() {
        let found = f64::from(held[&disk]) / f64::from(STRIPES);
        let off = found / share - 1.0;
        assert!(
            off.abs() < tolerance,
            "{weights:?} {k}+{m}: disk {disk} has {found:.3}, wanted {share:.3}"
        );
    }
}

#[test]
fn shards_follow_the_weights() {
    check_balance(&[1; 8], (1, 1), 0.05);
    check_balance(&[1; 8], (4, 2), 0.03);
    check_balance(&[1; 24], (4, 2), 0.06);
    check_balance(&[1, 1, 2, 2, 4, 4], (1, 0), 0.10);
    check_balance(&[1, 1, 2, 2, 4, 4], (1, 1), 0.10);
    check_balance(&[1, 1, 2, 2, 4, 4], (2, 1), 0.05);
    check_balance(&[1, 1, 2, 2, 4, 4], (3, 1), 0.05);
    check_balance(&[4, 6, 8, 10, 12, 14, 16, 18, 20, 22], (4, 2), 0.05);
    check_balance(&[1 << 40, 1 << 40, 2 << 40, 4 << 40, 4 << 40, 6 << 40], (2, 1), 0.10);
}

#[test]
fn shares_are_what_water_filling_gives() {
    let check = |weights: &[u64], n: u8, expected: &[f64]| {
        let ring = Ring::new(&candidates(weights), &Wanted { n, ..wanted(1, 1) });
        let shares: Vec<f64> = ring.shares().map(|(_disk, share)| share).collect();
        let close = shares.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(close && shares.len() == expected.len(), "{weights:?} {n}: {shares:?}");
    };
    check(&[5; 8], 6, &[0.75; 8]);
    check(&[5; 6], 6, &[1.0; 6]);
    check(&[5, 7], 6, &[1.0; 2]);
    check(&[1, 1, 2, 2, 4, 4], 4, &[1.0 / 3.0, 1.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0, 1.0, 1.0]);
    check(&[100, 1, 1, 1], 2, &[1.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0]);
    check(&[0, 0, 0], 2, &[2.0 / 3.0; 3]);
    check(&[0, 3, 3], 2, &[0.0, 1.0, 1.0]);
    check(&[u64::MAX, u64::MAX, 1, u64::MAX], 2, &[2.0 / 3.0, 2.0 / 3.0, 0.0, 2.0 / 3.0]);
}

#[test]
fn a_walk_is_pinned() {
    let walk =
        |ring: &Ring, stripe| -> Vec<u32> { ring.walk(stripe).iter().map(|disk| disk.0).collect() };
    let first = StripeId(0x1_0000_0002);
    let even = Ring::new(&candidates(&[1; 8]), &wanted(4, 2));
    assert_eq!(walk(&even, first), EVEN);
    let mixed = Ring::new(&candidates(&[1, 1, 2, 2, 4, 4, 8, 8]), &wanted(2, 1));
    assert_eq!(walk(&mixed, first), MIXED);
    let zones = ["zone=a", "zone=a", "zone=b", "zone=b", "zone=c", "zone=c", "zone=c", "."];
    assert_eq!(walk(&Ring::new(&labelled(&zones), &wanted(2, 1)), first), ZONES);
}

// What they say is arbitrary; that it never changes is not: a rebalance would move everything.
const EVEN: [u32; 8] = [4, 1, 7, 3, 2, 5, 8, 6];
const MIXED: [u32; 8] = [4, 7, 8, 5, 6, 1, 3, 2];
const ZONES: [u32; 8] = [4, 1, 7, 8, 3, 2, 5, 6];

/// Shards that move when a disk joins, over those that the new one has to get.
fn check_movement(weights: &[u64], new: u64, (k, m): (u8, u8), most: f64) {
    let wanted = wanted(k, m);
    let old = Ring::new(&candidates(weights), &wanted);
    let all: Vec<u64> = weights.iter().copied().chain([new]).collect();
    let ring = Ring::new(&candidates(&all), &wanted);
    let (mut moved, mut gained) = (0_u32, 0_u32);
    let newest = DiskId(u32::try_from(all.len()).unwrap());
    for stripe in stripes() {
        let before: BTreeSet<_> = placed(&old, stripe, &wanted).into_iter().collect();
        let after: BTreeSet<_> = placed(&ring, stripe, &wanted).into_iter().collect();
        moved += u32::try_from(after.difference(&before).count()).unwrap();
        gained += u32::from(after.contains(&newest));
    }
    let ratio = f64::from(moved) / f64::from(gained);
    assert!(ratio < most, "{weights:?} and {new}, {k}+{m}: {moved} moved for {gained}: {ratio:.3}");
    let share = ring.shares().find(|(disk, _share)| *disk == newest).unwrap().1;
    let off = f64::from(gained) / f64::from(STRIPES) / share - 1.0;
    assert!(off.abs() < 0.06, "the new disk has {off:.3} more than its share");
}

#[test]
fn a_new_disk_takes_its_share_and_hardly_more_moves() {
    // Among equals nothing else moves; with sizes, shares shift a little among the others.
    check_movement(&[1; 8], 1, (4, 2), 1.000_001);
    check_movement(&[1; 8], 1, (1, 1), 1.000_001);
    check_movement(&[1; 20], 1, (4, 2), 1.000_001);
    check_movement(&[4; 8], 8, (4, 2), 1.10);
    check_movement(&[2, 2, 3, 3, 4, 4, 5, 5], 4, (4, 2), 1.20);
    check_movement(&[1, 1, 2, 2, 4, 4], 4, (2, 1), 1.35);
}

#[test]
fn rings_may_be_small_or_odd() {
    let walk = |weights: &[u64]| Ring::new(&candidates(weights), &wanted(4, 2)).walk(StripeId(1));
    assert_eq!(walk(&[]), []);
    assert_eq!(walk(&[5]), [DiskId(1)]);
    assert_eq!(walk(&[0, 0, 0]).len(), 3);
    assert_eq!(walk(&[0, u64::MAX, u64::MAX]).len(), 3);
    let twice = [candidates(&[1, 1]), candidates(&[1, 1])].concat();
    assert_eq!(Ring::new(&twice, &wanted(1, 1)).walk(StripeId(1)).len(), 2);
}

/// Nanoseconds that the walk of a stripe takes over so many disks: the best of many rounds that are shorter than a turn of
/// the scheduler, for whatever else runs on the machine is not to be measured.
fn walk_nanoseconds(disks: usize) -> u128 {
    let labels: Vec<String> =
        (0..disks).map(|disk| format!("zone=z{},node=n{}", disk % 4, disk / 10)).collect();
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    let ring = Ring::new(&labelled(&labels), &wanted(6, 3));
    #[expect(clippy::disallowed_methods, reason = "it is measured")]
    let now = std::time::Instant::now;
    // Of one walk at a time: some are done before the processor is given to somebody else.
    let walk = || {
        let start = now();
        let count = ring.walk(StripeId(7)).len();
        let took = now() - start;
        assert_eq!(count, disks);
        took.as_nanos()
    };
    (0..2000).map(|_walk| walk()).min().unwrap()
}

#[test]
fn a_walk_stays_quick_on_many_disks() {
    let (few, many) = (walk_nanoseconds(100), walk_nanoseconds(400));
    println!("{few} and {many} ns for the walk of a stripe over 100 and 400 disks");
    // By the square of the disks it would be sixteen times.
    assert!(many < 10 * few, "{few} and {many} ns");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_walk_has_every_disk_once(weights in proptest::collection::vec(0..1000u64, 1..20), stripe: u64) {
        let mut candidates = candidates(&weights);
        let walk = Ring::new(&candidates, &wanted(4, 2)).walk(StripeId(stripe));
        let mut sorted = walk.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, candidates.iter().map(|each| each.disk).collect::<Vec<_>>());
        candidates.reverse();
        prop_assert_eq!(Ring::new(&candidates, &wanted(4, 2)).walk(StripeId(stripe)), walk);
    }

    #[test]
    fn a_lost_disk_leaves_the_order_of_the_others(count in 2..12usize, stripe: u64) {
        let mut candidates = candidates(&vec![7; count]);
        let mut before = Ring::new(&candidates, &wanted(2, 1)).walk(StripeId(stripe));
        let lost = candidates.remove(usize::try_from(stripe).unwrap() % count).disk;
        before.retain(|disk| *disk != lost);
        prop_assert_eq!(Ring::new(&candidates, &wanted(2, 1)).walk(StripeId(stripe)), before);
    }

    #[test]
    fn labels_that_say_nothing_change_nothing(weights in proptest::collection::vec(1..1000u64, 1..20), stripe: u64) {
        let plain = candidates(&weights);
        let mut alike = plain.clone();
        alike.iter_mut().for_each(|candidate| candidate.labels = Labels::parse("zone=a,rack=b,node=c,tag=d").unwrap());
        let walk = |candidates: &[Candidate]| Ring::new(candidates, &wanted(4, 2)).walk(StripeId(stripe));
        prop_assert_eq!(walk(&plain), walk(&alike));
    }

    #[test]
    fn what_stays_is_never_given_again(count in 6..16usize, stripe: u64, keep in 0..5usize) {
        let ring = Ring::new(&candidates(&vec![7; count]), &wanted(4, 2));
        let walk = ring.walk(StripeId(stripe));
        let kept = &walk[..keep];
        let beside = ring.beside(StripeId(stripe), kept, &[]);
        prop_assert_eq!(beside.len(), count - keep);
        prop_assert!(beside.iter().all(|disk| !kept.contains(disk)));
        // The rest of a stripe lies where it would have been.
        let rest: BTreeSet<_> = walk[keep..6].iter().collect();
        prop_assert_eq!(beside[..6 - keep].iter().collect::<BTreeSet<_>>(), rest);
    }
}
