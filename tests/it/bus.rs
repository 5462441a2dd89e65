//! Nodes and a network between them and the mounts, and from node to node, in one process: the servers are those that
//! `ironfs-shardd` runs, over simulated disks; requests go as bytes, are late, overtake each other, and are lost in either
//! direction. Knows nothing of QUIC.

use crate::sim::disk::{SimMachine, SimRng};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use ironfs::config::node::NodeConfig;
use ironfs::config::{Peer, Place};
use ironfs::disk::Disk;
use ironfs::error::{Error, Result};
use ironfs::net::Peers;
use ironfs::net::authority::Role;
use ironfs::net::disk::RemoteDisk;
use ironfs::net::gather::NodeAddress;
use ironfs::net::quic::listener::{Caller, Service as _};
use ironfs::net::tls::PeerIdentity;
use ironfs::net::way::{RemotePeers, Way};
use ironfs::net::wire::{Answer, HEADER_BYTES, Header, Order, Packed};
use ironfs::shardd::gather::Reach;
use ironfs::shardd::server::{Server, Shared, Surroundings};
use ironfs::types::MountId;
use ironfs::volume::{OpenDisk, World};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// After this a connection on which nothing comes is given up.
const SILENCE: Duration = Duration::from_secs(6);
/// Longest way of a request, in microseconds, mostly ...
const QUICK_US: u64 = 2_000;
/// ... and of one in `SLOW_SHARE`.
const SLOW_US: u64 = 900_000;
const SLOW_SHARE: u64 = 200;

/// What happens to the messages between a mount and a node.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Fault {
    /// Requests are lost.
    pub(crate) there: bool,
    /// Answers are lost, though what was asked is done.
    pub(crate) back: bool,
    /// Every message takes long.
    pub(crate) slow: bool,
}

/// The network. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct Bus {
    machine: SimMachine,
    nodes: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    rng: SimRng,
    processes: Vec<Process>,
    faults: BTreeMap<(MountId, usize), Fault>,
    /// No node reaches another one.
    apart: bool,
    /// Mounts whose process has died.
    dead: BTreeSet<MountId>,
    mounts: u64,
}

/// A node as the system runs it.
#[derive(Debug, Default)]
struct Process {
    down: bool,
    running: Option<Running>,
}

#[derive(Clone, Debug)]
struct Running {
    server: Arc<Server>,
    stop: CancellationToken,
}

impl Bus {
    /// `nodes` nodes that serve the disks of `machine` in turns. Each begins when it is first asked for something.
    pub(crate) fn new(machine: SimMachine, nodes: usize, seed: u64) -> Self {
        let processes = (0..nodes).map(|_node| Process::default()).collect();
        let (rng, faults) = (SimRng::new(seed ^ 0xb05), BTreeMap::new());
        let (apart, dead) = (false, BTreeSet::new());
        let state = State { rng, processes, faults, apart, dead, mounts: 0 };
        Self { machine, nodes, state: Arc::new(Mutex::new(state)) }
    }

    /// The same nodes over other disks, all begun anew. Those of before end, and begin anew too when they are asked.
    pub(crate) fn over(&self, machine: SimMachine) -> Self {
        for node in 0..self.nodes {
            self.kill(node);
            self.start(node);
        }
        let seed = self.state().rng.next();
        Self::new(machine, self.nodes, seed)
    }

    /// Where a configuration says that disk `index` is.
    pub(crate) fn disk_path(&self, index: usize) -> PathBuf {
        PathBuf::from(format!("{}:{}", name_of(index % self.nodes), path_on_node(index)))
    }

    /// What a configuration says of the nodes.
    pub(crate) fn peers(&self) -> BTreeMap<String, Peer> {
        let peer = |node| (name_of(node), Peer { address: format!("{}.test", name_of(node)) });
        (0..self.nodes).map(peer).collect()
    }

    /// A world for one more mount, and its number.
    pub(crate) fn world(&self) -> (World, MountId) {
        let mount = {
            let mut state = self.state();
            state.mounts += 1;
            MountId(state.mounts)
        };
        let bus = self.clone();
        let opener = move |path: &Path| -> Result<OpenDisk> {
            let Place::Node { node, path } = Place::of(path) else {
                return Err(Error::refused(format!("{} is on no node", path.display())));
            };
            let way: Arc<dyn Way> = Arc::new(bus.wire(End::Mount(mount), node)?);
            let disk = Arc::new(RemoteDisk::open(way.clone(), path)?);
            Ok(OpenDisk { disk, remote: Some(Arc::new(RemotePeers::new(way))) })
        };
        (World { opener: Arc::new(opener), inline: true, nodes: None }, mount)
    }

