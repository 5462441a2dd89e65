//! What the log does while more disks are away than it can do without: nothing is lost and nothing is acknowledged, changes
//! wait for a while, and all goes on when enough disks are back. Knows nothing of why they are away.
//!
//! What was applied is in memory until a durable state holds it. So it is enough to open the files anew where everything
//! acknowledged is, and to append again what was not.

use super::members::in_time;
use super::order::{Shared, position};
use super::rounds::Side;
use crate::disk::set::DiskHandle;
use crate::disk::superblock;
use crate::error::{Error, Result};
use crate::meta::log::record::Batch;
use crate::meta::log::{Chain, LogDisk, LogWriter, forget};
use crate::types::{DiskId, Epoch};
use futures_util::future::join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long those that are back wait for the other disks with the log: none has to be made anew that comes in time.
const GRACE: Duration = Duration::from_secs(3);
/// Pause between two tries to go on.
const RETRY: Duration = Duration::from_millis(500);

/// How far the end of an outage is. Empty while there is none.
#[derive(Debug, Default)]
pub(super) struct Return {
    /// Since when enough disks are back.
    enough_since: Option<Instant>,
    /// Not before this moment again.
    retry_at: Option<Instant>,
}

impl Shared {
    /// From now on changes wait, because of `reason`. Answers the error for whoever cannot.
    pub(super) fn pause(&self, reason: &str) -> Error {
        if let Err(stopped) = self.check_running() {
            return stopped;
        }
        let new = self.waits.send_if_modified(|waits| {
            let new = waits.is_none();
            waits.get_or_insert_with(|| reason.to_owned());
            new
        });
        if new {
            tracing::error!(
                reason,
                "the volume waits for disks: changes wait with it, and go on when enough are back"
            );
        }
        waiting(reason)
    }

    /// Why changes wait.
    pub(super) fn paused(&self) -> Option<String> {
        self.waits.borrow().clone()
    }

    /// Error: changes wait.
    pub(super) fn check_not_paused(&self) -> Result<()> {
        self.paused().map_or(Ok(()), |reason| Err(waiting(&reason)))
    }

    pub(super) fn is_paused(&self) -> bool {
        self.waits.borrow().is_some()
    }

    /// Until when a change or a sync that begins now waits for disks. Then it fails, as data does that cannot be written
    /// out.
    pub(super) fn patience(&self) -> Instant {
        Instant::now() + self.options.patience
    }

    /// Returns when no outage is known, or at `deadline` with the error for whoever waited.
    pub(super) async fn until_running(&self, deadline: Instant) -> Result<()> {
        let mut waits = self.waits.subscribe();
        let running = waits.wait_for(Option::is_none);
        match tokio::time::timeout_at(deadline, running).await {
            // The sender lives as long as this.
            Ok(_running) => self.check_running(),
            Err(_late) => Err(waiting(&self.paused().unwrap_or_default())),
        }
    }

    /// Whether `list` can be put in force: some disk has the log, and enough take the list. If not, why.
    pub(super) fn too_few(&self, side: &Side, took: usize, needed: usize) -> Option<String> {
        if side.log.disks().is_empty() {
            let log = self.members.borrow().log.clone();
            let is_full = |disk| self.disks.get(disk).is_some() && self.disks.is_full(disk);
            let reason = match log.iter().any(|member| is_full(member.disk)) {
                true => {
                    "the disks with the metadata log have no room for more of it: make some there"
                }
                false => "all disks with the metadata log are away",
            };
            return Some(reason.to_owned());
        }
        (took < needed).then(|| {
            format!("{took} of its disks answer, and {needed} must, so that nobody else mounts it")
        })
    }

