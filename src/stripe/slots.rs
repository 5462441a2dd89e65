//! Slot table of a stripe: the owner and frame of every slot, kept in each shard's footer.

use crate::extent::FrameRef;
use crate::types::SegmentAddress;

/// A slot: which segment its frame held when the stripe was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    /// Owner at the time of writing.
    pub owner: SegmentAddress,
    /// The frame.
    pub frame: FrameRef,
}

/// All slots of a stripe, in payload order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SlotTable {
    /// Slot i is entry i.
    pub slots: Vec<Slot>,
}
