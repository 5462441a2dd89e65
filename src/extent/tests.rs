use super::{ChunkMap, FrameRef, Place, less_one};
use crate::format::{FormatError, Reader, Writer};
use crate::limits::{CELL_BYTES, SEGMENT_BYTES, SEGMENTS_PER_CHUNK};
use crate::types::{SegmentIndex, SlotIndex, StripeId, Version};
use proptest::prelude::*;

fn full(stripe: u64, slot: u32) -> Place {
    let frame = FrameRef {
        payload_offset: slot * CELL_BYTES,
        body_bytes: SEGMENT_BYTES,
        raw_bytes: SEGMENT_BYTES,
        compressed: false,
        header_sum: u64::from(slot) << 8 | stripe,
    };
    Place { stripe: StripeId(stripe), slot: SlotIndex(slot), frame, version: Version(7) }
}

fn encoded(map: &ChunkMap) -> Vec<u8> {
    let mut writer = Writer::new();
    map.encode(&mut writer);
    writer.into_vec()
}

fn decoded(bytes: &[u8]) -> Result<ChunkMap, FormatError> {
    let mut reader = Reader::new(bytes);
    let map = ChunkMap::decode(&mut reader)?;
    reader.finish()?;
    Ok(map)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn stored_form_is_pinned() {
    let mut map = ChunkMap::default();
    map.insert(SegmentIndex(3), full(0x0000_0001_0000_0002, 0));
    map.insert(SegmentIndex(4), full(0x0000_0001_0000_0002, 1));
    let mut last = full(0x0000_0001_0000_0002, 2);
    last.frame.body_bytes = 100;
    last.frame.raw_bytes = 1000;
    last.frame.compressed = true;
    map.insert(SegmentIndex(5), last);
    let mut small = full(0x0000_0001_0000_0002, 2);
    (small.frame.body_bytes, small.frame.raw_bytes) = (4096, 4096);
    map.insert(SegmentIndex(511), small);
    let expected = concat!(
        "020300",
        "03000200000200000001000000000007000000000000000000000002000000010000000201000001000000",
        "0500010002020000000100000002000700000000000000800002006300e703010202000001000000",
        "ff0101000102000000010000000200070000000000000080000200ff0f0202000001000000",
    );
    assert_eq!(hex(&encoded(&map)), expected);
    assert_eq!(decoded(&encoded(&map)), Ok(map.clone()));
    // What version 1 wrote of the first two runs.
    let old = [
        &[1, 2, 0, 0, 0][..],
        &[3, 0, 2, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1],
        &[2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0, 1, 0, 0, 0],
        &[5, 0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 128, 0, 2, 0, 0],
        &[100, 0, 0, 0, 232, 3, 0, 0, 1, 2, 2, 0, 0, 1, 0, 0, 0],
    ];
    map.remove(SegmentIndex(511));
    assert_eq!(decoded(&old.concat()), Ok(map));
}

#[test]
fn a_full_chunk_is_one_run() {
    let map: ChunkMap = (0..512).map(|i: u16| (SegmentIndex(i), full(9, u32::from(i)))).collect();
    assert_eq!(encoded(&map).len(), 3 + 27 + 512 * 8);
    assert_eq!(decoded(&encoded(&map)), Ok(map));
}

#[test]
fn an_empty_map_is_three_bytes() {
    assert_eq!(encoded(&ChunkMap::default()), [2, 0, 0]);
    assert_eq!(decoded(&[2, 0, 0]), Ok(ChunkMap::default()));
    assert_eq!(decoded(&[1, 0, 0, 0, 0]), Ok(ChunkMap::default()));
}

/// Encodes one run by hand, so that fields can be wrong.
struct RawRun {
    first: u16,
    count: u16,
    slot: u32,
    offset: u32,
    full: u8,
    frames: Vec<(u32, u32, u8)>,
}

fn run(first: u16, count: u16) -> RawRun {
    RawRun {
        first,
        count,
        slot: 0,
        offset: 0,
        full: 1,
        frames: vec![(0, 0, 0); usize::from(count)],
    }
}

/// Both versions are checked alike.
fn check_runs(runs: &[RawRun], expected: Result<usize, FormatError>) {
    check_old_runs(runs, expected);
    // The lengths of version 2 cannot be zero or beyond a segment.
    let fits = |bytes: &u32| (1..=65536).contains(bytes);
    let mut lengths = runs.iter().filter(|run| run.full == 0).flat_map(|run| &run.frames);
    if !lengths.all(|(body, raw, _compressed)| fits(body) && fits(raw)) {
        return;
    }
    let mut writer = Writer::new();
    writer.u8(2);
    writer.u16(u16::try_from(runs.len()).unwrap());
    for run in runs {
        writer.u16(run.first);
        writer.u16(run.count);
        writer.u8(if run.full == 1 { 0 } else { 2 });
        writer.u64(1);
        writer.u16(u16::try_from(run.slot).unwrap_or(u16::MAX));
        writer.u64(1);
        writer.u32(run.offset);
        for (body, raw, compressed) in &run.frames {
            if run.full == 0 {
                writer.u16(less_one(*body));
                writer.u16(less_one(*raw));
                writer.u8(*compressed);
            }
            writer.u64(0);
        }
    }
    assert_eq!(decoded(writer.as_slice()).map(|map| map.len()), expected);
}

fn check_old_runs(runs: &[RawRun], expected: Result<usize, FormatError>) {
    let mut writer = Writer::new();
    writer.u8(1);
    writer.count(runs.len());
    for run in runs {
        writer.u16(run.first);
        writer.u16(run.count);
        writer.u64(1);
        writer.u32(run.slot);
        writer.u64(1);
        writer.u32(run.offset);
        writer.u8(run.full);
        for (body, raw, compressed) in &run.frames {
            if run.full == 0 {
                writer.u32(*body);
                writer.u32(*raw);
                writer.u8(*compressed);
            }
            writer.u64(0);
        }
    }
    assert_eq!(decoded(writer.as_slice()).map(|map| map.len()), expected);
}

#[test]
fn decode_refuses_what_encode_never_writes() {
    let invalid = |field| Err(FormatError::Invalid(field));
    check_runs(&[run(0, 2), run(2, 1)], Ok(3));
    check_runs(&[run(0, 2), run(1, 1)], invalid("order of runs"));
    check_runs(&[run(5, 1), run(2, 1)], invalid("order of runs"));
    check_runs(&[run(0, 512)], Ok(512));
    check_runs(&[run(511, 2)], invalid("segments of a run"));
    check_runs(&[run(512, 1)], invalid("segments of a run"));
    check_runs(&[run(u16::MAX, u16::MAX)], invalid("segments of a run"));
    check_runs(&[run(0, 0)], invalid("segments of a run"));
    check_runs(&[RawRun { slot: 16 * 1024, ..run(0, 1) }], invalid("slots of a run"));
    check_runs(&[RawRun { slot: u32::MAX, ..run(0, 1) }], invalid("slots of a run"));
    check_runs(&[RawRun { offset: 63, ..run(0, 1) }], invalid("payload offset of a frame"));
    let behind = 512 * CELL_BYTES;
    check_runs(&[RawRun { offset: behind - CELL_BYTES, ..run(0, 1) }], Ok(1));
    check_runs(&[RawRun { offset: behind, ..run(0, 1) }], invalid("payload offset of a frame"));
    check_runs(
        &[RawRun { offset: u32::MAX - 63, ..run(0, 1) }],
        invalid("payload offset of a frame"),
    );
}

#[test]
fn decode_checks_the_lengths_of_frames() {
    let frame = |body, raw, compressed| {
        [RawRun { full: 0, frames: vec![(body, raw, compressed)], ..run(0, 1) }]
    };
    let invalid = |field| Err(FormatError::Invalid(field));
    check_runs(&frame(1, 1, 0), Ok(1));
    check_runs(&frame(65536, 100, 0), Ok(1)); // cut by a truncate
    check_runs(&frame(100, 65536, 1), Ok(1));
    check_runs(&frame(1, 0, 0), invalid("raw length of a frame"));
    check_runs(&frame(1, 65537, 1), invalid("raw length of a frame"));
    check_runs(&frame(0, 1, 0), invalid("body length of a frame"));
    check_runs(&frame(65537, 1, 0), invalid("body length of a frame"));
    check_runs(&frame(100, 101, 0), invalid("raw length of a frame"));
    check_runs(&frame(1, 1, 2), invalid("compressed flag of a frame"));
}

#[test]
fn other_versions_are_named() {
    assert_eq!(decoded(&[0, 0, 0, 0, 0]), Err(FormatError::Invalid("version of a chunk map")));
    assert_eq!(decoded(&[3, 0, 0, 0, 0]), Err(FormatError::Newer { known: 2, found: 3 }));
    assert_eq!(decoded(&[1, 255, 255, 255, 255]), Err(FormatError::Invalid("count of runs")));
    assert_eq!(decoded(&[2, 255, 255]), Err(FormatError::Invalid("count of runs")));
    let shape = [&[2, 1, 0, 0, 0, 1, 0, 3][..], &[0; 40]].concat();
    assert_eq!(decoded(&shape), Err(FormatError::Invalid("shape of a run")));
}

#[test]
fn every_cut_of_a_stored_map_is_refused() {
    let map: ChunkMap = (0..9).map(|i: u16| (SegmentIndex(i * 2), full(9, u32::from(i)))).collect();
    let bytes = encoded(&map);
    for length in 0..bytes.len() {
        assert!(decoded(&bytes[..length]).is_err(), "length {length}");
    }
}

fn place() -> impl Strategy<Value = Place> {
    // Few stripes, versions and sizes, so that neighbours often continue a run.
    (1..3u64, 0..4u32, 1..3u64, 0..4u8, any::<u64>()).prop_map(
        |(stripe, slot, version, shape, sum)| {
            let mut place = full(stripe, slot);
            place.version = Version(version);
            place.frame.header_sum = sum;
            match shape {
                0 => (place.frame.body_bytes, place.frame.compressed) = (5000, true),
                1 => place.frame.raw_bytes = 4000,
                _ => {}
            }
            place
        },
    )
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u16, Place),
    InsertRun(u16, u16, Place),
    Remove(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let segment = prop_oneof![0..8u16, 504..SEGMENTS_PER_CHUNK, 0..SEGMENTS_PER_CHUNK];
    prop_oneof![
        (segment.clone(), place()).prop_map(|(segment, place)| Step::Insert(segment, place)),
        (segment.clone(), 1..40u16, place())
            .prop_map(|(segment, count, place)| Step::InsertRun(segment, count, place)),
        segment.prop_map(Step::Remove),
    ]
}

fn check_same(map: &ChunkMap, naive: &[Option<Place>]) {
    for (segment, expected) in (0..).zip(naive) {
        assert_eq!(map.get(SegmentIndex(segment)), expected.as_ref(), "segment {segment}");
    }
    let listed = (0..).zip(naive).filter_map(|(segment, place)| Some((segment, (*place)?)));
    assert!(map.iter().map(|(segment, place)| (segment.0, *place)).eq(listed));
    assert_eq!(map.len(), naive.iter().flatten().count());
    assert_eq!(map.is_empty(), naive.iter().all(Option::is_none));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_an_array(steps in proptest::collection::vec(step(), 1..40)) {
        let mut map = ChunkMap::default();
        let mut naive = vec![None; usize::from(SEGMENTS_PER_CHUNK)];
        for step in steps {
            match step {
                Step::Insert(at, place) => {
                    prop_assert_eq!(map.insert(SegmentIndex(at), place), naive[usize::from(at)].replace(place));
                }
                Step::InsertRun(at, count, place) => {
                    for i in 0..count.min(SEGMENTS_PER_CHUNK - at) {
                        let mut place = place;
                        place.slot.0 += u32::from(i);
                        place.frame.payload_offset += u32::from(i) * CELL_BYTES;
                        let was = naive[usize::from(at + i)].replace(place);
                        prop_assert_eq!(map.insert(SegmentIndex(at + i), place), was);
                    }
                }
                Step::Remove(at) => {
                    prop_assert_eq!(map.remove(SegmentIndex(at)), naive[usize::from(at)].take());
                }
            }
        }
        check_same(&map, &naive);
        prop_assert_eq!(decoded(&encoded(&map)), Ok(map));
    }

    #[test]
    fn foreign_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), small: bool) {
        if small && bytes.len() > 40 {
            // A plausible head, so that the checks behind it are reached.
            bytes[..3].copy_from_slice(&[2, 1, 0]);
            bytes[4] &= 1;
            bytes[6] = 0;
            bytes[7] &= 3;
        }
        if let Ok(map) = decoded(&bytes) {
            prop_assert_eq!(decoded(&encoded(&map)), Ok(map));
        }
    }

    #[test]
    fn a_frame_round_trips(place in place(), bytes: [u8; FrameRef::STORED_BYTES]) {
        let mut writer = Writer::new();
        place.frame.encode(&mut writer);
        prop_assert_eq!(writer.len(), FrameRef::STORED_BYTES);
        prop_assert_eq!(FrameRef::decode(&mut Reader::new(writer.as_slice())), Ok(place.frame));
        if let Ok(frame) = FrameRef::decode(&mut Reader::new(&bytes)) {
            prop_assert_eq!(frame.check(), Ok(()));
        }
    }
}
