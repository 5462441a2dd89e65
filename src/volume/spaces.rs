//! How much room each class has, as of the last look at the disks.

use super::membership::candidates;
use super::space::{Share, payload_capacity, shares, usable};
use crate::class::Class;
use crate::config::Config;
use crate::config::labels::Labels;
use crate::disk::set::DiskSet;
use crate::disk::{Space, floor_bytes};
use crate::erasure::Scheme;
use crate::error::{Error, Posix, Result};
use crate::fs::statfs::{SpaceForClass, SpaceSource};
use crate::meta::client::MetaClient;
use crate::meta::local::LocalLog;
use crate::meta::store::Totals;
use crate::placement::{Candidate, Ring, height_bytes};
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{ClassId, DiskId};
use crate::worker::clean::Room;
use futures_util::future::{BoxFuture, join_all};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long one disk may take to tell its free space.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a writer waits for room that is coming back: far above the time from a deletion to its last shard.
const RETURN_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it looks.
const RETURN_PAUSE: Duration = Duration::from_millis(100);
/// How long cleaning waits until what users have written is on the disks: above the usual age at which it is written out.
const DIRTY_TIMEOUT: Duration = Duration::from_secs(10);
/// Share of a class of which users find little room, be there ever so little to clean.
const SCARCE_SHARE: u64 = 100;

/// Room of disks and classes; answers from memory.
#[derive(Debug)]
pub(super) struct Spaces {
    disks: Arc<DiskSet>,
    log: Arc<LocalLog>,
    meta: MetaClient,
    reserve_percent: u32,
    /// How long a writer waits for disks.
    outage: Duration,
    known: Mutex<Known>,
    /// Held by who looks because there seems to be no room: one after the other.
    looking: tokio::sync::Mutex<()>,
    cleaning: Mutex<Cleaning>,
    /// Payload bytes of the stripes that this mount has put.
    put_bytes: AtomicU64,
    /// Bytes that users have written and no stripe holds yet.
    dirty_bytes: AtomicU64,
}

/// What the cleaner has told, and who waits for it.
#[derive(Debug, Default)]
struct Cleaning {
    /// Looks at all stripes that it has ended.
    looks: u64,
    /// Sums of the volume when the last began.
    of: Totals,
    /// What each class gains from what it chose then.
    gains: BTreeMap<ClassId, u64>,
    /// Writers that wait for room.
    waiting: usize,
    /// Since when dirty data takes what room it would need.
    held: Option<Instant>,
}

impl Cleaning {
    /// Whether cleaning need not wait for dirty data: it does not take the room, or has had its time. What cannot be written
    /// is not waited for again before it is gone.
    fn has_waited(&mut self, is_held: bool) -> bool {
        if !is_held {
            self.held = None;
            return true;
        }
        self.held.get_or_insert_with(Instant::now).elapsed() >= DIRTY_TIMEOUT
    }
}

/// A writer that waits for what cleaning gives.
#[derive(Debug)]
struct Waiting<'a> {
    spaces: &'a Spaces,
    /// Looks that had ended when it came.
    looks: u64,
    /// Sums of the volume then.
    of: Totals,
}

impl Waiting<'_> {
    /// Whether cleaning may give room to a class. A look that was under way when the writer came says nothing of what was
    /// deleted just before.
    fn may_gain(&self, class: ClassId) -> bool {
        let cleaning = self.spaces.cleaning();
        let sums = |totals: &Totals| (totals.stripe_bytes, totals.live_bytes);
        let is_answer = cleaning.looks > self.looks + 1
            || (cleaning.looks > 0 && sums(&cleaning.of) == sums(&self.of));
        !is_answer || cleaning.gains.get(&class).is_some_and(|gain| *gain > 0)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.spaces.cleaning().waiting -= 1;
    }
}

#[derive(Debug, Default)]
struct Known {
    /// `put_bytes` that the last look has surely seen on the disks.
    put_bytes: u64,
    disks: BTreeMap<DiskId, Space>,
    classes: BTreeMap<ClassId, SpaceForClass>,
}

