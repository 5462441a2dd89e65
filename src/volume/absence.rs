//! Decides when a disk that is away is given up, so that what it held is placed anew. Does not repair.

use super::Volume;
use crate::disk::superblock::{MemberList, MemberState};
use crate::error::Result;
use crate::sync::Arc;
use crate::types::DiskId;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// Disks that are away, and since when this process knows.
#[derive(Debug, Default)]
pub(super) struct Absence(BTreeMap<DiskId, Instant>);

impl Absence {
    /// Takes note of who is away now; answers who has been for at least `limit`, the longest first.
    fn note(&mut self, away: &[DiskId], now: Instant, limit: Duration) -> Vec<DiskId> {
        self.0.retain(|disk, _since| away.contains(disk));
        for disk in away {
            self.0.entry(*disk).or_insert(now);
        }
        let mut late: Vec<_> =
            self.0.iter().filter(|(_disk, since)| now - **since >= limit).collect();
        late.sort_by_key(|(disk, since)| (**since, **disk));
        late.into_iter().map(|(disk, _since)| *disk).collect()
    }
}

/// How many disks may be given up: those that are `here` must be able to take whole stripes of `widest` shards.
const fn may_give_up(here: usize, widest: usize) -> bool {
    here >= widest
}

impl Volume {
    /// Gives up disks that have been away for longer than `disk_out_s`. A disk whose shards the others could not take stays
    /// `down`: it is better than none, and used as soon as it is back.
    ///
    /// Error: the member list could not be changed.
    pub(super) async fn give_up_absent(self: &Arc<Self>, absence: &mut Absence) -> Result<()> {
        let limit = self.config.limits.disk_out_s;
        if limit == 0 || self.fs.read_only() {
            return Ok(());
        }
        let members = self.log.members();
        let (here, away) = self.counted(&members);
        let late = absence.note(&away, Instant::now(), Duration::from_secs(limit.into()));
        if late.is_empty() {
            return Ok(());
        }
        let view = self.meta.view()?;
        let Some(taken) = self.census(&view)? else { return Ok(()) };
        let widest = self.widest(&view, &taken.census)?;
        if !may_give_up(here, usize::from(widest.scheme.n())) {
            return Ok(());
        }
        for disk in late {
            tracing::warn!(
                disk = disk.get(),
                "disk given up after {limit} s: what it held is placed on the others. If it comes back it is \
                 used again"
            );
            self.log.set_disk_state(disk, MemberState::Out).await?;
        }
        Ok(())
    }

    /// Of the disks that count, how many are here, and which are away.
    pub(super) fn counted(&self, members: &MemberList) -> (usize, Vec<DiskId>) {
        let counted = members.disks.iter().filter(|member| member.state.counts());
        let (here, away): (Vec<DiskId>, Vec<DiskId>) =
            counted.map(|member| member.disk).partition(|disk| self.disks.get(*disk).is_some());
        (here.len(), away)
    }
}

#[cfg(test)]
mod tests;
