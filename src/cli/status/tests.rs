use super::text;
use crate::config::labels::Labels;
use crate::volume::status::{
    ClassSpace, DiskStatus, LogStatus, MetadataStatus, RepairStatus, Status,
};

fn disk() -> DiskStatus {
    DiskStatus {
        id: 1,
        path: "/srv/d0".into(),
        state: "down".into(),
        reason: Some("it is gone".into()),
        total_bytes: 0,
        free_bytes: 0,
        errors: 2,
        latency_median_ms: None,
        latency_p99_ms: None,
        log: true,
        labels: Labels::default(),
    }
}

fn waiting(metadata: Option<MetadataStatus>) -> Status {
    Status {
        name: "media".into(),
        volume: "v".into(),
        state: "waiting".into(),
        problems: vec!["changes wait: all are away".into()],
        actions: vec!["bring disks back".into()],
        mount: Some("/mnt".into()),
        pid: Some(7),
        epoch: 3,
        metadata,
        shared_device: false,
        disks: vec![disk()],
        dirty_bytes: 1 << 20,
        log: LogStatus { applied: 9, durable: 8, disks: vec![1], wanted: 1 },
    }
}

const HEAD: &str = "   volume: media (v)
    state: waiting
  problem: changes wait: all are away
   action: bring disks back
  mounted: /mnt, served by pid 7
";
const TAIL: &str = "      log: applied 9, durable 8, on disks 1

DISK   STATE  SIZE  FREE  ERRORS  MEDIAN  P99  PATH
1 log  down   0 B   0 B   2       -       -    /srv/d0 (it is gone)
";

#[test]
fn what_the_metadata_tells_is_left_out_where_it_cannot_be_read() {
    assert_eq!(text(&waiting(None)), format!("{HEAD}    dirty: 1.0 MiB\n{TAIL}"));
}

#[test]
fn what_the_metadata_tells_has_its_lines() {
    let metadata = MetadataStatus {
        class: "2+1".into(),
        survives_disks: 1,
        survives: "any 1 disk".into(),
        stripes_by_margin: [("0".to_owned(), 2), ("1".to_owned(), 3)].into(),
        hot_bytes: 1024,
        repair: RepairStatus { waiting: 2, noted: 1, paused: true, full_margin_seconds: Some(5) },
        space: ClassSpace::default(),
        inodes: 4,
    };
    let lines = "    class: 2+1
 survives: any 1 disk
  stripes: 2 with margin 0, 3 with margin 1
   repair: 2 stripes wait, 1 noted, full margin in 5 s, and repair is held
    space: 0 B used of 0 B, 0 B available
   inodes: 4
    dirty: 1.0 MiB, and 1.0 KiB of small data in the log
";
    assert_eq!(text(&waiting(Some(metadata))), format!("{HEAD}{lines}{TAIL}"));
}
