//! Failure domains: which disks stand in one zone, rack or node, and how many shards of a stripe each may hold. Counts
//! only; knows no weights and no stripe.

use super::Candidate;
use super::policy::{Policy, Rule};
use std::collections::BTreeMap;

/// Kinds of domains, the widest first: zone, rack, node. A rack is in one zone and a node in one rack: names are
/// compared within what is wider.
pub(super) const LEVELS: usize = 3;

/// The domains of one disk, by number: the same number on a level means the same domain.
pub(super) type Domains = [usize; LEVELS];

/// Numbers the domains of `candidates`, which are in the order of `sort_key`.
pub(super) fn number(candidates: &[Candidate]) -> Vec<Domains> {
    let mut current = [0; LEVELS];
    let mut all = Vec::with_capacity(candidates.len());
    for (at, candidate) in candidates.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| candidates.get(at));
        let (own, before) = (names(candidate), before.map(names));
        let differs = before.map_or(0, |before| {
            own.iter().zip(before).position(|(own, before)| *own != before).unwrap_or(LEVELS)
        });
        for (level, place) in current.iter_mut().enumerate() {
            if level >= differs {
                *place = at;
            }
        }
        all.push(current);
    }
    all
}

/// Brings the disks of a domain together.
pub(super) fn sort_key(candidate: &Candidate) -> ([&str; LEVELS], crate::types::DiskId) {
    (names(candidate), candidate.disk)
}

fn names(candidate: &Candidate) -> [&str; LEVELS] {
    let labels = &candidate.labels;
    [&labels.zone, &labels.rack, &labels.node]
}

/// Numbers the values of the key that a class keeps apart; a disk without one stands alone.
pub(super) fn number_apart(candidates: &[Candidate], policy: &Policy) -> Vec<usize> {
    let mut values = BTreeMap::new();
    let own = candidates.iter().enumerate().map(|(at, candidate)| {
        let value = policy.apart.as_ref().and_then(|key| candidate.labels.value(key.as_str()));
        value.map_or(at, |value| *values.entry(value).or_insert(at))
    });
    own.collect()
}

/// How many shards of one stripe each domain may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limits {
    /// A domain of each level.
    pub(super) levels: [usize; LEVELS],
    /// Disks with the same value of the key that a class keeps apart.
    pub(super) apart: usize,
}

impl Limits {
    /// The least that lets `n` shards find a disk each, or one on every disk if these are fewer: first for zones, then
    /// for racks within these, then for nodes. As no other number of shards in the fullest domain can be less, it is at
    /// most m if that is possible at all.
    ///
    /// `local-first` lets each domain hold as many as may be lost.
    pub(super) fn new(
        domains: &[Domains],
        apart: &[usize],
        (n, m): (usize, usize),
        rule: Rule,
    ) -> Self {
        let n = n.min(domains.len());
        let mut levels = [n; LEVELS];
        for level in 0..LEVELS {
            let least = (1..=n).find(|limit| {
                if let Some(place) = levels.get_mut(level) {
                    *place = *limit;
                }
                places(domains, levels) >= n
            });
            if let Some(place) = levels.get_mut(level) {
                *place = least.unwrap_or(n);
            }
        }
        if rule == Rule::LocalFirst {
            levels = levels.map(|limit| limit.max(m));
        }
        let mut sizes = BTreeMap::<usize, usize>::new();
        apart.iter().for_each(|value| *sizes.entry(*value).or_default() += 1);
        let fits = |limit: &usize| sizes.values().map(|size| size.min(limit)).sum::<usize>() >= n;
        Self { levels, apart: (1..=n).find(fits).unwrap_or(n) }
    }
}

/// Shards that find a disk each under `limits`.
fn places(domains: &[Domains], [zone, rack, node]: [usize; LEVELS]) -> usize {
    let nodes = |disks: &[Domains]| {
        disks.chunk_by(|a, b| a[2] == b[2]).map(|disks| disks.len().min(node)).sum::<usize>()
    };
    let racks = |disks: &[Domains]| {
        disks.chunk_by(|a, b| a[1] == b[1]).map(|disks| nodes(disks).min(rack)).sum::<usize>()
    };
    domains.chunk_by(|a, b| a[0] == b[0]).map(|disks| racks(disks).min(zone)).sum()
}

/// Shards that each domain holds while a stripe is placed.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    limits: &'a Limits,
    levels: [Vec<usize>; LEVELS],
    apart: Vec<usize>,
}

impl<'a> Tally<'a> {
    /// No shard yet, of as many domains as there are disks.
    pub(super) fn new(limits: &'a Limits, disks: usize) -> Self {
        let levels = std::array::from_fn(|_level| vec![0; disks]);
        Self { limits, levels, apart: vec![0; disks] }
    }

    /// Whether one more shard fits, when each limit is `extra` higher.
    pub(super) fn fits(&self, domains: &Domains, apart: usize, extra: usize) -> bool {
        let held = self.levels.iter().zip(domains).map(|(held, at)| held[*at]);
        let mut within = held.zip(self.limits.levels).map(|(held, limit)| held < limit + extra);
        within.all(|within| within) && self.apart[apart] < self.limits.apart + extra
    }

    /// One more shard.
    pub(super) fn add(&mut self, domains: &Domains, apart: usize) {
        self.levels.iter_mut().zip(domains).for_each(|(held, at)| held[*at] += 1);
        self.apart[apart] += 1;
    }
}
