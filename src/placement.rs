//! Placement: which disks hold a stripe. A pure function of members, policy and stripe id; its result is recorded,
//! never recomputed for reading.
//!
//! Three steps, each in its own module. `shares` says how many of the stripes each disk is to hold a shard of, so that
//! all disks fill up together. The *ring* orders the disks for each stripe, so that each disk is among the first n as
//! often as its share says. `domains` filters this walk: a disk is passed over while its zone, rack or node holds as
//! many shards of the stripe as it may. These limits lie within each other, so taking the next disk that fits never
//! ends short of n (a laminar matroid: all its bases have one size). With no labels told it filters nothing.
//!
//! # The ring
//!
//! Consistent hashing (Karger et al., STOC 1997) with virtual nodes gives each disk points on a circle, by weight, and
//! a stripe the disks of the points that follow its own. With fixed points a disk's share of the circle is only known to
//! 1 / sqrt(points): measured 25 % off with the usual 128 points for a disk, and 10 % takes 1024. So here the points are
//! drawn anew for each stripe. Of a disk's points only the nearest counts, and how far that is follows one law: one
//! hash of stripe and disk stands for all of them (rendezvous hashing: Thaler and Ravishankar, 1998), and weights need not
//! be rounded to points. A disk that comes or goes moves only what it gains or held, as on any such ring.
//!
//! The distance is that of Pareto sampling (Rosen, J. Stat. Plan. Inference 62, 1997): u (1 - p) / ((1 - u) p) for a
//! hash u and a share p. The n nearest of any number of disks then hold their shares very nearly. The nearest points of
//! a circle do not give that for n > 1: whoever has been taken is out, so large disks get less than they should, and the
//! widest class cannot use the capacity.
//!
//! # Capacity
//!
//! Shares follow the sizes of the disks. A disk whose free space has drifted from what its size alone would have left
//! gets its share by free space until it is back, so disks fill up together whatever the classes and deletions were.

use crate::config::labels::Labels;
use crate::sum::blake3;
use crate::types::{DiskId, StripeId};
use domains::{Domains, Limits, Tally};
use policy::{Policy, Rule};

mod domains;
pub mod policy;
mod shares;
#[cfg(test)]
mod tests;

/// A share by size holds while that by free space differs from it by no more than this part of it.
const DRIFT: f64 = 1.0 / 16.0;
/// How often a walk begins anew, with limits one higher, for spares that are as far apart as can be.
const PASSES: usize = 3;

/// A disk that may hold shards.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// The disk.
    pub disk: DiskId,
    /// Its size in bytes: its part of the stripes follows.
    pub weight: u64,
    /// Bytes that are free, if they are to count.
    pub room: Option<u64>,
    /// Where it stands.
    pub labels: Labels,
}

/// What is asked of a placement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    /// Shards of a stripe.
    pub n: u8,
    /// How many of them may be lost.
    pub m: u8,
    /// Order and anti-affinity.
    pub policy: Policy,
    /// Node that is local.
    pub here: String,
}

/// The placement of the stripes of one kind on one set of disks.
#[derive(Clone, Debug)]
pub struct Ring {
    seats: Vec<Seat>,
    limits: Limits,
    n: usize,
    rule: Rule,
}

/// A disk on the ring.
#[derive(Clone, Debug)]
struct Seat {
    disk: DiskId,
    /// Half of each hash of a stripe and this disk.
    key: u64,
    /// Part of the stripes that it is to hold a shard of.
    share: f64,
    domains: Domains,
    apart: usize,
    /// Whether local disks go first and this is none.
    far: bool,
    /// Its turn when disks take turns.
    turn: usize,
}

/// A disk in the order of one stripe.
#[derive(Clone, Copy, Debug)]
struct Draw {
    far: bool,
    /// Distance from the stripe: the nearest come first.
    distance: f64,
    /// The same, whatever the share.
    plain: f64,
    seat: usize,
}

impl Ring {
    /// The ring of those `candidates` that the policy allows. Their order does not matter, and of two with one id the
    /// first counts.
    pub fn new(candidates: &[Candidate], wanted: &Wanted) -> Self {
        let candidates = usable(candidates, &wanted.policy);
        let (n, m) = (usize::from(wanted.n), usize::from(wanted.m));
        let rule = wanted.policy.rule;
        let domains = domains::number(&candidates);
        let apart = domains::number_apart(&candidates, &wanted.policy);
        let limits = Limits::new(&domains, &apart, (n, m), rule);
        let shares = shares_of(&candidates, &domains, &limits, (n, rule));
        let turns = turns(&domains);
        let seats = candidates.iter().enumerate().map(|(at, candidate)| Seat {
            disk: candidate.disk,
            key: key(b"disk", &candidate.disk.0.to_le_bytes()),
            share: shares.get(at).copied().unwrap_or(0.0),
            domains: domains.get(at).copied().unwrap_or_default(),
            apart: apart.get(at).copied().unwrap_or(at),
            far: rule == Rule::LocalFirst && candidate.labels.node != wanted.here,
            turn: turns.get(at).copied().unwrap_or(at),
        });
        Self { seats: seats.collect(), limits, n, rule }
    }

