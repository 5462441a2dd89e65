use super::*;
use crate::disk::queue::DiskQueue;
use crate::disk::sim::SimMachine;
use crate::disk::superblock::Member;
use crate::types::{Incarnation, ShardIndex, StripeId};
use std::time::Duration;

const DAY: i64 = 24 * 3600;

fn disks(machine: &SimMachine, count: u32) -> Arc<DiskSet> {
    let handle = |number: u32| {
        let disk = machine.disk(number as usize);
        let id = DiskId(number);
        (id, id.to_string(), Some(Arc::new(DiskHandle { id, disk, queue: DiskQueue::inline() })))
    };
    Arc::new(DiskSet::new((0..count).map(handle).collect()))
}

fn members(states: &[MemberState]) -> MemberList {
    let member = |(number, state): (u32, &MemberState)| Member {
        disk: DiskId(number),
        state: *state,
        capacity_bytes: 1,
        device: 1,
        path: format!("/srv/d{number}"),
        labels: Default::default(),
    };
    MemberList { disks: (0..).zip(states).map(member).collect(), ..MemberList::default() }
}

const TWO: [MemberState; 2] = [MemberState::Healthy; 2];

fn attempt(number: u32, seconds: i64) -> Attempt {
    Attempt {
        time: Timestamp { seconds, nanoseconds: 5_000_000 },
        stripe: StripeId::new(Incarnation(1), number),
        class: "4+2".parse().unwrap(),
        lost: vec![ShardIndex(1), ShardIndex(5)],
        sources: vec![DiskId(1), DiskId(2)],
        placed: vec![(ShardIndex(1), DiskId(7))],
        bytes: 4096,
        duration: Duration::from_millis(12),
        error: None,
        error_kind: None,
        retry: None,
    }
}

async fn write(disks: &Arc<DiskSet>, attempts: impl IntoIterator<Item = Attempt>) {
    let (log, waiting) = RepairLog::new(Arc::default());
    attempts.into_iter().for_each(|attempt| log.record(attempt));
    drop(log);
    write_lines(Arc::clone(disks), waiting).await;
}

#[test]
fn a_line_says_all_of_an_attempt() {
    let failed = Attempt {
        error: Some("no disk can take it".into()),
        retry: Some(Timestamp { seconds: 60, nanoseconds: 0 }),
        placed: Vec::new(),
        bytes: 0,
        ..attempt(1, 0)
    };
    let json = serde_json::to_string(&line(failed)).unwrap();
    let expected = concat!(
        r#"{"time":"1970-01-01T00:00:00.005Z","stripe":"0000000100000001","class":"4+2","#,
        r#""missing_shards":[1,5],"action":"rebuild","bytes":0,"source_disks":[1,2],"target_disks":[],"#,
        r#""milliseconds":12,"result":"skipped","error":"no disk can take it","#,
        r#""next_retry":"1970-01-01T00:01:00Z"}"#
    );
    assert_eq!(json, expected);
    let result = |attempt| line(attempt).result;
    assert_eq!(result(attempt(1, 0)), "done");
    assert_eq!(result(Attempt { error: Some("x".into()), ..attempt(1, 0) }), "partial");
}

#[tokio::test]
async fn days_have_files_and_old_ones_go() {
    let machine = SimMachine::new(1, 2);
    let disks = disks(&machine, 2);
    write(&disks, (0..20).map(|day| attempt(day, i64::from(day) * DAY))).await;
    let names = files(&*machine.disk(0)).unwrap();
    assert_eq!(names.len(), FILES_MAX);
    assert_eq!(names.first().unwrap(), "1970-01-07.jsonl");
    // Goes on behind what is there, also after a line that a crash cut short.
    let last = format!("{DIRECTORY}/{}", names.last().unwrap());
    let file = machine.disk(0).open(&last, OpenMode::Write).unwrap();
    file.write(file.len().unwrap(), b"{\"time\":\n").unwrap();
    write(&disks, [attempt(99, 19 * DAY + 7)]).await;
    let found = history(&disks, &members(&TWO), 3).await;
    assert!(found.unread.is_empty());
    let stripes: Vec<String> = found.lines.into_iter().map(|line| line.stripe).collect();
    assert_eq!(stripes, ["0000000100000063", "0000000100000013", "0000000100000012"]);
}

#[tokio::test]
async fn another_disk_takes_over_and_the_history_shows_both() {
    let machine = SimMachine::new(1, 2);
    let disks = disks(&machine, 2);
    write(&disks, [attempt(1, 10)]).await;
    machine.set_offline(0, true);
    write(&disks, [attempt(2, 20)]).await;
    write(&disks, [attempt(3, 30)]).await;
    let found = async |states| {
        let history = history(&disks, &members(states), 9).await;
        (history.lines.len(), history.unread)
    };
    let nothing = Vec::<String>::new();
    let away = vec!["/srv/d0".to_owned()];
    assert_eq!(found(&TWO).await, (1, away), "the line at which the disk failed is lost");
    let left = [MemberState::Removed, MemberState::Healthy];
    assert_eq!(found(&left).await, (1, nothing.clone()), "who has left has nothing to tell");
    machine.set_offline(0, false);
    let disk = machine.disk(0);
    disks.admit(Arc::new(DiskHandle { id: DiskId(0), disk, queue: DiskQueue::inline() }));
    assert_eq!(found(&TWO).await, (2, nothing));
}

#[tokio::test]
async fn a_disk_that_fails_while_it_is_read_is_told() {
    let machine = SimMachine::new(1, 2);
    let disks = disks(&machine, 2);
    write(&disks, [attempt(1, 10)]).await;
    machine.set_offline(0, true);
    machine.set_offline(1, true);
    let found = history(&disks, &members(&TWO), 9).await;
    assert!(found.lines.is_empty());
    assert_eq!(found.unread, ["/srv/d0", "/srv/d1"]);
}
