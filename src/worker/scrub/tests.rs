use super::*;
use crate::net::{Operation, ShardKey};
use crate::sync::atomic::Ordering;
use crate::types::Incarnation;
use crate::worker::testing::{Rig, noise, settle};
use crate::worker::throttle::Caps;

const DAY: i64 = 24 * 3600;

fn scrub(rig: &Rig, repair: &Arc<Repair>, days: i64, bytes_per_second: u64) -> Scrub {
    let (meta, shards) = (rig.meta.clone(), rig.shards.clone());
    let inventory = Inventory::new(meta.clone(), shards.clone(), repair.clone());
    let orphans = rig.orphans(Incarnation(2), true);
    let period = u64::try_from(days * DAY).ok().filter(|seconds| *seconds > 0);
    let period = period.map(Duration::from_secs);
    Scrub::new(ScrubParts {
        meta,
        reader: rig.reader.clone(),
        shards,
        repair: repair.clone(),
        orphans: Arc::new(orphans),
        inventory: Arc::new(inventory),
        now: rig.now(),
        limits: ScrubLimits { period, bytes_per_second },
        throttle: Arc::new(Throttle::new(Caps::default(), Arc::default())),
    })
}

/// Steps until it is idle, with the time that it wants.
async fn pass(scrub: &Scrub) {
    for _step in 0..10_000 {
        match scrub.step().await.unwrap() {
            Step::Busy => {}
            Step::Idle => return,
            Step::Throttled(pause) => tokio::time::sleep(pause).await,
        }
    }
    panic!("it does not end");
}

