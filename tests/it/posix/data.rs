//! File content: holes, ranges, mappings, direct and appending writes, space.

use super::{errno, mounted};
use crate::real::pattern;
use rustix::fs::{FallocateFlags, SeekFrom as Seek};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};

#[test]
fn holes_are_reported_with_dirty_pages() {
    let volume = mounted();
    let file = File::create(volume.mnt().join("sparse")).unwrap();
    file.set_len(1 << 30).unwrap();
    file.write_all_at(&[1; 4096], 512 << 20).unwrap();
    assert_eq!(rustix::fs::seek(&file, Seek::Data(0)).unwrap(), 512 << 20);
    let hole = rustix::fs::seek(&file, Seek::Hole(512 << 20)).unwrap();
    assert!(((512 << 20) + 4096..=(512 << 20) + 65536).contains(&hole), "hole at {hole}");
    assert_eq!(rustix::fs::seek(&file, Seek::Hole(0)).unwrap(), 0);
    assert_eq!(rustix::fs::seek(&file, Seek::Data(600 << 20)), Err(rustix::io::Errno::NXIO));
    assert!(file.metadata().unwrap().blocks() * 512 < 1 << 20, "a hole takes no space");
}

#[test]
fn punched_and_zeroed_ranges_read_as_zeros() {
    let volume = mounted();
    let path = volume.mnt().join("f");
    let mut expected = pattern(1, 1_000_000);
    fs::write(&path, &expected).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for (offset, length) in
        [(1000u64, 5000u64), (65536, 65536), (100_000, 400_000), (999_000, 5000)]
    {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(&file, flags, offset, length).unwrap();
        let end = usize::try_from((offset + length).min(1_000_000)).unwrap();
        expected[usize::try_from(offset).unwrap()..end].fill(0);
    }
    rustix::fs::fallocate(&file, FallocateFlags::ZERO_RANGE, 700_000, 100).unwrap();
    expected[700_000..700_100].fill(0);
    assert!(fs::read(&path).unwrap() == expected);
    file.sync_all().unwrap();
    drop(file);
    volume.remount();
    assert!(fs::read(&path).unwrap() == expected);
}

#[test]
fn fallocate_grows_or_keeps_the_size() {
    let volume = mounted();
    let file = File::create(volume.mnt().join("f")).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, 0, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 0);
    assert!(file.metadata().unwrap().blocks() * 512 >= 1 << 20);
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 2 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 2 << 20);
    assert!(fs::read(volume.mnt().join("f")).unwrap() == vec![0; 2 << 20]);
}

#[test]
fn copied_ranges_share_and_stay_apart() {
    let volume = mounted();
    let content = pattern(5, 3_000_000);
    fs::write(volume.mnt().join("a"), &content).unwrap();
    let from = File::open(volume.mnt().join("a")).unwrap();
    let to = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(volume.mnt().join("b"))
        .unwrap();
    let mut copied = 0u64;
    while copied < 3_000_000 {
        let (mut at, mut put) = (copied, copied);
        let now = rustix::fs::copy_file_range(&from, Some(&mut at), &to, Some(&mut put), 3_000_000)
            .unwrap();
        assert!(now > 0);
        copied += now as u64;
    }
    assert!(fs::read(volume.mnt().join("b")).unwrap() == content);
    to.write_all_at(b"changed", 100_000).unwrap();
    to.sync_all().unwrap();
    assert!(fs::read(volume.mnt().join("a")).unwrap() == content, "the source stays as it is");
    fs::remove_file(volume.mnt().join("a")).unwrap();
    drop((from, to));
    volume.remount();
    let mut expected = content;
    expected[100_000..100_007].copy_from_slice(b"changed");
    assert!(fs::read(volume.mnt().join("b")).unwrap() == expected, "the copy outlives its source");
}

#[test]
fn truncated_tails_read_as_zeros_when_grown_again() {
    let volume = mounted();
    let path = volume.mnt().join("f");
    for (size, cut) in [(100u64, 10u64), (5000, 4097), (70_000, 66_000), (40_000_000, 33_554_433)] {
        fs::write(&path, pattern(size, usize::try_from(size).unwrap())).unwrap();
        volume.sync();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.set_len(cut).unwrap();
        file.set_len(size).unwrap();
        let mut expected = pattern(size, usize::try_from(size).unwrap());
        expected[usize::try_from(cut).unwrap()..].fill(0);
        assert!(fs::read(&path).unwrap() == expected, "{size} cut to {cut}");
        drop(file);
        volume.remount();
        assert!(fs::read(&path).unwrap() == expected, "{size} cut to {cut}, remounted");
    }
}

