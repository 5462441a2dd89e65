//! What the file system and the keepers see of the metadata: propose changes, sync, read. Knows not whether the
//! log is local or Raft.

use crate::error::{Error, Result};
use crate::meta::changes::Changes;
use crate::meta::command::{Answer, Command, Inode};
use crate::meta::store::{Totals, View};
use crate::meta::{Log, Reply};
use crate::types::{Ino, LogPosition};
use std::fmt::Debug;
use std::sync::Arc;

/// Gives views of the state; the store may be exchanged for another copy under way.
pub trait Views: Send + Sync + Debug {
    /// The state as of the last applied command.
    fn view(&self) -> Result<View>;

    /// As `Store::inode`.
    fn inode(&self, ino: Ino) -> Result<(Option<Inode>, LogPosition)>;

    /// As `Store::lookup_inode`.
    fn lookup_inode(&self, parent: Ino, name: &[u8]) -> Result<(Option<Inode>, LogPosition)>;

    /// As `Store::totals`.
    fn totals(&self) -> Totals;

    /// Counts of what was changed.
    fn changes(&self) -> &Changes;
}

/// Handle to the metadata; cheap to clone.
#[derive(Clone, Debug)]
pub struct MetaClient {
    log: Arc<dyn Log>,
    views: Arc<dyn Views>,
}

impl MetaClient {
    /// A client of `log` that reads through `views`.
    pub fn new(log: Arc<dyn Log>, views: Arc<dyn Views>) -> Self {
        Self { log, views }
    }

    /// Proposes one command and answers when it is applied (not yet durable).
    pub async fn propose(&self, command: Command) -> Result<Answer> {
        let (mut replies, _position) = self.log.propose(vec![command]).await?;
        let reply = replies.pop().ok_or_else(|| Error::internal("the log gave no reply"))?;
        Ok(reply?)
    }

    /// As `propose`, with the position behind the command: it orders answers about one inode.
    pub async fn propose_at(&self, command: Command) -> Result<(Answer, LogPosition)> {
        let (mut replies, position) = self.log.propose(vec![command]).await?;
        let reply = replies.pop().ok_or_else(|| Error::internal("the log gave no reply"))?;
        Ok((reply?, position))
    }

    /// As `propose`, for commands that answer with an inode.
    pub async fn propose_inode(&self, command: Command) -> Result<Inode> {
        match self.propose(command).await? {
            Answer::Inode(inode) => Ok(*inode),
            Answer::Done
            | Answer::Removed(_)
            | Answer::Committed { .. }
            | Answer::Reaped { .. } => Err(Error::internal("the log gave another kind of answer")),
        }
    }

    /// Proposes several commands, applied one after the other with none between.
    pub async fn propose_all(&self, commands: Vec<Command>) -> Result<Vec<Reply>> {
        Ok(self.log.propose(commands).await?.0)
    }

    /// Answers when all that was proposed before is durable.
    pub async fn sync(&self) -> Result<()> {
        self.log.sync().await
    }

    /// As `Log::settle`.
    pub async fn settle(&self) -> Result<()> {
        self.log.settle().await
    }

    /// Everything before this position is applied.
    pub fn applied(&self) -> LogPosition {
        self.log.applied()
    }

    /// Everything before this position is durable.
    pub fn durable(&self) -> LogPosition {
        self.log.durable()
    }

    /// Counts of what was changed.
    pub fn changes(&self) -> &Changes {
        self.views.changes()
    }

    /// The state as of the last applied command.
    pub fn view(&self) -> Result<View> {
        self.views.view()
    }

    /// One inode, orphans included, and the position that it was true at. Where changes go on it is cheaper than a view.
    pub fn inode(&self, ino: Ino) -> Result<(Option<Inode>, LogPosition)> {
        self.views.inode(ino)
    }

    /// A name's inode, and the position that it was true at. Where changes go on it is cheaper than a view.
    pub fn lookup_inode(&self, parent: Ino, name: &[u8]) -> Result<(Option<Inode>, LogPosition)> {
        self.views.lookup_inode(parent, name)
    }

    /// Sums over the volume as of the last applied command.
    pub fn totals(&self) -> Totals {
        self.views.totals()
    }
}
