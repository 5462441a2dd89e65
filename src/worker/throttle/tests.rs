use super::{Caps, PACE_FIRST, PACE_MIN, PAUSE, REQUESTS_MIN, Throttle, WINDOW};
use crate::load::Latencies;
use crate::types::DiskId;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::advance;

const MIB: u64 = 1 << 20;

fn throttle(all: Option<u64>, disk: Option<u64>) -> (Throttle, Arc<Latencies>) {
    let foreground = Arc::new(Latencies::default());
    (Throttle::new(Caps { all, disk }, foreground.clone()), foreground)
}

/// MiB that are admitted in `seconds`, a piece of `load` at a time.
async fn admitted(throttle: &Throttle, load: &[(DiskId, u64)], seconds: u64) -> u64 {
    let start = tokio::time::Instant::now();
    let mut bytes = 0;
    while start.elapsed() < Duration::from_secs(seconds) {
        match throttle.admit(load) {
            Ok(()) => bytes += load.iter().map(|(_disk, bytes)| bytes).sum::<u64>(),
            Err(wait) => advance(wait).await,
        }
    }
    bytes / MIB
}

/// A second of foreground requests that take so long.
async fn foreground(throttle: &Throttle, latencies: &Latencies, latency: Duration) {
    for _window in 0..4 {
        for _request in 0..REQUESTS_MIN {
            latencies.note(latency);
        }
        advance(WINDOW).await;
        let _looked = throttle.admit(&[]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_cap_in_all_holds() {
    let (throttle, _foreground) = throttle(Some(100 * MIB), None);
    let found = admitted(&throttle, &[(DiskId(1), 5 * MIB), (DiskId(2), 5 * MIB)], 10).await;
    assert!((1000..=1010).contains(&found), "{found}");
    // A piece of more than a second's worth goes through, and is paid for.
    let large = [(DiskId(1), 1000 * MIB)];
    advance(Duration::from_secs(1)).await;
    throttle.admit(&large).unwrap();
    assert_eq!(throttle.admit(&large), Err(Duration::from_secs(10)));
}

#[tokio::test(start_paused = true)]
async fn the_cap_of_a_disk_holds_up_only_what_touches_it() {
    let (throttle, _foreground) = throttle(None, Some(10 * MIB));
    throttle.admit(&[(DiskId(1), 10 * MIB), (DiskId(2), 10 * MIB)]).unwrap();
    advance(Duration::from_millis(1)).await;
    throttle.admit(&[(DiskId(2), MIB), (DiskId(3), MIB)]).unwrap_err();
    throttle.admit(&[(DiskId(3), MIB), (DiskId(4), MIB)]).unwrap();
    let found = admitted(&throttle, &[(DiskId(5), MIB)], 10).await;
    assert!((100..=101).contains(&found), "{found}");
}

#[tokio::test(start_paused = true)]
async fn a_foreground_that_suffers_is_given_way_to_and_then_no_more() {
    let (throttle, latencies) = throttle(None, None);
    let (good, bad) = (Duration::from_millis(1), Duration::from_millis(5));
    foreground(&throttle, &latencies, good).await;
    assert_eq!(throttle.pace(), None, "nobody suffers");
    foreground(&throttle, &latencies, bad).await;
    let slowed = throttle.pace().expect("it gives way");
    foreground(&throttle, &latencies, bad).await;
    foreground(&throttle, &latencies, bad).await;
    assert_eq!(throttle.pace(), Some(PACE_MIN), "more and more, from {slowed}");
    let found = admitted(&throttle, &[(DiskId(1), MIB)], 1).await;
    assert!(found >= PACE_MIN / MIB, "never less than {PACE_MIN}: {found}");
    for _second in 0..20 {
        foreground(&throttle, &latencies, good).await;
    }
    assert_eq!(throttle.pace(), None);
}

#[tokio::test(start_paused = true)]
async fn a_foreground_that_suffers_from_something_else_is_not_given_way_to_for_ever() {
    let (throttle, latencies) = throttle(None, None);
    let (good, degraded) = (Duration::from_millis(1), Duration::from_millis(4));
    foreground(&throttle, &latencies, good).await;
    for _second in 0..3 {
        foreground(&throttle, &latencies, degraded).await;
    }
    assert_eq!(throttle.pace(), Some(PACE_MIN), "it is tried first whether it helps");
    for _second in 0..4 {
        foreground(&throttle, &latencies, degraded).await;
    }
    let grown = throttle.pace().unwrap();
    assert!(grown > 4 * PACE_MIN, "it does not: {grown}");
    for _second in 0..2 {
        foreground(&throttle, &latencies, degraded * 2).await;
    }
    assert_eq!(throttle.pace(), Some(PACE_MIN), "what comes on top counts");
    // Whole again: what was borne before is not borne any more.
    for _second in 0..10 {
        foreground(&throttle, &latencies, good).await;
    }
    let before = throttle.pace();
    foreground(&throttle, &latencies, degraded).await;
    assert!(throttle.pace().is_some() && throttle.pace() < Some(before.unwrap_or(u64::MAX)));
}

#[tokio::test(start_paused = true)]
async fn work_that_begins_beside_a_foreground_begins_gently() {
    let (throttle, latencies) = throttle(None, None);
    for pace in [Some(PACE_FIRST), None] {
        if pace.is_some() {
            (0..REQUESTS_MIN).for_each(|_request| latencies.note(Duration::from_millis(1)));
        }
        advance(PAUSE).await;
        throttle.admit(&[]).unwrap();
        assert_eq!(throttle.pace(), pace);
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_there_means_full_speed_at_once() {
    let (throttle, latencies) = throttle(None, None);
    foreground(&throttle, &latencies, Duration::from_millis(1)).await;
    for _second in 0..3 {
        foreground(&throttle, &latencies, Duration::from_millis(9)).await;
    }
    assert_eq!(throttle.pace(), Some(PACE_MIN));
    for _window in 0..12 {
        advance(WINDOW).await;
        let _looked = throttle.admit(&[]);
    }
    assert_eq!(throttle.pace(), None);
}

#[tokio::test(start_paused = true)]
async fn the_best_is_forgotten_so_that_a_slower_disk_does_not_slow_repair_for_ever() {
    let (throttle, latencies) = throttle(None, None);
    foreground(&throttle, &latencies, Duration::from_millis(1)).await;
    for _second in 0..120 {
        foreground(&throttle, &latencies, Duration::from_micros(2500)).await;
    }
    assert_eq!(throttle.pace(), None);
}
