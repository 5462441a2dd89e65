//! `node`: the machines whose disks a volume uses, and where they are.

use super::{out, paths};
use crate::admin::{AddNode, client};
use crate::error::{Error, Result};
use crate::volume::status::{AddedNode, NodeStatus};
use clap::Subcommand;

#[cfg(test)]
mod tests;

/// Say where nodes are, and show them with their disks
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  ironfs node add media beta=10.0.0.3:7440\n  ironfs disk add media beta:/srv/d0\n  ironfs node list media"
)]
pub(super) enum NodeCommand {
    /// Tell a mounted volume where a node is: then `disk add` takes directories of it in, and each mount finds them
    #[command(after_help = "Example:\n  ironfs node add media beta=10.0.0.3:7440")]
    Add {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
        /// Name of the node, as in its certificate, and where it listens; one that has moved is told again
        #[arg(value_name = "NODE=HOST:PORT")]
        node: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show the nodes of a volume, whether they answer, and their disks
    #[command(
        after_help = "Examples:\n  ironfs node list media\n  ironfs node list --json /mnt/media"
    )]
    List {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl NodeCommand {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Add { volume, node, json } => {
                let (name, address) = node.split_once('=').ok_or_else(|| {
                    Error::refused(format!("{node}: say NODE=HOST:PORT, as in beta=10.0.0.3:7440"))
                })?;
                let socket = paths::socket_of(&volume)?;
                let body = AddNode { node: name.to_owned(), address: address.to_owned() };
                let added: AddedNode = paths::block_on(client::post(&socket, "/node/add", &body))?;
                if json { out::print_json(&added) } else { out::print(&told(&added, &volume)) }
            }
            Self::List { volume, json } => {
                let socket = paths::socket_of(&volume)?;
                let nodes: Vec<NodeStatus> = paths::block_on(client::get(&socket, "/nodes"))?;
                if json { out::print_json(&nodes) } else { out::print(&table(&nodes)) }
            }
        }
    }
}

fn told(added: &AddedNode, volume: &str) -> String {
    let NodeStatus { name, address, spare, .. } = &added.node;
    let before = added.before.as_ref().map(|before| format!(", and no longer at {before}"));
    let mut text = format!("{name} is at {address}{}\n", before.unwrap_or_default());
    if let Some(configured) = &added.configured {
        text.push_str(&format!(
            "the configuration says {configured}, which counts at the next mount: correct [peer.{name}] there\n"
        ));
    }
    for directory in spare {
        text.push_str(&format!("next: ironfs disk add {volume} {directory}\n"));
    }
    text
}

/// A row for each disk and each directory that could be one; the first of a node says where it is.
fn table(nodes: &[NodeStatus]) -> String {
    let header = ["NODE", "ADDRESS", "REACHABLE", "DISK", "STATE", "PATH"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for node in nodes {
        let disks = node
            .disks
            .iter()
            .map(|disk| [disk.id.to_string(), disk.state.clone(), disk.path.clone()]);
        let spare = node.spare.iter().map(|path| ["-".into(), "spare".into(), path.clone()]);
        let mut places: Vec<[String; 3]> = disks.chain(spare).collect();
        if places.is_empty() {
            places.push(["-", "-", "-"].map(str::to_owned));
        }
        if let (Some(reason), Some([.., path])) = (&node.reason, places.first_mut()) {
            path.push_str(&format!(" ({reason})"));
        }
        let reachable = if node.reachable { "yes" } else { "no" };
        let mut own = [node.name.as_str(), &node.address, reachable];
        for place in places {
            rows.push(own.map(str::to_owned).into_iter().chain(place).collect());
            own = [""; 3];
        }
    }
    out::table(&rows)
}
