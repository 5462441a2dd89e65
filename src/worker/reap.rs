//! Reaping: deleted and cut files give back their extents in bounded steps. Knows no shard.

use super::{Step, Worker};
use crate::error::{Error, Result};
use crate::limits::CHUNKS_PER_COMMAND_MAX;
use crate::meta::client::MetaClient;
use crate::meta::command::{Answer, Command};
use futures_util::future::BoxFuture;

#[cfg(test)]
mod tests;

/// Works through the reaping queue.
#[derive(Debug)]
pub struct Reap {
    meta: MetaClient,
}

impl Reap {
    /// Reaps in this volume.
    pub const fn new(meta: MetaClient) -> Self {
        Self { meta }
    }

    async fn reap(&self) -> Result<Step> {
        if !self.meta.view()?.reap_pending()? {
            return Ok(Step::Idle);
        }
        let chunks = u32::try_from(CHUNKS_PER_COMMAND_MAX).unwrap_or(u32::MAX);
        match self.meta.propose(Command::Reap { chunks }).await? {
            Answer::Reaped { more: true, .. } => Ok(Step::Busy),
            Answer::Reaped { more: false, .. } => Ok(Step::Idle),
            Answer::Done | Answer::Inode(_) | Answer::Removed(_) | Answer::Committed { .. } => {
                Err(Error::internal("reap: the log gave another kind of answer"))
            }
        }
    }
}

impl Worker for Reap {
    fn name(&self) -> &'static str {
        "reap"
    }

    fn step(&self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.reap())
    }
}
