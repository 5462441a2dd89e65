use super::*;
use crate::limits::{SEGMENT_BYTES, SEGMENTS_PER_CHUNK};

#[test]
fn a_chunk_is_one_stripe() {
    let chunk = vec![SEGMENT_BYTES; usize::from(SEGMENTS_PER_CHUNK)];
    assert_eq!(plan_stripes(&chunk, STRIPE_PAYLOAD_BYTES_MAX), [0..chunk.len()]);
    let more = vec![SEGMENT_BYTES; usize::from(SEGMENTS_PER_CHUNK) + 1];
    assert_eq!(plan_stripes(&more, u64::MAX), [0..chunk.len(), chunk.len()..more.len()]);
}

#[test]
fn slots_are_bounded() {
    let most = SLOTS_PER_STRIPE_MAX as usize;
    assert_eq!(plan_stripes(&vec![1; most + 2], u64::MAX), [0..most, most..most + 2]);
}

#[test]
fn nothing_is_no_stripe_and_a_small_bound_is_one_each() {
    assert!(plan_stripes(&[], u64::MAX).is_empty());
    assert_eq!(plan_stripes(&[10, 20, 30], 1), [0..1, 1..2, 2..3]);
    assert_eq!(plan_stripes(&[64, 64, 64], 256), [0..2, 2..3]);
}
