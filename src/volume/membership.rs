//! The disks as stripes see them: who serves one, and where a new stripe goes. Knows the ring and the member list.

use crate::class::Class;
use crate::disk::set::DiskSet;
use crate::disk::superblock::{Member, MemberState};
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::meta::local::LocalLog;
use crate::net::Priority;
use crate::placement::{Candidate, Ring};
use crate::stripe::reader::{Members, Presence};
use crate::stripe::writer::{Placer, Target};
use crate::types::{ClassId, DiskId, Epoch, Incarnation, NodeId, StripeId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// This process.
const HERE: NodeId = NodeId(0);
/// Virtual nodes of a disk of mean weight.
const POINTS: u32 = 128;

/// The disks of this process.
#[derive(Debug)]
pub(super) struct SetMembers {
    disks: Arc<DiskSet>,
    log: Arc<LocalLog>,
    reserve_percent: u32,
}

impl SetMembers {
    pub(super) const fn new(disks: Arc<DiskSet>, log: Arc<LocalLog>, reserve_percent: u32) -> Self {
        Self { disks, log, reserve_percent }
    }
}

impl Members for SetMembers {
    fn node(&self, disk: DiskId) -> Option<NodeId> {
        self.disks.get(disk).map(|_handle| HERE)
    }

    fn epoch(&self) -> Epoch {
        self.log.epoch()
    }

    fn disks(&self) -> BTreeMap<DiskId, Presence> {
        let presence = |member: &Member| match (member.state, self.disks.get(member.disk)) {
            (MemberState::Out | MemberState::Removed, _) => Presence::Out,
            (MemberState::Healthy | MemberState::Down, Some(_)) => Presence::Here,
            (MemberState::Healthy | MemberState::Down, None) => Presence::Away,
            (MemberState::Draining, Some(_)) => Presence::Leaving,
            // It was to leave anyway: what it held is computed from the others at once.
            (MemberState::Draining, None) => Presence::Out,
        };
        let members = self.log.members();
        members.disks.iter().map(|member| (member.disk, presence(member))).collect()
    }

    fn is_suspect(&self, disk: DiskId) -> bool {
        self.disks.is_suspect(disk)
    }

    fn has_room(&self, disk: DiskId) -> bool {
        self.disks.has_free(disk, self.reserve_percent)
    }
}

/// Gives ids to stripes and walks the ring for them.
#[derive(Debug)]
pub(super) struct RingPlacer {
    disks: Arc<DiskSet>,
    log: Arc<LocalLog>,
    incarnation: Incarnation,
    counter: AtomicU32,
    /// Ring of the epoch it was made for.
    ring: Mutex<Option<(Epoch, Arc<Ring>)>>,
}

impl RingPlacer {
    pub(super) fn new(disks: Arc<DiskSet>, log: Arc<LocalLog>, incarnation: Incarnation) -> Self {
        Self { disks, log, incarnation, counter: AtomicU32::new(0), ring: Mutex::new(None) }
    }

    fn ring(&self) -> (Epoch, Arc<Ring>) {
        let epoch = self.log.epoch();
        let mut held = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some((at, ring)) if *at == epoch => (epoch, Arc::clone(ring)),
            Some(_) | None => {
                let members = self.log.members();
                let usable = members.disks.iter().filter(|member| member.state.counts());
                let candidates: Vec<Candidate> = usable
                    .map(|member| Candidate { disk: member.disk, weight: member.capacity_bytes })
                    .collect();
                let ring = Arc::new(Ring::new(&candidates, POINTS));
                *held = Some((members.epoch, Arc::clone(&ring)));
                (members.epoch, ring)
            }
        }
    }

    fn next_id(&self) -> Result<StripeId> {
        let next = |counter: u32| counter.checked_add(1);
        match self.counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(counter) => Ok(StripeId::new(self.incarnation, counter)),
            // 2^32 stripes of one mount: 128 PiB if they are full.
            Err(_) => {
                Err(Error::unavailable("this mount has written its last stripe: mount again"))
            }
        }
    }
}