impl Spaces {
    pub(super) fn new(disks: Arc<DiskSet>, log: Arc<LocalLog>, config: &Config) -> Self {
        let meta = MetaClient::new(log.clone(), log.clone());
        let reserve_percent = config.limits.reserve_percent;
        let outage = Duration::from_secs(config.limits.outage_s.into());
        let (put_bytes, dirty_bytes) = (AtomicU64::new(0), AtomicU64::new(0));
        let (known, looking) = (Mutex::default(), tokio::sync::Mutex::default());
        let cleaning = Mutex::default();
        Self {
            disks,
            log,
            meta,
            reserve_percent,
            outage,
            known,
            looking,
            cleaning,
            put_bytes,
            dirty_bytes,
        }
    }

    fn cleaning(&self) -> MutexGuard<'_, Cleaning> {
        self.cleaning.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the cleaner look more often until the answer is dropped.
    fn wait_for_cleaning(&self) -> Result<Waiting<'_>> {
        let of = self.meta.totals();
        let mut cleaning = self.cleaning();
        cleaning.waiting += 1;
        Ok(Waiting { spaces: self, looks: cleaning.looks, of })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at all disks and computes the room of each class anew.
    pub(super) async fn refresh(&self) -> Result<()> {
        let put_bytes = self.put_bytes.load(Ordering::SeqCst);
        let ask = self.disks.healthy().into_iter().map(|handle| async move {
            let disk = Arc::clone(&handle.disk);
            let answer = handle.queue.run_background(move || disk.space());
            match tokio::time::timeout(TIMEOUT, answer).await {
                Ok(Ok(space)) => Some((handle.id, space)),
                Ok(Err(_)) | Err(_) => None,
            }
        });
        let spaces: BTreeMap<DiskId, Space> = join_all(ask).await.into_iter().flatten().collect();
        for (disk, space) in &spaces {
            self.disks.note_space(*disk, *space);
        }
        let view = self.meta.view()?;
        let totals = view.totals()?;
        let standing = self.standing(&spaces);
        let classes = view.classes()?.into_iter();
        let classes = classes.map(|(id, class)| (id, room(&standing, &class, &totals)));
        let classes = classes.collect();
        *self.known() = Known { put_bytes, disks: spaces, classes };
        Ok(())
    }

    fn shares_of(&self, spaces: &BTreeMap<DiskId, Space>) -> Vec<Share> {
        let list: Vec<(Space, bool)> = spaces
            .iter()
            .map(|(disk, space)| (*space, self.disks.is_filled_by_others(*disk)))
            .collect();
        shares(&list, self.reserve_percent)
    }

    /// Room of a class that was defined since the last look.
    fn new_class(&self, id: ClassId) -> Option<SpaceForClass> {
        let view = self.meta.view().ok()?;
        let (class, totals) = (view.class(id).ok()??, view.totals().ok()?);
        let spaces = self.known().disks.clone();
        Some(room(&self.standing(&spaces), &class, &totals))
    }

    /// Whether fewer disks answer than a stripe of the class needs at least.
    fn lacks_disks(&self, id: ClassId) -> Result<bool> {
        let class = self.meta.view()?.class(id)?;
        let used = self.known().disks.len();
        Ok(class.is_some_and(|class| used < usize::from(class.scheme.k())))
    }

    /// The share of each disk, and where it stands.
    fn standing(&self, spaces: &BTreeMap<DiskId, Space>) -> Vec<(Share, Labels)> {
        let members = self.log.members();
        let labels = |disk: &DiskId| members.member(*disk).map(|member| member.labels.clone());
        let labels = spaces.keys().map(|disk| labels(disk).unwrap_or_default());
        self.shares_of(spaces).into_iter().zip(labels).collect()
    }

    /// Whether stripes of a class lose no width to full disks.
    fn is_spared(&self, class: ClassId) -> bool {
        let found = self.meta.view().and_then(|view| view.class(class));
        let Some(class) = found.ok().flatten() else { return true };
        let mut disks = candidates(&self.disks, &self.log.members(), self.reserve_percent);
        disks.retain(|(disk, _full)| class.placement.allows(&disk.labels));
        let roomy = disks.iter().filter(|(_disk, full)| !full).count();
        roomy >= disks.len().min(class.scheme.n().into())
    }

    /// Room of a disk as of the last look.
    pub(super) fn disk(&self, disk: DiskId) -> Option<Space> {
        self.known().disks.get(&disk).copied()
    }

