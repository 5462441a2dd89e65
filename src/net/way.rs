//! The way to one node, whatever carries it: requests of mounts go over it, for shards and for the other files of a disk.
//! Knows no socket.

use super::wire::{Answer, Order};
use super::{Peers, Request, Response};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::types::{DiskId, NodeId};
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use std::fmt;
use std::time::Duration;

/// How long a request may take: whoever waits has deadlines of their own, shorter ones.
const DEADLINE: Duration = Duration::from_secs(30);

/// The way to one node. Nothing is asked twice: a request that is cut off fails, and whoever asked decides.
pub trait Way: Send + Sync + fmt::Debug {
    /// Name of the node.
    fn node(&self) -> &str;

    /// Whether the node runs on this machine.
    fn is_here(&self) -> bool;

    /// Sends a request and waits for the answer; the caller sets the limit of time. May be cancelled.
    ///
    /// Errors: what the node answers; `Unavailable` if it does not.
    fn call(&self, order: Order) -> BoxFuture<'_, Result<Answer>>;

    /// Sends requests that are carried out in order, up to the first that fails, and answers what the last one is answered.
    /// A way on which messages take time sends some of them ahead. May be cancelled.
    ///
    /// Errors: those of `call`; `Unavailable` if a request is not answered within `silence` of its turn.
    fn call_in_order<'a>(
        &'a self,
        mut orders: BoxStream<'a, Order>,
        silence: Duration,
    ) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(async move {
            let mut last = None;
            while let Some(order) = orders.next().await {
                let late = |_late| Error::unavailable(format!("no answer for {silence:?}"));
                let asked = tokio::time::timeout(silence, self.call(order));
                last = Some(asked.await.map_err(late)??);
            }
            last.ok_or_else(|| Error::internal("nothing was asked"))
        })
    }

    /// As `call`, for a thread, which it blocks for `deadline` at most.
    fn ask(&self, order: Order, deadline: Duration) -> Result<Answer>;

    /// Sends a request whose answer does not matter.
    fn tell(&self, order: Order);
}

/// One node as peer.
#[derive(Debug)]
pub struct RemotePeers {
    way: Arc<dyn Way>,
}

impl RemotePeers {
    /// The node at the end of `way`.
    pub fn new(way: Arc<dyn Way>) -> Self {
        Self { way }
    }
}

impl RemotePeers {
    fn response(&self, answer: Answer) -> Result<Response> {
        match answer {
            Answer::Shard(response) => Ok(response),
            Answer::Disk(_) | Answer::Disks(_) | Answer::Error(_) => Err(Error::corrupt(format!(
                "node {}: an answer to another question",
                self.way.node()
            ))),
        }
    }
}

impl Peers for RemotePeers {
    fn call(&self, _node: NodeId, request: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            let asked = tokio::time::timeout(DEADLINE, self.way.call(Order::Shard(request)));
            let name = self.way.node();
            let late =
                |_late| Error::unavailable(format!("node {name}: no answer for {DEADLINE:?}"));
            self.response(asked.await.map_err(late)??)
        })
    }

    fn call_in_order<'a>(
        &'a self,
        (_node, _disk): (NodeId, DiskId),
        requests: BoxStream<'a, Request>,
        silence: Duration,
    ) -> BoxFuture<'a, Result<Response>> {
        Box::pin(async move {
            let orders = requests.map(Order::Shard).boxed();
            self.response(self.way.call_in_order(orders, silence).await?)
        })
    }
}
