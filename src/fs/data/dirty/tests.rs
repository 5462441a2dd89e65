use super::Dirty;
use proptest::prelude::*;
use tokio::time::Instant;

const SPAN: usize = 3 * 65536;

#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize, u8),
    Truncate(usize),
    Remove(u64),
    Clean(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![0..SPAN, (0..24_usize).prop_map(|n| n * 8192)];
    let length = prop_oneof![1..200_usize, 1..SPAN];
    prop_oneof![
        6 => (offset.clone(), length, any::<u8>()).prop_map(|(o, l, b)| Step::Write(o, l, b)),
        1 => offset.prop_map(Step::Truncate),
        1 => (0..3_u64).prop_map(Step::Remove),
        1 => (0..3_u64).prop_map(Step::Clean),
    ]
}

/// What a segment left behind in the model: nothing.
fn forget(model: &mut [Option<u8>], number: u64) {
    let segment = model.chunks_mut(65536).nth(usize::try_from(number).unwrap());
    segment.unwrap().fill(None);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Against an array of bytes, each dirty or not.
    #[test]
    fn behaves_like_an_array(steps in prop::collection::vec(step(), 1..30)) {
        let mut model: Vec<Option<u8>> = vec![None; SPAN];
        let mut dirty = Dirty::default();
        let now = Instant::now();
        let mut total = 0;
        for step in steps {
            match step {
                Step::Write(offset, length, byte) => {
                    let end = (offset + length).min(SPAN);
                    total += dirty.write(offset as u64, &vec![byte; end - offset], now);
                    model[offset..end].fill(Some(byte));
                }
                Step::Truncate(size) => {
                    total -= dirty.truncate(size as u64);
                    model[size..].fill(None);
                }
                Step::Remove(number) => {
                    total -= dirty.remove(number..number + 1);
                    forget(&mut model, number);
                }
                Step::Clean(number) => {
                    let found = dirty.iter().find(|(at, _segment)| *at == number);
                    if let Some(generation) = found.map(|(_at, segment)| segment.generation) {
                        prop_assert_eq!(dirty.clean(number, generation + 1), 0);
                        total -= dirty.clean(number, generation);
                        forget(&mut model, number);
                    }
                }
            }
            prop_assert_eq!(dirty.bytes(), total);
            prop_assert_eq!(total, model.iter().flatten().count() as u64);
            prop_assert_eq!(dirty.is_empty(), total == 0);
            prop_assert_eq!(dirty.since().is_none(), total == 0);
            let mut out = vec![0xee; SPAN];
            for (at, bytes) in dirty.pieces(0..SPAN as u64) {
                out[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            let middle = dirty.pieces(1000..100_000);
            let expected = model[1000..100_000].iter().flatten().count();
            prop_assert_eq!(middle.iter().map(|(_at, bytes)| bytes.len()).sum::<usize>(), expected);
            for (at, byte) in model.iter().enumerate() {
                prop_assert_eq!(out[at], byte.unwrap_or(0xee), "at {}", at);
            }
        }
    }
}

#[test]
fn a_snapshot_keeps_its_bytes() {
    let mut dirty = Dirty::default();
    let now = Instant::now();
    dirty.write(0, &[1; 65536], now);
    let snapshot = dirty.iter().next().unwrap().1.clone();
    dirty.write(10, &[2; 10], now);
    assert_eq!(&snapshot.pieces[0].shared()[..], [1; 65536]);
    assert_eq!(dirty.clean(0, snapshot.generation), 0, "written again since");
}
