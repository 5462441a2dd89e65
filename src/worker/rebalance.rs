//! Rebalance: moves shards to where the ring wants them, after disks were added, have come back, or are to leave. Counts
//! first, so that it can say how far it is. What leaves a disk that drains goes first. Knows no file.

mod moves;
#[cfg(test)]
mod tests;

use super::meter::Meter;
use super::repair::Repair;
use super::throttle::Throttle;
use super::{IDLE_PAUSE, Shards, Step, Worker};
use crate::error::Result;
use crate::meta::client::MetaClient;
use crate::stripe::reader::Presence;
use crate::stripe::writer::Placer;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{DiskId, StripeId};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use moves::{Move, moves};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Stripes of one page.
const PAGE: usize = 256;
/// Shards that are moved at once.
const CONCURRENCY: usize = 4;
/// Stripes of one step whose shards are moved: an unmount waits for one.
const STEP_STRIPES: usize = 8;
/// How often the metadata is looked at without a reason.
const LOOK_PERIOD: Duration = Duration::from_secs(600);
/// Pause after a pass in which something could not be moved.
const RETRY_PAUSE: Duration = Duration::from_secs(30);

/// What rebalance works with.
#[derive(Debug)]
pub struct RebalanceParts {
    /// The metadata.
    pub meta: MetaClient,
    /// Knows the disks.
    pub shards: Shards,
    /// Says where shards belong.
    pub placer: Arc<dyn Placer>,
    /// Moves a shard, in turn with repairs of its stripe.
    pub repair: Arc<Repair>,
    /// Says when.
    pub throttle: Arc<Throttle>,
}

/// Shards to be moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Amount {
    /// How many.
    pub shards: u64,
    /// Bytes of their cells.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.shards += 1;
        self.bytes += bytes;
    }
}

/// How far it is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Still to be moved, by the disk that it leaves; of what drains also what cannot be moved now.
    pub left: BTreeMap<DiskId, Amount>,
    /// Whether `left` is that of a complete look, made since the members changed last.
    pub known: bool,
    /// Moved since the mount.
    pub moved: Amount,
    /// How much of that has left a disk since it drains.
    pub drained: BTreeMap<DiskId, Amount>,
    /// Bytes moved per second, of late.
    pub bytes_per_second: u64,
    /// Why some could not be moved in the latest pass.
    pub trouble: Option<String>,
}

impl Progress {
    /// Disks that drain from now on have given nothing yet, and those that are kept do not drain any more.
    fn note_drains(&mut self, disks: &BTreeMap<DiskId, Presence>) {
        self.drained.retain(|disk, _amount| disks.get(disk) != Some(&Presence::Here));
        for (disk, _leaving) in disks.iter().filter(|(_disk, how)| **how == Presence::Leaving) {
            self.drained.entry(*disk).or_default();
        }
    }

    /// A shard was moved away from a disk.
    fn add(&mut self, from: DiskId, bytes: u64) {
        self.moved.add(bytes);
        if let Some(drained) = self.drained.get_mut(&from) {
            drained.add(bytes);
        }
    }
}

/// Moves shards.
#[derive(Debug)]
pub struct Rebalance {
    parts: RebalanceParts,
    state: Mutex<State>,
    meter: Meter,
    look_again: AtomicBool,
    paused: AtomicBool,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    progress: Progress,
    /// Whether something could not be moved in this pass.
    failed: bool,
    /// Whether somebody else was at something that was to be moved.
    held: bool,
}

#[derive(Debug)]
enum Phase {
    /// Nothing is to be done before.
    Until(Instant),
    /// Stripes up to this one are counted.
    Counting(Option<StripeId>, BTreeMap<DiskId, Amount>),
    /// Shards of stripes up to this one are where they belong, or could not be moved.
    Moving(Option<StripeId>),
}

impl Rebalance {
    /// Rebalances one volume. Only for read-write mounts.
    pub fn new(parts: RebalanceParts) -> Self {
        let state = State {
            phase: Phase::Counting(None, BTreeMap::new()),
            progress: Progress::default(),
            failed: false,
            held: false,
        };
        let (look_again, paused) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { parts, state: Mutex::new(state), meter: Meter::default(), look_again, paused }
    }

    /// The members have changed, or one has come back.
    pub fn look_again(&self) {
        self.look_again.store(true, Ordering::Relaxed);
        self.state().progress.known = false;
    }

