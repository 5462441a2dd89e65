//! Disks that go away in process: every pair of six, and then a third one. Content stays right, writes go on, and
//! beyond what the class survives there are errors and never wrong bytes.

use crate::compare::{Checked, first_difference, root_user};
use crate::rig::{Rig, run};
use crate::sim::disk::SimRng;
use ironfs::error::{Error, Result};
use ironfs::fs::Fs;
use ironfs::fs::file::WriteHow;
use ironfs::fs::namespace::NewFile;
use ironfs::types::{FileKind, ROOT_INO};
use ironfs::volume::Volume;
use std::sync::Arc;
use std::time::Duration;

const DISKS: usize = 6;
/// Inline, packed, one row, several rows, more than a chunk.
const SIZES: [usize; 5] = [100, 4096, 70_000, 300_000, 34_000_000];
const O_RDWR: i32 = 0o2;
const O_NOATIME: i32 = 0o1_000_000;
const WRITE_BYTES: usize = 1 << 20;
/// Long enough for a disk to be missed, or found again, and for repair.
const NOTICED: Duration = Duration::from_secs(60);

pub(crate) fn content(seed: usize, length: usize) -> Vec<u8> {
    let mut rng = SimRng::new(seed as u64);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&rng.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

pub(crate) async fn write(fs: &Fs, name: &str, bytes: &[u8]) -> Result<()> {
    let (caller, name) = (root_user(), name.as_bytes());
    let new = NewFile { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
    let (made, opened) = fs.create(&caller, ROOT_INO, name, new, O_RDWR).await?;
    let open = (made.ino, opened.handle);
    for (number, piece) in bytes.chunks(WRITE_BYTES).enumerate() {
        let offset = (number * WRITE_BYTES) as u64;
        fs.write(&caller, open, offset, piece, WriteHow::default()).await?;
    }
    let synced = fs.fsync(open.0, open.1, false).await;
    fs.release(open.0, open.1).await?;
    synced
}

/// Whether a file could be read; wrong bytes end the test.
pub(crate) async fn read(fs: &Fs, name: &str, wanted: &[u8]) -> Result<()> {
    let found = fs.lookup(ROOT_INO, name.as_bytes()).await?;
    let opened = fs.open(&root_user(), found.ino, O_NOATIME).await?;
    let mut done = Ok(());
    for (number, piece) in wanted.chunks(WRITE_BYTES).enumerate() {
        let offset = (number * WRITE_BYTES) as u64;
        let size = u32::try_from(piece.len()).unwrap();
        match fs.read(found.ino, opened.handle, offset, size, O_NOATIME).await {
            Ok(bytes) => assert_eq!(first_difference(&bytes, piece), None, "{name} at {offset}"),
            Err(error) => done = Err(error),
        }
    }
    fs.release(found.ino, opened.handle).await?;
    done
}

async fn read_all(fs: &Fs) -> Result<()> {
    let mut done = Ok(());
    for (seed, size) in SIZES.into_iter().enumerate() {
        let read = read(fs, &format!("f{seed}"), &content(seed, size)).await;
        done = done.and(read);
    }
    done
}

fn told(what: &str) -> impl Fn(Error) -> String {
    move |error| format!("{what}: {error}")
}

#[test]
fn every_pair_of_disks_and_a_third() {
    let rig = Rig::new(1, DISKS);
    run(async {
        rig.format("4+2").await.unwrap();
        let volume = rig.open().await.unwrap();
        for (seed, size) in SIZES.into_iter().enumerate() {
            write(&volume.fs(), &format!("f{seed}"), &content(seed, size)).await.unwrap();
        }
        volume.shutdown().await.unwrap();
    });
    rig.machine.settle();
    for first in 0..DISKS {
        for second in first + 1..DISKS {
            let lived = run(pair(&rig, first, second));
            lived.unwrap_or_else(|wrong| panic!("disks {first} and {second}: {wrong}"));
            rig.machine.settle();
        }
    }
}

async fn repair(volume: &Arc<Volume>) -> Checked {
    let report = volume.repair_run().await.map_err(told("repair"))?;
    match report.failures.as_slice() {
        [] => Ok(()),
        failures => Err(format!("repair: {failures:?}")),
    }
}

/// Half of the pairs go while the volume is in use, half before.
async fn pair(rig: &Rig, first: usize, second: usize) -> Checked {
    let away = |away| [first, second].map(|disk| rig.machine.set_offline(disk, away));
    let live = (first + second).is_multiple_of(2);
    if !live {
        away(true);
    }
    let volume = rig.open().await.map_err(told("open"))?;
    let fs = volume.fs();
    if live {
        away(true);
    }
    read_all(&fs).await.map_err(told("read at once"))?;
    let names = [5000, 700_000].map(|size| (format!("{first}-{second}-{size}"), size));
    for (name, size) in &names {
        write(&fs, name, &content(*size, *size)).await.map_err(told("write"))?;
    }
    tokio::time::sleep(NOTICED).await;
    read_all(&fs).await.map_err(told("read later"))?;
    let late = format!("{first}-{second}-late");
    write(&fs, &late, &content(9, 700_000)).await.map_err(told("write later"))?;
    for (name, size) in &names {
        read(&fs, name, &content(*size, *size)).await.map_err(told("read what was written"))?;
    }
    read(&fs, &late, &content(9, 700_000)).await.map_err(told("read what was written late"))?;

    // They come back while the volume is mounted, and two others may go.
    away(false);
    tokio::time::sleep(NOTICED).await;
    repair(&volume).await?;
    let mut others = (0..DISKS).filter(|disk| *disk != first && *disk != second);
    let (third, fourth) = (others.next().unwrap(), others.next().unwrap());
    [third, fourth].into_iter().for_each(|disk| rig.machine.set_offline(disk, true));
    read_all(&fs).await.map_err(told("read with two others away"))?;
    let back = format!("{first}-{second}-back");
    write(&fs, &back, &content(7, 90_000)).await.map_err(told("write with two others away"))?;
    [third, fourth].into_iter().for_each(|disk| rig.machine.set_offline(disk, false));
    tokio::time::sleep(NOTICED).await;
    repair(&volume).await?;

    away(true);
    rig.machine.set_offline(third, true);
    if read_all(&fs).await.is_ok() {
        return Err("everything can be read with three disks away".to_owned());
    }
    drop(fs);
    rig.kill(volume).await;
    away(false);
    rig.machine.set_offline(third, false);

    let volume = rig.open().await.map_err(told("open again"))?;
    let fs = volume.fs();
    tokio::time::sleep(NOTICED).await;
    repair(&volume).await?;
    read_all(&fs).await.map_err(told("read with all disks"))?;
    read(&fs, &late, &content(9, 700_000)).await.map_err(told("read what was late"))?;
    read(&fs, &back, &content(7, 90_000)).await.map_err(told("read what came behind it"))?;
    for name in names.iter().map(|(name, _size)| name).chain([&late, &back]) {
        fs.unlink(ROOT_INO, name.as_bytes()).await.map_err(told("unlink"))?;
    }
    drop(fs);
    volume.shutdown().await.map_err(told("shutdown"))?;
    drop(volume);
    rig.fsck_clean().await.map(drop)
}
