//! Repair: shards that are missing, damaged, or on a disk that is given up are computed from the others and placed anew,
//! without being asked. What is to be done is in the metadata: stripes that were written without all shards, shards that
//! were noted as bad, disks that are out. A scan of it fills the queue; who meets trouble notes it. Knows no file.

mod queue;
mod stripe;
#[cfg(test)]
mod tests;

use super::meter::Meter;
use super::throttle::Throttle;
use super::{IDLE_PAUSE, Shards, Step, Worker};
use crate::class::Class;
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::meta::client::MetaClient;
use crate::meta::command::Command;
use crate::meta::store::View;
use crate::stripe::layout::StripeRecord;
use crate::stripe::reader::{Presence, StripeReader};
use crate::stripe::writer::Placer;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{DiskId, ShardIndex, StripeId, Timestamp};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use queue::{Due, Queue, outlook};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use stripe::{Outcome, Restorer, Scope};
use tokio::time::Instant;

/// Stripes of one page of a sweep or a scan.
const PAGE: usize = 256;
/// Stripes that wait in memory; when there are more, another scan finds the rest.
const QUEUE_MAX: usize = 64 * 1024;
/// Stripes of one step of the worker: an unmount waits for one.
const STEP_STRIPES: usize = 8;
/// Most failures that a report tells in words.
const FAILURES_MAX: usize = 100;
/// How often the metadata is scanned without a reason.
const SCAN_PERIOD: Duration = Duration::from_secs(600);
/// Wait after the first attempt that failed; it doubles with each.
const RETRY_FIRST: Duration = Duration::from_secs(10);
/// Longest wait between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(3600);

/// The present time.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// How closely shards are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Whether each shard is there, with a footer that belongs to the stripe.
    Shallow,
    /// Every byte of each shard.
    Deep,
}

/// What a sweep did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RepairReport {
    /// Stripes that were looked at.
    pub stripes_checked: u64,
    /// Stripes that had a bad shard.
    pub stripes_touched: u64,
    /// Shards that were placed anew.
    pub shards_restored: u64,
    /// Bytes of the cells of those shards.
    pub bytes_restored: u64,
    /// What could not be done, the first hundred in words.
    pub failures: Vec<String>,
    /// How much could not be done.
    pub failure_count: u64,
}

impl RepairReport {
    fn add(&mut self, outcome: &Outcome) {
        self.stripes_checked += 1;
        self.stripes_touched += u64::from(!outcome.lost.is_empty());
        self.shards_restored += outcome.placed.len() as u64;
        self.bytes_restored += outcome.bytes();
        self.failure_count += outcome.failures.len() as u64;
        let room = FAILURES_MAX.saturating_sub(self.failures.len());
        self.failures.extend(outcome.failures.iter().take(room).map(ToString::to_string));
    }
}

/// What repair works with.
#[expect(missing_debug_implementations, reason = "a clock has nothing to show")]
pub struct RepairParts {
    /// The metadata.
    pub meta: MetaClient,
    /// Computes shards.
    pub reader: StripeReader,
    /// Reaches them.
    pub shards: Shards,
    /// Says where they may go.
    pub placer: Arc<dyn Placer>,
    /// The present time, for what is noted.
    pub now: Now,
    /// Is told of each attempt.
    pub journal: Arc<dyn Journal>,
    /// Says when a stripe may begin.
    pub throttle: Arc<Throttle>,
    /// Stripes that are repaired at once.
    pub concurrency: usize,
}

/// An attempt to restore the shards of a stripe.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// When it began.
    pub time: Timestamp,
    /// The stripe.
    pub stripe: StripeId,
    /// Its policy.
    pub class: Class,
    /// Shards that were absent, damaged or on a disk that is given up.
    pub lost: Vec<ShardIndex>,
    /// Disks with good shards.
    pub sources: Vec<DiskId>,
    /// Shards that were restored, and where.
    pub placed: Vec<(ShardIndex, DiskId)>,
    /// Bytes of the cells of these.
    pub bytes: u64,
    /// How long it took.
    pub duration: Duration,
    /// Why some could not be restored.
    pub error: Option<String>,
    /// The kind of that error.
    pub error_kind: Option<ErrorKind>,
    /// When the next attempt is due.
    pub retry: Option<Timestamp>,
}

