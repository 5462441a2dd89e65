//! The nodes that a mount asks: a runtime of its own for their connections, and a link for each, learnt at the mount or
//! later. Knows nothing of what disks hold.

use super::Peers;
use super::disk::RemoteDisk;
use super::quic::link::{Endpoints, Link};
use super::tls::Identity;
use super::way::{RemotePeers, Way};
use super::wire::{Answer, Order, Served};
use crate::error::{Error, Result};
use crate::sync::mpsc::sync_channel;
use crate::sync::{Arc, PoisonError, RwLock};
use crate::types::MountId;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};

#[cfg(test)]
mod tests;

/// Threads that keep the connections of a mount.
const THREADS: usize = 2;
/// How long the end of a file may take to be heard of.
const TELLING: Duration = Duration::from_secs(30);
/// How long a node may take to say what it serves: a handshake, and somewhat.
const LOOK: Duration = Duration::from_secs(5);

/// The nodes of a volume, as one process reaches them.
pub struct Nodes {
    identity: Identity,
    mount: MountId,
    endpoints: Endpoints,
    links: RwLock<BTreeMap<String, Arc<Link>>>,
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
        identity: Identity,
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
        let endpoints = {
            let _inside = handle.enter();
            Endpoints::open()?
        };
        let (links, runtime) = (RwLock::new(BTreeMap::new()), Some(runtime));
        let nodes = Self { identity, mount, endpoints, links, handle, runtime };
        addresses.iter().try_for_each(|(name, address)| nodes.learn(name, address))?;
        Ok(nodes)
    }

    /// From now on `node` is at `address` (`host:port`). Disks of it that are open keep the way that they have for as long
    /// as it leads anywhere, and are found at the new address when they are opened again.
    ///
    /// Error: `Refused` if the identity is unfit.
    pub fn learn(&self, node: &str, address: &str) -> Result<()> {
        if self.link(node).is_some_and(|link| link.address() == address) {
            return Ok(());
        }
        let link = Arc::new(self.new_link(node, address)?);
        // A map is never half changed: a poisoned lock is good, here and below.
        let mut links = self.links.write().unwrap_or_else(PoisonError::into_inner);
        links.insert(node.to_owned(), link);
        Ok(())
    }

    /// Where the nodes are that are known: `host:port`, by name.
    pub fn addresses(&self) -> BTreeMap<String, String> {
        let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
        links.iter().map(|(name, link)| (name.clone(), link.address().to_owned())).collect()
    }

    /// Where `node` is, if it is known.
    pub fn address(&self, node: &str) -> Option<String> {
        self.link(node).map(|link| link.address().to_owned())
    }

    /// What a node serves that is known. One that has just failed to answer is not asked again for a moment. May be
    /// cancelled.
    ///
    /// Errors: `Refused` if there is no such node, or another one answers; `Unavailable` if nobody does.
    pub async fn look(&self, node: &str) -> Result<Served> {
        let unknown = || Error::refused(format!("nobody has said where node {node} is"));
        let link = self.link(node).ok_or_else(unknown)?;
        served_by(&link).await
    }

    /// What `node` serves at `address`; it is not known for that. May be cancelled.
    ///
    /// Errors: `Refused` if whoever answers there has no certificate as this node; `Unavailable` if nobody does.
    pub async fn look_at(&self, node: &str, address: &str) -> Result<Served> {
        served_by(&self.new_link(node, address)?).await
    }

    /// The directory `path` of `node`, and where requests for its shards go. Blocks.
    ///
    /// Errors: `Refused` if there is no such node, or it does not serve this; `Unavailable` if it does not answer.
    pub fn open(&self, node: &str, path: &str) -> Result<(RemoteDisk, Arc<dyn Peers>)> {
        let link = self.link(node).ok_or_else(|| {
            Error::refused(format!(
                "{node}:{path}: nobody has said where node {node} is: `ironfs node add VOLUME {node}=HOST:PORT` does, and \
                 [peer.{node}] with its address in the configuration"
            ))
        })?;
        let way = Arc::new(QuicWay { link, runtime: self.handle.clone() });
        Ok((RemoteDisk::open(way.clone(), path)?, Arc::new(RemotePeers::new(way))))
    }

    fn link(&self, node: &str) -> Option<Arc<Link>> {
        self.links.read().unwrap_or_else(PoisonError::into_inner).get(node).cloned()
    }

    fn new_link(&self, node: &str, address: &str) -> Result<Link> {
        Link::new(self.endpoints.clone(), (node, address), &self.identity, self.mount)
    }
}

async fn served_by(link: &Link) -> Result<Served> {
    let node = link.name();
    let late = |_late| Err(Error::unavailable(format!("node {node}: no answer for {LOOK:?}")));
    match tokio::time::timeout(LOOK, link.call(Order::Disks)).await.unwrap_or_else(late)? {
        Answer::Disks(served) => Ok(served),
        Answer::Shard(_) | Answer::Disk(_) | Answer::Error(_) => {
            Err(Error::corrupt(format!("node {node}: an answer to another question")))
        }
    }
}

/// Whether an address (`host:port`) is of this machine alone.
fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _port)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
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

    fn is_here(&self) -> bool {
        is_loopback(self.link.address())
    }

    fn call(&self, order: Order) -> BoxFuture<'_, Result<Answer>> {
        Box::pin(self.link.call(order))
    }

    fn call_in_order<'a>(
        &'a self,
        orders: BoxStream<'a, Order>,
        silence: Duration,
    ) -> BoxFuture<'a, Result<Answer>> {
        Box::pin(self.link.call_in_order(orders, silence))
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
