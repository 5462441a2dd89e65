//! Scrub: reads every byte of every shard once in a period, slowly, and notes what is bad for repair. Where it is lies in
//! the metadata, so that a mount goes on where the last one stopped. Knows no file.

use super::inventory::Inventory;
use super::meter::Meter;
use super::orphans::Orphans;
use super::repair::{Now, Repair};
use super::throttle::Throttle;
use super::{IDLE_PAUSE, Shards, Step, Worker};
use crate::error::{ErrorKind, Posix, Result};
use crate::meta::client::MetaClient;
use crate::meta::command::{Command, ScrubState};
use crate::stripe::layout::{NO_DISK, StripeRecord};
use crate::stripe::reader::{Presence, StripeReader};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{DiskId, ShardIndex, StripeId, Timestamp};
use futures_util::future::{BoxFuture, join_all};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// Stripes after which the place is noted; so many may be read twice after a crash ...
const SAVE_STRIPES: u64 = 64;
/// ... or as much as is read in this time.
const SAVE_PERIOD: Duration = Duration::from_secs(60);
/// The slowest pace, in bytes per second: a small volume is done soon.
const PACE_MIN: u64 = 1 << 20;
/// Part of the period that a pass takes at its own pace: the rest is for disks that are away, and for restarts.
const PACE_PERCENT: u64 = 80;

/// How often and how fast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScrubLimits {
    /// From the beginning of one pass to that of the next; `None` for never.
    pub period: Option<Duration>,
    /// Most bytes read in a second, and how many when it is hurried.
    pub bytes_per_second: u64,
}

/// What scrub works with.
#[expect(missing_debug_implementations, reason = "a clock has nothing to show")]
pub struct ScrubParts {
    /// The metadata.
    pub meta: MetaClient,
    /// Checks shards.
    pub reader: StripeReader,
    /// Knows the disks.
    pub shards: Shards,
    /// Takes what is bad.
    pub repair: Arc<Repair>,
    /// Removes what nothing names, at the end of a pass.
    pub orphans: Arc<Orphans>,
    /// Finds what is absent, at the end of a pass.
    pub inventory: Arc<Inventory>,
    /// The present time.
    pub now: Now,
    /// How often and how fast.
    pub limits: ScrubLimits,
    /// Says when: it gives way to users, and shares its caps with repair and moves.
    pub throttle: Arc<Throttle>,
}

/// Reads everything, again and again.
pub struct Scrub {
    parts: ScrubParts,
    progress: Mutex<Progress>,
    meter: Meter,
}

impl std::fmt::Debug for Scrub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scrub").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Progress {
    /// `None` until it is read from the metadata.
    state: Option<ScrubState>,
    /// The last stripe of the pass under way. Those that are written meanwhile belong to the next one, or a pass beside
    /// busy writers would never end.
    until: Option<StripeId>,
    /// Before this nothing is read.
    next: Instant,
    saved_at: Instant,
    unsaved: u64,
}

