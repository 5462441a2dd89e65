//! Opening the state anew: when its last copy in use has failed, and when its copies have no room to grow.
//!
//! Copies without room stay as they were last made durable. What is applied from there on is kept in memory, and the log
//! has all of it. Only what takes something away is accepted until the copies have room to follow; then they are opened
//! again, the log is replayed on them, and a checkpoint makes them durable.

use super::members::is_usable;
use super::order::{Shared, position};
use super::read_only;
use super::rounds::Side;
use super::state::{Deaths, Keep, StateHandle, attach, open_mirror};
use crate::disk::mirror::MirrorFile;
use crate::disk::superblock::{LogMember, MemberList};
use crate::error::{Error, Posix, Result};
use crate::types::{DiskId, LogPosition};
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether the copies could grow.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// How long a reader waits for whoever opens the state anew, before it looks again.
const READER_PAUSE: Duration = Duration::from_millis(5);
/// Growth needs a little more than its pages: their sums, and what the file system keeps of it.
const OVERHEAD_SHARE: u64 = 64;
/// The state is tight when less than this share of its pages was never used, and its disks have no room for its next
/// growth: what takes away needs pages too.
const SLACK_SHARE: u64 = 8;
/// Room without which it is not tried: where files are not allocated ahead, it lacks without growth.
const GROWTH_MIN: u64 = 1 << 20;
/// redb doubles its file, up to this step.
const GROWTH_MAX: u64 = 4 << 30;

impl Shared {
    /// If the state was lost with its last copy in use, opens another copy and replays the log on it. If that was for
    /// lack of room, copies that have some take its place if `may_grow` and they are enough; else what changes is kept in
    /// memory from now on. Answers whether it did; an error means that the log has stopped, or waits for disks.
    pub(super) fn recover_state(&self, error: &Error, may_grow: bool) -> Result<bool> {
        let handle = self.state();
        let Some(mirror) = handle.mirror.filter(is_lost) else { return Ok(false) };
        tracing::error!(%error, "all copies of the metadata in use failed; opening one anew");
        mirror.fence();
        let log = self.members.borrow().log.clone();
        let full = mirror.lacks_room();
        let those = match full {
            true if may_grow => self.roomy(&log, growth(mirror.bytes())),
            true => Vec::new(),
            false => log.clone(),
        };
        let mut reopened = self.reopen_any(&those, Keep::OnDisks);
        if full || reopened.as_ref().is_err_and(|error| error.is(Posix::NoSpace)) {
            reopened = reopened.or_else(|_full| self.reopen_any(&log, Keep::InMemory));
        }
        match reopened {
            Ok(reopened) => {
                if reopened.overlay.is_some() {
                    tracing::error!(
                        "the disks have no room for more metadata: changes of it are in the log and in memory, and only \
                         what takes something away is accepted; remove files or add a disk"
                    );
                }
                self.take(reopened, &log);
                // It is fenced: nothing can be read there.
                self.set_previous(None);
                Ok(true)
            }
            Err(_cannot) if log.iter().any(|member| self.disks.get(member.disk).is_none()) => {
                Err(self.pause("the disks with the metadata are away"))
            }
            Err(cannot) => {
                let reason = format!("no copy of the metadata can be opened: {cannot}");
                self.stop(&reason);
                Err(read_only(&reason))
            }
        }
    }