    /// The way from somebody to the node of this name.
    fn wire(&self, from: End, name: &str) -> Result<Wire> {
        let number = name.strip_prefix('n').and_then(|digits| digits.parse().ok());
        let number = number.filter(|number| *number < self.nodes);
        let none = || Error::refused(format!("there is no node {name}"));
        Ok(Wire { bus: self.clone(), from, node: number.ok_or_else(none)?, name: name.to_owned() })
    }

    /// From now on this happens to the messages between `mount` and `node`, and to those between `node` and other nodes: it
    /// is the cable of the node that is to blame.
    pub(crate) fn set_fault(&self, mount: MountId, node: usize, fault: Fault) {
        self.state().faults.insert((mount, node), fault);
    }

    /// From now on no node reaches another one, though mounts reach them.
    pub(crate) fn set_apart(&self) {
        self.state().apart = true;
    }

    /// Nothing happens to messages any more.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        state.faults.clear();
        state.apart = false;
    }

    /// The process of a mount dies: nothing that it has asked is answered any more, and it asks nothing.
    pub(crate) fn die(&self, mount: MountId) {
        self.state().dead.insert(mount);
    }

    /// The process of a node dies (kill -9). It begins anew with `start`.
    pub(crate) fn kill(&self, node: usize) {
        let before = {
            let process = &mut self.state().processes[node];
            process.down = true;
            process.running.take()
        };
        // Its disks are free once it is dropped.
        if let Some(before) = before {
            before.stop.cancel();
        }
    }

    pub(crate) fn start(&self, node: usize) {
        self.state().processes[node].down = false;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The server of a node, which begins if it does not run.
    fn server(&self, node: usize) -> Result<Running> {
        {
            let process = &self.state().processes[node];
            if process.down {
                return Err(Error::unavailable("nobody listens there"));
            }
            if let Some(running) = &process.running {
                return Ok(running.clone());
            }
        }
        let disks = (node..self.machine.disk_count()).step_by(self.nodes);
        let paths = disks.map(|disk| PathBuf::from(path_on_node(disk))).collect();
        let config = NodeConfig::new(paths, PathBuf::from("/sim/identity"));
        let machine = self.machine.clone();
        let open = move |path: &Path| -> Result<Arc<dyn Disk>> {
            let digits = path.to_str().and_then(|path| path.strip_prefix("/sim/d"));
            let disk = digits.and_then(|digits| digits.parse().ok());
            let none = || Error::refused(format!("{}: no such disk", path.display()));
            Ok(machine.disk(disk.ok_or_else(none)?))
        };
        let (open, reach) = (Arc::new(open), self.reach(node));
        let surroundings = Surroundings { open, inline: true, reach };
        let server = now(async { Server::open(&config, surroundings).await })?;
        let running = Running { server: Arc::new(server), stop: CancellationToken::new() };
        let (keeper, stop) = (running.server.clone(), running.stop.clone());
        tokio::spawn(async move { keeper.keep(stop).await });
        self.state().processes[node].running = Some(running.clone());
        Ok(running)
    }

    /// How node `from` reaches others. It does not keep the network: the network keeps the nodes.
    fn reach(&self, from: usize) -> Reach {
        let (machine, nodes, state) =
            (self.machine.clone(), self.nodes, Arc::downgrade(&self.state));
        Arc::new(move |to: &NodeAddress| -> Result<Arc<dyn Peers>> {
            let gone = || Error::unavailable("there is no network any more");
            let state = state.upgrade().ok_or_else(gone)?;
            let bus = Self { machine: machine.clone(), nodes, state };
            let wire = bus.wire(End::Node(from), &to.name)?;
            Ok(Arc::new(RemotePeers::new(Arc::new(wire))))
        })
    }

    /// What happens to a message now.
    fn fault(&self, from: End, node: usize) -> Result<Fault> {
        let state = self.state();
        match from {
            End::Mount(mount) if state.dead.contains(&mount) => {
                Err(Error::unavailable("this process is dead"))
            }
            End::Mount(mount) => Ok(state.faults.get(&(mount, node)).copied().unwrap_or_default()),
            End::Node(from) => {
                // The way of what the asking node says is that on which mounts hear it.
                let of = |wanted: usize| {
                    let faults = state.faults.iter().filter(move |((_m, at), _f)| *at == wanted);
                    faults.fold(Fault::default(), |all, (_between, fault)| Fault {
                        there: all.there || fault.there,
                        back: all.back || fault.back,
                        slow: all.slow || fault.slow,
                    })
                };
                let (own, other) = (of(from), of(node));
                Ok(Fault {
                    there: state.apart || own.back || other.there,
                    back: state.apart || own.there || other.back,
                    slow: own.slow || other.slow,
                })
            }
        }
    }

    /// How long a message is under way.
    fn delay(&self, fault: Fault) -> Duration {
        let rng = &mut self.state().rng;
        let slow = fault.slow || rng.below(SLOW_SHARE) == 0;
        Duration::from_micros(rng.below(if slow { SLOW_US } else { QUICK_US }))
    }
}

