use super::*;
use crate::disk::local::LocalDisk;
use crate::disk::sim::{Call, Choice, SimMachine, SimRng};
use crate::disk::{Disk, OpenMode};
use redb::{
    Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, StorageBackend,
    TableDefinition,
};

const TABLE: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("t");
const FILE: &str = "state";

/// A machine, and which replicas died.
struct World {
    machine: SimMachine,
    dead: Arc<Mutex<Vec<DiskId>>>,
}

impl World {
    fn new(disks: usize) -> Self {
        Self::on(SimMachine::new(5, disks))
    }

    fn on(machine: SimMachine) -> Self {
        Self { machine, dead: Arc::default() }
    }

    fn on_dead(&self) -> OnDead {
        let dead = self.dead.clone();
        Arc::new(move |disk, _error| dead.lock().unwrap().push(disk))
    }

    fn file(&self, disk: usize) -> Arc<dyn DiskFile> {
        let there = self.machine.contents(disk, FILE).is_some();
        let mode = if there { OpenMode::Write } else { OpenMode::CreateNew };
        let file = self.machine.disk(disk).open(FILE, mode).unwrap();
        self.machine.disk(disk).sync_dir("").unwrap();
        file
    }

    fn create(&self) -> MirrorFile {
        self.create_on(self.machine.disk_count())
    }

    fn create_on(&self, disks: usize) -> MirrorFile {
        let replicas = (0..disks).map(|disk| (id(disk), self.file(disk))).collect();
        MirrorFile::create(replicas, self.on_dead()).unwrap()
    }

    fn open(&self, disk: usize) -> Result<MirrorFile> {
        MirrorFile::open(id(disk), self.file(disk), self.on_dead())
    }

    fn dead(&self) -> Vec<u32> {
        self.dead.lock().unwrap().iter().map(|disk| disk.get()).collect()
    }

    fn bytes(&self, disk: usize) -> Vec<u8> {
        self.machine.contents(disk, FILE).unwrap()
    }
}

fn id(disk: usize) -> DiskId {
    DiskId(u32::try_from(disk).unwrap())
}

fn database(mirror: &MirrorFile) -> Result<Database, redb::DatabaseError> {
    let mut builder = Database::builder();
    builder.set_cache_size(64 * 1024);
    builder.create_with_backend(mirror.clone())
}

fn value(key: u64) -> Vec<u8> {
    let length = usize::try_from(key * 37 % 900).unwrap();
    key.to_le_bytes().iter().copied().cycle().take(length).collect()
}

/// Step `step` writes ten keys and removes five of an earlier step.
fn step(db: &Database, step: u64, durability: Durability) -> Result<(), redb::Error> {
    let mut txn = db.begin_write()?;
    txn.set_durability(durability)?;
    if matches!(durability, Durability::Immediate) {
        txn.set_two_phase_commit(true);
        txn.set_quick_repair(true);
    }
    {
        let mut table = txn.open_table(TABLE)?;
        for key in step * 10..step * 10 + 10 {
            table.insert(key, value(key).as_slice())?;
        }
        for key in (step * 10).saturating_sub(50)..(step * 10).saturating_sub(45) {
            table.remove(key)?;
        }
    }
    txn.commit()?;
    Ok(())
}

fn durability(step: u64) -> Durability {
    if step.is_multiple_of(4) { Durability::Immediate } else { Durability::None }
}

/// Checks the whole table; answers how many steps it holds.
fn steps(db: &Database) -> u64 {
    let txn = db.begin_read().unwrap();
    let Ok(table) = txn.open_table(TABLE) else { return 0 };
    let last = table.last().unwrap().map_or(0, |(key, _value)| key.value() + 1);
    assert!(last.is_multiple_of(10));
    let removed = |key: u64| key % 10 < 5 && key + 50 < last;
    let mut found = table.iter().unwrap();
    for key in (0..last).filter(|key| !removed(*key)) {
        let (found, content) = found.next().unwrap().unwrap();
        assert_eq!((found.value(), content.value()), (key, value(key).as_slice()));
    }
    assert!(found.next().is_none());
    assert!(table.len().unwrap() > 0);
    last / 10
}