    /// Ends an outage if enough disks are back: opens log and state anew where everything acknowledged is.
    ///
    /// Error: it goes on.
    pub(super) async fn resume(&self, side: &mut Side) -> Result<()> {
        let reason = self.paused().unwrap_or_default();
        let now = Instant::now();
        if side.back.retry_at.is_some_and(|at| now < at) {
            return Err(waiting(&reason));
        }
        let list = self.members.borrow().clone();
        let (usable, needed) = (self.usable(&list).len(), self.majority(&list));
        let log = list.log.iter().map(|member| self.disks.get(member.disk));
        let back: Vec<Arc<DiskHandle>> = log.flatten().collect();
        if back.is_empty() || usable < needed {
            side.back.enough_since = None;
            return Err(waiting(&reason));
        }
        let enough_since = *side.back.enough_since.get_or_insert(now);
        if back.len() < list.log.len() && now - enough_since < GRACE {
            return Err(waiting(&reason));
        }
        side.back.retry_at = Some(now + RETRY);
        self.reopen_log(side, &back, list.epoch).await;
        if let Err(error) = self.check_state(side).await {
            self.check_running()?;
            tracing::warn!(%error, "the volume still waits for disks");
            return Err(waiting(&reason));
        }
        if side.log.disks().is_empty() {
            return Err(waiting(&reason));
        }
        side.back = Return::default();
        self.waits.send_replace(None);
        tracing::info!(log = ?side.log.disks(), "enough disks are back: the volume goes on");
        Ok(())
    }

    /// Opens the log anew on those of `back` where it was not used since.
    async fn reopen_log(&self, side: &mut Side, back: &[Arc<DiskHandle>], epoch: Epoch) {
        for handle in back {
            if side.log.get(handle.id).is_some_and(|member| !member.is_on(handle)) {
                side.log.remove(handle.id).into_iter().for_each(forget);
            }
        }
        let members = side.log.disks();
        let away = back.iter().filter(|handle| !members.contains(&handle.id));
        let again: Vec<_> =
            away.map(|handle| self.reopen_log_on(side.chain, handle.clone(), epoch)).collect();
        for (disk, again) in join_all(again).await {
            match again {
                Ok(again) => {
                    side.failed.remove(&disk);
                    side.avoid.remove(&disk);
                    side.log.add(again);
                }
                Err(error) => {
                    tracing::warn!(disk = disk.get(), %error, "cannot go on with the log there");
                    side.failed.insert(disk);
                }
            }
        }
    }

    async fn reopen_log_on(
        &self,
        chain: Chain,
        handle: Arc<DiskHandle>,
        epoch: Epoch,
    ) -> (DiskId, Result<LogDisk>) {
        let needed = self.order().first..position(&self.durable);
        // It shows that the disk takes writes, and says where the log goes on.
        let mark = Batch::seal(chain, epoch, needed.end, &[]);
        let (id, disk, size) = (handle.id, handle.disk.clone(), self.options.segment_bytes);
        let reopen = move || {
            let found = superblock::read(&*disk)?.map(|superblock| superblock.members.epoch);
            if found < Some(epoch) {
                let context = format!("{} has forgotten epoch {epoch}", disk.label());
                return Err(Error::corrupt(context));
            }
            let mut writer = LogWriter::resume(disk, chain, size, needed)?;
            writer.append(&mark)?;
            Ok(writer)
        };
        let again = in_time(handle.queue.run(reopen)).await;
        (id, again.map(|writer| LogDisk::new(handle, writer)))
    }

    /// Opens the state anew if no copy is good any more. The disks whose copies are not have left the log then.
    async fn check_state(&self, side: &mut Side) -> Result<()> {
        {
            // Nothing is applied meanwhile.
            let _gate = self.gate.lock().await;
            if let Some(mirror) = self.state().mirror {
                // A node that began anew has forgotten that they were open, though its disks are in order.
                self.queue
                    .run(move || {
                        mirror.look_at_files();
                        Ok(())
                    })
                    .await?;
            }
            self.recover_state(&Error::unavailable("all disks were away"), true)?;
        }
        let alive: Vec<DiskId> = match self.state().mirror {
            Some(mirror) => {
                let replicas = mirror.replicas().into_iter();
                replicas.filter(|(_disk, alive)| *alive).map(|(disk, _alive)| disk).collect()
            }
            None => return Ok(()),
        };
        for disk in side.log.disks().into_iter().filter(|disk| !alive.contains(disk)) {
            side.log.remove(disk).into_iter().for_each(forget);
            side.failed.insert(disk);
        }
        Ok(())
    }
}

/// What is answered while the log waits.
fn waiting(reason: &str) -> Error {
    Error::unavailable(format!("the volume waits for disks: {reason}"))
}
