//! Which disks keep the log and the state: dropping those that fail, making others complete, and writing the list.

use super::order::{Shared, position};
use super::read_only;
use super::reopen::{Growth, is_lost};
use super::rounds::Side;
use super::state::{begin_copy, beside, discard_copy, promote};
use crate::config::labels::Labels;
use crate::disk::mirror::MirrorFile;
use crate::disk::set::DiskHandle;
use crate::disk::superblock::{self, LogMember, Member, MemberList, MemberState, Superblock};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::log::record::Batch;
use crate::meta::log::{Chain, LogDisk, LogWriter, SILENT, forget, remove_chains};
use crate::types::{DiskId, Epoch};
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Pages of the state that one step copies to a new disk: 4 MiB.
const COPY_PAGES: u64 = 1024;
/// Steps of one tick: a tick stays short, and 100 MiB/s are copied.
const COPY_STEPS: usize = 4;
/// How long a disk that failed to keep the log is not tried again.
const AVOID: Duration = Duration::from_secs(10);

impl Shared {
    /// Log disks that there should be.
    pub(super) fn wanted(&self, list: &MemberList) -> usize {
        let usable = |handle: &Arc<DiskHandle>| is_usable(list, handle.id);
        let healthy = self.disks.healthy().iter().filter(|handle| usable(handle)).count();
        (1 + usize::from(list.tolerance)).min(healthy)
    }

    /// A log disk failed: it counts no longer, and the list has to follow before anything is acknowledged.
    pub(super) fn lose(&self, side: &mut Side, disk: DiskId, error: &Error) {
        tracing::warn!(disk = disk.get(), %error, "a disk has left the metadata log");
        self.disks.report(disk, error);
        self.stop_if_superseded();
        side.log.remove(disk).into_iter().for_each(forget);
        side.failed.insert(disk);
        side.avoid.insert(disk, Instant::now() + AVOID);
    }

    fn stop_if_superseded(&self) {
        if let Some(how) = self.disks.superseded() {
            self.stop(&format!("another mount has taken the volume ({how}): unmount this one"));
        }
    }

    /// Drops log disks that are down, or whose copy of the state died.
    pub(super) async fn drop_lost(&self, side: &mut Side) -> Result<()> {
        self.stop_if_superseded();
        self.check_running()?;
        // In an outage too: a log holds the lock of its disk, which could not come back.
        for disk in side.log.disks() {
            if self.disks.get(disk).is_none() {
                self.lose(side, disk, &Error::unavailable("the disk is down"));
            }
        }
        if self.is_paused() {
            self.resume(side).await?;
        }
        let state = self.state();
        // If all died they are to be opened anew, and these may well be among those that are good. It is not asked without
        // need: whoever syncs would wait for who writes the state.
        let lost = state.deaths.are_there() && state.mirror.as_ref().is_some_and(is_lost);
        let dead = if lost { Vec::new() } else { state.deaths.take() };
        for disk in side.log.disks() {
            if dead.contains(&disk) {
                self.lose(side, disk, &Error::corrupt("its copy of the state is lost"));
            }
        }
        if side.joining.is_some_and(|disk| dead.contains(&disk)) {
            side.joining = None;
        }
        if side.failed.is_empty() { Ok(()) } else { self.replace_failed(side).await }
    }

    /// Puts a list in force without the disks that failed.
    pub(super) async fn replace_failed(&self, side: &mut Side) -> Result<()> {
        let list = self.members.borrow().clone();
        self.change(side, list).await
    }

    /// Records the state of a disk.
    pub(super) async fn set_disk_state(&self, disk: DiskId, state: MemberState) -> Result<()> {
        let mut side = self.side.lock().await;
        self.check_running()?;
        let mut list = self.members.borrow().clone();
        let member = list.disks.iter_mut().find(|member| member.disk == disk);
        let member = member.ok_or_else(|| Error::refused(format!("there is no disk {disk}")))?;
        if member.state == state {
            return Ok(());
        }
        if member.state == MemberState::Removed {
            return Err(Error::refused(format!(
                "disk {disk} has been removed: it cannot come back"
            )));
        }
        if !state.is_used() && side.log.disks() == [disk] {
            return Err(Error::refused(format!(
                "{} holds the only copy of the metadata, and no other disk can take it now: bring another disk back or \
                 add one first",
                member.path
            )));
        }
        member.state = state;
        if state == MemberState::Healthy {
            side.avoid.remove(&disk);
        } else if !state.is_used() && side.log.disks().contains(&disk) {
            side.log.remove(disk).into_iter().for_each(forget);
            side.failed.insert(disk);
        }
        self.change(&mut side, list).await
    }

