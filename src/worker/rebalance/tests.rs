use super::Rebalance;
use crate::net::ShardKey;
use crate::types::{DiskId, Ino, ShardIndex};
use crate::worker::testing::{Rig, noise, settle};
use crate::worker::{IDLE_PAUSE, Step, Worker};
use std::collections::BTreeSet;

const SEGMENT: usize = 64 << 10;

/// Files of one stripe each, with their content.
async fn files(rig: &Rig, count: u64) -> Vec<(Ino, Vec<u8>)> {
    let mut files = Vec::new();
    for number in 0..count {
        let (ino, data) = (rig.create().await, noise(number, 5 * SEGMENT));
        rig.write(ino, 0, &data).await;
        files.push((ino, data));
    }
    files
}

async fn check_content(rig: &Rig, files: &[(Ino, Vec<u8>)]) {
    for (ino, data) in files {
        assert!(rig.read(*ino).await == *data, "{ino}");
    }
}

/// Disks that records name.
fn named(rig: &Rig) -> BTreeSet<u32> {
    rig.stripes().iter().flat_map(|record| record.disks.iter().map(|disk| disk.0)).collect()
}

fn leave(rig: &Rig, rebalance: &Rebalance, disk: u32) {
    rig.members.leaving.lock().unwrap().insert(DiskId(disk));
    rebalance.look_again();
}

#[tokio::test(start_paused = true)]
async fn a_disk_drains() {
    let rig = Rig::new("4+2", 7);
    let files = files(&rig, 10).await;
    assert_eq!(named(&rig), (0..6).collect());
    let rebalance = rig.rebalance();
    assert_eq!(settle(&rebalance).await, Step::Idle);
    assert!(rebalance.progress().left.is_empty(), "all is where it belongs");
    leave(&rig, &rebalance, 2);
    assert!(!rebalance.progress().known, "what it holds is not known yet");
    assert_eq!(settle(&rebalance).await, Step::Idle);
    let progress = rebalance.progress();
    assert!(progress.known && progress.left.is_empty() && progress.trouble.is_none());
    assert_eq!(progress.moved.shards, 10);
    assert_eq!(named(&rig), [0, 1, 3, 4, 5, 6].into());
    check_content(&rig, &files).await;
    // What was moved is gone from the disk, and is there twice nowhere.
    assert_eq!(rig.on_disks().await.get(&DiskId(2)).map_or(0, Vec::len), 0);
    assert_eq!(rig.shard_count().await, 60);
}

