//! Random operations on a volume beside the reference: the same answers, and the same tree after them, whatever
//! maintenance, lost disks and rotten bytes come between.

mod drive;
mod ops;

use crate::compare::Checked;
use crate::rig::{Budget, run};
use drive::Driver;
use ops::Op;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Seconds that the harness runs in `cargo test`.
const SECONDS: u64 = 40;
/// Operations of one history.
const OPS: usize = 120;
/// Histories that the search for a shorter one may try.
const SHRINKS: usize = 300;

#[test]
fn model() {
    let budget = Budget::new("model::model", SECONDS);
    budget.spend(|seed| {
        let ops = ops::generate(seed, OPS);
        let Err(failure) = history(seed, &ops) else { return Ok(()) };
        Err(shrink(seed, ops, failure))
    });
}

/// Runs one history in a world of its own.
fn history(seed: u64, ops: &[Op]) -> Checked {
    let ran = catch_unwind(AssertUnwindSafe(|| {
        run(async {
            let mut driver = Driver::start(seed).await?;
            for (number, op) in ops.iter().enumerate() {
                let done = driver.step(op).await;
                done.map_err(|wrong| format!("operation {number}, {op:?}: {wrong}"))?;
            }
            driver.finish().await
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
                Ok(()) => start += piece,
            }
        }
        piece /= 2;
    }
    let list: String = ops.iter().map(|op| format!("  {op:?}\n")).collect();
    format!("{failure}\n{} operations are left of it:\n{list}", ops.len())
}
