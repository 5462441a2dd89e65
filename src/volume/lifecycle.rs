//! Disks come and go: one is added, replaced, drained, removed. Decides what is safe; the log puts it in force, and the
//! workers move and rebuild.

use super::census::good_disks;
use super::labels::Together;
use super::prober::disk_queue;
use super::status::RepairReport;
use super::{Volume, find, format};
use crate::disk::set::DiskHandle;
use crate::disk::superblock::{Member, MemberState};
use crate::error::{Error, Result};
use crate::lane::drop_apart;
use crate::types::{DiskId, ShardIndex, StripeId};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Stripes looked at at once.
const PAGE: usize = 1024;

/// What may be lost with a disk that leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Losing {
    /// Nothing: it stays while a stripe needs it.
    Nothing,
    /// What cannot be read without it.
    WhatNeedsIt,
}

impl Losing {
    /// What somebody has asked for.
    pub const fn data(allowed: bool) -> Self {
        if allowed { Self::WhatNeedsIt } else { Self::Nothing }
    }
}

impl Volume {
    /// Takes the empty directory `new` into the volume. Its room is used at once, and shards are moved to it until it has
    /// its share. Answers its number.
    ///
    /// Errors: `Refused` with a sentence, and nothing is changed.
    pub async fn add_disk(&self, new: &Path, allow_same_device: bool) -> Result<DiskId> {
        self.check_changes()?;
        self.take_in(new, None, allow_same_device).await
    }

    /// Takes the empty directory `new` into the volume, lets `old` (a path or number) go, and rebuilds on it and the
    /// others what was on `old`. A volume whose repair ends early is as safe as before: repair goes on by itself.
    ///
    /// Errors: `Refused` with a sentence, and nothing is changed, if something would be lost that `losing` does not allow.
    pub async fn replace_disk(
        &self,
        old: &str,
        new: &Path,
        allow_same_device: bool,
        losing: Losing,
    ) -> Result<RepairReport> {
        self.check_changes()?;
        let member = self.present_member(old)?;
        self.check_unneeded(&member, losing)?;
        let old = member.disk;
        self.take_in(new, Some(old), allow_same_device).await?;
        // Another disk may have gone meanwhile.
        self.check_unneeded(&member, losing)?;
        self.let_go(old, "it was replaced").await?;
        self.repair_run().await
    }

    /// Has everything moved away from a disk, which then leaves the volume by itself.
    ///
    /// Errors: `Refused` if the others cannot take it: too few for whole stripes, or not enough room.
    pub async fn drain_disk(&self, name: &str) -> Result<DiskId> {
        self.check_changes()?;
        let member = self.present_member(name)?;
        if member.state == MemberState::Draining {
            return Ok(member.disk);
        }
        self.check_without(&member)?;
        self.check_room_without(&member)?;
        self.log.set_disk_state(member.disk, MemberState::Draining).await?;
        self.look_again();
        Ok(member.disk)
    }

    /// A disk that drains is used as before.
    ///
    /// Errors: `Refused` if it does not drain.
    pub async fn keep_disk(&self, name: &str) -> Result<DiskId> {
        self.check_changes()?;
        let member = self.present_member(name)?;
        if member.state != MemberState::Draining {
            return Err(Error::refused(format!("{} does not drain", member.path)));
        }
        let here = self.disks.get(member.disk).is_some();
        let state = if here { MemberState::Healthy } else { MemberState::Down };
        self.log.set_disk_state(member.disk, state).await?;
        self.look_again();
        Ok(member.disk)
    }

    /// Lets a disk go at once; what it held is rebuilt from the others.
    ///
    /// Errors: `Refused` if something would be lost that `losing` does not allow, or the others are too few for whole
    /// stripes.
    pub async fn remove_disk(&self, name: &str, losing: Losing) -> Result<DiskId> {
        self.check_changes()?;
        let member = self.present_member(name)?;
        self.check_without(&member)?;
        self.check_unneeded(&member, losing)?;
        self.let_go(member.disk, "it was removed").await?;
        Ok(member.disk)
    }

