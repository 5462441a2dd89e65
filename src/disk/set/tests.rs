use super::*;
use crate::disk::local::LocalDisk;
use tempfile::TempDir;

fn handle(dir: &TempDir, id: u32, queue: DiskQueue) -> Arc<DiskHandle> {
    let disk = Arc::new(LocalDisk::open(dir.path()).unwrap());
    Arc::new(DiskHandle { id: DiskId(id), disk, queue })
}

/// Disks in use, simulated by nothing but a directory.
fn set(ids: &[u32]) -> (TempDir, DiskSet) {
    let dir = TempDir::new().unwrap();
    let slot =
        |id: &u32| (DiskId(*id), id.to_string(), Some(handle(&dir, *id, DiskQueue::inline())));
    let set = DiskSet::new(ids.iter().map(slot).collect());
    (dir, set)
}

fn states(set: &DiskSet) -> Vec<(u32, bool, u64, bool)> {
    let states = set.states().into_iter();
    states.map(|s| (s.id.get(), s.state == DiskState::Healthy, s.errors, s.full)).collect()
}

#[test]
fn a_disk_goes_and_comes_back() {
    let dir = TempDir::new().unwrap();
    let queue = DiskQueue::threads("t", 1, 1).unwrap();
    let first = handle(&dir, 1, queue);
    let set = DiskSet::new(vec![
        (DiskId(2), "two".into(), None),
        (DiskId(1), "one".into(), Some(first.clone())),
    ]);
    let mut changes = set.changes();
    assert_eq!(states(&set), [(1, true, 0, false), (2, false, 0, false)]);
    assert!(set.get(DiskId(1)).is_some() && set.get(DiskId(2)).is_none());
    assert!(!changes.has_changed().unwrap());
    set.fail(DiskId(1), &Error::unavailable("no answer"));
    set.fail(DiskId(1), &Error::unavailable("again"));
    set.fail(DiskId(7), &Error::unavailable("nobody"));
    assert_eq!(*changes.borrow_and_update(), 1);
    assert_eq!(states(&set), [(1, false, 2, false), (2, false, 0, false)]);
    assert_eq!(set.states()[0].state, DiskState::Down("no answer".into()));
    set.admit(first);
    set.admit(handle(&dir, 2, DiskQueue::inline()));
    assert_eq!(*changes.borrow_and_update(), 3);
    assert_eq!(states(&set), [(1, true, 2, false), (2, true, 0, false)]);
    assert_eq!(set.healthy().len(), 2);
    // One that leaves has done nothing wrong.
    set.let_go(DiskId(2), "it was drained");
    set.let_go(DiskId(7), "nobody");
    assert_eq!(*changes.borrow_and_update(), 4);
    assert_eq!(states(&set), [(1, true, 2, false), (2, false, 0, false)]);
    assert_eq!(set.states()[1].state, DiskState::Down("it was drained".into()));
}

#[test]
fn only_a_disk_that_does_not_work_goes() {
    let dir = TempDir::new().unwrap();
    let one = handle(&dir, 1, DiskQueue::inline());
    let set = DiskSet::new(vec![(DiskId(1), "one".into(), Some(one))]);
    for error in [
        Error::from(Posix::NotFound),
        Error::from(Posix::Exists),
        Error::from(Posix::NoSpace),
        Error::corrupt("bad sum"),
        Error::internal("bad name"),
        Error::refused("locked"),
    ] {
        assert!(!set.report(DiskId(1), &error), "{error}");
    }
    assert_eq!(states(&set), [(1, true, 1, true)]);
    set.note_space(DiskId(1), Space { total_bytes: 6400, free_bytes: 99, device: 1 });
    assert!(set.is_full(DiskId(1)));
    set.note_space(DiskId(1), Space { total_bytes: 6400, free_bytes: 100, device: 1 });
    assert!(!set.is_full(DiskId(1)));
    assert!(set.report(DiskId(1), &Error::unavailable("EIO")));
    assert!(set.get(DiskId(1)).is_none());
}

#[test]
fn a_slow_disk_is_suspect_until_it_answers_or_comes_anew() {
    let (_dir, set) = set(&[1, 2]);
    set.note_suspect(DiskId(1), true);
    assert_eq!(set.states()[0].state, DiskState::Suspect);
    assert!(
        set.is_suspect(DiskId(1)) && !set.is_suspect(DiskId(2)) && set.get(DiskId(1)).is_some()
    );
    set.note_suspect(DiskId(1), false);
    assert_eq!(set.states()[0].state, DiskState::Healthy);
    set.note_suspect(DiskId(1), true);
    let handle = set.get(DiskId(1)).unwrap();
    set.fail(DiskId(1), &Error::unavailable("no answer"));
    assert!(matches!(set.states()[0].state, DiskState::Down(_)));
    set.admit(handle);
    assert_eq!(set.states()[0].state, DiskState::Healthy);
}

#[test]
fn free_room_is_that_of_the_last_look() {
    let (_dir, set) = set(&[1]);
    assert!(set.has_free(DiskId(1), 5), "nothing is known against it");
    let space = |free_bytes| Space { total_bytes: 100 << 30, free_bytes, device: 1 };
    set.note_space(DiskId(1), space(6 << 30));
    assert!(set.has_free(DiskId(1), 5));
    set.note_space(DiskId(1), space(4 << 30));
    assert!(!set.has_free(DiskId(1), 5) && !set.is_full(DiskId(1)));
    assert!(!set.has_free(DiskId(9), 5), "there is no such disk");
}

#[test]
fn who_has_filled_a_disk_is_told_by_what_the_shards_take() {
    let (_dir, set) = set(&[1]);
    let space = |free_bytes| Space { total_bytes: 100 << 30, free_bytes, device: 1 };
    set.note_own_bytes(DiskId(1), space(20 << 30), 70 << 30);
    set.note_space(DiskId(1), space(20 << 30));
    assert!(!set.is_tight() && !set.is_filled_by_others(DiskId(1)));
    set.note_space(DiskId(1), space(1 << 20));
    assert!(set.is_tight() && set.is_full(DiskId(1)) && !set.is_filled_by_others(DiskId(1)));
    let changes = set.changes();
    set.note_own_bytes(DiskId(1), space(1 << 20), 80 << 30);
    assert!(!set.is_filled_by_others(DiskId(1)) && !changes.has_changed().unwrap());
    set.note_own_bytes(DiskId(1), space(1 << 20), 50 << 30);
    assert!(set.is_filled_by_others(DiskId(1)) && changes.has_changed().unwrap());
    assert!(!set.is_filled_by_others(DiskId(9)), "there is no such disk");
    // Nobody has counted yet: then it counts as lost, and writes go on.
    let (_dir, set) = self::set(&[1]);
    set.note_space(DiskId(1), space(1 << 20));
    assert!(set.is_filled_by_others(DiskId(1)));
}
