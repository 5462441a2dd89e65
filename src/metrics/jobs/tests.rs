use super::*;

#[test]
fn a_duration_is_told_within_an_eighth() {
    for exponent in 11..37 {
        for part in [0_u64, 1, 3, 5, 7] {
            let nanoseconds = (1_u64 << exponent) + part * (1 << exponent) / 8;
            let told = middle(class(Duration::from_nanos(nanoseconds))).as_nanos();
            let (told, wanted) = (u64::try_from(told).unwrap(), nanoseconds);
            assert!(told.abs_diff(wanted) * 8 <= wanted, "{wanted} is told as {told}");
        }
    }
    assert_eq!(class(Duration::ZERO), 0);
    assert_eq!(class(Duration::MAX), CLASSES - 1);
    assert!(middle(CLASSES - 1) > Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn the_last_minute_is_told_and_what_is_older_is_not() {
    let times = JobTimes::default();
    assert_eq!(times.of_late(Instant::now()), None);
    for job in 0..100_u64 {
        let milliseconds = if job < 98 { 1 } else { 500 };
        times.record(Duration::from_millis(milliseconds), Instant::now());
        tokio::time::advance(Duration::from_millis(500)).await;
    }
    let check = |latency: Latency, median: u128, p99: u128| {
        let within = |told: Duration, wanted: u128| {
            told.as_micros().abs_diff(wanted * 1000) * 8 <= wanted * 1000
        };
        assert!(within(latency.median, median) && within(latency.p99, p99), "{latency:?}");
    };
    check(times.of_late(Instant::now()).unwrap(), 1, 500);
    // The slow ones came last; a minute later they are there still, and then all is forgotten.
    tokio::time::advance(Duration::from_secs(50)).await;
    check(times.of_late(Instant::now()).unwrap(), 1, 500);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(times.of_late(Instant::now()), None);
    times.record(Duration::from_millis(40), Instant::now());
    check(times.of_late(Instant::now()).unwrap(), 40, 40);
    assert_eq!(times.all().count(), 101);
}

#[test]
fn a_job_answers_and_is_counted() {
    let times = JobTimes::default();
    assert_eq!(times.time(|| 7), 7);
    assert_eq!(times.all().count(), 1);
    assert!(times.of_late(Instant::now()).is_some());
}
