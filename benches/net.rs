//! Bulk transfer between two processes over loopback: requests of shards as mounts and nodes make them, mutual TLS included,
//! against one bare stream of the QUIC library between the same processes. Pairs follow each other, and the medians are
//! printed: `cargo bench --bench net`.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a bench may fail, prints what it finds, and measures real time"
)]

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use ironfs::net::authority::{self, Issued, Role, SERIAL_BYTES, Wanted};
use ironfs::net::quic::link::{Endpoints, Link};
use ironfs::net::quic::listener::{Caller, Listener, Service};
use ironfs::net::tls::{Identity, IdentityFiles};
use ironfs::net::wire::{Answer, Order};
use ironfs::net::{Operation, Priority, Request, Response, ShardKey};
use ironfs::types::{DiskId, Epoch, MountId, ShardIndex, StripeId};
use quinn::{
    ClientConfig, Connection, Endpoint, MtuDiscoveryConfig, ServerConfig, TransportConfig,
};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Says to the second process that it is one, and where the keys are.
const NODE: &str = "IRONFS_BENCH_NODE";
/// Bytes of a request: the cells of four rows, as a put has them.
const CELLS: usize = 4;
const CELL_BYTES: usize = 64 << 10;
/// Requests under way.
const AHEAD: usize = 8;
/// Pieces of the bare stream.
const CHUNK_BYTES: usize = 64 << 10;
/// Largest packets of the bare stream: ten at once are as much as the kernel takes.
const PACKET_BYTES: u16 = 6_500;
const YEAR: i64 = 365 * 86_400;

/// How much is measured.
#[derive(Clone, Copy)]
struct Size {
    rounds: usize,
    bytes: usize,
}

fn main() {
    if let Some(directory) = variable(NODE) {
        return runtime().block_on(serve(Path::new(&directory)));
    }
    let has = |wanted: &str| std::env::args().any(|argument| argument == wanted);
    let size = match (has("--test"), has("--quick")) {
        (true, _) => Size { rounds: 1, bytes: 8 << 20 },
        (false, true) => Size { rounds: 5, bytes: 128 << 20 },
        (false, false) => Size { rounds: 11, bytes: 512 << 20 },
    };
    let directory = tempfile::tempdir().unwrap();
    write_identities(directory.path());
    let mut node = Node::start(directory.path());
    let (rpc, bare) = (node.address(), node.address());
    runtime().block_on(measure(directory.path(), (rpc, bare), size));
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn runtime() -> tokio::runtime::Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// The second process.
struct Node {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Node {
    fn start(directory: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let mut child = command
            .env(NODE, directory)
            .stdout(Stdio::piped())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    fn address(&mut self) -> SocketAddr {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim().parse().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn write_identities(directory: &Path) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    let authority = authority::create("bench", [9; SERIAL_BYTES], now - YEAR).unwrap();
    for (number, holder, role) in [(1, "node", Role::Node), (2, "client", Role::Client)] {
        let wanted = Wanted {
            holder: holder.to_owned(),
            role,
            serial: [number; SERIAL_BYTES],
            valid: now - 60..now + YEAR,
        };
        let Issued { certificate, key, .. } = authority::issue(&authority, &wanted).unwrap();
        std::fs::write(directory.join(format!("{holder}.crt")), certificate).unwrap();
        std::fs::write(directory.join(format!("{holder}.key")), key).unwrap();
    }
    std::fs::write(directory.join("ca.crt"), authority.certificate).unwrap();
}

fn identity(directory: &Path, holder: &str) -> Identity {
    let read = |name: String| std::fs::read(directory.join(name)).unwrap();
    Identity::read(IdentityFiles {
        certificate: &read(format!("{holder}.crt")),
        key: &read(format!("{holder}.key")),
        authority: &read("ca.crt".to_owned()),
        revoked: None,
    })
    .unwrap()
}

/// Packets and windows as a bulk transfer over loopback wants them.
fn transport() -> Arc<TransportConfig> {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(PACKET_BYTES);
    let mut transport = TransportConfig::default();
    transport
        .initial_rtt(Duration::from_millis(1))
        .stream_receive_window((16u32 << 20).into())
        .receive_window((64u32 << 20).into())
        .send_window(64 << 20)
        .mtu_discovery_config(Some(discovery));
    Arc::new(transport)
}

fn endpoint(server: Option<ServerConfig>) -> Endpoint {
    let mut config = quinn::EndpointConfig::default();
    config.max_udp_payload_size(PACKET_BYTES).unwrap();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    Endpoint::new(config, server, socket, Arc::new(quinn::TokioRuntime)).unwrap()
}

/// Answers fetches with what is in memory, and takes cells as they come.
struct Memory(Bytes);

impl Service for Memory {
    fn serve<'a>(&'a self, _: &'a Caller, _: MountId, order: Order) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let Order::Shard(Request { operation, .. }) = order else { unreachable!() };
            Answer::Shard(match operation {
                Operation::Fetch(_key, ranges) => {
                    Response::Bytes(ranges.iter().map(|_range| self.0.clone()).collect())
                }
                _ => Response::Done,
            })
        })
    }

    fn answer_bytes(&self, _order: &Order) -> u64 {
        (CELLS * CELL_BYTES) as u64
    }
}

async fn serve(directory: &Path) {
    let own = Arc::new(identity(directory, "node"));
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap(), own).unwrap();
    let mut config =
        ServerConfig::with_crypto(Arc::new(identity(directory, "node").server().unwrap()));
    config.transport_config(transport());
    let bare = endpoint(Some(config));
    let mut out = std::io::stdout();
    writeln!(out, "{}\n{}", listener.address().unwrap(), bare.local_addr().unwrap()).unwrap();
    let memory = Memory(Bytes::from(vec![7; CELL_BYTES]));
    let rpc = listener.run(memory, CancellationToken::new(), Duration::ZERO);
    let streams = async {
        while let Some(incoming) = bare.accept().await {
            let connection = incoming.await.unwrap();
            while let Ok((send, receive)) = connection.accept_bi().await {
                answer_bare(send, receive).await;
            }
        }
    };
    tokio::join!(rpc, streams);
}

