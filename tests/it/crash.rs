//! Power cuts: a short workload, the states of the disks that a cut at its sync points can leave, and what production
//! code makes of each. Everything acknowledged is there, names are a prefix, and every page holds one version.

mod bounded;
mod check;
mod workload;

use crate::compare::Checked;
use crate::rig::{Budget, Rig, run};
use crate::sim::disk::{Call, SimRng};
use check::check;
use workload::{Kind, Op, Record, generate, record};

/// Seconds that the harness runs in `cargo test`.
const SECONDS: u64 = 25;
/// Moments of a history at which the power is cut.
const CUTS: u64 = 6;
/// States that are tried of each.
const STATES: usize = 3;
/// Histories within which a planted bug has to be found.
const PLANTED_HISTORIES: u64 = 60;
const CLASS: &str = "2+2";
const DISKS: usize = 5;

#[test]
fn crash() {
    let budget = Budget::new("crash::crash", SECONDS);
    let mut states = 0;
    budget.spend(|seed| {
        let record = recorded(seed, &generate(seed), Plant::Nothing)?;
        states += cuts(seed, &record)?;
        Ok(())
    });
    println!("crash: {states} states after a power cut");
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

/// Runs a workload on a new volume, of every third seed over nodes; the journal of its disks begins with it.
fn recorded(seed: u64, ops: &[Op], plant: Plant) -> Checked<Record> {
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
        record(rig, (&[], ops), &before, plant == Plant::Reclaim).await
    })
}

/// Cuts the power at some moments of a history; answers how many states were tried.
fn cuts(seed: u64, record: &Record) -> Checked<u64> {
    let mut rng = SimRng::new(seed ^ 0x00c0_ffee);
    let points: Vec<usize> = record.rig.machine.sync_points();
    let points: Vec<usize> = points.into_iter().filter(|at| *at >= record.first()).collect();
    let mut tried = 0;
    for _cut in 0..CUTS {
        let any = record.first() as u64
            + rng.below((record.rig.machine.journal_len() - record.first()) as u64 + 1);
        let at = match rng.below(4) {
            0 => usize::try_from(any).unwrap(),
            _ if points.is_empty() => continue,
            _ => points[usize::try_from(rng.below(points.len() as u64)).unwrap()],
        };
        let states = record.rig.machine.crash_states(at, STATES, rng.next());
        for (number, state) in states.enumerate() {
            tried += 1;
            let nested = if rng.below(3) == 0 { Some(rng.next()) } else { None };
            let rig = record.rig.after_crash(state.image);
            // Tidying up takes the longest: it is waited for once in a while.
            let how = (rng.below(5) == 0, nested);
            let checked = run(check(record, at, rig, how));
            checked.map_err(|wrong| {
                let story = record.story(at);
                format!("power cut at {at}, state {number}: {wrong}\n{story}")
            })?;
        }
    }
    Ok(tried)
}

/// The harness must notice a planted bug.
fn notices(plant: Plant) {
    let found = (1..=PLANTED_HISTORIES).find_map(|seed| {
        let ops = match plant {
            Plant::Reclaim => overwrite(),
            _ => generate(seed),
        };
        recorded(seed, &ops, plant).and_then(|record| cuts(seed, &record)).err()
    });
    let found = found.expect("the planted bug has to be found");
    println!("{plant:?}: {}", found.lines().next().unwrap_or_default());
}

/// A file in stripes is written anew and synced.
fn overwrite() -> Vec<Op> {
    let op = |kind| Op { kind, file: 0, other: 0, offset: 0, length: 3_000_000 };
    [Kind::Create, Kind::Write, Kind::Sync, Kind::Write, Kind::Fsync].map(op).to_vec()
}

#[test]
fn notices_file_syncs_that_do_nothing() {
    notices(Plant::Skip(Call::SyncData));
}

#[test]
fn notices_directory_syncs_that_do_nothing() {
    notices(Plant::Skip(Call::SyncDir));
}

#[test]
fn notices_shards_that_go_too_early() {
    notices(Plant::Reclaim);
}
