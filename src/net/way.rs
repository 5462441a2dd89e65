//! The way to one node, whatever carries it: requests of mounts go over it, for shards and for the other files of a disk.
//! Knows no socket.

use super::wire::{Answer, Order};
use super::{Peers, Request, Response};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::types::NodeId;
use futures_util::future::BoxFuture;
use std::fmt;
use std::time::Duration;

/// How long a request may take: whoever waits has deadlines of their own, shorter ones.
const DEADLINE: Duration = Duration::from_secs(30);

/// The way to one node. Nothing is asked twice: a request that is cut off fails, and whoever asked decides.
pub trait Way: Send + Sync + fmt::Debug {
    /// Name of the node.
    fn node(&self) -> &str;

    /// Sends a request and waits for the answer; the caller sets the limit of time. May be cancelled.
    ///
    /// Errors: what the node answers; `Unavailable` if it does not.
    fn call(&self, order: Order) -> BoxFuture<'_, Result<Answer>>;

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

impl Peers for RemotePeers {
    fn call(&self, _node: NodeId, request: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            let asked = tokio::time::timeout(DEADLINE, self.way.call(Order::Shard(request)));
            let name = self.way.node();
            match asked.await {
                Ok(Ok(Answer::Shard(response))) => Ok(response),
                Ok(Ok(Answer::Disk(_) | Answer::Disks(_) | Answer::Error(_))) => {
                    Err(Error::corrupt(format!("node {name}: an answer to another question")))
                }
                Ok(Err(error)) => Err(error),
                Err(_late) => {
                    Err(Error::unavailable(format!("node {name}: no answer for {DEADLINE:?}")))
                }
            }
        })
    }
}
