//! Rounds of group commit, checkpoints, and what is due from time to time.

use super::order::{Shared, position};
use super::outage::Return;
use super::reopen::is_lost;
use super::state::write_clean;
use crate::error::{Error, Result};
use crate::meta::log::record::Batch;
use crate::meta::log::{Chain, SegmentLog};
use crate::sync::atomic::Ordering;
use crate::types::{DiskId, Epoch, LogPosition, VolumeId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::Instant;

/// What belongs to whoever makes things durable or changes the members.
#[derive(Debug)]
pub(crate) struct Side {
    pub(super) chain: Chain,
    pub(super) log: SegmentLog,
    /// Log disks that failed and are in the list still.
    pub(super) failed: BTreeSet<DiskId>,
    /// Disks that were given a list that is not in force.
    pub(super) offered: BTreeSet<DiskId>,
    pub(super) back: Return,
    /// Disk to which the state is being copied.
    pub(super) joining: Option<DiskId>,
    /// Disks that failed to keep the log, and when they may be tried again.
    pub(super) avoid: BTreeMap<DiskId, Instant>,
    pub(super) checkpoint_due: Option<Instant>,
    /// When the state is looked at again.
    pub(super) look_due: Option<Instant>,
    /// Position up to which commands were searched for changes of classes.
    pub(super) tolerance_at: Option<LogPosition>,
}

impl Side {
    pub(super) fn new(volume: VolumeId, base: Epoch) -> Self {
        Self {
            chain: Chain { volume, base },
            log: SegmentLog::new(Vec::new()),
            failed: BTreeSet::new(),
            offered: BTreeSet::new(),
            back: Return::default(),
            joining: None,
            avoid: BTreeMap::new(),
            checkpoint_due: None,
            look_due: None,
            tolerance_at: None,
        }
    }
}

impl Shared {
    /// Makes everything before `target` durable. Waits for disks if it has to, though not for ever.
    pub(super) async fn sync_to(&self, target: LogPosition) -> Result<()> {
        let deadline = self.patience();
        loop {
            let answer = {
                let mut side = self.side.lock().await;
                if position(&self.durable) >= target {
                    return Ok(());
                }
                self.round(&mut side).await
            };
            if answer.is_ok() || !self.is_paused() {
                return answer;
            }
            self.until_running(deadline).await?;
        }
    }

    /// Appends what was applied since the last round on all log disks. Durable on return, under a member list that
    /// names only disks where it is.
    async fn round(&self, side: &mut Side) -> Result<()> {
        self.check_running()?;
        self.drop_lost(side).await?;
        let first = position(&self.durable);
        let commands = {
            let mut order = self.order();
            order.pending_bytes = 0;
            order.pending_since = None;
            order.from(first)
        };
        if commands.is_empty() {
            return Ok(());
        }
        let epoch = self.members.borrow().epoch;
        let batch = Arc::new(Batch::seal(side.chain, epoch, first, &commands));
        let end = batch.end();
        for (disk, error) in side.log.append(batch).await {
            self.lose(side, disk, &error);
        }
        if !side.failed.is_empty() {
            self.replace_failed(side).await?;
        }
        self.durable.store(end.get(), Ordering::SeqCst);
        Ok(())
    }

    /// Does what is due.
    pub(super) async fn tick(&self) -> Result<()> {
        let mut side = self.side.lock().await;
        self.check_running()?;
        self.drop_lost(&mut side).await?;
        let now = Instant::now();
        let (pending_since, recent_bytes) = {
            let order = self.order();
            (order.pending_since, order.recent_bytes)
        };
        if pending_since.is_some_and(|since| now.duration_since(since) >= self.options.flush_every)
        {
            self.round(&mut side).await?;
        }
        self.look_at_state(&mut side).await?;
        let due = *side.checkpoint_due.get_or_insert(now + self.options.checkpoint_every);
        let in_memory = self.state().overlay.is_some();
        if now >= due || (recent_bytes >= self.options.checkpoint_bytes && !in_memory) {
            self.checkpoint(&mut side).await?;
        }
        self.follow_classes(&mut side).await?;
        self.heal(&mut side).await
    }

    /// A checkpoint at once.
    pub(super) async fn checkpoint_now(&self) -> Result<()> {
        let mut side = self.side.lock().await;
        self.checkpoint(&mut side).await
    }

    /// Makes the state durable, after the log, and frees the log before it.
    async fn checkpoint(&self, side: &mut Side) -> Result<()> {
        side.checkpoint_due = Some(Instant::now() + self.options.checkpoint_every);
        let in_memory = self.state().overlay.is_some();
        if position(&self.applied) == position(&self.checkpointed) && !in_memory {
            return Ok(());
        }
        let answer = {
            // Nothing is applied between the sync and the commit: the state never gets ahead of the log.
            let _gate = self.gate.lock().await;
            self.round(side).await?;
            if !self.leave_memory()? {
                return Ok(());
            }
            let store = self.store();
            let answer = self.queue.run(move || store.checkpoint()).await;
            match answer {
                Ok(position) => position,
                Err(error) if self.recover_state(&error, false)? => return Ok(()),
                Err(error) => {
                    self.stop(&format!("make the state durable: {error}"));
                    return Err(error);
                }
            }
        };
        if answer != position(&self.durable) {
            let reason = format!("the state is durable at {answer}, expected the end of the log");
            self.stop(&reason);
            return Err(Error::internal(reason));
        }
        self.checkpointed.store(answer.get(), Ordering::SeqCst);
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.set_previous(None);
        // A copy that missed this checkpoint must not count any more before the log that it needs is freed.
        self.drop_lost(side).await?;
        if self.state().mirror.as_ref().is_some_and(is_lost) {
            // Which of the copies have it shows when they are opened anew.
            return Ok(());
        }
        self.order().forget(answer);
        for (disk, error) in side.log.trim(answer).await {
            self.lose(side, disk, &error);
        }
        if side.failed.is_empty() { Ok(()) } else { self.replace_failed(side).await }
    }

    /// Syncs, checkpoints, notes that the volume was closed, and closes.
    pub(super) async fn shutdown(&self) -> Result<()> {
        let mut side = self.side.lock().await;
        self.checkpoint(&mut side).await?;
        let gate = self.gate.lock().await;
        self.round(&mut side).await?;
        let end = position(&self.durable);
        if end == position(&self.checkpointed) {
            let epoch = self.members.borrow().epoch;
            for disk in side.log.disks() {
                let Some(handle) = self.disks.get(disk) else { continue };
                let target = handle.disk.clone();
                let noted = handle.queue.run(move || write_clean(&*target, epoch, end)).await;
                if let Err(error) = noted {
                    // The next mount recovers, which does no harm.
                    tracing::warn!(disk = disk.get(), %error, "cannot note that the volume was closed");
                }
            }
        }
        self.close();
        drop(gate);
        Ok(())
    }
}
