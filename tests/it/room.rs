//! Room for dirty bytes in process: what a write does when there is little of it, and when there is none.

use crate::compare::root_user;
use crate::rig::{Rig, run};
use ironfs::error::Posix;
use ironfs::fs::Fs;
use ironfs::fs::file::WriteHow;
use ironfs::fs::namespace::NewFile;
use ironfs::types::{FileKind, ROOT_INO};
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