    /// All its disks in the order of this stripe: the first n hold its shards, in that order, the others are spares.
    /// Each disk appears once. With fewer than n disks all of them are the first.
    pub fn walk(&self, stripe: StripeId) -> Vec<DiskId> {
        let mut order = self.order(stripe, &[], &[]);
        let chosen = order.len().min(self.n);
        // The nearest disk is the first only while shares are equal: a disk that is in each stripe shall not hold the
        // first shard of each.
        if let Some(chosen) = order.get_mut(..chosen) {
            chosen.sort_by(|a, b| a.far.cmp(&b.far).then(a.plain.total_cmp(&b.plain)));
        }
        order.iter().filter_map(|draw| self.seats.get(draw.seat)).map(|seat| seat.disk).collect()
    }

    /// The other disks, but for those of `without`, for a stripe whose shards on `kept` stay where they are: the best
    /// first, so that as many as it lacks keep it as far apart as can be.
    pub fn beside(&self, stripe: StripeId, kept: &[DiskId], without: &[DiskId]) -> Vec<DiskId> {
        let order = self.order(stripe, kept, without);
        order.iter().filter_map(|draw| self.seats.get(draw.seat)).map(|seat| seat.disk).collect()
    }

    /// The part of the stripes that each disk is to hold a shard of.
    pub fn shares(&self) -> impl Iterator<Item = (DiskId, f64)> + '_ {
        self.seats.iter().map(|seat| (seat.disk, seat.share))
    }

    /// The most shards of one stripe that a zone, a rack and a node get while all disks are there.
    pub const fn most_together(&self) -> [usize; 3] {
        self.limits.levels
    }

    /// Whether n disks that are to be kept apart are there.
    pub const fn is_wide_enough(&self) -> bool {
        self.seats.len() >= self.n && self.limits.apart <= 1
    }

    /// Disks by distance, those that do not fit beside others behind those that do.
    fn order(&self, stripe: StripeId, kept: &[DiskId], without: &[DiskId]) -> Vec<Draw> {
        let mut waiting = self.draws(stripe);
        let free = |seat: &Seat| !kept.contains(&seat.disk) && !without.contains(&seat.disk);
        waiting.retain(|draw| self.seats.get(draw.seat).is_some_and(free));
        waiting.sort_unstable_by(|a, b| {
            let nearest = a.far.cmp(&b.far).then(a.distance.total_cmp(&b.distance));
            nearest.then(a.plain.total_cmp(&b.plain)).then(a.seat.cmp(&b.seat))
        });
        let mut tally = Tally::new(&self.limits, self.seats.len());
        for seat in self.seats.iter().filter(|seat| kept.contains(&seat.disk)) {
            tally.add(&seat.domains, seat.apart);
        }
        let mut order = Vec::with_capacity(waiting.len());
        for extra in 0.. {
            // Spares beyond these will hardly be asked.
            if waiting.is_empty() || extra >= PASSES && order.len() >= self.n {
                break;
            }
            waiting.retain(|draw| {
                let Some(seat) = self.seats.get(draw.seat) else { return false };
                let fits = tally.fits(&seat.domains, seat.apart, extra);
                if fits {
                    tally.add(&seat.domains, seat.apart);
                    order.push(*draw);
                }
                !fits
            });
        }
        order.append(&mut waiting);
        order
    }

    fn draws(&self, stripe: StripeId) -> Vec<Draw> {
        let point = key(b"stripe", &stripe.get().to_le_bytes());
        let start = usize::try_from(stripe.get() & u64::from(u32::MAX)).unwrap_or(0);
        let draw = |(at, seat): (usize, &Seat)| {
            let plain = match self.rule {
                Rule::Ring | Rule::LocalFirst => unit(mixed(point ^ seat.key)),
                // A sequence of its own for each stripe, in the order of the list.
                Rule::Random => unit(mixed(point.wrapping_add(STEP.wrapping_mul(at as u64 + 1)))),
                Rule::RoundRobin => {
                    let count = self.seats.len();
                    ((seat.turn + count - start % count) % count) as f64
                }
            };
            let distance = match self.rule {
                Rule::RoundRobin => plain,
                Rule::Ring | Rule::Random | Rule::LocalFirst => distance(plain, seat.share),
            };
            Draw { far: seat.far, distance, plain, seat: at }
        };
        self.seats.iter().enumerate().map(draw).collect()
    }
}

