//! Verified segments of compressed frames, kept for reading again. A stripe never changes, so nothing here is ever out
//! of date.

use crate::metrics::Lookups;
use crate::types::{SlotIndex, StripeId};
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

/// What a frame weighs beside its bytes.
const ENTRY_BYTES: u64 = 64;
/// Usual size of an entry: for the size of the table.
const USUAL_BYTES: u64 = 32 * 1024;

#[derive(Clone)]
struct ByLength;

impl Weighter<(StripeId, SlotIndex), Bytes> for ByLength {
    fn weight(&self, _key: &(StripeId, SlotIndex), segment: &Bytes) -> u64 {
        ENTRY_BYTES + segment.len() as u64
    }
}

/// Decompressed segments by stripe and slot.
pub(super) struct FrameCache {
    cache: Cache<(StripeId, SlotIndex), Bytes, ByLength>,
    /// How often it was asked.
    pub(super) lookups: Lookups,
}

impl FrameCache {
    /// Holds at most `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / USUAL_BYTES).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        Self { cache: Cache::with_weighter(items, bytes, ByLength), lookups: Lookups::default() }
    }

    pub(super) fn get(&self, stripe: StripeId, slot: SlotIndex) -> Option<Bytes> {
        let found = self.cache.get(&(stripe, slot));
        self.lookups.note(found.is_some());
        found
    }

    pub(super) fn insert(&self, stripe: StripeId, slot: SlotIndex, segment: Bytes) {
        self.cache.insert((stripe, slot), segment);
    }
}
