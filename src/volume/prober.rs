//! Notices disks that go and disks that come back: looks at each path once a period. Decides nothing about what is
//! stored; `DiskSet` is told.

use super::Volume;
use crate::disk::queue::DiskQueue;
use crate::disk::set::{DiskHandle, DiskState, DiskStatus};
use crate::disk::superblock::{self, MemberState};
use crate::error::{Error, Result};
use crate::types::DiskId;
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;

/// How often each disk is looked at: a loss shows in `status` within two seconds.
pub(super) const PROBE_PERIOD: Duration = Duration::from_millis(500);
/// How long one look may take before it counts as no answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

impl Volume {
    /// Looks at every disk once, at all together: one that hangs does not hide what happens to the others.
    pub(super) async fn probe_disks(self: &Arc<Self>) {
        let members = self.log.members();
        let used = |status: &DiskStatus| {
            members.member(status.id).is_some_and(|member| member.state != MemberState::Out)
        };
        let looks = self.disks.states().into_iter().filter(used).map(|status| async move {
            match status.state {
                DiskState::Healthy => self.probe_healthy(status.id).await,
                DiskState::Down(_) => {
                    let look = self.probe_down(status.id);
                    match tokio::time::timeout(PROBE_TIMEOUT, look).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!("disk {} stays down: {error}", status.id),
                        Err(_elapsed) => tracing::debug!("disk {} does not answer", status.id),
                    }
                }
            }
        });
        join_all(looks).await;
    }

    /// A disk in use must still be what its path leads to, and its superblock must be there.
    async fn probe_healthy(&self, id: DiskId) {
        let Some(handle) = self.disks.get(id) else { return };
        let disk = Arc::clone(&handle.disk);
        let look = handle.queue.run_background(move || {
            disk.identity()?;
            match superblock::read(&*disk)? {
                Some(_) => disk.space(),
                None => {
                    Err(Error::unavailable(format!("{}: its superblock is gone", disk.label())))
                }
            }
        });
        match tokio::time::timeout(PROBE_TIMEOUT, look).await {
            Ok(Ok(space)) => self.disks.note_space(id, space),
            Ok(Err(error)) => self.disks.fail(id, &error),
            Err(_elapsed) => {
                let context = format!("disk {id} did not answer for {PROBE_TIMEOUT:?}");
                self.disks.fail(id, &Error::unavailable(context));
            }
        }
    }

    /// A disk that is down comes back when its path leads to a directory that is this very disk.
    async fn probe_down(self: &Arc<Self>, id: DiskId) -> Result<()> {
        // What served it before still holds its lock.
        self.peers.remove_store(id);
        let path = self.disk_path(id)?;
        let opener = Arc::clone(&self.world.opener);
        let (volume, holder) = (self.id, self.options.holder.clone());
        let queue = self.limits_queue(id)?;
        let disk = queue
            .run(move || {
                let disk = opener(&path)?;
                let superblock = superblock::read(&*disk)?
                    .ok_or_else(|| Error::refused(format!("{} is empty", disk.label())))?;
                if superblock.volume != volume || superblock.disk != id {
                    return Err(Error::refused(format!(
                        "{} is disk {} of volume {}",
                        disk.label(),
                        superblock.disk,
                        superblock.name
                    )));
                }
                disk.lock(&holder)?;
                Ok(disk)
            })
            .await?;
        let handle = Arc::new(DiskHandle { id, disk, queue });
        self.admit_disk(handle).await
    }

    /// A queue for the jobs of disk `id`: threads of its own, or none for simulated disks.
    pub(super) fn limits_queue(&self, id: DiskId) -> Result<DiskQueue> {
        disk_queue(&self.config.limits, id, self.world.inline)
    }
}

/// The queue of one disk.
pub(super) fn disk_queue(
    limits: &crate::config::Limits,
    id: DiskId,
    inline: bool,
) -> Result<DiskQueue> {
    if inline {
        return Ok(DiskQueue::Inline);
    }
    let threads = usize::try_from(limits.disk_threads).unwrap_or(1);
    let depth = usize::try_from(limits.disk_queue).unwrap_or(1);
    DiskQueue::threads(&format!("disk-{id}"), threads, depth)
}
