use super::*;
use crate::meta::command::Command;
use crate::meta::command::segment_address;
use crate::meta::testing::MemLog;
use crate::meta::{Log, Reply};
use crate::net::Priority;
use crate::stripe::writer::{NewSegment, Placer};
use crate::sync::Arc;
use crate::types::LogPosition;
use crate::types::{ClassId, Ino};
use crate::worker::delete::Delete;
use crate::worker::reap::Reap;
use crate::worker::testing::{Rig, noise, settle};
use std::time::Duration;

/// A volume of the first mount: a live stripe, a dead one and one that was never committed.
async fn rig() -> Rig {
    let rig = Rig::new("2+1", 4);
    let (live, dead) = (rig.create().await, rig.create().await);
    rig.write(live, 0, &noise(1, 100_000)).await;
    rig.write(dead, 0, &noise(2, 100_000)).await;
    rig.unlink(dead).await;
    settle(&Reap::new(rig.meta.clone())).await;
    let target = rig.placer.target(ClassId(0), "2+1".parse().unwrap(), Priority::Sync).unwrap();
    let address = segment_address(Ino(77), 0).unwrap();
    let segment = NewSegment { address, data: noise(3, 5000).into() };
    rig.writer.write(target, vec![segment]).await.unwrap();
    assert_eq!(rig.shard_count().await, 9);
    rig
}

async fn collect(rig: &Rig, incarnation: u32, complete: bool) {
    let orphans = rig.orphans(Incarnation(incarnation), complete);
    (0..4).for_each(|disk| orphans.request(DiskId(disk)));
    assert_eq!(settle(&orphans).await, Step::Idle);
}

#[tokio::test]
async fn only_what_nothing_names_goes() {
    let rig = rig().await;
    collect(&rig, 2, true).await;
    assert_eq!(rig.shard_count().await, 6);
    let known: Vec<_> = rig.stripes().iter().map(|record| record.id).chain(rig.dead()).collect();
    let shards = rig.on_disks().await;
    assert!(shards.values().flatten().all(|key| known.contains(&key.stripe)));
}

#[tokio::test]
async fn later_mounts_and_an_incomplete_recovery_are_left_alone() {
    let rig = rig().await;
    collect(&rig, 0, true).await;
    collect(&rig, 2, false).await;
    assert_eq!(rig.shard_count().await, 9);
}

#[tokio::test]
async fn what_this_mount_writes_goes_only_if_it_will_not_be_committed() {
    let rig = rig().await;
    let target = rig.placer.target(ClassId(0), "2+1".parse().unwrap(), Priority::Sync).unwrap();
    let address = segment_address(Ino(78), 0).unwrap();
    let segment = NewSegment { address, data: noise(4, 5000).into() };
    let written = rig.writer.write(target, vec![segment]).await.unwrap();
    assert_eq!(rig.shard_count().await, 12);
    collect(&rig, 1, true).await;
    assert_eq!(rig.shard_count().await, 9, "one is given up, the other is on its way");
    let id = written.record.id;
    let shards = rig.on_disks().await;
    assert_eq!(shards.values().flatten().filter(|key| key.stripe == id).count(), 3);
    drop(written);
    collect(&rig, 1, true).await;
    assert_eq!(rig.shard_count().await, 6);
}

/// A log whose last commands are applied when it settles, and whose state may not become durable.
#[derive(Debug)]
struct Late {
    log: Arc<MemLog>,
    pending: Mutex<Vec<Command>>,
    broken: bool,
}

impl Log for Late {
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<(Vec<Reply>, LogPosition)>> {
        self.log.propose(commands)
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        let error = Error::unavailable("too few log disks");
        Box::pin(async { if self.broken { Err(error) } else { Ok(()) } })
    }

    fn settle(&self) -> BoxFuture<'_, Result<()>> {
        let pending = std::mem::take(&mut *self.pending.lock().unwrap());
        Box::pin(async { self.log.propose(pending).await.map(drop) })
    }

    fn durable(&self) -> LogPosition {
        self.log.durable()
    }

    fn applied(&self) -> LogPosition {
        self.log.applied()
    }
}

/// All that `rig` has, as they see it who work on it while `pending` is on its way through the log.
fn late(rig: &Rig, pending: Vec<Command>, broken: bool) -> Orphans {
    let log = Late { log: rig.log.clone(), pending: Mutex::new(pending), broken };
    let meta = MetaClient::new(Arc::new(log), rig.log.clone());
    let flights = rig.placer.flights.clone();
    let orphans = Orphans::new(meta, rig.shards.clone(), flights, (Incarnation(1), true));
    (0..4).for_each(|disk| orphans.request(DiskId(disk)));
    orphans
}

#[tokio::test]
async fn a_commit_that_is_proposed_counts_before_it_is_applied() {
    let rig = rig().await;
    let ino = rig.create().await;
    let command = rig.prepare(ino, 0, &noise(4, 70_000)).await;
    assert_eq!(rig.shard_count().await, 12);
    settle(&late(&rig, vec![command], false)).await;
    assert_eq!(rig.shard_count().await, 9, "only what was given up is gone");
    assert_eq!(rig.stripes().len(), 2);
}

#[tokio::test]
async fn nothing_goes_before_the_state_is_durable() {
    let rig = rig().await;
    let orphans = late(&rig, Vec::new(), true);
    for _attempt in 0..2 {
        let error = orphans.step().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "it stays at the first disk");
    }
    assert_eq!(rig.shard_count().await, 9);
    collect(&rig, 1, true).await;
    assert_eq!(rig.shard_count().await, 6);
}

#[tokio::test]
async fn a_claimed_shard_stays() {
    let rig = rig().await;
    let shards = rig.on_disks().await;
    let claims: Vec<_> = shards
        .iter()
        .flat_map(|(disk, keys)| keys.iter().map(|key| rig.shards.claim(*disk, *key).unwrap()))
        .collect();
    collect(&rig, 2, true).await;
    assert_eq!(rig.shard_count().await, 9);
    drop(claims);
    collect(&rig, 2, true).await;
    assert_eq!(rig.shard_count().await, 6);
}

#[tokio::test(start_paused = true)]
async fn what_died_while_a_disk_was_away_is_collected_when_it_is_back() {
    let rig = rig().await;
    rig.fail_disk(0);
    collect(&rig, 2, true).await;
    let (reader, shards) = (rig.reader.clone(), rig.shards.clone());
    settle(&Delete::new(rig.meta.clone(), reader, shards, Duration::ZERO)).await;
    rig.admit_disk(0);
    assert_eq!(rig.shard_count().await, 5);
    collect(&rig, 2, true).await;
    assert_eq!(rig.shard_count().await, 3);
}
