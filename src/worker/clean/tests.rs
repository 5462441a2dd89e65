use super::*;
use crate::meta::command::segment_address;
use crate::meta::command::{FileUpdate, SetAttributes};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::types::Timestamp;
use crate::worker::testing::{Plenty, Rig, noise, settle};

const SEGMENT: usize = 64 * 1024;

fn clean(rig: &Rig) -> Clean {
    clean_in(rig, Arc::new(Plenty))
}

fn clean_in(rig: &Rig, room: Arc<dyn Room>) -> Clean {
    Clean::new(rig.meta.clone(), rig.mover(), room, CleanLimits::default())
}

/// Bytes that were moved because much was dead, and because stripes were short.
fn moved(clean: &Clean) -> (usize, usize) {
    let bytes = |why| usize::try_from(clean.mover.moves.bytes(why)).unwrap();
    (bytes(Move::Clean), bytes(Move::Merge))
}

/// Has room once it is told to, and remembers what it was asked for and told.
#[derive(Debug, Default)]
struct Scarce {
    room: AtomicBool,
    /// There is room only for what makes room.
    gains_only: AtomicBool,
    awaited: AtomicBool,
    asked: Mutex<Vec<(ClassId, u64, bool)>>,
    looks: Mutex<Vec<(Totals, BTreeMap<ClassId, u64>)>>,
}

impl Room for Scarce {
    fn may_move(&self, class: ClassId, payload_bytes: u64, gains: bool) -> bool {
        self.asked.lock().unwrap().push((class, payload_bytes, gains));
        self.room.load(Ordering::SeqCst) && (gains || !self.gains_only.load(Ordering::SeqCst))
    }

    fn is_scarce(&self, _class: ClassId, dead_bytes: u64) -> bool {
        dead_bytes > 0 && self.is_awaited()
    }

    fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::SeqCst)
    }

    fn note_look(&self, of: Totals, gains: BTreeMap<ClassId, u64>) {
        self.looks.lock().unwrap().push((of, gains));
    }
}

/// An eighth of a stripe is dead: that is worth nothing while there is room, and is given back to a writer who waits for it.
#[tokio::test(start_paused = true)]
async fn who_waits_for_room_gets_what_little_there_is() {
    let rig = Rig::new("2+1", 3);
    let ino = rig.create().await;
    let old = rig.write(ino, 0, &noise(1, 8 * SEGMENT)).await;
    punch(&rig, ino, 1, 1).await;
    let expected = rig.read(ino).await;
    let room = Arc::new(Scarce::default());
    room.room.store(true, Ordering::SeqCst);
    let clean = clean_in(&rig, room.clone());
    settle(&clean).await;
    assert_eq!(rig.dead(), []);
    // The next look is long away, and the worker asks whether it is wanted sooner.
    assert!(matches!(clean.step().await.unwrap(), Step::Throttled(pause) if pause <= ROOM_PAUSE));
    room.awaited.store(true, Ordering::SeqCst);
    tokio::time::sleep(ROOM_PAUSE).await;
    settle(&clean).await;
    assert_eq!(rig.dead(), [old]);
    assert_eq!(rig.read(ino).await, expected);
    tokio::time::sleep(ROOM_PAUSE).await;
    settle(&clean).await;
    let looks = room.looks.lock().unwrap().clone();
    let gains: Vec<u64> = looks.iter().map(|(_of, gains)| gains.values().sum()).collect();
    assert!(matches!(gains[..], [0, gain, 0] if gain >= SEGMENT as u64), "{gains:?}");
    assert_eq!(looks[0].0, looks[1].0);
    assert!(looks[2].0.dead_bytes > 0, "{:?}", looks[2].0);
}

