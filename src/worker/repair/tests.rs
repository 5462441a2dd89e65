use super::*;
use crate::worker::testing::{Rig, noise, settle};

fn repair(rig: &Rig) -> Repair {
    Repair::new(rig.meta.clone(), rig.reader.clone(), rig.shards.clone(), rig.placer.clone())
}

/// Everything is where the metadata says, byte for byte.
async fn check_all_good(rig: &Rig) {
    let report = repair(rig).sweep(Depth::Deep).await.unwrap();
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
    let report = repair(&rig).sweep(Depth::Shallow).await.unwrap();
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
        let report = repair(&rig).sweep(Depth::Shallow).await.unwrap();
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
        let report = repair(&rig).sweep(Depth::Shallow).await.unwrap();
        assert_eq!(report.stripes_touched, 0);
        let repair = repair(&rig);
        repair.request(stripe);
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
    let report = repair(&rig).sweep(Depth::Shallow).await.unwrap();
    assert_eq!((report.shards_restored, report.failure_count), (0, 1));
    rig.admit_disk(3);
    let report = repair(&rig).sweep(Depth::Shallow).await.unwrap();
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
    let report = repair(&rig).sweep(Depth::Shallow).await.unwrap();
    assert_eq!((report.stripes_touched, report.shards_restored), (1, 0));
    assert_eq!((report.failures.len(), report.failure_count), (1, 1));
    assert_eq!(rig.stripes(), before);
}
