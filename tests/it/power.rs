//! The power goes: images of all disks are copied in one instant under load (kill -9 keeps the page cache, this does
//! not), and the copies must mount, check clean and hold everything that was acknowledged before.
//!
//! The disks are XFS on loop devices, whose images lie on an XFS that can copy them by reference. The server is stopped
//! while they are copied, so that the copies are of one instant; what the kernel holds for the disks is lost.

use crate::device::Device;
use crate::real::{Volume, pattern};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Size of one disk: the smallest XFS.
const DISK_MIB: u64 = 320;
/// Size of what holds their images.
const HOLDER_MIB: u64 = 8 * 1024;

/// Copies that are taken; a soak run sets IRONFS_CASES.
fn copies() -> u64 {
    let cases = std::env::var("IRONFS_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(3)
}

fn size_of(number: u64) -> usize {
    1 + usize::try_from(number * 7919 % 300_000).unwrap()
}

/// Writes files, fsyncs each with its name, overwrites an old one and removes another, until `stop`.
fn write(mnt: &Path, stop: &AtomicBool, done: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        let number = done.load(Ordering::SeqCst);
        let mut file = fs::File::create(mnt.join(format!("f{number}"))).unwrap();
        file.write_all(&pattern(number, size_of(number))).unwrap();
        file.sync_all().unwrap();
        fs::File::open(mnt).unwrap().sync_all().unwrap();
        done.store(number + 1, Ordering::SeqCst);
        // Never synced by itself: any version of it may be there, and it makes garbage.
        fs::write(mnt.join("unsynced"), pattern(number, 100_000)).unwrap();
        if number >= KEPT {
            fs::remove_file(mnt.join(format!("f{}", number - KEPT))).unwrap();
        }
    }
}

/// Files that a writer leaves.
const KEPT: u64 = 60;

fn verify(mnt: &Path, done: u64) {
    // One more may have been removed than the last acknowledged file tells.
    for number in (done + 2).saturating_sub(KEPT)..done {
        let read = fs::read(mnt.join(format!("f{number}"))).unwrap();
        assert!(read == pattern(number, size_of(number)), "file {number} was fsynced and differs");
    }
}

/// Copies a file by reference. In this process: a child would wait for the stopped server when it closes the writer's
/// files.
fn clone(from: &Path, to: &Path) {
    let (from, to) = (fs::File::open(from).unwrap(), fs::File::create(to).unwrap());
    rustix::fs::ioctl_ficlone(&to, &from).unwrap();
}

#[test]
fn copies_of_the_disks_under_load_hold_what_was_acknowledged() {
    let mut volume = Volume::prepare(6, &std::env::temp_dir());
    let holder_dir = volume.root().join("holder");
    fs::create_dir(&holder_dir).unwrap();
    let holder = Device::xfs(&volume.root().join("holder.image"), HOLDER_MIB, &holder_dir);
    let image = |disk: usize| holder_dir.join(format!("d{disk}.image"));
    for disk in 0..6 {
        let device = Device::xfs(&image(disk), DISK_MIB, &volume.disks[disk]);
        volume.devices.push(device);
    }
    volume.format_disks("4+2", &[]);
    volume.mount();

    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (mnt, ended, count) = (volume.mnt(), Arc::clone(&stop), Arc::clone(&done));
    let writer = std::thread::spawn(move || write(&mnt, &ended, &count));
    let mut taken = Vec::new();
    for copy in 0..copies() {
        std::thread::sleep(Duration::from_millis(700 + copy * 131 % 900));
        // Sent to the server's process id as it was: a stopped server answers no question.
        let pid = rustix::process::Pid::from_raw(volume.pid()).unwrap();
        let acknowledged = done.load(Ordering::SeqCst);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let copied: Vec<PathBuf> =
            (0..6).map(|disk| holder_dir.join(format!("copy{copy}.{disk}"))).collect();
        for (disk, copied) in copied.iter().enumerate() {
            clone(&image(disk), copied);
        }
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        taken.push((acknowledged, copied));
    }
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    volume.umount();
    volume.fsck();
    for device in std::mem::take(&mut volume.devices) {
        device.unmount();
    }

    let mut least = u64::MAX;
    for (acknowledged, images) in taken {
        let mounted = images.iter().zip(&volume.disks);
        volume.devices = mounted.map(|(image, dir)| Device::mount(image, dir)).collect();
        volume.mount();
        verify(&volume.mnt(), acknowledged);
        volume.umount();
        volume.fsck();
        for device in std::mem::take(&mut volume.devices) {
            device.unmount();
        }
        images.iter().for_each(|image| fs::remove_file(image).unwrap());
        least = least.min(acknowledged);
    }
    drop(holder);
    println!("{} copies, the first with {least} acknowledged files", copies());
}
