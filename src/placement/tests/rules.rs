//! The rules of classes: who comes first, who is avoided, who stays apart.

use super::{Policy, Ring, Rule, Tag, Wanted, candidates, held, labelled, placed, wanted};
use crate::types::{DiskId, StripeId};
use std::collections::BTreeSet;

fn ruled(k: u8, m: u8, rule: Rule) -> Wanted {
    Wanted { policy: Policy { rule, ..Policy::RING }, ..wanted(k, m) }
}

#[test]
fn taking_turns_is_exactly_even_whatever_the_sizes() {
    let wanted = ruled(2, 1, Rule::RoundRobin);
    let even = held(&Ring::new(&candidates(&[1, 100, 1, 1, 50]), &wanted), &wanted);
    assert_eq!(even.values().collect::<BTreeSet<_>>(), BTreeSet::from([&12_000]));
    let zones = ["zone=a", "zone=a", "zone=b", "zone=b", "zone=c", "zone=c"];
    let apart = held(&Ring::new(&labelled(&zones), &wanted), &wanted);
    assert!(apart.values().all(|count| count.abs_diff(10_000) <= 1), "{apart:?}");
    let ring = Ring::new(&labelled(&zones), &wanted);
    let first = |stripe| placed(&ring, StripeId(stripe), &wanted)[0];
    // Each is the first in turn, so reads of data are even too.
    assert_eq!((0..6).map(first).collect::<BTreeSet<_>>().len(), 6);
}

#[test]
fn drawn_by_lot_is_even_and_follows_free_space() {
    let wanted = ruled(1, 1, Rule::Random);
    let mut disks = candidates(&[100; 5]);
    let counts = held(&Ring::new(&disks, &wanted), &wanted);
    assert!(counts.values().all(|count| count.abs_diff(8000) < 400), "{counts:?}");
    disks.iter_mut().for_each(|disk| disk.room = Some(49));
    disks[0].room = Some(51);
    let shares: Vec<_> = Ring::new(&disks, &wanted).shares().map(|(_disk, share)| share).collect();
    assert!(shares[0] > shares[1] * 1.03, "{shares:?}");
    // Not the order of the ring.
    let (lots, ring) = (Ring::new(&disks, &wanted), Ring::new(&disks, &super::wanted(1, 1)));
    assert!((0..20).map(StripeId).any(|stripe| lots.walk(stripe) != ring.walk(stripe)));
}

#[test]
fn local_disks_first_as_far_as_the_node_may_be_lost() {
    let labels =
        ["node=a", "node=a", "node=a", "node=b", "node=b", "node=b", "node=c", "node=c", "node=c"];
    let local = |k, m, here: &str| {
        let wanted = Wanted { here: here.into(), ..ruled(k, m, Rule::LocalFirst) };
        let ring = Ring::new(&labelled(&labels), &wanted);
        let near: BTreeSet<usize> = (0..300)
            .map(|stripe| {
                let disks = placed(&ring, StripeId(stripe), &wanted);
                assert_eq!(disks.len(), usize::from(k + m));
                // Data before parity: what is near is read first.
                let near = disks.iter().take_while(|disk| disk.0 <= 3).count();
                assert!(disks.iter().skip(near).all(|disk| disk.0 > 3), "{disks:?}");
                near
            })
            .collect();
        near.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(local(4, 2, "a"), [2]);
    assert_eq!(local(1, 2, "a"), [2]);
    assert_eq!(local(1, 3, "a"), [3]);
    assert_eq!(local(4, 1, "a"), [2], "five shards on three nodes: two are needed");
    // With one node all disks are local, and it is the ring.
    let wanted = ruled(4, 2, Rule::LocalFirst);
    let disks = candidates(&[3; 8]);
    let (near, ring) = (Ring::new(&disks, &wanted), Ring::new(&disks, &super::wanted(4, 2)));
    assert!((0..100).map(StripeId).all(|stripe| near.walk(stripe) == ring.walk(stripe)));
}

#[test]
fn avoided_disks_are_never_used() {
    let labels = [".", "tag=smr", ".", "tag=smr,tag=psu=2", ".", "tag=psu=1"];
    let avoiding = |tag: &str| {
        let policy = Policy { avoid: Some(Tag::new(tag).unwrap()), ..Policy::RING };
        let ring = Ring::new(&labelled(&labels), &Wanted { policy, ..wanted(2, 1) });
        let mut walk: Vec<u32> = ring.walk(StripeId(7)).iter().map(|disk| disk.0).collect();
        walk.sort_unstable();
        (walk, ring.is_wide_enough())
    };
    assert_eq!(avoiding("smr"), (vec![1, 3, 5, 6], true));
    assert_eq!(avoiding("psu=2"), (vec![1, 2, 3, 5, 6], true));
    assert_eq!(avoiding("psu"), (vec![1, 2, 3, 4, 5, 6], true));
    let few = Policy { avoid: Some(Tag::new("smr").unwrap()), ..Policy::RING };
    let ring = Ring::new(&labelled(&labels), &Wanted { policy: few, ..wanted(4, 2) });
    assert!(!ring.is_wide_enough());
}

#[test]
fn disks_with_one_value_stay_apart_across_zones() {
    let policy = Policy { apart: Some(Tag::new("psu").unwrap()), ..Policy::RING };
    let check = |labels: &[&str], (k, m): (u8, u8), most: usize, wide: bool| {
        let wanted = Wanted { policy, ..wanted(k, m) };
        let all = labelled(labels);
        let ring = Ring::new(&all, &wanted);
        assert_eq!(ring.is_wide_enough(), wide, "{labels:?}");
        for stripe in (0..300).map(StripeId) {
            let disks = placed(&ring, stripe, &wanted);
            assert_eq!(disks.len(), usize::from(k + m));
            let of = |disk: &DiskId| all[usize::try_from(disk.0).unwrap() - 1].labels.value("psu");
            let values: Vec<&str> = disks.iter().filter_map(of).collect();
            let fullest = values.iter().map(|a| values.iter().filter(|b| a == *b).count()).max();
            assert!(fullest.unwrap_or(0) <= most, "{labels:?}: {disks:?}");
        }
    };
    let supplies = ["tag=psu=1", "tag=psu=1", "tag=psu=2", "tag=psu=2", "tag=psu=3", "tag=psu=3"];
    check(&supplies, (2, 1), 1, true);
    check(&supplies, (4, 2), 2, false);
    check(&["tag=psu=1", "tag=psu=1", "tag=psu=1", ".", "."], (2, 1), 1, true);
    // Zones and supplies cross: both hold as far as they can together.
    let crossed = [
        "zone=a,tag=psu=1",
        "zone=a,tag=psu=2",
        "zone=b,tag=psu=1",
        "zone=b,tag=psu=2",
        "zone=c,tag=psu=3",
    ];
    check(&crossed, (2, 1), 1, true);
}
