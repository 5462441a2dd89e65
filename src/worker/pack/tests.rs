use super::*;
use crate::worker::testing::{Rig, noise, settle};

const SEGMENT: usize = SEGMENT_BYTES as usize;

fn pack(rig: &Rig, limits: PackLimits) -> Pack {
    Pack::new(rig.meta.clone(), rig.mover(), limits)
}

const TIGHT: PackLimits =
    PackLimits { hot_bytes: 1000, idle: Duration::from_secs(30), idle_bytes: 100 };

fn hot_bytes(rig: &Rig) -> u64 {
    rig.meta.view().unwrap().totals().unwrap().hot_bytes
}

#[tokio::test]
async fn few_hot_bytes_stay() {
    let rig = Rig::new("2+1", 3);
    let ino = rig.create().await;
    rig.write_hot(ino, 0, &noise(1, 900)).await;
    assert_eq!(settle(&pack(&rig, TIGHT)).await, Step::Idle);
    assert_eq!(hot_bytes(&rig), 900);
    assert!(rig.stripes().is_empty());
}

#[tokio::test]
async fn many_hot_bytes_share_a_stripe() {
    let rig = Rig::new("2+1", 3);
    let mut files = Vec::new();
    for seed in 0..3 {
        let ino = rig.create().await;
        let data = noise(seed, 3000);
        rig.write_hot(ino, 0, &data).await;
        files.push((ino, data));
    }
    let pack = pack(&rig, TIGHT);
    assert_eq!(settle(&pack).await, Step::Idle);
    assert_eq!(hot_bytes(&rig), 0);
    assert_eq!(rig.stripes().len(), 1);
    assert_eq!(pack.mover.moves.bytes(Move::Pack), 9000);
    for (ino, data) in files {
        assert_eq!(rig.read(ino).await, data);
        assert!(rig.stripe_of(ino, 0).is_some());
    }
}

#[tokio::test]
async fn hot_bytes_lie_over_extents() {
    let rig = Rig::new("2+1", 3);
    let ino = rig.create().await;
    let mut expected = noise(1, 3 * SEGMENT + 500);
    let old = rig.write(ino, 0, &expected).await;
    for (seed, offset, length) in
        [(2, 100, 2000), (3, 2 * SEGMENT, SEGMENT), (4, 3 * SEGMENT + 400, 700)]
    {
        let data = noise(seed, length);
        rig.write_hot(ino, offset as u64, &data).await;
        expected.resize(expected.len().max(offset + length), 0);
        expected[offset..offset + length].copy_from_slice(&data);
    }
    // Over a hole.
    let data = noise(5, 10);
    rig.write_hot(ino, 5 * SEGMENT as u64 + 20, &data).await;
    expected.resize(5 * SEGMENT + 20, 0);
    expected.extend(&data);

    settle(&pack(&rig, TIGHT)).await;
    assert_eq!(hot_bytes(&rig), 0);
    assert_eq!(rig.read(ino).await, expected);
    assert_eq!(rig.stripe_of(ino, 1), Some(old), "cold neighbours stay");
    assert_ne!(rig.stripe_of(ino, 0), Some(old));
    assert_eq!(rig.stripe_of(ino, 4), None);
}

#[tokio::test(start_paused = true)]
async fn cool_bytes_are_packed_after_a_while() {
    let rig = Rig::new("2+1", 3);
    let ino = rig.create().await;
    rig.write_hot(ino, 0, &noise(1, 900)).await;
    let pack = pack(&rig, TIGHT);
    settle(&pack).await;
    tokio::time::advance(TIGHT.idle / 2).await;
    rig.write_hot(ino, 0, &noise(2, 901)).await;
    settle(&pack).await;
    tokio::time::advance(TIGHT.idle - Duration::from_secs(1)).await;
    settle(&pack).await;
    assert_eq!(hot_bytes(&rig), 901, "it changed meanwhile");
    tokio::time::advance(Duration::from_secs(1)).await;
    settle(&pack).await;
    assert_eq!(hot_bytes(&rig), 0);
    assert_eq!(rig.read(ino).await, noise(2, 901));
}

#[tokio::test]
async fn what_lies_over_an_unreadable_stripe_stays_hot() {
    let rig = Rig::new("2+1", 3);
    let (bad, good) = (rig.create().await, rig.create().await);
    rig.write(bad, 0, &noise(1, 5000)).await;
    rig.write_hot(bad, 100, &noise(2, 1500)).await;
    rig.write_hot(good, 0, &noise(3, 1500)).await;
    let kept: Vec<_> = rig.on_disks().await.into_iter().collect();
    for (disk, keys) in kept.into_iter().take(2) {
        for key in keys {
            rig.call(disk, crate::net::Operation::Delete(key)).await.unwrap();
        }
    }
    assert_eq!(settle(&pack(&rig, TIGHT)).await, Step::Idle);
    assert_eq!(hot_bytes(&rig), 1500);
    assert_eq!(rig.read(good).await, noise(3, 1500));
}
