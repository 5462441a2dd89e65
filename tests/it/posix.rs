//! What programs expect of a mounted file system, beyond the ready-made suites.

mod data;
mod names;
mod permissions;
mod programs;
mod rules;

use crate::real::Volume;

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
