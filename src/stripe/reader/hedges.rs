//! Hedged reads: a disk that does not answer in time is read around, as far as there is credit for it. Knows no shard.
//!
//! Asking others instead costs k fetches for one, so a volume that is slow as a whole must not do it for every read: each
//! fetch earns a twentieth of a hedge (Dean and Barroso, "The Tail at Scale", CACM 2013).

use crate::sync::atomic::{AtomicU32, Ordering};
use std::pin::pin;
use std::time::Duration;

/// How long an answer is waited for before others are asked: far above what a disk in order takes, and twice this is what
/// a read may wait when a node falls silent.
const PATIENCE: Duration = Duration::from_millis(300);
/// Fetches that earn one hedge.
const COST: u32 = 20;
/// Most hedges that are saved up.
const SAVED_MAX: u32 = 64;

/// Credit for hedges.
#[derive(Debug)]
pub(super) struct Hedges {
    /// In fetches.
    credit: AtomicU32,
}

impl Default for Hedges {
    fn default() -> Self {
        Self { credit: AtomicU32::new(SAVED_MAX * COST) }
    }
}

impl Hedges {
    /// What `fetch` answers; `None` if it is late, and others should be asked.
    pub(super) async fn follow<T>(&self, fetch: impl Future<Output = T>) -> Option<T> {
        self.earn();
        let mut fetch = pin!(fetch);
        match tokio::time::timeout(PATIENCE, &mut fetch).await {
            Ok(answer) => Some(answer),
            Err(_late) if self.spend() => None,
            Err(_late) => Some(fetch.await),
        }
    }

    fn earn(&self) {
        let more = |credit: u32| (credit < SAVED_MAX * COST).then_some(credit + 1);
        // Full is fine.
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).unwrap_or_default();
    }

    fn spend(&self) -> bool {
        let less = |credit: u32| credit.checked_sub(COST);
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{COST, Hedges, PATIENCE, SAVED_MAX};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn credit_bounds_hedges() {
        let hedges = Hedges::default();
        let slow = || tokio::time::sleep(PATIENCE + Duration::from_millis(1));
        let quick = || async {};
        let mut given_up = 0;
        for _fetch in 0..2 * SAVED_MAX {
            given_up += u32::from(hedges.follow(slow()).await.is_none());
        }
        // What was saved, and what these fetches have earned.
        assert!((SAVED_MAX..=SAVED_MAX + 2 * SAVED_MAX / COST).contains(&given_up), "{given_up}");
        while hedges.spend() {}
        assert!(hedges.follow(slow()).await.is_some(), "without credit it is waited for");
        for _fetch in 0..COST {
            assert!(hedges.follow(quick()).await.is_some());
        }
        assert!(hedges.follow(slow()).await.is_none(), "credit comes back");
    }
}
