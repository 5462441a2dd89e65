//! Bytes that change behind the file system's back: reads are right or EIO, never wrong.

use crate::real::{Volume, fail, ironfs, pattern};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

const FILE_BYTES: usize = 6_000_000;

fn files_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
    found.sort();
}

/// Shard files of a disk.
pub(crate) fn shards(disk: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files_below(&disk.join("shards"), &mut found);
    // What an earlier round has emptied cannot be damaged further.
    found.retain(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0));
    found
}

/// How a file is damaged.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flip(u64),
    Zero(u64),
    Truncate,
    Empty,
    Remove,
}

fn damage(path: &Path, how: Damage) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let length = file.metadata().unwrap().len();
    match how {
        Damage::Flip(at) => {
            let at = at % length.max(1);
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
        }
        Damage::Zero(at) => {
            let at = at % length.max(1);
            let end = (at + 4096).min(length);
            file.write_all_at(&vec![0; usize::try_from(end - at).unwrap()], at).unwrap();
        }
        Damage::Truncate => file.set_len(length / 2).unwrap(),
        Damage::Empty => file.set_len(0).unwrap(),
        Damage::Remove => fs::remove_file(path).unwrap(),
    }
}

fn damage_below(dir: &Path, how: Damage) {
    let mut files = Vec::new();
    files_below(dir, &mut files);
    files.iter().for_each(|file| damage(file, how));
}

fn kinds() -> Vec<Damage> {
    let mut kinds = vec![Damage::Truncate, Damage::Empty, Damage::Remove];
    for at in [0u64, 63, 5000, 8192, 8200, 70_000, 123_456, 999_983, 1_400_001] {
        kinds.extend([Damage::Flip(at), Damage::Zero(at)]);
    }
    kinds
}

fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

#[test]
fn every_damage_to_two_disks_of_shards_is_decoded_around() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    let path = volume.mnt().join("f");
    let content = pattern(1, FILE_BYTES);
    for (round, how) in kinds().into_iter().enumerate() {
        fs::write(&path, &content).unwrap();
        volume.sync();
        for disk in [round % 6, (round + 1 + round / 6) % 6] {
            for shard in shards(&volume.disks[disk]) {
                damage(&shard, how);
            }
        }
        // Live (half of the rounds) and between mounts.
        if round % 2 == 0 {
            volume.remount();
        }
        drop_caches();
        let read = fs::read(&path).unwrap_or_else(|error| panic!("{how:?}: {error}"));
        assert!(read == content, "{how:?}: wrong bytes");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn swapped_shard_files_are_not_believed() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    let path = volume.mnt().join("f");
    let content = pattern(2, FILE_BYTES);
    fs::write(&path, &content).unwrap();
    volume.umount();
    let (left, right) = (shards(&volume.disks[0]), shards(&volume.disks[1]));
    let (left, right) = (left.first().unwrap(), right.first().unwrap());
    let aside = volume.root().join("aside");
    fs::copy(left, &aside).unwrap();
    fs::copy(right, left).unwrap();
    fs::copy(&aside, right).unwrap();
    volume.mount();
    assert!(fs::read(&path).unwrap() == content, "wrong bytes");
}

#[test]
fn damage_to_three_disks_is_eio() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    let path = volume.mnt().join("f");
    fs::write(&path, pattern(3, FILE_BYTES)).unwrap();
    volume.remount();
    for disk in 0..3 {
        for shard in shards(&volume.disks[disk]) {
            damage(&shard, Damage::Zero(8192 + 64));
        }
    }
    drop_caches();
    let error = fs::read(&path).expect_err("three of six shards are bad");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));

    // All disks are there: nothing that comes back helps, and whoever asks is told so.
    volume.wait_status("the damage is noted", |status| {
        status["problems"].to_string().contains("1 stripe is lost")
    });
    let status = volume.status();
    assert!(!status["problems"].to_string().contains("away"), "{status}");
    let said = fail(ironfs().args(["repair", "run"]).arg(volume.mnt()), 1);
    assert!(said.contains("3 good shards, 4 needed"), "{said}");
    volume.umount();
    fail(ironfs().arg("fsck").arg(volume.config()), 1);
}

#[test]
fn log_and_state_of_two_disks_damaged_between_mounts() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    let content = pattern(4, 50_000);
    for number in 0..20 {
        fs::write(volume.mnt().join(format!("f{number}")), &content).unwrap();
    }
    volume.umount();
    for how in [Damage::Flip(5000), Damage::Zero(4096), Damage::Truncate, Damage::Empty] {
        for disk in 0..2 {
            for folder in ["log", "meta"] {
                damage_below(&volume.disks[disk].join(folder), how);
            }
        }
        volume.mount();
        for number in 0..20 {
            let read = fs::read(volume.mnt().join(format!("f{number}"))).unwrap();
            assert!(read == content, "{how:?}: wrong bytes");
        }
        volume.umount();
        volume.fsck();
    }
}

