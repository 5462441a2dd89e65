use super::*;
use crate::worker::testing::{Rig, noise, settle};

#[tokio::test(start_paused = true)]
async fn what_is_not_on_its_disk_is_noted_and_repaired() {
    let rig = Rig::new("2+1", 4);
    let repair = Arc::new(rig.repair());
    let inventory = Inventory::new(rig.meta.clone(), rig.shards.clone(), repair.clone());
    let ino = rig.create().await;
    for first in 0..20 {
        rig.write(ino, first, &noise(first, 40_000)).await;
    }
    inventory.request(DiskId(1));
    assert_eq!(settle(&inventory).await, Step::Idle);
    assert_eq!(rig.meta.view().unwrap().repair_count().unwrap(), 0, "all is there");

    let stripes = rig.stripes();
    for record in stripes.iter().step_by(3) {
        let key = ShardKey { stripe: record.id, index: ShardIndex(1) };
        rig.call(record.disks[1], Operation::Delete(key)).await.unwrap();
    }
    inventory.request(DiskId(0));
    assert_eq!(settle(&inventory).await, Step::Idle);
    assert_eq!(repair.waiting(), 0, "that disk has all of its own");
    inventory.request(DiskId(1));
    assert_eq!(settle(&inventory).await, Step::Idle);
    let noted = rig.meta.view().unwrap().repairs(None, 99).unwrap();
    let expected: Vec<_> = stripes.iter().step_by(3).map(|record| (record.id, 0b10)).collect();
    assert_eq!(noted.iter().map(|(id, entry)| (*id, entry.bad)).collect::<Vec<_>>(), expected);
    assert_eq!(settle(&*repair).await, Step::Idle);
    assert_eq!(rig.meta.view().unwrap().repair_count().unwrap(), 0);
    assert_eq!(rig.shard_count().await, 60);
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_goes_meanwhile_holds_nothing_up() {
    let rig = Rig::new("2+1", 3);
    let repair = Arc::new(rig.repair());
    let inventory = Inventory::new(rig.meta.clone(), rig.shards.clone(), repair.clone());
    let ino = rig.create().await;
    rig.write(ino, 0, &noise(1, 40_000)).await;
    rig.fail_disk(0);
    inventory.request(DiskId(0));
    inventory.request(DiskId(2));
    assert_eq!(settle(&inventory).await, Step::Idle);
    assert_eq!(rig.meta.view().unwrap().repair_count().unwrap(), 0, "away is not absent");
}