/// Who holds it may need this thread, or time to pass.
#[tokio::test(start_paused = true)]
async fn what_somebody_else_is_at_is_moved_later_without_a_busy_wait() {
    let rig = Rig::new("4+2", 7);
    let files = files(&rig, 3).await;
    let rebalance = rig.rebalance();
    let record = &rig.stripes()[1];
    let key = ShardKey { stripe: record.id, index: ShardIndex(2) };
    assert_eq!(record.disks[2], DiskId(2));
    let claim = rig.shards.claim(DiskId(6), key).unwrap();
    leave(&rig, &rebalance, 2);
    for _look in 0..3 {
        assert_eq!(settle(&rebalance).await, Step::Idle);
        assert_eq!(rig.on_disks().await[&DiskId(2)], [key]);
        tokio::time::advance(IDLE_PAUSE).await;
    }
    drop(claim);
    assert_eq!(settle(&rebalance).await, Step::Idle);
    assert_eq!(named(&rig), [0, 1, 3, 4, 5, 6].into());
    check_content(&rig, &files).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_counts_from_its_begin() {
    let rig = Rig::new("4+2", 8);
    files(&rig, 10).await;
    let rebalance = rig.rebalance();
    let drained = |disk| rebalance.progress().drained.get(&DiskId(disk)).map(|done| done.shards);
    settle(&rebalance).await;
    assert_eq!(drained(2), None);
    leave(&rig, &rebalance, 2);
    settle(&rebalance).await;
    assert_eq!(drained(2), Some(10));
    // Another one has nothing done yet, whatever has been moved before.
    rebalance.set_paused(true);
    leave(&rig, &rebalance, 3);
    settle(&rebalance).await;
    assert_eq!((drained(2), drained(3)), (Some(10), Some(0)));
    rebalance.set_paused(false);
    settle(&rebalance).await;
    assert_eq!(drained(3), Some(10));
    assert_eq!(rebalance.progress().moved.shards, 20);
    // One that was kept begins anew.
    rig.members.leaving.lock().unwrap().remove(&DiskId(2));
    rebalance.look_again();
    settle(&rebalance).await;
    assert_eq!(drained(2), None);
}

#[tokio::test(start_paused = true)]
async fn what_the_ring_wants_back_is_moved_and_nothing_else() {
    let rig = Rig::new("4+2", 7);
    rig.fail_disk(3);
    let files = files(&rig, 6).await;
    assert_eq!(named(&rig), [0, 1, 2, 4, 5, 6].into());
    rig.admit_disk(3);
    let rebalance = rig.rebalance();
    settle(&rebalance).await;
    assert_eq!(named(&rig), (0..6).collect());
    assert_eq!(rebalance.progress().moved.shards, 6, "one of each stripe");
    check_content(&rig, &files).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_no_other_can_stand_in_for_keeps_what_it_holds() {
    let rig = Rig::new("4+2", 6);
    let files = files(&rig, 3).await;
    let rebalance = rig.rebalance();
    leave(&rig, &rebalance, 1);
    settle(&rebalance).await;
    let progress = rebalance.progress();
    assert_eq!(progress.left.get(&DiskId(1)).map(|amount| amount.shards), Some(3));
    assert!(progress.trouble.is_some(), "it says why");
    assert_eq!(named(&rig), (0..6).collect());
    check_content(&rig, &files).await;
}

#[tokio::test(start_paused = true)]
async fn a_disk_without_room_gets_nothing_until_it_has_some() {
    let rig = Rig::new("4+2", 8);
    let files = files(&rig, 3).await;
    let rebalance = rig.rebalance();
    rig.members.tight.lock().unwrap().insert(DiskId(6));
    leave(&rig, &rebalance, 0);
    settle(&rebalance).await;
    assert_eq!(named(&rig), [1, 2, 3, 4, 5, 7].into());
    rig.members.tight.lock().unwrap().clear();
    rebalance.look_again();
    settle(&rebalance).await;
    assert_eq!(named(&rig), (1..7).collect());
    check_content(&rig, &files).await;
}

#[tokio::test(start_paused = true)]
async fn a_rotten_shard_is_rebuilt_on_its_way() {
    let rig = Rig::new("4+2", 7);
    let files = files(&rig, 4).await;
    for name in rig.machine.file_names(0) {
        if name.starts_with("shards/") {
            assert!(rig.machine.flip(0, &name, 9000));
        }
    }
    let rebalance = rig.rebalance();
    leave(&rig, &rebalance, 0);
    settle(&rebalance).await;
    assert_eq!(named(&rig), (1..7).collect());
    // Also without the data shards that were never touched.
    rig.fail_disk(1);
    rig.fail_disk(2);
    check_content(&rig, &files).await;
}

#[tokio::test(start_paused = true)]
async fn held_means_nothing_moves() {
    let rig = Rig::new("4+2", 7);
    let _files = files(&rig, 2).await;
    let rebalance = rig.rebalance();
    rebalance.set_paused(true);
    leave(&rig, &rebalance, 0);
    for _step in 0..20 {
        rebalance.step().await.unwrap();
    }
    assert_eq!(rebalance.progress().left.get(&DiskId(0)).map(|amount| amount.shards), Some(2));
    assert_eq!(named(&rig), (0..6).collect());
    rebalance.set_paused(false);
    settle(&rebalance).await;
    assert_eq!(named(&rig), (1..7).collect());
}

#[tokio::test(start_paused = true)]
async fn a_stripe_that_changes_meanwhile_is_left_alone() {
    let rig = Rig::new("4+2", 8);
    let _files = files(&rig, 1).await;
    let repair = rig.repair();
    let id = rig.stripes().first().unwrap().id;
    let way = |from, to| (DiskId(from), DiskId(to));
    assert!(repair.relocate(id, ShardIndex(0), way(0, 6)).await.unwrap());
    assert!(!repair.relocate(id, ShardIndex(0), way(0, 7)).await.unwrap(), "it is not there");
    assert!(!repair.relocate(id, ShardIndex(1), way(1, 6)).await.unwrap(), "6 has one");
    assert_eq!(rig.shard_count().await, 6);
}
