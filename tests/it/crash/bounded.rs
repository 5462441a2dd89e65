//! All short sequences of operations, in the manner of B3 (Mohan et al., OSDI 2018): each operation may be followed by one
//! that makes something durable, the last one is; the power is cut behind each of these, and on the way.

use super::check::{Depth, check};
use super::workload::{Kind, Op, Record, record};
use super::{CLASS, DISKS};
use crate::compare::Checked;
use crate::rig::{Budget, Rig, run};
use std::sync::atomic::{AtomicU64, Ordering};

/// Seconds that sequences are tried in `cargo test`.
const SECONDS: u64 = 15;
/// States that are tried of each moment: nothing and everything of what was in doubt ...
const STATES: usize = 2;
/// ... and, of one sequence in so many, parts of it.
const PARTS: u64 = 4;
const PARTS_STATES: usize = 4;
/// Of so many states one is also checked before anybody has opened it.
const UNTOUCHED: u64 = 8;
/// Moments of a sequence besides those right behind a sync.
const MOMENTS: usize = 2;

const fn op(kind: Kind, file: usize, other: usize, (offset, length): (usize, usize)) -> Op {
    Op { kind, file, other, offset, length }
}

/// What is there before: `x/a` in a stripe, `y/a` small, and the directory `x/c`. Names 0 to 2 are `x/a` to `x/c`, 3 to 5
/// those in `y`: all that differ by more than the choice of a free name come up.
const EARLIER: [Op; 5] = [
    op(Kind::Create, 0, 0, (0, 0)),
    op(Kind::Write, 0, 0, (0, 70_000)),
    op(Kind::Create, 3, 0, (0, 0)),
    op(Kind::Write, 3, 0, (0, 4096)),
    op(Kind::Mkdir, 2, 0, (0, 0)),
];

const OPS: [Op; 30] = [
    op(Kind::Create, 1, 0, (0, 0)),
    op(Kind::Mkdir, 1, 0, (0, 0)),
    op(Kind::Symlink, 1, 0, (0, 0)),
    op(Kind::Write, 1, 0, (0, 5000)),
    op(Kind::Write, 0, 0, (4096, 8192)),
    op(Kind::Write, 0, 0, (0, 100_000)),
    op(Kind::Write, 3, 0, (0, 4096)),
    op(Kind::WritePages, 0, 0, (8192, 8192)),
    op(Kind::Append, 0, 0, (0, 5000)),
    op(Kind::Append, 3, 0, (0, 300_000)),
    op(Kind::Truncate, 0, 0, (0, 0)),
    op(Kind::Truncate, 0, 0, (0, 66_000)),
    op(Kind::Truncate, 3, 0, (0, 90_000)),
    op(Kind::Fallocate, 0, 0, (60_000, 100_000)),
    op(Kind::Punch, 0, 0, (0, 65_536)),
    op(Kind::Punch, 0, 0, (4096, 5000)),
    op(Kind::SetXattr, 0, 0, (0, 0)),
    op(Kind::Link, 0, 1, (0, 0)),
    op(Kind::Link, 0, 4, (0, 0)),
    op(Kind::Unlink, 0, 0, (0, 0)),
    op(Kind::Unlink, 1, 0, (0, 0)),
    op(Kind::Rmdir, 2, 0, (0, 0)),
    op(Kind::Rename, 0, 1, (0, 0)),
    op(Kind::Rename, 0, 3, (0, 0)),
    op(Kind::Rename, 0, 4, (0, 0)),
    op(Kind::Rename, 1, 0, (0, 0)),
    op(Kind::Rename, 2, 5, (0, 0)),
    op(Kind::Exchange, 0, 3, (0, 0)),
    op(Kind::Exchange, 0, 2, (0, 0)),
    op(Kind::RenameNoReplace, 0, 1, (0, 0)),
];

/// What makes something durable: of the operation's file, of its directory, everything.
const SYNCS: [Kind; 4] = [Kind::Fsync, Kind::Fdatasync, Kind::FsyncDir, Kind::Sync];

/// Number of sequences of `length` operations.
fn count(length: u32) -> u64 {
    let each = OPS.len() as u64 * (SYNCS.len() as u64 + 1);
    // Behind the last one there is always a sync.
    each.pow(length) / (SYNCS.len() as u64 + 1) * SYNCS.len() as u64
}

/// One of them.
fn sequence(length: u32, number: u64) -> Vec<Op> {
    let mut left = number;
    let mut digit = |base: usize| {
        let found = usize::try_from(left % base as u64).unwrap();
        left /= base as u64;
        found
    };
    let mut ops = Vec::new();
    for place in 0..length {
        let op = OPS[digit(OPS.len())];
        ops.push(op);
        let last = place + 1 == length;
        let sync = digit(if last { SYNCS.len() } else { SYNCS.len() + 1 });
        if let Some(kind) = SYNCS.get(sync) {
            // Where the operation has put it, if it has moved it.
            let moved = matches!(op.kind, Kind::Rename | Kind::RenameNoReplace | Kind::Link);
            ops.push(Op { kind: *kind, file: if moved { op.other } else { op.file }, ..op });
        }
    }
    ops
}

