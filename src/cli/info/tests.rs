use super::text;
use crate::volume::info::{FileInfo, StripeInfo};

fn info(margins: &[i64]) -> FileInfo {
    let stripe = |margin: &i64| StripeInfo {
        stripe: "0000000100000001".into(),
        class: "4+2".into(),
        payload_bytes: 2048,
        margin: *margin,
        shards: Vec::new(),
    };
    FileInfo {
        ino: 7,
        kind: "file".into(),
        class: "4+2".into(),
        size: 1 << 20,
        allocated_bytes: 1 << 20,
        reserved_bytes: 0,
        inline_bytes: 0,
        hot_bytes: 0,
        dirty_bytes: 0,
        margin: margins.iter().copied().min(),
        chunks: Vec::new(),
        stripes: margins.iter().map(stripe).collect(),
        truncated: false,
    }
}

#[test]
fn sizes_before_compression_are_not_called_stored() {
    let text = text(&info(&[]));
    assert!(text.contains(" allocated: 1.0 MiB\n") && !text.contains("stored"), "{text}");
}

#[test]
fn what_cannot_be_read_now_is_said_to_be_so() {
    let check = |margins: &[i64], says: &str, stripe: &str| {
        let text = text(&info(margins));
        assert!(text.contains(&format!("    margin: {says}\n")), "{text}");
        assert!(text.contains(&format!("(4+2, 2.0 KiB, {stripe})\n")), "{text}");
    };
    check(&[2], "2 more shards of its worst stripe may be lost", "margin 2");
    check(&[2, 1], "1 more shard of its worst stripe may be lost", "margin 1");
    check(&[0], "no more shards of its worst stripe may be lost", "margin 0");
    let short = "its worst stripe cannot be read now: it needs";
    check(&[2, -1], &format!("{short} 1 more good shard"), "cannot be read now");
    check(&[-3], &format!("{short} 3 more good shards"), "cannot be read now");
}

#[test]
fn the_margin_of_a_part_is_not_that_of_the_file() {
    let text = text(&FileInfo { truncated: true, ..info(&[2]) });
    let margin = "margin: 2 more shards of its worst stripe may be lost (of the stripes below)\n";
    assert!(text.contains(margin) && text.ends_with("are not shown)\n"), "{text}");
}
