use super::text;
use crate::volume::status::ScrubStatus;

fn status() -> ScrubStatus {
    ScrubStatus {
        state: "idle".into(),
        under_way: false,
        passes: 0,
        started: None,
        finished: None,
        stripes_checked: 0,
        stripes: 10,
        bytes_checked: 0,
        bytes: 10 << 20,
        damaged: 0,
    }
}

#[test]
fn a_pass_that_has_ended_shows_what_it_read() {
    assert_eq!(text(&status()), "idle\nno pass has ended yet\n");
    // Much was deleted since.
    let ended = ScrubStatus {
        passes: 3,
        started: Some("MONDAY".into()),
        finished: Some("TUESDAY".into()),
        stripes_checked: 12,
        bytes_checked: 12 << 20,
        damaged: 1,
        ..status()
    };
    let expected =
        "pass 3 began MONDAY and ended TUESDAY: 12 stripes, 12.0 MiB read, 1 bad shards\n";
    assert_eq!(text(&ended), format!("idle\n{expected}"));
    let held = ScrubStatus { state: "paused".into(), ..ended };
    assert_eq!(text(&held), format!("paused\n{expected}"));
}

#[test]
fn a_pass_under_way_never_shows_more_than_all() {
    let first = ScrubStatus {
        state: "running".into(),
        under_way: true,
        started: Some("MONDAY".into()),
        stripes_checked: 5,
        bytes_checked: 5 << 20,
        ..status()
    };
    let expected = "running\npass 1 began MONDAY: 5 of about 10 stripes, 5.0 MiB of about 10.0 MiB read, 0 bad \
                    shards so far\nno pass has ended yet\n";
    assert_eq!(text(&first), expected);
    let later = ScrubStatus {
        state: "paused".into(),
        passes: 1,
        finished: Some("SUNDAY".into()),
        stripes_checked: 12,
        bytes_checked: 12 << 20,
        ..first
    };
    let expected = "paused\npass 2 began MONDAY: 12 of about 12 stripes, 12.0 MiB of about 12.0 MiB read, 0 bad \
                    shards so far\npass 1 ended SUNDAY\n";
    assert_eq!(text(&later), expected);
}
