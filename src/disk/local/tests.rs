use super::*;
use crate::disk::queue::DiskQueue;
use crate::disk::set::{DiskHandle, DiskSet, DiskState};
use crate::types::DiskId;

fn disk() -> (tempfile::TempDir, LocalDisk) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("root")).unwrap();
    let disk = LocalDisk::open(&dir.path().join("root")).unwrap();
    (dir, disk)
}

#[test]
fn files_are_written_read_grown_and_cut() {
    let (dir, disk) = disk();
    disk.create_dir("a").unwrap();
    let file = disk.open("a/f", OpenMode::CreateNew).unwrap();
    file.write(3, b"abc").unwrap();
    assert_eq!(file.len().unwrap(), 6);
    file.set_len(10_000).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir("a").unwrap();
    disk.sync_dir("").unwrap();
    let mut bytes = [9; 8];
    disk.open("a/f", OpenMode::Read).unwrap().read(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0\0\0abc\0\0");
    file.set_len(4).unwrap();
    let error = file.read(0, &mut bytes).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("read a/f: disk "), "{error}");
    disk.rename("a/f", "g").unwrap();
    let entry = |name: &str, is_dir| DiskEntry { name: name.into(), is_dir };
    assert_eq!(disk.list("").unwrap(), [entry("a", true), entry("g", false)]);
    assert_eq!(disk.list("a").unwrap(), []);
    disk.remove("g").unwrap();
    assert!(disk.remove("g").unwrap_err().is(Posix::NotFound));
    let space = disk.space().unwrap();
    assert!(space.total_bytes >= space.free_bytes && space.free_bytes > 0);
    assert_eq!(space.device, disk.identity().unwrap().device);
    drop(dir);
}

#[test]
fn bytes_in_memory_are_read_at_once() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let disk = LocalDisk::open(dir.path()).unwrap();
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    file.write(0, b"abcdef").unwrap();
    let mut bytes = [0; 4];
    assert!(file.read_now(1, &mut bytes));
    assert_eq!(&bytes, b"bcde");
    assert!(!file.read_now(3, &mut bytes), "beyond the end");
    // Elsewhere the kernel may say that it would have to wait; what it does read is right.
    let (_dir, disk) = self::disk();
    let file = disk.open("f", OpenMode::CreateNew).unwrap();
    file.write(0, b"abcdef").unwrap();
    assert!(!file.read_now(1, &mut bytes) || &bytes == b"bcde");
}

#[test]
fn what_is_there_and_what_is_not() {
    let (dir, disk) = disk();
    for mode in [OpenMode::Read, OpenMode::Write] {
        assert!(disk.open("f", mode).unwrap_err().is(Posix::NotFound));
    }
    disk.open("f", OpenMode::CreateNew).unwrap();
    assert!(disk.open("f", OpenMode::CreateNew).unwrap_err().is(Posix::Exists));
    disk.create_dir("d").unwrap();
    assert!(disk.create_dir("d").unwrap_err().is(Posix::Exists));
    assert!(disk.list("x").unwrap_err().is(Posix::NotFound));
    for name in ["", "/", "/f", "..", "d/../f", "d//f", ".", "d/", "a\0b"] {
        assert_eq!(disk.open(name, OpenMode::Read).unwrap_err().kind(), ErrorKind::Internal);
    }
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("root/link")).unwrap();
    assert_eq!(disk.open("link", OpenMode::Read).unwrap_err().kind(), ErrorKind::Unavailable);
    let absent = LocalDisk::open(&dir.path().join("absent"));
    assert!(absent.unwrap_err().is(Posix::NotFound));
    assert!(!dir.path().join("absent").exists());
    let file = LocalDisk::open(&dir.path().join("root/f"));
    assert_eq!(file.unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn a_root_that_moved_or_vanished_is_noticed() {
    let (dir, disk) = disk();
    let (root, away) = (dir.path().join("root"), dir.path().join("away"));
    let before = disk.identity().unwrap();
    std::fs::rename(&root, &away).unwrap();
    assert_eq!(disk.identity().unwrap_err().kind(), ErrorKind::Unavailable);
    std::fs::create_dir(&root).unwrap();
    assert_eq!(disk.identity().unwrap_err().kind(), ErrorKind::Unavailable);
    std::fs::remove_dir(&root).unwrap();
    std::fs::rename(&away, &root).unwrap();
    assert_eq!(disk.identity().unwrap(), before);
    std::fs::remove_dir_all(&root).unwrap();
    assert_eq!(disk.identity().unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(disk.open("f", OpenMode::CreateNew).is_err());
}

#[test]
fn a_disk_is_locked_once() {
    let (dir, disk) = disk();
    let second = LocalDisk::open(&dir.path().join("root")).unwrap();
    disk.lock("pid 123, a longer name").unwrap();
    let error = second.lock("pid 4").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().ends_with("is in use by pid 123, a longer name"), "{error}");
    drop(disk);
    second.lock("pid 4").unwrap();
    assert_eq!(std::fs::read(dir.path().join("root/lock")).unwrap(), b"pid 4");
}

#[test]
fn errors_of_a_vanished_disk_take_it_out_of_use() {
    let (dir, disk) = disk();
    let disk = Arc::new(disk);
    let handle = DiskHandle { id: DiskId(1), disk: disk.clone(), queue: DiskQueue::inline() };
    let set = DiskSet::new(vec![(DiskId(1), disk.label(), Some(Arc::new(handle)))]);
    std::fs::remove_dir(dir.path().join("root")).unwrap();
    assert!(!set.report(DiskId(1), &disk.open("f", OpenMode::Read).unwrap_err()));
    assert!(set.report(DiskId(1), &disk.identity().unwrap_err()));
    let state = set.states().remove(0).state;
    assert!(
        matches!(&state, DiskState::Down(why) if why.contains("gone from its path")),
        "{state:?}"
    );
}
