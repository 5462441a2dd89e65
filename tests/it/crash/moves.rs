//! Power cuts while workers move data: stripes that are mostly dead or short are emptied, small data is packed, and what they
//! leave is deleted.

use super::workload::{Kind, Moment, Op, Record};
use super::{Plant, STATES, Tried, cut, recorded};
use crate::compare::Checked;
use crate::rig::Budget;
use crate::sim::disk::{Call, SimRng};
use std::collections::BTreeMap;

/// Seconds that the harness runs in `cargo test`.
const SECONDS: u64 = 8;
/// What has to be met by power cuts.
const MOVES: [&str; 3] = ["Clean", "Merge", "Pack"];
/// Moments of a history at which the power is cut.
const CUTS: usize = 5;
/// Files that are there before, each in a stripe of its own: enough short ones to be merged.
const FILES: usize = 5;
/// Rounds of changes and a rest.
const ROUNDS: u64 = 2;
/// Histories within which a planted bug has to be found.
const PLANTED_HISTORIES: u64 = 20;

const fn op(kind: Kind, file: usize, (offset, length): (usize, usize)) -> Op {
    Op { kind, file, other: 5 - file, offset, length }
}

/// Files of two to four segments, one after the other made durable: each too large to stay in the metadata.
fn files(rng: &mut SimRng) -> Vec<Op> {
    let mut ops = Vec::new();
    for file in 0..FILES {
        let length = 65_537 + usize::try_from(rng.below(200_000)).unwrap();
        ops.push(op(Kind::Create, file, (0, 0)));
        ops.push(op(Kind::Write, file, (0, length)));
        ops.push(op(Kind::Fsync, file, (0, 0)));
    }
    ops
}

/// Changes that leave something to move, and time for the workers.
fn changes(rng: &mut SimRng) -> Vec<Op> {
    let mut ops = Vec::new();
    let mut below = |bound: u64| usize::try_from(rng.below(bound)).unwrap();
    for _round in 0..ROUNDS {
        for _change in 0..below(5) {
            let (file, kind) = (below(6), below(8));
            let (offset, length) = (below(4) * 65_536, 1 + below(150_000));
            match kind {
                0 => ops.push(op(Kind::Truncate, file, (0, length))),
                1 => ops.push(op(Kind::Punch, file, (offset, length))),
                2 => ops.push(op(Kind::Unlink, file, (0, 0))),
                3 => ops.push(op(Kind::Rename, file, (0, 0))),
                4 => {
                    ops.push(op(Kind::Write, file, (offset, 65_537 + length)));
                    ops.push(op(Kind::Fsync, file, (0, 0)));
                }
                _ => {
                    // Small enough to go into the metadata; two of them are enough to be packed.
                    for file in [file, 5 - file] {
                        let place = (below(9) * 30_000, 40_000 + below(20_000));
                        ops.push(op(Kind::Write, file, place));
                        ops.push(op(Kind::Fsync, file, (0, 0)));
                    }
                }
            }
        }
        // Looks of the cleaner are 10 s apart, and small data cools down in 30 s.
        let rest = if below(2) == 0 { 11_000 } else { 36_000 };
        ops.push(op(Kind::Rest, 0, (0, rest + below(4000))));
    }
    ops
}

/// Cuts the power at some moments of the rests in which data was moved. Answers how often what was met.
fn cuts(seed: u64, record: &Record, tried: &mut Tried) -> Checked<BTreeMap<&'static str, u64>> {
    let mut rng = SimRng::new(seed ^ 0x00c0_ffee);
    let moves = |moment: &&Moment| moment.work.iter().any(|kind| MOVES.contains(kind));
    let moments: Vec<_> = record.moments.iter().filter(moves).collect();
    let within = |at: &usize| {
        let met = moments.iter().find(|moment| (moment.begins..=moment.ends).contains(at));
        met.map(|moment| (*at, &moment.work))
    };
    let points = record.rig.machine.sync_points();
    let points: Vec<_> = points.iter().filter_map(within).collect();
    let mut met = BTreeMap::new();
    for _cut in 0..CUTS.min(points.len()) {
        let (at, work) = points[usize::try_from(rng.below(points.len() as u64)).unwrap()];
        cut(record, at, STATES, &mut rng, tried)?;
        work.iter().for_each(|kind| *met.entry(*kind).or_default() += 1);
    }
    Ok(met)
}

#[test]
fn moves() {
    let budget = Budget::new("crash::moves::moves", SECONDS);
    let (mut tried, mut met) = (Tried::default(), BTreeMap::<_, u64>::new());
    budget.spend(|seed| {
        let mut rng = SimRng::new(seed);
        let earlier = files(&mut rng);
        let record = recorded(seed, (&earlier, &changes(&mut rng)), Plant::Nothing)?;
        for (kind, count) in cuts(seed, &record, &mut tried)? {
            *met.entry(kind).or_default() += count;
        }
        Ok(())
    });
    let Tried { states, cuts, .. } = tried;
    println!("moves: {states} states after {cuts} power cuts, of which so many met {met:?}");
    let holes: Vec<_> = MOVES.into_iter().filter(|kind| !met.contains_key(kind)).collect();
    assert!(holes.is_empty() || !budget.is_long(), "no cut met {holes:?}");
}

/// The shards that data is moved to are not synced.
#[test]
fn notices_moves_to_shards_that_are_not_synced() {
    let found = (1..=PLANTED_HISTORIES).find_map(|seed| {
        let earlier = files(&mut SimRng::new(seed));
        let rest = [op(Kind::Rest, 0, (0, 15_000))];
        let ran = recorded(seed, (&earlier, &rest), Plant::Skip(Call::SyncShard));
        let failed = ran.and_then(|record| cuts(seed, &record, &mut Tried::default())).err();
        failed.map(|failure| (seed, failure))
    });
    let (seed, failure) = found.expect("the planted bug has to be found");
    println!("seed {seed}: {}", failure.lines().next().unwrap_or_default());
}
