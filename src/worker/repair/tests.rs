use super::*;
use crate::net::{Operation, ShardKey};
use crate::worker::testing::{Rig, noise, settle};

/// Everything is where the metadata says, byte for byte.
async fn check_all_good(rig: &Rig) {
    let report = rig.repair().sweep(Depth::Deep).await.unwrap();
    let expected =
        RepairReport { stripes_checked: report.stripes_checked, ..RepairReport::default() };
    assert_eq!(report, expected);
}

#[tokio::test]
async fn shards_of_a_lost_disk_move_to_a_spare() {
    let rig = Rig::new("3+2", 6);
    let ino = rig.create().await;
    let data = noise(1, 700_000);
    rig.write(ino, 0, &data).await;
    rig.fail_disk(2);
    let report = rig.repair().sweep(Depth::Shallow).await.unwrap();
    assert_eq!((report.stripes_checked, report.stripes_touched), (1, 1));
    assert_eq!((report.shards_restored, report.failure_count), (1, 0));
    assert_eq!(report.bytes_restored, rig.stripes()[0].geometry().shard_bytes());
    let disks: Vec<u32> = rig.stripes()[0].disks.iter().map(|disk| disk.0).collect();
    assert_eq!(disks, [0, 1, 5, 3, 4]);
    check_all_good(&rig).await;
    rig.fail_disk(0);
    rig.fail_disk(1);
    assert_eq!(rig.read(ino).await, data);
}

#[tokio::test]
async fn a_shard_that_is_gone_is_written_again_in_place() {
    let rig = Rig::new("2+1", 3);
    let ino = rig.create().await;
    let stripe = rig.write(ino, 0, &noise(1, 300_000)).await;
    for index in 0..3_u8 {
        let key = ShardKey { stripe, index: ShardIndex(index) };
        let disk = rig.stripes()[0].disks[usize::from(index)];
        rig.call(disk, Operation::Delete(key)).await.unwrap();
        let report = rig.repair().sweep(Depth::Shallow).await.unwrap();
        assert_eq!((report.shards_restored, report.failure_count), (1, 0), "{report:?}");
        check_all_good(&rig).await;
    }
    assert_eq!(rig.read(ino).await, noise(1, 300_000));
}

#[tokio::test]
async fn damaged_bytes_are_found_by_a_deep_look_and_replaced() {
    for disks in [3, 4] {
        let rig = Rig::new("2+1", disks);
        let ino = rig.create().await;
        let stripe = rig.write(ino, 0, &noise(1, 300_000)).await;
        let names = rig.machine.file_names(1);
        let name = names.iter().find(|name| name.contains(&stripe.to_string())).unwrap();
        assert!(rig.machine.flip(1, name, 8192 + 5000));
        let report = rig.repair().sweep(Depth::Shallow).await.unwrap();
        assert_eq!(report.stripes_touched, 0);
        let repair = rig.repair();
        repair.note(vec![(stripe, ShardIndex(1))]).await.unwrap();
        assert_eq!(settle(&repair).await, Step::Idle);
        check_all_good(&rig).await;
        assert_eq!(rig.read(ino).await, noise(1, 300_000));
        assert_eq!(rig.shard_count().await, 3, "the damaged one is gone");
    }
}

#[tokio::test]
async fn a_shard_that_never_was_finds_a_disk() {
    let rig = Rig::new("2+2", 4);
    rig.fail_disk(3);
    let ino = rig.create().await;
    rig.write(ino, 0, &noise(1, 100_000)).await;
    assert_ne!(rig.stripes()[0].missing, 0);
    let report = rig.repair().sweep(Depth::Shallow).await.unwrap();
    assert_eq!((report.shards_restored, report.failure_count), (0, 1));
    rig.admit_disk(3);
    let report = rig.repair().sweep(Depth::Shallow).await.unwrap();
    assert_eq!((report.shards_restored, report.failure_count), (1, 0), "{report:?}");
    assert_eq!(rig.stripes()[0].missing, 0);
    check_all_good(&rig).await;
}