/// Runs a sequence and cuts the power; answers how many states were tried, none if one of its operations cannot be done.
fn tried(length: u32, number: u64) -> Checked<u64> {
    let ops = sequence(length, number);
    let recorded: Checked<Record> = run(async {
        let rig = Rig::new(1, DISKS);
        rig.format(CLASS).await.map_err(|error| format!("format: {error}"))?;
        record(rig, (&EARLIER, &ops), &|_rig| {}, false).await
    });
    let record = recorded?;
    let is_core = |op: &Op| !op.kind.is_sync();
    if record.moments.iter().any(|moment| is_core(&moment.op) && !moment.done) {
        return Ok(0);
    }
    let mut cuts: Vec<usize> = record.moments.iter().map(|moment| moment.ends).collect();
    let on_the_way = record.rig.machine.sync_points().into_iter();
    let mut on_the_way: Vec<usize> =
        on_the_way.filter(|at| *at >= record.first() && !cuts.contains(at)).collect();
    let step = on_the_way.len().div_ceil(MOMENTS).max(1);
    cuts.extend(on_the_way.drain(..).skip(usize::try_from(number).unwrap() % step).step_by(step));
    cuts.sort_unstable();
    cuts.dedup();
    let mut states = 0;
    for at in cuts {
        let most = if number.is_multiple_of(PARTS) { PARTS_STATES } else { STATES };
        for (index, state) in record.rig.machine.crash_states(at, most, number).enumerate() {
            states += 1;
            let rig = record.rig.after_crash(state.image);
            let untouched = (number + states).is_multiple_of(UNTOUCHED);
            run(check(&record, at, rig, Depth { untouched, ..Depth::default() })).map_err(
                |wrong| {
                    let story = record.story(at);
                    format!("power cut at {at}, state {index}: {wrong}\n{story}")
                },
            )?;
        }
    }
    Ok(states)
}

/// `IRONFS_BOUNDED=N` runs all sequences of up to N operations, on all processors; else as many of two as there is time for,
/// spread over all of them, and of three when `IRONFS_SOAK_SECS` gives it more. `IRONFS_SEQUENCE=LENGTH:NUMBER` runs one again.
#[test]
fn sequences() {
    let text = |name| std::env::var(name).ok();
    if let Some(one) = text("IRONFS_SEQUENCE") {
        let (length, number) = one.split_once(':').expect("IRONFS_SEQUENCE is LENGTH:NUMBER");
        again(length.parse().expect("a length"), number.parse().expect("a number")).unwrap();
        return;
    }
    match text("IRONFS_BOUNDED").and_then(|most| most.parse().ok()) {
        Some(most) => (1..=most).for_each(all),
        None => some(if text("IRONFS_SOAK_SECS").is_some() { 3 } else { 2 }),
    }
}

/// As `tried`, with what to do about it when it fails.
fn again(length: u32, number: u64) -> Checked<u64> {
    tried(length, number).map_err(|wrong| {
        format!(
            "sequence {length}:{number}: {wrong}\nto run it again:\n  \
             IRONFS_SEQUENCE={length}:{number} cargo test --test it crash::bounded"
        )
    })
}

fn some(length: u32) {
    let total = count(length);
    let budget = Budget::new("crash::bounded::sequences", SECONDS);
    let (mut states, mut sequences) = (0, 0);
    budget.spend(|seed| {
        // A prime step visits all of them, those next to each other far apart.
        let found = again(length, seed.wrapping_mul(1_000_003) % total)?;
        (states, sequences) = (states + found, sequences + u64::from(found > 0));
        Ok(())
    });
    println!(
        "bounded: {sequences} of {total} sequences of {length}, {states} states after a power cut"
    );
    assert!(states > 0);
}

fn all(length: u32) {
    let (total, next) = (count(length), AtomicU64::new(0));
    let (states, sequences) = (AtomicU64::new(0), AtomicU64::new(0));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= total {
                return;
            }
            match again(length, number) {
                Ok(found) => {
                    states.fetch_add(found, Ordering::Relaxed);
                    sequences.fetch_add(u64::from(found > 0), Ordering::Relaxed);
                }
                Err(wrong) => panic!("{wrong}"),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    std::thread::scope(|scope| (0..threads).for_each(|_thread| drop(scope.spawn(work))));
    println!(
        "bounded: all {total} sequences of {length}, {} of which can be done, {} states after a power cut",
        sequences.into_inner(),
        states.into_inner()
    );
}
