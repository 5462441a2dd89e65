//! What background work may read and write in a second: in all, on one disk, and less while the foreground suffers.
//! One for all work that moves shards. Knows no kind of work.

use crate::load::Latencies;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::DiskId;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// How often the foreground is looked at.
const WINDOW: Duration = Duration::from_millis(250);
/// Fewer requests in a window say nothing.
const REQUESTS_MIN: u64 = 8;
/// The foreground suffers when nine of ten requests take more than so many times what they take at best.
const SUFFERS_FACTOR: u32 = 2;
/// Differences below this are noise.
const SUFFERS_MIN: Duration = Duration::from_micros(200);
/// The best forgets this part of itself in each window: disks and habits change. Twice as much after a minute or two.
const FORGETS: u32 = 400;
/// The pace never falls below this, in bytes per second read and written: repair always goes on.
const PACE_MIN: u64 = 32 << 20;
/// A foreground that suffers for so many windows at the least pace does not suffer from this work: reads of degraded
/// stripes, for one, are slow until these are repaired. Then only what comes on top of that counts, ...
const BLAMELESS_AFTER: u32 = 8;
/// ... if it is more than this part.
const ON_TOP: u32 = 4;
/// In each window it grows by this part of itself: slower than the foreground shows what it costs.
const GROWS: u64 = 8;
/// Work that begins beside a foreground begins with this.
const PACE_FIRST: u64 = 4 * PACE_MIN;
/// Work that was not asked for so long begins anew: what the foreground took meanwhile is its best.
const PAUSE: Duration = Duration::from_secs(2);
/// Above this it limits nothing.
const PACE_MAX: u64 = 16 << 30;

/// No window has been tried.
const NEVER: (u32, Duration) = (0, Duration::MAX);

/// Configured caps in bytes per second, read and written together; `None` for none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Caps {
    /// In all.
    pub all: Option<u64>,
    /// On one disk.
    pub disk: Option<u64>,
}

/// Says when the next piece of background work may begin.
pub struct Throttle {
    caps: Caps,
    foreground: Arc<Latencies>,
    state: Mutex<State>,
}

struct State {
    /// When the work that was admitted so far is paid for.
    all: Instant,
    disks: BTreeMap<DiskId, Instant>,
    /// What the foreground leaves, in bytes per second.
    pace: u64,
    /// p90 of the foreground at its best.
    best: Option<Duration>,
    /// p90 of a foreground that suffers from something else than this work.
    without: Option<Duration>,
    /// Windows at the least pace in which it suffered, one after the other, and its least p90 in them.
    tried: (u32, Duration),
    looked: Instant,
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Throttle").field("pace", &self.pace()).finish_non_exhaustive()
    }
}

impl Throttle {
    /// Gives way to `foreground`.
    pub fn new(caps: Caps, foreground: Arc<Latencies>) -> Self {
        let now = Instant::now();
        let state = State {
            all: now,
            disks: BTreeMap::new(),
            pace: PACE_MAX,
            best: None,
            without: None,
            tried: NEVER,
            looked: now,
        };
        Self { caps, foreground, state: Mutex::new(state) }
    }

    /// Admits work that reads and writes so many bytes on these disks, or says how long to wait before asking again.
    /// What is admitted is paid for afterwards: a piece larger than a second's worth is admitted too.
    pub fn admit(&self, load: &[(DiskId, u64)]) -> Result<(), Duration> {
        let now = Instant::now();
        let mut state = self.state();
        self.look(&mut state, now);
        let free = |at: Option<&Instant>| {
            at.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
        };
        let waits = load.iter().map(|(disk, _bytes)| free(state.disks.get(disk)));
        let wait = waits.chain([free(Some(&state.all))]).max().unwrap_or_default();
        if !wait.is_zero() {
            return Err(wait);
        }
        let total: u64 = load.iter().map(|(_disk, bytes)| bytes).sum();
        let rate = self.caps.all.map_or(state.pace, |cap| cap.min(state.pace));
        if rate < PACE_MAX {
            state.all = now + takes(total, rate);
        }
        state.disks.retain(|_disk, at| *at > now);
        for (disk, bytes) in load.iter().filter(|_load| self.caps.disk.is_some()) {
            let rate = self.caps.disk.unwrap_or(PACE_MAX);
            let at = state.disks.get(disk).copied().unwrap_or(now).max(now);
            state.disks.insert(*disk, at + takes(*bytes, rate));
        }
        Ok(())
    }

    /// What the foreground leaves at present, in bytes per second; `None` while it limits nothing.
    pub fn pace(&self) -> Option<u64> {
        Some(self.state().pace).filter(|pace| *pace < PACE_MAX)
    }

    /// Halves the pace while the foreground suffers, and lets it grow again when it does not: additive growth would take
    /// minutes after a short peak.
    fn look(&self, state: &mut State, now: Instant) {
        let since = now.duration_since(state.looked);
        if since < WINDOW {
            return;
        }
        state.looked = now;
        let window = self.foreground.take();
        if since >= PAUSE {
            let beside = window.count >= REQUESTS_MIN;
            (state.without, state.tried) = (None, NEVER);
            state.best = beside.then_some(window.p90).or(state.best);
            state.pace = if beside { PACE_FIRST } else { PACE_MAX };
            return;
        }
        if window.count < REQUESTS_MIN {
            state.pace = state.pace.saturating_mul(2).min(PACE_MAX);
            return;
        }
        let best = state.best.map_or(window.p90, |best| (best + best / FORGETS).min(window.p90));
        state.best = Some(best);
        let suffers = window.p90 > best * SUFFERS_FACTOR && window.p90 > best + SUFFERS_MIN;
        state.without = state.without.filter(|_without| suffers);
        if !suffers || state.without.is_some_and(|without| window.p90 <= without + without / ON_TOP)
        {
            state.pace = (state.pace + state.pace / GROWS).min(PACE_MAX);
            state.tried = NEVER;
        } else if state.pace > PACE_MIN {
            // From "no limit" it would take many windows to reach a pace that is felt.
            state.pace = (state.pace.min(PACE_MIN << 5) / 2).max(PACE_MIN);
        } else {
            let (windows, least) = state.tried;
            state.tried = (windows + 1, least.min(window.p90));
            if windows + 1 >= BLAMELESS_AFTER {
                state.without = Some(state.tried.1);
                state.tried = NEVER;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long so many bytes take at `rate` bytes per second.
fn takes(bytes: u64, rate: u64) -> Duration {
    let micros = u128::from(bytes) * 1_000_000 / u128::from(rate.max(1));
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}
