//! Packing: which segments share a stripe. Pure grouping; knows neither files nor disks.

use crate::limits::{SLOTS_PER_STRIPE_MAX, STRIPE_PAYLOAD_BYTES_MAX};
use crate::stripe::frame::stored_bytes_max;
use std::ops::Range;

#[cfg(test)]
mod tests;

/// Splits segments, given by their raw bytes, into runs that each fit into one stripe of at most
/// `payload_bytes_max` payload bytes, in order and none empty. Compression may make a stripe shorter than planned,
/// never longer. A bound below one segment still gives each segment a stripe of its own.
pub fn plan_stripes(raw_bytes: &[u32], payload_bytes_max: u64) -> Vec<Range<usize>> {
    let bound = payload_bytes_max.min(STRIPE_PAYLOAD_BYTES_MAX);
    let mut stripes = Vec::new();
    let (mut start, mut payload) = (0, 0);
    for (index, bytes) in raw_bytes.iter().enumerate() {
        let frame = stored_bytes_max(*bytes);
        let full = payload + frame > bound || index - start == SLOTS_PER_STRIPE_MAX as usize;
        if full && index > start {
            stripes.push(start..index);
            (start, payload) = (index, 0);
        }
        payload += frame;
    }
    if start < raw_bytes.len() {
        stripes.push(start..raw_bytes.len());
    }
    stripes
}