    /// Opens the state anew if it is lost, or waits a moment for whoever does. `None` if there is no use in trying again, else
    /// whether it was opened here.
    #[expect(
        clippy::disallowed_methods,
        reason = "readers answer at once, and it happens once in years"
    )]
    pub(super) fn recover_for_reader(&self, error: &Error) -> Option<bool> {
        let is_lost = || self.state().mirror.as_ref().is_some_and(is_lost);
        if self.is_paused() || self.stopped().is_some() || !is_lost() {
            return None;
        }
        match self.gate.try_lock() {
            Ok(_gate) => self.recover_state(error, true).ok(),
            Err(_busy) => {
                std::thread::sleep(READER_PAUSE);
                Some(false)
            }
        }
    }

    /// Has copies follow what is kept in memory if there is room for it. Answers whether the state is on disks. The caller
    /// has the gate.
    pub(super) fn leave_memory(&self) -> Result<bool> {
        let Some(overlay) = self.state().overlay else { return Ok(true) };
        let log = self.members.borrow().log.clone();
        let those = self.roomy(&log, overlay.grown_bytes()?.max(GROWTH_MIN));
        if those.is_empty() {
            return Ok(false);
        }
        match self.reopen_any(&those, Keep::OnDisks) {
            Ok(reopened) => {
                self.take(reopened, &log);
                tracing::info!("the disks have room for the metadata again");
                Ok(true)
            }
            Err(error) => {
                // The copies are as they were: nothing of that was made durable.
                self.set_growth(Growth { failed: true, ..self.growth() });
                tracing::warn!(%error, "the metadata stays in memory");
                Ok(false)
            }
        }
    }

    /// The disks of `log` that have room for their copies to grow by `growth`; none if there would be fewer copies than there
    /// should be: redundancy is not given for room.
    fn roomy(&self, log: &[LogMember], growth: u64) -> Vec<LogMember> {
        let those = log.iter().filter(|member| self.has_room(member.disk, growth)).copied();
        let those: Vec<_> = those.collect();
        let list = self.members.borrow().clone();
        if those.len() >= self.copies(&list) { those } else { Vec::new() }
    }

    /// Copies that there are to be when the state has grown: as many as there should be, unless there are fewer anyway.
    fn copies(&self, list: &MemberList) -> usize {
        let there = list.log.iter().filter(|member| self.disks.get(member.disk).is_some()).count();
        self.wanted(list).min(there).max(1)
    }

    /// Whether a disk has room for so many bytes of the state. Goes by the last look at the disks: one that hangs holds up
    /// nobody.
    pub(super) fn has_room(&self, disk: DiskId, bytes: u64) -> bool {
        let space = |disk| self.disks.get(disk).and_then(|_handle| self.disks.space(disk));
        let Some(own) = space(disk) else { return false };
        let log = self.members.borrow().log.clone();
        let beside = |member: &&LogMember| {
            member.disk != disk
                && space(member.disk).is_some_and(|other| other.device == own.device)
        };
        let copies = 1 + log.iter().filter(beside).count() as u64;
        own.free_bytes >= (bytes + bytes / OVERHEAD_SHARE).saturating_mul(copies)
    }

    /// Looks from time to time whether the state is lost, whether its copies could grow, and whether each disk with the log
    /// has one that is in use. Nothing new is accepted before they cannot grow. It waits for nobody who writes the state.
    pub(super) async fn look_at_state(&self, side: &mut Side) -> Result<()> {
        let now = Instant::now();
        if side.look_due.is_some_and(|due| now < due) {
            return Ok(());
        }
        let state = self.state();
        let Some(mirror) = &state.mirror else { return Ok(()) };
        let Some((bytes, unused, used)) = mirror.look() else { return Ok(()) };
        side.look_due = Some(now + LOOK);
        if used.is_empty() {
            // Whoever met it may have been a reader.
            let _gate = self.gate.lock().await;
            self.recover_state(&Error::unavailable("all copies of the state failed"), true)?;
            return Ok(());
        }
        let growth = match &state.overlay {
            Some(overlay) => overlay.grown_bytes()?.max(GROWTH_MIN),
            None if unused < bytes / SLACK_SHARE => growth(bytes),
            None => 0,
        };
        let failed = state.overlay.is_some() && self.growth().failed;
        self.set_growth(Growth { bytes, growth, joining: side.joining, failed });
        mirror.set_may_lose_copies(self.has_room_elsewhere(bytes));
        self.set_tight(growth > 0 && !self.can_grow());
        for disk in side.log.disks().into_iter().filter(|disk| !used.contains(disk)) {
            self.lose(side, disk, &Error::corrupt("its copy of the state is not in use"));
        }
        Ok(())
    }

    /// Whether there are as many disks as there should be that have room for the state as it will be soon, those to which it
    /// would have to be copied included.
    pub(super) fn can_grow(&self) -> bool {
        let (list, next) = (self.members.borrow().clone(), self.growth());
        let usable = self.usable(&list).into_iter().filter(|handle| is_usable(&list, handle.id));
        usable.filter(|handle| self.has_room_next(&list, handle.id, next)).count()
            >= self.copies(&list)
    }

    /// Whether as many disks as should have the state are known to have room for it when it has grown: then it may grow on
    /// few of them for a moment, until others have joined.
    fn has_room_elsewhere(&self, bytes: u64) -> bool {
        let list = self.members.borrow().clone();
        let next = Growth { bytes, growth: growth(bytes), ..self.growth() };
        let usable = self.usable(&list).into_iter().map(|handle| handle.id);
        let has_room = |disk: &DiskId| {
            self.disks.space(*disk).is_some() && self.has_room_next(&list, *disk, next)
        };
        let usable = usable.filter(|disk| is_usable(&list, *disk) && has_room(disk));
        usable.count() >= self.copies(&list)
    }

    /// Whether a disk has room for the state as it will be soon, as far as is known.
    pub(super) fn has_room_next(&self, list: &MemberList, disk: DiskId, next: Growth) -> bool {
        // That of a disk that is joining has its length from the begin.
        let has_copy =
            next.joining == Some(disk) || list.log.iter().any(|member| member.disk == disk);
        let bytes = if has_copy { next.growth } else { next.bytes + next.growth };
        next.growth == 0 || self.disks.space(disk).is_none() || self.has_room(disk, bytes)
    }

    /// The first copy on a disk of `log` that takes all that was applied.
    ///
    /// Error: why the last one that was tried did not open, `NoSpace` if it and its equals have no room for that.
    fn reopen_any(&self, log: &[LogMember], keep: Keep) -> Result<StateHandle> {
        let mut why = Error::unavailable("no disk has the log");
        for member in log {
            match self.reopen(member.disk, log, keep) {
                Ok(reopened) => return Ok(reopened),
                Err(error) => {
                    tracing::warn!(disk = member.disk.get(), %error, "this copy does not open");
                    let full = error.is(Posix::NoSpace);
                    why = error;
                    if full {
                        // So it was with all that are equal to it.
                        break;
                    }
                }
            }
        }
        Err(why)
    }

    /// The copy on `disk` and those of `log` that are equal to it, with all that was applied.
    fn reopen(&self, disk: DiskId, log: &[LogMember], keep: Keep) -> Result<StateHandle> {
        let handle = self.disks.get(disk);
        let handle = handle.ok_or_else(|| Error::unavailable("the disk is down"))?;
        let deaths = Deaths::default();
        let mirror = open_mirror(&handle, deaths.listener(self.disks.clone()))?;
        let others = log.iter().filter(|member| member.disk != disk);
        for other in others.filter_map(|member| self.disks.get(member.disk)) {
            match attach(&mirror, &other, keep) {
                Ok(_is_equal) => {}
                Err(error) if error.is(Posix::NoSpace) => return Err(error),
                Err(error) => {
                    self.disks.report(other.id, &error);
                }
            }
        }
        let tail = |at: LogPosition| {
            let order = self.order();
            if at < order.first || at > position(&self.applied) {
                return Err(Error::corrupt(format!("it is at {at}, not in the recent log")));
            }
            Ok(order.from(at))
        };
        StateHandle::open(mirror, deaths, keep, self.options.cache_bytes, tail)
    }

    /// From now on `handle` is in use. Disks of `log` whose copies are not are made anew as copies of these.
    fn take(&self, handle: StateHandle, log: &[LogMember]) {
        let used = handle.used();
        let others = log.iter().map(|member| member.disk).filter(|disk| !used.contains(disk));
        handle.deaths.add(others);
        if let Some(mirror) = &handle.mirror {
            mirror.set_may_lose_copies(self.has_room_elsewhere(mirror.bytes()));
        }
        self.set_state(handle);
    }
}

/// The state as it will be soon.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Growth {
    /// Its size now.
    pub(super) bytes: u64,
    /// What it will grow by; 0 if that is not near.
    pub(super) growth: u64,
    /// Disk to which it is being copied.
    pub(super) joining: Option<DiskId>,
    /// There seemed to be room for what is in memory, and there was not.
    pub(super) failed: bool,
}

/// What redb makes a file of so many bytes longer by.
fn growth(bytes: u64) -> u64 {
    bytes.min(GROWTH_MAX)
}

pub(super) fn is_lost(mirror: &MirrorFile) -> bool {
    mirror.replicas().iter().all(|(_disk, alive)| !alive)
}
