//! Shards of a stripe are kept apart.

use super::{Candidate, Ring, Wanted, height_bytes, labelled, placed, wanted};
use crate::config::labels::Labels;
use crate::types::{DiskId, StripeId};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// The most shards of a stripe in one domain, by what names it.
fn most<'a>(
    disks: &[DiskId],
    all: &'a [Candidate],
    name: impl Fn(&'a Labels) -> Vec<&'a str>,
) -> usize {
    let mut held = BTreeMap::<Vec<&str>, usize>::new();
    for candidate in all.iter().filter(|candidate| disks.contains(&candidate.disk)) {
        *held.entry(name(&candidate.labels)).or_default() += 1;
    }
    held.into_values().max().unwrap_or(0)
}

fn zone(labels: &Labels) -> Vec<&str> {
    vec![&labels.zone]
}

fn rack(labels: &Labels) -> Vec<&str> {
    vec![&labels.zone, &labels.rack]
}

fn node(labels: &Labels) -> Vec<&str> {
    vec![&labels.zone, &labels.rack, &labels.node]
}

/// The most shards of any stripe in one zone, rack and node.
fn check(labels: &[&str], wanted: &Wanted, expected: [usize; 3]) {
    let all = labelled(labels);
    let ring = Ring::new(&all, wanted);
    assert_eq!(ring.most_together(), expected, "{labels:?}");
    let mut found = [0; 3];
    for stripe in (0..500).map(StripeId) {
        let disks = placed(&ring, stripe, wanted);
        assert_eq!(disks.len(), usize::from(wanted.n).min(labels.len()), "{labels:?}");
        let most = [most(&disks, &all, zone), most(&disks, &all, rack), most(&disks, &all, node)];
        found.iter_mut().zip(most).for_each(|(found, most)| *found = most.max(*found));
    }
    assert_eq!(found, expected, "{labels:?}");
}

#[test]
fn no_domain_holds_more_than_needed() {
    let zones = |counts: &[usize]| -> Vec<String> {
        let names = counts.iter().enumerate();
        names.flat_map(|(zone, count)| vec![format!("zone=z{zone}"); *count]).collect()
    };
    let check_zones = |counts: &[usize], wanted: &Wanted, expected| {
        let labels = zones(counts);
        check(&labels.iter().map(String::as_str).collect::<Vec<_>>(), wanted, expected);
    };
    check_zones(&[3, 3, 3], &wanted(4, 2), [2; 3]);
    check_zones(&[2, 2, 2], &wanted(4, 2), [2; 3]);
    check_zones(&[8, 8, 1], &wanted(4, 2), [3; 3]);
    check_zones(&[1, 1, 1, 1, 1, 1, 5], &wanted(4, 2), [1; 3]);
    check_zones(&[4, 4], &wanted(4, 2), [3; 3]);
    check_zones(&[4, 4, 4, 4], &wanted(2, 1), [1; 3]);
    check_zones(&[2, 2], &wanted(4, 2), [2; 3]);
    check(&["."; 8], &wanted(4, 2), [6; 3]);
    // A disk of which nothing is told is in a zone like others.
    check(&["zone=a", "zone=a", ".", "."], &wanted(1, 1), [1; 3]);
}

#[test]
fn racks_and_nodes_within_zones() {
    // Two zones: three shards each. Racks of a zone hold one each, whatever they are called.
    let racks = [
        "zone=a,rack=1",
        "zone=a,rack=2",
        "zone=a,rack=3",
        "zone=b,rack=1",
        "zone=b,rack=2",
        "zone=b,rack=3",
    ];
    let twice = [racks, racks].concat();
    check(&twice, &wanted(4, 2), [3, 1, 1]);
    let nodes =
        ["node=1", "node=1", "node=1", "node=2", "node=2", "node=2", "node=3", "node=3", "node=3"];
    check(&nodes, &wanted(4, 2), [6, 6, 2]);
    // One rack of zone a is small, so the other takes two.
    let odd = [
        "zone=a,rack=1",
        "zone=a,rack=2",
        "zone=a,rack=2",
        "zone=b,rack=1",
        "zone=b,rack=2",
        "zone=b,rack=3",
    ];
    check(&odd, &wanted(4, 2), [3, 2, 2]);
}

