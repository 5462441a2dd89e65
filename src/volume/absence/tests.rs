use super::*;

#[test]
fn only_those_that_stay_away_are_late() {
    let (mut absence, start) = (Absence::default(), Instant::now());
    let limit = Duration::from_secs(10);
    let at = |seconds| start + Duration::from_secs(seconds);
    let disks = |numbers: &[u32]| numbers.iter().copied().map(DiskId).collect::<Vec<_>>();
    assert_eq!(absence.note(&disks(&[2]), at(0), limit), []);
    assert_eq!(absence.note(&disks(&[1, 2]), at(4), limit), []);
    assert_eq!(absence.note(&disks(&[1, 2]), at(10), limit), disks(&[2]));
    // The one that was away longest first.
    assert_eq!(absence.note(&disks(&[1, 2]), at(14), limit), disks(&[2, 1]));
    // Who comes back begins anew.
    assert_eq!(absence.note(&disks(&[1]), at(15), limit), disks(&[1]));
    assert_eq!(absence.note(&disks(&[1, 2]), at(20), limit), disks(&[1]));
}

#[test]
fn those_that_are_left_must_take_whole_stripes() {
    assert!(may_give_up(6, 6) && may_give_up(9, 6));
    assert!(!may_give_up(5, 6));
}
