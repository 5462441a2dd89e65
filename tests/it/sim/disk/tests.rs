use super::{Call, Choice, CrashState, Op, SimMachine, SimRng};
use ironfs::disk::{Disk, DiskFile, OpenMode};
use ironfs::error::{Error, ErrorKind, Posix};
use std::collections::BTreeSet;
use std::sync::Arc;

fn create(disk: &dyn Disk, name: &str, data: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(name, OpenMode::CreateNew).unwrap();
    file.write(0, data).unwrap();
    file
}

fn read(disk: &dyn Disk, name: &str) -> Result<Vec<u8>, Error> {
    let file = disk.open(name, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).unwrap()];
    file.read(0, &mut bytes)?;
    Ok(bytes)
}

fn write(disk: &dyn Disk, name: &str, offset: u64, data: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(name, OpenMode::Write).unwrap();
    file.write(offset, data).unwrap();
    file
}

/// A machine whose single disk durably holds `a` with 1024 bytes of 1.
fn machine_with_a() -> (SimMachine, Arc<dyn Disk>) {
    let machine = SimMachine::new(1, 1);
    let disk = machine.disk(0);
    create(&*disk, "a", &[1; 1024]).sync_data().unwrap();
    disk.sync_dir("").unwrap();
    (machine, disk)
}

fn content(state: &CrashState, name: &str) -> Option<Vec<u8>> {
    SimMachine::from_image(state.image.clone()).contents(0, name)
}

fn all_lost(machine: &SimMachine) -> CrashState {
    machine.crash(machine.journal_len(), &mut |_disk, _op| Choice::Lost)
}

/// The distinct contents of `name` (of disk 0) over all states after a power cut now.
fn outcomes(machine: &SimMachine, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    machine
        .crash_states(machine.journal_len(), 2000, 7)
        .map(|state| content(&state, name))
        .collect()
}

fn set<const N: usize>(values: [Option<&[u8]>; N]) -> BTreeSet<Option<Vec<u8>>> {
    values.into_iter().map(|value| value.map(<[u8]>::to_vec)).collect()
}

#[test]
fn unsynced_files_may_vanish_and_synced_ones_stay() {
    let machine = SimMachine::new(1, 1);
    let disk = machine.disk(0);
    let file = create(&*disk, "a", b"x");
    assert_eq!(outcomes(&machine, "a"), set([None, Some(b""), Some(b"x")]));
    file.sync_data().unwrap();
    // Content is durable, the name is not.
    assert_eq!(outcomes(&machine, "a"), set([None, Some(b"x")]));
    disk.sync_dir("").unwrap();
    assert_eq!(outcomes(&machine, "a"), set([Some(b"x")]));
}

#[test]
fn a_synced_name_without_synced_content_may_be_empty() {
    let machine = SimMachine::new(1, 1);
    let disk = machine.disk(0);
    let _file = create(&*disk, "a", b"x");
    disk.sync_dir("").unwrap();
    assert_eq!(outcomes(&machine, "a"), set([Some(b""), Some(b"x")]));
}

#[test]
fn a_file_is_lost_with_its_directory() {
    let machine = SimMachine::new(1, 1);
    let disk = machine.disk(0);
    disk.create_dir("d").unwrap();
    create(&*disk, "d/a", b"x").sync_data().unwrap();
    disk.sync_dir("d").unwrap();
    assert_eq!(outcomes(&machine, "d/a"), set([None, Some(b"x")]));
    disk.sync_dir("").unwrap();
    assert_eq!(outcomes(&machine, "d/a"), set([Some(b"x")]));
}

#[test]
fn unsynced_writes_reach_the_medium_in_any_order() {
    let (machine, disk) = machine_with_a();
    let file = write(&*disk, "a", 0, &[2; 512]);
    file.write(512, &[3; 512]).unwrap();
    let half = |first: u8, second: u8| Some([[first; 512], [second; 512]].concat());
    let expected = [half(1, 1), half(2, 1), half(1, 3), half(2, 3)];
    assert_eq!(outcomes(&machine, "a"), expected.into_iter().collect());
    file.sync_data().unwrap();
    assert_eq!(outcomes(&machine, "a"), [half(2, 3)].into_iter().collect());
}