#[tokio::test]
async fn too_few_good_shards_are_reported_and_nothing_is_touched() {
    let rig = Rig::new("2+1", 5);
    let ino = rig.create().await;
    rig.write(ino, 0, &noise(1, 100_000)).await;
    rig.fail_disk(0);
    rig.fail_disk(1);
    let before = rig.stripes();
    let report = rig.repair().sweep(Depth::Shallow).await.unwrap();
    assert_eq!((report.stripes_touched, report.shards_restored), (1, 0));
    assert_eq!((report.failures.len(), report.failure_count), (1, 1));
    assert_eq!(rig.stripes(), before);
}

/// What `status` would count: stripes by the shards that they may still lose.
fn margins(rig: &Rig) -> Vec<i64> {
    let disks = rig.shards.disks();
    rig.stripes().iter().map(|record| outlook(record, 0, &disks).margin).collect()
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_returns_gets_what_it_missed() {
    let rig = Rig::new("2+2", 4);
    let repair = rig.repair();
    rig.fail_disk(1);
    let ino = rig.create().await;
    for first in 0..3 {
        rig.write(ino, first, &noise(first, 60_000)).await;
    }
    assert_eq!(settle(&repair).await, Step::Idle);
    assert_eq!(margins(&rig), [1, 1, 1], "nowhere to place them");
    assert_eq!(rig.meta.view().unwrap().repair_count().unwrap(), 0, "and nothing was tried");
    rig.admit_disk(1);
    repair.look_again();
    assert_eq!(settle(&repair).await, Step::Idle);
    assert_eq!(margins(&rig), [2, 2, 2]);
    check_all_good(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_away_is_waited_for_until_it_is_given_up() {
    let rig = Rig::new("2+2", 5);
    let repair = rig.repair();
    let ino = rig.create().await;
    rig.write(ino, 0, &noise(1, 200_000)).await;
    let before = rig.stripes();
    rig.fail_disk(1);
    repair.look_again();
    assert_eq!(settle(&repair).await, Step::Idle);
    assert_eq!(rig.stripes(), before, "it may come back with all it holds");
    rig.give_up(1);
    repair.look_again();
    assert_eq!(settle(&repair).await, Step::Idle);
    assert_eq!(margins(&rig), [2]);
    check_all_good(&rig).await;
    assert_eq!(rig.read(ino).await, noise(1, 200_000));
    let told = rig.journal.0.lock().unwrap();
    let [attempt] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!(attempt.stripe, before[0].id);
    assert_eq!(attempt.lost, [ShardIndex(1)]);
    assert_eq!(attempt.sources, [DiskId(0), DiskId(2), DiskId(3)]);
    assert_eq!(attempt.placed, [(ShardIndex(1), DiskId(4))]);
    assert_eq!(attempt.bytes, before[0].geometry().shard_bytes());
    assert_eq!((&attempt.error, attempt.retry), (&None, None));
}

#[tokio::test(start_paused = true)]
async fn a_noted_shard_survives_the_mount_and_is_repaired_by_the_next() {
    let rig = Rig::new("2+1", 3);
    let ino = rig.create().await;
    let stripe = rig.write(ino, 0, &noise(1, 300_000)).await;
    let names = rig.machine.file_names(1);
    let name = names.iter().find(|name| name.contains(&stripe.to_string())).unwrap();
    assert!(rig.machine.flip(1, name, 8192 + 5000));
    // Noted, and the process ends. One of the two is a false alarm.
    let first = rig.repair();
    first.note(vec![(stripe, ShardIndex(1))]).await.unwrap();
    first.note(vec![(stripe, ShardIndex(2))]).await.unwrap();
    first.note(vec![(stripe, ShardIndex(2))]).await.unwrap();
    drop(first);
    let noted = || rig.meta.view().unwrap().repairs(None, 9).unwrap();
    assert_eq!(noted().iter().map(|(_id, entry)| entry.bad).collect::<Vec<_>>(), [0b110]);
    assert_eq!(settle(&rig.repair()).await, Step::Idle);
    assert_eq!(noted(), []);
    check_all_good(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_again_later_and_later() {
    let rig = Rig::new("2+1", 3);
    let repair = rig.repair();
    let ino = rig.create().await;
    let stripe = rig.write(ino, 0, &noise(1, 300_000)).await;
    // Two shards are gone, of which one is known: nothing can be computed.
    for index in [0, 1] {
        let key = ShardKey { stripe, index: ShardIndex(index) };
        rig.call(rig.stripes()[0].disks[usize::from(index)], Operation::Delete(key)).await.unwrap();
    }
    repair.note(vec![(stripe, ShardIndex(1))]).await.unwrap();
    let entry = || rig.meta.view().unwrap().repair(stripe).unwrap().unwrap();
    for attempts in 1..4_u32 {
        assert_eq!(settle(&repair).await, Step::Idle);
        let wait = 10 << (attempts - 1);
        let now = rig.seconds.load(Ordering::Relaxed);
        assert_eq!((entry().attempts, entry().retry.seconds), (attempts, now + wait));
        let told = rig.journal.0.lock().unwrap().last().cloned().unwrap();
        assert!(told.error.unwrap().contains("1 good shards, 2 needed"));
        assert_eq!(told.retry.map(|retry| retry.seconds), Some(now + wait));
        // Neither a scan nor another report makes it earlier.
        repair.look_again();
        repair.note(vec![(stripe, ShardIndex(1))]).await.unwrap();
        assert_eq!(settle(&repair).await, Step::Idle);
        assert_eq!(entry().attempts, attempts);
        rig.seconds.fetch_add(wait, Ordering::Relaxed);
        tokio::time::advance(Duration::from_secs(u64::try_from(wait).unwrap())).await;
    }
    assert_eq!(backoff(40), RETRY_MAX);
}

#[tokio::test(start_paused = true)]
async fn the_stripe_that_may_lose_least_is_repaired_first() {
    let rig = Rig::new("2+2", 5);
    let repair = rig.repair();
    let ino = rig.create().await;
    let mut stripes = Vec::new();
    for first in 0..20 {
        stripes.push(rig.write(ino, first, &noise(first, 50_000)).await);
    }
    let drop_shard = |stripe, index: u8| {
        let record = rig.meta.view().unwrap().stripe(stripe).unwrap().unwrap();
        let key = ShardKey { stripe, index: ShardIndex(index) };
        (record.disks[usize::from(index)], Operation::Delete(key))
    };
    for stripe in &stripes {
        let (disk, delete) = drop_shard(*stripe, 0);
        rig.call(disk, delete).await.unwrap();
        repair.note(vec![(*stripe, ShardIndex(0))]).await.unwrap();
    }
    let worst = stripes[17];
    let (disk, delete) = drop_shard(worst, 1);
    rig.call(disk, delete).await.unwrap();
    repair.note(vec![(worst, ShardIndex(1))]).await.unwrap();
    assert_eq!(repair.waiting(), 20);
    let first = repair.queue().pop().unwrap();
    assert_eq!((first.id, first.margin), (worst, 0));
    repair.queue().push(first);
    assert_eq!(settle(&repair).await, Step::Idle);
    assert_eq!(margins(&rig), vec![2; 20]);
    check_all_good(&rig).await;
}

#[tokio::test(start_paused = true)]
async fn while_it_is_held_nothing_is_repaired_but_what_is_asked_for() {
    let rig = Rig::new("2+1", 3);
    let repair = rig.repair();
    let ino = rig.create().await;
    let stripe = rig.write(ino, 0, &noise(1, 100_000)).await;
    let key = ShardKey { stripe, index: ShardIndex(2) };
    rig.call(rig.stripes()[0].disks[2], Operation::Delete(key)).await.unwrap();
    repair.set_paused(true);
    repair.note(vec![(stripe, ShardIndex(2))]).await.unwrap();
    assert_eq!(settle(&repair).await, Step::Idle);
    assert_eq!((repair.waiting(), rig.shard_count().await), (1, 2));
    let report = repair.stripe(stripe, false).await.unwrap();
    assert_eq!((report.shards_restored, report.failure_count), (1, 0));
    assert_eq!(rig.meta.view().unwrap().repair_count().unwrap(), 0);
    let report = repair.stripe(stripe, true).await.unwrap();
    assert_eq!((report.shards_restored, report.failure_count), (3, 0), "by force");
    assert_eq!(rig.read(ino).await, noise(1, 100_000));
    repair.set_paused(false);
    assert_eq!(settle(&repair).await, Step::Idle);
    check_all_good(&rig).await;
    let unknown = repair.stripe(StripeId(7), false).await.unwrap_err();
    assert!(unknown.is(Posix::NotFound), "{unknown}");
}
