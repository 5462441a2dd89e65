//! The other nodes that a node asks: links that are made when they are needed, and go when they are not any more. Knows
//! nothing of what disks hold.

use super::Peers;
use super::gather::NodeAddress;
use super::quic::link::{Endpoints, Link};
use super::remote::QuicWay;
use super::tls::Identity;
use super::way::RemotePeers;
use crate::error::Result;
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::MountId;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

#[cfg(test)]
mod tests;

/// Links that are kept: more than a volume has nodes, mostly. Beyond it the one goes that was used longest ago.
const LINKS_MAX: usize = 64;
/// A link that was not used for so long goes.
const UNUSED: Duration = Duration::from_secs(60);
/// How often it is looked for such links.
const LOOK_PERIOD: Duration = Duration::from_secs(10);

/// The other nodes of the volume, as this one reaches them.
pub struct Neighbours {
    endpoints: Endpoints,
    /// Where connections live.
    runtime: Handle,
    state: Mutex<State>,
}

struct State {
    /// By which others know this node.
    identity: Arc<Identity>,
    links: BTreeMap<NodeAddress, Held>,
}

struct Held {
    peers: Arc<dyn Peers>,
    used: Instant,
}

impl fmt::Debug for Neighbours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Neighbours")
            .field("links", &self.state().links.keys())
            .finish_non_exhaustive()
    }
}

impl Neighbours {
    /// Connects to none yet. Must be called inside a runtime, on which connections are kept alive from now on.
    ///
    /// Error: a socket could not be opened.
    pub fn open(identity: Arc<Identity>) -> Result<Self> {
        let state = Mutex::new(State { identity, links: BTreeMap::new() });
        Ok(Self { endpoints: Endpoints::open()?, runtime: Handle::current(), state })
    }

    /// Goes by another identity from now on; links that go by the old one are used no more.
    pub fn set_identity(&self, identity: Arc<Identity>) {
        let mut state = self.state();
        state.identity = identity;
        state.links.clear();
    }

    /// The way to a node; connects when it is asked for something.
    ///
    /// Error: the identity is unfit.
    pub fn reach(&self, node: &NodeAddress) -> Result<Arc<dyn Peers>> {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(held) = state.links.get_mut(node) {
            held.used = now;
            return Ok(held.peers.clone());
        }
        // Nodes mount nothing: they hold no leases, and have no number.
        let (place, mount) = ((node.name.as_str(), node.address.as_str()), MountId::default());
        let link = Link::new(self.endpoints.clone(), place, &state.identity, mount)?;
        let way = QuicWay { link: Arc::new(link), runtime: self.runtime.clone() };
        let peers: Arc<dyn Peers> = Arc::new(RemotePeers::new(Arc::new(way)));
        if state.links.len() >= LINKS_MAX {
            let oldest = state.links.iter().min_by_key(|(_node, held)| held.used);
            if let Some(oldest) = oldest.map(|(node, _held)| node.clone()) {
                state.links.remove(&oldest);
            }
        }
        state.links.insert(node.clone(), Held { peers: peers.clone(), used: now });
        Ok(peers)
    }

    /// Lets go of what is not used, until `stop`.
    pub async fn keep(&self, stop: CancellationToken) {
        let mut interval = tokio::time::interval(LOOK_PERIOD);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                now = interval.tick() => self.forget_unused(now),
            }
        }
    }

    fn forget_unused(&self, now: Instant) {
        self.state().links.retain(|_node, held| now.duration_since(held.used) < UNUSED);
    }

    // Nothing that holds it leaves it half changed: a poisoned lock is good.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
