//! Volumes over nodes: real processes on loopback, with certificates of their own.

use crate::real::{Volume, ironfs, succeed};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead as _, BufReader};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

mod faults;
mod fence;
mod gather;
mod grow;
mod join;
mod loss;
mod trust;
mod wires;

use wires::Wire;

/// A process that serves some directories.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) dirs: Vec<PathBuf>,
    identity: PathBuf,
    log: PathBuf,
    child: Option<Child>,
    /// What is between it and the others, if it is not on this machine's network. Goes after the process.
    wire: Option<Wire>,
}

/// The program that serves disks.
pub(crate) fn shardd() -> Command {
    Command::new(env!("CARGO_BIN_EXE_ironfs-shardd"))
}

impl Node {
    /// The command that serves this node's directories.
    pub(crate) fn command(&self) -> Command {
        let shardd = shardd();
        let mut command = match &self.wire {
            Some(wire) => wire.command(shardd.get_program()),
            None => shardd,
        };
        command.args(["--attached", "--listen", &self.address, "--identity"]).arg(&self.identity);
        command.arg("--disk").args(&self.dirs).env("RUST_LOG", "info").stdin(Stdio::null());
        command
    }

    /// Starts it, and waits until it listens.
    pub(crate) fn start(&mut self) {
        assert!(self.child.is_none(), "{} runs already", self.name);
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let mut child = self.command().stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        self.child = Some(child);
        assert!(line.starts_with("ready "), "{} did not start: {}", self.name, self.said());
    }

    /// What it has logged.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().expect("it runs").id();
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), signal).unwrap();
    }

    /// Ends it with a signal and waits until it is gone.
    pub(crate) fn end(&mut self, signal: Signal) {
        self.signal(signal);
        self.child.take().unwrap().wait().unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

/// A volume, the authority that its machines trust, and the nodes that serve its disks.
pub(crate) struct Cluster {
    // Unmounted before the nodes end.
    pub(crate) volume: Volume,
    pub(crate) nodes: Vec<Node>,
}

/// Runs `ironfs ca WORDS` with the authority below `root`.
pub(crate) fn ca(root: &Path, words: &[&str]) {
    succeed(ironfs().arg("ca").args(words).arg("--ca").arg(root.join("ca")));
}

/// Where the identity of a holder is.
pub(crate) fn identity(root: &Path, name: &str) -> PathBuf {
    root.join("ca/issued").join(name)
}

/// A port of loopback that nobody has at this moment, nor gets from the kernel unasked: those are from 32768 on. Processes of
/// tests begin at different ones.
fn free_address() -> String {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = std::process::id() * 100 + TAKEN.fetch_add(1, Ordering::Relaxed);
        let address = format!("127.0.0.1:{}", 10_000 + number % 20_000);
        if UdpSocket::bind(&address).is_ok() {
            return address;
        }
    }
}

impl Cluster {
    /// Directories `d0`, `d1`, ... shared in turn among `count` nodes, which run; no volume yet.
    pub(crate) fn prepare(count: usize, disks: usize) -> Self {
        Self::over(Volume::prepare(disks, &std::env::temp_dir()), count)
    }

    /// As `prepare`, for the directories of `volume`.
    fn over(volume: Volume, count: usize) -> Self {
        Self::over_at(volume, count, || (free_address(), None))
    }

    fn over_at(volume: Volume, count: usize, place: impl Fn() -> (String, Option<Wire>)) -> Self {
        let root = volume.root().to_path_buf();
        ca(&root, &["init"]);
        ca(&root, &["issue", "--role", "client", "--name", "desk"]);
        let node = |number: usize| {
            let name = format!("n{number}");
            ca(&root, &["issue", "--role", "node", "--name", &name]);
            let dirs = volume.disks.iter().skip(number).step_by(count).cloned().collect();
            let (log, identity) = (root.join(format!("{name}.log")), identity(&root, &name));
            let (address, wire) = place();
            let mut node = Node { name, address, dirs, identity, log, child: None, wire };
            node.start();
            node
        };
        let nodes = (0..count).map(node).collect();
        Self { volume, nodes }
    }

    /// A formatted volume over `count` nodes with `disks` directories.
    pub(crate) fn format(class: &str, count: usize, disks: usize) -> Self {
        Self::prepare(count, disks).formatted(class)
    }

    /// As `format`, with each node in a network namespace of its own, at `port` there.
    fn format_behind_wires(class: &str, count: usize, disks: usize, port: u16) -> Self {
        let place = || {
            let wire = Wire::new();
            (format!("{}:{port}", wire.far), Some(wire))
        };
        // In memory: how long reads take there says something of the network, and nothing of a disk that other tests keep busy.
        let volume = Volume::prepare(disks, Path::new("/dev/shm"));
        Self::over_at(volume, count, place).formatted(class)
    }

    fn formatted(self, class: &str) -> Self {
        let mut cluster = self;
        cluster.volume.disks = cluster.places();
        let options = cluster.options("desk");
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        cluster.volume.format_disks(class, &options);
        cluster
    }

    /// The directories as whoever mounts names them.
    pub(crate) fn places(&self) -> Vec<PathBuf> {
        let place = |disk: &PathBuf| {
            let node = self.nodes.iter().find(|node| node.dirs.contains(disk)).unwrap();
            PathBuf::from(format!("{}:{}", node.name, disk.display()))
        };
        self.volume.disks.iter().map(place).collect()
    }

    /// What `format` has to be told of the nodes.
    pub(crate) fn options(&self, client: &str) -> Vec<String> {
        let identity = identity(self.volume.root(), client).display().to_string();
        let mut options = vec!["--allow-same-device".to_owned(), "--identity".to_owned(), identity];
        for node in &self.nodes {
            options.extend(["--peer".to_owned(), format!("{}={}", node.name, node.address)]);
        }
        options
    }
}