fn fill(mirror: &MirrorFile, count: u64) {
    let db = database(mirror).unwrap();
    (0..count).for_each(|number| step(&db, number, durability(number)).unwrap());
    assert_eq!(steps(&db), count);
}

fn logical(mirror: &MirrorFile) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(mirror.len().unwrap()).unwrap()];
    mirror.read(0, &mut bytes).unwrap();
    bytes
}

#[test]
fn pages_and_sums_have_places_of_their_own() {
    let mut free = 1;
    for page in 1..3 * GROUP_PAGES + 7 {
        if (page - 1).is_multiple_of(GROUP_PAGES) {
            assert_eq!(sum_offset((page - 1) / GROUP_PAGES), free * PAGE);
            free += 1;
        }
        assert_eq!(page_offset(page), free * PAGE);
        free += 1;
        assert_eq!(replica_bytes(page + 1), free * PAGE);
        assert_eq!(logical_pages(free * PAGE), page + 1);
        assert_eq!(logical_pages(free * PAGE + PAGE - 1), page + 1);
    }
    assert_eq!((replica_bytes(0), logical_pages(0), replica_bytes(1)), (0, 0, PAGE));
    assert_eq!((run_length(1, 600), run_length(512, 9), run_length(513, 9)), (512, 1, 9));
}

#[test]
fn the_format_never_changes() {
    let world = World::new(1);
    let mirror = world.create();
    mirror.set_len(600 * PAGE).unwrap();
    mirror.write(0, b"header").unwrap();
    mirror.write(PAGE, &[7; PAGE_BYTES]).unwrap();
    mirror.write(513 * PAGE, &[8; PAGE_BYTES]).unwrap();
    mirror.sync_data().unwrap();
    let bytes = world.bytes(0);
    assert_eq!(bytes.len(), 602 * PAGE_BYTES);
    assert!(bytes.starts_with(b"header\0") && bytes[2 * PAGE_BYTES..].starts_with(&[7; 4096]));
    let hash = crate::sum::blake3(&bytes);
    let hex: String = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "4c344fe4cef27868");
}

#[test]
fn every_replica_alone_is_the_whole_state() {
    let world = World::new(3);
    fill(&world.create(), 61);
    assert_eq!(world.bytes(0), world.bytes(1));
    assert_eq!(world.bytes(0), world.bytes(2));
    for disk in 0..3 {
        let mirror = world.open(disk).unwrap();
        assert_eq!(mirror.replicas(), [(id(disk), true)]);
        let mut db = database(&mirror).unwrap();
        assert_eq!(steps(&db), 61);
        assert!(db.check_integrity().unwrap());
    }
    assert!(world.dead().is_empty());
}

#[test]
fn equal_replicas_are_attached_as_they_are() {
    let world = World::new(3);
    fill(&world.create(), 20);
    let mirror = world.open(0).unwrap();
    assert!(mirror.attach(id(1), world.file(1), false).unwrap());
    let db = database(&mirror).unwrap();
    (20..40).for_each(|number| step(&db, number, Durability::Immediate).unwrap());
    drop(db);
    assert_eq!(mirror.replicas(), [(id(0), true), (id(1), true)]);
    let again = world.open(1).unwrap();
    assert!(again.attach(id(0), world.file(0), false).unwrap());
    assert!(!again.attach(id(2), world.file(2), false).unwrap(), "it was left behind");
    for disk in [0, 1] {
        let mut db = database(&world.open(disk).unwrap()).unwrap();
        assert_eq!(steps(&db), 40);
        assert!(db.check_integrity().unwrap());
    }
    assert!(world.dead().is_empty());
}

