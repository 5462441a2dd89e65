//! Room for dirty bytes in process: what a write does when there is little of it, and when there is none.

use crate::compare::root_user;
use crate::rig::{Rig, run};
use ironfs::error::{Error, Posix};
use ironfs::fs::Fs;
use ironfs::fs::file::WriteHow;
use ironfs::fs::namespace::NewFile;
use ironfs::types::{FileKind, Ino, ROOT_INO};
use ironfs::volume::Volume;
use std::sync::Arc;
use std::time::Duration;

const O_RDWR: i32 = 0o2;
const WRITE_BYTES: usize = 1 << 20;
const READ_BYTES: u32 = 1 << 20;
/// Absorbed beyond the room: `ARRIVED_BYTES` of the data half.
const ARRIVED_MIB: usize = 64;
/// Room of one disk: some files of a megabyte fill six of them.
const DISK_BYTES: u64 = 48 << 20;
/// As long as it takes until disks are seen to be away.
const NOTICED: Duration = Duration::from_secs(30);
/// What the log of a new mount takes, and less than what the state grows by.
const LOG_BYTES: u64 = 3 << 19;
const NEW: NewFile = NewFile { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };

/// A new volume on six disks.
async fn mounted(seed: u64) -> (Rig, Arc<Volume>, Arc<Fs>) {
    let rig = Rig::new(seed, 6);
    rig.format("4+2").await.unwrap();
    let volume = rig.open().await.unwrap();
    let fs = volume.fs();
    (rig, volume, fs)
}

/// Unmounts and looks whether all is in order.
async fn end(rig: Rig, volume: Arc<Volume>, fs: Arc<Fs>) {
    drop(fs);
    volume.shutdown().await.unwrap();
    drop(volume);
    rig.machine.settle();
    rig.fsck_clean().await.unwrap();
}

#[test]
fn a_write_that_finds_no_room_waits_for_older_data() {
    run(async {
        let (rig, volume, fs) = mounted(1).await;
        let (made, opened) = fs.create(&root_user(), ROOT_INO, b"f", NEW, O_RDWR).await.unwrap();
        let (open, how) = ((made.ino, opened.handle), WriteHow::default());
        let block = |number: usize| vec![u8::try_from(number).unwrap() + 1; WRITE_BYTES];
        let at = |number: usize| (number * WRITE_BYTES) as u64;
        // The first write asks whether privileges have to go.
        fs.write(&root_user(), open, 0, &block(0), how).await.unwrap();
        // Nobody else runs before something is waited for, so nothing is written out.
        let mut count = 1;
        while let Some(written) = fs.write_now(open, at(count), &block(count), how) {
            assert_eq!(written as usize, WRITE_BYTES);
            count += 1;
        }
        let room = rig.config.limits.dirty_mib as usize;
        assert_eq!(count, room + ARRIVED_MIB, "what has arrived is absorbed, and no more");
        fs.write(&root_user(), open, at(count), &block(count), how).await.unwrap();
        fs.pace().await.unwrap();
        assert!(fs.dirty_bytes(made.ino) <= (room * WRITE_BYTES) as u64);
        count += 1;
        assert!(fs.write_now(open, at(count), &block(count), how).is_some());
        for number in 0..=count {
            let read = fs.read(made.ino, opened.handle, at(number), READ_BYTES, 0).await;
            assert!(read.unwrap() == block(number), "block {number}");
        }
        fs.release(made.ino, opened.handle).await.unwrap();
        end(rig, volume, fs).await;
    });
}

