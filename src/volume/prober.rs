//! Notices disks that go and disks that come back: looks at each path once a period. Decides nothing about what is
//! stored; `DiskSet` is told.

use super::{Volume, open_store};
use crate::disk::Disk;
use crate::disk::queue::DiskQueue;
use crate::disk::set::{DiskHandle, DiskState, DiskStatus};
use crate::disk::superblock::{self, MemberState};
use crate::error::{Error, ErrorKind, Result};
use crate::shard::store;
use crate::sync::{Arc, MutexGuard, PoisonError};
use crate::types::{DiskId, Epoch};
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::oneshot;

/// How often each disk is looked at: a loss shows in `status` within two seconds.
pub(super) const PROBE_PERIOD: Duration = Duration::from_millis(500);

impl Volume {
    /// Looks at every disk once, at all together: one that hangs does not hide what happens to the others.
    pub(super) async fn probe_disks(self: &Arc<Self>) {
        if self.disks.superseded().is_some() {
            self.leave_superseded().await;
            return;
        }
        let members = self.log.members();
        let used = |status: &DiskStatus| {
            members.member(status.id).is_some_and(|member| member.state != MemberState::Removed)
        };
        let looks = self.disks.states().into_iter().filter(used).map(|status| async move {
            match status.state {
                DiskState::Healthy | DiskState::Suspect => self.probe_used(status.id).await,
                DiskState::Down(_) => self.look_for(status.id).await,
            }
        });
        join_all(looks).await;
        self.disks.compare_paces();
    }

    /// Another mount has the volume: this one gives back what it still holds, once, and takes nothing any more.
    async fn leave_superseded(&self) {
        if !self.left.swap(true, Ordering::Relaxed) {
            self.release_disks().await;
        }
    }

    /// Looks for a disk that is down, and waits as long as a disk may be silent. A look that takes longer goes on, and
    /// there is no other meanwhile: each has threads, which hang as long as the disk does.
    async fn look_for(self: &Arc<Self>, id: DiskId) {
        if !self.looking().insert(id) {
            return;
        }
        let (volume, (done, ended)) = (Arc::clone(self), oneshot::channel::<()>());
        self.keepers.looks.run(async move {
            if let Err(error) = volume.probe_down(id).await {
                tracing::debug!("disk {id} stays down: {error}");
            }
            volume.looking().remove(&id);
            drop(done);
        });
        if tokio::time::timeout(self.silence().1, ended).await.is_err() {
            tracing::debug!("disk {id} does not answer");
        }
    }

    // A set is never half changed: a poisoned lock is good.
    fn looking(&self) -> MutexGuard<'_, BTreeSet<DiskId>> {
        self.looking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a disk may be silent before it is suspect, and before it is down.
    fn silence(&self) -> (Duration, Duration) {
        let limits = &self.config.limits;
        let millis = |millis: u32| Duration::from_millis(millis.into());
        (millis(limits.disk_suspect_ms), millis(limits.disk_down_ms))
    }

    /// A disk in use must still be what its path leads to, and its superblock must be there.
    async fn probe_used(&self, id: DiskId) {
        let Some(handle) = self.disks.get(id) else { return };
        let disk = Arc::clone(&handle.disk);
        let mut look = handle.queue.run_probe(move || {
            disk.identity()?;
            match superblock::read(&*disk)? {
                Some(_) => Ok((disk.space()?, store::has_directory(&*disk)?)),
                None => {
                    Err(Error::unavailable(format!("{}: its superblock is gone", disk.label())))
                }
            }
        });
        let (suspect, down) = self.silence();
        let quick = tokio::time::timeout(suspect.min(down), &mut look).await.ok();
        let slow = quick.is_none();
        let answer = match quick {
            Some(answer) => Ok(answer),
            None => {
                self.disks.note_suspect(id, true);
                tokio::time::timeout(down.saturating_sub(suspect), look).await
            }
        };
        match answer {
            Ok(Ok((space, shards))) => {
                if let Err(error) = self.note_healthy(id).await {
                    tracing::debug!("disk {id} is not yet called healthy: {error}");
                }
                self.disks.note_suspect(id, slow);
                self.disks.note_space(id, space);
                if !shards && !self.options.read_only {
                    self.reopen_store(&handle).await;
                }
            }
            Ok(Err(error)) => self.disks.fail(id, &error),
            Err(_elapsed) => {
                let context = format!("disk {id} did not answer for {down:?}");
                self.disks.fail(id, &Error::unavailable(context));
            }
        }
    }

