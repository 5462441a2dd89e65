use super::*;
use crate::meta::testing::MemLog;
use crate::meta::{Log, Reply};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::types::LogPosition;
use crate::worker::reap::Reap;
use crate::worker::testing::{Rig, noise, settle};
use std::sync::Arc;

/// A volume with one dead and one live stripe.
async fn rig() -> (Rig, StripeId) {
    let rig = Rig::new("2+1", 4);
    let (ino, other) = (rig.create().await, rig.create().await);
    let dead = rig.write(ino, 0, &noise(1, 100_000)).await;
    rig.write(other, 0, &noise(2, 100_000)).await;
    rig.unlink(ino).await;
    settle(&Reap::new(rig.meta.clone())).await;
    assert_eq!(rig.dead(), [dead]);
    (rig, dead)
}

fn delete(rig: &Rig) -> Delete {
    Delete::new(rig.meta.clone(), rig.reader.clone(), rig.shards.clone(), GRACE)
}

#[tokio::test(start_paused = true)]
async fn shards_go_after_the_grace_period() {
    let (rig, dead) = rig().await;
    let delete = delete(&rig);
    assert!(matches!(settle(&delete).await, Step::Throttled(_)));
    assert_eq!(rig.shard_count().await, 6);
    tokio::time::advance(GRACE / 2).await;
    assert!(matches!(settle(&delete).await, Step::Throttled(_)));
    assert_eq!(rig.dead(), [dead]);
    tokio::time::advance(GRACE / 2).await;
    assert_eq!(settle(&delete).await, Step::Idle);
    assert_eq!(rig.shard_count().await, 3);
    assert!(rig.dead().is_empty());
    assert!(delete.state().seen.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_is_down_holds_nothing_up() {
    let (rig, _dead) = rig().await;
    rig.fail_disk(1);
    let delete = delete(&rig);
    settle(&delete).await;
    tokio::time::advance(GRACE).await;
    assert_eq!(settle(&delete).await, Step::Idle);
    assert!(rig.dead().is_empty());
    rig.admit_disk(1);
    assert_eq!(rig.shard_count().await, 4, "one leftover shard");
}

#[tokio::test(start_paused = true)]
async fn a_grace_of_zero_deletes_at_once() {
    let (rig, _dead) = rig().await;
    let (reader, shards) = (rig.reader.clone(), rig.shards.clone());
    let delete = Delete::new(rig.meta.clone(), reader, shards, Duration::ZERO);
    assert_eq!(settle(&delete).await, Step::Idle);
    assert_eq!(rig.shard_count().await, 3);
}

/// A log that is durable only as far as it was synced.
#[derive(Debug)]
struct Lagging {
    log: Arc<MemLog>,
    durable: AtomicU64,
    broken: bool,
}

impl Log for Lagging {
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<(Vec<Reply>, LogPosition)>> {
        self.log.propose(commands)
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async {
            if self.broken {
                return Err(Error::unavailable("too few log disks"));
            }
            self.durable.store(self.log.applied().0, Ordering::Relaxed);
            Ok(())
        })
    }

    fn settle(&self) -> BoxFuture<'_, Result<()>> {
        self.log.settle()
    }

    fn durable(&self) -> LogPosition {
        LogPosition(self.durable.load(Ordering::Relaxed))
    }

    fn applied(&self) -> LogPosition {
        self.log.applied()
    }
}

#[tokio::test(start_paused = true)]
async fn a_death_that_is_not_durable_deletes_nothing() {
    let (rig, dead) = rig().await;
    for broken in [true, false] {
        let log = Lagging { log: rig.log.clone(), durable: AtomicU64::new(0), broken };
        let log = Arc::new(log);
        let meta = MetaClient::new(log.clone(), rig.log.clone());
        let (reader, shards) = (rig.reader.clone(), rig.shards.clone());
        let delete = Delete::new(meta, reader, shards, Duration::ZERO);
        if broken {
            assert!(delete.step().await.is_err());
            assert_eq!(rig.dead(), [dead]);
            assert_eq!(rig.shard_count().await, 6);
        } else {
            settle(&delete).await;
            assert_ne!(log.durable(), LogPosition(0));
            assert_eq!(rig.shard_count().await, 3);
        }
    }
}
