use super::*;
use crate::class::Class;
use crate::erasure::Scheme;
use crate::types::{DiskId, Epoch};

const FULL: u64 = STRIPE_PAYLOAD_BYTES_MAX;

fn record(id: u64, class: u16, payload_bytes: u64) -> StripeRecord {
    StripeRecord {
        id: StripeId(id),
        class_id: ClassId(class),
        class: Class::new(Scheme::ReedSolomon { k: 4, m: 2 }),
        epoch: Epoch(1),
        payload_bytes,
        slots: 1,
        disks: (0..6).map(DiskId).collect(),
        missing: 0,
        shard_roots: vec![[0; 32]; 6],
    }
}

/// Checks which of these stripes (id, class, payload, live) are chosen, in groups, while there is room.
fn check(stripes: &[(u64, u16, u64, u64)], expected: &[(bool, &[u64])]) {
    check_in(&[], stripes, expected);
}

/// As `check`, with classes that users may write only so many bytes of.
fn check_in(
    writable: &[(u16, u64)],
    stripes: &[(u64, u16, u64, u64)],
    expected: &[(bool, &[u64])],
) {
    let mut chooser = Chooser::new(CleanLimits::default());
    for (id, class, payload, live) in stripes {
        chooser.note(&record(*id, *class, *payload), *live, *id != 999);
    }
    let found = chooser.choices(|class, dead| {
        writable.iter().any(|(short, writable)| ClassId(*short) == class && *writable < dead)
    });
    let found: Vec<(bool, Vec<u64>)> = found
        .into_iter()
        .map(|choice| (choice.merge, choice.stripes.into_iter().map(|id| id.0).collect()))
        .collect();
    let expected: Vec<(bool, Vec<u64>)> =
        expected.iter().map(|(merge, ids)| (*merge, ids.to_vec())).collect();
    assert_eq!(found, expected);
}

#[test]
fn full_stripes_stay() {
    check(&[], &[]);
    check(&[(1, 1, FULL, FULL), (2, 1, FULL, FULL / 4 * 3)], &[]);
}

#[test]
fn the_emptiest_go_first_as_many_as_fill_one() {
    let full = (10, 1, FULL, FULL);
    let stripes = [full, (11, 1, FULL, FULL), (12, 1, FULL, FULL), (13, 1, FULL, FULL)];
    let sparse = [(1, 1, FULL, FULL / 2), (2, 1, FULL, FULL / 8), (3, 1, FULL, FULL / 2)];
    check(&[&stripes[..], &sparse].concat(), &[(false, &[2, 1]), (false, &[3])]);
}

#[test]
fn classes_do_not_mix() {
    let full: Vec<_> = (10..20).map(|id| (id, 1, FULL, FULL)).collect();
    let sparse = [(1, 1, FULL, 64), (2, 2, FULL, 64)];
    check(&[&full[..], &sparse].concat(), &[(false, &[1]), (false, &[2])]);
}

#[test]
fn a_volume_with_much_dead_data_is_cleaned_harder() {
    let stripes = [(1, 1, FULL, FULL / 4 * 3), (2, 1, FULL, FULL / 4 * 3)];
    check(&stripes, &[(false, &[1]), (false, &[2])]);
    check(&[&stripes[..], &[(3, 1, FULL, FULL)]].concat(), &[]);
}

#[test]
fn a_class_without_room_is_cleaned_for_little() {
    let dead = |id, class, percent: u64| (id, class, FULL, FULL / 100 * (100 - percent));
    let stripes = [dead(1, 1, 4), dead(2, 1, 6), dead(3, 1, 26), dead(4, 2, 26)];
    let chosen: &[(bool, &[u64])] = &[(false, &[3]), (false, &[2])];
    check(&stripes, &[]);
    // 36 percent of a stripe are dead in the first class.
    check_in(&[(1, FULL / 3)], &stripes, chosen);
    check_in(&[(1, FULL / 2)], &stripes, &[]);
    check_in(&[(3, 0)], &stripes, &[]);
    // Nothing is gained where nothing is dead.
    check_in(&[(1, 0)], &[(1, 1, FULL, FULL)], &[]);
}

#[test]
fn short_stripes_of_like_size_are_merged() {
    let short = |id| (id, 1, 128 << 10, 128 << 10);
    check(&[short(1), short(2), short(3)], &[]);
    check(&[short(4), short(2), short(3), short(1)], &[(true, &[1, 2, 3, 4])]);
    // One that does not pay, one of another class and a much larger one do not make four.
    let large = (4, 1, 2 << 20, 2 << 20);
    check(&[short(1), short(2), short(3), (999, 1, 128 << 10, 128 << 10)], &[]);
    check(&[short(1), short(2), short(3), (4, 2, 128 << 10, 128 << 10)], &[]);
    check(&[short(1), short(2), short(3), large], &[]);
}
