//! Names: renames with flags, links, directories under change, attributes, times, locks.

use super::{errno, mounted};
use crate::loss::drop_caches;
use crate::real::Volume;
use rustix::fs::{AtFlags, CWD, RenameFlags, Timespec, Timestamps, XattrFlags};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::path::Path;
use std::time::Duration;

#[test]
fn renames_with_flags() {
    let volume = mounted();
    let (a, b) = (volume.mnt().join("a"), volume.mnt().join("b"));
    fs::write(&a, b"a").unwrap();
    fs::write(&b, b"b").unwrap();
    let renamed = rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::NOREPLACE);
    assert_eq!(renamed, Err(rustix::io::Errno::EXIST));
    rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(&a).unwrap(), b"b");
    fs::create_dir(volume.mnt().join("dir")).unwrap();
    fs::create_dir(volume.mnt().join("dir/sub")).unwrap();
    let (dir, sub) = (volume.mnt().join("dir"), volume.mnt().join("dir/sub/x"));
    assert_eq!(errno(fs::rename(&dir, sub)), libc::EINVAL);
    assert_eq!(errno(fs::remove_dir(&dir)), libc::ENOTEMPTY);
    rustix::fs::renameat_with(CWD, &b, CWD, volume.mnt().join("c"), RenameFlags::WHITEOUT).unwrap();
    assert!(fs::symlink_metadata(&b).unwrap().file_type().is_char_device());
}

#[test]
fn long_names_and_deep_paths() {
    let volume = mounted();
    let name = "n".repeat(255);
    fs::write(volume.mnt().join(&name), b"x").unwrap();
    assert_eq!(errno(fs::write(volume.mnt().join("n".repeat(256)), b"x")), libc::ENAMETOOLONG);
    let mut deep = volume.mnt();
    for _level in 0..100 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
    }
    fs::write(deep.join("f"), b"deep").unwrap();
    volume.remount();
    assert_eq!(fs::read(deep.join("f")).unwrap(), b"deep");
    assert_eq!(fs::read(volume.mnt().join(name)).unwrap(), b"x");
}

#[test]
fn a_directory_that_changes_while_it_is_listed() {
    let volume = mounted();
    let dir = volume.mnt().join("dir");
    fs::create_dir(&dir).unwrap();
    for number in 0..1000 {
        File::create(dir.join(format!("keep{number}"))).unwrap();
        File::create(dir.join(format!("go{number}"))).unwrap();
    }
    let mut kept = BTreeSet::new();
    let mut steps = 0;
    for entry in fs::read_dir(&dir).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("keep") {
            assert!(!kept.contains(&name), "{name} is seen twice");
            kept.insert(name);
        } else if name.starts_with("go") {
            fs::rename(dir.join(&name), dir.join(format!("re{name}"))).unwrap();
        }
        steps += 1;
        assert!(steps < 5000, "the listing does not end");
    }
    assert_eq!(kept.len(), 1000, "entries that were not touched are seen once");
}

#[test]
fn extended_attributes() {
    let volume = mounted();
    let path = volume.mnt().join("f");
    fs::write(&path, b"x").unwrap();
    for name in ["user.a", "trusted.b", "security.c"] {
        rustix::fs::setxattr(&path, name, b"value", XattrFlags::CREATE).unwrap();
    }
    let again = rustix::fs::setxattr(&path, "user.a", b"v", XattrFlags::CREATE);
    assert_eq!(again, Err(rustix::io::Errno::EXIST));
    let absent = rustix::fs::setxattr(&path, "user.z", b"v", XattrFlags::REPLACE);
    assert_eq!(absent, Err(rustix::io::Errno::NODATA));
    rustix::fs::setxattr(&path, "user.big", &vec![7; 65536], XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(&path, "user.empty", b"", XattrFlags::empty()).unwrap();
    volume.remount();
    let mut value = vec![0; 70_000];
    assert_eq!(rustix::fs::getxattr(&path, "user.big", &mut value[..]).unwrap(), 65536);
    assert_eq!(rustix::fs::getxattr(&path, "user.empty", &mut value[..]).unwrap(), 0);
    let length = rustix::fs::listxattr(&path, &mut value[..]).unwrap();
    let list = String::from_utf8(value[..length].to_vec()).unwrap();
    for name in ["user.a", "trusted.b", "security.c", "user.big", "user.empty"] {
        assert!(list.split('\0').any(|other| other == name), "{name} is not in {list:?}");
    }
    rustix::fs::removexattr(&path, "user.a").unwrap();
    let gone = rustix::fs::getxattr(&path, "user.a", &mut value[..]);
    assert_eq!(gone, Err(rustix::io::Errno::NODATA));
}

#[test]
fn times_of_all_ages_round_trip() {
    let volume = mounted();
    let path = volume.mnt().join("f");
    fs::write(&path, b"x").unwrap();
    for seconds in [-2_000_000_000i64, -1, 0, 1, 4_300_000_000, 16_000_000_000] {
        let time = Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (seconds, 123_456_789));
        assert_eq!((meta.atime(), meta.atime_nsec()), (seconds, 123_456_789));
    }
    let last = Timespec { tv_sec: i64::MIN, tv_nsec: 0 };
    let times = Timestamps { last_access: last, last_modification: last };
    // Whether it is accepted is the kernel's affair; the server must live on.
    rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty()).unwrap_or_default();
    volume.remount();
    assert!(fs::metadata(&path).is_ok());
}