    /// Gives a disk other labels.
    pub(super) async fn set_disk_labels(&self, disk: DiskId, labels: Labels) -> Result<()> {
        let labels = labels.validate()?;
        let mut side = self.side.lock().await;
        self.check_running()?;
        let mut list = self.members.borrow().clone();
        let member = list.disks.iter_mut().find(|member| member.disk == disk);
        let member = member.ok_or_else(|| Error::refused(format!("there is no disk {disk}")))?;
        if member.labels == labels {
            return Ok(());
        }
        member.labels = labels;
        self.check_size(&list)?;
        self.change(&mut side, list).await
    }

    /// Records where nodes are; those of which nothing is told stay where they are.
    pub(super) async fn set_addresses(&self, addresses: BTreeMap<String, String>) -> Result<()> {
        let mut side = self.side.lock().await;
        self.check_running()?;
        let mut list = self.members.borrow().clone();
        let before = list.nodes.clone();
        list.nodes.extend(addresses);
        if list.nodes == before {
            return Ok(());
        }
        self.check_size(&list)?;
        self.change(&mut side, list).await
    }

    /// Too much would not fit into a superblock: found out before any disk is written.
    fn check_size(&self, list: &MemberList) -> Result<()> {
        let (volume, name, members) = (self.volume, self.name.clone(), list.clone());
        Superblock { volume, name, disk: DiskId(0), sequence: 0, members }.encode().map(drop)
    }

    /// Puts a list in force that has one more disk, which is empty: its superblock first, so that it is one of the
    /// volume's as soon as any list names it.
    pub(super) async fn add_disk(&self, handle: Arc<DiskHandle>, member: Member) -> Result<()> {
        let mut side = self.side.lock().await;
        self.check_running()?;
        let mut list = self.members.borrow().clone();
        if list.member(member.disk).is_some() || list.disks.len() >= crate::limits::DISKS_MAX {
            return Err(Error::refused(format!("disk {} cannot be added", member.disk)));
        }
        list.disks.push(member);
        let (disk, id) = (handle.disk.clone(), handle.id);
        let first = Superblock {
            volume: self.volume,
            name: self.name.clone(),
            disk: id,
            sequence: 1,
            members: list.clone(),
        };
        handle.queue.run(move || superblock::create(&*disk, &first)).await?;
        self.disks.admit(handle);
        self.change(&mut side, list).await
    }

    /// Follows the largest redundancy of any class.
    pub(super) async fn follow_classes(&self, side: &mut Side) -> Result<()> {
        let applied = position(&self.applied);
        if side.tolerance_at == Some(applied) {
            return Ok(());
        }
        let classes = self.store().view()?.classes()?;
        let tolerance = classes.iter().map(|(_id, class)| class.scheme.m()).max().unwrap_or(0);
        side.tolerance_at = Some(applied);
        let mut list = self.members.borrow().clone();
        if tolerance <= list.tolerance {
            return Ok(());
        }
        list.tolerance = tolerance;
        self.change(side, list).await
    }

    /// Puts `list` in force as the next epoch, with the log disks of `side`. Disks that fail meanwhile are left out;
    /// until it is in force the number stays, so that no two lists in force have the same.
    pub(super) async fn change(&self, side: &mut Side, mut list: MemberList) -> Result<()> {
        let (epoch, log, needed) = {
            let current = self.members.borrow();
            (current.epoch, current.log.clone(), self.majority(&current))
        };
        (list.previous_epoch, list.epoch, list.previous_log) = (epoch, epoch.next(), log);
        if let Some(reason) = self.too_few(side, self.usable(&list).len(), needed) {
            return Err(self.pause(&reason));
        }
        loop {
            // A list that is in force was taken by all disks of the log.
            for disk in side.log.disks() {
                if self.disks.get(disk).is_none() {
                    self.lose(side, disk, &Error::unavailable("the disk is down"));
                }
            }
            self.check_running()?;
            let members = side.log.disks();
            list.log.retain(|member| members.contains(&member.disk));
            for member in &mut list.disks {
                let down = self.disks.get(member.disk).is_none();
                let knows_better =
                    side.failed.contains(&member.disk) || side.offered.contains(&member.disk);
                if down && member.state == MemberState::Healthy && knows_better {
                    member.state = MemberState::Down;
                }
            }
            if let Some(reason) = self.too_few(side, self.usable(&list).len(), needed) {
                return Err(self.pause(&reason));
            }
            let takers = self.usable(&list);
            side.offered.extend(takers.iter().map(|handle| handle.id));
            let failed = self.write_list(&list, &takers).await;
            for (disk, error) in &failed {
                self.lose(side, *disk, error);
                // Whatever the reason: a disk that cannot take the list must not be used under it.
                self.disks.fail(*disk, error);
            }
            self.check_running()?;
            let took = |disk: DiskId| {
                takers.iter().any(|taker| taker.id == disk) && self.disks.get(disk).is_some()
            };
            if failed.is_empty() && members.into_iter().all(took) {
                break;
            }
        }
        if let Some(reason) = self.too_few(side, self.usable(&list).len(), needed) {
            return Err(self.pause(&reason));
        }
        tracing::info!(epoch = list.epoch.get(), log = ?members_of(&list), "member list in force");
        self.members.send_replace(list);
        side.offered.clear();
        self.release_failed(side).await
    }

