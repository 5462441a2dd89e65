use super::Together;
use crate::config::labels::Labels;
use crate::disk::superblock::{Member, MemberList, MemberState};
use crate::types::DiskId;

/// Disks 1, 2, ... with these labels; `.` for none.
fn together(labels: &[&str]) -> Together {
    let member = |(disk, labels): (DiskId, &&str)| Member {
        disk,
        state: MemberState::Healthy,
        capacity_bytes: 1,
        device: 1,
        path: String::new(),
        labels: if **labels == *"." { Labels::default() } else { Labels::parse(labels).unwrap() },
    };
    let disks = (1..).map(DiskId).zip(labels).map(member).collect();
    Together::new(&MemberList { disks, ..MemberList::default() })
}

fn check(labels: &[&str], stripes: &[(&[u32], i64)], expected: Option<&str>) {
    let mut together = together(labels);
    for (disks, margin) in stripes {
        let disks: Vec<DiskId> = disks.iter().copied().map(DiskId).collect();
        together.note(&disks, *margin);
    }
    assert_eq!(together.survived(), expected, "{labels:?} {stripes:?}");
}

#[test]
fn what_survives_is_what_every_stripe_survives() {
    let zones = ["zone=a", "zone=a", "zone=b", "zone=b", "zone=c", "zone=c"];
    check(&zones, &[(&[1, 2, 3, 4, 5, 6], 2)], Some("zone"));
    check(&zones, &[(&[1, 2, 3, 4, 5, 6], 2), (&[1, 2, 3], 1)], None);
    check(&zones, &[(&[1, 3, 5], 1)], Some("zone"));
    check(&zones, &[(&[1, 3], 0)], None);
    check(&zones, &[], Some("zone"));
    check(&["."; 3], &[(&[1, 2, 3], 1)], None);
    // Racks of one zone; the same name in another zone is another rack.
    check(&["rack=1", "rack=2", "rack=3"], &[(&[1, 2, 3], 1)], Some("rack"));
    let racks = ["zone=a,rack=1", "zone=a,rack=2", "zone=b,rack=1"];
    check(&racks, &[(&[1, 2, 3], 1)], Some("rack"));
    check(&["node=x", "node=y", "."], &[(&[1, 2, 3], 1)], Some("node"));
}