#[test]
fn what_was_unlinked_a_moment_ago_makes_room() {
    run(async {
        let (rig, volume, fs) = mounted(2).await;
        for disk in 0..6 {
            rig.machine.full(disk, DISK_BYTES);
        }
        let (how, block) = (WriteHow::default(), vec![7; WRITE_BYTES]);
        let mut names = Vec::new();
        loop {
            let name = format!("f{}", names.len()).into_bytes();
            let made = fs.create(&root_user(), ROOT_INO, &name, NEW, O_RDWR).await;
            let (made, opened) = made.unwrap();
            let open = (made.ino, opened.handle);
            let written = fs.write(&root_user(), open, 0, &block, how).await;
            let synced = fs.fsync(made.ino, opened.handle, false).await;
            fs.release(made.ino, opened.handle).await.unwrap();
            names.push((made.ino, name));
            match written.and(synced) {
                Ok(()) => assert!(names.len() < 400, "the disks take more than they hold"),
                Err(error) => {
                    assert!(error.is(Posix::NoSpace), "{error}");
                    break;
                }
            }
        }
        assert!(names.len() > 16, "only {} files fit", names.len());
        for (ino, name) in names.iter().take(names.len() / 2) {
            fs.unlink(ROOT_INO, name).await.unwrap();
            fs.forget(*ino, 1);
        }
        let (made, opened) =
            fs.create(&root_user(), ROOT_INO, b"after", NEW, O_RDWR).await.unwrap();
        for number in 0..3 {
            let at = number * WRITE_BYTES as u64;
            fs.write(&root_user(), (made.ino, opened.handle), at, &block, how).await.unwrap();
        }
        fs.fsync(made.ino, opened.handle, false).await.unwrap();
        fs.release(made.ino, opened.handle).await.unwrap();
        end(rig, volume, fs).await;
    });
}

#[test]
fn disks_that_are_away_are_no_lack_of_space() {
    run(async {
        let (rig, volume, fs) = mounted(3).await;
        let (made, opened) = fs.create(&root_user(), ROOT_INO, b"f", NEW, O_RDWR).await.unwrap();
        let (open, how) = ((made.ino, opened.handle), WriteHow::default());
        let block = vec![5; WRITE_BYTES];
        // The first three keep the metadata.
        (3..6).for_each(|disk| rig.machine.set_offline(disk, true));
        tokio::time::sleep(NOTICED).await;
        let error = fs.write(&root_user(), open, 0, &block, how).await.unwrap_err();
        assert!(
            error.posix() == Posix::Io && error.to_string().contains("disks are in use"),
            "{error}"
        );
        (3..6).for_each(|disk| rig.machine.set_offline(disk, false));
        tokio::time::sleep(NOTICED).await;
        fs.write(&root_user(), open, 0, &block, how).await.unwrap();
        fs.fsync(made.ino, opened.handle, false).await.unwrap();
        fs.release(made.ino, opened.handle).await.unwrap();
        end(rig, volume, fs).await;
    });
}

#[test]
fn what_is_moved_leaves_dirty_data_its_room() {
    run(async {
        let mut rig = Rig::new(4, 6);
        rig.config.limits.flush_age_ms = 600_000;
        rig.config.limits.reserve_percent = 1;
        rig.format("4+2").await.unwrap();
        let volume = rig.open().await.unwrap();
        let fs = volume.fs();
        // Three of them on each disk go to twelve short stripes, which become one, and three to the dirty data.
        leave(&rig, 8 << 20);
        tokio::time::sleep(NOTICED).await;
        short_stripes(&fs).await;
        let (made, opened) = fs.create(&root_user(), ROOT_INO, b"f", NEW, O_RDWR).await.unwrap();
        let (block, how) = (vec![9; WRITE_BYTES], WriteHow::default());
        for number in 0..12 {
            let at = number * WRITE_BYTES as u64;
            fs.write(&root_user(), (made.ino, opened.handle), at, &block, how).await.unwrap();
        }
        let used = || (0..6).map(|disk| rig.machine.used_bytes(disk)).max().unwrap();
        let before = used();
        for _ in 0..NOTICED.as_millis() {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if used() > before + (2 << 20) {
                break;
            }
        }
        fs.fsync(made.ino, opened.handle, false).await.unwrap();
        let stripes = || {
            let metadata = volume.status().metadata.unwrap();
            metadata.stripes_by_margin.values().sum::<u64>()
        };
        assert_eq!(
            stripes(),
            13,
            "something was moved before, or the dirty data is not one stripe"
        );
        // With room it is.
        leave(&rig, 8 << 20);
        tokio::time::sleep(NOTICED).await;
        assert!(stripes() < 12, "{} stripes are left", stripes());
        fs.release(made.ino, opened.handle).await.unwrap();
        end(rig, volume, fs).await;
    });
}