/// Keeps what repair did. Does not block.
pub trait Journal: Send + Sync + std::fmt::Debug {
    /// One more attempt has ended.
    fn record(&self, attempt: Attempt);
}

/// Restores redundancy.
pub struct Repair {
    restorer: Restorer,
    now: Now,
    journal: Arc<dyn Journal>,
    throttle: Arc<Throttle>,
    concurrency: usize,
    meter: Meter,
    /// Bytes restored since the mount.
    restored: AtomicU64,
    queue: Mutex<Queue>,
    scan: Mutex<Scan>,
    /// Whether the next scan is due at once.
    look_again: AtomicBool,
    /// Whether somebody holds it.
    paused: AtomicBool,
}

/// Where the scan of the metadata is.
#[derive(Debug)]
enum Scan {
    /// Behind this stripe, since when, and the earliest retry that it met.
    Running { after: Option<StripeId>, retry: Option<Timestamp> },
    /// The next begins then.
    Until(Instant),
}

impl std::fmt::Debug for Repair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repair").field("waiting", &self.queue().len()).finish_non_exhaustive()
    }
}

impl Repair {
    /// Repairs the stripes of one volume. Only for read-write mounts.
    pub fn new(parts: RepairParts) -> Self {
        let RepairParts { meta, reader, shards, placer, now, journal, throttle, concurrency } =
            parts;
        Self {
            restorer: Restorer::new(meta, reader, shards, placer, now.clone()),
            now,
            journal,
            throttle,
            concurrency: concurrency.max(1),
            meter: Meter::default(),
            restored: AtomicU64::new(0),
            queue: Mutex::new(Queue::new(QUEUE_MAX)),
            scan: Mutex::new(Scan::Running { after: None, retry: None }),
            look_again: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        }
    }

    /// Has the metadata scanned: a disk is in use again, or given up.
    pub fn look_again(&self) {
        self.look_again.store(true, Ordering::Relaxed);
    }

    /// Lets stripes wait until it is told to go on, or the volume is mounted again. What is asked for by `sweep` and
    /// `stripe` is done all the same.
    pub fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Whether it is held.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Looks at every byte of one stripe and restores what is not good; with `force` every shard is written anew, one
    /// after the other. `NotFound` if it is not live.
    pub async fn stripe(&self, id: StripeId, force: bool) -> Result<RepairReport> {
        let mut report = RepairReport::default();
        let scope = if force { Scope::Every } else { Scope::All };
        let outcome = self.restore(id, Depth::Deep, scope, None).await?;
        let outcome = outcome.ok_or_else(|| {
            let context = format!("there is no live stripe {id}");
            Error::new(ErrorKind::Posix(Posix::NotFound), context)
        })?;
        report.add(&outcome);
        self.forget_noted(id, &outcome).await?;
        Ok(report)
    }

    /// A stripe that is whole now has nothing noted.
    async fn forget_noted(&self, id: StripeId, outcome: &Outcome) -> Result<()> {
        if outcome.failures.is_empty() && self.view()?.repair(id)?.is_some() {
            let (good, time) = (u64::MAX, (self.now)());
            let note = Command::NoteRepair { stripe: id, good, retry: None, time };
            self.restorer.meta.propose(note).await?;
        }
        Ok(())
    }

    /// Moves a shard, in turn with repairs of its stripe. Answers false if the stripe has changed meanwhile. Must not be
    /// cancelled.
    pub(super) async fn relocate(
        &self,
        id: StripeId,
        index: ShardIndex,
        way: (DiskId, DiskId),
    ) -> Result<bool> {
        self.restorer.relocate(id, index, way).await
    }

