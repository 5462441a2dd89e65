//! The nodes that a mount asks: a runtime of its own for their connections, a link for each, shard requests over it.
//! Knows nothing of what disks hold.

use super::disk::RemoteDisk;
use super::quic::link::{Endpoints, Link};
use super::tls::Identity;
use super::wire::{Answer, Order};
use super::{Peers, Request, Response};
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::types::{MountId, NodeId};
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::runtime::{Handle, Runtime};

/// Threads that keep the connections of a mount.
const THREADS: usize = 2;
/// How long a request may take: whoever waits has deadlines of their own, shorter ones.
const DEADLINE: Duration = Duration::from_secs(30);

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
        let disk = RemoteDisk::open(link.clone(), self.handle.clone(), path)?;
        Ok((disk, Arc::new(RemotePeers { link: link.clone() })))
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

/// One node as peer.
#[derive(Debug)]
struct RemotePeers {
    link: Arc<Link>,
}

impl Peers for RemotePeers {
    fn call(&self, _node: NodeId, request: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            let asked = tokio::time::timeout(DEADLINE, self.link.call(Order::Shard(request)));
            let name = self.link.name();
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
