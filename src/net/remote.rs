//! The nodes that a mount asks: a runtime of its own for their connections, and a link for each. Knows nothing of what
//! disks hold.

use super::Peers;
use super::disk::RemoteDisk;
use super::quic::link::{Endpoints, Link};
use super::tls::Identity;
use super::way::{RemotePeers, Way};
use super::wire::{Answer, Order};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::sync::mpsc::sync_channel;
use crate::types::MountId;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};

/// Threads that keep the connections of a mount.
const THREADS: usize = 2;
/// How long the end of a file may take to be heard of.
const TELLING: Duration = Duration::from_secs(30);

/// The nodes of a volume, as one process reaches them.
pub struct Nodes {
    links: BTreeMap<String, Arc<Link>>,
    handle: Handle,
    /// Taken when it is dropped.
    runtime: Option<Runtime>,
}

impl fmt::Debug for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Nodes").field("links", &self.links).finish_non_exhaustive()
    }
}

impl Nodes {
    /// The nodes at these addresses (`host:port`, by name), for `mount`. Connects to none yet.
    ///
    /// Errors: `Refused` if the identity is unfit.
    pub fn start(
        identity: &Identity,
        mount: MountId,
        addresses: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("ironfs-net")
            .enable_all()
            .build()
            .map_err(|error| Error::from_io("start the network", error))?;
        let handle = runtime.handle().clone();
        let links = {
            let _inside = handle.enter();
            let endpoints = Endpoints::open()?;
            let link = |(name, address): (&String, &String)| {
                let link = Link::new(endpoints.clone(), (name, address), identity, mount)?;
                Ok((name.clone(), Arc::new(link)))
            };
            addresses.iter().map(link).collect::<Result<_>>()?
        };
        Ok(Self { links, handle, runtime: Some(runtime) })
    }

    /// The directory `path` of `node`, and where requests for its shards go. Blocks.
    ///
    /// Errors: `Refused` if there is no such node, or it does not serve this; `Unavailable` if it does not answer.
    pub fn open(&self, node: &str, path: &str) -> Result<(RemoteDisk, Arc<dyn Peers>)> {
        let link = self.links.get(node).ok_or_else(|| {
            Error::refused(format!(
                "{node}:{path}: the configuration does not say where node {node} is: add [peer.{node}] with its address"
            ))
        })?;
        let way = Arc::new(QuicWay { link: link.clone(), runtime: self.handle.clone() });
        Ok((RemoteDisk::open(way.clone(), path)?, Arc::new(RemotePeers::new(way))))
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // It may be dropped on a thread that must not wait.
            runtime.shutdown_background();
        }
    }
}

/// The way to a node over QUIC.
#[derive(Debug)]
pub(super) struct QuicWay {
    pub(super) link: Arc<Link>,
    /// Where connections live.
    pub(super) runtime: Handle,
}

impl Way for QuicWay {
    fn node(&self) -> &str {
        self.link.name()
    }

    fn call(&self, order: Order) -> BoxFuture<'_, Result<Answer>> {
        Box::pin(self.link.call(order))
    }

    fn ask(&self, order: Order, deadline: Duration) -> Result<Answer> {
        let (answer, answered) = sync_channel(1);
        let link = self.link.clone();
        self.runtime.spawn(async move {
            let asked = tokio::time::timeout(deadline, link.call(order)).await;
            // Nobody listens if the thread has gone.
            drop(answer.send(asked));
        });
        let node = self.node();
        let gone = |_gone| Error::unavailable(format!("node {node}: the network has stopped"));
        let late =
            |_late| Err(Error::unavailable(format!("node {node}: no answer for {deadline:?}")));
        answered.recv().map_err(gone)?.unwrap_or_else(late)
    }

    fn tell(&self, order: Order) {
        let link = self.link.clone();
        self.runtime.spawn(async move {
            drop(tokio::time::timeout(TELLING, link.call(order)).await);
        });
    }
}