    /// The shards of a disk in use were taken away: begins with what is left, which is to be repaired.
    async fn reopen_store(&self, handle: &DiskHandle) {
        let id = handle.id;
        if self.peers.is_remote(id) {
            // Its node notices by itself, and the disk comes back.
            return;
        }
        tracing::error!(disk = id.get(), "the shards of a disk are gone; they will be repaired");
        let before = self.peers.remove_store(id);
        let closed = handle.queue.run(move || {
            drop(before);
            Ok(())
        });
        let opened = match closed.await {
            Ok(()) => open_store(self.id, handle, &self.config.limits, false).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(store) => self.peers.add_store(id, store),
            Err(error) => return self.disks.fail(id, &error),
        }
        self.keepers.look_through(id);
    }

    /// A disk that is down comes back when its path leads to a directory that is this very disk.
    async fn probe_down(self: &Arc<Self>, id: DiskId) -> Result<()> {
        let before = self.peers.remove_store(id);
        let path = self.disk_path(id)?;
        let opener = Arc::clone(&self.world.opener);
        let (volume, holder) = (self.id, self.options.holder.clone());
        let (queue, epoch) = (self.limits_queue(id)?, self.log.epoch());
        let open = queue
            .run(move || {
                // What served it before still holds its lock. Closing its files may hang, as all that follows.
                drop(before);
                let open = opener(&path)?;
                let disk = &open.disk;
                let superblock = superblock::read(&**disk)?
                    .ok_or_else(|| Error::refused(format!("{} is empty", disk.label())))?;
                if superblock.volume != volume || superblock.disk != id {
                    return Err(Error::refused(format!(
                        "{} is disk {} of volume {}",
                        disk.label(),
                        superblock.disk,
                        superblock.name
                    )));
                }
                // Before the lease is taken, which the other mount may need, and again, as it may have come just now.
                check_newer(&**disk, epoch)?;
                disk.lock(&holder)?;
                check_newer(&**disk, epoch).inspect_err(|_newer| disk.release())?;
                Ok(open)
            })
            .await
            .inspect_err(|error| {
                if error.kind() == ErrorKind::Superseded {
                    self.disks.report(id, error);
                }
            })?;
        let handle = Arc::new(DiskHandle { id, disk: open.disk, queue });
        self.admit_disk(handle, open.remote).await
    }

    /// A queue for the jobs of disk `id`: threads of its own, or none for simulated disks.
    pub(super) fn limits_queue(&self, id: DiskId) -> Result<DiskQueue> {
        disk_queue(&self.config.limits, id, self.world.inline)
    }
}

/// A disk with a newer member list than the one that this mount has put in force was used by another mount meanwhile.
fn check_newer(disk: &dyn Disk, epoch: Epoch) -> Result<()> {
    let found = superblock::read(disk)?.map(|superblock| superblock.members.epoch);
    match found.filter(|found| *found > epoch) {
        None => Ok(()),
        Some(found) => {
            let label = disk.label();
            let context = format!("{label} is at epoch {found}, this mount at {epoch}");
            Err(Error::new(ErrorKind::Superseded, context))
        }
    }
}

/// The queue of one disk.
pub(super) fn disk_queue(
    limits: &crate::config::Limits,
    id: DiskId,
    inline: bool,
) -> Result<DiskQueue> {
    if inline {
        return Ok(DiskQueue::inline());
    }
    let threads = usize::try_from(limits.disk_threads).unwrap_or(1);
    let depth = usize::try_from(limits.disk_queue).unwrap_or(1);
    DiskQueue::threads(&format!("disk-{id}"), threads, depth)
}
