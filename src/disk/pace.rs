//! How fast a disk answers reads, and which disks are much slower than the others. Knows no disk.
//!
//! The 95th percentile is followed one answer at a time (Robbins and Monro, "A Stochastic Approximation Method", 1951): up by
//! nineteen small steps for an answer that took longer, down by one for each that did not.

use crate::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Size of a step down; a step up is nineteen of them, so that one in twenty balances.
const STEP: f64 = 0.005;
const UP: f64 = 19.0;
/// What is assumed of a disk that has not answered yet.
const UNKNOWN: Duration = Duration::from_millis(1);
/// Nothing is taken for shorter or longer than this.
const SHORTEST: Duration = Duration::from_micros(10);
const LONGEST: Duration = Duration::from_secs(10);

/// Below this a disk is quick, however quick the others are.
const QUICK: Duration = Duration::from_millis(250);
/// So many times slower than the others is limping ...
const LIMPS: f64 = 8.0;
/// ... until it is less than so many times slower.
const WALKS: f64 = 4.0;
/// A disk that is not asked is believed to get better by so much with each look, until it is asked again.
const FADING: f64 = 0.98;
/// So many times what most answers of most disks take is late, within these bounds.
const LATE: f64 = 8.0;
const PATIENCE_MIN: Duration = Duration::from_millis(100);
/// What is late on any disk: far above what one in order takes, and twice this is what a read may wait when a node falls
/// silent.
pub const PATIENCE_MAX: Duration = Duration::from_millis(300);

/// The pace of one disk. Notes from many threads may get in each other's way by a step.
#[derive(Debug)]
pub struct Pace {
    /// Microseconds, as the bits of a float.
    slow: AtomicU64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { slow: AtomicU64::new(micros(UNKNOWN).to_bits()) }
    }
}

impl Pace {
    /// An answer took this long, or at least this long.
    pub fn note(&self, took: Duration) {
        let (took, before) = (micros(took), self.slow());
        let after = if took > before { before * (1.0 + UP * STEP) } else { before * (1.0 - STEP) };
        self.set(after);
    }

    /// Nobody asks the disk: it is given the benefit of the doubt, more with each call.
    pub fn fade(&self) {
        self.set(self.slow() * FADING);
    }

    /// What nineteen of twenty answers take at most, in microseconds.
    fn slow(&self) -> f64 {
        f64::from_bits(self.slow.load(Ordering::Relaxed))
    }

    fn set(&self, slow: f64) {
        let slow = slow.clamp(micros(SHORTEST), micros(LONGEST));
        self.slow.store(slow.to_bits(), Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// What the paces of all disks say.
#[derive(Clone, PartialEq, Debug)]
pub struct Comparison {
    /// For each, in order, whether it limps.
    pub limps: Vec<bool>,
    /// How long an answer may take before others are asked.
    pub patience: Duration,
}

/// Compares the paces of disks; `limped` says of each whether it did the last time.
pub fn compare(paces: &[(&Pace, bool)]) -> Comparison {
    let mut all: Vec<f64> = paces.iter().map(|(pace, _limped)| pace.slow()).collect();
    let own = all.clone();
    all.sort_by(f64::total_cmp);
    // The lower one of two: a pair of slow disks does not pass for the rule.
    let usual = all.get(all.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    let limps = |(slow, limped): (f64, bool)| {
        let factor = if limped { WALKS } else { LIMPS };
        slow > micros(QUICK) && slow > factor * usual
    };
    let patience = (LATE * usual).clamp(micros(PATIENCE_MIN), micros(PATIENCE_MAX));
    Comparison {
        limps: own
            .into_iter()
            .zip(paces.iter().map(|(_pace, limped)| *limped))
            .map(limps)
            .collect(),
        patience: Duration::from_secs_f64(patience / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::{Pace, compare, micros};
    use std::time::Duration;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn pace(times: impl IntoIterator<Item = Duration>) -> Pace {
        let pace = Pace::default();
        times.into_iter().for_each(|time| pace.note(time));
        pace
    }

    #[test]
    fn a_pace_is_what_one_answer_in_twenty_exceeds() {
        let times = (0..20_000u64).map(|number| ms(1 + number * 7919 % 100));
        let slow = pace(times).slow();
        assert!((micros(ms(85))..micros(ms(100))).contains(&slow), "{slow}");
        // A few that are very late do not count.
        let times = (0..20_000u64).map(|number| ms(if number % 50 == 0 { 5000 } else { 2 }));
        assert!(pace(times).slow() < micros(ms(4)));
    }

    #[test]
    fn a_disk_limps_if_the_others_do_not() {
        let quick: Vec<Pace> = (0..5).map(|_disk| pace([ms(2); 1000])).collect();
        let slow = pace([ms(1000); 1000]);
        let all = |slow, limped| {
            let mut all: Vec<_> = quick.iter().map(|pace| (pace, false)).collect();
            all.push((slow, limped));
            compare(&all)
        };
        let compared = all(&slow, false);
        assert_eq!(compared.limps, [false, false, false, false, false, true]);
        assert_eq!(compared.patience, ms(100), "others are asked soon");
        // Nobody asks it now; it is tried again after a while, not at once.
        let looks = (0..1000).find(|_look| {
            slow.fade();
            !all(&slow, true).limps[5]
        });
        assert!(looks.is_some_and(|looks| (40..400).contains(&looks)), "{looks:?}");
        // A volume that is slow as a whole is only that, and waits longer.
        let slow: Vec<Pace> = (0..6).map(|_disk| pace([ms(200); 1000])).collect();
        let all: Vec<_> = slow.iter().map(|pace| (pace, false)).collect();
        assert!(compare(&all).limps.iter().all(|limps| !limps));
        assert_eq!(compare(&all).patience, ms(300));
        // Quick is quick.
        let (fast, less) = (pace([Duration::from_micros(50); 2000]), pace([ms(200); 1000]));
        assert_eq!(compare(&[(&fast, false), (&fast, false), (&less, false)]).limps, [false; 3]);
        assert!(compare(&[]).limps.is_empty());
    }

    #[test]
    fn two_of_three_are_not_the_rule_by_being_slow() {
        let (fast, slow) = (pace([ms(1); 1000]), pace([ms(400); 1000]));
        let all = [(&fast, false), (&fast, false), (&slow, false), (&slow, false)];
        assert_eq!(compare(&all).limps, [false, false, true, true]);
    }
}
