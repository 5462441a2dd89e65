use super::{doubt, failed};
use crate::volume::status::{RepairHistory, RepairLine, RepairReport};

fn report(listed: usize, failure_count: u64) -> RepairReport {
    let failures = vec!["repair shard 1.2: no disk can take it".to_owned(); listed];
    RepairReport {
        stripes_checked: 2,
        stripes_touched: 2,
        failures,
        failure_count,
        ..RepairReport::default()
    }
}

#[test]
fn failures_are_counted_as_what_they_are() {
    let check = |listed, count, says: &str| {
        let sentence = failed(&report(listed, count)).unwrap_or_default();
        assert!(sentence.starts_with(says), "{sentence:?} should begin with {says:?}");
    };
    assert_eq!(failed(&report(0, 0)), None);
    check(1, 1, "not all is repaired: 1 failure; ");
    // Two stripes with two shards each are neither four stripes nor two.
    check(4, 4, "not all is repaired: 4 failures; ");
    check(100, 1234, "not all is repaired: 1234 failures, of which 100 are listed; ");
    check(0, 7, "not all is repaired: 7 failures, of which 0 are listed; ");
}

#[test]
fn a_history_that_cannot_be_read_is_not_called_empty() {
    let line = RepairLine {
        time: "1970-01-01T00:00:00Z".into(),
        stripe: "0000000100000001".into(),
        class: "4+2".into(),
        missing_shards: vec![1],
        action: "rebuild".into(),
        bytes: 4096,
        source_disks: vec![2],
        target_disks: vec![3],
        milliseconds: 12,
        result: "done".into(),
        error: None,
        next_retry: None,
    };
    let history = |lines: &[RepairLine], unread: &[&str]| RepairHistory {
        lines: lines.to_vec(),
        unread: unread.iter().map(|path| (*path).to_owned()).collect(),
    };
    assert_eq!(doubt(&history(&[], &[])), None);
    assert_eq!(doubt(&history(std::slice::from_ref(&line), &[])), None);
    let none = doubt(&history(&[], &["/srv/d0", "/srv/d1"])).unwrap();
    assert!(none.contains("cannot be read") && none.contains("/srv/d0, /srv/d1"), "{none}");
    let some = doubt(&history(&[line], &["/srv/d0"])).unwrap();
    assert!(some.starts_with("more of the history may be on /srv/d0"), "{some}");
}