    /// Disks that must take a list if other machines may reach them: any two such sets share one, which shows the list to
    /// a mount that comes, or turns this one away.
    pub(super) fn majority(&self, list: &MemberList) -> usize {
        if !self.options.shared && !list.is_shared() {
            return 0;
        }
        let all = list.disks.iter().filter(|member| member.state.is_expected()).count();
        (all / 2 + 1).max(all.saturating_sub(list.tolerance.into()))
    }

    /// The disks in use that `list` names.
    pub(super) fn usable(&self, list: &MemberList) -> Vec<Arc<DiskHandle>> {
        let named = |handle: &Arc<DiskHandle>| list.member(handle.id).is_some();
        self.disks.healthy().into_iter().filter(named).collect()
    }

    /// Writes the superblocks of these disks; answers with those that failed.
    async fn write_list(
        &self,
        list: &MemberList,
        handles: &[Arc<DiskHandle>],
    ) -> Vec<(DiskId, Error)> {
        let write = |handle: &Arc<DiskHandle>| {
            let (handle, members) = (handle.clone(), list.clone());
            let (volume, name) = (self.volume, self.name.clone());
            async move {
                let id = handle.id;
                let disk = handle.disk.clone();
                let work = handle.queue.run(move || {
                    let sequence = superblock::probe(&*disk, volume, id)?.sequence + 1;
                    let next = Superblock { volume, name, disk: id, sequence, members };
                    superblock::write(&*disk, &next)
                });
                Some((id, in_time(work).await.err()?))
            }
        };
        join_all(handles.iter().map(write)).await.into_iter().flatten().collect()
    }

    /// Copies of the state on disks that have left the log get no more writes.
    async fn release_failed(&self, side: &mut Side) -> Result<()> {
        let failed = std::mem::take(&mut side.failed);
        let Some(mirror) = self.state().mirror else { return Ok(()) };
        let known: Vec<_> = mirror.replicas().into_iter().map(|(disk, _alive)| disk).collect();
        for disk in failed.into_iter().filter(|disk| known.contains(disk)) {
            let mirror = mirror.clone();
            let removed = self.queue.run(move || mirror.remove_replica(disk)).await;
            if let Err(error) = removed {
                // It is the last copy that is alive: in use, though nothing is recovered from it.
                tracing::warn!(disk = disk.get(), %error, "this copy of the state stays in use");
            }
        }
        Ok(())
    }

    /// See `LocalLog::restore_copies`. Others get their turn between two steps.
    pub(super) async fn restore_copies(&self) -> Result<bool> {
        loop {
            let mut side = self.side.lock().await;
            self.check_running()?;
            self.drop_lost(&mut side).await?;
            self.heal(&mut side).await?;
            let list = self.members.borrow().clone();
            let enough = self.staying(&side, &list).len() >= self.wanted(&list);
            if enough || (side.joining.is_none() && self.candidate(&side, &list).is_none()) {
                return Ok(enough);
            }
        }
    }

