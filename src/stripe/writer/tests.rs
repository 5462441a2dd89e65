use crate::disk::sim::Call;
use crate::error::{ErrorKind, Posix};
use crate::stripe::layout::NO_DISK;
use crate::stripe::testing::{Cluster, MIXED, segments};
use crate::stripe::writer::Target;
use crate::types::{DiskId, Epoch};
use std::time::Duration;

#[tokio::test]
async fn what_is_written_reads_back() {
    for (class, n) in [("4+2", 6), ("2+1", 3), ("replica:2", 2), ("replica:3", 3), ("6+3", 9)] {
        for options in ["", ",zstd", ",cell:16448"] {
            for lengths in [&MIXED[..], &[1], &[65536], &[64, 8192]] {
                let mut cluster = Cluster::new(n);
                let segments = segments(lengths);
                let written = cluster.write(&format!("{class}{options}"), &segments).await;
                assert_eq!(written.record.missing, 0);
                assert_eq!(written.record.slots as usize, lengths.len());
                cluster.check(&written, &segments).await;
                let table = cluster.reader.slots(&written.record).await.unwrap();
                let named = table.slots.iter().zip(&segments).zip(&written.frames);
                for ((slot, segment), frame) in named {
                    assert_eq!((slot.owner, slot.frame), (segment.address, *frame));
                }
                for index in written.record.shards() {
                    cluster.reader.verify_shard(&written.record, index).await.unwrap();
                }
                assert!(cluster.found().is_empty());
            }
        }
    }
}

#[tokio::test]
async fn spare_disks_take_the_shards_of_failed_ones() {
    for fault in ["offline", "create", "write", "sync", "full"] {
        let mut cluster = Cluster::new(8);
        match fault {
            "offline" => cluster.machine.set_offline(1, true),
            "create" => cluster.machine.fail_next(1, Call::Create, 9),
            "write" => cluster.machine.fail_next(1, Call::Write, 1),
            "sync" => cluster.machine.fail_next(1, Call::SyncData, 1),
            _ => cluster.machine.full(1, 20_000),
        }
        let segments = segments(&MIXED);
        let written = cluster.write("4+2", &segments).await;
        assert_eq!(written.record.missing, 0, "{fault}");
        assert_eq!(written.record.disks[1], DiskId(6), "{fault}");
        cluster.check(&written, &segments).await;
        assert!(cluster.found().is_empty());
    }
}

#[tokio::test]
async fn a_shard_without_a_disk_is_recorded_missing() {
    let mut cluster = Cluster::new(6);
    cluster.machine.set_offline(0, true);
    let segments = segments(&MIXED);
    let written = cluster.write("4+2", &segments).await;
    assert_eq!((written.record.missing, written.record.disks[0]), (1, DiskId(0)));
    assert_eq!(written.record.shard_roots[0], [0; 32]);
    cluster.check(&written, &segments).await;
    assert!(cluster.found().is_empty(), "known from the record");

    // A volume of five disks cannot give the sixth shard one.
    let cluster = Cluster::new(5);
    let written = cluster.write("4+2", &segments).await;
    assert_eq!((written.record.missing, written.record.disks[5]), (1 << 5, NO_DISK));
    let cluster = Cluster::new(4);
    let written = cluster.write("4+2", &segments).await;
    assert_eq!(written.record.missing, 3 << 4);
    cluster.check(&written, &segments).await;
}

/// What makes room takes what it can get; for everything else a full disk is no excuse.
#[tokio::test]
async fn only_what_makes_room_goes_without_the_shard_of_a_full_disk() {
    let cluster = Cluster::new(6);
    cluster.machine.full(2, 10_000);
    let segments = segments(&MIXED);
    let target = cluster.target("4+2");
    let error = cluster.writer.write(target.clone(), segments.clone()).await.unwrap_err();
    assert!(error.is(Posix::NoSpace), "{error}");
    let names = cluster.machine.file_names(3);
    assert!(!names.iter().any(|name| name.starts_with("shards/")), "{names:?}");
    let target = Target { whole: false, ..target };
    let written = cluster.writer.write(target, segments.clone()).await.unwrap();
    assert_eq!(written.record.missing, 1 << 2);
    cluster.check(&written, &segments).await;
}

#[tokio::test]
async fn too_few_good_shards_leave_nothing_behind() {
    for full in [false, true] {
        let cluster = Cluster::new(6);
        for disk in 0..2 {
            if full {
                cluster.machine.full(disk, 10_000);
            } else {
                cluster.machine.set_offline(disk, true);
            }
        }
        let target = cluster.target("4+2");
        let error = cluster.writer.write(target, segments(&MIXED)).await.unwrap_err();
        if full {
            assert!(error.is(Posix::NoSpace), "{error}");
        } else {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
        for disk in 2..6 {
            let names = cluster.machine.file_names(disk);
            assert!(!names.iter().any(|name| name.starts_with("shards/")), "{names:?}");
        }
    }
}

#[tokio::test]
async fn a_stripe_needs_segments() {
    let cluster = Cluster::new(3);
    let error = cluster.writer.write(cluster.target("2+1"), Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

#[tokio::test(start_paused = true)]
async fn a_silent_disk_is_replaced_and_later_decoded_around() {
    let mut cluster = Cluster::new(7);
    cluster.silence(&[2]);
    let segments = segments(&MIXED);
    let written = cluster.write("4+2", &segments).await;
    assert_eq!((written.record.missing, written.record.disks[2]), (0, DiskId(6)));
    cluster.silence(&[0, 6]);
    cluster.check(&written, &segments).await;
    assert!(cluster.found().is_empty(), "they are silent, not bad");
}

#[tokio::test(start_paused = true)]
async fn a_stripe_is_not_without_the_shard_of_a_disk_that_goes_by_a_newer_list() {
    let mut cluster = Cluster::new(7);
    cluster.silence(&[2]);
    let target = cluster.target("4+2");
    let newer = Epoch(target.epoch.0 + 1);
    let write = cluster.writer.write(target, segments(&MIXED));
    // While disk 2 is waited for the list changes: five shards are durable, which would be enough.
    let change = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cluster.peers.set_epoch(newer);
    };
    let (written, ()) = tokio::join!(write, change);
    assert_eq!(written.unwrap_err().kind(), ErrorKind::Fenced);
}
