use super::{Candidate, Ring};
use crate::types::{DiskId, StripeId};
use proptest::prelude::*;
use std::collections::BTreeMap;

const STRIPES: u64 = 20_000;

fn candidates(weights: &[u64]) -> Vec<Candidate> {
    (1..)
        .map(DiskId)
        .zip(weights)
        .map(|(disk, weight)| Candidate { disk, weight: *weight })
        .collect()
}

/// Share of the stripes on each disk over its share of the weight, lowest and highest, when each stripe takes `n`.
fn balance(weights: &[u64], points: u32, n: usize) -> (f64, f64) {
    let ring = Ring::new(&candidates(weights), points);
    let mut held = BTreeMap::<DiskId, u32>::new();
    for stripe in 0..STRIPES {
        for disk in ring.walk(StripeId(stripe)).into_iter().take(n) {
            *held.entry(disk).or_default() += 1;
        }
    }
    let total: u64 = weights.iter().sum();
    let shares = (1..).map(DiskId).zip(weights).map(|(disk, weight)| {
        let share = f64::from(held[&disk]) / (STRIPES as f64 * n as f64);
        share / (*weight as f64 / total as f64)
    });
    shares.fold((f64::MAX, 0.0), |(low, high), share| (low.min(share), high.max(share)))
}

fn check_balance(weights: &[u64], points: u32, n: usize, tolerance: f64) {
    let (low, high) = balance(weights, points, n);
    assert!(
        low > 1.0 - tolerance && high < 1.0 + tolerance,
        "{weights:?}, {points} points, {n} of them: {low:.3} to {high:.3} of the fair share"
    );
}

#[test]
fn single_copies_follow_the_weights() {
    check_balance(&[1; 8], 1024, 1, 0.10);
    check_balance(&[1, 1, 2, 2, 4, 4], 1024, 1, 0.10);
    // The default number of points: an arc is known to about 1 / sqrt(128).
    check_balance(&[1; 8], 128, 1, 0.25);
    check_balance(&[1 << 40, 1 << 40, 2 << 40, 4 << 40], 128, 1, 0.25);
}

#[test]
fn six_of_eight_are_even() {
    check_balance(&[1; 8], 128, 6, 0.15);
    // No disk holds two shards of a stripe, so what the larger ones cannot take falls to the smaller.
    let (low, high) = balance(&[1, 1, 1, 1, 2, 2, 2, 2], 128, 6);
    assert!(low > 0.8 && high < 1.5, "{low:.3} to {high:.3}");
}

#[test]
fn a_walk_is_pinned() {
    let ring = Ring::new(&candidates(&[1; 8]), 128);
    let walk: Vec<_> = ring.walk(StripeId(0x1_0000_0002)).iter().map(|disk| disk.0).collect();
    assert_eq!(walk, [2, 8, 7, 4, 6, 5, 1, 3]);
}

#[test]
fn a_new_disk_takes_its_share_and_nothing_else_moves() {
    let old = Ring::new(&candidates(&[1; 8]), 128);
    let new = Ring::new(&candidates(&[1; 9]), 128);
    let mut moved = 0_u32;
    for stripe in (0..STRIPES).map(StripeId) {
        let (before, after) = (old.walk(stripe), new.walk(stripe));
        let kept: Vec<_> = after.iter().copied().filter(|disk| *disk != DiskId(9)).collect();
        assert_eq!(kept, before, "the order of the others stays");
        moved += u32::from(after[0] == DiskId(9));
    }
    let share = f64::from(moved) / STRIPES as f64 * 9.0;
    assert!((0.75..1.25).contains(&share), "{share:.3} of the fair share moved");
}

#[test]
fn rings_may_be_small_or_odd() {
    assert_eq!(Ring::new(&[], 128).walk(StripeId(1)), []);
    assert_eq!(Ring::new(&candidates(&[5]), 128).walk(StripeId(1)), [DiskId(1)]);
    assert_eq!(Ring::new(&candidates(&[0, 0, 0]), 128).walk(StripeId(1)).len(), 3);
    assert_eq!(Ring::new(&candidates(&[0, u64::MAX, u64::MAX]), 128).walk(StripeId(1)).len(), 3);
    assert_eq!(Ring::new(&candidates(&[1, 1]), 0).walk(StripeId(1)).len(), 2);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_walk_has_every_disk_once(weights in proptest::collection::vec(0..1000u64, 1..20), stripe: u64) {
        let mut candidates = candidates(&weights);
        let walk = Ring::new(&candidates, 16).walk(StripeId(stripe));
        let mut sorted = walk.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, candidates.iter().map(|each| each.disk).collect::<Vec<_>>());
        candidates.reverse();
        prop_assert_eq!(Ring::new(&candidates, 16).walk(StripeId(stripe)), walk);
    }

    #[test]
    fn a_lost_disk_leaves_the_order_of_the_others(count in 2..12usize, stripe: u64) {
        let mut candidates = candidates(&vec![7; count]);
        let mut before = Ring::new(&candidates, 32).walk(StripeId(stripe));
        let lost = candidates.remove(usize::try_from(stripe).unwrap() % count).disk;
        before.retain(|disk| *disk != lost);
        prop_assert_eq!(Ring::new(&candidates, 32).walk(StripeId(stripe)), before);
    }
}