    /// Lets go of disks that have been drained. A stripe that was on its way to such a disk when it began to drain, and is
    /// committed after this, misses a shard, which is rebuilt like any other.
    ///
    /// Error: the member list could not be changed.
    pub(super) async fn release_drained(&self) -> Result<()> {
        if self.fs.read_only() || self.log.status().waiting.is_some() {
            return Ok(());
        }
        let draining = |member: &&Member| member.state == MemberState::Draining;
        let progress = self.rebalance.progress();
        let keeps_log = self.log.status().disks;
        for member in self.log.members().disks.iter().filter(draining) {
            let disk = member.disk;
            // A disk that has gone meanwhile counts as lost: its shards are rebuilt before it is let go.
            let empty = progress.known && !progress.left.contains_key(&disk);
            if !empty || keeps_log.contains(&disk) || self.names(disk)? {
                continue;
            }
            self.meta.sync().await?;
            self.let_go(disk, "it was drained").await?;
            tracing::info!(disk = disk.get(), path = member.path, "drained: it is safe to unplug");
        }
        Ok(())
    }

    fn check_changes(&self) -> Result<()> {
        if self.fs.read_only() {
            return Err(Error::refused("the mount is read-only: its disks cannot be changed"));
        }
        Ok(())
    }

    /// The member that `name` (a path or number) means.
    fn present_member(&self, name: &str) -> Result<Member> {
        let disk = self.disk_named(name)?;
        let members = self.log.members();
        match members.member(disk) {
            Some(member) if member.state != MemberState::Removed => Ok(member.clone()),
            Some(_) | None => {
                Err(Error::refused(format!("disk {disk} has left the volume already")))
            }
        }
    }

    /// Takes in the empty directory `new`; it may share a device with `leaving`.
    async fn take_in(
        &self,
        new: &Path,
        leaving: Option<DiskId>,
        allow_same_device: bool,
    ) -> Result<DiskId> {
        let members = self.log.members();
        let open = format::open_empty(new, &self.world)?;
        let disk = Arc::clone(&open.disk);
        let identity = disk.identity()?;
        let sharing = members.disks.iter().find(|member| {
            let used = member.state != MemberState::Removed && Some(member.disk) != leaving;
            used && member.device == identity.device
        });
        if let Some(member) = sharing.filter(|_member| !allow_same_device) {
            return Err(Error::refused(format!(
                "{} and {} are on the same device, which would lose both: use another device, or \
                 --allow-same-device",
                new.display(),
                member.path
            )));
        }
        find::lock(&open, &self.options).await?;
        let space = disk.space()?;
        let id = members.disks.iter().map(|member| member.disk.0).max().map_or(1, |id| id + 1);
        let id = DiskId(id);
        let member = Member {
            disk: id,
            state: MemberState::Healthy,
            capacity_bytes: space.total_bytes,
            device: space.device,
            path: new.display().to_string(),
            labels: match leaving.and_then(|disk| members.member(disk)) {
                Some(member) => member.labels.clone(),
                None => self.config.labels(new)?.with_place(&disk.labels()),
            },
        };
        let queue = disk_queue(&self.config.limits, id, self.world.inline)?;
        let handle = Arc::new(DiskHandle { id, disk, queue });
        self.log.add_disk(handle.clone(), member).await?;
        self.admit_disk(handle, open.remote).await?;
        Ok(id)
    }

    /// A disk leaves the volume for good.
    async fn let_go(&self, disk: DiskId, reason: &str) -> Result<()> {
        if self.log.status().disks == [disk] {
            // The only copy of the metadata: another disk gets it first.
            let before = self.log.members().member(disk).map(|member| member.state);
            self.log.set_disk_state(disk, MemberState::Draining).await?;
            let copied = self.log.restore_copies().await;
            if !matches!(copied, Ok(true)) {
                // What follows is refused then, and the disk is as it was.
                self.log.set_disk_state(disk, before.unwrap_or(MemberState::Healthy)).await?;
            }
        }
        self.log.set_disk_state(disk, MemberState::Removed).await?;
        self.disks.let_go(disk, reason);
        if let Some(store) = self.peers.remove_store(disk).filter(|_store| !self.world.inline) {
            drop_apart(store);
        }
        self.look_again();
        Ok(())
    }

    /// The disks that stay must be enough for whole stripes of each class that has some.
    fn check_without(&self, member: &Member) -> Result<()> {
        let members = self.log.members();
        let staying = members.disks.iter().filter(|other| {
            other.state.counts()
                && other.disk != member.disk
                && self.disks.get(other.disk).is_some()
        });
        let staying = staying.count();
        let view = self.meta.view()?;
        let class = self.widest(&view, &self.count_stripes(&view)?)?;
        if staying >= usize::from(class.scheme.n()) {
            return Ok(());
        }
        Err(Error::refused(format!(
            "class {class} needs {} disks, and without {} there are {staying}: add one first, or use `ironfs disk \
             replace`",
            class.scheme.n(),
            member.path
        )))
    }