/// Stripes of `wanted` that fit into the `room` of these disks (their weight where it is not told), as what one disk with
/// a shard of each stripe would hold of them.
pub fn height_bytes(candidates: &[Candidate], wanted: &Wanted) -> f64 {
    let candidates = usable(candidates, &wanted.policy);
    let n = usize::from(wanted.n);
    let domains = domains::number(&candidates);
    let apart = domains::number_apart(&candidates, &wanted.policy);
    let limits = Limits::new(&domains, &apart, (n, wanted.m.into()), wanted.policy.rule);
    let rooms: Vec<u64> = candidates.iter().map(|c| c.room.unwrap_or(c.weight)).collect();
    shares::height(&rooms, &domains, &limits, n)
}

/// The allowed candidates, each once, those of one domain together.
fn usable(candidates: &[Candidate], policy: &Policy) -> Vec<Candidate> {
    let allowed = candidates.iter().filter(|candidate| policy.allows(&candidate.labels));
    let mut usable: Vec<Candidate> = allowed.cloned().collect();
    usable.sort_by_key(|candidate| candidate.disk);
    usable.dedup_by_key(|candidate| candidate.disk);
    usable.sort_by(|a, b| domains::sort_key(a).cmp(&domains::sort_key(b)));
    usable
}

/// Shares by size, and by free space where that has drifted.
fn shares_of(
    candidates: &[Candidate],
    domains: &[Domains],
    limits: &Limits,
    (n, rule): (usize, Rule),
) -> Vec<f64> {
    let sizes: Vec<u64> = candidates.iter().map(|candidate| candidate.weight).collect();
    let by_size = shares::shares(&sizes, domains, limits, n);
    if candidates.iter().all(|candidate| candidate.room.is_none()) {
        return by_size;
    }
    let rooms: Vec<u64> = candidates.iter().map(|c| c.room.unwrap_or(c.weight)).collect();
    let by_room = shares::shares(&rooms, domains, limits, n);
    let follow = |(size, room): (f64, f64)| {
        // A disk that has to be in each stripe from now on may miss none.
        let drifted = room >= 1.0 || (size - room).abs() > size * DRIFT;
        if drifted || rule == Rule::Random { room } else { size }
    };
    by_size.into_iter().zip(by_room).map(follow).collect()
}

/// The turn of each disk when they take turns: one of each zone, of each rack in it, of each node in that, so that
/// neighbours are apart.
fn turns(domains: &[Domains]) -> Vec<usize> {
    // Which disk of its node, which node of its rack, which rack of its zone; then which zone.
    let rank = |at: usize, own: &Domains| {
        let first = own.get(2).copied().unwrap_or(at);
        let part = |wide: usize, narrow: usize| {
            let inside = domains.get(own[wide]..=own[narrow]).unwrap_or_default();
            inside.chunk_by(|a, b| a[narrow] == b[narrow]).count()
        };
        [at - first, part(1, 2), part(0, 1), own[0]]
    };
    let mut order: Vec<_> =
        domains.iter().enumerate().map(|(at, own)| (rank(at, own), at)).collect();
    order.sort_unstable();
    let mut turns = vec![0; domains.len()];
    for (turn, (_rank, at)) in order.into_iter().enumerate() {
        if let Some(place) = turns.get_mut(at) {
            *place = turn;
        }
    }
    turns
}

/// A hash of an id; `kind` keeps stripes apart from disks with the same bytes.
fn key(kind: &[u8], id: &[u8]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = blake3(&[kind, id].concat());
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Steps of a Weyl sequence: 2^64 over the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of SplitMix64 (Steele et al., OOPSLA 2014; variant 13 of Stafford): each bit of the input changes half
/// of those of the output.
const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A number between 0 and 1, neither of which it is, from the upper 53 bits.
fn unit(number: u64) -> f64 {
    ((number >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

/// How far a disk is from a stripe.
fn distance(plain: f64, share: f64) -> f64 {
    if share >= 1.0 {
        0.0
    } else if share <= 0.0 {
        f64::INFINITY
    } else {
        plain * (1.0 - share) / ((1.0 - plain) * share)
    }
}
