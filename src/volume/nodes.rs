//! The nodes of a volume: where each is, as the member list keeps it, and who answers there. Knows no connection.

use super::Volume;
use super::status::{AddedNode, NodeStatus};
use crate::config::{Peer, Place, validate_address, validate_holder};
use crate::error::{Error, ErrorKind, Result};
use crate::net::remote::Nodes;
use crate::net::wire::Served;
use futures_util::future::join_all;
use std::path::Path;

impl Volume {
    /// Has the volume know that `node` is at `address` (`host:port`, or `host`), where it has to answer. Directories of it
    /// can be taken in from now on, and are found at each mount. Durable on return.
    ///
    /// Errors: `Refused` with a sentence, also if somebody else answers there; `Unavailable` if nobody does. Nothing is
    /// changed then. While the volume waits for disks it is `Unavailable` too, and the node is looked for at `address` all the
    /// same, until the volume is unmounted.
    pub async fn add_node(&self, node: &str, address: &str) -> Result<AddedNode> {
        if self.fs.read_only() {
            return Err(Error::refused("the mount is read-only: no node can be added"));
        }
        validate_holder(node)?;
        let address = Peer { address: address.to_owned() }.host_and_port();
        validate_address(&address)?;
        let nodes = self.reached_nodes()?;
        let served = nodes.look_at(node, &address).await.map_err(|error| advise(node, &error))?;
        let elsewhere = |other: &String| *other != address;
        let before = nodes.addresses().remove(node).filter(elsewhere);
        let configured = self.config.addresses().remove(node).filter(elsewhere);
        match self.log.set_addresses([(node.to_owned(), address.clone())].into()).await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                // Disks may be away because this node has moved: nothing could be written until they are found there.
                nodes.learn(node, &address)?;
                return Err(error.while_doing(format!(
                    "{node} is looked for at {address} from now on, and not noted: say it again when the volume goes on"
                )));
            }
            noted => noted?,
        }
        nodes.learn(node, &address)?;
        tracing::info!(node, address, "the volume knows where a node is");
        let node = self.node_status((node.to_owned(), address), Ok(served));
        Ok(AddedNode { node, before, configured })
    }

    /// The nodes that are known, by name, and whether they answer now.
    pub async fn nodes(&self) -> Vec<NodeStatus> {
        let mut known = self.log.members().nodes;
        // What this mount goes by counts: the list may not have it yet, or be read only.
        known.extend(self.world.nodes.iter().flat_map(|nodes| nodes.addresses()));
        let looks = known.into_iter().map(|known| async move {
            let served = match self.reached_nodes() {
                Ok(nodes) => nodes.look(&known.0).await,
                Err(error) => Err(error),
            };
            self.node_status(known, served)
        });
        join_all(looks).await
    }

    /// Records where the configuration says that nodes are, for a mount whose configuration does not.
    pub(super) async fn note_nodes(&self) {
        if self.options.read_only {
            return;
        }
        if let Err(error) = self.log.set_addresses(self.config.addresses()).await {
            // The configuration has them still, and the next mount tries again.
            tracing::warn!(%error, "the disks do not tell where the nodes are");
        }
    }

    fn reached_nodes(&self) -> Result<&Nodes> {
        let none = || {
            Error::refused(
                "nodes do not know this machine: set identity in the configuration to the directory that `ironfs ca \
                 issue --role client` has made, and mount again",
            )
        };
        self.world.nodes.as_deref().ok_or_else(none)
    }

    /// What there is to say of a node that serves this, or does not answer.
    fn node_status(&self, (name, address): (String, String), served: Result<Served>) -> NodeStatus {
        let mut disks = self.disk_statuses(&self.log.status().disks);
        disks.retain(|disk| is_at(&disk.path, &name) && disk.state != "removed");
        let reason = served.as_ref().err().map(ToString::to_string);
        let served = served.map_or_else(|_reason| Vec::new(), |served| served.slots).into_iter();
        let spare = served
            .filter(|slot| slot.disk.is_none())
            .map(|slot| format!("{name}:{}", slot.path))
            .filter(|path| disks.iter().all(|disk| disk.path != *path));
        let spare = spare.collect();
        NodeStatus { name, address, reachable: reason.is_none(), reason, disks, spare }
    }
}

/// Whether a disk with this path is at the node.
fn is_at(path: &str, name: &str) -> bool {
    match Place::of(Path::new(path)) {
        Place::Node { node, .. } => node == name,
        Place::Here(_) => false,
    }
}

/// What to do when a node does not answer where somebody says that it is.
fn advise(node: &str, error: &Error) -> Error {
    let advice = if error.kind() == ErrorKind::Refused {
        format!(
            "whoever answers there needs a certificate as node {node} of the authority that has signed this machine's"
        )
    } else {
        String::from("start ironfs-shardd there, or correct the address")
    };
    Error::new(error.kind(), format!("{error}: {advice}"))
}