    /// Shares of all disks, in order of their numbers.
    pub(super) fn shares(&self) -> Vec<Share> {
        let spaces = self.known().disks.clone();
        self.shares_of(&spaces)
    }
}

/// Room in shares that are in use now: while there are fewer than the scheme has shards, stripes take them all. Where too
/// few are in use for a stripe there is no more of it than what is written.
fn room(standing: &[(Share, Labels)], class: &Class, totals: &Totals) -> SpaceForClass {
    let allowed = standing.iter().filter(|(_share, labels)| class.placement.allows(labels));
    let (shares, labels): (Vec<Share>, Vec<Labels>) = allowed.cloned().unzip();
    // What is in the delete queue comes back by itself.
    let returning = totals.dead_bytes / (shares.len() as u64).max(1);
    let roomy_only = usable(&shares, class.scheme).len() < shares.len();
    let capacity = |all: bool, room: &dyn Fn(&Share) -> u64| {
        let used =
            shares.iter().zip(&labels).filter(|(share, _)| all || !(roomy_only && share.full));
        let rooms: Vec<(u64, &Labels)> =
            used.map(|(share, labels)| (room(share), labels)).collect();
        if rooms.iter().all(|(_room, labels)| labels.is_empty()) {
            let rooms: Vec<u64> = rooms.iter().map(|(room, _labels)| *room).collect();
            return payload_capacity(&rooms, class.scheme);
        }
        payload_apart(&rooms, class)
    };
    let free = |share: &Share| (share.free_bytes + returning).min(share.total_bytes);
    let for_users = |free: &dyn Fn(&Share) -> u64| {
        capacity(false, &|share| free(share).saturating_sub(share.reserved_bytes))
            .saturating_sub(totals.reserved_bytes)
    };
    let total_bytes = match capacity(true, &|share| share.total_bytes) {
        0 => payload_of(totals.stripe_bytes, class.scheme),
        total_bytes => total_bytes,
    };
    SpaceForClass {
        total_bytes,
        free_bytes: capacity(false, &free),
        available_bytes: for_users(&free),
        writable_bytes: for_users(&|share| share.free_bytes),
        movable_bytes: capacity(false, &|share| {
            let floor = floor_bytes(share.total_bytes);
            share.free_bytes.saturating_sub(floor.max(share.reserved_bytes / 2))
        }),
    }
}

/// Payload of stripes whose shards have so many bytes, as if all were of one scheme.
fn payload_of(stripe_bytes: u64, scheme: Scheme) -> u64 {
    stripe_bytes / u64::from(scheme.n()) * u64::from(scheme.k())
}

impl Room for Spaces {
    fn may_move(&self, class: ClassId, payload_bytes: u64, gains: bool) -> bool {
        // What users have written was accepted for this room: what is moved leaves it to them. Looked at first, as what is
        // put meanwhile counts for both.
        let dirty_bytes = self.dirty_bytes.load(Ordering::Relaxed);
        let movable_bytes = self.space(class).movable_bytes;
        let fits = movable_bytes >= dirty_bytes.saturating_add(payload_bytes);
        let may = if gains {
            let has_waited = self.cleaning().has_waited(!fits && dirty_bytes > 0);
            // With nothing to be deleted there is no other way to get room.
            let must = movable_bytes >= payload_bytes || self.meta.totals().dead_bytes == 0;
            fits || (has_waited && must)
        } else {
            fits && self.is_spared(class)
        };
        if may {
            self.note_put(payload_bytes);
        }
        may
    }

    fn is_scarce(&self, class: ClassId, dead_bytes: u64) -> bool {
        let space = self.space(class);
        dead_bytes > 0 && space.writable_bytes < dead_bytes.max(space.total_bytes / SCARCE_SHARE)
    }

    fn is_awaited(&self) -> bool {
        self.cleaning().waiting > 0
    }

    fn note_look(&self, of: Totals, gains: BTreeMap<ClassId, u64>) {
        let mut cleaning = self.cleaning();
        cleaning.looks += 1;
        (cleaning.of, cleaning.gains) = (of, gains);
    }
}

