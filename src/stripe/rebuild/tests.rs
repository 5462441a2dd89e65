use crate::error::ErrorKind;
use crate::net::Priority;
use crate::stripe::testing::{Cluster, MIXED, segments, whole};
use crate::types::{DiskId, NodeId, ShardIndex};

const TO: (NodeId, DiskId) = (NodeId(0), DiskId(6));

#[tokio::test]
async fn a_rebuilt_shard_is_the_lost_one() {
    for class in ["4+2", "4+2,zstd", "6+1", "replica:3"] {
        for index in (0..3).map(ShardIndex) {
            let cluster = Cluster::new(8);
            let segments = segments(&MIXED);
            let mut written = cluster.write(class, &segments).await;
            let at = usize::from(index.0);
            cluster.members.down.lock().unwrap().insert(written.record.disks[at].0);
            let to = (NodeId(0), DiskId(7));
            let rebuilt =
                cluster.reader.rebuild_shard(&written.record, index, to, Priority::Background);
            assert_eq!(rebuilt.await.unwrap(), written.record.shard_roots[at]);
            written.record.disks[at] = to.1;
            cluster.reader.verify_shard(&written.record, index).await.unwrap();
            cluster.check(&written, &segments).await;
        }
    }
}

#[tokio::test]
async fn sources_that_fail_or_lie_are_left_out() {
    for index in [0, 5].map(ShardIndex) {
        let mut cluster = Cluster::new(7);
        let segments = segments(&MIXED);
        let written = cluster.write("4+2", &segments).await;
        cluster.lie(&written, 2).await;
        let rebuilt =
            cluster.reader.rebuild_shard(&written.record, index, TO, Priority::Background).await;
        assert_eq!(rebuilt.unwrap(), written.record.shard_roots[usize::from(index.0)]);
        assert_eq!(cluster.found().into_iter().collect::<Vec<_>>(), [2]);
        let (disk, name) = cluster.file(&written, 3);
        cluster.machine.flip(disk, &name, 9000);
        cluster.reopen();
        // Now too few are left.
        let error =
            cluster.reader.rebuild_shard(&written.record, index, TO, Priority::Background).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Corrupt);
        let names = cluster.machine.file_names(6);
        assert!(!names.iter().any(|name| name.starts_with("shards/")), "{names:?}");
    }
}

#[tokio::test]
async fn a_shard_that_was_missing_can_be_made() {
    let cluster = Cluster::new(7);
    let segments = segments(&MIXED);
    let mut target = cluster.target("4+2");
    target.disks.truncate(5);
    let mut written = cluster.writer.write(target, segments.clone()).await.unwrap();
    let index = ShardIndex(5);
    let root = cluster.reader.rebuild_shard(&written.record, index, TO, Priority::Background);
    written.record.shard_roots[5] = root.await.unwrap();
    written.record.disks[5] = TO.1;
    written.record.missing = 0;
    cluster.reader.verify_shard(&written.record, index).await.unwrap();
    cluster.members.down.lock().unwrap().extend([0, 1]);
    cluster.check(&written, &segments).await;
}

#[tokio::test]
async fn several_shards_are_made_at_once() {
    let cluster = Cluster::new(8);
    let segments = segments(&MIXED);
    let mut target = cluster.target("4+2");
    target.disks.truncate(6);
    let written = cluster.writer.write(target, segments.clone()).await.unwrap();
    *cluster.members.down.lock().unwrap() = [1, 4].into();
    let to = |disk| (NodeId(0), DiskId(disk));
    let lost = [(ShardIndex(1), to(6)), (ShardIndex(4), to(7))];
    let priority = Priority::Background;
    let roots = cluster.reader.rebuild_shards(&written.record, &lost, priority).await.unwrap();
    let mut record = written.record.clone();
    assert_eq!(roots, [record.shard_roots[1], record.shard_roots[4]]);
    (record.disks[1], record.disks[4]) = (DiskId(6), DiskId(7));
    for (index, _to) in lost {
        cluster.reader.verify_shard(&record, index).await.unwrap();
    }
    // Now these two are needed.
    *cluster.members.down.lock().unwrap() = [0, 2].into();
    let read = cluster.reader.read(&record, &whole(&written)).await.unwrap();
    assert!(read.iter().zip(&segments).all(|(read, new)| *read == new.data));
    // A source that lies is found, and nothing is left.
    *cluster.members.down.lock().unwrap() = [1, 4].into();
    cluster.lie(&written, 0).await;
    let error = cluster.reader.rebuild_shards(&written.record, &lost, priority).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    for disk in [6, 7] {
        let names = cluster.machine.file_names(disk);
        assert!(!names.iter().any(|name| name.starts_with("shards/")), "{names:?}");
    }
}
