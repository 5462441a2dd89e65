//! Disks that go away, live and before mounting, in every pair; and come back.

use crate::real::{Volume, fail, ironfs, pattern, succeed, wait};
use std::fs;
use std::io::Write as _;
use std::path::Path;

/// Sizes that meet every way to store a file: inline, packed, one row, several rows, more than a chunk.
const SIZES: [usize; 6] = [100, 4096, 70_000, 300_000, 5_000_000, 40_000_000];

fn write_files(mnt: &Path) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        fs::write(mnt.join(format!("f{seed}")), pattern(seed as u64, size)).unwrap();
    }
}

fn check_files(mnt: &Path) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let read = fs::read(mnt.join(format!("f{seed}"))).unwrap();
        assert!(read == pattern(seed as u64, size), "file of {size} bytes differs");
    }
}

fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

fn fsynced_write(path: &Path, content: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn every_pair_of_disks_before_mounting() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    write_files(&volume.mnt());
    volume.umount();
    let aside = volume.root().join("aside");
    fs::create_dir(&aside).unwrap();
    for first in 0..6 {
        for second in first + 1..6 {
            for disk in [first, second] {
                fs::rename(&volume.disks[disk], aside.join(format!("d{disk}"))).unwrap();
            }
            volume.mount();
            check_files(&volume.mnt());
            fsynced_write(&volume.mnt().join("while-away"), &pattern(first as u64, 100_000));
            volume.umount();
            for disk in [first, second] {
                fs::rename(aside.join(format!("d{disk}")), &volume.disks[disk]).unwrap();
            }
            volume.mount();
            check_files(&volume.mnt());
            let read = fs::read(volume.mnt().join("while-away")).unwrap();
            assert!(read == pattern(first as u64, 100_000), "pair {first} {second}");
            volume.umount();
        }
    }
    volume.fsck();
}

#[test]
fn a_pair_renamed_away_live() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    let aside = volume.root().join("aside");
    fs::create_dir(&aside).unwrap();
    for pair in [[0usize, 1], [1, 4], [3, 5]] {
        for disk in pair {
            fs::rename(&volume.disks[disk], aside.join(format!("d{disk}"))).unwrap();
        }
        let down = |status: &serde_json::Value| {
            pair.iter().all(|disk| status["disks"][disk]["state"] == "down")
        };
        // The server may not have noticed yet: an fsync goes on all the same.
        fsynced_write(&volume.mnt().join("just-then"), &pattern(9, 3_000_000));
        let start = std::time::Instant::now();
        volume.wait_status("both disks are seen to be down", down);
        assert!(start.elapsed() < std::time::Duration::from_secs(2), "a loss shows within 2 s");
        drop_caches();
        check_files(&volume.mnt());
        fsynced_write(&volume.mnt().join("live"), &pattern(pair[0] as u64, 3_000_000));
        fsynced_write(&volume.mnt().join("small"), b"small");
        for disk in pair {
            fs::rename(aside.join(format!("d{disk}")), &volume.disks[disk]).unwrap();
        }
        let up = |status: &serde_json::Value| {
            pair.iter().all(|disk| status["disks"][disk]["state"] == "healthy")
        };
        volume.wait_status("both disks are back", up);
        drop_caches();
        check_files(&volume.mnt());
        let read = fs::read(volume.mnt().join("live")).unwrap();
        assert!(read == pattern(pair[0] as u64, 3_000_000));
    }
    volume.remount();
    check_files(&volume.mnt());
    volume.umount();
    volume.fsck();
}

#[test]
fn three_away_is_eio_and_never_wrong_bytes() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    write_files(&volume.mnt());
    volume.remount();
    let aside = volume.root().join("aside");
    fs::create_dir(&aside).unwrap();
    for disk in [3, 4, 5] {
        fs::rename(&volume.disks[disk], aside.join(format!("d{disk}"))).unwrap();
    }
    volume.wait_status("three disks are down", |status| {
        [3, 4, 5].iter().all(|disk| status["disks"][*disk]["state"] == "down")
    });
    drop_caches();
    let error = fs::read(volume.mnt().join("f5")).expect_err("too few shards are there");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    fs::rename(aside.join("d4"), &volume.disks[4]).unwrap();
    wait("the file reads again", || {
        fs::read(volume.mnt().join("f5")).is_ok_and(|read| read == pattern(5, SIZES[5]))
    });
    for disk in [3, 5] {
        fs::rename(aside.join(format!("d{disk}")), &volume.disks[disk]).unwrap();
    }
    volume.umount();
    volume.mount();
    check_files(&volume.mnt());
    volume.umount();
    volume.fsck();
}

#[test]
fn a_mount_without_any_log_disk_is_refused() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    fsynced_write(&volume.mnt().join("f"), b"content");
    let log: Vec<u64> = volume.status()["log"]["disks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|disk| disk.as_u64().unwrap())
        .collect();
    volume.umount();
    let aside = volume.root().join("aside");
    fs::create_dir(&aside).unwrap();
    for disk in &log {
        let index = usize::try_from(*disk - 1).unwrap();
        fs::rename(&volume.disks[index], aside.join(format!("d{disk}"))).unwrap();
    }
    let said = fail(&mut volume.mount_command(""), 2);
    assert!(said.contains("disk"), "{said}");
    for disk in &log {
        let index = usize::try_from(*disk - 1).unwrap();
        fs::rename(aside.join(format!("d{disk}")), &volume.disks[index]).unwrap();
    }
    volume.mount();
    assert_eq!(fs::read(volume.mnt().join("f")).unwrap(), b"content");
}

#[test]
fn a_dead_disk_is_replaced_and_the_volume_is_whole_again() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    fs::remove_dir_all(&volume.disks[2]).unwrap();
    volume.wait_status("the disk is down", |status| status["disks"][2]["state"] == "down");
    let new = volume.root().join("new");
    fs::create_dir(&new).unwrap();
    succeed(
        ironfs()
            .args(["disk", "replace", "--yes", "--allow-same-device", "--volume"])
            .arg(volume.mnt())
            .arg(&volume.disks[2])
            .arg(&new),
    );
    volume.wait_status("every stripe has full margin", |status| {
        let margins = status["stripes_by_margin"].as_object().unwrap();
        margins.keys().all(|margin| margin == "2")
    });
    assert_eq!(volume.status()["survives_disks"], 2);
    drop_caches();
    check_files(&volume.mnt());
}