#[test]
fn writes_tear_between_sectors_only() {
    let (machine, disk) = machine_with_a();
    let _file = write(&*disk, "a", 100, &[2; 800]);
    let seen = outcomes(&machine, "a");
    assert!(seen.len() > 2, "{} states", seen.len());
    for bytes in seen.into_iter().flatten() {
        assert!(bytes[100..512].iter().all(|byte| *byte == bytes[100]));
        assert!(bytes[512..900].iter().all(|byte| *byte == bytes[512]));
        assert!(bytes[..100].iter().chain(&bytes[900..]).all(|byte| *byte == 1));
    }
    let torn = machine.crash(machine.journal_len(), &mut |_disk, _op| Choice::Torn(0b10));
    let bytes = content(&torn, "a").unwrap();
    assert_eq!((bytes[511], bytes[512]), (1, 2));
}

#[test]
fn renames_happen_whole_or_not_at_all() {
    let (machine, disk) = machine_with_a();
    create(&*disk, "new", b"2").sync_data().unwrap();
    disk.rename("new", "a").unwrap();
    assert_eq!(outcomes(&machine, "a"), set([Some(&[1; 1024]), Some(b"2")]));
    disk.sync_dir("").unwrap();
    assert_eq!(outcomes(&machine, "a"), set([Some(b"2")]));
    assert_eq!(outcomes(&machine, "new"), set([None]));
}

#[test]
fn a_rename_between_directories_needs_both_synced() {
    let (machine, disk) = machine_with_a();
    disk.create_dir("d").unwrap();
    disk.sync_dir("").unwrap();
    disk.rename("a", "d/a").unwrap();
    disk.sync_dir("d").unwrap();
    assert_eq!(outcomes(&machine, "a"), set([None, Some(&[1; 1024])]));
    disk.sync_dir("").unwrap();
    assert_eq!(outcomes(&machine, "a"), set([None]));
    assert_eq!(outcomes(&machine, "d/a"), set([Some(&[1; 1024])]));
}

#[test]
fn removed_files_may_return_until_the_directory_is_synced() {
    let (machine, disk) = machine_with_a();
    let file = write(&*disk, "a", 0, &[2; 512]);
    disk.remove("a").unwrap();
    let mut buffer = [0; 1];
    file.read(0, &mut buffer).unwrap();
    assert_eq!(buffer, [2]);
    assert_eq!(outcomes(&machine, "a").len(), 3); // gone, old, overwritten
    disk.sync_dir("").unwrap();
    file.write(0, &[3; 512]).unwrap();
    let states = machine.crash_states(machine.journal_len(), 100, 1);
    assert!(states.is_exhaustive());
    assert_eq!(states.count(), 1, "what nobody can see is not in doubt");
    assert_eq!(machine.used_bytes(0), 4096);
    drop(file);
    assert_eq!(machine.used_bytes(0), 0);
}

#[test]
fn lengths_are_content() {
    let (machine, disk) = machine_with_a();
    let file = disk.open("a", OpenMode::Write).unwrap();
    file.set_len(2).unwrap();
    assert_eq!(outcomes(&machine, "a"), set([Some(&[1; 1024]), Some(&[1, 1])]));
    file.sync_data().unwrap();
    file.set_len(4).unwrap();
    file.sync_data().unwrap();
    assert_eq!(outcomes(&machine, "a"), set([Some(&[1, 1, 0, 0])]));
    file.set_len(9000).unwrap();
    file.set_len(5000).unwrap();
    file.write(4999, &[9]).unwrap();
    assert_eq!(read(&*disk, "a").unwrap()[4990..], [0, 0, 0, 0, 0, 0, 0, 0, 0, 9]);
}

#[test]
fn an_earlier_cut_knows_nothing_of_later_syncs() {
    let (machine, disk) = machine_with_a();
    let before = machine.journal_len();
    let file = write(&*disk, "a", 0, &[2; 1024]);
    file.sync_data().unwrap();
    assert_eq!(content(&all_lost(&machine), "a"), Some(vec![2; 1024]));
    let at_sync = machine.crash(before + 1, &mut |_disk, _op| Choice::Lost);
    assert_eq!(content(&at_sync, "a"), Some(vec![1; 1024]));
    let empty = machine.crash(0, &mut |_disk, _op| Choice::Kept);
    assert_eq!(content(&empty, "a"), None);
    assert_eq!(machine.sync_points().last(), Some(&machine.journal_len()));
    let Some((0, Op::Write { file, .. })) = machine.journal_entry(before) else {
        panic!("{:?}", machine.journal_entry(before));
    };
    let synced = machine.journal_entry(before + 1);
    assert!(matches!(synced, Some((0, Op::SyncData { file: f, failed: false })) if f == file));
    let first = machine.journal_entry(3);
    assert!(matches!(first, Some((0, Op::SyncDir { dir, failed: false })) if dir.is_empty()));
}

