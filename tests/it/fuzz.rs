//! Decoders of bytes from outside, over seeds, over what the fuzzer has found, and over changes of both: the targets are
//! those of `tests/fuzz`.

#[path = "../fuzz/src/lib.rs"]
mod targets;

use crate::sim::disk::SimRng;
use std::path::Path;
use std::time::{Duration, Instant};
use targets::{TARGETS, seeds};

/// How long changed inputs are tried, for each target.
const TIME: Duration = Duration::from_millis(500);
/// Longest input that is made.
const BYTES_MAX: usize = 8192;

/// What was found for a target.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let files = std::fs::read_dir(place).into_iter().flatten();
    files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect()
}

/// An input with some bytes changed, cut out, repeated, or of two inputs.
fn changed(rng: &mut SimRng, inputs: &[Vec<u8>]) -> Vec<u8> {
    let mut below = |bound: usize| usize::try_from(rng.below(bound.max(1) as u64)).unwrap();
    let mut bytes = inputs[below(inputs.len())].clone();
    for _change in 0..=below(4) {
        let (at, other) = (below(bytes.len()), below(inputs.len()));
        match below(6) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << below(8),
            1 if !bytes.is_empty() => {
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, u8::try_from(below(256)).unwrap()][below(6)];
            }
            2 => bytes.truncate(at),
            3 => {
                let end = (at + below(16)).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
            4 => {
                let tail = inputs[other].get(at..).unwrap_or_default();
                bytes.splice(at.., tail.iter().copied());
            }
            _ => {
                let end = (at + below(9)).min(bytes.len());
                drop(bytes.drain(at..end));
            }
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

#[test]
fn decoders_answer_or_refuse() {
    for (name, target) in TARGETS {
        let good = seeds(name);
        assert!(!good.is_empty(), "{name} has no seeds");
        for (number, seed) in good.iter().enumerate() {
            assert!(target(seed), "{name} refuses seed {number}");
        }
        let inputs = [good, corpus(name)].concat();
        for input in &inputs {
            let _accepted = target(input);
        }
        let (mut rng, start) = (SimRng::new(1), Instant::now());
        let (mut tried, mut accepted) = (0_u64, 0_u64);
        while start.elapsed() < TIME {
            let input = changed(&mut rng, &inputs);
            accepted += u64::from(target(&input));
            tried += 1;
        }
        println!("{name}: {tried} changed inputs, {accepted} accepted");
        assert!(accepted > 0 && accepted < tried, "{name}: {accepted} of {tried} accepted");
    }
}
