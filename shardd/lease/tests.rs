use super::{LEASE, Lease};
use crate::error::ErrorKind;
use crate::types::MountId;
use std::time::Duration;
use tokio::time::Instant;

const A: MountId = MountId(1);
const B: MountId = MountId(2);

fn kind<T>(result: crate::error::Result<T>) -> Option<ErrorKind> {
    result.err().map(|error| error.kind())
}

#[tokio::test]
async fn one_mount_holds_a_disk_until_it_is_silent() {
    let (mut lease, start) = (Lease::default(), Instant::now());
    assert!(lease.take(A, "mount a", start).unwrap());
    assert!(!lease.take(A, "mount a", start).unwrap(), "again is no change");
    lease.check(A).unwrap();
    let refused = lease.take(B, "mount b", start + LEASE - Duration::from_millis(1));
    assert!(refused.unwrap_err().to_string().contains("in use by mount a"));
    // Renewed: it lasts from then on.
    lease.renew(A, start + Duration::from_secs(5));
    lease.renew(B, start + Duration::from_secs(5));
    assert_eq!(kind(lease.take(B, "mount b", start + LEASE)), Some(ErrorKind::Refused));
    assert!(lease.take(B, "mount b", start + LEASE + Duration::from_secs(5)).unwrap());
    lease.check(B).unwrap();
    assert_eq!(kind(lease.check(A)), Some(ErrorKind::Superseded));
}

#[tokio::test]
async fn a_silent_mount_keeps_what_nobody_wants() {
    let (mut lease, start) = (Lease::default(), Instant::now());
    lease.take(A, "mount a", start).unwrap();
    lease.check(A).unwrap();
    lease.renew(A, start + 10 * LEASE);
    assert_eq!(kind(lease.take(B, "b", start + 10 * LEASE)), Some(ErrorKind::Refused));
}

#[tokio::test]
async fn who_gives_back_holds_nothing() {
    let (mut lease, start) = (Lease::default(), Instant::now());
    assert_eq!(kind(lease.check(A)), Some(ErrorKind::Unavailable), "nobody has taken it");
    lease.take(A, "mount a", start).unwrap();
    assert!(!lease.give_back(B));
    assert!(lease.give_back(A));
    assert_eq!(kind(lease.check(A)), Some(ErrorKind::Unavailable), "nobody else has had it");
    assert!(lease.take(B, "mount b", start).unwrap());
    assert!(lease.give_back(B));
    assert_eq!(kind(lease.check(A)), Some(ErrorKind::Superseded), "the other one has had it");
    assert_eq!(kind(lease.take(MountId(0), "nobody", start)), Some(ErrorKind::Refused));
}