#[test]
fn reads_of_any_range_are_right_and_odd_writes_refused() {
    let world = World::new(1);
    let mirror = world.create();
    mirror.set_len(1100 * PAGE).unwrap();
    let mut model = vec![0; 1100 * PAGE_BYTES];
    let mut rng = SimRng::new(3);
    for number in 0..200_u8 {
        let page = 1 + usize::try_from(rng.below(1090)).unwrap();
        let count = 1 + usize::try_from(rng.below(9)).unwrap();
        let content = vec![number; count * PAGE_BYTES];
        mirror.write(page as u64 * PAGE, &content).unwrap();
        model[page * PAGE_BYTES..][..content.len()].copy_from_slice(&content);
        let (from, length) = (rng.below(1000 * PAGE), rng.below(90 * PAGE));
        let mut out = vec![1; usize::try_from(length).unwrap()];
        mirror.read(from, &mut out).unwrap();
        assert!(out == model[usize::try_from(from).unwrap()..][..out.len()]);
    }
    mirror.write(100, b"header").unwrap();
    model[100..106].copy_from_slice(b"header");
    assert!(logical(&mirror) == model);
    for (offset, length) in [(PAGE, 5), (PAGE + 1, PAGE_BYTES), (1099 * PAGE, 2 * PAGE_BYTES)] {
        assert!(mirror.write(offset, &vec![1; length]).is_err());
    }
    assert!(mirror.write(500, &[0, 0, 0, 0, 1]).is_err());
    assert!(mirror.read(1099 * PAGE + 1, &mut [0; PAGE_BYTES]).is_err());
    mirror.set_len(600 * PAGE).unwrap();
    mirror.sync_data().unwrap();
    mirror.set_len(1100 * PAGE).unwrap();
    model[600 * PAGE_BYTES..].fill(0);
    assert!(logical(&mirror) == model);
    mirror.sync_data().unwrap();
    assert!(logical(&world.open(0).unwrap()) == model);
}

#[test]
fn a_flip_in_one_of_two_replicas_does_no_harm() {
    let world = World::new(2);
    fill(&world.create(), 25);
    let whole = logical(&world.open(0).unwrap());
    let pages = world.bytes(0).len() as u64 / PAGE;
    let mut rng = SimRng::new(11);
    let mut died = 0;
    for page in 0..pages {
        let mirror = world.open(0).unwrap();
        let second = Replica::new(id(1), world.file(1));
        mirror.shared.write().replicas.push(second);
        let at = page * PAGE + rng.below(PAGE);
        assert!(world.machine.flip(0, FILE, at));
        assert!(logical(&mirror) == whole, "flip at {at}");
        died += world.dead.lock().unwrap().drain(..).count() as u64;
        world.machine.flip(0, FILE, at);
    }
    let sum_pages = (pages - 2) / (GROUP_PAGES + 1) + 1;
    assert_eq!(died, pages - 1 - sum_pages, "all flips of data pages are noticed");
}

#[test]
fn a_flip_in_a_single_replica_is_an_error_and_never_wrong_bytes() {
    let world = World::new(1);
    fill(&world.create(), 25);
    let whole = logical(&world.open(0).unwrap());
    let pages = world.bytes(0).len() as u64 / PAGE;
    let mut rng = SimRng::new(12);
    for page in 0..pages {
        let range = if page == 0 { SECTOR_BYTES as u64 } else { PAGE };
        let at = page * PAGE + rng.below(range);
        world.machine.flip(0, FILE, at);
        if let Ok(mirror) = world.open(0) {
            for (number, expected) in whole.chunks(PAGE_BYTES).enumerate() {
                let mut found = [0; PAGE_BYTES];
                if mirror.read(number as u64 * PAGE, &mut found).is_ok() {
                    assert!(found == expected, "flip at {at}");
                }
            }
            // A sum page may have been hit in a place that no page uses.
            let dead = world.dead();
            assert!(dead == [0] || (page - 1).is_multiple_of(GROUP_PAGES + 1), "flip at {at}");
        } else {
            assert_eq!(page, 0);
        }
        world.dead.lock().unwrap().clear();
        world.machine.flip(0, FILE, at);
    }
}

