//! Deleting: the shards of dead stripes leave their disks, then the metadata forgets the stripes. Knows no file.
//!
//! Shards go only when the state in which the stripe is dead is durable (after a crash no extent can lead to it), a
//! grace period is over (readers that looked up their extents before have pinned it by then) and nobody reads it.

use super::{Shards, Step, Worker};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::client::MetaClient;
use crate::meta::command::Command;
use crate::net::{Operation, ShardKey};
use crate::stripe::layout::{NO_DISK, StripeRecord};
use crate::stripe::reader::StripeReader;
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::types::StripeId;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// Usual grace period: far above the time from a look at extents to the pin of their stripe.
pub const GRACE: Duration = Duration::from_secs(2);
/// Stripes of one step, and of one command.
const BATCH: usize = 256;
/// Stripes whose shards are removed at once: keeps the queues of the disks short for foreground work.
const CONCURRENCY: usize = 8;

/// Works through the delete queue.
#[derive(Debug)]
pub struct Delete {
    meta: MetaClient,
    reader: StripeReader,
    shards: Shards,
    grace: Duration,
    state: Mutex<State>,
}

/// Where a pass through the queue is.
#[derive(Debug, Default)]
struct State {
    after: Option<StripeId>,
    /// Whether the pass left a stripe behind.
    waiting: bool,
    /// Since when each stripe is known to be durably dead.
    seen: BTreeMap<StripeId, Instant>,
}

impl Delete {
    /// Deletes dead stripes that `reader` does not pin, `grace` after they were seen first.
    pub fn new(meta: MetaClient, reader: StripeReader, shards: Shards, grace: Duration) -> Self {
        Self { meta, reader, shards, grace, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn delete(&self) -> Result<Step> {
        let after = self.state().after;
        let (applied, dead) = {
            let view = self.meta.view()?;
            (view.applied()?, view.dead_stripes(after, BATCH)?)
        };
        let Some(last) = dead.last().map(|record| record.id) else {
            let mut state = self.state();
            state.after = None;
            let waiting = std::mem::take(&mut state.waiting);
            return Ok(if waiting { Step::Throttled(self.pause()) } else { Step::Idle });
        };
        if self.meta.durable() < applied {
            self.meta.sync().await?;
        }
        let count = dead.len();
        let ripe = self.ripe(dead);
        {
            let mut state = self.state();
            state.after = Some(last);
            state.waiting |= ripe.len() < count;
        }
        self.remove(ripe).await?;
        Ok(Step::Busy)
    }

    /// Pause between passes while stripes wait.
    fn pause(&self) -> Duration {
        self.grace.clamp(Duration::from_millis(10), super::IDLE_PAUSE)
    }

    fn ripe(&self, dead: Vec<StripeRecord>) -> Vec<StripeRecord> {
        let now = Instant::now();
        let mut state = self.state();
        let is_ripe = |record: &StripeRecord| {
            let since = *state.seen.entry(record.id).or_insert(now);
            now.duration_since(since) >= self.grace && !self.reader.pinned(record.id)
        };
        dead.into_iter().filter(is_ripe).collect()
    }

    /// Removes the shards of these stripes and forgets those that are gone.
    async fn remove(&self, stripes: Vec<StripeRecord>) -> Result<()> {
        let removals = stripes.into_iter().map(|record| async move {
            let result = self.remove_shards(&record).await;
            (record.id, result)
        });
        let results: Vec<_> =
            futures_util::stream::iter(removals).buffer_unordered(CONCURRENCY).collect().await;

        let (mut gone, mut failure) = (Vec::new(), None);
        for (id, result) in results {
            match result {
                Ok(()) => gone.push(id),
                Err(error) => failure = Some(error),
            }
        }
        if failure.is_some() {
            self.state().waiting = true;
        }
        if !gone.is_empty() {
            self.meta.propose(Command::ForgetStripes { stripes: gone.clone() }).await?;
            let mut state = self.state();
            state.seen.retain(|id, _since| !gone.contains(id));
        }
        failure.map_or(Ok(()), Err)
    }

    async fn remove_shards(&self, record: &StripeRecord) -> Result<()> {
        let removals = record.shards().zip(&record.disks).filter(|(_, disk)| **disk != NO_DISK);
        let removals = removals.map(|(index, disk)| async move {
            let key = ShardKey { stripe: record.id, index };
            let result = self.shards.call(*disk, Operation::Delete(key)).await;
            result.map_err(|error| {
                error.while_doing(format!("delete shard {}.{index} on disk {disk}", record.id))
            })
        });
        for result in join_all(removals).await {
            match result.as_ref().map_err(Error::kind) {
                // What stays on a disk that is away is collected as an orphan when it is back.
                Ok(_) | Err(ErrorKind::Unavailable) => {}
                Err(_) => drop(result?),
            }
        }
        Ok(())
    }
}

impl Worker for Delete {
    fn name(&self) -> &'static str {
        "delete"
    }

    fn step(&self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.delete())
    }
}