/// As `payload_capacity`, for disks whose labels keep shards apart.
fn payload_apart(rooms: &[(u64, &Labels)], class: &Class) -> u64 {
    let candidate = |(disk, (room, labels)): (DiskId, &(u64, &Labels))| Candidate {
        disk,
        weight: *room,
        room: None,
        labels: (*labels).clone(),
    };
    let candidates: Vec<_> = (0..).map(DiskId).zip(rooms).map(candidate).collect();
    if candidates.len() < usize::from(class.scheme.k()) {
        return 0;
    }
    let height = height_bytes(&candidates, &class.wanted(""));
    let bytes = height * f64::from(class.scheme.k());
    // Saturates, and cuts off less than a byte.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is positive")]
    let bytes = bytes as u64;
    bytes
}

impl SpaceSource for Spaces {
    fn space(&self, class: ClassId) -> SpaceForClass {
        let (known, seen) = {
            let known = self.known();
            (known.classes.get(&class).copied(), known.put_bytes)
        };
        let mut space = known.or_else(|| self.new_class(class)).unwrap_or_default();
        // What was put since the disks were looked at.
        let put_bytes = self.put_bytes.load(Ordering::SeqCst).saturating_sub(seen);
        space.free_bytes = space.free_bytes.saturating_sub(put_bytes);
        space.available_bytes = space.available_bytes.saturating_sub(put_bytes);
        space.writable_bytes = space.writable_bytes.saturating_sub(put_bytes);
        space.movable_bytes = space.movable_bytes.saturating_sub(put_bytes);
        space
    }

    fn wait_for(&self, class: ClassId, bytes: u64) -> BoxFuture<'_, Result<()>> {
        Box::pin(async move {
            let (deadline, outage) =
                (Instant::now() + RETURN_TIMEOUT, Instant::now() + self.outage);
            let mut waiting = None;
            loop {
                {
                    // Those who wait here look for themselves: what they wait for may have come back just now.
                    let _one = self.looking.lock().await;
                    if let Err(error) = self.refresh().await {
                        tracing::warn!(%error, "cannot look at the room of the disks");
                    }
                }
                let space = self.space(class);
                if space.writable_bytes >= bytes {
                    return Ok(());
                }
                let few = self.lacks_disks(class)?;
                // Files that were deleted just now count for nothing until they are reaped.
                let reaping = self.meta.view().and_then(|view| view.reap_pending());
                let waiting = match &mut waiting {
                    Some(waiting) => waiting,
                    none => none.insert(self.wait_for_cleaning()?),
                };
                let returns = few
                    || space.available_bytes >= bytes
                    || matches!(reaping, Ok(true))
                    || waiting.may_gain(class);
                if !returns || Instant::now() >= if few { outage } else { deadline } {
                    let used = self.known().disks.len();
                    let context = format!("{used} disks are in use, too few to write anything");
                    return Err(if few {
                        Error::unavailable(context)
                    } else {
                        Posix::NoSpace.into()
                    });
                }
                tokio::time::sleep(RETURN_PAUSE).await;
            }
        })
    }

    fn note_put(&self, payload_bytes: u64) {
        self.put_bytes.fetch_add(payload_bytes, Ordering::SeqCst);
    }

    fn dirty_bytes(&self) -> &AtomicU64 {
        &self.dirty_bytes
    }

    fn can_place(&self, class: &Class) -> bool {
        let found = candidates(&self.disks, &self.log.members(), self.reserve_percent);
        let found: Vec<_> = found.into_iter().map(|(disk, _full)| disk).collect();
        Ring::new(&found, &class.wanted("")).is_wide_enough()
    }
}

#[cfg(test)]
mod tests {
    use super::{Cleaning, DIRTY_TIMEOUT};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn dirty_data_that_cannot_be_written_holds_cleaning_up_once() {
        let mut cleaning = Cleaning::default();
        for _other in 0..2 {
            assert!(cleaning.has_waited(false));
            assert!(!cleaning.has_waited(true));
            tokio::time::sleep(DIRTY_TIMEOUT - Duration::from_millis(1)).await;
            assert!(!cleaning.has_waited(true));
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert!(cleaning.has_waited(true));
            assert!(cleaning.has_waited(true), "it is still the same dirty data");
        }
    }
}
