//! The disks as stripes see them: who serves one, and where a new stripe goes. Knows the ring and the member list.

use crate::class::Class;
use crate::config::Config;
use crate::disk::set::DiskSet;
use crate::disk::superblock::{Member, MemberList, MemberState};
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::meta::local::LocalLog;
use crate::net::Priority;
use crate::net::gather::NodeAddress;
use crate::net::remote::Nodes;
use crate::placement::{Candidate, Ring};
use crate::stripe::flight::Flights;
use crate::stripe::layout::StripeRecord;
use crate::stripe::reader::{Members, Presence};
use crate::stripe::writer::{Placer, Target};
use crate::sync::{Arc, Mutex, PoisonError};
use crate::types::{ClassId, DiskId, Epoch, Incarnation, NodeId, StripeId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// This process.
const HERE: NodeId = NodeId(0);

/// The disks of this process.
#[derive(Debug)]
pub(super) struct SetMembers {
    disks: Arc<DiskSet>,
    log: Arc<LocalLog>,
    reserve_percent: u32,
    /// Where nodes are, as far as the mount has learnt of them ...
    nodes: Option<Arc<Nodes>>,
    /// ... and as the configuration has it.
    configured: BTreeMap<String, String>,
}

impl SetMembers {
    pub(super) fn new(
        disks: Arc<DiskSet>,
        log: Arc<LocalLog>,
        nodes: Option<Arc<Nodes>>,
        config: &Config,
    ) -> Self {
        let reserve_percent = config.limits.reserve_percent;
        Self { disks, log, reserve_percent, nodes, configured: config.addresses() }
    }
}

impl Members for SetMembers {
    fn node(&self, disk: DiskId) -> Option<NodeId> {
        self.disks.get(disk).map(|_handle| HERE)
    }

    fn address(&self, disk: DiskId) -> Option<NodeAddress> {
        let name = self.disks.get(disk)?.disk.labels().node;
        let learnt = self.nodes.as_ref().and_then(|nodes| nodes.address(&name));
        let address = learnt.or_else(|| self.configured.get(&name).cloned())?;
        Some(NodeAddress { name, address })
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

    fn patience(&self) -> Duration {
        self.disks.patience()
    }

    fn note_silent(&self, disk: DiskId) {
        // The prober looks whether it answers, twice a second.
        self.disks.note_suspect(disk, true);
    }

    fn has_room(&self, disk: DiskId) -> bool {
        self.disks.has_free(disk, self.reserve_percent)
    }
}

/// How long a ring is used before free space is looked at again.
const RING_AGE: Duration = Duration::from_millis(500);
/// Most kinds of classes whose rings are kept.
const RINGS_MAX: usize = 16;

/// The disks that the volume counts on, there or not, whatever room they have. Those on one device divide its size.
fn standing(members: &MemberList) -> Vec<Candidate> {
    let counted = members.disks.iter().filter(|member| member.state.counts());
    let counted: Vec<&Member> = counted.collect();
    let candidate = |member: &&Member| {
        let same = |other: &&&Member| other.device == member.device;
        let neighbours = counted.iter().filter(same).count() as u64;
        let weight = member.capacity_bytes / neighbours.max(1);
        Candidate { disk: member.disk, weight, room: None, labels: member.labels.clone() }
    };
    counted.iter().map(candidate).collect()
}

/// The disks in use with their room, as a placement sees them, each with whether it is full.
pub(super) fn candidates(
    disks: &DiskSet,
    members: &MemberList,
    reserve_percent: u32,
) -> Vec<(Candidate, bool)> {
    let device = |disk: DiskId| members.member(disk).map(|member| member.device);
    let mut standing = standing(members);
    let all: Vec<Option<u64>> = standing.iter().map(|candidate| device(candidate.disk)).collect();
    standing.retain(|candidate| disks.get(candidate.disk).is_some());
    let used = standing.into_iter().map(|candidate| {
        let own = device(candidate.disk);
        let neighbours = all.iter().filter(|other| **other == own).count() as u64;
        let room = disks.space(candidate.disk).map(|space| {
            let reserved = space.total_bytes / 100 * u64::from(reserve_percent);
            space.free_bytes.saturating_sub(reserved) / neighbours.max(1)
        });
        let full = disks.is_full(candidate.disk);
        (Candidate { room, ..candidate }, full)
    });
    used.collect()
}

/// Gives ids to stripes and walks the ring for them.
#[derive(Debug)]
pub(super) struct RingPlacer {
    disks: Arc<DiskSet>,
    log: Arc<LocalLog>,
    incarnation: Incarnation,
    counter: AtomicU32,
    flights: Flights,
    /// Node that is local.
    here: String,
    reserve_percent: u32,
    /// Tells that disks come, go or fill up.
    changes: watch::Receiver<u64>,
    rings: Mutex<Vec<Arc<Held>>>,
}

/// Rings for the stripes of one class, as of one moment.
#[derive(Debug)]
struct Held {
    class: Class,
    epoch: Epoch,
    changes: u64,
    made: Instant,
    /// Disks with room.
    roomy: Ring,
    /// Full disks.
    full: Ring,
    /// Those of them that something else has filled.
    foreign: Vec<DiskId>,
    /// All disks that count, by size alone.
    home: Ring,
}

impl Held {
    /// The disks in use, in the order in which `order` asks a ring for them.
    fn found(&self, order: impl Fn(&Ring) -> Vec<DiskId>) -> Vec<Found> {
        let full = |disk: DiskId| match self.foreign.contains(&disk) {
            true => Found { disk, room: Room::Foreign },
            false => Found { disk, room: Room::Used },
        };
        let roomy = order(&self.roomy).into_iter().map(|disk| Found { disk, room: Room::Free });
        roomy.chain(order(&self.full).into_iter().map(full)).collect()
    }
}

impl RingPlacer {
    pub(super) fn new(
        disks: Arc<DiskSet>,
        log: Arc<LocalLog>,
        incarnation: Incarnation,
        config: &Config,
    ) -> Self {
        Self {
            changes: disks.changes(),
            disks,
            log,
            incarnation,
            counter: AtomicU32::new(0),
            flights: Flights::default(),
            here: config.node.clone(),
            reserve_percent: config.limits.reserve_percent,
            rings: Mutex::default(),
        }
    }

    /// The stripes that are on their way.
    pub(super) const fn flights(&self) -> &Flights {
        &self.flights
    }

    /// The rings of a class: those that are held, unless the members or their room may have changed.
    fn rings(&self, class: Class) -> Arc<Held> {
        let (epoch, changes, now) = (self.log.epoch(), *self.changes.borrow(), Instant::now());
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = |held: &&Arc<Held>| {
            (held.epoch, held.changes) == (epoch, changes) && now - held.made < RING_AGE
        };
        let alike = |held: &Arc<Held>| {
            (held.class.scheme, held.class.placement) == (class.scheme, class.placement)
        };
        if let Some(held) = rings.iter().find(|held| alike(held)).filter(fresh) {
            return Arc::clone(held);
        }
        let members = self.log.members();
        let (full, roomy): (Vec<_>, Vec<_>) =
            candidates(&self.disks, &members, self.reserve_percent)
                .into_iter()
                .partition(|(_disk, full)| *full);
        let wanted = class.wanted(&self.here);
        let ring = |found: Vec<(Candidate, bool)>| {
            let found: Vec<Candidate> = found.into_iter().map(|(disk, _full)| disk).collect();
            Ring::new(&found, &wanted)
        };
        let mut foreign: Vec<DiskId> =
            full.iter().map(|(candidate, _full)| candidate.disk).collect();
        foreign.retain(|disk| self.disks.is_filled_by_others(*disk));
        let (roomy, full) = (ring(roomy), ring(full));
        let home = Ring::new(&standing(&members), &wanted);
        let epoch = members.epoch;
        let held = Held { class, epoch, changes, made: now, roomy, full, foreign, home };
        let held = Arc::new(held);
        rings.retain(|held| !alike(held));
        if rings.len() >= RINGS_MAX {
            rings.remove(0);
        }
        rings.push(Arc::clone(&held));
        held
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
        let rings = self.rings(class);
        // A ring may be older than the loss of a disk by a moment.
        let mut found = rings.found(|ring| ring.walk(id));
        found.retain(|found| self.disks.get(found.disk).is_some());
        // A slow disk stands in only where others do not suffice: it is better than a shard less.
        found.sort_by_key(|found| (found.room != Room::Free, self.disks.is_suspect(found.disk)));
        let disks = choose(&found, class, priority)?;
        let disks = disks.into_iter().map(|disk| (HERE, disk)).collect();
        let flight = self.flights.begin(id);
        let (epoch, whole) = (rings.epoch, priority != Priority::Background);
        Ok(Target { id, flight, class_id, class, epoch, disks, priority, whole })
    }

    fn home(&self, id: StripeId, class: Class) -> Vec<DiskId> {
        self.rings(class).home.walk(id)
    }

    fn beside(&self, record: &StripeRecord, kept: &[DiskId]) -> Vec<(NodeId, DiskId)> {
        let rings = self.rings(record.class);
        let mut found = rings.found(|ring| ring.beside(record.id, kept, &record.disks));
        found.retain(|found| self.disks.get(found.disk).is_some());
        found.into_iter().map(|found| (HERE, found.disk)).collect()
    }
}

/// A disk in use, in the order of a stripe's walk.
#[derive(Clone, Copy, Debug)]
struct Found {
    disk: DiskId,
    room: Room,
}

/// Whether a disk takes shards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Room {
    /// It does.
    Free,
    /// It is full of this volume's own.
    Used,
    /// It is full of something else.
    Foreign,
}

/// Disks for a stripe, of those that are in use. What something else has filled is passed over like a lost disk, as long
/// as the class survives the loss of so many; the writer asks for as many shards as there are disks for. Where disks are
/// full of the volume's own data the class is full: nothing was lost, so nothing may be written without its margin. What
/// makes room or restores redundancy may try all of them, the full ones last.
fn choose(found: &[Found], class: Class, priority: Priority) -> Result<Vec<DiskId>> {
    let (k, n) = (usize::from(class.scheme.k()), usize::from(class.scheme.n()));
    if found.len() < k {
        return Err(Error::unavailable(format!(
            "place a stripe of class {class}: {} disks are in use, {k} are needed",
            found.len()
        )));
    }
    let is_full = |found: &&Found| found.room != Room::Free;
    let (full, mut disks): (Vec<Found>, Vec<Found>) = found.iter().partition(is_full);
    let passed_over = full.iter().all(|found| found.room == Room::Foreign) && full.len() <= n - k;
    if disks.len() < n {
        match priority {
            Priority::Background => disks.extend(full),
            Priority::Sync | Priority::Read if disks.len() < k || !passed_over => {
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
    use super::{Found, Room, choose};
    use crate::error::{ErrorKind, Posix};
    use crate::net::Priority;
    use crate::types::DiskId;

    /// Disks 1, 2, ...; `f` stands for one that something else has filled, `u` for one that is full of shards.
    fn check(disks: &str, priority: Priority, expected: Result<&[u32], ErrorKind>) {
        let found: Vec<Found> = (1..)
            .zip(disks.chars())
            .map(|(number, state)| {
                let room = match state {
                    'f' => Room::Foreign,
                    'u' => Room::Used,
                    _ => Room::Free,
                };
                Found { disk: DiskId(number), room }
            })
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
        check("u....f", Priority::Sync, full);
        check("u.....", Priority::Sync, full);
        check("u....", Priority::Sync, full);
        check("u......", Priority::Sync, Ok(&[2, 3, 4, 5, 6, 7]));
        check("u.....", Priority::Background, Ok(&[2, 3, 4, 5, 6, 1]));
        check("ffffff", Priority::Background, Ok(&[1, 2, 3, 4, 5, 6]));
        check("f......", Priority::Background, Ok(&[2, 3, 4, 5, 6, 7]));
    }
}
