use super::*;
use crate::error::ErrorKind;

#[test]
fn a_page_is_written_in_the_text_format() {
    let durations = Durations::new(&[0.001, 0.5]);
    for milliseconds in [1, 250, 2000] {
        durations.record(Duration::from_millis(milliseconds));
    }
    let mut page = Page::default();
    page.gauge("room", "Room.", 7);
    page.gauges("disks", "Disks.", ["state", "path"], [(["up", "a\"b\\c\nd"], 3)]);
    page.counter("done_total", "Done.", 1 << 40);
    page.histograms("waits_seconds", "Waits.", ["disk"], [(["0"], &durations)]);
    page.gauges("nothing", "Nothing.", ["disk"], [([""; 1], 0); 0]);
    page.fractions("share", "Share.", [], [([""; 0], 0.25)]);
    page.untyped("shards_total", "Shards.", 12);
    let expected = r#"# HELP room Room.
# TYPE room gauge
room 7
# HELP disks Disks.
# TYPE disks gauge
disks{state="up",path="a\"b\\c\nd"} 3
# HELP done_total Done.
# TYPE done_total counter
done_total 1099511627776
# HELP waits_seconds Waits.
# TYPE waits_seconds histogram
waits_seconds_bucket{disk="0",le="0.001"} 1
waits_seconds_bucket{disk="0",le="0.5"} 2
waits_seconds_bucket{disk="0",le="+Inf"} 3
waits_seconds_sum{disk="0"} 2.251
waits_seconds_count{disk="0"} 3
# HELP share Share.
# TYPE share gauge
share 0.25
# HELP shards_total Shards.
# TYPE shards_total untyped
shards_total 12
"#;
    assert_eq!(page.text().unwrap(), expected);
}

#[test]
fn operations_are_counted_where_they_are_listed() {
    for (number, (operation, _name)) in Operation::ALL.into_iter().enumerate() {
        assert_eq!(operation as usize, number, "{operation:?}");
    }
    let requests = RequestMetrics::default();
    requests.of(Operation::Lseek).start().stop();
    drop(requests.of(Operation::Read).start());
    let counted = |(operation, _name): &(Operation, &str)| requests.of(*operation).count() > 0;
    let counted: Vec<_> = Operation::ALL.iter().filter(|each| counted(each)).collect();
    assert_eq!(counted, [&(Operation::Lseek, "lseek")], "what is not stopped is not counted");
}

#[test]
fn instruments_tell_what_was_recorded() {
    let metrics = Metrics::default();
    let (plain, packed) = ("4+2".parse().unwrap(), "replica:3,zstd".parse().unwrap());
    metrics.coding.announce(&plain);
    metrics.coding.decode(&packed).record(Duration::from_micros(20));
    metrics.coding.recovered(Purpose::Repair);
    metrics.repairs.note(RepairResult::Partial, Some(ErrorKind::Corrupt), 4096);
    metrics.repairs.note(RepairResult::Done, None, 100);
    let mut page = Page::default();
    metrics.coding.write(&mut page);
    metrics.repairs.write(&mut page);
    metrics.requests.write(&mut page);
    let text = page.text().unwrap();
    for line in [
        "erasure_encode_duration_seconds_count{coder=\"4+2\",compression=\"none\"} 0",
        "erasure_decode_duration_seconds_count{coder=\"4+2\",compression=\"none\"} 0",
        "erasure_decode_duration_seconds_count{coder=\"replica:3\",compression=\"zstd\"} 1",
        "erasure_recovery_operations_total{purpose=\"read\"} 0",
        "erasure_recovery_operations_total{purpose=\"repair\"} 1",
        "storage_repair_attempts_total{status=\"done\"} 1",
        "storage_repair_attempts_total{status=\"partial\"} 1",
        "storage_repair_attempts_total{status=\"failed\"} 0",
        "storage_repair_failures_total{error=\"corrupt\"} 1",
        "storage_repair_bytes_total 4196",
        "ironfs_request_duration_seconds_count{operation=\"copy_file_range\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
}

#[test]
fn look_ups_are_counted_by_their_end() {
    let lookups = Lookups::default();
    [true, false, true].into_iter().for_each(|found| lookups.note(found));
    assert_eq!(lookups.counts(), (2, 1));
}