    /// Stripes that are known to wait for their repair.
    pub fn waiting(&self) -> usize {
        self.queue().len()
    }

    /// Bytes that these stripes lack, those restored since the mount, and bytes restored per second, of late.
    pub fn progress(&self) -> (u64, u64, u64) {
        (self.queue().bytes(), self.restored.load(Ordering::Relaxed), self.meter.rate())
    }

    /// These shards were found absent or damaged: notes them, so that a crash does not forget them, and has their
    /// stripes repaired soon. At most as many as a command may name.
    pub async fn note(&self, shards: Vec<(StripeId, ShardIndex)>) -> Result<()> {
        let stripes: BTreeSet<StripeId> = shards.iter().map(|(stripe, _shard)| *stripe).collect();
        let mut news = Vec::new();
        {
            let view = self.view()?;
            for (stripe, shard) in shards {
                let noted = view.repair(stripe)?.map_or(0, |entry| entry.bad);
                if noted >> shard.0 & 1 == 0 {
                    news.push((stripe, shard));
                }
            }
        }
        if !news.is_empty() {
            let command = Command::NoteDamage { shards: news, time: (self.now)() };
            self.restorer.meta.propose(command).await?;
        }
        let (view, disks) = (self.view()?, self.disks());
        for stripe in stripes {
            if let Some(record) = view.stripe(stripe)? {
                self.consider(&view, &record, &disks)?;
            }
        }
        Ok(())
    }

    /// Goes through all stripes and restores every shard that is not good. What cannot be restored is in the report; an
    /// error means that the sweep itself ended early. Must not be cancelled.
    pub async fn sweep(&self, depth: Depth) -> Result<RepairReport> {
        let mut report = RepairReport::default();
        let mut after = None;
        loop {
            let page = self.view()?.stripes(after, PAGE)?;
            let Some((last, _live)) = page.last() else { return Ok(report) };
            after = Some(last.id);
            let repairs = page.into_iter().map(|(record, _live)| async move {
                // A noted shard may look good from its footer.
                let noted = self.view()?.repair(record.id)?.is_some_and(|entry| entry.bad != 0);
                let depth = if noted { Depth::Deep } else { depth };
                let outcome = self.restore(record.id, depth, Scope::All, None).await?;
                if let Some(outcome) = &outcome {
                    self.forget_noted(record.id, outcome).await?;
                }
                Ok::<_, Error>(outcome)
            });
            let mut repairs = stream::iter(repairs).buffer_unordered(self.concurrency);
            while let Some(outcome) = repairs.next().await {
                outcome?.iter().for_each(|outcome| report.add(outcome));
            }
        }
    }