impl Placer for RingPlacer {
    fn target(&self, class_id: ClassId, class: Class, priority: Priority) -> Result<Target> {
        let id = self.next_id()?;
        let (epoch, ring) = self.ring();
        let walk = ring.walk(id);
        let in_use = |disk: &DiskId| self.disks.get(*disk).is_some();
        let found: Vec<Found> = walk
            .into_iter()
            .filter(in_use)
            .map(|disk| Found {
                disk,
                full: self.disks.is_full(disk) || self.disks.is_suspect(disk),
            })
            .collect();
        let disks = choose(&found, class, priority)?;
        let disks = disks.into_iter().map(|disk| (HERE, disk)).collect();
        Ok(Target { id, class_id, class, epoch, disks, priority })
    }

    fn home(&self, id: StripeId, _class: Class) -> Vec<DiskId> {
        self.ring().1.walk(id)
    }
}

/// A disk in use, in the order of a stripe's walk.
#[derive(Clone, Copy, Debug)]
struct Found {
    disk: DiskId,
    full: bool,
}

/// Disks for a stripe, of those that are in use. Full ones are passed over like lost ones, as long as the class survives
/// the loss of so many; the writer asks for as many shards as there are disks for. What makes room or restores
/// redundancy may try the full ones too, last.
fn choose(found: &[Found], class: Class, priority: Priority) -> Result<Vec<DiskId>> {
    let (k, n) = (usize::from(class.scheme.k()), usize::from(class.scheme.n()));
    if found.len() < k {
        return Err(Error::unavailable(format!(
            "place a stripe of class {class}: {} disks are in use, {k} are needed",
            found.len()
        )));
    }
    let (full, mut disks): (Vec<Found>, Vec<Found>) = found.iter().partition(|found| found.full);
    if disks.len() < n {
        match priority {
            Priority::Background => disks.extend(full),
            Priority::Sync | Priority::Read if disks.len() < k || full.len() > n - k => {
                let context = format!(
                    "place a stripe of class {class}: {} of {} disks in use are full",
                    full.len(),
                    found.len()
                );
                return Err(Error::new(ErrorKind::Posix(Posix::NoSpace), context));
            }
            Priority::Sync | Priority::Read => {}
        }
    }
    Ok(disks.into_iter().map(|found| found.disk).collect())
}

#[cfg(test)]
mod tests {
    use super::{Found, choose};
    use crate::error::{ErrorKind, Posix};
    use crate::net::Priority;
    use crate::types::DiskId;

    /// Disks 1, 2, ...; `f` stands for a full one.
    fn check(disks: &str, priority: Priority, expected: Result<&[u32], ErrorKind>) {
        let found: Vec<Found> = (1..)
            .zip(disks.chars())
            .map(|(number, state)| Found { disk: DiskId(number), full: state == 'f' })
            .collect();
        let chosen = choose(&found, "4+2".parse().unwrap(), priority);
        let chosen = chosen.map(|disks| disks.iter().map(|disk| disk.0).collect::<Vec<_>>());
        assert_eq!(chosen.map_err(|error| error.kind()), expected.map(<[u32]>::to_vec), "{disks}");
    }

    #[test]
    fn full_disks_are_passed_over_like_lost_ones() {
        let full = Err(ErrorKind::Posix(Posix::NoSpace));
        check("......", Priority::Sync, Ok(&[1, 2, 3, 4, 5, 6]));
        check("f....f", Priority::Sync, Ok(&[2, 3, 4, 5]));
        check("ff...f", Priority::Sync, full);
        check("f...", Priority::Sync, full);
        check("....", Priority::Sync, Ok(&[1, 2, 3, 4]));
        check("...", Priority::Sync, Err(ErrorKind::Unavailable));
        check("fff......", Priority::Sync, Ok(&[4, 5, 6, 7, 8, 9]));
        check("fff.....", Priority::Sync, full);
        check("fff.....", Priority::Background, Ok(&[4, 5, 6, 7, 8, 1, 2, 3]));
        check("ffffff", Priority::Background, Ok(&[1, 2, 3, 4, 5, 6]));
        check("f......", Priority::Background, Ok(&[2, 3, 4, 5, 6, 7]));
    }
}
