//! Random operations on a volume beside the reference: the same answers, and the same tree after them, whatever
//! maintenance, lost disks and rotten bytes come between.

mod coverage;
mod drive;
mod ops;
mod wrong;

use crate::compare::Checked;
use crate::rig::{Budget, run};
use coverage::Coverage;
use drive::Driver;
use ops::{Op, parse};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Seconds that the harness runs in `cargo test`.
const SECONDS: u64 = 25;
/// Longest wait for one of them, in the time of the history: far above every deadline of the product.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Operations of one history.
const OPS: usize = 120;
/// Histories in which every fault has to meet every state, but for one pair: the rarest, a merge while the disks are full, meets
/// once in about 400.
const MANY: u64 = 300;
/// Histories in which that has to meet, too.
const ALL: u64 = 2000;
/// Histories that the search for a shorter one may try.
const SHRINKS: usize = 300;

/// What it has found before: a sentence behind `#`, the seed of the world, and the operations that were left of it.
const REGRESSIONS: &str = include_str!("model/regressions.txt");

#[test]
fn regressions() {
    let mut histories: Vec<(u64, Vec<Op>)> = Vec::new();
    for line in REGRESSIONS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("seed ") {
            Some(seed) => histories.push((seed.parse().unwrap(), Vec::new())),
            None => histories.last_mut().unwrap().1.push(parse(line).expect(line)),
        }
    }
    assert!(!histories.is_empty());
    for (seed, ops) in histories {
        let ran = history(seed, &ops);
        ran.map(drop).unwrap_or_else(|failure| panic!("{}", told(seed, &ops, &failure)));
    }
}

#[test]
fn model() {
    let budget = Budget::new("model::model", SECONDS);
    let (mut coverage, mut histories) = (Coverage::default(), 0);
    budget.spend(|seed| {
        histories += 1;
        let ops = ops::generate(seed, OPS);
        match history(seed, &ops) {
            Ok(found) => coverage.add(found),
            Err(failure) => return Err(shrink(seed, ops, failure)),
        }
        Ok(())
    });
    let holes = coverage.holes();
    println!("model: pairs of a fault, or of work, and a state that never met: {holes:?}");
    println!("model: the rarest: {:?}", coverage.pairs().iter().take(5).collect::<Vec<_>>());
    let allowed = usize::from(histories < ALL);
    assert!(holes.len() <= allowed || histories < MANY, "{holes:?} never met");
}

/// Runs one history in a world of its own.
fn history(seed: u64, ops: &[Op]) -> Checked<Coverage> {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        run(async {
            let mut driver = Driver::start(seed).await?;
            for (number, op) in ops.iter().enumerate() {
                let done = tokio::time::timeout(PATIENCE, driver.step(op)).await;
                let done = done.unwrap_or_else(|_late| Err("it is never answered".into()));
                done.map_err(|wrong| format!("operation {number}, {op}: {wrong}"))?;
            }
            let done = tokio::time::timeout(PATIENCE, driver.finish()).await;
            done.unwrap_or_else(|_late| Err("the end: it is never reached".into()))
        })
    }));
    ran.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

/// Looks for a shorter history that fails too, and tells it.
fn shrink(seed: u64, mut ops: Vec<Op>, mut failure: String) -> String {
    let mut tries = 0;
    let mut piece = ops.len().div_ceil(2);
    while piece > 0 && tries < SHRINKS {
        let mut start = 0;
        while start < ops.len() && tries < SHRINKS {
            let mut fewer = ops.clone();
            fewer.drain(start..(start + piece).min(ops.len()));
            tries += 1;
            match history(seed, &fewer) {
                Err(again) => (ops, failure) = (fewer, again),
                Ok(_) => start += piece,
            }
        }
        piece /= 2;
    }
    told(seed, &ops, &failure)
}

/// As it is written into the file of regressions.
fn told(seed: u64, ops: &[Op], failure: &str) -> String {
    let list: String = ops.iter().map(|op| format!("{op}\n")).collect();
    format!("{failure}\n{} operations are left of it:\nseed {seed}\n{list}", ops.len())
}
