//! Puts one shard on one disk: begin, append, seal, each within a time limit. Knows nothing of its content.

use crate::error::{Error, Result};
use crate::net::{Operation, Peers, Priority, Request, Response, Seal, ShardHeader, ShardKey};
use crate::types::{DiskId, Epoch, NodeId};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use std::sync::Arc;
use std::time::Duration;

/// How long a disk may take to forget a shard before it is left to orphan collection.
const CLEAN_TIMEOUT: Duration = Duration::from_secs(1);

/// A disk as requests name it.
#[derive(Clone, Debug)]
pub(super) struct Channel {
    /// The way there.
    pub(super) peers: Arc<dyn Peers>,
    /// Node that serves the disk.
    pub(super) node: NodeId,
    /// The disk.
    pub(super) disk: DiskId,
    /// Member list to go by.
    pub(super) epoch: Epoch,
    /// Priority of all requests.
    pub(super) priority: Priority,
    /// Longest silence.
    pub(super) timeout: Duration,
}

impl Channel {
    /// One operation. Error: `Unavailable` after the time limit, else what the peer says.
    pub(super) async fn call(&self, operation: Operation) -> Result<Response> {
        let (disk, request) = (self.disk, self.request(operation));
        match tokio::time::timeout(self.timeout, self.peers.call(self.node, request)).await {
            Ok(result) => result,
            Err(_elapsed) => Err(Error::unavailable(format!(
                "disk {disk} has not answered for {} s",
                self.timeout.as_secs()
            ))),
        }
    }

    /// An answer that does not fit its request.
    pub(super) fn confused(&self) -> Error {
        Error::internal(format!("disk {} answered something else than was asked", self.disk))
    }

    /// Writes a shard out of `cells`, in the order of their rows, and answers its root.
    pub(super) async fn put(
        &self,
        header: ShardHeader,
        cells: BoxStream<'_, Vec<Bytes>>,
        seal: Seal,
    ) -> Result<[u8; 32]> {
        let key = header.key;
        let begin = stream::iter([Operation::Begin(header)]);
        let append = cells.map(|cells| Operation::Append(key, cells));
        let operations = begin.chain(append).chain(stream::iter([Operation::Seal(key, seal)]));
        let requests = operations.map(|operation| self.request(operation)).boxed();
        let at = (self.node, self.disk);
        self.sealed(self.peers.call_in_order(at, requests, self.timeout).await?)
    }

    /// Starts a shard whose cells come one by one.
    pub(super) async fn begin(&self, header: ShardHeader) -> Result<()> {
        self.call(Operation::Begin(header)).await.map(drop)
    }

    /// Appends cells. Requests do not say which rows they are for, so each waits for the one before.
    pub(super) async fn append(&self, key: ShardKey, cells: Vec<Bytes>) -> Result<()> {
        self.call(Operation::Append(key, cells)).await.map(drop)
    }

    /// Ends a shard and answers its root.
    pub(super) async fn seal(&self, key: ShardKey, seal: Seal) -> Result<[u8; 32]> {
        self.sealed(self.call(Operation::Seal(key, seal)).await?)
    }

    fn sealed(&self, response: Response) -> Result<[u8; 32]> {
        match response {
            Response::Sealed { root } => Ok(root),
            _other => Err(self.confused()),
        }
    }

    fn request(&self, operation: Operation) -> Request {
        let (disk, epoch, priority) = (self.disk, self.epoch, self.priority);
        Request { disk, epoch, priority, operation }
    }

    /// Takes back a shard in whatever state it is. What fails here stays as an orphan.
    pub(super) async fn discard(&self, key: ShardKey) {
        self.clean([Operation::Abort(key), Operation::Delete(key)]).await;
    }

    /// Takes back a shard that may have been begun. If it was not, what is there under its name stays.
    pub(super) async fn abort(&self, key: ShardKey) {
        self.clean([Operation::Abort(key)]).await;
    }

    async fn clean(&self, operations: impl IntoIterator<Item = Operation>) {
        let quick = Self { timeout: CLEAN_TIMEOUT, ..self.clone() };
        for operation in operations {
            if let Err(error) = quick.call(operation).await {
                tracing::debug!(disk = self.disk.get(), %error, "a shard that nobody names is left");
                return;
            }
        }
    }
}
