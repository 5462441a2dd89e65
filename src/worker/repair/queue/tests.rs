use super::*;
use crate::types::{ClassId, Epoch, Incarnation};

fn due(margin: i64, seconds: i64, number: u32) -> Due {
    let since = Timestamp { seconds, nanoseconds: 0 };
    Due { margin, since, id: StripeId::new(Incarnation(1), number), bytes: 10 }
}

#[test]
fn the_least_margin_goes_first_then_the_oldest() {
    let mut queue = Queue::new(3);
    for due in [due(1, 5, 1), due(0, 9, 2), due(1, 4, 3)] {
        queue.push(due);
    }
    assert!(!queue.take_overflowed());
    // The least urgent one has to give way, and one that waits already takes its new place.
    queue.push(due(2, 0, 4));
    assert!(queue.take_overflowed() && !queue.take_overflowed());
    queue.push(due(0, 1, 1));
    assert_eq!((queue.len(), queue.bytes()), (3, 30));
    let order = std::iter::from_fn(|| queue.pop()).collect::<Vec<_>>();
    assert_eq!(order, [due(0, 1, 1), due(0, 9, 2), due(1, 4, 3)]);
    assert_eq!((queue.len(), queue.bytes()), (0, 0));
}

/// A 2+2 stripe on disks 0 to 3; the letters say how disks 0, 1, ... are: Here, Away, Out.
fn look(disks: &str, missing: u64, bad: u64) -> Outlook {
    let record = StripeRecord {
        id: StripeId::new(Incarnation(1), 1),
        class_id: ClassId(0),
        class: "2+2".parse().unwrap(),
        epoch: Epoch(1),
        payload_bytes: 64,
        slots: 1,
        disks: (0..4).map(DiskId).collect(),
        missing,
        shard_roots: vec![[0; 32]; 4],
    };
    let presence = |letter| match letter {
        'h' => Presence::Here,
        'a' => Presence::Away,
        _out => Presence::Out,
    };
    let disks = (0..).map(DiskId).zip(disks.chars().map(presence)).collect();
    outlook(&record, bad, &disks)
}

#[test]
fn what_is_lost_and_what_can_be_done() {
    let check = |disks, missing, bad, lost, margin, possible| {
        assert_eq!(look(disks, missing, bad), Outlook { lost, margin, possible }, "{disks}");
    };
    check("hhhh", 0, 0, 0, 2, false);
    check("hhhh", 0b0010, 0, 0b0010, 1, true);
    check("hhhh", 0, 0b0001, 0b0001, 1, true);
    // Away is lost for now, but nothing to repair.
    check("hhah", 0, 0, 0, 1, false);
    check("hhahh", 0, 0, 0, 1, true);
    check("hhoh", 0, 0, 0b0100, 1, false);
    check("hhohh", 0, 0, 0b0100, 1, true);
    check("hhoha", 0, 0, 0b0100, 1, false);
    // A disk that is not known is out.
    check("hhh", 0, 0, 0b1000, 1, false);
    check("haohh", 0, 0, 0b0100, 0, true);
    check("aaohh", 0, 0, 0b0100, -1, false);
    // What is only noted is worth a look.
    check("hhhh", 0, 0b0111, 0b0111, -1, true);
    check("ahhh", 0, 0b0001, 0b0001, 1, false);
}