#[tokio::test(start_paused = true)]
async fn a_merge_without_room_holds_nothing_up() {
    let rig = Rig::new("2+1", 3);
    let ino = rig.create().await;
    for number in 0..4 {
        rig.write(ino, number, &noise(number, SEGMENT)).await;
    }
    let room = Arc::new(Scarce::default());
    room.room.store(true, Ordering::SeqCst);
    room.gains_only.store(true, Ordering::SeqCst);
    let clean = clean_in(&rig, room.clone());
    settle(&clean).await;
    let asked = room.asked.lock().unwrap().clone();
    assert!(matches!(asked[..], [(_, _, false)]), "four short stripes would be one: {asked:?}");
    let old = rig.write(ino, 8, &noise(9, 8 * SEGMENT)).await;
    punch(&rig, ino, 9, 5).await;
    tokio::time::sleep(SCAN_PAUSE).await;
    settle(&clean).await;
    assert_eq!(rig.dead(), [old]);
}

/// A disk turns out to be full, and there is no other for its shard. Only what makes room may do without.
#[tokio::test(start_paused = true)]
async fn a_merge_costs_no_shard() {
    let rig = Rig::new("4+2", 6);
    let ino = rig.create().await;
    for number in 0..4 {
        rig.write(ino, number, &noise(number, SEGMENT)).await;
    }
    let before = rig.stripes();
    rig.machine.full(2, rig.machine.used_bytes(2));
    let clean = clean(&rig);
    settle(&clean).await;
    assert_eq!(rig.stripes(), before);
    assert_eq!(moved(&clean), (0, 0));
    rig.machine.full(2, u64::MAX);
    let sparse = rig.write(ino, 8, &noise(9, 8 * SEGMENT)).await;
    punch(&rig, ino, 9, 5).await;
    rig.machine.full(2, rig.machine.used_bytes(2));
    tokio::time::sleep(SCAN_PAUSE).await;
    settle(&clean).await;
    assert_eq!(rig.dead(), [sparse]);
    assert!(rig.stripes().iter().any(|stripe| stripe.missing == 1 << 2));
}

#[tokio::test]
async fn nothing_moves_without_room_for_it() {
    let rig = Rig::new("2+1", 3);
    let ino = rig.create().await;
    let old = rig.write(ino, 0, &noise(1, 8 * SEGMENT)).await;
    punch(&rig, ino, 1, 5).await;
    let room = Arc::new(Scarce::default());
    let clean = clean_in(&rig, room.clone());
    // It has looked, and is refused again and again.
    for _again in 0..3 {
        while clean.step().await.unwrap() == Step::Busy {}
        assert_eq!(rig.dead(), []);
    }
    let asked = room.asked.lock().unwrap().clone();
    assert!(asked.len() >= 3 && asked.iter().all(|one| *one == asked[0]), "{asked:?}");
    let (_class, bytes, gains) = asked[0];
    assert!(gains && (3 * SEGMENT as u64..4 * SEGMENT as u64).contains(&bytes), "{bytes}");
    room.room.store(true, Ordering::SeqCst);
    settle(&clean).await;
    assert_eq!(rig.dead(), [old]);
}

async fn punch(rig: &Rig, ino: Ino, first: u64, count: u64) {
    let set = SetAttributes::default();
    rig.meta.propose(Command::Punch { ino, first, count, set }).await.unwrap();
}

#[tokio::test]
async fn live_segments_leave_a_stripe_that_is_mostly_dead() {
    let rig = Rig::new("2+1", 3);
    let ino = rig.create().await;
    let old = rig.write(ino, 0, &noise(1, 8 * SEGMENT + 1000)).await;
    punch(&rig, ino, 1, 5).await;
    let expected = rig.read(ino).await;
    let clean = clean(&rig);
    assert!(matches!(settle(&clean).await, Step::Throttled(_)));
    assert_eq!(rig.read(ino).await, expected);
    assert_eq!(rig.dead(), [old]);
    let stripes = rig.stripes();
    assert_eq!(stripes.len(), 1);
    assert_eq!(stripes[0].slots, 4);
    assert!(stripes[0].payload_bytes < 4 * 65_600);
    assert_eq!(moved(&clean), (3 * SEGMENT + 1000, 0));
}

#[tokio::test]
async fn a_stripe_that_is_mostly_live_stays() {
    let rig = Rig::new("2+1", 3);
    let ino = rig.create().await;
    let stripe = rig.write(ino, 0, &noise(1, 8 * SEGMENT)).await;
    punch(&rig, ino, 1, 1).await;
    settle(&clean(&rig)).await;
    assert_eq!(rig.stripe_of(ino, 0), Some(stripe));
}