#[test]
fn the_largest_offset_works_and_beyond_is_efbig() {
    let volume = mounted();
    let file = File::create(volume.mnt().join("huge")).unwrap();
    let far = 64u64 << 50;
    file.write_all_at(b"end", far - 3).unwrap();
    assert_eq!(file.metadata().unwrap().len(), far);
    let mut end = [0; 3];
    let again = File::open(volume.mnt().join("huge")).unwrap();
    again.read_exact_at(&mut end, far - 3).unwrap();
    assert_eq!(&end, b"end");
    assert_eq!(errno(file.set_len(1 << 60)), libc::EFBIG);
    // The kernel's cache takes it; the error shows when it is written back, as EIO for the kernel knows no better.
    let written = file.write_all_at(b"x", 1 << 60).and_then(|()| file.sync_all());
    assert!([libc::EFBIG, libc::EIO].contains(&errno(written)));
}

#[test]
fn direct_buffered_and_mapped_access_agree() {
    let volume = mounted();
    let path = volume.mnt().join("f");
    fs::write(&path, vec![b'a'; 200_000]).unwrap();
    let direct =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&path).unwrap();
    direct.write_all_at(&vec![b'b'; 8192], 4096).unwrap();
    let buffered = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut seen = vec![0; 8192];
    buffered.read_exact_at(&mut seen, 4096).unwrap();
    assert!(seen.iter().all(|byte| *byte == b'b'));
    buffered.write_all_at(&vec![b'c'; 4096], 8192).unwrap();
    let mut seen = vec![0; 4096];
    direct.read_exact_at(&mut seen, 8192).unwrap();
    assert!(seen.iter().all(|byte| *byte == b'c'));
}

#[test]
fn appends_of_several_writers_do_not_overlap() {
    let volume = mounted();
    let path = volume.mnt().join("log");
    File::create(&path).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..4u8 {
            let path = &path;
            scope.spawn(move || {
                let mut file = OpenOptions::new().append(true).open(path).unwrap();
                for _line in 0..200 {
                    file.write_all(&[b'a' + writer; 100]).unwrap();
                }
            });
        }
    });
    let mut text = Vec::new();
    File::open(&path).unwrap().read_to_end(&mut text).unwrap();
    assert_eq!(text.len(), 4 * 200 * 100);
    assert!(text.chunks(100).all(|line| line.iter().all(|byte| *byte == line[0])));
}

#[test]
fn an_unlinked_open_file_stays_until_it_is_closed() {
    let volume = mounted();
    let path = volume.mnt().join("f");
    let mut file = OpenOptions::new().create_new(true).read(true).write(true).open(&path).unwrap();
    file.write_all(&pattern(9, 300_000)).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.sync_all().unwrap();
    let mut read = vec![0; 300_000];
    file.read_exact_at(&mut read, 0).unwrap();
    assert!(read == pattern(9, 300_000));
    drop(file);
    volume.remount();
    assert_eq!(fs::read_dir(volume.mnt()).unwrap().count(), 0);
    volume.umount();
    volume.fsck();
}

/// The tail of a large file shares a stripe with small files whose numbers are lower; whatever is committed first, no
/// commit may make the file shorter.
#[test]
fn a_large_file_among_small_ones_keeps_its_size() {
    let volume = mounted();
    for number in 0..40 {
        fs::write(volume.mnt().join(format!("small-{number}")), pattern(number, 20_000)).unwrap();
    }
    let content = pattern(99, 80 << 20);
    fs::write(volume.mnt().join("large"), &content).unwrap();
    volume.sync();
    volume.remount();
    assert!(fs::read(volume.mnt().join("large")).unwrap() == content);
    for number in 0..40 {
        let small = fs::read(volume.mnt().join(format!("small-{number}"))).unwrap();
        assert!(small == pattern(number, 20_000));
    }
}
