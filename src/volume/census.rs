//! How the stripes of a volume are: their margins, and how many shards are not good. A look at each stripe is needed for
//! that, so the last count is kept: who asks often pays for it only while stripes are few, or have changed.

use super::Volume;
use super::report::root_class;
use crate::class::Class;
use crate::disk::Space;
use crate::disk::set::DiskHandle;
use crate::disk::superblock::MemberState;
use crate::error::Result;
use crate::meta::store::View;
use crate::stripe::layout::StripeRecord;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use crate::types::{DiskId, Epoch, LogPosition, ShardIndex, StripeId};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// Stripes read at once.
const PAGE: usize = 1024;
/// Up to this many stripes are counted while somebody waits: that takes a few milliseconds.
const COUNTED_HERE_MAX: u64 = 4096;
/// Larger volumes are counted in the background, and not more often than this ...
const PAUSE_MIN: Duration = Duration::from_secs(10);
/// ... nor for more than one part of the time in so many.
const PAUSE_FACTOR: u32 = 50;

/// Counts over all stripes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Census {
    /// Number of stripes by how many more shards each may lose.
    pub(super) margins: BTreeMap<i64, u64>,
    /// Shards that there should be.
    pub(super) shards: u64,
    /// Shards that are not good: never placed, noted as bad, or on a disk that is not in use.
    pub(super) missing: u64,
    /// Stripes that cannot be read though all disks were back.
    pub(super) lost: u64,
    /// The class with the most shards of those that have stripes.
    pub(super) widest: Option<Class>,
    /// Bytes of the shards that each disk should have.
    pub(super) bytes: BTreeMap<DiskId, u64>,
}

impl Census {
    /// How many more shards the stripe may lose that may lose least; below 0 it cannot be read. None without stripes.
    pub(super) fn worst(&self) -> Option<i64> {
        self.margins.keys().next().copied()
    }

    /// Stripes that cannot be read now.
    pub(super) fn unreadable(&self) -> u64 {
        self.margins.range(..0).map(|(_margin, stripes)| stripes).sum()
    }
}

/// Which disks may have good shards.
pub(super) struct Places {
    /// In use.
    here: BTreeSet<DiskId>,
    /// Left for good: what they hold does not come back.
    left: BTreeSet<DiskId>,
}

impl Places {
    /// Whether a stripe of which `bad` are noted cannot be read though all disks were back.
    pub(super) fn is_lost(&self, record: &StripeRecord, bad: u64) -> bool {
        let hoped = good_disks(record, bad, |disk| !self.left.contains(&disk)).count();
        hoped < usize::from(record.class.scheme.k())
    }
}

/// What a census was true for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct State {
    applied: LogPosition,
    epoch: Epoch,
    /// Changes in the set of disks.
    disks: u64,
}

/// A census and when it was taken.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) census: Arc<Census>,
    pub(super) at: Instant,
    of: State,
}

/// The last census.
#[derive(Debug, Default)]
pub(super) struct LastCensus(Mutex<Held>);

#[derive(Debug, Default)]
struct Held {
    taken: Option<Taken>,
    /// Whether one is being taken in the background.
    running: bool,
    /// Before this none is begun there.
    next: Option<Instant>,
}

impl LastCensus {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Disks with the good shards of a stripe of which `bad` are noted, when the disks that `is_here` says are in use.
pub(super) fn good_disks(
    record: &StripeRecord,
    bad: u64,
    is_here: impl Fn(DiskId) -> bool,
) -> impl Iterator<Item = DiskId> {
    let is_good = move |(index, disk): &(ShardIndex, &DiskId)| {
        !record.is_missing(*index) && bad >> index.0 & 1 == 0 && is_here(**disk)
    };
    record.shards().zip(&record.disks).filter(is_good).map(|(_index, disk)| *disk)
}

impl Census {
    fn add(&mut self, record: &StripeRecord, bad: u64, places: &Places) {
        let good = good_disks(record, bad, |disk| places.here.contains(&disk)).count();
        self.lost += u64::from(places.is_lost(record, bad));
        let count = i64::try_from(good).unwrap_or(i64::MAX);
        let margin = count - i64::from(record.class.scheme.k());
        *self.margins.entry(margin).or_default() += 1;
        let widest = self.widest.get_or_insert(record.class);
        if widest.scheme.n() < record.class.scheme.n() {
            *widest = record.class;
        }
        let shards = u64::from(record.class.scheme.n());
        self.shards += shards;
        self.missing += shards.saturating_sub(good as u64);
        let bytes = record.geometry().shard_bytes();
        for (_index, disk) in
            record.shards().zip(&record.disks).filter(|(i, _)| !record.is_missing(*i))
        {
            *self.bytes.entry(*disk).or_default() += bytes;
        }
    }

