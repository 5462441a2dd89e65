//! Metadata: one ordered log of commands, one deterministic state machine in redb. Knows nothing of FUSE and of
//! file data beyond where it lies.

pub mod changes;
pub mod check;
pub mod client;
pub mod command;
pub mod local;
pub mod log;
pub mod model;
pub mod recover;
pub mod store;
pub mod tables;
#[cfg(test)]
pub mod testing;

use crate::error::{Posix, Result};
use crate::meta::command::{Answer, Command};
use crate::types::LogPosition;
use futures_util::future::BoxFuture;
use std::fmt::Debug;

/// What `apply` says of one command: an answer, or the error that the manual page prescribes. A command that
/// answers an error has changed nothing.
pub type Reply = Result<Answer, Posix>;

/// The one ordered log. `meta::local` for an embedded volume, Raft for a cluster.
pub trait Log: Send + Sync + Debug {
    /// Orders and applies `commands`, one after the other without others between them, and answers with a
    /// reply each and the position behind the last. Not yet durable. Must not be cancelled half-way: it
    /// finishes once polled.
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<(Vec<Reply>, LogPosition)>>;

    /// Answers when all that was proposed before this call is durable on all current log disks.
    fn sync(&self) -> BoxFuture<'_, Result<()>>;

    /// Answers when all that was proposed before this call, by whoever waits for it or not, is applied or never will be.
    ///
    /// Errors: `Unavailable` if something of it waits for disks; `ReadOnly` if the log has stopped.
    fn settle(&self) -> BoxFuture<'_, Result<()>>;

    /// Everything before this position is durable.
    fn durable(&self) -> LogPosition;

    /// Everything before this position is applied.
    fn applied(&self) -> LogPosition;
}
