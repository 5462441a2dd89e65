//! Which fault, and which background work, met which state of a volume: a pair that never meets is a hole in the generator.

use super::ops::Kind;
use crate::work::WORK;
use std::collections::BTreeMap;

/// Operations that are faults, or take them back.
pub(super) const FAULTS: [Kind; 8] = [
    Kind::LoseDisk,
    Kind::ReturnDisk,
    Kind::Rot,
    Kind::FailCalls,
    Kind::SyncAndKill,
    Kind::SyncAndCut,
    Kind::Squeeze,
    Kind::Enlarge,
];

/// What a volume can be in the middle of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Phase {
    /// Data that was written and not put out.
    Dirty,
    /// Data that is in the metadata still.
    Hot,
    /// Shards that are to be repaired.
    Repair,
    /// A disk that is away.
    Away,
    /// Hardly any room.
    Full,
    /// An open file without a name.
    Orphan,
}

const PHASES: [Phase; 6] =
    [Phase::Dirty, Phase::Hot, Phase::Repair, Phase::Away, Phase::Full, Phase::Orphan];

/// How often each fault, and each kind of work, met each phase.
#[derive(Clone, Debug, Default)]
pub(super) struct Coverage(BTreeMap<(String, Phase), u64>);

impl Coverage {
    pub(super) fn note(&mut self, what: &str, phases: &[Phase]) {
        for phase in phases {
            *self.0.entry((what.to_owned(), *phase)).or_default() += 1;
        }
    }

    pub(super) fn add(&mut self, other: Self) {
        for (pair, count) in other.0 {
            *self.0.entry(pair).or_default() += count;
        }
    }

    /// Pairs that never met.
    pub(super) fn holes(&self) -> Vec<String> {
        let holes = self.pairs().into_iter().filter(|(count, _pair)| *count == 0);
        holes.map(|(_count, pair)| pair).collect()
    }

    /// All pairs and how often they met, the rarest first.
    pub(super) fn pairs(&self) -> Vec<(u64, String)> {
        let faults = FAULTS.iter().map(|fault| format!("{fault:?}"));
        let work = WORK.iter().map(|(kind, _series)| (*kind).to_owned());
        let pairs = faults.chain(work).flat_map(|what| PHASES.map(|phase| (what.clone(), phase)));
        let mut pairs: Vec<_> = pairs
            .map(|(what, phase)| {
                let name = format!("{what} while {phase:?}");
                (self.0.get(&(what, phase)).copied().unwrap_or(0), name)
            })
            .collect();
        pairs.sort();
        pairs
    }
}
