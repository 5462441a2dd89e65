//! The disks as stripes see them: who serves one, and where a new stripe goes. Knows the ring and the member list.

use crate::class::Class;
use crate::disk::set::DiskSet;
use crate::disk::superblock::MemberState;
use crate::error::{Error, Posix, Result};
use crate::meta::local::LocalLog;
use crate::net::Priority;
use crate::placement::{Candidate, Ring};
use crate::stripe::reader::Members;
use crate::stripe::writer::{Placer, Target};
use crate::types::{ClassId, DiskId, Epoch, Incarnation, NodeId, StripeId};
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
}

impl SetMembers {
    pub(super) const fn new(disks: Arc<DiskSet>, log: Arc<LocalLog>) -> Self {
        Self { disks, log }
    }
}

impl Members for SetMembers {
    fn node(&self, disk: DiskId) -> Option<NodeId> {
        self.disks.get(disk).map(|_handle| HERE)
    }

    fn epoch(&self) -> Epoch {
        self.log.epoch()
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
                let usable = members.disks.iter().filter(|member| member.state != MemberState::Out);
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
        let healthy: Vec<DiskId> =
            walk.iter().copied().filter(|disk| self.disks.get(*disk).is_some()).collect();
        let (k, n) = (usize::from(class.scheme.k()), usize::from(class.scheme.n()));
        // The writer asks for one shard more than k as long as there are disks for it.
        if healthy.len() < k {
            return Err(Error::unavailable(format!(
                "place a stripe of class {class}: {} disks are in use, {k} are needed",
                healthy.len()
            )));
        }
        let roomy: Vec<DiskId> =
            healthy.iter().copied().filter(|disk| !self.disks.is_full(*disk)).collect();
        // Full disks are passed over like lost ones; the writer asks for as many shards as there are disks for.
        let passed_over = healthy.len() - roomy.len();
        if roomy.len() < k || (roomy.len() < n && passed_over > n - k) {
            let context = format!(
                "place a stripe of class {class}: {passed_over} of {} disks in use are full",
                healthy.len()
            );
            return Err(Error::new(crate::error::ErrorKind::Posix(Posix::NoSpace), context));
        }
        let disks = roomy.into_iter().map(|disk| (HERE, disk)).collect();
        Ok(Target { id, class_id, class, epoch, disks, priority })
    }
}
