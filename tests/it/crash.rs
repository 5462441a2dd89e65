//! Power cuts: a short workload, the states of the disks that a cut at its sync points can leave, and what production
//! code makes of each. Everything acknowledged is there, names are a prefix, and every page holds one version.

mod bounded;
mod check;
mod moves;
mod workload;

use crate::compare::Checked;
use crate::rig::{Budget, Rig, run};
use crate::sim::disk::{Call, SimRng};
use check::{Depth, check};
use workload::{Kind, Op, Record, generate, record};

/// Seconds that the harness runs in `cargo test`.
const SECONDS: u64 = 20;
/// Moments of a history at which the power is cut.
const CUTS: u64 = 6;
/// States that are tried of each: nothing and everything of what was in doubt, and parts of it.
const STATES: usize = 8;
/// Of one history in so many the power is cut behind every sync.
const DEEP: u64 = 25;
/// States that are tried of each of those: every subset and torn writes, if so many are enough.
const DEEP_STATES: usize = 64;
/// In one of those moments: every subset of up to ten operations.
const DEEPEST_STATES: usize = 1100;
/// Histories within which a planted bug has to be found.
const PLANTED_HISTORIES: u64 = 60;
const CLASS: &str = "2+2";
const DISKS: usize = 5;

#[test]
fn crash() {
    let budget = Budget::new("crash::crash", SECONDS);
    let mut tried = Tried::default();
    budget.spend(|seed| {
        let record = recorded(seed, (&[], &generate(seed)), Plant::Nothing)?;
        cuts(seed, &record, &mut tried)
    });
    let Tried { states, cuts, exhaustive } = tried;
    println!("crash: {states} states after {cuts} power cuts, every subset of {exhaustive}");
    assert!(exhaustive > 0 || !budget.is_long(), "no cut was tried with every subset");
}

/// A bug that a harness has to find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Plant {
    Nothing,
    /// Syncs of this kind do nothing.
    Skip(Call),
    /// Shards go before the commit that forgets them is durable.
    Reclaim,
}

/// Runs a workload behind that of `earlier` on a new volume, of every third seed over nodes; the journal of its disks begins
/// with it.
fn recorded(seed: u64, ops: (&[Op], &[Op]), plant: Plant) -> Checked<Record> {
    run(async {
        let rig = match seed % 3 {
            2 => Rig::over_nodes(seed, DISKS, DISKS).0,
            _ => Rig::new(seed, DISKS),
        };
        rig.format(CLASS).await.map_err(|error| format!("format: {error}"))?;
        let before = |rig: &Rig| {
            if let Plant::Skip(call) = plant {
                (0..DISKS).for_each(|disk| rig.machine.skip_syncs(disk, call, u32::MAX));
            }
        };
        record(rig, ops, &before, plant == Plant::Reclaim).await
    })
}

/// States that were tried, and cuts of which all subsets were among them.
#[derive(Clone, Copy, Default, Debug)]
struct Tried {
    states: u64,
    cuts: u64,
    exhaustive: u64,
}

/// Cuts the power at some moments of a history, of one in `DEEP` behind every sync.
fn cuts(seed: u64, record: &Record, tried: &mut Tried) -> Checked {
    let machine = &record.rig.machine;
    let mut rng = SimRng::new(seed ^ 0x00c0_ffee);
    let mut points: Vec<usize> = machine.sync_points();
    points.retain(|at| *at >= record.first());
    if seed.is_multiple_of(DEEP) && !points.is_empty() {
        let deepest = rng.below(points.len() as u64);
        for (number, at) in (0..).zip(points) {
            let states = if number == deepest { DEEPEST_STATES } else { DEEP_STATES };
            cut(record, at, states, &mut rng, tried)?;
        }
        return Ok(());
    }
    for _cut in 0..CUTS {
        let any =
            record.first() as u64 + rng.below((machine.journal_len() - record.first()) as u64 + 1);
        let at = match rng.below(4) {
            0 => usize::try_from(any).unwrap(),
            _ if points.is_empty() => continue,
            _ => points[usize::try_from(rng.below(points.len() as u64)).unwrap()],
        };
        cut(record, at, STATES, &mut rng, tried)?;
    }
    Ok(())
}

/// Cuts the power before operation `at` of the journal, and checks up to `limit` states that this can leave; if that is not
/// every subset of what is in doubt, no more than `DEEP_STATES`.
fn cut(record: &Record, at: usize, limit: usize, rng: &mut SimRng, tried: &mut Tried) -> Checked {
    let states = record.rig.machine.crash_states(at, limit, rng.next());
    let limit = if states.is_exhaustive() { limit } else { limit.min(DEEP_STATES) };
    tried.cuts += 1;
    tried.exhaustive += u64::from(states.is_exhaustive());
    for (number, state) in states.take(limit).enumerate() {
        tried.states += 1;
        let rig = record.rig.after_crash(state.image);
        let depth = Depth {
            untouched: rng.below(2) == 0,
            nested: if rng.below(3) == 0 { Some(rng.next()) } else { None },
            // Tidying up takes the longest: it is waited for once in a while.
            settles: rng.below(5) == 0,
        };
        run(check(record, at, rig, depth)).map_err(|wrong| {
            let (story, choices) = (record.story(at), state.choices);
            format!("power cut at {at}, state {number}: {wrong}\n{story}of what was in doubt: {choices:?}")
        })?;
    }
    Ok(())
}

/// The harness must notice a planted bug, in one of the histories from `first` on: one of which it is known today.
fn notices(plant: Plant, first: u64) {
    let found = (first..first + PLANTED_HISTORIES).find_map(|seed| {
        let ops = match plant {
            Plant::Reclaim => overwrite(),
            _ => generate(seed),
        };
        let ran = recorded(seed, (&[], &ops), plant);
        let failed = ran.and_then(|record| cuts(seed, &record, &mut Tried::default())).err();
        failed.map(|failure| (seed, failure))
    });
    let (seed, failure) = found.expect("the planted bug has to be found");
    println!("{plant:?}, seed {seed}: {}", failure.lines().next().unwrap_or_default());
}

/// A file in stripes is written anew and synced.
fn overwrite() -> Vec<Op> {
    let op = |kind| Op { kind, file: 0, other: 0, offset: 0, length: 3_000_000 };
    [Kind::Create, Kind::Write, Kind::Sync, Kind::Write, Kind::Fsync].map(op).to_vec()
}

#[test]
fn notices_file_syncs_that_do_nothing() {
    notices(Plant::Skip(Call::SyncData), 1);
}

#[test]
fn notices_shard_syncs_that_do_nothing() {
    notices(Plant::Skip(Call::SyncShard), 15);
}

#[test]
fn notices_directory_syncs_that_do_nothing() {
    notices(Plant::Skip(Call::SyncDir), 15);
}

#[test]
fn notices_shards_that_go_too_early() {
    notices(Plant::Reclaim, 1);
}
