//! What a power cut leaves: all that was synced, and any part of what was not. Knows no live disk.

use super::image::{DiskImage, Op};
use std::sync::Arc;

/// Up to so many operations in doubt, every subset of them is tried.
const EXHAUSTIVE_PENDING_MAX: usize = 10;
/// Torn states that are added per write in doubt when all subsets have been tried.
const TORN_PER_WRITE: usize = 4;

/// Numbers that follow from a seed (SplitMix64, Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct SimRng(u64);

impl SimRng {
    /// The sequence of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What becomes of one operation in doubt.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Choice {
    /// It never reached the medium.
    Lost,
    /// It did.
    Kept,
    /// Of a write, the i-th touched sector did if bit i % 64 is set. Anything else is kept.
    Torn(u64),
}

/// Content of all disks of a machine at one moment. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Image {
    pub(super) disks: Vec<Arc<DiskImage>>,
}

/// One state that a power cut can leave.
#[derive(Clone, Debug)]
pub struct CrashState {
    /// The disks.
    pub image: Image,
    /// What became of the operations in doubt, in the order of the journal: for the message of a failed test.
    pub choices: Vec<Choice>,
}

/// An operation that was under way or done at a power cut.
#[derive(Clone, Debug)]
pub(super) struct TailRecord {
    pub(super) disk: usize,
    pub(super) op: Op,
    pub(super) certain: bool,
}

/// The moment of a power cut: what is certain, and the operations behind it.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    pub(super) base: Vec<Arc<DiskImage>>,
    pub(super) tail: Vec<TailRecord>,
}

impl Cut {
    fn pending(&self) -> impl Iterator<Item = &TailRecord> {
        self.tail.iter().filter(|record| !record.certain)
    }

    /// The state in which `choose` decides about each operation in doubt.
    pub(super) fn state(&self, choose: &mut dyn FnMut(usize, &Op) -> Choice) -> CrashState {
        let mut disks = self.base.clone();
        let mut choices = Vec::new();
        for record in &self.tail {
            let kept = match record.certain {
                true => u64::MAX,
                false => {
                    let choice = choose(record.disk, &record.op);
                    choices.push(choice);
                    match choice {
                        Choice::Lost => continue,
                        Choice::Kept => u64::MAX,
                        Choice::Torn(kept) => kept,
                    }
                }
            };
            if !record.op.is_sync() {
                Arc::make_mut(&mut disks[record.disk]).apply(&record.op, kept);
            }
        }
        let disks = disks.into_iter().map(DiskImage::without_strays).collect();
        CrashState { image: Image { disks }, choices }
    }
}

/// The states that a power cut can leave, at most a limit: every subset of the operations in doubt if these are few,
/// and then some torn writes; else a sample that begins with "nothing" and "everything".
#[derive(Debug)]
pub struct CrashStates {
    cut: Cut,
    rng: SimRng,
    subsets: Option<u64>,
    next: usize,
    count: usize,
}

impl CrashStates {
    pub(super) fn new(cut: Cut, limit: usize, seed: u64) -> Self {
        let pending = cut.pending().count();
        let torn = cut.pending().filter(|record| record.op.can_tear()).count();
        let all = 1_usize.checked_shl(u32::try_from(pending).unwrap_or(u32::MAX));
        let (subsets, count) = match all {
            Some(all) if pending <= EXHAUSTIVE_PENDING_MAX && all <= limit => {
                (Some(super::image::to_u64(all)), limit.min(all + torn * TORN_PER_WRITE))
            }
            _ => (None, limit),
        };
        Self { cut, rng: SimRng::new(seed), subsets, next: 0, count }
    }

    /// Whether every subset of the operations in doubt is among the states.
    pub const fn is_exhaustive(&self) -> bool {
        self.subsets.is_some()
    }
}

impl Iterator for CrashStates {
    type Item = CrashState;

    fn next(&mut self) -> Option<CrashState> {
        if self.next == self.count {
            return None;
        }
        let turn = super::image::to_u64(self.next);
        self.next += 1;
        let rng = &mut self.rng;
        match self.subsets {
            Some(subsets) if turn < subsets => {
                let mut bits = turn;
                Some(self.cut.state(&mut |_disk, _op| {
                    let keep = bits & 1 == 1;
                    bits >>= 1;
                    if keep { Choice::Kept } else { Choice::Lost }
                }))
            }
            None if turn == 0 => Some(self.cut.state(&mut |_disk, _op| Choice::Lost)),
            None if turn == 1 => Some(self.cut.state(&mut |_disk, _op| Choice::Kept)),
            _ => {
                // From "almost nothing" to "almost everything" arrived; a quarter of the writes is torn.
                let odds = 1 + rng.below(15);
                Some(self.cut.state(&mut |_disk, op| match rng.below(16) < odds {
                    _ if op.can_tear() && rng.below(4) == 0 => Choice::Torn(rng.next()),
                    true => Choice::Kept,
                    false => Choice::Lost,
                }))
            }
        }
    }
}
