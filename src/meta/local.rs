//! The log of an embedded volume: orders, applies and makes durable in this process. Knows nothing of FUSE, stripes
//! or the network.

use crate::disk::superblock::{MemberList, MemberState};
use crate::error::{Error, Result};
use crate::meta::client::Views;
use crate::meta::command::Command;
use crate::meta::store::View;
use crate::meta::{Log, Reply};
use crate::types::{DiskId, Epoch, LogPosition};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

/// The ordered log of an embedded volume and the state that it is applied to.
#[derive(Debug)]
pub struct LocalLog {
    members: watch::Sender<MemberList>,
}

/// Figures for `status` and metrics.
#[derive(Clone, Debug, Default)]
pub struct LogStatus {
    /// Everything before is applied.
    pub applied: LogPosition,
    /// Everything before is durable.
    pub durable: LogPosition,
    /// The state is durable up to here.
    pub checkpointed: LogPosition,
    /// Disks that keep the log and a complete state.
    pub disks: Vec<DiskId>,
    /// Disks that should: 1 + tolerance, or all that are healthy.
    pub wanted: usize,
    /// Why nothing can be changed any more.
    pub read_only: Option<String>,
}

impl LocalLog {
    /// The member list in force.
    pub fn members(&self) -> MemberList {
        self.members.borrow().clone()
    }

    /// Tells each new epoch.
    pub fn epochs(&self) -> watch::Receiver<MemberList> {
        self.members.subscribe()
    }

    /// Epoch of the member list in force.
    pub fn epoch(&self) -> Epoch {
        self.members.borrow().epoch
    }

    /// Records the state of a disk in the member list. Durable on return.
    pub async fn set_disk_state(&self, disk: DiskId, state: MemberState) -> Result<()> {
        std::future::ready(()).await;
        Err(Error::internal(format!("set disk {disk} to {state:?}")))
    }

    /// Figures for people.
    pub fn status(&self) -> LogStatus {
        LogStatus::default()
    }

    /// Does what is due: flush, checkpoint, trim, member changes, copies of the state. Called every 100 ms by a
    /// task of the volume. Must not be cancelled half-way.
    pub async fn tick(&self) -> Result<()> {
        std::future::ready(()).await;
        Ok(())
    }

    /// Syncs, checkpoints and closes. Later calls answer `ReadOnly`.
    pub async fn shutdown(&self) -> Result<()> {
        self.sync().await
    }
}

impl Log for LocalLog {
    fn propose(&self, commands: Vec<Command>) -> BoxFuture<'_, Result<(Vec<Reply>, LogPosition)>> {
        Box::pin(async move { Err(Error::internal(format!("propose {}", commands.len()))) })
    }

    fn sync(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Err(Error::internal("sync")) })
    }

    fn durable(&self) -> LogPosition {
        LogPosition(0)
    }

    fn applied(&self) -> LogPosition {
        LogPosition(0)
    }
}

impl Views for LocalLog {
    fn view(&self) -> Result<View> {
        Err(Error::internal("view"))
    }
}