/// Makes empty files until an error ends it; answers their names, and the error.
async fn fill_the_metadata(fs: &Fs) -> (Vec<Vec<u8>>, Error) {
    let mut names = Vec::new();
    loop {
        assert!(names.len() < 100_000, "the metadata grows where there is no room");
        let name = format!("{:0200}", names.len()).into_bytes();
        match fs.create(&root_user(), ROOT_INO, &name, NEW, O_RDWR).await {
            Ok((made, opened)) => {
                fs.release(made.ino, opened.handle).await.unwrap();
                fs.forget(made.ino, 1);
                names.push(name);
            }
            Err(error) => return (names, error),
        }
    }
}

/// Twelve files of a megabyte, each synced, so that each has a stripe of its own.
async fn short_stripes(fs: &Fs) -> Vec<(Ino, Vec<u8>)> {
    let mut files = Vec::new();
    for number in 0..12 {
        let name = format!("data{number}").into_bytes();
        let (made, opened) = fs.create(&root_user(), ROOT_INO, &name, NEW, O_RDWR).await.unwrap();
        let (open, how) = ((made.ino, opened.handle), WriteHow::default());
        fs.write(&root_user(), open, 0, &[7; WRITE_BYTES], how).await.unwrap();
        fs.fsync(made.ino, opened.handle, false).await.unwrap();
        fs.release(made.ino, opened.handle).await.unwrap();
        files.push((made.ino, name));
    }
    files
}

/// Twelve files; then every disk has room for `left` bytes more, as when somebody else has filled it.
async fn filled(rig: &Rig, fs: &Fs, left: u64) -> Vec<(Ino, Vec<u8>)> {
    let files = short_stripes(fs).await;
    // What the first writes have left behind is cleaned up.
    tokio::time::sleep(NOTICED).await;
    leave(rig, left);
    files
}

/// Every disk has room for so many bytes more.
fn leave(rig: &Rig, bytes: u64) {
    (0..6).for_each(|disk| rig.machine.full(disk, rig.machine.used_bytes(disk) + bytes));
}

async fn check_names(fs: &Fs, names: &[Vec<u8>]) {
    for name in names {
        let found = fs.lookup(ROOT_INO, name).await.unwrap();
        fs.forget(found.ino, 1);
    }
}

async fn remove_all(fs: &Fs, files: Vec<(Ino, Vec<u8>)>) {
    for (ino, name) in files {
        fs.unlink(ROOT_INO, &name).await.unwrap();
        fs.forget(ino, 1);
    }
}

#[test]
fn metadata_without_room_to_grow_lets_files_be_removed() {
    run(async {
        let (rig, volume, fs) = mounted(4).await;
        let files = filled(&rig, &fs, 4 << 20).await;
        let (mut names, error) = fill_the_metadata(&fs).await;
        assert!(error.is(Posix::NoSpace), "{error}");
        assert!(names.len() > 100, "only {} names fit", names.len());
        leave(&rig, 0);
        volume.sync().await.unwrap();
        tokio::time::sleep(NOTICED).await;
        check_names(&fs, &names).await;
        let status = volume.status();
        let told =
            status.problems.iter().any(|problem| problem.contains("no room for more metadata"));
        assert!(status.state == "degraded" && told, "{status:?}");
        // What only takes away goes on, and gives room.
        remove_all(&fs, files).await;
        fs.unlink(ROOT_INO, &names.remove(0)).await.unwrap();
        volume.sync().await.unwrap();
        tokio::time::sleep(NOTICED).await;
        for name in [&b"after"[..], b"and more"] {
            let (made, opened) =
                fs.create(&root_user(), ROOT_INO, name, NEW, O_RDWR).await.unwrap();
            fs.release(made.ino, opened.handle).await.unwrap();
            names.push(name.to_vec());
        }
        let status = volume.status();
        assert_eq!((&*status.state, status.log.disks.len()), ("healthy", 3), "{status:?}");
        check_names(&fs, &names).await;
        end(rig, volume, fs).await;
    });
}