    /// The disks that stay must have room for what is moved to them.
    fn check_room_without(&self, member: &Member) -> Result<()> {
        let mut needed = 0;
        self.each_stripe(|record| {
            if record.disks.contains(&member.disk) {
                needed += record.geometry().shard_bytes();
            }
        })?;
        let members = self.log.members();
        let staying =
            members.disks.iter().filter(|other| other.state.counts() && other.disk != member.disk);
        let percent = u64::from(self.config.limits.reserve_percent);
        let spaces = staying.filter_map(|other| self.spaces.disk(other.disk));
        // Directories of one device share its room.
        let devices: BTreeMap<u64, u64> = spaces
            .map(|space| {
                (space.device, space.free_bytes.saturating_sub(space.total_bytes / 100 * percent))
            })
            .collect();
        let room: u64 = devices.values().sum();
        if room < needed {
            return Err(Error::refused(format!(
                "{} holds {needed} bytes, and the others have room for {room}: add a disk or delete files first",
                member.path
            )));
        }
        Ok(())
    }

    /// A disk goes for good only if every stripe can be read without it, also one that is away: it may come back.
    fn check_unneeded(&self, member: &Member, losing: Losing) -> Result<()> {
        let needing = match losing {
            Losing::Nothing => self.stripes_needing(member.disk)?,
            Losing::WhatNeedsIt => 0,
        };
        if needing == 0 {
            return Ok(());
        }
        let (path, here) = (&member.path, self.disks.get(member.disk).is_some());
        let others = "bring back the disks that are away, or wait for repair";
        let instead = if here {
            format!("{others}, or drain it")
        } else {
            format!("bring it back, or {others}")
        };
        let (stripes, their, them) = match needing {
            1 => ("1 stripe".into(), "its", "it"),
            many => (format!("{many} stripes"), "their", "them"),
        };
        Err(Error::refused(format!(
            "{stripes} cannot be read without {their} shards on {path}: {instead}; --lose-data gives {them} up"
        )))
    }

    /// How many stripes cannot be read without the shards that are on `disk`. Those that are lost anyway need none.
    fn stripes_needing(&self, disk: DiskId) -> Result<u64> {
        let (noted, places) = (self.noted()?, self.places());
        let mut needing = 0;
        self.each_stripe(|record| {
            let bad = noted.get(&record.id).copied().unwrap_or(0);
            if places.is_lost(record, bad) {
                return;
            }
            let is_good = |index: ShardIndex| !record.is_missing(index) && bad >> index.0 & 1 == 0;
            let mut there = record.shards().zip(&record.disks).filter(|(_index, on)| **on == disk);
            let without = there
                .find(|(index, _disk)| is_good(*index))
                .map(|(index, _disk)| bad | 1 << index.0);
            needing += u64::from(without.is_some_and(|without| self.margin(record, without) < 0));
        })?;
        Ok(needing)
    }

    /// Shards that are noted as bad, by stripe, a bit each.
    pub(super) fn noted(&self) -> Result<BTreeMap<StripeId, u64>> {
        let (view, mut noted) = (self.meta.view()?, BTreeMap::new());
        loop {
            let after = noted.last_key_value().map(|(id, _bad)| *id);
            let page = view.repairs(after, PAGE)?;
            if page.is_empty() {
                return Ok(noted);
            }
            noted.extend(page.into_iter().map(|(id, entry)| (id, entry.bad)));
        }
    }

    /// Takes note of where the good shards of all stripes are, if there are several domains at all.
    pub(super) fn note_together(&self, together: &mut Together) -> Result<()> {
        if together.survived().is_none() {
            return Ok(());
        }
        let noted = self.noted()?;
        self.each_stripe(|record| {
            let bad = noted.get(&record.id).copied().unwrap_or(0);
            let is_here = |disk| self.disks.get(disk).is_some();
            let good: Vec<DiskId> = good_disks(record, bad, is_here).collect();
            together.note(&good, self.margin(record, bad));
        })
    }

    /// Whether a stripe names the disk.
    fn names(&self, disk: DiskId) -> Result<bool> {
        let mut named = false;
        self.each_stripe(|record| {
            let mut shards = record.shards().zip(&record.disks);
            named |= shards.any(|(index, on)| *on == disk && !record.is_missing(index));
        })?;
        Ok(named)
    }

    pub(super) fn each_stripe(
        &self,
        mut look: impl FnMut(&crate::stripe::layout::StripeRecord),
    ) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.meta.view()?.stripes(after, PAGE)?;
            let Some((last, _live)) = page.last() else { return Ok(()) };
            after = Some(last.id);
            page.iter().for_each(|(record, _live)| look(record));
        }
    }
}
