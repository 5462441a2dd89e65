//! Filling disks to the end: what fits is what the class allows.

use super::{Candidate, Ring, candidates, height_bytes, wanted};
use crate::types::StripeId;

/// Puts shards of one unit on disks with `rooms` units until a stripe finds no room, with free space looked at every
/// `stale` stripes; answers how many stripes fitted, and how many would have in the best case.
fn fill(rooms: &[u64], (k, m): (u8, u8), stale: u64) -> (u64, f64) {
    let wanted = wanted(k, m);
    let best = height_bytes(&candidates(rooms), &wanted);
    let mut disks = candidates(rooms);
    disks.iter_mut().for_each(|disk| disk.room = Some(disk.weight));
    let mut left: Vec<u64> = rooms.to_vec();
    let mut ring = Ring::new(&disks, &wanted);
    for stripe in 0.. {
        let full = |disk: &Candidate| left[usize::try_from(disk.disk.0).unwrap() - 1] == 0;
        let look =
            stripe % stale == 0 || disks.iter().any(|disk| full(disk) != (disk.room == Some(0)));
        if look {
            for disk in &mut disks {
                disk.room = Some(left[usize::try_from(disk.disk.0).unwrap() - 1]);
            }
            let roomy: Vec<_> = disks.iter().filter(|disk| disk.room != Some(0)).cloned().collect();
            if roomy.len() < usize::from(wanted.n) {
                return (stripe, best);
            }
            ring = Ring::new(&roomy, &wanted);
        }
        for disk in ring.walk(StripeId(stripe)).into_iter().take(wanted.n.into()) {
            left[usize::try_from(disk.0).unwrap() - 1] -= 1;
        }
    }
    unreachable!("disks fill up")
}

#[test]
fn capacity_is_used_within_3_percent_of_what_the_class_allows() {
    println!("6 disks, shards of one unit; free space is looked at every 50 stripes");
    println!(
        "{:<34} {:>6} {:>9} {:>9} {:>7}",
        "units on each disk", "class", "allowed", "stripes", "used"
    );
    let sizes: [[u64; 6]; 4] = [
        [2000, 2000, 4000, 4000, 8000, 8000],
        [4000, 4000, 5000, 5000, 6000, 6000],
        [1000, 1000, 1000, 1000, 4000, 12_000],
        [3000, 3000, 3000, 6000, 6000, 12_000],
    ];
    for rooms in sizes {
        for class in [(2, 1), (3, 1), (4, 2)] {
            let (stripes, best) = fill(&rooms, class, 50);
            let used = stripes as f64 / best;
            let (shown, class) = (format!("{rooms:?}"), format!("{}+{}", class.0, class.1));
            println!("{shown:<34} {class:>6} {best:>9.0} {stripes:>9} {:>6.1}%", 100.0 * used);
            assert!((0.97..=1.001).contains(&used), "{rooms:?} {class}: {stripes} of {best:.0}");
        }
    }
}

#[test]
fn a_disk_that_comes_late_is_caught_up_with() {
    // Two thirds full, and a new one.
    let mut disks = candidates(&[3000; 7]);
    disks.iter_mut().for_each(|disk| disk.room = Some(1000));
    disks[6].room = Some(3000);
    let ring = Ring::new(&disks, &wanted(2, 1));
    let shares: Vec<f64> = ring.shares().map(|(_disk, share)| share).collect();
    assert!((shares[6] - 1.0).abs() < 1e-9, "{shares:?}");
    assert!(shares[..6].iter().all(|share| (share - 1.0 / 3.0).abs() < 1e-9), "{shares:?}");
}

#[test]
fn small_differences_of_free_space_move_nothing() {
    let sizes = [2000, 2000, 4000, 4000, 8000, 8000];
    let plain = Ring::new(&candidates(&sizes), &wanted(2, 1));
    let mut disks = candidates(&sizes);
    for (disk, part) in disks.iter_mut().zip([50, 51, 49, 50, 50, 49]) {
        disk.room = Some(disk.weight / 100 * part);
    }
    let ring = Ring::new(&disks, &wanted(2, 1));
    for stripe in (0..1000).map(StripeId) {
        assert_eq!(ring.walk(stripe), plain.walk(stripe));
    }
}
