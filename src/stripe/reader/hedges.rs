//! Hedged reads: a disk that does not answer in time is read around, as far as there is credit for it. Knows no shard.
//!
//! Asking others instead costs k fetches for one, so a volume that is slow as a whole must not do it for every read: each
//! fetch earns a twentieth of a hedge (Dean and Barroso, "The Tail at Scale", CACM 2013).

use crate::sync::atomic::{AtomicU32, Ordering};
use std::pin::pin;
use std::time::Duration;

/// What is late on any disk: far above what one in order takes, and twice this is what a read may wait when a node falls
/// silent.
pub(super) const PATIENCE_MAX: Duration = Duration::from_millis(300);
/// Fetches that earn one hedge.
const COST: u32 = 20;
/// Most hedges that are saved up.
const SAVED_MAX: u32 = 64;

/// Why others should be asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Late {
    /// Most disks would have answered.
    Slow,
    /// Any disk in order would have.
    Silent,
}

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
    /// What `fetch` answers; `Err` if it takes longer than `patience`, and others should be asked: `Silent` if it takes
    /// longer than any disk in order. Half of the credit is for these.
    pub(super) async fn follow<T>(
        &self,
        fetch: impl Future<Output = T>,
        patience: Duration,
    ) -> Result<T, Late> {
        self.earn();
        let mut fetch = pin!(fetch);
        if patience < PATIENCE_MAX {
            match tokio::time::timeout(patience, &mut fetch).await {
                Ok(answer) => return Ok(answer),
                Err(_late) if self.spend(SAVED_MAX * COST / 2) => return Err(Late::Slow),
                Err(_late) => {}
            }
        }
        let rest = if patience < PATIENCE_MAX { PATIENCE_MAX - patience } else { PATIENCE_MAX };
        match tokio::time::timeout(rest, &mut fetch).await {
            Ok(answer) => Ok(answer),
            Err(_late) if self.spend(0) => Err(Late::Silent),
            Err(_late) => Ok(fetch.await),
        }
    }

    fn earn(&self) {
        let more = |credit: u32| (credit < SAVED_MAX * COST).then_some(credit + 1);
        // Full is fine.
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).unwrap_or_default();
    }

    /// Takes the credit for one hedge, if at least `kept` is left then.
    fn spend(&self, kept: u32) -> bool {
        let less = |credit: u32| credit.checked_sub(COST).filter(|left| *left >= kept);
        self.credit.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{COST, Hedges, Late, PATIENCE_MAX, SAVED_MAX};
    use std::time::Duration;

    async fn slow() {
        tokio::time::sleep(PATIENCE_MAX + Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn credit_bounds_hedges() {
        let hedges = Hedges::default();
        let mut given_up = 0;
        for _fetch in 0..2 * SAVED_MAX {
            given_up += u32::from(hedges.follow(slow(), PATIENCE_MAX).await == Err(Late::Silent));
        }
        // What was saved, and what these fetches have earned.
        assert!((SAVED_MAX..=SAVED_MAX + 2 * SAVED_MAX / COST).contains(&given_up), "{given_up}");
        while hedges.spend(0) {}
        assert!(
            hedges.follow(slow(), PATIENCE_MAX).await.is_ok(),
            "without credit it is waited for"
        );
        for _fetch in 0..COST {
            assert!(hedges.follow(async {}, PATIENCE_MAX).await.is_ok());
        }
        assert!(hedges.follow(slow(), PATIENCE_MAX).await.is_err(), "credit comes back");
    }

    #[tokio::test(start_paused = true)]
    async fn slow_disks_leave_credit_for_silent_ones() {
        let (hedges, patience) = (Hedges::default(), PATIENCE_MAX / 3);
        let mut slowly = 0;
        loop {
            match hedges.follow(slow(), patience).await {
                Err(Late::Slow) => slowly += 1,
                other => {
                    assert_eq!(other, Err(Late::Silent));
                    break;
                }
            }
        }
        assert!((SAVED_MAX / 2..SAVED_MAX).contains(&slowly), "{slowly}");
        // It takes no longer than without the first look.
        let start = tokio::time::Instant::now();
        assert_eq!(hedges.follow(std::future::pending::<()>(), patience).await, Err(Late::Silent));
        assert_eq!(start.elapsed(), PATIENCE_MAX);
    }
}