#[test]
fn nodes_of_every_kind_and_hard_links() {
    let volume = mounted();
    let mnt = volume.mnt();
    for (name, kind) in [
        ("fifo", rustix::fs::FileType::Fifo),
        ("socket", rustix::fs::FileType::Socket),
        ("char", rustix::fs::FileType::CharacterDevice),
        ("block", rustix::fs::FileType::BlockDevice),
    ] {
        let device = rustix::fs::makedev(7, 200);
        rustix::fs::mknodat(CWD, mnt.join(name), kind, 0o640.into(), device).unwrap();
    }
    symlink("../somewhere", mnt.join("link")).unwrap();
    fs::write(mnt.join("one"), b"x").unwrap();
    fs::hard_link(mnt.join("one"), mnt.join("two")).unwrap();
    volume.remount();
    assert!(fs::metadata(mnt.join("fifo")).unwrap().file_type().is_fifo());
    assert!(fs::metadata(mnt.join("socket")).unwrap().file_type().is_socket());
    let block = fs::metadata(mnt.join("block")).unwrap();
    assert!(block.file_type().is_block_device() && block.rdev() == rustix::fs::makedev(7, 200));
    assert_eq!(fs::read_link(mnt.join("link")).unwrap().to_str(), Some("../somewhere"));
    assert_eq!(fs::metadata(mnt.join("two")).unwrap().nlink(), 2);
    fs::remove_file(mnt.join("one")).unwrap();
    assert_eq!(fs::read(mnt.join("two")).unwrap(), b"x");
    assert_eq!(fs::metadata(mnt.join("two")).unwrap().nlink(), 1);
}

#[test]
fn locks_of_both_kinds() {
    use rustix::fs::FlockOperation::{NonBlockingLockExclusive, Unlock};
    let volume = mounted();
    let path = volume.mnt().join("f");
    let (first, second) = (File::create(&path).unwrap(), File::open(&path).unwrap());
    rustix::fs::flock(&first, NonBlockingLockExclusive).unwrap();
    let busy = rustix::fs::flock(&second, NonBlockingLockExclusive);
    assert_eq!(busy, Err(rustix::io::Errno::WOULDBLOCK));
    rustix::fs::flock(&first, Unlock).unwrap();
    rustix::fs::flock(&second, NonBlockingLockExclusive).unwrap();
    rustix::fs::fcntl_lock(&first, NonBlockingLockExclusive).unwrap();
    rustix::fs::fcntl_lock(&first, Unlock).unwrap();
}

/// Which reads move an access time: the first one of a file, a second one, and a listing of a directory.
#[test]
fn access_times_follow_the_options_of_the_mount() {
    for (options, expected) in [
        ("relatime", [true, false, true]),
        ("strictatime", [true, true, true]),
        ("noatime", [false, false, false]),
        ("relatime,nodiratime", [true, false, false]),
        ("strictatime,nodiratime", [true, true, false]),
    ] {
        let volume = Volume::format("4+2", 6);
        volume.mount_with(options);
        let dir = volume.mnt().join("dir");
        let file = dir.join("f");
        fs::create_dir(&dir).unwrap();
        fs::write(&file, b"x").unwrap();
        let moves = |path: &Path, read: &dyn Fn()| {
            let time = || fs::metadata(path).map(|meta| (meta.atime(), meta.atime_nsec())).unwrap();
            // What the kernel has is read without the server's knowing.
            drop_caches();
            std::thread::sleep(Duration::from_millis(20));
            let before = time();
            read();
            time() != before
        };
        let read = || assert_eq!(fs::read(&file).unwrap(), b"x");
        let list = || assert_eq!(fs::read_dir(&dir).unwrap().count(), 1);
        let moved = [moves(&file, &read), moves(&file, &read), moves(&dir, &list)];
        assert_eq!(moved, expected, "{options}");
    }
}