    /// Holds it, or lets it go on, until the next mount.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Whether it is held.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress { bytes_per_second: self.meter.rate(), ..self.state().progress.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn next(&self) -> Result<Step> {
        if self.look_again.swap(false, Ordering::Relaxed) {
            self.state().phase = Phase::Counting(None, BTreeMap::new());
        }
        let phase = std::mem::replace(&mut self.state().phase, Phase::Until(Instant::now()));
        match phase {
            Phase::Until(at) if at > Instant::now() => {
                self.state().phase = Phase::Until(at);
                Ok(Step::Idle)
            }
            Phase::Until(_due) => {
                self.state().phase = Phase::Counting(None, BTreeMap::new());
                Ok(Step::Busy)
            }
            Phase::Counting(after, left) => self.count(after, left).map(|()| Step::Busy),
            Phase::Moving(after) => self.move_some(after).await,
        }
    }

    /// Counts one page.
    fn count(&self, after: Option<StripeId>, mut left: BTreeMap<DiskId, Amount>) -> Result<()> {
        let page = self.parts.meta.view()?.stripes(after, PAGE)?;
        let disks = self.parts.shards.disks();
        if after.is_none() {
            self.state().progress.note_drains(&disks);
        }
        for (record, _live) in &page {
            let home = self.parts.placer.home(record.id, record.class);
            let bytes = record.geometry().shard_bytes();
            for found in moves(record, &home, &disks, |disk| self.parts.shards.has_room(disk)) {
                left.entry(found.from).or_default().add(bytes);
            }
        }
        let mut state = self.state();
        state.phase = match page.last() {
            Some((last, _live)) => Phase::Counting(Some(last.id), left),
            None => {
                let nothing = left.is_empty();
                state.progress.left = left;
                state.progress.known = !self.look_again.load(Ordering::Relaxed);
                if nothing {
                    state.progress.trouble = None;
                }
                let failed = std::mem::replace(&mut state.failed, false);
                let held = std::mem::replace(&mut state.held, false);
                let pause = match (nothing, failed, held) {
                    (true, _, _) => Some(LOOK_PERIOD),
                    (false, true, _) => Some(RETRY_PAUSE),
                    (false, false, true) => Some(IDLE_PAUSE),
                    (false, false, false) => None,
                };
                pause.map_or(Phase::Moving(None), |pause| Phase::Until(Instant::now() + pause))
            }
        };
        Ok(())
    }

    /// Moves what is to be moved of the next stripes.
    async fn move_some(&self, after: Option<StripeId>) -> Result<Step> {
        if self.is_paused() {
            self.state().phase = Phase::Moving(after);
            return Ok(Step::Idle);
        }
        let view = self.parts.meta.view()?;
        let page = view.stripes(after, PAGE)?;
        drop(view);
        let Some(end) = page.last().map(|(record, _live)| record.id) else {
            self.state().phase = Phase::Counting(None, BTreeMap::new());
            return Ok(Step::Busy);
        };
        let disks = self.parts.shards.disks();
        let draining = self.is_draining(&disks);
        let (mut work, mut last, mut wait) = (Vec::new(), Some(end), None);
        let (mut before, mut stuck) = (after, false);
        for (record, _live) in page {
            let home = self.parts.placer.home(record.id, record.class);
            let has_room = |disk| self.parts.shards.has_room(disk);
            let mut found = moves(&record, &home, &disks, has_room);
            stuck |= found.iter().any(|found| found.to.is_none());
            let leaves = |disk| disks.get(&disk) == Some(&Presence::Leaving);
            found.retain(|found| found.to.is_some() && (!draining || leaves(found.from)));
            if !found.is_empty() {
                let bytes = record.geometry().shard_bytes();
                let full = work.len() >= STEP_STRIPES;
                wait =
                    if full { None } else { self.parts.throttle.admit(&load(&found, bytes)).err() };
                if full || wait.is_some() {
                    last = before;
                    break;
                }
                work.push((record.id, bytes, found));
            }
            before = Some(record.id);
        }
        let nothing = work.is_empty();
        let moving = work.into_iter().map(|(id, bytes, found)| self.move_stripe(id, bytes, found));
        stream::iter(moving).buffer_unordered(CONCURRENCY).collect::<()>().await;
        if stuck {
            let text = "a disk drains, and no other has room for what it holds: add a disk or delete files";
            self.state().fail(text.into());
        }
        self.state().phase = Phase::Moving(last);
        Ok(match wait.filter(|_wait| nothing) {
            Some(wait) => Step::Throttled(wait.min(IDLE_PAUSE)),
            None => Step::Busy,
        })
    }

    fn is_draining(&self, disks: &BTreeMap<DiskId, Presence>) -> bool {
        let state = self.state();
        state.progress.left.keys().any(|disk| disks.get(disk) == Some(&Presence::Leaving))
    }

    /// Moves shards of one stripe, one after the other. A failure is told by `progress`, and the next pass tries again.
    async fn move_stripe(&self, id: StripeId, bytes: u64, found: Vec<Move>) {
        for Move { index, from, to } in found {
            let Some(to) = to else { continue };
            let moved = self.parts.repair.relocate(id, index, (from, to)).await;
            let mut state = self.state();
            let state = &mut *state;
            if let Some(left) = state.progress.left.get_mut(&from) {
                left.shards = left.shards.saturating_sub(1);
                left.bytes = left.bytes.saturating_sub(bytes);
            }
            match moved {
                Ok(true) => {
                    state.progress.add(from, bytes);
                    self.meter.note(bytes);
                }
                Ok(false) => state.held = true,
                Err(error) => {
                    tracing::debug!(%error, stripe = %id, "a shard could not be moved");
                    state.fail(error.to_string());
                }
            }
        }
    }
}

impl State {
    fn fail(&mut self, trouble: String) {
        self.failed = true;
        self.progress.trouble = Some(trouble);
    }
}

/// What moving reads and writes.
fn load(found: &[Move], bytes: u64) -> Vec<(DiskId, u64)> {
    let disks = found.iter().flat_map(|found| [Some(found.from), found.to]);
    disks.flatten().map(|disk| (disk, bytes)).collect()
}

impl Worker for Rebalance {
    fn name(&self) -> &'static str {
        "rebalance"
    }

    fn step(&self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.next())
    }
}