    /// Counts the stripes of one page behind `after`; answers the last of them.
    fn add_page(
        &mut self,
        view: &View,
        after: Option<StripeId>,
        places: &Places,
    ) -> Result<Option<StripeId>> {
        let page = view.stripes(after, PAGE)?;
        // As many as there are stripes on the page: those that concern it are among them.
        let noted: BTreeMap<_, _> =
            view.repairs(after, PAGE)?.into_iter().map(|(id, entry)| (id, entry.bad)).collect();
        for (record, _live) in &page {
            let bad = noted.get(&record.id).copied().unwrap_or(0);
            self.add(record, bad, places);
        }
        Ok(page.last().map(|(record, _live)| record.id))
    }
}

impl Volume {
    /// Counts all stripes, however many there are.
    pub(super) fn count_stripes(&self, view: &View) -> Result<Census> {
        let (places, mut census, mut after) = (self.places(), Census::default(), None);
        loop {
            after = census.add_page(view, after, &places)?;
            if after.is_none() {
                return Ok(census);
            }
        }
    }

    /// The class with the most shards of those that have stripes, and that of the root directory: what disks there must be
    /// for whole stripes. A class without stripes has nothing that could be lost.
    pub(super) fn widest(&self, view: &View, census: &Census) -> Result<Class> {
        let (_id, root) = root_class(view)?;
        let of_stripes = census.widest.filter(|class| class.scheme.n() > root.scheme.n());
        Ok(of_stripes.unwrap_or(root))
    }

    /// Looks at the room of the disks, and while there is little, at how much of them the shards take.
    pub(super) async fn look_at_room(self: &Arc<Self>) -> Result<()> {
        self.spaces.refresh().await?;
        if !self.disks.is_tight() {
            return Ok(());
        }
        let healthy = self.disks.healthy();
        let space = |disk: &Arc<DiskHandle>| Some((disk.id, self.spaces.disk(disk.id)?));
        let spaces: Vec<(DiskId, Space)> = healthy.iter().filter_map(space).collect();
        let view = self.meta.view()?;
        // What is being deleted lies on the disks still, evenly.
        let leaving = view.totals()?.dead_bytes / (healthy.len() as u64).max(1);
        let Some(taken) = self.census(&view)? else { return Ok(()) };
        for (disk, space) in spaces {
            let bytes = taken.census.bytes.get(&disk).copied().unwrap_or(0);
            self.disks.note_own_bytes(disk, space, bytes + leaving);
        }
        Ok(())
    }

    /// The last census, a new one if stripes are few or have not changed. Of many stripes it may be some time old, and
    /// `None` until the first has been taken.
    pub(super) fn census(self: &Arc<Self>, view: &View) -> Result<Option<Taken>> {
        self.census_of(view, COUNTED_HERE_MAX)
    }

    fn census_of(self: &Arc<Self>, view: &View, counted_here_max: u64) -> Result<Option<Taken>> {
        let state = self.census_state(view)?;
        let held = self.census.held().taken.clone();
        if held.as_ref().is_some_and(|taken| taken.of == state) {
            // It is as true as one that is taken now.
            return Ok(held.map(|taken| Taken { at: Instant::now(), ..taken }));
        }
        if view.totals()?.stripes <= counted_here_max {
            let taken = Taken {
                census: Arc::new(self.count_stripes(view)?),
                at: Instant::now(),
                of: state,
            };
            self.census.held().taken = Some(taken.clone());
            return Ok(Some(taken));
        }
        {
            let mut last = self.census.held();
            if last.running || last.next.is_some_and(|next| next > Instant::now()) {
                return Ok(held);
            }
            last.running = true;
        }
        self.keepers.work.run(count_slowly(Arc::downgrade(self)));
        Ok(held)
    }

    fn census_state(&self, view: &View) -> Result<State> {
        let disks = *self.disks.changes().borrow();
        Ok(State { applied: view.applied()?, epoch: self.log.epoch(), disks })
    }

    pub(super) fn places(&self) -> Places {
        let members = self.log.members();
        let left = members.disks.iter().filter(|member| member.state == MemberState::Removed);
        Places {
            here: self.disks.healthy().iter().map(|handle| handle.id).collect(),
            left: left.map(|member| member.disk).collect(),
        }
    }
}

/// Takes a census page by page, each of the state as it is then.
async fn count_slowly(volume: Weak<Volume>) {
    let start = Instant::now();
    let (mut census, mut after, mut of) = (Census::default(), None, None);
    let result = loop {
        let Some(volume) = volume.upgrade() else { return };
        let page = volume.meta.view().and_then(|view| {
            of = of.or(Some(volume.census_state(&view)?));
            census.add_page(&view, after, &volume.places())
        });
        match page {
            Ok(None) => break Ok(of),
            Ok(last) => after = last,
            Err(error) => break Err(error),
        }
        drop(volume);
        tokio::task::yield_now().await;
    };
    let Some(volume) = volume.upgrade() else { return };
    let mut held = volume.census.held();
    held.running = false;
    held.next = Some(Instant::now() + PAUSE_MIN.max(start.elapsed() * PAUSE_FACTOR));
    match result {
        Ok(of) => {
            let taken = of.map(|of| Taken { census: Arc::new(census), at: start, of });
            held.taken = taken;
        }
        Err(error) => tracing::warn!(%error, "the stripes could not be counted"),
    }
}