    /// Goes on making another disk complete, if log disks are missing.
    pub(super) async fn heal(&self, side: &mut Side) -> Result<()> {
        let list = self.members.borrow().clone();
        let disk = match side.joining {
            Some(disk) => disk,
            None if self.staying(side, &list).len() < self.wanted(&list) => {
                let Some(disk) = self.candidate(side, &list) else {
                    // Those that drain go all the same, if the others are enough.
                    return self.release_leaving(side, list, is_usable).await;
                };
                if let Err(error) = self.start_copy(disk).await {
                    self.avoid(side, disk, &error).await;
                    return Ok(());
                }
                side.joining = Some(disk);
                self.set_growth(Growth { joining: Some(disk), ..self.growth() });
                disk
            }
            None => {
                let next = self.growth();
                let stays = |list: &MemberList, disk| {
                    is_usable(list, disk) && self.has_room_next(list, disk, next)
                };
                return self.release_leaving(side, list, stays).await;
            }
        };
        match self.copy_some(COPY_STEPS).await {
            Ok(false) => return Ok(()),
            Ok(true) => {}
            Err(error) => {
                self.avoid(side, disk, &error).await;
                return Ok(());
            }
        }
        side.joining = None;
        if let Err(error) = self.complete(side, disk, None).await {
            self.avoid(side, disk, &error).await;
            return Ok(());
        }
        let mut list = self.members.borrow().clone();
        list.log.push(LogMember { disk, start: position(&self.checkpointed) });
        for member in list.disks.iter_mut().filter(|member| member.disk == disk) {
            member.state = MemberState::Healthy;
        }
        self.change(side, list).await?;
        // What is in memory may have its room now.
        side.checkpoint_due = Some(Instant::now());
        Ok(())
    }

    /// Those of which `stays` says no leave the log, if the others are enough.
    async fn release_leaving(
        &self,
        side: &mut Side,
        list: MemberList,
        stays: impl Fn(&MemberList, DiskId) -> bool,
    ) -> Result<()> {
        let disks = side.log.disks().into_iter();
        let (staying, leaving): (Vec<_>, Vec<_>) = disks.partition(|disk| stays(&list, *disk));
        if leaving.is_empty() || staying.is_empty() || staying.len() < self.wanted(&list) {
            return Ok(());
        }
        for disk in leaving {
            side.log.remove(disk).into_iter().for_each(forget);
            side.failed.insert(disk);
        }
        self.change(side, list).await
    }

    /// Disks with the log that are to keep it: those without room for the state to grow leave it when others have it.
    fn staying(&self, side: &Side, list: &MemberList) -> Vec<DiskId> {
        let next = self.growth();
        let stays = |disk: &DiskId| is_usable(list, *disk) && self.has_room_next(list, *disk, next);
        side.log.disks().into_iter().filter(stays).collect()
    }

    /// The next disk for the log: as far from those that have it as possible.
    fn candidate(&self, side: &Side, list: &MemberList) -> Option<DiskId> {
        let members = side.log.disks();
        let have: Vec<&Member> = members.iter().filter_map(|disk| list.member(*disk)).collect();
        let now = Instant::now();
        let next = self.growth();
        let enough =
            members.iter().filter(|disk| is_usable(list, **disk)).count() >= self.wanted(list);
        let free = |handle: &Arc<DiskHandle>| {
            // Where the state has no room to grow, one more disk without room is of no use, unless there are too few.
            if enough && !self.has_room_next(list, handle.id, next) {
                return false;
            }
            let avoided = side.avoid.get(&handle.id).is_some_and(|until| *until > now);
            is_usable(list, handle.id) && !members.contains(&handle.id) && !avoided
        };
        let closeness = |disk: DiskId| list.member(disk).map(|member| member.closeness(&have));
        let mut free: Vec<_> =
            self.disks.healthy().iter().filter(|h| free(h)).map(|h| h.id).collect();
        let lacks_room = |disk: DiskId| !self.has_room_next(list, disk, next);
        free.sort_by_key(|disk| {
            (lacks_room(*disk), closeness(*disk), self.disks.is_full(*disk), *disk)
        });
        free.first().copied()
    }

    async fn avoid(&self, side: &mut Side, disk: DiskId, error: &Error) {
        tracing::warn!(disk = disk.get(), %error, "cannot give the metadata to this disk");
        self.disks.report(disk, error);
        side.joining = None;
        side.avoid.insert(disk, Instant::now() + AVOID);
        if let Some(mirror) = self.state().mirror {
            // Nothing to forget if the copy failed by itself.
            drop(mirror.remove_replica(disk));
        }
        // What was begun takes room. Of a disk that does not answer the next copy removes it.
        let answers = error.kind() != ErrorKind::Unavailable;
        if let Some(handle) = self.disks.get(disk).filter(|_handle| answers) {
            let target = handle.disk.clone();
            drop(in_time(handle.queue.run(move || discard_copy(&*target))).await);
        }
    }