impl Scrub {
    /// Goes on where the metadata says.
    pub fn new(parts: ScrubParts) -> Self {
        let now = Instant::now();
        let progress = Progress { state: None, until: None, next: now, saved_at: now, unsaved: 0 };
        Self { parts, progress: Mutex::new(progress), meter: Meter::default() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is.
    pub fn state(&self) -> Result<ScrubState> {
        let held = self.progress().state;
        match held {
            Some(state) => Ok(state),
            None => self.parts.meta.view()?.scrub(),
        }
    }

    /// Begins a pass, or has the one under way hurry; one that is held goes on.
    pub async fn start(&self) -> Result<()> {
        let mut state = self.state()?;
        if !state.running {
            state = begin(state, (self.parts.now)());
        }
        (state.hurried, state.paused) = (true, false);
        self.progress().next = Instant::now();
        self.save(state).await
    }

    /// Holds it, also over mounts, or lets it go on.
    pub async fn set_paused(&self, paused: bool) -> Result<()> {
        let state = ScrubState { paused, ..self.state()? };
        self.save(state).await
    }

    /// Bytes read per second, of late.
    pub fn rate(&self) -> u64 {
        self.meter.rate()
    }

    async fn save(&self, state: ScrubState) -> Result<()> {
        {
            let mut progress = self.progress();
            progress.state = Some(state);
            (progress.saved_at, progress.unsaved) = (Instant::now(), 0);
        }
        self.parts.meta.propose(Command::SetScrub { state }).await.map(drop)
    }

    /// Whether a pass is due that nobody has asked for.
    fn is_due(&self, state: &ScrubState) -> bool {
        let Some(period) = self.parts.limits.period else { return false };
        let since = (self.parts.now)().seconds.saturating_sub(state.started.seconds);
        state.passes == 0 || u64::try_from(since).is_ok_and(|since| since >= period.as_secs())
    }

    async fn scrub_next(&self) -> Result<Step> {
        let mut state = self.state()?;
        if state.paused {
            return Ok(Step::Idle);
        }
        if !state.running {
            if !self.is_due(&state) {
                return Ok(Step::Idle);
            }
            state = begin(state, (self.parts.now)());
            self.save(state).await?;
        }
        let wait = self.progress().next.saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            // Short, so that `start` is noticed.
            return Ok(Step::Throttled(wait.min(IDLE_PAUSE)));
        }
        let Some(record) = self.next_stripe(&state)? else {
            return self.finish(state).await.map(|()| Step::Busy);
        };
        let here = self.here(&record);
        let shard_bytes = record.geometry().shard_bytes();
        let load: Vec<_> = here.iter().map(|(_index, disk)| (*disk, shard_bytes)).collect();
        if let Err(wait) = self.parts.throttle.admit(&load) {
            return Ok(Step::Throttled(wait.min(IDLE_PAUSE)));
        }
        let bytes = here.len() as u64 * shard_bytes;
        let bad = self.check(&record, here).await?;
        self.meter.note(bytes);
        let damaged = bad.len() as u64;
        if !bad.is_empty() {
            self.parts.repair.note(bad).await?;
        }
        state.after = Some(record.id);
        state.stripes += 1;
        state.bytes += bytes;
        state.damaged += damaged;
        let pause = self.pause(&state, bytes)?;
        let save = {
            let mut progress = self.progress();
            // Somebody may have held or hurried it meanwhile.
            if let Some(held) = progress.state {
                (state.paused, state.hurried) = (held.paused, held.hurried);
            }
            progress.state = Some(state);
            progress.next = Instant::now() + pause;
            progress.unsaved += 1;
            progress.unsaved >= SAVE_STRIPES || progress.saved_at.elapsed() >= SAVE_PERIOD
        };
        if save {
            self.save(state).await?;
        }
        Ok(Step::Busy)
    }

    /// The next stripe of the pass.
    fn next_stripe(&self, state: &ScrubState) -> Result<Option<StripeRecord>> {
        let view = self.parts.meta.view()?;
        let held = self.progress().until;
        let until = if held.is_some() { held } else { view.last_stripe()? };
        self.progress().until = until;
        let next = view.stripes(state.after, 1)?.pop().map(|(record, _live)| record);
        Ok(next.filter(|record| until.is_some_and(|until| record.id <= until)))
    }

    /// The shards of a stripe that should be on disks that are there.
    fn here(&self, record: &StripeRecord) -> Vec<(ShardIndex, DiskId)> {
        let disks = self.parts.shards.disks();
        let shards = record.shards().zip(record.disks.iter().copied());
        let here = |(index, disk): &(ShardIndex, DiskId)| {
            is_here(&disks, *disk) && !record.is_missing(*index)
        };
        shards.filter(here).collect()
    }

    /// Reads these shards of a stripe; answers the bad ones.
    async fn check(
        &self,
        record: &StripeRecord,
        shards: Vec<(ShardIndex, DiskId)>,
    ) -> Result<Vec<(StripeId, ShardIndex)>> {
        let checks = shards.into_iter().map(|(index, _disk)| async move {
            (index, self.parts.reader.verify_shard(record, index).await)
        });
        let bad: Vec<ShardIndex> = join_all(checks)
            .await
            .into_iter()
            .filter(|(_index, result)| result.as_ref().is_err_and(|error| is_bad(error.kind())))
            .map(|(index, _result)| index)
            .collect();
        // What has moved or died while it was read is not bad.
        let now = self.parts.meta.view()?.stripe(record.id)?;
        let still = |index: &ShardIndex| {
            let at = usize::from(index.0);
            now.as_ref().is_some_and(|now| now.disks.get(at) == record.disks.get(at))
        };
        Ok(bad.into_iter().filter(still).map(|index| (record.id, index)).collect())
    }

    /// How long to wait after so many bytes.
    fn pause(&self, state: &ScrubState, bytes: u64) -> Result<Duration> {
        let most = self.parts.limits.bytes_per_second.max(1);
        let pace = match self.parts.limits.period {
            Some(period) if !state.hurried => {
                let all = self.parts.meta.totals().stripe_bytes;
                let seconds = (period.as_secs() * PACE_PERCENT / 100).max(1);
                (all / seconds).clamp(PACE_MIN.min(most), most)
            }
            Some(_) | None => most,
        };
        Ok(Duration::from_millis(bytes.saturating_mul(1000) / pace))
    }

    async fn finish(&self, mut state: ScrubState) -> Result<()> {
        (state.running, state.hurried, state.after) = (false, false, None);
        state.finished = Some((self.parts.now)());
        state.passes += 1;
        self.progress().until = None;
        tracing::info!(
            stripes = state.stripes,
            damaged = state.damaged,
            "scrub has read everything"
        );
        for (disk, presence) in self.parts.shards.disks() {
            if matches!(presence, Presence::Here | Presence::Leaving) {
                self.parts.orphans.request_all(disk);
                self.parts.inventory.request(disk);
            }
        }
        self.save(state).await
    }
}

/// The first step of a pass.
fn begin(state: ScrubState, now: Timestamp) -> ScrubState {
    ScrubState {
        running: true,
        started: now,
        after: None,
        stripes: 0,
        bytes: 0,
        damaged: 0,
        ..state
    }
}

fn is_here(disks: &BTreeMap<DiskId, Presence>, disk: DiskId) -> bool {
    disk != NO_DISK && matches!(disks.get(&disk), Some(Presence::Here | Presence::Leaving))
}

/// Whether a check has found something to repair; a disk that does not answer is not the shard's fault.
fn is_bad(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::Posix(Posix::NotFound))
}

impl Worker for Scrub {
    fn name(&self) -> &'static str {
        "scrub"
    }

    fn step(&self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.scrub_next())
    }
}
