use super::{NewVolume, OpenOptions, Opened, PresentDisk, format, open};
use crate::class::Class;
use crate::config::labels::Labels;
use crate::disk::queue::DiskQueue;
use crate::disk::set::DiskHandle;
use crate::disk::sim::{Call, SimMachine};
use crate::disk::superblock::{self, MemberState};
use crate::error::{ErrorKind, Posix, Result};
use crate::meta::Log;
use crate::meta::client::Views;
use crate::meta::command::{Command, NewNode};
use crate::types::{ClassId, DiskId, FileKind, Ino, ROOT_INO, Timestamp, VolumeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

const VOLUME: VolumeId = VolumeId([9; 16]);
const OPTIONS: OpenOptions = OpenOptions {
    patience: Duration::from_secs(60),
    read_only: false,
    shared: false,
    cache_bytes: 1 << 20,
    segment_bytes: 16 << 10,
    buffer_bytes: 1 << 20,
    flush_every: Duration::from_secs(1),
    checkpoint_every: Duration::from_secs(5),
    checkpoint_bytes: 32 << 20,
};

fn new_volume(scheme: &str) -> NewVolume {
    let class = Class::new(scheme.parse().unwrap());
    let name = String::from("test");
    let (time, nodes) = (Timestamp::default(), BTreeMap::new());
    NewVolume { volume: VOLUME, name, class, uid: 0, gid: 0, time, nodes }
}

/// Formatted, mounted once and closed, and all of it durable.
async fn machine(disks: usize, scheme: &str) -> SimMachine {
    let machine = SimMachine::new(7, disks);
    let queues = machine
        .disks()
        .into_iter()
        .map(|disk| (disk, DiskQueue::inline(), Labels::default()))
        .collect();
    format(queues, new_volume(scheme)).await.unwrap();
    let opened = mount(&machine, &[]).await.unwrap();
    opened.log.shutdown().await.unwrap();
    drop(opened);
    machine.settle();
    machine
}

async fn mount(machine: &SimMachine, without: &[usize]) -> Result<Opened> {
    mount_with(machine, without, OPTIONS).await
}

async fn mount_with(
    machine: &SimMachine,
    without: &[usize],
    options: OpenOptions,
) -> Result<Opened> {
    let here = (0..machine.disk_count()).filter(|disk| !without.contains(disk));
    let present = here.filter_map(|index| {
        let disk = machine.disk(index);
        // A disk without a superblock, or with a bad one, is not passed on by the caller.
        let superblock = superblock::read(&*disk).ok().flatten()?;
        Some(PresentDisk { disk, queue: DiskQueue::inline(), superblock, device: None })
    });
    open(present.collect(), options).await
}

fn create(number: u64) -> Command {
    let node = NewNode::new(Ino(100 + number), FileKind::File, 0o644);
    let name = format!("{number:06}").into_bytes();
    Command::Create { parent: ROOT_INO, name, node, time: Timestamp::default() }
}

async fn put(opened: &Opened, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let (replies, _end) = opened.log.propose(vec![create(number)]).await.unwrap();
        assert!(replies[0].is_ok(), "{replies:?}");
    }
}

/// The numbers of all files, which must be a prefix.
fn count(opened: &Opened) -> u64 {
    let entries = opened.log.view().unwrap().list(ROOT_INO, 0, 1 << 20).unwrap();
    let mut names: Vec<_> = entries.into_iter().map(|entry| entry.name).collect();
    names.sort();
    for (number, name) in names.iter().enumerate() {
        assert_eq!(*name, format!("{number:06}").into_bytes());
    }
    names.len() as u64
}

fn log_disks(opened: &Opened) -> Vec<u32> {
    opened.log.members().log.iter().map(|member| member.disk.get()).collect()
}

