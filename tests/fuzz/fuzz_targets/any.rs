//! The program for each target: its name is the target's. Before it begins it writes its seeds to the directory that
//! IRONFS_FUZZ_SEEDS names, if that is set, where the fuzzer then finds them.
#![no_main]

const NAME: &str = env!("CARGO_BIN_NAME");

fn write_seeds() {
    let Some(directory) = std::env::var_os("IRONFS_FUZZ_SEEDS") else { return };
    for (number, seed) in ironfs_fuzz::seeds(NAME).into_iter().enumerate() {
        let file = std::path::Path::new(&directory).join(format!("seed-{number}"));
        std::fs::write(file, seed).expect("the seeds can be written");
    }
}

libfuzzer_sys::fuzz_target!(init: write_seeds(), |data: &[u8]| ironfs_fuzz::run(NAME, data));
