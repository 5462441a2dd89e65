//! What computes, against a way that is plain to see.

use ironfs::erasure::{Scheme, coder as coder_of};
use ironfs::extent::{ChunkMap, FrameRef, Place};
use ironfs::format::{Reader, Writer};
use ironfs::limits::{SEGMENT_BYTES, SEGMENTS_PER_CHUNK};
use ironfs::types::{SegmentIndex, ShardIndex, SlotIndex, StripeId, Version};

/// Bytes of one step.
const STEP: usize = 8;
/// Steps of one history.
const STEPS_MAX: usize = 200;

/// Maps and drops runs of segments, and compares with an array of segments after each step.
pub(super) fn extents(data: &[u8]) -> bool {
    let count = SEGMENTS_PER_CHUNK as usize;
    let (mut map, mut naive) = (ChunkMap::default(), vec![None; count]);
    let mut steps = 0;
    for step in data.chunks_exact(STEP).take(STEPS_MAX) {
        let first = usize::from(u16::from_le_bytes([step[0], step[1]])) % count;
        let end = (first + usize::from(step[2])).min(count);
        for (number, slot) in naive.iter_mut().enumerate().take(end).skip(first) {
            let segment = SegmentIndex(u16::try_from(number).expect("a chunk has 512 segments"));
            let new = (step[3] % 3 != 0).then(|| place(step, number - first));
            let before = match new {
                Some(place) => map.insert(segment, place),
                None => map.remove(segment),
            };
            assert_eq!(before, std::mem::replace(slot, new));
        }
        steps += 1;
    }
    let mapped = naive.iter().enumerate().filter_map(|(number, place)| Some((number, (*place)?)));
    let found = map.iter().map(|(segment, place)| (usize::from(segment.0), *place));
    assert!(found.eq(mapped));
    assert_eq!(map.len(), naive.iter().flatten().count());
    let mut writer = Writer::new();
    map.encode(&mut writer);
    let mut reader = Reader::new(writer.as_slice());
    assert_eq!(ChunkMap::decode(&mut reader).as_ref(), Ok(&map));
    assert_eq!(reader.finish(), Ok(()));
    steps > 0
}

/// Where the segment `number` of a run lies: runs of whole, short, compressed and cut frames.
fn place(step: &[u8], number: usize) -> Place {
    let number = u16::try_from(number).expect("a chunk has 512 segments");
    let short = 1 + u32::from(step[4]);
    let (body_bytes, raw_bytes, compressed) = match step[3] % 4 {
        0 => (SEGMENT_BYTES, SEGMENT_BYTES, false),
        1 => (short, short, false),
        2 => (short, SEGMENT_BYTES, true),
        _ => (SEGMENT_BYTES, short, false),
    };
    let header_sum = u64::from(step[5]) << 32 | u64::from(number);
    let mut frame = FrameRef { payload_offset: 0, body_bytes, raw_bytes, compressed, header_sum };
    let stored = u32::try_from(frame.stored_bytes()).expect("a frame is small");
    // Below the end of a payload for every run.
    frame.payload_offset = u32::from(number) * stored % (24 << 20) / 64 * 64;
    Place {
        stripe: StripeId(u64::from(step[6] % 4)),
        slot: SlotIndex(u32::from(number)),
        frame,
        version: Version(u64::from(step[7] % 3)),
    }
}

/// Encodes cells, loses some, and computes them anew.
pub(super) fn coder(data: &[u8]) -> bool {
    const SCHEMES: [Scheme; 6] = [
        Scheme::ReedSolomon { k: 2, m: 1 },
        Scheme::ReedSolomon { k: 4, m: 2 },
        Scheme::ReedSolomon { k: 6, m: 3 },
        Scheme::ReedSolomon { k: 10, m: 4 },
        Scheme::ReedSolomon { k: 1, m: 2 },
        Scheme::Replica(3),
    ];
    let Some((head, content)) = data.split_at_checked(4) else { return false };
    let scheme = SCHEMES[usize::from(head[0]) % SCHEMES.len()];
    let (k, m, n) = (usize::from(scheme.k()), usize::from(scheme.m()), usize::from(scheme.n()));
    let length = 64 * (1 + usize::from(head[1]) % 5);
    let mut bytes = content.iter().copied().chain([0]).cycle();
    let data: Vec<Vec<u8>> = (0..k).map(|_cell| bytes.by_ref().take(length).collect()).collect();
    let mut parity = vec![vec![0; length]; m];
    let coder = coder_of(scheme);
    {
        let data: Vec<&[u8]> = data.iter().map(Vec::as_slice).collect();
        let mut parity: Vec<&mut [u8]> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        coder.encode(&data, &mut parity);
    }
    let cells: Vec<&[u8]> = data.iter().chain(&parity).map(Vec::as_slice).collect();
    let mask = u16::from_le_bytes([head[2], head[3]]);
    let lost: Vec<usize> = (0..n).filter(|shard| mask >> shard & 1 == 1).collect();
    let left: Vec<Option<&[u8]>> =
        (0..n).map(|shard| (!lost.contains(&shard)).then(|| cells[shard])).collect();
    let index = |shard: &usize| ShardIndex(u8::try_from(*shard).expect("few shards"));
    let wanted: Vec<ShardIndex> = lost.iter().map(index).collect();
    match coder.reconstruct(&left, &wanted) {
        Ok(found) => {
            assert!(found.iter().eq(lost.iter().map(|shard| cells[*shard])), "{scheme} {lost:?}");
            true
        }
        Err(few) => {
            assert!(lost.len() > m, "{scheme} {lost:?}: {few}");
            false
        }
    }
}
