//! What programs expect of a mounted file system, beyond the ready-made suites.

mod data;
mod names;
mod permissions;
mod programs;

use crate::real::Volume;
use std::path::Path;

/// A mounted volume.
fn mounted() -> Volume {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    volume
}

/// The number of an error.
fn errno<T: std::fmt::Debug>(result: std::io::Result<T>) -> i32 {
    result.expect_err("an error").raw_os_error().expect("an error of the system")
}

/// Runs `work` as another user in a child process; answers its result.
fn as_user(uid: u32, gid: u32, groups: &[u32], script: &str, dir: &Path) -> (bool, String) {
    use std::os::unix::process::CommandExt as _;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).current_dir(dir).uid(uid).gid(gid);
    let _ = groups;
    let output = command.output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}
