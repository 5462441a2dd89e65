use super::Piece;
use crate::error::{ErrorKind, Posix};
use crate::net::{Operation, Peers, Priority, Request, ShardKey};
use crate::stripe::testing::{Cluster, MIXED, segments, whole};
use crate::types::{DiskId, Epoch, NodeId, ShardIndex};
use std::collections::BTreeSet;

#[tokio::test]
async fn any_two_lost_shards_are_decoded_around_and_three_are_not() {
    let cluster = Cluster::new(6);
    let segments = segments(&MIXED);
    let written = cluster.write("4+2,zstd", &segments).await;
    let set_down = |down: BTreeSet<u32>| *cluster.members.down.lock().unwrap() = down;
    for first in 0..6 {
        for second in first..6 {
            set_down(BTreeSet::from([first, second]));
            cluster.check(&written, &segments).await;
            for third in second + 1..6 {
                set_down(BTreeSet::from([first, second, third]));
                let result = cluster.reader.read(&written.record, &whole(&written)).await;
                match result {
                    Ok(read) => {
                        assert!(read.iter().zip(&segments).all(|(read, new)| *read == new.data));
                    }
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn flipped_bits_are_decoded_around_and_reported() {
    let mut cluster = Cluster::new(6);
    let segments = segments(&MIXED);
    let written = cluster.write("4+2", &segments).await;
    for index in 0..6 {
        for offset in [8192, 8192 + 70_000] {
            let (disk, name) = cluster.file(&written, index);
            assert!(cluster.machine.flip(disk, &name, offset));
            cluster.reopen();
            cluster.check(&written, &segments).await;
            let expected: BTreeSet<u8> = (index < 4).then_some(index).into_iter().collect();
            assert_eq!(cluster.found(), expected, "shard {index} at {offset}");
            let shard = ShardIndex(index);
            let error = cluster.reader.verify_shard(&written.record, shard).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            cluster.machine.flip(disk, &name, offset);
        }
    }
}

#[tokio::test]
async fn lying_shards_are_found() {
    for liars in [&[0][..], &[3], &[1, 2]] {
        let mut cluster = Cluster::new(6);
        let segments = segments(&MIXED);
        let written = cluster.write("4+2", &segments).await;
        for liar in liars {
            cluster.lie(&written, *liar).await;
        }
        cluster.check(&written, &segments).await;
        assert_eq!(cluster.found(), liars.iter().copied().collect());
    }
    // One disk is down, and a source of the decoding lies.
    for liar in [1, 4] {
        let mut cluster = Cluster::new(6);
        let segments = segments(&MIXED);
        let written = cluster.write("4+2", &segments).await;
        cluster.lie(&written, liar).await;
        cluster.members.down.lock().unwrap().insert(0);
        cluster.check(&written, &segments).await;
        assert_eq!(cluster.found(), BTreeSet::from([liar]));
    }
    let cluster = Cluster::new(6);
    let written = cluster.write("4+2", &segments(&MIXED)).await;
    for liar in 0..3 {
        cluster.lie(&written, liar).await;
    }
    let error = cluster.reader.read(&written.record, &whole(&written)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn pieces_read_right_at_every_boundary() {
    let cluster = Cluster::new(6);
    let segments = segments(&[65536, 65536, 65536, 20_000]);
    for class in ["4+2,zstd", "4+2,cell:4160"] {
        let written = cluster.write(class, &segments).await;
        for (frame, segment) in written.frames.iter().zip(&segments) {
            let length = frame.raw_bytes;
            let edges = [0, 1, 8191, 8192, 8193, 16384, length - 1, length];
            let mut pieces = Vec::new();
            for start in edges {
                for end in edges.into_iter().filter(|end| *end >= start) {
                    pieces.push(Piece { frame: *frame, offset: start, length: end - start });
                }
            }
            let together = cluster.reader.read(&written.record, &pieces).await.unwrap();
            for (piece, bytes) in pieces.iter().zip(together) {
                let range = piece.offset as usize..(piece.offset + piece.length) as usize;
                assert!(bytes == segment.data[range.clone()], "{range:?}");
                let alone = cluster.reader.read(&written.record, &[*piece]).await.unwrap();
                assert!(alone[0] == bytes);
            }
        }
    }
}

#[tokio::test]
async fn a_stripe_that_is_gone_is_not_found() {
    let mut cluster = Cluster::new(6);
    let segments = segments(&MIXED);
    let written = cluster.write("4+2", &segments).await;
    for index in 0..6 {
        let key = ShardKey { stripe: written.record.id, index: ShardIndex(index) };
        let request = Request {
            disk: DiskId(u32::from(index)),
            epoch: Epoch(3),
            priority: Priority::Background,
            operation: Operation::Delete(key),
        };
        cluster.peers.call(NodeId(0), request).await.unwrap();
        if index == 1 {
            cluster.check(&written, &segments).await;
            assert_eq!(cluster.found(), BTreeSet::from([0, 1]));
        }
    }
    let error = cluster.reader.read(&written.record, &whole(&written)).await.unwrap_err();
    assert!(error.is(Posix::NotFound), "{error}");
    assert!(cluster.reader.slots(&written.record).await.unwrap_err().is(Posix::NotFound));
    assert!(cluster.found().is_empty());
}

#[tokio::test]
async fn clones_share_pins() {
    let cluster = Cluster::new(1);
    let stripe = cluster.target("replica:1").id;
    let clone = cluster.reader.clone();
    let pins = [cluster.reader.pin(stripe), clone.pin(stripe)];
    assert!(cluster.reader.pinned(stripe) && clone.pinned(stripe));
    let [first, second] = pins;
    drop(first);
    assert!(cluster.reader.pinned(stripe));
    drop(second);
    assert!(!cluster.reader.pinned(stripe));
}

#[tokio::test]
async fn a_disk_that_falls_silent_is_read_around_at_once() {
    let mut cluster = Cluster::new(6);
    let segments = segments(&MIXED);
    let written = cluster.write("4+2", &segments).await;
    cluster.reader = cluster.reader.clone().with_timeout(std::time::Duration::from_secs(3600));
    // Nobody has noticed yet.
    cluster.silence(&[0, 1]);
    let start = tokio::time::Instant::now();
    cluster.check(&written, &segments).await;
    assert!(start.elapsed() < std::time::Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(cluster.found().is_empty(), "they are silent, not bad");
}

#[tokio::test]
async fn late_disks_beside_a_silent_one_are_asked_again() {
    let mut cluster = Cluster::new(6);
    let segments = segments(&MIXED);
    let written = cluster.write("4+2", &segments).await;
    let late = std::time::Duration::from_millis(450);
    for silent in [0, 4] {
        // More are late than can be done without, and no less than k answer.
        let others = (0..6).filter(|disk| *disk != silent).map(|disk| (disk, late));
        for count in [2, 3, 5] {
            let others: Vec<_> = others.clone().take(count).collect();
            cluster.disturb(&[silent], &others);
            cluster.reader =
                cluster.reader.clone().with_timeout(std::time::Duration::from_secs(3600));
            let start = tokio::time::Instant::now();
            cluster.check(&written, &segments).await;
            let took = start.elapsed();
            assert!(took < std::time::Duration::from_secs(2), "{silent} {count}: {took:?}");
            assert!(cluster.found().is_empty(), "they are late, not bad");
        }
    }
}

#[tokio::test]
async fn a_slow_disk_is_asked_only_when_others_do_not_suffice() {
    let mut cluster = Cluster::new(6);
    let segments = segments(&MIXED);
    let written = cluster.write("4+2", &segments).await;
    // Silent, and nobody waits for it: the time limit is longer than this test may take.
    cluster.silence(&[1]);
    cluster.reader = cluster.reader.clone().with_timeout(std::time::Duration::from_secs(3600));
    *cluster.members.suspects.lock().unwrap() = [1].into();
    let read = cluster.check(&written, &segments);
    tokio::time::timeout(std::time::Duration::from_secs(60), read).await.unwrap();
    assert!(cluster.found().is_empty(), "it is slow, not bad");
    // Where it is needed it is asked.
    cluster.silence(&[]);
    *cluster.members.suspects.lock().unwrap() = [0, 1, 2].into();
    *cluster.members.down.lock().unwrap() = [4, 5].into();
    cluster.check(&written, &segments).await;
    *cluster.members.suspects.lock().unwrap() = [2].into();
    *cluster.members.down.lock().unwrap() = [4].into();
    let (disk, name) = cluster.file(&written, 0);
    assert!(cluster.machine.flip(disk, &name, 8192));
    cluster.reopen();
    cluster.check(&written, &segments).await;
    assert_eq!(cluster.found(), [0].into());
}
