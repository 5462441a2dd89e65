//! The program of all targets: one, for each that is linked takes seconds. IRONFS_FUZZ names the target; without it the names of
//! all are printed. Before it begins it writes the seeds of the target to the directory that IRONFS_FUZZ_SEEDS names, if that is
//! set, where the fuzzer then finds them.
#![no_main]

use ironfs_fuzz::{TARGETS, Target};
use std::sync::LazyLock;

static NAME: LazyLock<String> = LazyLock::new(|| std::env::var("IRONFS_FUZZ").unwrap_or_default());
static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let found = TARGETS.iter().find(|(name, _target)| *name == *NAME);
    found.expect("IRONFS_FUZZ names a target").1
});

fn begin() {
    if NAME.is_empty() {
        for (name, _target) in TARGETS {
            println!("{name}");
        }
        std::process::exit(0);
    }
    LazyLock::force(&TARGET);
    let Some(directory) = std::env::var_os("IRONFS_FUZZ_SEEDS") else { return };
    for (number, seed) in ironfs_fuzz::seeds(&NAME).into_iter().enumerate() {
        let file = std::path::Path::new(&directory).join(format!("seed-{number}"));
        std::fs::write(file, seed).expect("the seeds can be written");
    }
}

libfuzzer_sys::fuzz_target!(init: begin(), |data: &[u8]| {
    let _accepted = TARGET(data);
});