#[test]
fn a_shard_that_is_placed_anew_stays_apart() {
    let labels =
        ["zone=a", "zone=a", "zone=a", "zone=b", "zone=b", "zone=b", "zone=c", "zone=c", "zone=c"];
    let all = labelled(&labels);
    let ring = Ring::new(&all, &wanted(4, 2));
    for stripe in (0..200).map(StripeId) {
        let disks = placed(&ring, stripe, &wanted(4, 2));
        for lost in &disks {
            let kept: Vec<DiskId> = disks.iter().copied().filter(|disk| disk != lost).collect();
            let next = ring.beside(stripe, &kept, &disks)[0];
            let zone_of = |disk: &DiskId| &all[usize::try_from(disk.0).unwrap() - 1].labels.zone;
            assert_eq!(zone_of(&next), zone_of(lost));
        }
    }
}

#[test]
fn limits_of_domains_limit_the_capacity() {
    let check = |labels: &[&str], wanted: &Wanted, expected: f64| {
        let mut all = labelled(labels);
        all.iter_mut().for_each(|candidate| candidate.weight = 120);
        let height = height_bytes(&all, wanted);
        assert!((height - expected).abs() < 1e-6, "{labels:?}: {height}");
    };
    check(&["."; 6], &wanted(2, 1), 240.0);
    check(&["zone=a", "zone=a", "zone=a", "zone=a", "zone=b", "zone=c"], &wanted(2, 1), 120.0);
    check(&["zone=a", "zone=a", "zone=b", "zone=b", "zone=c", "zone=c"], &wanted(2, 1), 240.0);
    check(&["zone=a", "zone=b"], &wanted(2, 1), 120.0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the labels: a stripe gets n disks, none in more domains' fill than some other choice would need.
    #[test]
    fn stripes_are_complete_and_as_wide_as_can_be(
        places in proptest::collection::vec((0..4u8, 0..3u8, 0..3u8, 1..50u64), 1..30),
        (k, m) in (1..9u8, 1..5u8),
        stripe: u64,
    ) {
        let all: Vec<Candidate> = places.iter().zip(1..).map(|((zone, rack, node, weight), disk)| Candidate {
            disk: DiskId(disk),
            weight: *weight,
            room: None,
            labels: Labels::parse(&format!("zone=z{zone},rack=r{rack},node=n{node}")).unwrap(),
        }).collect();
        let wanted = wanted(k, m);
        let n = usize::from(wanted.n).min(all.len());
        let ring = Ring::new(&all, &wanted);
        let disks = placed(&ring, StripeId(stripe), &wanted);
        prop_assert_eq!(disks.len(), n);
        // No fewer shards in the fullest zone are possible: with one less in each, they would not all fit.
        let mut sizes = BTreeMap::<u8, usize>::new();
        places.iter().for_each(|(zone, ..)| *sizes.entry(*zone).or_default() += 1);
        let least = (1..=n).find(|limit| sizes.values().map(|size| size.min(limit)).sum::<usize>() >= n);
        prop_assert!(most(&disks, &all, zone) <= least.unwrap());
        let [_zone, racks, nodes] = ring.most_together();
        prop_assert!(most(&disks, &all, rack) <= racks && most(&disks, &all, node) <= nodes);
        let total: f64 = ring.shares().map(|(_disk, share)| share).sum();
        prop_assert!((total - n as f64).abs() < 1e-6, "shares sum up to {}", total);
    }
}

#[test]
fn rooms_of_any_size_count_to_the_last_bit() {
    // 49 * (1 / 49) is less than 1: the smallest disk had no whole share, and six disks held less than six shards.
    for room in (1..5000).chain([22_345_678_901, 10_737_418_241, (1 << 40) - 3]) {
        for nodes in [["a", "a", "b", "b", "c", "c"], ["", "", "", "", "", ""]] {
            let all: Vec<Candidate> = (1..)
                .zip(nodes)
                .map(|(disk, node)| Candidate {
                    disk: DiskId(disk),
                    weight: room,
                    room: None,
                    labels: Labels { node: node.to_owned(), ..Labels::default() },
                })
                .collect();
            let height = height_bytes(&all, &wanted(4, 2));
            let exact = f64::from(u32::try_from(room >> 20).unwrap()) * 1_048_576.0
                + f64::from(u32::try_from(room & 0xf_ffff).unwrap());
            assert!((height - exact).abs() <= exact * 1e-9, "{room} on {nodes:?}: {height}");
        }
    }
}