#[tokio::test(start_paused = true)]
async fn rot_of_every_kind_is_found_and_repaired() {
    let rig = Rig::new("2+1", 4);
    let repair = Arc::new(rig.repair());
    let ino = rig.create().await;
    for first in 0..8 {
        rig.write(ino, first, &noise(first, 60_000)).await;
    }
    let name = |stripe: &StripeRecord, index: usize| {
        let disk = stripe.disks[index].0 as usize;
        let file = format!("{}.{index}", stripe.id);
        let names = rig.machine.file_names(disk);
        (disk, names.into_iter().find(|name| name.ends_with(&file)).unwrap())
    };
    let stripes = rig.stripes();
    // A bit of data, a bit of parity, a footer, and a shard that is not there.
    for (stripe, index, offset) in [(0, 0, 9000), (2, 2, 8200), (4, 1, 8192 + 30_100)] {
        let (disk, name) = name(&stripes[stripe], index);
        assert!(rig.machine.flip(disk, &name, offset));
    }
    let gone = ShardKey { stripe: stripes[6].id, index: ShardIndex(1) };
    rig.call(stripes[6].disks[1], Operation::Delete(gone)).await.unwrap();

    let scrub = scrub(&rig, &repair, 14, 1 << 30);
    pass(&scrub).await;
    let state = scrub.state().unwrap();
    assert_eq!((state.passes, state.stripes, state.damaged), (1, 8, 4), "{state:?}");
    assert!(!state.running && state.finished.is_some());
    let noted = rig.meta.view().unwrap().repairs(None, 99).unwrap();
    let noted: Vec<_> = noted.into_iter().map(|(id, entry)| (id, entry.bad)).collect();
    let expected = [(0, 0b001), (2, 0b100), (4, 0b010), (6, 0b010)];
    assert_eq!(noted, expected.map(|(stripe, bad)| (stripes[stripe].id, bad)));
    assert_eq!(settle(&*repair).await, Step::Idle);
    assert_eq!(rig.meta.view().unwrap().repair_count().unwrap(), 0);

    // Again, by request: nothing is left to find.
    scrub.start().await.unwrap();
    pass(&scrub).await;
    let state = scrub.state().unwrap();
    assert_eq!((state.passes, state.stripes, state.damaged), (2, 8, 0), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn it_is_due_once_in_a_period() {
    let rig = Rig::new("2+1", 3);
    let repair = Arc::new(rig.repair());
    let ino = rig.create().await;
    rig.write(ino, 0, &noise(1, 60_000)).await;
    let never = scrub(&rig, &repair, 0, 1 << 30);
    pass(&never).await;
    assert_eq!(never.state().unwrap().passes, 0);

    let often = scrub(&rig, &repair, 2, 1 << 30);
    for passes in [1, 1, 2] {
        pass(&often).await;
        assert_eq!(often.state().unwrap().passes, passes);
        rig.seconds.fetch_add(DAY + 1, Ordering::Relaxed);
    }
    often.set_paused(true).await.unwrap();
    rig.seconds.fetch_add(9 * DAY, Ordering::Relaxed);
    pass(&often).await;
    assert_eq!(often.state().unwrap().passes, 2, "it is held");
    often.start().await.unwrap();
    pass(&often).await;
    assert_eq!(often.state().unwrap().passes, 3);
}

#[tokio::test(start_paused = true)]
async fn a_pass_keeps_its_pace_and_the_next_mount_goes_on_with_it() {
    let rig = Rig::new("2+1", 3);
    let repair = Arc::new(rig.repair());
    let ino = rig.create().await;
    for first in 0..200 {
        rig.write(ino, first, &noise(first, 60_000)).await;
    }
    let all = rig.meta.view().unwrap().totals().unwrap().stripe_bytes;
    // Two days for a few MiB: the slowest pace there is.
    let first = scrub(&rig, &repair, 2, 1 << 30);
    let start = Instant::now();
    while first.state().unwrap().stripes < 100 {
        if let Step::Throttled(pause) = first.step().await.unwrap() {
            tokio::time::sleep(pause).await;
        }
    }
    let (half, expected) = (start.elapsed().as_secs(), all / 2 / PACE_MIN);
    assert!((expected - 1..=expected + 2).contains(&half), "{half} s, expected {expected}");
    drop(first);
    let second = scrub(&rig, &repair, 2, 1 << 30);
    let state = second.state().unwrap();
    assert_eq!((state.running, state.stripes), (true, SAVE_STRIPES));
    second.start().await.unwrap();
    let start = Instant::now();
    pass(&second).await;
    assert!(start.elapsed() < Duration::from_secs(3), "it hurries");
    let state = second.state().unwrap();
    assert_eq!((state.passes, state.stripes, state.damaged), (1, 200, 0));
    let all: u64 = rig.stripes().iter().map(|s| 3 * s.geometry().shard_bytes()).sum();
    assert_eq!(state.bytes, all);
}

#[tokio::test(start_paused = true)]
async fn disks_that_are_away_are_passed_over() {
    let rig = Rig::new("2+1", 3);
    let repair = Arc::new(rig.repair());
    let ino = rig.create().await;
    rig.write(ino, 0, &noise(1, 60_000)).await;
    rig.fail_disk(1);
    let scrub = scrub(&rig, &repair, 2, 1 << 30);
    pass(&scrub).await;
    let state = scrub.state().unwrap();
    assert_eq!((state.passes, state.damaged), (1, 0));
    assert_eq!(rig.meta.view().unwrap().repair_count().unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn it_keeps_to_the_caps_of_all_background_work() {
    let rig = Rig::new("2+1", 4);
    let repair = Arc::new(rig.repair());
    let ino = rig.create().await;
    for first in 0..20 {
        rig.write(ino, first, &noise(first, 60_000)).await;
    }
    let mut scrub = scrub(&rig, &repair, 14, 1 << 40);
    scrub.start().await.unwrap();
    let caps = Caps { all: Some(64 << 10), disk: None };
    scrub.parts.throttle = Arc::new(Throttle::new(caps, Arc::default()));
    let start = Instant::now();
    pass(&scrub).await;
    let state = scrub.state().unwrap();
    assert_eq!((state.passes, state.stripes), (1, rig.stripes().len() as u64));
    let least = Duration::from_millis(state.bytes * 1000 / (64 << 10)) * 9 / 10;
    assert!(start.elapsed() >= least, "{} bytes in {:?}", state.bytes, start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pass_ends_although_more_is_written_all_the_time() {
    let rig = Rig::new("2+1", 4);
    let repair = Arc::new(rig.repair());
    let ino = rig.create().await;
    for first in 0..5 {
        rig.write(ino, first, &noise(first, 60_000)).await;
    }
    let before = rig.stripes().len() as u64;
    let scrub = scrub(&rig, &repair, 14, 1 << 40);
    scrub.start().await.unwrap();
    for more in 5..25 {
        let _step = scrub.step().await.unwrap();
        rig.write(ino, more, &noise(more, 60_000)).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let state = scrub.state().unwrap();
    assert_eq!((state.passes, state.stripes), (1, before));
}
