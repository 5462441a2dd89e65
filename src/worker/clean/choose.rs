//! Which stripes are worth cleaning. Pure; knows no file.

use crate::limits::{SEGMENT_BYTES, STRIPE_PAYLOAD_BYTES_MAX};
use crate::stripe::layout::StripeRecord;
use crate::types::{ClassId, StripeId};
use std::collections::BTreeMap;

#[cfg(test)]
mod tests;

/// Most stripes that one look at all stripes keeps of each kind: bounds memory.
const KEPT_MAX: usize = 1024;
/// Stripes with less payload than this are short.
const SHORT_BYTES: u64 = STRIPE_PAYLOAD_BYTES_MAX / 8;
/// Fewer short stripes are not merged: it would be done over and over for each new one.
const MERGE_MIN: usize = 4;

/// When a stripe is worth cleaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CleanLimits {
    /// Dead part of a stripe, in percent, from which on it is cleaned.
    pub dead_percent: u8,
    /// Dead part of the whole volume, in percent, above which ...
    pub volume_dead_percent: u8,
    /// ... stripes are cleaned from this dead part on.
    pub pressed_dead_percent: u8,
    /// Dead part of a stripe, in percent, from which on it is cleaned while its class is short of room.
    pub scarce_dead_percent: u8,
}

impl Default for CleanLimits {
    /// At one half dead, as much is freed as has to be moved. Moving twenty times what it frees is better than to answer
    /// that a volume is full which is not.
    fn default() -> Self {
        Self {
            dead_percent: 50,
            volume_dead_percent: 25,
            pressed_dead_percent: 20,
            scarce_dead_percent: 5,
        }
    }
}

/// Stripes that are cleaned together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The stripes, all of one class.
    pub stripes: Vec<StripeId>,
    /// Their class.
    pub class: ClassId,
    /// What has to be moved.
    pub live_bytes: u64,
    /// What is free once that is moved and the stripes are deleted.
    pub dead_bytes: u64,
    /// Whether they were chosen because they are short, not because they are dead.
    pub merge: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Found {
    id: StripeId,
    class: ClassId,
    payload: u64,
    live: u64,
}

impl Found {
    const fn dead(&self) -> u64 {
        self.payload - self.live
    }

    /// Sorts the stripe first that frees most for what it costs (cost-benefit of Rosenblum and Ousterhout, TOCS 1992, with
    /// dead / live as its core), the older one first among equals.
    fn rank(&self) -> (u64, StripeId) {
        (self.live * 1000 / self.payload.max(1), self.id)
    }
}

/// Sees every stripe once, then says which to clean.
#[derive(Debug)]
pub(super) struct Chooser {
    limits: CleanLimits,
    payload: u128,
    dead: BTreeMap<ClassId, u64>,
    sparse: Vec<Found>,
    short: BTreeMap<ClassId, Vec<Found>>,
}

impl Chooser {
    pub(super) const fn new(limits: CleanLimits) -> Self {
        Self {
            limits,
            payload: 0,
            dead: BTreeMap::new(),
            sparse: Vec::new(),
            short: BTreeMap::new(),
        }
    }

    /// Takes note of a stripe and of the bytes of its live frames.
    pub(super) fn note(&mut self, record: &StripeRecord, live_bytes: u64, may_merge: bool) {
        let payload = record.payload_bytes;
        let live = live_bytes.min(payload);
        let found = Found { id: record.id, class: record.class_id, payload, live };
        self.payload += u128::from(payload);
        *self.dead.entry(record.class_id).or_default() += found.dead();
        if at_least(found.dead().into(), payload.into(), self.limits.scarce_dead_percent) {
            self.sparse.push(found);
            if self.sparse.len() >= 2 * KEPT_MAX {
                self.shrink();
            }
        }
        if may_merge && payload < SHORT_BYTES {
            let short = self.short.entry(record.class_id).or_default();
            if short.len() < KEPT_MAX {
                short.push(found);
            }
        }
    }

    fn shrink(&mut self) {
        self.sparse.sort_unstable_by_key(Found::rank);
        self.sparse.truncate(KEPT_MAX);
    }

    /// What to clean, the best first. `is_scarce` says whether a class is so short of room that so many dead bytes are
    /// worth much work.
    pub(super) fn choices(mut self, is_scarce: impl Fn(ClassId, u64) -> bool) -> Vec<Choice> {
        self.shrink();
        let limits = self.limits;
        let dead: u128 = self.dead.values().map(|dead| u128::from(*dead)).sum();
        let pressed = at_least(dead, self.payload, limits.volume_dead_percent);
        let usual = if pressed { limits.pressed_dead_percent } else { limits.dead_percent };
        self.dead.retain(|class, dead| is_scarce(*class, *dead));
        let scarce = self.dead;
        let sparse = |found: &Found| {
            let is_scarce = scarce.contains_key(&found.class);
            let percent = if is_scarce { limits.scarce_dead_percent } else { usual };
            at_least(found.dead().into(), found.payload.into(), percent)
        };
        self.sparse.retain(sparse);

        let mut classes: BTreeMap<ClassId, Vec<Found>> = BTreeMap::new();
        for found in self.sparse {
            classes.entry(found.class).or_default().push(found);
        }
        let together = classes.into_values().flat_map(|found| fill(&found));
        let mut choices: Vec<Choice> =
            together.filter_map(|found| Choice::of(&found, false)).collect();
        for (_class, mut short) in self.short {
            short.retain(|found| !sparse(found));
            choices.extend(merge(short));
        }
        choices
    }
}

impl Choice {
    fn of(found: &[Found], merge: bool) -> Option<Self> {
        let class = found.first()?.class;
        let stripes = found.iter().map(|found| found.id).collect();
        let live_bytes = found.iter().map(|found| found.live).sum();
        let dead_bytes = found.iter().map(Found::dead).sum();
        Some(Self { stripes, class, live_bytes, dead_bytes, merge })
    }
}

/// Runs of stripes whose live frames fill one new stripe.
fn fill(found: &[Found]) -> Vec<Vec<Found>> {
    let (mut runs, mut run, mut live) = (Vec::new(), Vec::new(), 0);
    for found in found {
        if live + found.live > STRIPE_PAYLOAD_BYTES_MAX && !run.is_empty() {
            runs.push(std::mem::take(&mut run));
            live = 0;
        }
        live += found.live;
        run.push(*found);
    }
    if !run.is_empty() {
        runs.push(run);
    }
    runs
}

/// Groups of short stripes of like size. Four of a size give one of the next size, so that a segment moves only a few times
/// before its stripe is long enough.
fn merge(short: Vec<Found>) -> impl Iterator<Item = Choice> {
    let mut sizes: BTreeMap<u32, Vec<Found>> = BTreeMap::new();
    for found in short {
        let size = found.live.max(u64::from(SEGMENT_BYTES)).ilog2() / MERGE_MIN.ilog2();
        sizes.entry(size).or_default().push(found);
    }
    let groups = sizes.into_values().flat_map(|mut found| {
        found.sort_unstable_by_key(|found| found.id);
        fill(&found)
    });
    let large = groups.filter(|stripes| stripes.len() >= MERGE_MIN);
    large.filter_map(|found| Choice::of(&found, true))
}

/// Whether `part` is at least so many percent of `whole`.
fn at_least(part: u128, whole: u128, percent: u8) -> bool {
    whole > 0 && part * 100 >= whole * u128::from(percent)
}