    fn view(&self) -> Result<View> {
        self.restorer.meta.view()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn scan(&self) -> MutexGuard<'_, Scan> {
        self.scan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn disks(&self) -> BTreeMap<DiskId, Presence> {
        self.restorer.shards.disks()
    }

    /// Enters a stripe into the queue if it can be repaired now; answers when it can, if that is known and later.
    fn consider(
        &self,
        view: &View,
        record: &StripeRecord,
        disks: &BTreeMap<DiskId, Presence>,
    ) -> Result<Option<Timestamp>> {
        let entry = view.repair(record.id)?;
        let outlook = outlook(record, entry.map_or(0, |entry| entry.bad), disks);
        if outlook.lost == 0 || !outlook.possible {
            return Ok(None);
        }
        let retry = entry.map(|entry| entry.retry).filter(|retry| *retry > (self.now)());
        if retry.is_none() {
            let since = entry.map(|entry| entry.since).unwrap_or_default();
            let bytes = u64::from(outlook.lost.count_ones()) * record.geometry().shard_bytes();
            self.queue().push(Due { margin: outlook.margin, since, id: record.id, bytes });
        }
        Ok(retry)
    }

    /// Looks at the next page of the metadata. Answers whether there may be more.
    fn scan_page(&self) -> Result<bool> {
        if self.look_again.swap(false, Ordering::Relaxed) {
            *self.scan() = Scan::Running { after: None, retry: None };
        }
        let (after, mut retry) = match &*self.scan() {
            Scan::Running { after, retry } => (*after, *retry),
            Scan::Until(next) if *next > Instant::now() => return Ok(false),
            Scan::Until(_) => (None, None),
        };
        let (view, disks) = (self.view()?, self.disks());
        let page = view.stripes(after, PAGE)?;
        for (record, _live) in &page {
            let later = self.consider(&view, record, &disks)?;
            retry = retry.into_iter().chain(later).min();
        }
        *self.scan() = match page.last() {
            Some((last, _live)) => Scan::Running { after: Some(last.id), retry },
            None => Scan::Until(Instant::now() + self.pause(retry)),
        };
        Ok(!page.is_empty())
    }

    /// How long the next scan has time.
    fn pause(&self, retry: Option<Timestamp>) -> Duration {
        if self.queue().take_overflowed() {
            // What found no place is found again when those before it are done.
            return Duration::ZERO;
        }
        let seconds = retry.map_or(i64::MAX, |retry| retry.seconds - (self.now)().seconds);
        let seconds = u64::try_from(seconds).unwrap_or(0).max(1);
        Duration::from_secs(seconds).min(SCAN_PERIOD)
    }

    /// Repairs one stripe of the queue, and notes how that went.
    async fn attend(&self, due: Due) -> Result<()> {
        let view = self.view()?;
        let Some(record) = view.stripe(due.id)? else { return Ok(()) };
        let entry = view.repair(due.id)?;
        drop(view);
        let bad = entry.map_or(0, |entry| entry.bad);
        let known = outlook(&record, bad, &self.disks()).lost;
        // A noted shard may look good from its footer.
        let depth = if bad == 0 { Depth::Shallow } else { Depth::Deep };
        let scope = Scope::Known(known);
        let attempts = entry.map_or(0, |entry| entry.attempts);
        let Some(outcome) = self.restore(due.id, depth, scope, Some(attempts)).await? else {
            return Ok(());
        };
        let retry = match outcome.failures.first() {
            None if entry.is_none() => return Ok(()),
            None => None,
            Some(failure) => {
                tracing::warn!("{failure}; tried again in {} s", backoff(attempts).as_secs());
                Some(self.after(backoff(attempts)))
            }
        };
        let (stripe, good, time) = (due.id, outcome.good, (self.now)());
        let note = Command::NoteRepair { stripe, good, retry, time };
        self.restorer.meta.propose(note).await.map(drop)
    }

    /// Restores a stripe and tells the journal; `attempts` have failed before if it is tried again after this one.
    async fn restore(
        &self,
        id: StripeId,
        depth: Depth,
        scope: Scope,
        attempts: Option<u32>,
    ) -> Result<Option<Outcome>> {
        let (time, start) = ((self.now)(), Instant::now());
        let outcome = self.restorer.repair(id, depth, scope).await?;
        if let Some(outcome) = outcome.as_ref().filter(|outcome| !outcome.lost.is_empty()) {
            let failed = outcome.failures.first();
            self.meter.note(outcome.bytes());
            self.restored.fetch_add(outcome.bytes(), Ordering::Relaxed);
            self.journal.record(Attempt {
                time,
                stripe: id,
                class: outcome.record.class,
                lost: outcome.lost.clone(),
                sources: sources(outcome),
                placed: outcome.placed.clone(),
                bytes: outcome.bytes(),
                duration: start.elapsed(),
                error: failed.map(ToString::to_string),
                error_kind: failed.map(Error::kind),
                retry: attempts.filter(|_| failed.is_some()).map(|n| self.after(backoff(n))),
            });
        }
        Ok(outcome)
    }

    fn after(&self, pause: Duration) -> Timestamp {
        let now = (self.now)();
        let pause = i64::try_from(pause.as_secs()).unwrap_or(i64::MAX);
        Timestamp { seconds: now.seconds.saturating_add(pause), ..now }
    }

    async fn repair_next(&self) -> Result<Step> {
        // The whole picture first: the most urgent stripe may be the last of the scan.
        if self.scan_page()? {
            return Ok(Step::Busy);
        }
        if self.is_paused() {
            return Ok(Step::Idle);
        }
        let mut wait = None;
        let admitted = std::iter::from_fn(|| match self.admit_next() {
            Ok(Admission::Stripe(due)) => Some(Ok(due)),
            Ok(Admission::Wait(time)) => {
                wait = Some(time);
                None
            }
            Ok(Admission::Nothing) => None,
            Err(error) => Some(Err(error)),
        });
        let attempts =
            admitted.take(STEP_STRIPES).map(|due| async move { self.attend(due?).await });
        let results: Vec<_> =
            stream::iter(attempts).buffer_unordered(self.concurrency).collect().await;
        let begun = !results.is_empty();
        results.into_iter().collect::<Result<()>>()?;
        Ok(match wait {
            _ if begun => Step::Busy,
            Some(wait) => Step::Throttled(wait.min(IDLE_PAUSE)),
            None => Step::Idle,
        })
    }

    /// Takes the most urgent stripe, if it may begin now.
    fn admit_next(&self) -> Result<Admission> {
        loop {
            let Some(due) = self.queue().pop() else { return Ok(Admission::Nothing) };
            let view = self.view()?;
            let Some(record) = view.stripe(due.id)? else { continue };
            let bad = view.repair(due.id)?.map_or(0, |entry| entry.bad);
            let lost = outlook(&record, bad, &self.disks()).lost;
            // Nodes that make shards among themselves read for each.
            let gathers = self.restorer.reader.gathers(&record);
            let times = if gathers { lost.count_ones().max(1) } else { 1 };
            let load = load(&record, lost, times);
            if let Err(wait) = self.throttle.admit(&load) {
                self.queue().push(due);
                return Ok(Admission::Wait(wait));
            }
            return Ok(Admission::Stripe(due));
        }
    }
}

/// Whether a stripe may begin.
enum Admission {
    Stripe(Due),
    Wait(Duration),
    Nothing,
}

/// What the repair of a stripe reads and writes: k shards, so many times, and those that are lost. Where these will be is not
/// known yet: they count for the disks that should have them.
fn load(record: &StripeRecord, lost: u64, times: u32) -> Vec<(DiskId, u64)> {
    let bytes = record.geometry().shard_bytes();
    let is_lost = |index: ShardIndex| lost >> index.0 & 1 == 1;
    let shards = || record.shards().zip(&record.disks);
    let sources = shards().filter(|(index, _disk)| !is_lost(*index));
    let sources = sources.take(usize::from(record.class.scheme.k()));
    let reads = sources.map(|(_index, disk)| (*disk, bytes * u64::from(times)));
    let writes = shards().filter(|(index, _disk)| is_lost(*index));
    reads.chain(writes.map(|(_index, disk)| (*disk, bytes))).collect()
}

/// Disks with the shards that were computed from.
fn sources(outcome: &Outcome) -> Vec<DiskId> {
    let shards = outcome.record.shards().zip(&outcome.record.disks);
    let good = shards.filter(|(index, _disk)| outcome.good >> index.0 & 1 == 1);
    good.map(|(_index, disk)| *disk).collect()
}

/// The pause after one more attempt, when so many have failed before.
fn backoff(attempts: u32) -> Duration {
    RETRY_FIRST.saturating_mul(1_u32.checked_shl(attempts).unwrap_or(u32::MAX)).min(RETRY_MAX)
}

impl Worker for Repair {
    fn name(&self) -> &'static str {
        "repair"
    }

    fn step(&self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.repair_next())
    }
}