#[test]
fn swapped_and_cut_pages_are_found() {
    let world = World::new(1);
    fill(&world.create(), 25);
    world.machine.damage(0, FILE, |bytes| {
        let (first, second) = (2 * PAGE_BYTES, 3 * PAGE_BYTES);
        let (front, back) = bytes.split_at_mut(second);
        front[first..].swap_with_slice(&mut back[..PAGE_BYTES]);
        front[PAGE_BYTES..PAGE_BYTES + 16].rotate_left(8);
    });
    let mirror = world.open(0).unwrap();
    assert!(mirror.read(PAGE, &mut [0; PAGE_BYTES]).is_err());
    assert_eq!(mirror.replicas(), [(id(0), false)]);
    for length in [0, 100, PAGE, 2 * PAGE, 9 * PAGE + 5] {
        let world = World::new(1);
        fill(&world.create(), 9);
        world.machine.truncate(0, FILE, length);
        let opened = world.open(0).map_err(|error| error.kind());
        assert!(!matches!(opened, Ok(mirror) if database(&mirror).is_ok()), "cut at {length}");
    }
}

/// redb itself panics over a file that ends before its own header says.
#[test]
fn a_database_that_was_cut_off_is_refused() {
    let world = World::new(1);
    let mirror = world.create();
    let db = database(&mirror).unwrap();
    for number in 0..60 {
        step(&db, number, durability(number)).unwrap();
    }
    drop((db, mirror));
    let whole = world.machine.contents(0, FILE).unwrap().len() as u64;
    assert!(database(&world.open(0).unwrap()).is_ok());
    for cut in [1, PAGE, 10 * PAGE, whole / 2] {
        world.machine.truncate(0, FILE, whole - cut);
        assert_eq!(
            world.open(0).map(drop).map_err(|error| error.kind()),
            Err(ErrorKind::Corrupt),
            "{cut}"
        );
    }
}

#[test]
fn a_replica_that_fails_is_dead_and_the_others_go_on() {
    for call in [Call::Write, Call::SyncData, Call::SetLen] {
        for failing in 0..2 {
            let world = World::new(2);
            let mirror = world.create();
            let db = database(&mirror).unwrap();
            for number in 0..60 {
                if number == 21 {
                    world.machine.fail_next(failing, call, 1);
                }
                step(&db, number, durability(number)).unwrap();
            }
            assert_eq!(steps(&db), 60);
            drop(db);
            if call == Call::SetLen && world.dead().is_empty() {
                continue; // the file did not grow any more
            }
            assert_eq!(world.dead(), [id(failing).get()], "{call:?}");
            let survivor = world.open(1 - failing).unwrap();
            assert_eq!(steps(&database(&survivor).unwrap()), 60);
            assert!(mirror.remove_replica(id(1 - failing)).is_err());
            mirror.remove_replica(id(failing)).unwrap();
            assert_eq!(mirror.replicas(), [(id(1 - failing), true)]);
        }
    }
}

#[test]
fn growth_that_one_replica_has_no_room_for_is_none_and_harms_no_replica() {
    let world = World::new(2);
    let mirror = world.create();
    let db = database(&mirror).unwrap();
    (0..4).for_each(|number| step(&db, number, durability(number)).unwrap());
    step(&db, 4, Durability::Immediate).unwrap();
    world.machine.full(1, world.machine.used_bytes(1));
    let (bytes, unused, alive) = mirror.look().unwrap();
    assert!(unused < bytes && alive.len() == 2 && !mirror.lacks_room());
    let failed = (5..10_000).find(|number| step(&db, *number, Durability::None).is_err());
    assert!(failed.is_some_and(|number| number > 5), "{failed:?}");
    assert!(mirror.lacks_room());
    assert_eq!(mirror.replicas(), [(id(0), false), (id(1), false)]);
    assert_eq!(world.dead(), [id(1).get()], "the other one could have grown");
    mirror.fence();
    drop(db);
    world.machine.full(1, 1 << 40);
    for disk in [0, 1] {
        let again = world.open(disk).unwrap();
        assert!(again.attach(id(1 - disk), world.file(1 - disk), false).unwrap());
        let db = database(&again).unwrap();
        assert_eq!(steps(&db), 5, "what was durable");
        again.fence();
    }
}

