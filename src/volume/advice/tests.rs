use super::{Advice, Seen};
use crate::config::labels::Labels;
use crate::meta::local::LogStatus;
use crate::volume::census::Census;
use crate::volume::status::DiskStatus;
use std::collections::BTreeMap;

fn disk(state: &str, node: &str) -> DiskStatus {
    DiskStatus {
        id: 1,
        path: "/srv/d0".into(),
        state: state.into(),
        reason: Some("it is gone".into()),
        total_bytes: 0,
        free_bytes: 0,
        errors: 0,
        latency_median_ms: None,
        latency_p99_ms: None,
        log: false,
        labels: Labels { node: node.into(), ..Labels::default() },
    }
}

fn seen<'a>(log: &'a LogStatus, disks: &'a [DiskStatus]) -> Seen<'a> {
    Seen { log, disks, census: None, too_few: None, unplaced: None }
}

fn of_disks(disks: &[DiskStatus], replaceable: bool) -> Advice {
    let mut advice = Advice::default();
    advice.of_disks(&seen(&LogStatus::default(), disks), replaceable);
    advice
}

fn of_stripes(margins: &[(i64, u64)], lost: u64) -> Vec<String> {
    let margins: BTreeMap<i64, u64> = margins.iter().copied().collect();
    let mut advice = Advice::default();
    advice.of_stripes(&Census { margins, lost, ..Census::default() });
    assert_eq!(advice.actions.len(), usize::from(lost > 0));
    advice.problems
}

#[test]
fn a_disk_is_to_be_replaced_only_where_that_is_carried_out() {
    let down = [disk("down", "")];
    let replace = "bring /srv/d0 back, or give its place to an empty directory: ironfs disk replace /srv/d0 NEW";
    assert_eq!(of_disks(&down, true).actions, [replace]);
    assert_eq!(of_disks(&down, false).actions, ["bring /srv/d0 back"]);
    assert_eq!(of_disks(&down, false).problems, ["/srv/d0 is down: it is gone"]);
}

#[test]
fn what_cannot_be_placed_on_the_others_is_said() {
    let (log, down) = (LogStatus::default(), [disk("down", "")]);
    let mut advice = Advice::default();
    let class = Some("4+2".parse().unwrap());
    advice.of_disks(&Seen { unplaced: class, ..seen(&log, &down) }, true);
    let told = "/srv/d0 is down: it is gone; what it held stays missing: class 4+2 needs 6 disks";
    assert_eq!(advice.problems, [told]);
}

#[test]
fn a_slow_disk_of_a_node_is_looked_at_there() {
    assert!(of_disks(&[disk("suspect", "")], true).actions[0].contains("smartctl"));
    let there = of_disks(&[disk("suspect", "beta")], true);
    assert_eq!(there.actions, ["look at node beta, the way to it, and the device there"]);
}

#[test]
fn what_is_lost_is_told_apart_from_what_is_away() {
    let away = "some data cannot be read while these disks are away";
    let one = "1 stripe is lost: more of its shards are damaged or gone than its class bears";
    let three =
        "3 stripes are lost: more of their shards are damaged or gone than their class bears";
    assert!(of_stripes(&[(0, 9), (2, 1)], 0).is_empty());
    assert_eq!(of_stripes(&[(-1, 2), (2, 9)], 0), [away]);
    assert_eq!(of_stripes(&[(-2, 1), (-1, 2), (2, 9)], 3), [three]);
    assert_eq!(of_stripes(&[(-2, 1), (-1, 2)], 1), [away, one]);
}

#[test]
fn what_keeps_changes_from_being_made_comes_first() {
    let of = |log: &LogStatus, too_few: Option<&str>, read_only| {
        let mut advice = Advice::default();
        advice.of_changes(&Seen { too_few, ..seen(log, &[]) }, read_only);
        advice.problems
    };
    let (few, reason) = (Some("3 are in use"), Some("all are away".to_owned()));
    assert!(of(&LogStatus::default(), None, false).is_empty());
    assert_eq!(of(&LogStatus::default(), few, false), ["data cannot be written: 3 are in use"]);
    let waiting = LogStatus { waiting: reason.clone(), ..LogStatus::default() };
    assert_eq!(of(&waiting, few, false), ["changes wait: all are away"]);
    let stopped = LogStatus { read_only: reason, ..LogStatus::default() };
    assert_eq!(of(&stopped, None, false), ["nothing can be changed: all are away"]);
    assert!(of(&stopped, None, true).is_empty());
}
