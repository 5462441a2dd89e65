//! Nodes on this machine, for `up --nodes`: certificates, a process for each, and their end. Knows no volume.

use super::{ca, mount};
use crate::config::Peer;
use crate::error::{Error, Result};
use crate::net::authority::Role;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Authority and identities, in the store.
const CA_DIR: &str = "ca";
const IDENTITIES_DIR: &str = "identities";
/// Who mounts.
const CLIENT: &str = "me";

/// Nodes that run; they end when this is dropped.
#[derive(Debug)]
pub(super) struct Nodes {
    children: Vec<Child>,
    /// Where each is, by name.
    pub(super) peers: BTreeMap<String, Peer>,
    /// By which they know who mounts.
    pub(super) identity: PathBuf,
    /// `node:path` of each directory, in the order given.
    pub(super) disks: Vec<PathBuf>,
}

/// Name of node `number`, from 0.
fn name_of(number: usize) -> String {
    format!("node{}", number + 1)
}

/// Starts `count` nodes on loopback that share `disks` among them, with identities in `store`.
pub(super) fn start(store: &Path, disks: &[PathBuf], count: usize) -> Result<Nodes> {
    let authority = store.join(CA_DIR);
    let identities = store.join(IDENTITIES_DIR);
    if !authority.join(crate::identity::KEY_FILE).exists() {
        ca::init(&authority)?;
    }
    let identity_of = |name: &str, role: Role| {
        let directory = identities.join(name);
        if !directory.join(crate::identity::KEY_FILE).exists() {
            ca::issue(&authority, role, name, &directory)?;
        }
        Ok::<_, Error>(directory)
    };
    let identity = identity_of(CLIENT, Role::Client)?;
    let (children, peers) = (Vec::new(), BTreeMap::new());
    let mut nodes = Nodes { children, peers, identity, disks: disks.to_vec() };
    for number in 0..count {
        let name = name_of(number);
        let identity = identity_of(&name, Role::Node)?;
        let own = (0..).zip(disks).filter(|(index, _disk)| index % count == number);
        let own: Vec<&PathBuf> = own.map(|(_index, disk)| disk).collect();
        let address = nodes.spawn(&identity, &own)?;
        nodes.peers.insert(name, Peer { address });
    }
    for (index, disk) in nodes.disks.iter_mut().enumerate() {
        *disk = PathBuf::from(format!("{}:{}", name_of(index % count), disk.display()));
    }
    Ok(nodes)
}

impl Nodes {
    /// Starts one node, and answers where it listens.
    fn spawn(&mut self, identity: &Path, disks: &[&PathBuf]) -> Result<String> {
        let mut child = Command::new(mount::this_executable()?)
            .arg0("ironfs-shardd")
            .args(["shardd", "--attached", "--listen", "127.0.0.1:0", "--identity"])
            .arg(identity)
            .arg("--disk")
            .args(disks)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // Ctrl-C is for who mounts: nodes end after it.
            .process_group(0)
            .spawn()
            .map_err(|error| Error::from_io("start a node", error))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            // No line at all is a child that died: told below.
            drop(BufReader::new(stdout).read_line(&mut line));
        }
        self.children.push(child);
        match line.trim_end().strip_prefix("ready ") {
            Some(address) => Ok(address.to_owned()),
            None => Err(Error::refused("a node did not start; it says why above")),
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        for child in &self.children {
            if let Some(pid) =
                i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw)
            {
                // It may have ended by itself.
                let told = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
                told.unwrap_or_default();
            }
        }
        for child in &mut self.children {
            drop(child.wait());
        }
    }
}