async fn ticks(opened: &Opened, seconds: u64) {
    for _ in 0..seconds * 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        opened.log.tick().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_synced_is_there_after_a_crash_and_after_a_shutdown() {
    let machine = machine(6, "4+2").await;
    let opened = mount(&machine, &[]).await.unwrap();
    assert!(opened.clean && opened.complete);
    assert_eq!((opened.volume, opened.name.as_str()), (VOLUME, "test"));
    assert_eq!(opened.incarnation.get(), 2);
    assert_eq!(log_disks(&opened), [1, 2, 3]);
    put(&opened, 0..20).await;
    assert!(opened.log.durable() < opened.log.applied());
    opened.log.sync().await.unwrap();
    assert_eq!(opened.log.durable(), opened.log.applied());
    drop(opened);
    let opened = mount(&machine, &[]).await.unwrap();
    assert!(!opened.clean);
    assert_eq!(count(&opened), 20);
    assert_eq!(opened.incarnation.get(), 3);
    put(&opened, 20..30).await;
    opened.log.shutdown().await.unwrap();
    let refused = opened.log.propose(vec![create(30)]).await.unwrap_err();
    assert!(refused.is(Posix::ReadOnly), "{refused}");
    drop(opened);
    let opened = mount(&machine, &[]).await.unwrap();
    assert!(opened.clean);
    assert_eq!(count(&opened), 30);
}

#[tokio::test(start_paused = true)]
async fn ticks_flush_and_checkpoint_and_trim() {
    let machine = machine(6, "4+2").await;
    let opened = mount(&machine, &[]).await.unwrap();
    put(&opened, 0..1).await;
    ticks(&opened, 2).await;
    assert_eq!(opened.log.durable(), opened.log.applied());
    for round in 0..20 {
        put(&opened, 1 + round * 20..21 + round * 20).await;
        ticks(&opened, 2).await;
    }
    ticks(&opened, 6).await;
    let status = opened.log.status();
    assert_eq!(status.checkpointed, status.applied);
    assert_eq!((status.wanted, status.disks.len(), status.read_only), (3, 3, None));
    let names = machine.file_names(0);
    let count_of = |end: &str| names.iter().filter(|name| name.contains(end)).count();
    assert_eq!(count_of(".log"), 1);
    assert!((1..=4).contains(&count_of("log/spare-")), "{names:?}");
    drop(opened);
    assert_eq!(count(&mount(&machine, &[]).await.unwrap()), 401);
}

#[tokio::test(start_paused = true)]
async fn any_two_of_six_disks_may_be_lost_before_the_mount() {
    let base = machine(6, "4+2").await;
    let opened = mount(&base, &[]).await.unwrap();
    put(&opened, 0..5).await;
    opened.log.checkpoint().await.unwrap();
    put(&opened, 5..9).await;
    opened.log.sync().await.unwrap();
    drop(opened);
    let image = base.live_image();
    for first in 0..6 {
        for second in first + 1..6 {
            let machine = SimMachine::from_image(image.clone());
            let opened = mount(&machine, &[first, second]).await.unwrap();
            assert_eq!(count(&opened), 9, "without {first} and {second}");
            assert_eq!(log_disks(&opened).len(), 3);
            assert!(!opened.complete);
            put(&opened, 9..10).await;
            opened.log.sync().await.unwrap();
            drop(opened);
            // They come back: what they say is old and not believed.
            assert_eq!(count(&mount(&machine, &[]).await.unwrap()), 10);
        }
    }
    let machine = SimMachine::from_image(image);
    let error = mount(&machine, &[0, 1, 2]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("3 are absent"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn log_disks_that_fail_one_after_the_other_are_replaced() {
    let machine = machine(6, "4+2").await;
    let opened = mount(&machine, &[]).await.unwrap();
    let mut number = 0;
    for lost in 0..5 {
        put(&opened, number..number + 3).await;
        opened.log.sync().await.unwrap();
        machine.set_offline(lost, true);
        put(&opened, number + 3..number + 6).await;
        opened.log.sync().await.unwrap();
        number += 6;
        let lost = u32::try_from(lost).unwrap() + 1;
        assert!(!log_disks(&opened).contains(&lost));
        assert_eq!(opened.log.members().member(DiskId(lost)).unwrap().state, MemberState::Down);
        ticks(&opened, 1).await;
        assert_eq!(log_disks(&opened).len(), 3.min(6 - usize::try_from(lost).unwrap()), "{lost}");
    }
    assert_eq!(count(&opened), number);
    drop(opened);
    // Disk 6 alone has the newest epoch. Those that were left behind come back without being believed.
    (0..5).for_each(|disk| machine.heal(disk));
    let opened = mount(&machine, &[0, 1]).await.unwrap();
    assert_eq!(count(&opened), number);
    put(&opened, number..number + 1).await;
    opened.log.sync().await.unwrap();
    drop(opened);
    assert_eq!(count(&mount(&machine, &[4, 5]).await.unwrap()), number + 1);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_returns_gets_the_log_anew() {
    let machine = machine(3, "2+1").await;
    let opened = mount(&machine, &[]).await.unwrap();
    machine.set_offline(0, true);
    put(&opened, 0..3).await;
    opened.log.sync().await.unwrap();
    ticks(&opened, 1).await;
    assert_eq!(log_disks(&opened), [2, 3]);
    machine.heal(0);
    machine.set_offline(1, true);
    put(&opened, 3..5).await;
    opened.log.sync().await.unwrap();
    assert_eq!(log_disks(&opened), [3]);
    let queue = DiskQueue::inline();
    let handle = DiskHandle { id: DiskId(1), disk: machine.disk(0), queue };
    opened.disks.admit(Arc::new(handle));
    ticks(&opened, 12).await;
    assert_eq!(log_disks(&opened), [3, 1]);
    drop(opened);
    machine.heal(1);
    let opened = mount(&machine, &[1, 2]).await;
    assert_eq!(opened.unwrap_err().kind(), ErrorKind::Refused, "only one may be absent");
    assert_eq!(count(&mount(&machine, &[2]).await.unwrap()), 5);
}

#[tokio::test(start_paused = true)]
async fn changes_fail_after_a_while_without_log_disks_and_go_on_with_them() {
    let machine = machine(3, "2+1").await;
    let opened = mount(&machine, &[]).await.unwrap();
    put(&opened, 0..1).await;
    opened.log.sync().await.unwrap();
    put(&opened, 1..2).await;
    (0..3).for_each(|disk| machine.set_offline(disk, true));
    let start = Instant::now();
    let error = opened.log.sync().await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed().as_secs()), (ErrorKind::Unavailable, 60), "{error}");
    assert!(opened.log.status().waiting.is_some() && opened.log.status().read_only.is_none());
    let error = opened.log.propose(vec![create(2)]).await.unwrap_err();
    assert_eq!((error.kind(), start.elapsed().as_secs()), (ErrorKind::Unavailable, 120), "{error}");
    assert!(opened.log.tick().await.is_err() && opened.log.checkpoint().await.is_err());
    bring_back(&opened, &machine, 0..3);
    opened.log.sync().await.unwrap();
    assert_eq!(opened.log.status().waiting, None);
    put(&opened, 2..3).await;
    opened.log.sync().await.unwrap();
    assert_eq!(log_disks(&opened), [1, 2], "none of them had to be made anew");
    ticks(&opened, 12).await;
    drop(opened);
    assert_eq!(count(&mount(&machine, &[]).await.unwrap()), 3);
}

/// As the prober does with disks that answer again.
fn bring_back(opened: &Opened, machine: &SimMachine, disks: std::ops::Range<usize>) {
    for disk in disks {
        machine.set_offline(disk, false);
        let id = DiskId(1 + u32::try_from(disk).unwrap());
        let handle = DiskHandle { id, disk: machine.disk(disk), queue: DiskQueue::inline() };
        opened.disks.admit(Arc::new(handle));
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_log_disks_is_done_when_one_is_back() {
    let machine = machine(3, "2+1").await;
    let opened = mount_with(&machine, &[], UNCACHED).await.unwrap();
    put(&opened, 0..50).await;
    opened.log.checkpoint().await.unwrap();
    put(&opened, 50..60).await;
    (0..3).for_each(|disk| machine.set_offline(disk, true));
    let log = opened.log.clone();
    let change = TaskTracker::new().spawn(async move {
        let (replies, _end) = log.propose(vec![create(60)]).await.unwrap();
        assert!(replies[0].is_ok(), "{replies:?}");
        log.sync().await.unwrap();
    });
    let waited = Instant::now();
    while opened.log.status().waiting.is_none() || waited.elapsed() < Duration::from_secs(20) {
        // Nothing is done, and nothing is lost, however often it is tried.
        drop(opened.log.tick().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!change.is_finished());
    bring_back(&opened, &machine, 1..2);
    while !change.is_finished() {
        drop(opened.log.tick().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    change.await.unwrap();
    assert_eq!((count(&opened), log_disks(&opened)), (61, vec![2]));
    assert!(waited.elapsed() < Duration::from_secs(26), "{:?}", waited.elapsed());
    drop(opened);
    machine.set_offline(0, false);
    machine.set_offline(2, false);
    assert_eq!(count(&mount(&machine, &[]).await.unwrap()), 61);
}

#[tokio::test(start_paused = true)]
async fn a_full_log_disk_is_replaced_and_stays_in_use() {
    let machine = machine(6, "4+2").await;
    let opened = mount(&machine, &[]).await.unwrap();
    machine.full(0, 0);
    put(&opened, 0..400).await;
    opened.log.sync().await.unwrap();
    assert_eq!(log_disks(&opened), [2, 3]);
    assert!(opened.disks.get(DiskId(1)).is_some());
    ticks(&opened, 1).await;
    assert_eq!(log_disks(&opened), [2, 3, 4]);
    drop(opened);
    assert_eq!(count(&mount(&machine, &[1, 2]).await.unwrap()), 400);
}

#[tokio::test(start_paused = true)]
async fn states_of_disks_are_recorded() {
    let machine = machine(4, "2+1").await;
    let opened = mount(&machine, &[]).await.unwrap();
    let before = opened.log.epoch();
    opened.log.set_disk_state(DiskId(1), MemberState::Out).await.unwrap();
    assert_eq!(opened.log.epoch(), before.next());
    assert_eq!(log_disks(&opened), [2]);
    ticks(&opened, 1).await;
    assert_eq!(log_disks(&opened), [2, 3]);
    let error = opened.log.set_disk_state(DiskId(9), MemberState::Out).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    drop(opened);
    let opened = mount(&machine, &[0, 1]).await.unwrap();
    assert_eq!(opened.log.members().member(DiskId(1)).unwrap().state, MemberState::Out);
    assert_eq!(opened.log.members().member(DiskId(2)).unwrap().state, MemberState::Down);
}

#[tokio::test(start_paused = true)]
async fn the_last_disk_with_the_metadata_does_not_go() {
    let machine = machine(3, "2+1").await;
    let opened = mount(&machine, &[]).await.unwrap();
    // No tick: the log is not given to another disk meanwhile.
    opened.log.set_disk_state(DiskId(1), MemberState::Removed).await.unwrap();
    assert_eq!(log_disks(&opened), [2]);
    let refused = opened.log.set_disk_state(DiskId(2), MemberState::Removed).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Refused);
    assert!(refused.to_string().contains("the only copy of the metadata"), "{refused}");
    put(&opened, 0..3).await;
    opened.log.sync().await.unwrap();
    // Once it has been copied, it may go.
    opened.log.set_disk_state(DiskId(2), MemberState::Draining).await.unwrap();
    assert!(opened.log.restore_copies().await.unwrap());
    opened.log.set_disk_state(DiskId(2), MemberState::Removed).await.unwrap();
    assert_eq!(log_disks(&opened), [3]);
    drop(opened);
    assert_eq!(count(&mount(&machine, &[0, 1]).await.unwrap()), 3);
}

#[tokio::test(start_paused = true)]
async fn a_read_only_mount_writes_nothing() {
    let machine = machine(4, "2+1").await;
    let opened = mount(&machine, &[]).await.unwrap();
    put(&opened, 0..7).await;
    opened.log.sync().await.unwrap();
    drop(opened);
    machine.settle();
    let options = OpenOptions { read_only: true, ..OPTIONS };
    let opened = mount_with(&machine, &[], options).await.unwrap();
    assert_eq!(count(&opened), 7);
    assert!(opened.log.propose(vec![create(7)]).await.unwrap_err().is(Posix::ReadOnly));
    opened.log.tick().await.unwrap();
    opened.log.sync().await.unwrap();
    opened.log.shutdown().await.unwrap();
    drop(opened);
    assert_eq!(machine.journal_len(), 0, "{:?}", machine.journal_entry(0));
}

#[tokio::test(start_paused = true)]
async fn histories_that_were_written_apart_are_refused() {
    let base = machine(3, "replica:3").await;
    let (left, right) =
        (SimMachine::from_image(base.live_image()), SimMachine::from_image(base.live_image()));
    drop(mount(&left, &[1, 2]).await.unwrap());
    drop(mount(&right, &[0]).await.unwrap());
    let disks = [left.disk(0), right.disk(1)];
    let present = disks.map(|disk| {
        let superblock = superblock::read(&*disk).unwrap().unwrap();
        PresentDisk { disk, queue: DiskQueue::inline(), superblock, device: None }
    });
    let error = open(present.into(), OPTIONS).await.unwrap_err();
    // The right one may have gone on; by its number, or by the conflict, the left one is never mixed in.
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
}

#[tokio::test(start_paused = true)]
async fn foreign_disks_are_refused_by_name() {
    let first = machine(3, "2+1").await;
    let second = SimMachine::new(3, 1);
    let disks = vec![(second.disk(0), DiskQueue::inline(), Labels::default())];
    let other = NewVolume { volume: VolumeId([1; 16]), ..new_volume("replica:1") };
    format(disks, other.clone()).await.unwrap();
    let disks = vec![(second.disk(0), DiskQueue::inline(), Labels::default())];
    let again = format(disks, other).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Refused, "{again}");
    let present = [first.disk(0), second.disk(0)].map(|disk| {
        let superblock = superblock::read(&*disk).unwrap().unwrap();
        PresentDisk { disk, queue: DiskQueue::inline(), superblock, device: None }
    });
    let error = open(present.into(), OPTIONS).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(open(Vec::new(), OPTIONS).await.is_err());
}

/// A machine after a crash with nine synced commands, five of them behind the checkpoint.
async fn crashed() -> SimMachine {
    let machine = machine(3, "replica:3").await;
    let opened = mount(&machine, &[]).await.unwrap();
    put(&opened, 0..4).await;
    opened.log.checkpoint().await.unwrap();
    put(&opened, 4..9).await;
    opened.log.sync().await.unwrap();
    drop(opened);
    machine
}

#[tokio::test(start_paused = true)]
async fn a_flipped_sector_of_one_copy_loses_nothing() {
    let base = crashed().await;
    let image = base.live_image();
    for name in base.file_names(0).into_iter().filter(|name| name != "lock") {
        let bytes = base.contents(0, &name).unwrap();
        for (sector, _content) in
            (0..).zip(bytes.chunks(512)).filter(|(_at, content)| *content != [0; 512])
        {
            let machine = SimMachine::from_image(image.clone());
            machine.flip(0, &name, sector * 512 + 17);
            let opened = mount(&machine, &[]).await.unwrap();
            assert_eq!(count(&opened), 9, "{name}, sector {sector}");
        }
    }
}

/// All copies at once: then it is reported, or nothing is missing.
#[tokio::test(start_paused = true)]
async fn nothing_wrong_is_served_when_all_copies_are_damaged() {
    let base = crashed().await;
    let log = base.file_names(0).into_iter().find(|name| name.starts_with("log/")).unwrap();
    let opened = mount(&base, &[]).await.unwrap();
    put(&opened, 9..10).await;
    opened.log.sync().await.unwrap();
    put(&opened, 10..11).await;
    opened.log.sync().await.unwrap();
    drop(opened);
    let name = base.file_names(0).into_iter().find(|name| name.starts_with("log/")).unwrap();
    assert_ne!(log, name, "each mount begins a new chain");
    let image = base.live_image();
    let sectors = base.contents(0, &name).unwrap().chunks(512).filter(|s| *s != [0; 512]).count();
    let mut refused = 0;
    for sector in 0..sectors as u64 {
        let machine = SimMachine::from_image(image.clone());
        (0..3).for_each(|disk| assert!(machine.flip(disk, &name, sector * 512 + 17)));
        match mount(&machine, &[]).await {
            // The last record of all: nothing proves that it was ever durable.
            Ok(opened) => assert!(count(&opened) >= 10),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

/// Everything acknowledged at each moment of a short life: (position in the journal, commands).
async fn life(machine: &SimMachine, check_errors: bool) -> Vec<(usize, u64)> {
    let mut acknowledged = vec![(machine.journal_len(), 0)];
    let opened = mount(machine, &[]).await.unwrap();
    for (number, step) in [2, 1, 3].into_iter().enumerate() {
        let first = acknowledged.last().unwrap().1;
        put(&opened, first..first + step).await;
        opened.log.sync().await.unwrap();
        acknowledged.push((machine.journal_len(), first + step));
        if number == 1 {
            let done = opened.log.checkpoint().await;
            assert!(done.is_ok() || !check_errors);
        }
    }
    acknowledged
}

fn acknowledged_at(acknowledged: &[(usize, u64)], at: usize) -> u64 {
    acknowledged.iter().rev().find(|(moment, _count)| *moment <= at).unwrap().1
}

#[tokio::test(start_paused = true)]
async fn power_cuts_leave_a_prefix_with_all_that_was_synced() {
    let machine = machine(2, "replica:2").await;
    let acknowledged = life(&machine, true).await;
    let points = machine.sync_points();
    for at in points.iter().flat_map(|at| [*at - 1, *at]) {
        let expected = acknowledged_at(&acknowledged, at);
        for state in machine.crash_states(at, 10, 3) {
            let rebooted = SimMachine::from_image(state.image);
            let opened = mount(&rebooted, &[]).await.unwrap_or_else(|e| panic!("cut at {at}: {e}"));
            let found = count(&opened);
            assert!((expected..=6).contains(&found), "cut at {at}: {found} of {expected}");
        }
    }
}

/// A second power cut inside recovery: nothing is lost by recovering twice.
#[tokio::test(start_paused = true)]
async fn recovery_may_be_cut_as_well() {
    let machine = machine(2, "replica:2").await;
    let acknowledged = life(&machine, true).await;
    let points = machine.sync_points();
    for at in points.into_iter().step_by(5) {
        let expected = acknowledged_at(&acknowledged, at);
        let Some(state) = machine.crash_states(at, 3, 11).last() else { continue };
        let second = SimMachine::from_image(state.image);
        let found = count(&mount(&second, &[]).await.unwrap());
        for cut in second.sync_points().into_iter().step_by(2) {
            for state in second.crash_states(cut, 3, 5) {
                let third = SimMachine::from_image(state.image);
                let again = mount(&third, &[]).await;
                let again = count(&again.unwrap_or_else(|e| panic!("cuts {at}, {cut}: {e}")));
                assert!((expected..=found.max(6)).contains(&again), "cuts {at}, {cut}: {again}");
            }
        }
    }
}

/// The planted bug: a log sync that does nothing is seen by the checks above.
#[tokio::test(start_paused = true)]
async fn skipped_syncs_are_noticed() {
    let machine = machine(2, "replica:2").await;
    let opened = mount(&machine, &[]).await.unwrap();
    put(&opened, 0..2).await;
    (0..2).for_each(|disk| machine.skip_syncs(disk, Call::SyncData, 1));
    opened.log.sync().await.unwrap();
    let at = machine.journal_len();
    let mut worst = u64::MAX;
    for state in machine.crash_states(at, 4, 3) {
        let rebooted = SimMachine::from_image(state.image);
        worst = worst.min(mount(&rebooted, &[]).await.map_or(0, |opened| count(&opened)));
    }
    assert!(worst < 2, "a lost sync went unnoticed");
}

#[tokio::test(start_paused = true)]
async fn a_more_redundant_class_gets_more_log_disks() {
    let machine = machine(6, "4+2").await;
    let opened = mount(&machine, &[]).await.unwrap();
    let class = Class::new("3+3".parse().unwrap());
    let command = Command::SetClass { id: ClassId(1), class };
    let (replies, _end) = opened.log.propose(vec![command]).await.unwrap();
    assert!(replies[0].is_ok(), "{replies:?}");
    ticks(&opened, 1).await;
    assert_eq!(opened.log.members().tolerance, 3);
    assert_eq!(log_disks(&opened), [1, 2, 3, 4]);
    drop(opened);
    mount(&machine, &[0, 1, 2]).await.unwrap();
}

/// redb without a cache reads every page from the copies.
const UNCACHED: OpenOptions = OpenOptions { cache_bytes: 0, ..OPTIONS };

#[tokio::test(start_paused = true)]
async fn damaged_copies_of_the_state_are_made_anew() {
    let machine = machine(6, "4+2").await;
    let opened = mount_with(&machine, &[], UNCACHED).await.unwrap();
    put(&opened, 0..50).await;
    opened.log.checkpoint().await.unwrap();
    for disk in [0, 1] {
        assert!(machine.zero(disk, "meta/state.redb", 8192, 1 << 40));
    }
    assert_eq!(count(&opened), 50);
    put(&opened, 50..60).await;
    opened.log.sync().await.unwrap();
    assert_eq!(log_disks(&opened), [3]);
    ticks(&opened, 1).await;
    // The damaged ones are avoided for a while.
    assert_eq!(log_disks(&opened), [3, 4, 5]);
    drop(opened);
    assert_eq!(count(&mount(&machine, &[2, 3]).await.unwrap()), 60);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_lost_on_all_disks_is_replayed_from_the_last_checkpoint() {
    let machine = machine(6, "4+2").await;
    let opened = mount_with(&machine, &[], UNCACHED).await.unwrap();
    put(&opened, 0..50).await;
    opened.log.checkpoint().await.unwrap();
    let old: Vec<_> = (0..3).map(|d| machine.contents(d, "meta/state.redb").unwrap()).collect();
    put(&opened, 50..400).await;
    for (disk, old) in old.into_iter().enumerate() {
        // Nothing that was written since the checkpoint is there any more.
        machine.damage(disk, "meta/state.redb", |bytes| *bytes = old);
    }
    put(&opened, 400..420).await;
    assert_eq!(count(&opened), 420);
    opened.log.sync().await.unwrap();
    assert_eq!(log_disks(&opened).len(), 3, "their copies are equal");
    ticks(&opened, 12).await;
    assert_eq!(log_disks(&opened).len(), 3);
    drop(opened);
    assert_eq!(count(&mount(&machine, &[0, 1]).await.unwrap()), 420);
}

#[tokio::test(start_paused = true)]
async fn a_state_that_cannot_be_read_anywhere_stops_the_volume() {
    let machine = machine(2, "replica:2").await;
    let opened = mount_with(&machine, &[], UNCACHED).await.unwrap();
    put(&opened, 0..50).await;
    opened.log.checkpoint().await.unwrap();
    for disk in [0, 1] {
        assert!(machine.zero(disk, "meta/state.redb", 8192, 1 << 40));
    }
    let refused = opened.log.propose(vec![create(50)]).await.unwrap_err();
    assert!(refused.is(Posix::ReadOnly), "{refused}");
    assert!(opened.log.status().read_only.is_some());
    drop(opened);
    assert_eq!(mount(&machine, &[]).await.unwrap_err().kind(), ErrorKind::Refused);
}

/// A list that was never in force does not win over one that knows its holders to be away.
#[tokio::test(start_paused = true)]
async fn of_two_lists_of_one_epoch_the_one_that_knows_the_other_away_wins() {
    let base = machine(4, "2+1").await;
    let opened = mount(&base, &[]).await.unwrap();
    let mut half = opened.log.members();
    put(&opened, 0..2).await;
    opened.log.sync().await.unwrap();
    drop(opened);
    // A mount that got no further than disk 4.
    half.previous_epoch = half.epoch;
    half.epoch = half.epoch.next();
    let mut superblock = superblock::read(&*base.disk(3)).unwrap().unwrap();
    superblock.members = half;
    superblock.sequence += 1;
    superblock::write(&*base.disk(3), &superblock).unwrap();
    let opened = mount(&base, &[3]).await.unwrap();
    assert_eq!(opened.log.epoch(), superblock.members.epoch, "the same number, another list");
    put(&opened, 2..4).await;
    opened.log.sync().await.unwrap();
    drop(opened);
    assert_eq!(count(&mount(&base, &[]).await.unwrap()), 4);
}

/// Power cuts while a log disk fails and another takes its place; the failed one is back at the mount, or is not.
#[tokio::test(start_paused = true)]
async fn power_cuts_during_member_changes_lose_nothing() {
    let machine = machine(4, "2+1").await;
    let opened = mount(&machine, &[]).await.unwrap();
    let mut acknowledged = vec![(machine.journal_len(), 0)];
    for (step, first) in [0, 2, 4, 6].into_iter().enumerate() {
        machine.set_offline(0, step == 1 || step == 2);
        put(&opened, first..first + 2).await;
        opened.log.sync().await.unwrap();
        acknowledged.push((machine.journal_len(), first + 2));
        ticks(&opened, if step == 2 { 6 } else { 1 }).await;
    }
    assert_eq!(log_disks(&opened), [2, 3]);
    drop(opened);
    let start = acknowledged[0].0;
    for at in machine.sync_points().into_iter().filter(|at| *at >= start) {
        let expected = acknowledged_at(&acknowledged, at);
        for (number, state) in machine.crash_states(at, 6, 9).enumerate() {
            let rebooted = SimMachine::from_image(state.image);
            let without = if number % 2 == 0 { vec![] } else { vec![0] };
            let opened = mount(&rebooted, &without).await;
            let found = count(&opened.unwrap_or_else(|e| panic!("cut at {at}: {e}")));
            assert!((expected..=8).contains(&found), "cut at {at}: {found} of {expected}");
        }
    }
}