    async fn start_copy(&self, disk: DiskId) -> Result<()> {
        let handle = self.handle(disk)?;
        let mirror = self.mirror()?;
        // A copy that has left the log before may be known still.
        let known = mirror.replicas().iter().any(|(replica, _alive)| *replica == disk);
        let target = handle.disk.clone();
        let file = beside(&handle, in_time(handle.queue.run(move || begin_copy(&*target))).await?)?;
        let job = move || {
            if known {
                mirror.remove_replica(disk)?;
            }
            mirror.add_replica(disk, file)
        };
        self.queue.run(job).await
    }

    async fn copy_some(&self, steps: usize) -> Result<bool> {
        for _step in 0..steps {
            let mirror = self.mirror()?;
            if self.queue.run_background(move || mirror.copy_step(COPY_PAGES)).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Finishes the copy of the state, unless the disk has one, and begins the log there. The chain of `keep` stays.
    async fn complete(&self, side: &mut Side, disk: DiskId, keep: Option<Epoch>) -> Result<()> {
        let handle = self.handle(disk)?;
        let mirror = self.mirror()?;
        let target = handle.disk.clone();
        let known = mirror.replicas().iter().any(|(replica, _alive)| *replica == disk);
        if !known {
            self.queue.run(move || mirror.finish()).await?;
            in_time(handle.queue.run(move || promote(&*target))).await?;
        }
        let epoch = self.members.borrow().epoch.next();
        let batch = {
            let order = self.order();
            let mut commands = order.from(order.first);
            let durable = position(&self.durable).get() - order.first.get();
            commands.truncate(usize::try_from(durable).unwrap_or(usize::MAX));
            Batch::seal(side.chain, epoch, order.first, &commands)
        };
        let (chain, size, target) = (side.chain, self.options.segment_bytes, handle.disk.clone());
        let begin = move || LogWriter::begin(target, chain, size, keep);
        let member = LogDisk::new(handle.clone(), in_time(handle.queue.run(begin)).await?);
        in_time(member.append(Arc::new(batch))).await?;
        side.log.add(member);
        Ok(())
    }

    /// See `LocalLog::begin`: nothing of the epoch found is touched before the new one is in force.
    pub(super) async fn begin(
        &self,
        mut list: MemberList,
        preferred: Vec<DiskId>,
        old: Epoch,
    ) -> Result<()> {
        let mut side = self.side.lock().await;
        side.chain = Chain { volume: self.volume, base: list.epoch.next() };
        list.log.clear();
        let mut preferred = preferred.into_iter();
        while side.log.disks().len() < self.wanted(&list) {
            let next = preferred.next().or_else(|| self.candidate(&side, &list));
            let Some(disk) = next else { break };
            if let Err(error) = self.join(&mut side, disk, old).await {
                self.avoid(&mut side, disk, &error).await;
                continue;
            }
            list.log.push(LogMember { disk, start: position(&self.checkpointed) });
        }
        self.change(&mut side, list).await?;
        let base = side.chain.base;
        for disk in side.log.disks() {
            let handle = self.handle(disk)?;
            let target = handle.disk.clone();
            let removed = handle.queue.run(move || remove_chains(&*target, |b| b != base)).await;
            if let Err(error) = removed {
                self.lose(&mut side, disk, &error);
            }
        }
        if side.failed.is_empty() { Ok(()) } else { self.replace_failed(&mut side).await }
    }

    async fn join(&self, side: &mut Side, disk: DiskId, old: Epoch) -> Result<()> {
        let has_state = |(replica, alive): &(DiskId, bool)| *replica == disk && *alive;
        if !self.mirror()?.replicas().iter().any(has_state) {
            self.start_copy(disk).await?;
            while !self.copy_some(COPY_STEPS).await? {}
        }
        self.complete(side, disk, Some(old)).await
    }

    fn handle(&self, disk: DiskId) -> Result<Arc<DiskHandle>> {
        let down = || Error::unavailable(format!("disk {disk} is down"));
        self.disks.get(disk).ok_or_else(down)
    }

    fn mirror(&self) -> Result<MirrorFile> {
        self.state().mirror.ok_or_else(|| read_only("its state is a private copy"))
    }
}

/// What `work` on a disk answers, unless the disk is silent.
pub(super) async fn in_time<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let silent = |_elapsed| Err(Error::unavailable(format!("no answer for {SILENT:?}")));
    tokio::time::timeout(SILENT, work).await.unwrap_or_else(silent)
}

/// Whether a disk may keep the log.
pub(super) fn is_usable(list: &MemberList, disk: DiskId) -> bool {
    list.member(disk).is_some_and(|member| member.state.counts())
}

fn members_of(list: &MemberList) -> Vec<u32> {
    list.log.iter().map(|member| member.disk.get()).collect()
}