#[test]
fn state_pages_of_one_disk_damaged_while_mounted() {
    let volume = Volume::format("4+2", 6);
    volume.set_limit("metadata_cache_mib", 128, 1);
    volume.mount();
    for number in 0..2000 {
        fs::write(volume.mnt().join(format!("f{number}")), pattern(number, 100)).unwrap();
    }
    volume.sync();
    volume.remount();
    let mut states = Vec::new();
    files_below(&volume.disks[0].join("meta"), &mut states);
    let state = fs::OpenOptions::new().write(true).open(&states[0]).unwrap();
    let pages = state.metadata().unwrap().len() / 4096;
    for page in 0..pages {
        state.write_all_at(&[0x5a; 64], page * 4096 + 1000).unwrap();
    }
    drop_caches();
    for number in 0..2000 {
        let read = fs::read(volume.mnt().join(format!("f{number}"))).unwrap();
        assert!(read == pattern(number, 100), "file {number}");
    }
    fs::write(volume.mnt().join("after"), b"still writable").unwrap();
    volume.sync();
    volume.remount();
    assert_eq!(fs::read(volume.mnt().join("after")).unwrap(), b"still writable");
    volume.umount();
    volume.fsck();
}

/// Overwrites a part of every page of a file.
fn damage_pages(path: &Path) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    for page in 0..file.metadata().unwrap().len() / 4096 {
        file.write_all_at(&[0x5a; 64], page * 4096 + 1000).unwrap();
    }
}

/// Disks that keep the log and a copy of the state.
fn log_disks(volume: &Volume) -> Vec<usize> {
    let status = volume.status();
    let disks = status["log"]["disks"].as_array().unwrap().iter();
    disks.map(|disk| usize::try_from(disk.as_u64().unwrap() - 1).unwrap()).collect()
}

#[test]
fn state_pages_of_all_copies_but_one_damaged_while_mounted() {
    for good in 0..3 {
        let volume = Volume::format("4+2", 6);
        volume.set_limit("metadata_cache_mib", 128, 1);
        volume.mount();
        for number in 0..1000 {
            fs::write(volume.mnt().join(format!("f{number}")), pattern(number, 100)).unwrap();
        }
        volume.remount();
        let copies: Vec<PathBuf> = log_disks(&volume)
            .into_iter()
            .map(|disk| volume.disks[disk].join("meta/state.redb"))
            .collect();
        let bad = (0..3).filter(|copy| *copy != good);
        bad.for_each(|copy| damage_pages(&copies[copy]));
        drop_caches();
        for number in 0..1000 {
            let read = fs::read(volume.mnt().join(format!("f{number}"))).unwrap();
            assert!(read == pattern(number, 100), "copy {good} is good, file {number} is not");
        }
        fs::write(volume.mnt().join("after"), b"still writable").unwrap();
        volume.sync();
        volume.umount();
        damage_pages(&copies[good]);
        // Copies that took the place of bad ones may be left. If none is, that is said; it is never served.
        if volume.mount_command("").output().unwrap().status.success() {
            for number in 0..1000 {
                let read = fs::read(volume.mnt().join(format!("f{number}")));
                assert!(read.is_err() || read.unwrap() == pattern(number, 100), "file {number}");
            }
        }
    }
}

#[test]
fn log_of_two_disks_damaged_while_mounted() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    let content = pattern(5, 3000);
    for how in [Damage::Flip(9000), Damage::Zero(8192), Damage::Truncate, Damage::Empty] {
        for number in 0..20 {
            let file = fs::File::create(volume.mnt().join(format!("f{number}"))).unwrap();
            file.write_all_at(&content, 0).unwrap();
            file.sync_all().unwrap();
        }
        for disk in log_disks(&volume).into_iter().take(2) {
            damage_below(&volume.disks[disk].join("log"), how);
        }
        // Nothing of it may be needed again except by who comes after a crash.
        volume.kill();
        volume.mount();
        for number in 0..20 {
            let read = fs::read(volume.mnt().join(format!("f{number}"))).unwrap();
            assert!(read == content, "{how:?}: file {number} was fsynced and differs");
        }
    }
    volume.umount();
    volume.fsck();
}

#[test]
fn superblocks_of_two_disks_damaged() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    let content = pattern(6, FILE_BYTES);
    fs::write(volume.mnt().join("f"), &content).unwrap();
    volume.umount();
    let kept: Vec<Vec<u8>> =
        volume.disks[..2].iter().map(|disk| fs::read(disk.join("superblock")).unwrap()).collect();
    let length = kept[0].len() as u64;
    let mut kinds = vec![Damage::Truncate, Damage::Empty, Damage::Remove];
    for (number, at) in (0..length).step_by(4096).enumerate() {
        kinds.push(if number % 4 < 2 { Damage::Flip(at + 40) } else { Damage::Zero(at) });
    }
    for (round, how) in kinds.into_iter().enumerate() {
        let live = round % 2 == 0;
        if live {
            volume.mount();
        }
        for disk in &volume.disks[..2] {
            damage(&disk.join("superblock"), how);
        }
        if !live {
            volume.mount();
        }
        drop_caches();
        assert!(fs::read(volume.mnt().join("f")).unwrap() == content, "{how:?}: wrong bytes");
        volume.umount();
        for (disk, bytes) in volume.disks.iter().zip(&kept) {
            fs::write(disk.join("superblock"), bytes).unwrap();
        }
    }
    volume.mount();
    assert!(fs::read(volume.mnt().join("f")).unwrap() == content);
}