fn name_of(node: usize) -> String {
    format!("n{node}")
}

fn path_on_node(disk: usize) -> String {
    format!("/sim/d{disk}")
}

/// What `work` gives, which must not wait: simulated disks answer at once.
fn now<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    // The budget of the task that calls says nothing about this.
    let answer = tokio::task::unconstrained(work).now_or_never();
    answer.unwrap_or_else(|| Err(Error::unavailable("the node is busy")))
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum End {
    Mount(MountId),
    Node(usize),
}

/// The way from a mount, or from a node, to one node.
#[derive(Debug)]
struct Wire {
    bus: Bus,
    from: End,
    node: usize,
    name: String,
}

impl Wire {
    /// Has the node answer, all of it through bytes.
    async fn serve(&self, running: Running, order: Order) -> Result<Answer> {
        let (name, role, mount) = match self.from {
            End::Mount(mount) => (format!("mount-{mount}"), Role::Client, mount),
            End::Node(node) => (name_of(node), Role::Node, MountId::default()),
        };
        let peer = PeerIdentity { name, role, serial: Vec::new() };
        let address = ([127, 0, 0, 1], 1).into();
        let (header, body, payload) = arrived(order.pack(1, mount))?;
        let order = Order::unpack(&header, &body, payload)?;
        let Running { server, stop } = running;
        let (service, caller) = (Shared(server), Caller { peer, address });
        let died = || Error::unavailable("the node has died");
        // It may wait for other nodes; what it does ends when it dies.
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => return Err(died()),
            answer = service.serve(&caller, header.mount, order) => answer,
        };
        let (header, body, payload) = arrived(answer.pack(1))?;
        if stop.is_cancelled() {
            return Err(died());
        }
        match Answer::unpack(&header, &body, payload)? {
            Answer::Error(error) => Err(error.while_doing(format!("node {}", self.name))),
            answer => Ok(answer),
        }
    }

    fn fault(&self) -> Result<Fault> {
        self.bus.fault(self.from, self.node)
    }
}

/// A message at its other end.
fn arrived(packed: Packed) -> Result<(Header, bytes::Bytes, bytes::Bytes)> {
    let mut all = bytes::BytesMut::new();
    packed.chunks().iter().for_each(|chunk| all.extend_from_slice(chunk));
    let mut all = all.freeze();
    let head = all.split_to(HEADER_BYTES);
    let header = Header::decode(head.first_chunk().unwrap())?;
    let body = all.split_to(header.body_bytes as usize);
    Ok((header, body, all))
}

async fn silence<T>() -> Result<T> {
    tokio::time::sleep(SILENCE).await;
    Err(Error::unavailable("no answer"))
}

impl Way for Wire {
    fn node(&self) -> &str {
        &self.name
    }

    fn is_here(&self) -> bool {
        false
    }

    fn call(&self, order: Order) -> BoxFuture<'_, Result<Answer>> {
        Box::pin(async move {
            let delay = self.bus.delay(self.fault()?);
            tokio::time::sleep(delay).await;
            if self.fault()?.there {
                return silence().await;
            }
            let Ok(running) = self.bus.server(self.node) else { return silence().await };
            let answer = self.serve(running, order).await;
            let delay = self.bus.delay(self.fault()?);
            tokio::time::sleep(delay).await;
            if self.fault()?.back { silence().await } else { answer }
        })
    }

    // A thread would wait here: in this world there is none, and what is lost is known to be at once.
    fn ask(&self, order: Order, _deadline: Duration) -> Result<Answer> {
        let fault = self.fault()?;
        if fault.there {
            return Err(Error::unavailable("no answer"));
        }
        let running = self.bus.server(self.node)?;
        let answer = now(self.serve(running, order));
        if fault.back { Err(Error::unavailable("no answer")) } else { answer }
    }

    fn tell(&self, order: Order) {
        // Nobody waits for it.
        drop(self.ask(order, Duration::ZERO));
    }
}