#[tokio::test]
async fn short_stripes_are_merged_once() {
    let rig = Rig::new("2+1,zstd", 3);
    let mut files = Vec::new();
    for seed in 0..5 {
        let ino = rig.create().await;
        // Half of it compresses.
        let data = [noise(seed, SEGMENT / 2), vec![7; SEGMENT + 5]].concat();
        rig.write(ino, 0, &data).await;
        files.push((ino, data));
    }
    let clean = clean(&rig);
    assert!(matches!(settle(&clean).await, Step::Throttled(_)));
    assert_eq!(rig.stripes().len(), 1);
    for (ino, data) in &files {
        assert_eq!(rig.read(*ino).await, *data);
    }
    let merged = rig.stripes()[0].id;
    clean.state().scanned = None;
    settle(&clean).await;
    assert_eq!(rig.stripes()[0].id, merged);
    assert_eq!(moved(&clean), (0, 5 * (3 * SEGMENT / 2 + 5)));
}

#[tokio::test]
async fn a_cut_segment_keeps_its_end() {
    let rig = Rig::new("2+1", 3);
    let ino = rig.create().await;
    let data = noise(1, 4 * SEGMENT);
    rig.write(ino, 0, &data).await;
    let set = SetAttributes::default();
    let size = SEGMENT as u64 + 10;
    rig.meta.propose(Command::Truncate { ino, size, set }).await.unwrap();
    let set = SetAttributes::default();
    rig.meta.propose(Command::Truncate { ino, size: size + 50, set }).await.unwrap();
    settle(&clean(&rig)).await;
    let expected = [&data[..SEGMENT + 10], &[0; 50]].concat();
    assert_eq!(rig.read(ino).await, expected);
    assert_eq!(rig.stripes()[0].slots, 2);
}

#[tokio::test]
async fn all_owners_of_a_shared_slot_move_together() {
    let rig = Rig::new("2+1", 3);
    let (from, to) = (rig.create().await, rig.create().await);
    let data = noise(1, 8 * SEGMENT);
    rig.write(from, 0, &data).await;
    let file = FileUpdate {
        ino: to,
        size: 2 * SEGMENT as u64,
        mtime: Some(Timestamp::default()),
        ctime: None,
    };
    let command = Command::CloneExtents { from, from_first: 0, to, to_first: 0, count: 2, file };
    rig.meta.propose(command).await.unwrap();
    punch(&rig, from, 1, 7).await;
    settle(&clean(&rig)).await;
    assert_eq!(rig.stripes().len(), 1);
    assert_eq!(rig.stripes()[0].slots, 2);
    assert_eq!(rig.read(to).await, data[..2 * SEGMENT]);
    assert_eq!(rig.read(from).await[..SEGMENT], data[..SEGMENT]);
    assert_eq!(rig.stripe_of(from, 0), rig.stripe_of(to, 0));
}

#[test]
fn commands_are_bounded_by_their_moves() {
    let address = segment_address(Ino(5), 0).unwrap();
    let record = Arc::new(StripeRecord {
        id: StripeId(1),
        class_id: ClassId(0),
        class: "2+1".parse().unwrap(),
        epoch: crate::types::Epoch(1),
        payload_bytes: 128,
        slots: 1,
        disks: Vec::new(),
        missing: 0,
        shard_roots: Vec::new(),
    });
    let slot = |owners: usize| LiveSlot {
        record: Arc::clone(&record),
        slot: SlotIndex(0),
        frame: FrameRef {
            payload_offset: 0,
            body_bytes: 1,
            raw_bytes: 1,
            compressed: false,
            header_sum: 0,
        },
        owners: vec![(address, 1); owners],
    };
    let slots = [slot(1), slot(MOVES_MAX - 1), slot(1), slot(MOVES_MAX), slot(2), slot(2)];
    let lengths: Vec<usize> = split_moves(&slots).iter().map(|part| part.len()).collect();
    assert_eq!(lengths, [2, 1, 1, 2]);
}
