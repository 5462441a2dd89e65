//! File systems on loop devices, so that a disk of a test can fill up, come away, or be copied under load.

use crate::real::{succeed, wait};
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const MIB: u64 = 1 << 20;

/// A file system in an image file, mounted until it is dropped.
pub(crate) struct Device {
    image: PathBuf,
    dir: PathBuf,
}

impl Device {
    /// An ext4 of `mib` MiB, mounted on `dir`.
    pub(crate) fn ext4(image: &Path, mib: u64, dir: &Path) -> Self {
        // Nothing is reserved for root: full means full.
        Self::make("mkfs.ext4", &["-q", "-F", "-m", "0"], image, mib, dir)
    }

    /// An XFS of `mib` MiB (at least 300), mounted on `dir`.
    pub(crate) fn xfs(image: &Path, mib: u64, dir: &Path) -> Self {
        Self::make("mkfs.xfs", &["-q", "-f"], image, mib, dir)
    }

    fn make(mkfs: &str, options: &[&str], image: &Path, mib: u64, dir: &Path) -> Self {
        fs::File::create(image).unwrap().set_len(mib * MIB).unwrap();
        succeed(Command::new(mkfs).args(options).arg(image));
        let device = Self::mount(image, dir);
        // ext4 makes it, and a disk must be empty.
        drop(fs::remove_dir(dir.join("lost+found")));
        device
    }

    /// What an image holds, mounted on `dir`.
    pub(crate) fn mount(image: &Path, dir: &Path) -> Self {
        let device = Self { image: image.to_owned(), dir: dir.to_owned() };
        device.mount_again();
        device
    }

    /// Mounts it after `detach`.
    pub(crate) fn mount_again(&self) {
        succeed(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.dir));
    }

    /// Takes the mount away under whoever uses it.
    pub(crate) fn detach(&self) {
        succeed(Command::new("umount").arg("-l").arg(&self.dir));
    }

    /// Unmounts; waits for children of other tests that still hold copies of descriptors.
    pub(crate) fn unmount(&self) {
        wait("the device is unmounted", || {
            Command::new("umount").arg(&self.dir).output().unwrap().status.success()
        });
    }

    /// Fills it with bytes that are not the volume's, to the last block. Removing the answer ends that.
    pub(crate) fn fill(&self) -> PathBuf {
        let path = self.dir.join("foreign");
        let file = fs::File::create(&path).unwrap();
        let mut at = 0;
        for size in [1usize << 20, 4096] {
            let bytes = vec![0x55; size];
            while file.write_all_at(&bytes, at).is_ok() {
                at += size as u64;
            }
        }
        path
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Best effort: a test that failed half-way must not leave a mount behind.
        drop(Command::new("umount").arg("-l").arg(&self.dir).output());
    }
}