#[test]
fn a_failed_sync_loses_what_it_covered() {
    let (machine, disk) = machine_with_a();
    let file = write(&*disk, "a", 0, &[2; 512]);
    machine.fail_next(0, Call::SyncData, 1);
    assert_eq!(file.sync_data().unwrap_err().kind(), ErrorKind::Unavailable);
    file.write(512, &[3; 512]).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read(&*disk, "a").unwrap(), [[2; 512], [3; 512]].concat());
    assert_eq!(content(&all_lost(&machine), "a"), Some([[1; 512], [3; 512]].concat()));
}

#[test]
fn a_failed_directory_sync_loses_what_it_covered() {
    let (machine, disk) = machine_with_a();
    disk.rename("a", "b").unwrap();
    machine.fail_next(0, Call::SyncDir, 1);
    assert_eq!(disk.sync_dir("").unwrap_err().kind(), ErrorKind::Unavailable);
    disk.sync_dir("").unwrap();
    assert_eq!(content(&all_lost(&machine), "b"), None);
    assert_eq!(content(&all_lost(&machine), "a"), Some(vec![1; 1024]));
}

#[test]
fn skipped_syncs_claim_success() {
    let (machine, disk) = machine_with_a();
    let file = write(&*disk, "a", 0, &[2; 1024]);
    machine.skip_syncs(0, Call::SyncData, 1);
    file.sync_data().unwrap();
    assert_eq!(content(&all_lost(&machine), "a"), Some(vec![1; 1024]));
    file.sync_data().unwrap();
    assert_eq!(content(&all_lost(&machine), "a"), Some(vec![2; 1024]));
}

#[test]
fn offline_disks_answer_unavailable_and_return_as_they_were() {
    let (machine, disk) = machine_with_a();
    let file = disk.open("a", OpenMode::Write).unwrap();
    machine.set_offline(0, true);
    let mut buffer = [0; 1];
    let errors = [
        file.read(0, &mut buffer).err(),
        file.write(0, &[1]).err(),
        file.len().err(),
        file.sync_data().err(),
        disk.open("a", OpenMode::Read).err(),
        disk.list("").err(),
        disk.space().err(),
        disk.identity().err(),
        disk.sync_dir("").err(),
        disk.lock("me").err(),
    ];
    for error in errors {
        assert_eq!(error.unwrap().kind(), ErrorKind::Unavailable);
    }
    machine.heal(0);
    assert_eq!(read(&*disk, "a").unwrap(), [1; 1024]);
}

#[test]
fn full_disks_refuse_growth_only() {
    let (machine, disk) = machine_with_a();
    machine.full(0, 8192);
    assert_eq!(disk.space().unwrap().free_bytes, 4096);
    let file = disk.open("a", OpenMode::Write).unwrap();
    assert!(file.write(8192, &[1]).unwrap_err().is(Posix::NoSpace));
    assert!(file.set_len(8193).unwrap_err().is(Posix::NoSpace));
    file.set_len(8192).unwrap();
    machine.full(0, 100);
    file.write(0, &[5; 8192]).unwrap();
    assert_eq!(disk.space().unwrap().free_bytes, 0);
    drop(file);
    disk.remove("a").unwrap();
    assert_eq!(machine.used_bytes(0), 0);
}

#[test]
fn damage_is_on_the_medium() {
    let (machine, disk) = machine_with_a();
    assert!(machine.flip(0, "a", 8));
    assert!(machine.zero(0, "a", 0, 2));
    assert!(machine.truncate(0, "a", 9));
    assert!(!machine.flip(0, "b", 0));
    let expected = vec![0, 0, 1, 1, 1, 1, 1, 1, 0];
    assert_eq!(read(&*disk, "a").unwrap(), expected);
    assert_eq!(outcomes(&machine, "a"), [Some(expected)].into_iter().collect());
    machine.wipe(0);
    assert!(read(&*disk, "a").unwrap_err().is(Posix::NotFound));
    assert_eq!(content(&all_lost(&machine), "a"), None);
}

#[test]
fn locks_last_as_long_as_their_disk_or_process() {
    let (machine, disk) = machine_with_a();
    disk.lock("pid 1").unwrap();
    disk.lock("pid 1").unwrap();
    let other = machine.disk(0);
    let error = other.lock("pid 2").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("pid 1"), "{error}");
    drop(disk);
    other.lock("pid 2").unwrap();
    machine.release_locks();
    assert_eq!(other.list("").unwrap_err().kind(), ErrorKind::Unavailable);
    let next = machine.disk(0);
    next.lock("pid 3").unwrap();
    assert_eq!(read(&*next, "a").unwrap(), [1; 1024]); // the page cache survives
}

