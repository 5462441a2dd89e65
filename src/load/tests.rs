use super::Latencies;
use std::time::Duration;

fn check(latencies: &[u64], count: u64, least: u64, most: u64) {
    let window = Latencies::default();
    for micros in latencies {
        window.note(Duration::from_micros(*micros));
    }
    let found = window.take();
    assert_eq!(found.count, count);
    let p90 = u64::try_from(found.p90.as_micros()).unwrap();
    assert!((least..=most).contains(&p90), "{p90} us for {latencies:?}");
    assert_eq!(window.take(), super::Window::default(), "a new window has begun");
}

#[test]
fn nine_of_ten_are_not_above() {
    check(&[], 0, 0, 0);
    check(&[100], 1, 100, 125);
    check(&[100; 10], 10, 100, 125);
    check(&[10, 10, 10, 10, 10, 10, 10, 10, 10, 5000], 10, 10, 13);
    check(&[10, 10, 10, 10, 10, 10, 10, 10, 5000, 5000], 10, 5000, 6250);
    check(&[0, 1, 2, 3], 4, 3, 4);
    check(&[u64::MAX], 1, 60_000_000, 70_000_000);
}

#[test]
fn the_bound_of_a_bucket_is_at_most_a_quarter_above() {
    for micros in (1..2000).chain([12_345, 99_999, 1_000_000, 9_999_999]) {
        check(&[micros], 1, micros, micros + micros / 4 + 1);
    }
}