#[test]
fn a_fenced_file_changes_no_more() {
    let world = World::new(2);
    let mirror = world.create();
    let db = database(&mirror).unwrap();
    (0..10).for_each(|number| step(&db, number, durability(number)).unwrap());
    mirror.fence();
    let before = (world.bytes(0), world.bytes(1));
    assert!(step(&db, 10, Durability::Immediate).is_err());
    drop(db);
    assert!(before == (world.bytes(0), world.bytes(1)));
    assert!(mirror.len().is_err() && mirror.set_len(0).is_err() && mirror.sync_data().is_err());
    assert!(world.dead().is_empty());
    assert_eq!(steps(&database(&world.open(1).unwrap()).unwrap()), 9);
}

#[test]
fn a_replica_joins_under_load() {
    let world = World::new(2);
    fill(&world.create_on(1), 30);
    let mirror = world.open(0).unwrap();
    let db = database(&mirror).unwrap();
    mirror.add_replica(id(1), world.file(1)).unwrap();
    assert!(mirror.add_replica(id(2), world.file(1)).is_err());
    assert!(mirror.finish().is_err());
    mirror.add_replica(id(1), world.file(1)).unwrap_err();
    let mut number = 30;
    while !mirror.copy_step(17).unwrap() {
        step(&db, number, durability(number)).unwrap();
        number += 1;
    }
    step(&db, number, Durability::Immediate).unwrap();
    assert_eq!(world.open(1).unwrap_err().kind(), ErrorKind::Corrupt);
    mirror.finish().unwrap();
    assert_eq!(mirror.replicas(), [(id(0), true), (id(1), true)]);
    step(&db, number + 1, Durability::None).unwrap();
    step(&db, number + 2, Durability::Immediate).unwrap();
    drop(db);
    assert!(world.bytes(0) == world.bytes(1));
    assert_eq!(steps(&database(&world.open(1).unwrap()).unwrap()), number + 3);
    assert!(world.dead().is_empty());
}

#[test]
fn a_replica_that_fails_to_join_does_no_harm() {
    let world = World::new(2);
    fill(&world.create(), 30);
    for (call, skip) in [(Call::Write, 0), (Call::SyncData, 0), (Call::Write, 1)] {
        let mirror = world.open(0).unwrap();
        let db = database(&mirror).unwrap();
        let before = steps(&db);
        mirror.add_replica(id(1), world.file(1)).unwrap();
        if skip == 1 {
            world.machine.fail_next(1, call, 1);
            step(&db, before, Durability::Immediate).unwrap();
            assert!(mirror.copy_step(10).is_err());
        } else {
            while !mirror.copy_step(1000).unwrap() {}
            world.machine.fail_next(1, call, 1);
            assert!(mirror.finish().is_err());
            step(&db, before, Durability::Immediate).unwrap();
        }
        assert_eq!(world.dead(), [1]);
        world.dead.lock().unwrap().clear();
        assert_eq!(mirror.replicas(), [(id(0), true)]);
        assert!(world.open(1).is_err());
        world.machine.heal(1);
    }
}

#[test]
fn what_was_synced_survives_a_power_cut() {
    let world = World::new(2);
    let mirror = world.create();
    let db = database(&mirror).unwrap();
    step(&db, 0, Durability::Immediate).unwrap();
    world.machine.settle();
    let mut acknowledged = vec![(0, 1)];
    for number in 1..14 {
        step(&db, number, durability(number)).unwrap();
        if matches!(durability(number), Durability::Immediate) {
            acknowledged.push((world.machine.journal_len(), number + 1));
        }
    }
    mirror.fence();
    let mut states = 0;
    for point in world.machine.sync_points() {
        for at in [point.saturating_sub(1), point] {
            let promised = acknowledged.iter().filter(|(end, _steps)| *end <= at);
            let promised = promised.map(|(_end, steps)| *steps).max().unwrap();
            for state in world.machine.crash_states(at, 6, at as u64) {
                states += 1;
                let after = World::on(SimMachine::from_image(state.image));
                for disk in 0..2 {
                    let mut db = database(&after.open(disk).unwrap()).unwrap();
                    assert!((promised..=promised + 4).contains(&steps(&db)), "cut at {at}");
                    assert!(db.check_integrity().unwrap(), "cut at {at}");
                }
                assert!(after.dead().is_empty());
            }
        }
    }
    assert!(states > 50, "{states}");
}

