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
use crate::disk::superblock::LogMember;
use crate::error::{Error, Posix, Result};
use crate::types::{DiskId, LogPosition};
use std::time::Duration;
use tokio::time::Instant;

/// How often it is looked whether the copies could grow.
pub(super) const LOOK: Duration = Duration::from_secs(1);
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
            true if may_grow => self.roomy(&log, mirror.room().0, growth(&mirror)),
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

    /// Has copies follow what is kept in memory if there is room for it. Answers whether the state is on disks. The caller
    /// has the gate.
    pub(super) fn leave_memory(&self) -> Result<bool> {
        let StateHandle { mirror: Some(base), overlay: Some(overlay), .. } = self.state() else {
            return Ok(true);
        };
        let log = self.members.borrow().log.clone();
        let those = self.roomy(&log, base.room().0, overlay.grown_bytes()?.max(GROWTH_MIN));
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
                tracing::warn!(%error, "the metadata stays in memory");
                Ok(false)
            }
        }
    }

    /// The disks of `log` that have room for their copies, of `bytes` now, to grow by `growth`. None if there would be fewer
    /// copies than there should be, counting disks that have room for a new one: redundancy is not given for room. Goes by
    /// the last look at the disks: one that hangs holds up nobody.
    fn roomy(&self, log: &[LogMember], bytes: u64, growth: u64) -> Vec<LogMember> {
        let list = self.members.borrow().clone();
        let has_room = |disk: DiskId, bytes: u64| {
            let space = self.disks.get(disk).and_then(|_handle| self.disks.space(disk));
            space.is_some_and(|space| space.free_bytes >= bytes + bytes / OVERHEAD_SHARE)
        };
        let those: Vec<_> =
            log.iter().filter(|member| has_room(member.disk, growth)).copied().collect();
        let others = self.usable(&list).into_iter().filter(|handle| {
            let has_copy = log.iter().any(|member| member.disk == handle.id);
            is_usable(&list, handle.id) && !has_copy && has_room(handle.id, bytes + growth)
        });
        if those.len() + others.count() >= self.wanted(&list) { those } else { Vec::new() }
    }

    /// Looks from time to time whether the copies could grow: nothing new is accepted before they cannot.
    pub(super) fn look_at_growth(&self, side: &mut Side) {
        let now = Instant::now();
        if side.growth_due.is_some_and(|due| now < due) {
            return;
        }
        side.growth_due = Some(now + LOOK);
        let Some(mirror) = self.state().mirror else { return };
        let (bytes, unused) = mirror.room();
        let log = self.members.borrow().log.clone();
        let is_known = log.iter().all(|member| self.disks.space(member.disk).is_some());
        let tight = is_known
            && unused < bytes / SLACK_SHARE
            && self.roomy(&log, bytes, growth(&mirror)).is_empty();
        self.set_tight(tight);
    }

    /// The first copy on a disk of `log` that takes all that was applied.
    ///
    /// Error: `NoSpace` if there is one that has no room for it, else why the last one did not open.
    fn reopen_any(&self, log: &[LogMember], keep: Keep) -> Result<StateHandle> {
        let mut why = Error::unavailable("no disk has the log");
        for member in log {
            match self.reopen(member.disk, log, keep) {
                Ok(reopened) => return Ok(reopened),
                Err(error) => {
                    tracing::warn!(disk = member.disk.get(), %error, "this copy does not open");
                    if !why.is(Posix::NoSpace) {
                        why = error;
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
            if let Err(error) = attach(&mirror, &other, keep) {
                self.disks.report(other.id, &error);
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
        self.set_state(handle);
    }
}

/// What redb makes the file longer by.
fn growth(mirror: &MirrorFile) -> u64 {
    mirror.room().0.min(GROWTH_MAX)
}

fn is_lost(mirror: &MirrorFile) -> bool {
    mirror.replicas().iter().all(|(_disk, alive)| !alive)
}
