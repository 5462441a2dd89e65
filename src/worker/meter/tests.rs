use super::Meter;
use std::time::Duration;
use tokio::time::advance;

#[tokio::test(start_paused = true)]
async fn the_rate_is_that_of_late() {
    let meter = Meter::default();
    assert_eq!(meter.rate(), 0);
    for _second in 0..60 {
        meter.note(1000);
        advance(Duration::from_secs(1)).await;
        let rate = meter.rate();
        assert!((900..=1100).contains(&rate), "{rate}");
    }
    for _second in 0..60 {
        meter.note(5000);
        advance(Duration::from_secs(1)).await;
    }
    let rate = meter.rate();
    assert!((4500..=5500).contains(&rate), "{rate}");
    advance(Duration::from_secs(60)).await;
    assert_eq!(meter.rate(), 0, "it has come to rest");
}
