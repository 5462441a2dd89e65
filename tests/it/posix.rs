//! What programs expect of a mounted file system, beyond the ready-made suites.

mod data;
mod names;
mod permissions;
mod programs;
mod rules;

use crate::real::Volume;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// A mounted volume; with `IRONFS_LOSE=1` or `2` so many of its disks go away right after, for good.
fn mounted() -> Volume {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    let lost = std::env::var("IRONFS_LOSE").map_or(0, |lost| lost.parse().expect("1 or 2 disks"));
    for disk in volume.disks.iter().take(lost) {
        std::fs::rename(disk, disk.with_extension("away")).unwrap();
    }
    volume
}

/// What a script prints in `place`; it must succeed.
fn printed(interpreter: &str, script: &str, place: &Path) -> String {
    let output =
        Command::new(interpreter).args(["-c", script]).current_dir(place).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Runs `script` in a directory of the mount and in one of the local file system, both open to everybody; it must print
/// the same.
fn same_as_local(interpreter: &str, script: &str) {
    let volume = mounted();
    let local = tempfile::tempdir().unwrap();
    let (ours, theirs) = (volume.mnt().join("here"), local.path().join("here"));
    for place in [&ours, &theirs] {
        std::fs::create_dir(place).unwrap();
        std::fs::set_permissions(place, Permissions::from_mode(0o777)).unwrap();
    }
    for above in [local.path(), volume.root(), &volume.mnt()] {
        std::fs::set_permissions(above, Permissions::from_mode(0o755)).unwrap();
    }
    let expected = printed(interpreter, script, &theirs);
    assert!(expected.lines().count() > 3, "the script says nothing: {expected}");
    assert_eq!(printed(interpreter, script, &ours), expected);
    volume.umount();
    volume.fsck();
}

/// The number of an error.
fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.expect_err("an error").raw_os_error().expect("an error of the system")
}