#[test]
fn names_follow_the_contract() {
    let (machine, disk) = machine_with_a();
    assert!(disk.open("b", OpenMode::Read).unwrap_err().is(Posix::NotFound));
    assert!(disk.open("a", OpenMode::CreateNew).unwrap_err().is(Posix::Exists));
    assert!(disk.open("d/a", OpenMode::CreateNew).unwrap_err().is(Posix::NotFound));
    assert!(disk.rename("b", "c").unwrap_err().is(Posix::NotFound));
    assert!(disk.remove("b").unwrap_err().is(Posix::NotFound));
    assert!(disk.list("d").unwrap_err().is(Posix::NotFound));
    disk.create_dir("d").unwrap();
    assert!(disk.create_dir("d").unwrap_err().is(Posix::Exists));
    let _file = create(&*disk, "d/x", b"");
    let listed: Vec<_> = disk.list("").unwrap().into_iter().map(|e| (e.name, e.is_dir)).collect();
    assert_eq!(listed, [("a".to_owned(), false), ("d".to_owned(), true)]);
    assert_eq!(disk.list("d").unwrap().len(), 1);
    assert_eq!(machine.file_names(0), ["a", "d/x"]);
    let file = disk.open("a", OpenMode::Read).unwrap();
    assert_eq!(file.read(1000, &mut [0; 25]).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(file.write(0, b"x").unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(disk.open("../a", OpenMode::Read).unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn many_operations_in_doubt_are_sampled_from_the_seed() {
    let machine = SimMachine::new(3, 2);
    for disk in machine.disks() {
        for i in 0..8 {
            let _file = create(&*disk, &format!("f{i}"), &[1; 2000]);
        }
    }
    let run = || {
        let states = machine.crash_states(machine.journal_len(), 200, 5);
        assert!(!states.is_exhaustive());
        states.map(|state| state.choices).collect::<Vec<_>>()
    };
    let choices = run();
    assert_eq!(choices, run());
    assert_eq!(choices.len(), 200);
    assert!(choices[0].iter().all(|choice| *choice == Choice::Lost));
    assert!(choices[1].iter().all(|choice| *choice == Choice::Kept));
    assert!(choices.iter().collect::<BTreeSet<_>>().len() > 190);
}

#[test]
fn settling_makes_all_durable() {
    let machine = SimMachine::new(1, 1);
    let _file = create(&*machine.disk(0), "a", b"x");
    machine.settle();
    assert_eq!(machine.journal_len(), 0);
    assert_eq!(content(&all_lost(&machine), "a"), Some(b"x".to_vec()));
    assert_eq!(
        SimMachine::with_image(1, machine.live_image()).contents(0, "a"),
        Some(b"x".to_vec())
    );
}

/// The cached prefix must not change what a cut shows: random histories, cut in random order, against a machine
/// that is asked once.
#[test]
fn cuts_do_not_depend_on_each_other() {
    let mut rng = SimRng::new(11);
    let machine = SimMachine::new(11, 2);
    let disks = machine.disks();
    for _ in 0..300 {
        let disk = &disks[usize::try_from(rng.below(2)).unwrap()];
        let name = format!("f{}", rng.below(4));
        match (rng.below(6), disk.open(&name, OpenMode::Write)) {
            (0, Ok(file)) => file.sync_data().unwrap(),
            (1, _) => disk.sync_dir("").unwrap(),
            (2, Ok(_)) => disk.remove(&name).unwrap(),
            (3, Ok(_)) => disk.rename(&name, &format!("f{}", rng.below(4))).unwrap(),
            (_, Ok(file)) => file.write(rng.below(9000), &[7; 700]).unwrap(),
            (_, Err(_)) => drop(disk.open(&name, OpenMode::CreateNew).unwrap()),
        }
    }
    let mut show = |at| {
        let state = machine.crash(at, &mut |_disk, _op| Choice::Lost);
        let rebooted = SimMachine::from_image(state.image);
        let names = |disk| rebooted.file_names(disk);
        (0..2).flat_map(names).map(|name| rebooted.contents(0, &name)).collect::<Vec<_>>()
    };
    let forward: Vec<_> = (0..=300).map(&mut show).collect();
    for _ in 0..100 {
        let at = usize::try_from(rng.below(301)).unwrap();
        assert_eq!(show(at), forward[at], "cut at {at}");
    }
}
