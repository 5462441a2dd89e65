//! How much of the stripes each disk is to hold, so that all of them fill up together. Arithmetic on a tree of domains.
//!
//! A stripe puts at most one shard on a disk, and at most so many into a domain. So if every stripe takes n disks and T
//! of them fit, disk i with room for c shards holds min(c, T) at most, and a domain its limit times T. T is the largest
//! number for which the disks hold n T in all: *water filling*. The share of a disk is the part of the stripes that it
//! has a shard of, min(c / T, 1), with a lower level of water for a domain that would overflow its limit. Only sums,
//! products and quotients are used, which IEEE 754 rounds alike everywhere.

use super::domains::{Domains, Limits};

/// Halvings of a search: weights differ by 64 bits at most, and 53 more are all that a number can tell.
const HALVINGS: usize = 120;
/// A weight times its inverse may be less than one by the last bit: so much more makes a whole share of each.
const SLACK: f64 = 1.0 + 4.0 * f64::EPSILON;

/// A disk, or a domain with what stands in it.
#[derive(Debug)]
enum Tree {
    /// A disk by its place in the list, and its weight.
    Disk(usize, f64),
    /// The most shards of a stripe that it may hold, and its parts.
    Domain(f64, Vec<Self>),
}

impl Tree {
    /// Shards of each stripe that it holds when a disk of weight w holds `scale * w`.
    fn held(&self, scale: f64) -> f64 {
        match self {
            Self::Disk(_at, weight) => (weight * scale).min(1.0),
            Self::Domain(most, parts) => sum(parts, scale).min(*most),
        }
    }

    /// Tells each disk its share under `scale`, lowered where a domain would overflow.
    fn tell(&self, scale: f64, highest: f64, shares: &mut [f64]) {
        match self {
            Self::Disk(at, weight) => {
                if let Some(share) = shares.get_mut(*at) {
                    *share = (weight * scale).min(1.0);
                }
            }
            Self::Domain(most, parts) => {
                let over = sum(parts, scale) > *most;
                let scale = if over { scale_for(parts, *most, highest) } else { scale };
                parts.iter().for_each(|part| part.tell(scale, highest, shares));
            }
        }
    }
}

fn sum(parts: &[Tree], scale: f64) -> f64 {
    parts.iter().map(|part| part.held(scale)).sum()
}

/// The least scale, up to `highest`, at which the parts hold `amount`.
fn scale_for(parts: &[Tree], amount: f64, highest: f64) -> f64 {
    let (mut low, mut high) = (0.0, highest);
    for _halving in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if sum(parts, middle) >= amount { high = middle } else { low = middle }
    }
    high
}

/// The disks as a tree, and the scale at which each with any weight has a share of 1.
fn tree(weights: &[f64], domains: &[Domains], limits: &Limits) -> (Tree, f64) {
    let [zone, rack, node] = limits.levels.map(as_float);
    let all: Vec<(usize, Domains)> = domains.iter().copied().enumerate().collect();
    let same = |level: usize| {
        move |a: &(usize, Domains), b: &(usize, Domains)| a.1.get(level) == b.1.get(level)
    };
    let disk = |(at, _domains): &(usize, Domains)| {
        Tree::Disk(*at, weights.get(*at).copied().unwrap_or(0.0))
    };
    let nodes = |part: &[(usize, Domains)]| {
        let parts = part.chunk_by(same(2));
        parts.map(|part| Tree::Domain(node, part.iter().map(disk).collect())).collect()
    };
    let racks = |part: &[(usize, Domains)]| {
        let parts = part.chunk_by(same(1));
        parts.map(|part| Tree::Domain(rack, nodes(part))).collect()
    };
    let zones = all.chunk_by(same(0)).map(|part| Tree::Domain(zone, racks(part))).collect();
    let least = weights.iter().copied().filter(|weight| *weight > 0.0).fold(f64::MAX, f64::min);
    (Tree::Domain(f64::MAX, zones), least.recip() * SLACK)
}

/// The share of each disk when each stripe takes `n` of them. Without any weight all disks are equal.
pub(super) fn shares(weights: &[u64], domains: &[Domains], limits: &Limits, n: usize) -> Vec<f64> {
    let equal = weights.iter().all(|weight| *weight == 0);
    let weights: Vec<f64> =
        weights.iter().map(|weight| if equal { 1.0 } else { float(*weight) }).collect();
    let mut shares = vec![0.0; weights.len()];
    let (tree, highest) = tree(&weights, domains, limits);
    let scale = level(&tree, n, highest);
    tree.tell(scale, highest, &mut shares);
    shares
}

/// Stripes that fit: what one disk with a shard of each would hold, in the unit of `rooms`.
pub(super) fn height(rooms: &[u64], domains: &[Domains], limits: &Limits, n: usize) -> f64 {
    if rooms.iter().all(|room| *room == 0) {
        return 0.0;
    }
    let weights: Vec<f64> = rooms.iter().copied().map(float).collect();
    let (tree, highest) = tree(&weights, domains, limits);
    // With fewer disks than shards each stripe takes them all, the empty one too.
    if tree.held(highest) < as_float(n.min(rooms.len())) {
        return 0.0;
    }
    level(&tree, n, highest).recip()
}

fn level(tree: &Tree, n: usize, highest: f64) -> f64 {
    scale_for(std::slice::from_ref(tree), as_float(n).min(tree.held(highest)), highest)
}

/// A share needs no more than 53 bits.
const fn float(number: u64) -> f64 {
    number as f64
}

fn as_float(count: usize) -> f64 {
    float(u64::try_from(count).unwrap_or(u64::MAX))
}