/// Eight bytes say how much is wanted; none, that everything that follows is to be taken.
async fn answer_bare(mut send: quinn::SendStream, mut receive: quinn::RecvStream) {
    let mut wanted = [0; 8];
    receive.read_exact(&mut wanted).await.unwrap();
    match usize::try_from(u64::from_le_bytes(wanted)).unwrap() {
        0 => {
            while receive.read_chunk(usize::MAX, true).await.unwrap().is_some() {}
            send.write_all(&[1]).await.unwrap();
        }
        bytes => {
            let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
            for _chunk in 0..bytes / CHUNK_BYTES {
                send.write_chunk(chunk.clone()).await.unwrap();
            }
        }
    }
    send.finish().unwrap();
    send.stopped().await.unwrap();
}

async fn connect_bare(directory: &Path, address: SocketAddr) -> (Endpoint, Connection) {
    let mut config = ClientConfig::new(Arc::new(identity(directory, "client").client().unwrap()));
    config.transport_config(transport());
    let endpoint = endpoint(None);
    let connection = endpoint.connect_with(config, address, "node").unwrap().await.unwrap();
    (endpoint, connection)
}

async fn bare(connection: &Connection, bytes: usize, fetch: bool) {
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    let wanted = if fetch { bytes as u64 } else { 0 };
    send.write_all(&wanted.to_le_bytes()).await.unwrap();
    if !fetch {
        let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
        for _chunk in 0..bytes / CHUNK_BYTES {
            send.write_chunk(chunk.clone()).await.unwrap();
        }
    }
    send.finish().unwrap();
    let mut got = 0;
    while let Some(chunk) = receive.read_chunk(usize::MAX, true).await.unwrap() {
        got += chunk.bytes.len();
    }
    assert_eq!(got, if fetch { bytes } else { 1 });
}

async fn rpc(link: &Link, bytes: usize, fetch: bool) {
    let cell = Bytes::from(vec![7; CELL_BYTES]);
    let key = ShardKey { stripe: StripeId(1), index: ShardIndex(0) };
    let ask = || async {
        let operation = if fetch {
            Operation::Fetch(key, vec![0..CELL_BYTES as u64; CELLS])
        } else {
            Operation::Append(key, vec![cell.clone(); CELLS])
        };
        let request =
            Request { disk: DiskId(1), epoch: Epoch(1), priority: Priority::Sync, operation };
        link.call(Order::Shard(request)).await.unwrap()
    };
    let mut left = bytes / (CELLS * CELL_BYTES);
    let mut under_way = FuturesUnordered::new();
    while left > 0 || !under_way.is_empty() {
        while left > 0 && under_way.len() < AHEAD {
            under_way.push(ask());
            left -= 1;
        }
        under_way.next().await;
    }
}

async fn measure(directory: &Path, (rpc_at, bare_at): (SocketAddr, SocketAddr), size: Size) {
    let endpoints = Endpoints::open().unwrap();
    let address = rpc_at.to_string();
    let mount = MountId(1);
    let link =
        Link::new(endpoints, ("node", &address), &identity(directory, "client"), mount).unwrap();
    let (_endpoint, connection) = connect_bare(directory, bare_at).await;
    println!("| direction | requests | bare stream | requests / bare stream |");
    println!("|---|---|---|---|");
    for (direction, fetch) in [("from the node", true), ("to the node", false)] {
        // Both connections have found their packet size then.
        rpc(&link, size.bytes.min(64 << 20), fetch).await;
        bare(&connection, size.bytes.min(64 << 20), fetch).await;
        let (mut requests, mut streams, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _round in 0..size.rounds {
            let start = Instant::now();
            rpc(&link, size.bytes, fetch).await;
            let first = rate(size.bytes, start.elapsed());
            let start = Instant::now();
            bare(&connection, size.bytes, fetch).await;
            let second = rate(size.bytes, start.elapsed());
            requests.push(first);
            streams.push(second);
            ratios.push(first / second);
        }
        let [requests, streams, ratio] = [requests, streams, ratios].map(median);
        println!("| {direction} | {requests:.0} MB/s | {streams:.0} MB/s | {ratio:.2} |");
    }
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / 1e6 / time.as_secs_f64()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