#[test]
fn pages_are_durable_before_headers_and_headers_one_by_one() {
    let world = World::new(3);
    let mirror = world.create();
    mirror.set_len(20 * PAGE).unwrap();
    mirror.write(0, b"header 0").unwrap();
    mirror.sync_data().unwrap();
    world.machine.settle();
    for number in 1..4_u8 {
        mirror.write(u64::from(number) * PAGE, &[number; PAGE_BYTES]).unwrap();
        mirror.write(0, format!("header {number}").as_bytes()).unwrap();
        mirror.sync_data().unwrap();
    }
    mirror.write(9 * PAGE, &[9; PAGE_BYTES]).unwrap();
    mirror.sync_data().unwrap();
    let header = |mirror: &MirrorFile| {
        let mut header = [0; 8];
        mirror.read(0, &mut header).unwrap();
        header[7] - b'0'
    };
    for at in 0..=world.machine.journal_len() {
        let mut versions = [(u8::MAX, 0); 3];
        for state in world.machine.crash_states(at, 20, 1) {
            let after = World::on(SimMachine::from_image(state.image));
            for (disk, (oldest, newest)) in versions.iter_mut().enumerate() {
                let mirror = after.open(disk).unwrap();
                let version = header(&mirror);
                (*oldest, *newest) = ((*oldest).min(version), (*newest).max(version));
                for number in 1..=version {
                    let mut page = [0; PAGE_BYTES];
                    mirror.read(u64::from(number) * PAGE, &mut page).unwrap();
                    assert_eq!(page, [number; PAGE_BYTES]);
                }
            }
        }
        let in_flight = versions.iter().filter(|(oldest, newest)| oldest != newest).count();
        assert!(in_flight <= 1, "cut at {at}: {versions:?}");
    }
    let lost = world.machine.crash(world.machine.journal_len(), &mut |_disk, _op| Choice::Lost);
    let after = World::on(SimMachine::from_image(lost.image));
    let mut page = [0; PAGE_BYTES];
    after.open(2).unwrap().read(9 * PAGE, &mut page).unwrap();
    assert_eq!(page, [9; PAGE_BYTES]);
}

#[test]
fn readers_a_writer_and_a_joiner_at_once_on_real_files() {
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let file = |disk: usize| {
        let disk = LocalDisk::open(dirs[disk].path()).unwrap();
        disk.open(FILE, OpenMode::CreateNew).unwrap()
    };
    let on_dead: OnDead = Arc::new(|disk, error| panic!("disk {disk} died: {error}"));
    let mirror = MirrorFile::create(vec![(id(0), file(0))], on_dead.clone()).unwrap();
    let db = database(&mirror).unwrap();
    step(&db, 0, Durability::Immediate).unwrap();
    std::thread::scope(|scope| {
        for _reader in 0..2 {
            scope.spawn(|| {
                for _round in 0..60 {
                    assert!(steps(&db) > 0);
                }
            });
        }
        scope.spawn(|| {
            mirror.add_replica(id(1), file(1)).unwrap();
            while !mirror.copy_step(3).unwrap() {
                std::thread::yield_now();
            }
            mirror.finish().unwrap();
        });
        (1..80).for_each(|number| step(&db, number, durability(number)).unwrap());
    });
    step(&db, 80, Durability::Immediate).unwrap();
    drop(db);
    let [first, second] = dirs.map(|dir| std::fs::read(dir.path().join(FILE)).unwrap());
    assert!(first == second);
}