/// As above, and then the program is killed, or ends in order, before there is room. The next mount has none either.
#[test]
fn a_volume_whose_metadata_has_no_room_to_grow_is_mounted() {
    for (seed, killed) in [(5, true), (6, false)] {
        run(async {
            let (mut rig, volume, fs) = mounted(seed).await;
            let files = filled(&rig, &fs, 4 << 20).await;
            let (names, error) = fill_the_metadata(&fs).await;
            assert!(error.is(Posix::NoSpace), "{error}");
            leave(&rig, LOG_BYTES);
            volume.sync().await.unwrap();
            if killed {
                let cut = rig.machine.crash_states(rig.machine.journal_len(), 8, seed).last();
                drop(fs);
                rig.kill(volume).await;
                rig = rig.after_crash(cut.unwrap().image);
                leave(&rig, LOG_BYTES);
            } else {
                files.iter().for_each(|(ino, _name)| fs.forget(*ino, 1));
                drop(fs);
                volume.shutdown().await.unwrap();
                drop(volume);
            }
            let volume = rig.open().await.unwrap();
            let fs = volume.fs();
            check_names(&fs, &names).await;
            let (more, error) = fill_the_metadata(&fs).await;
            assert!(error.is(Posix::NoSpace), "{error} after {}", more.len());
            let mut again = Vec::new();
            for (_ino, name) in files {
                again.push((fs.lookup(ROOT_INO, &name).await.unwrap().ino, name));
            }
            remove_all(&fs, again).await;
            volume.sync().await.unwrap();
            tokio::time::sleep(NOTICED).await;
            let made = fs.create(&root_user(), ROOT_INO, b"after", NEW, O_RDWR).await;
            let (made, opened) = made.unwrap();
            fs.release(made.ino, opened.handle).await.unwrap();
            assert_eq!(volume.status().state, "healthy");
            check_names(&fs, &names).await;
            end(rig, volume, fs).await;
        });
    }
}

#[test]
fn metadata_grows_elsewhere_where_one_of_its_disks_is_full() {
    run(async {
        let (rig, volume, fs) = mounted(7).await;
        tokio::time::sleep(NOTICED).await;
        let first = volume.status().log.disks[0];
        rig.machine.full(first as usize - 1, rig.machine.used_bytes(first as usize - 1));
        tokio::time::sleep(NOTICED).await;
        let mut names = Vec::new();
        for number in 0..3000 {
            let name = format!("{number:0200}").into_bytes();
            let made = fs.create(&root_user(), ROOT_INO, &name, NEW, O_RDWR).await;
            let (made, opened) = made.unwrap();
            fs.release(made.ino, opened.handle).await.unwrap();
            fs.forget(made.ino, 1);
            names.push(name);
        }
        volume.sync().await.unwrap();
        tokio::time::sleep(NOTICED).await;
        let log = volume.status().log;
        assert!(log.disks.len() == 3 && !log.disks.contains(&first), "{log:?}");
        check_names(&fs, &names).await;
        end(rig, volume, fs).await;
    });
}

/// Files with data, and names made until the metadata could not grow; all synced. No disk has any room then.
async fn without_room(rig: &Rig, volume: &Volume, fs: &Fs) -> (Vec<(Ino, Vec<u8>)>, Vec<Vec<u8>>) {
    let files = filled(rig, fs, 4 << 20).await;
    let (names, error) = fill_the_metadata(fs).await;
    assert!(error.is(Posix::NoSpace), "{error}");
    leave(rig, 0);
    volume.sync().await.unwrap();
    (files, names)
}

/// Whether what changes in the metadata is in the log and in memory only.
fn is_in_memory(volume: &Volume) -> bool {
    let problems = volume.status().problems;
    problems.iter().any(|problem| problem.contains("no room for more metadata"))
}

#[test]
fn redundancy_of_the_metadata_is_not_given_for_room() {
    run(async {
        let (rig, volume, fs) = mounted(8).await;
        let (_files, mut names) = without_room(&rig, &volume, &fs).await;
        tokio::time::sleep(NOTICED).await;
        let roomy = |disk: usize| rig.machine.full(disk, 1 << 40);
        // One of the three that have it could grow.
        roomy(0);
        tokio::time::sleep(NOTICED).await;
        assert!(is_in_memory(&volume));
        assert_eq!(volume.status().log.disks, [1, 2, 3]);
        // With two that could take it, they are three again.
        (3..5).for_each(roomy);
        tokio::time::sleep(NOTICED).await;
        let log = volume.status().log;
        assert!(!is_in_memory(&volume), "{:?}", volume.status());
        assert_eq!(log.disks, [1, 4, 5]);
        let (made, opened) =
            fs.create(&root_user(), ROOT_INO, b"after", NEW, O_RDWR).await.unwrap();
        fs.release(made.ino, opened.handle).await.unwrap();
        names.push(b"after".to_vec());
        volume.sync().await.unwrap();
        // What of it was synced outlives two of them.
        drop(fs);
        rig.kill(volume).await;
        (3..5).for_each(|disk| rig.machine.set_offline(disk, true));
        let volume = rig.open().await.unwrap();
        let fs = volume.fs();
        check_names(&fs, &names).await;
        (3..5).for_each(|disk| rig.machine.set_offline(disk, false));
        tokio::time::sleep(NOTICED).await;
        end(rig, volume, fs).await;
    });
}

#[test]
fn a_disk_is_lost_while_the_metadata_has_no_room() {
    run(async {
        let (rig, volume, fs) = mounted(9).await;
        let (files, names) = without_room(&rig, &volume, &fs).await;
        rig.machine.set_offline(0, true);
        tokio::time::sleep(NOTICED).await;
        assert!(is_in_memory(&volume));
        assert_eq!(volume.status().log.disks, [2, 3], "the others have no room for a copy");
        // The next mount finds no better.
        files.iter().for_each(|(ino, _name)| fs.forget(*ino, 1));
        drop(fs);
        volume.shutdown().await.unwrap();
        drop(volume);
        (0..6).for_each(|disk| rig.machine.full(disk, rig.machine.used_bytes(disk) + LOG_BYTES));
        let volume = rig.open().await.unwrap();
        let fs = volume.fs();
        tokio::time::sleep(NOTICED).await;
        assert!(is_in_memory(&volume), "{:?}", volume.status());
        let states: Vec<_> = volume.status().disks.into_iter().map(|disk| disk.state).collect();
        assert!(!states[1..].contains(&String::from("down")), "{states:?}");
        check_names(&fs, &names).await;
        let mut again = Vec::new();
        for (_ino, name) in files {
            again.push((fs.lookup(ROOT_INO, &name).await.unwrap().ino, name));
        }
        remove_all(&fs, again).await;
        tokio::time::sleep(NOTICED).await;
        rig.machine.set_offline(0, false);
        (0..6).for_each(|disk| rig.machine.full(disk, 1 << 40));
        tokio::time::sleep(NOTICED).await;
        let status = volume.status();
        assert_eq!((&*status.state, status.log.disks.len()), ("healthy", 3), "{status:?}");
        check_names(&fs, &names).await;
        end(rig, volume, fs).await;
    });
}

#[test]
fn a_copy_that_is_lost_is_replaced_where_it_cannot_grow_either() {
    run(async {
        let (rig, volume, fs) = mounted(10).await;
        let (_files, names) = without_room(&rig, &volume, &fs).await;
        tokio::time::sleep(NOTICED).await;
        assert!(is_in_memory(&volume));
        // Room for a copy as it is, and for the log.
        let bytes = rig.machine.contents(0, "meta/state.redb").unwrap().len() as u64;
        rig.machine.full(3, rig.machine.used_bytes(3) + bytes + bytes * 3 / 4);
        rig.machine.set_offline(0, true);
        tokio::time::sleep(NOTICED).await;
        assert!(is_in_memory(&volume), "{:?}", volume.status());
        assert_eq!(volume.status().log.disks, [2, 3, 4]);
        drop(fs);
        rig.kill(volume).await;
        // What there is, is complete with each of them.
        rig.machine.set_offline(1, true);
        rig.machine.set_offline(0, false);
        (0..6).for_each(|disk| rig.machine.full(disk, 1 << 40));
        let volume = rig.open().await.unwrap();
        let fs = volume.fs();
        check_names(&fs, &names).await;
        rig.machine.set_offline(1, false);
        tokio::time::sleep(NOTICED).await;
        assert_eq!(volume.status().state, "healthy", "{:?}", volume.status());
        end(rig, volume, fs).await;
    });
}
