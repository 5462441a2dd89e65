use super::Reach;
use crate::config::node::NodeConfig;
use crate::erasure::{Scheme, coder};
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::net::authority::Role;
use crate::net::gather::{Gather, NodeAddress, Source};
use crate::net::quic::listener::Service;
use crate::net::wire::{Answer, Order};
use crate::net::{
    DiskCall, Operation, Peers, Priority, Request, Response, Seal, ShardHeader, ShardKey,
};
use crate::shardd::server::{Server, Shared, Surroundings};
use crate::shardd::testing::{caller, kind, make_disk};
use crate::sync::{Arc, Mutex};
use crate::types::{ClassId, DiskId, Epoch, MountId, NodeId, ShardIndex, StripeId};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::ops::Range;
use tokio::sync::Semaphore;

const A: MountId = MountId(11);
const B: MountId = MountId(22);
const SCHEME: Scheme = Scheme::ReedSolomon { k: 2, m: 1 };
const CELL: u32 = 128;
/// Two rows and a short one.
const PAYLOAD: u64 = 2 * 2 * 128 + 100;
const COLUMNS: u64 = 2 * 128 + 64;

/// Nodes n1, n2 and n4; the last one has disks 4 and 5, the others have one each.
struct Lab {
    _directories: tempfile::TempDir,
    nodes: Arc<Mutex<BTreeMap<String, Shared>>>,
    /// Whoever asks another node needs a permit.
    gate: Arc<Semaphore>,
}

/// What one node is for another.
#[derive(Debug)]
struct Asked {
    node: Shared,
    gate: Arc<Semaphore>,
}

impl Peers for Asked {
    fn call(&self, _node: NodeId, request: Request) -> BoxFuture<'_, Result<Response>> {
        Box::pin(async move {
            let _permit = self.gate.acquire().await.unwrap();
            ask(&self.node, (Role::Node, MountId::default()), request).await
        })
    }
}

async fn ask(node: &Shared, who: (Role, MountId), request: Request) -> Result<Response> {
    match node.serve(&caller(who.0), who.1, Order::Shard(request)).await {
        Answer::Shard(response) => Ok(response),
        Answer::Error(error) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn name_of(disk: u32) -> String {
    format!("n{}", disk.min(4))
}

fn key(index: u8) -> ShardKey {
    ShardKey { stripe: StripeId(7), index: ShardIndex(index) }
}

fn header(index: u8) -> ShardHeader {
    ShardHeader {
        key: key(index),
        class: ClassId(0),
        data_shards: 2,
        parity_shards: 1,
        cell_bytes: CELL,
        epoch: Epoch(1),
    }
}

/// What a shard holds.
fn content(index: u8) -> Vec<u8> {
    let data = |seed: u8| (0..COLUMNS).map(|at| at.to_le_bytes()[0].wrapping_mul(seed)).collect();
    let (first, second): (Vec<u8>, Vec<u8>) = (data(3), data(5));
    let mut parity = vec![0; first.len()];
    coder(SCHEME).encode(&[&first, &second], &mut [&mut parity]);
    [first, second, parity][usize::from(index)].clone()
}

fn seal(index: u8) -> Operation {
    let slot_table = Bytes::from_static(b"slots");
    Operation::Seal(key(index), Seal { payload_bytes: PAYLOAD, slot_table })
}

/// Shard `index`, out of shards on disks.
fn gather(index: u8, columns: Range<u64>, from: &[(u8, u32)]) -> Operation {
    let source = |(index, disk): &(u8, u32)| Source {
        index: ShardIndex(*index),
        disk: DiskId(*disk),
        node: NodeAddress { name: name_of(*disk), address: "10.0.0.1:1".to_owned() },
    };
    let sources = from.iter().map(source).collect();
    Operation::Gather(Gather { header: header(index), scheme: SCHEME, columns, sources })
}

impl Lab {
    async fn new() -> Self {
        let directories = tempfile::tempdir().unwrap();
        let nodes: Arc<Mutex<BTreeMap<String, Shared>>> = Arc::default();
        let gate = Arc::new(Semaphore::new(1000));
        for disks in [&[1][..], &[2], &[4, 5]] {
            let mut paths = Vec::new();
            for disk in disks {
                let path = directories.path().join(format!("d{disk}"));
                std::fs::create_dir(&path).unwrap();
                make_disk(&path, DiskId(*disk));
                paths.push(path);
            }
            let (known, gate) = (nodes.clone(), gate.clone());
            let reach = move |node: &NodeAddress| -> Result<Arc<dyn Peers>> {
                let found = known.lock().unwrap().get(&node.name).cloned();
                let none = || Error::unavailable(format!("nobody is {node}"));
                Ok(Arc::new(Asked { node: found.ok_or_else(none)?, gate: gate.clone() }))
            };
            let reach: Reach = Arc::new(reach);
            let config = NodeConfig::new(paths, directories.path().to_path_buf());
            let server = Server::open(&config, Surroundings::local(reach)).await.unwrap();
            let name = name_of(disks[0]);
            nodes.lock().unwrap().insert(name, Shared(Arc::new(server)));
        }
        let lab = Self { _directories: directories, nodes, gate };
        for disk in [1, 2, 4, 5] {
            lab.file(disk, A, DiskCall::Lock { holder: "a".to_owned() }).await;
        }
        lab
    }

    fn node(&self, disk: u32) -> Shared {
        self.nodes.lock().unwrap()[&name_of(disk)].clone()
    }

    /// A call of files, which must succeed.
    async fn file(&self, disk: u32, mount: MountId, call: DiskCall) {
        let slot = u32::from(disk == 5);
        let order = Order::Disk { slot, call };
        let answer = self.node(disk).serve(&caller(Role::Client), mount, order).await;
        assert!(matches!(answer, Answer::Disk(_)), "{answer:?}");
    }

    async fn ask_by(
        &self,
        (mount, epoch): (MountId, u64),
        disk: u32,
        operation: Operation,
    ) -> Result<Response> {
        let (priority, epoch) = (Priority::Background, Epoch(epoch));
        let request = Request { disk: DiskId(disk), epoch, priority, operation };
        ask(&self.node(disk), (Role::Client, mount), request).await
    }

    async fn ask(&self, disk: u32, operation: Operation) -> Result<Response> {
        self.ask_by((A, 1), disk, operation).await
    }

    async fn sealed(&self, disk: u32, index: u8) -> [u8; 32] {
        match self.ask(disk, seal(index)).await.unwrap() {
            Response::Sealed { root } => root,
            other => panic!("{other:?}"),
        }
    }

    /// Puts a shard as a mount does; answers its root.
    async fn put(&self, index: u8, disk: u32) -> [u8; 32] {
        self.ask(disk, Operation::Begin(header(index))).await.unwrap();
        let content = content(index);
        let cells = content.chunks(CELL as usize).map(Bytes::copy_from_slice).collect();
        self.ask(disk, Operation::Append(key(index), cells)).await.unwrap();
        self.sealed(disk, index).await
    }

    async fn check(&self, index: u8, disk: u32) {
        self.ask(disk, Operation::Verify(key(index))).await.unwrap();
        let fetched = self.ask(disk, Operation::Fetch(key(index), vec![0..COLUMNS])).await.unwrap();
        assert!(matches!(fetched, Response::Bytes(bytes) if bytes[0] == content(index)));
    }
}

/// Why a source could not be had.
fn lacks(answer: Result<Response>) -> (u8, ErrorKind) {
    match answer {
        Ok(Response::Lacking { index, error }) => (index.0, error.kind()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_shard_is_made_of_others_and_copied() {
    let lab = Lab::new().await;
    let roots = [lab.put(0, 1).await, lab.put(1, 2).await, lab.put(2, 5).await];
    for (made, from) in [(0, [(1, 2), (2, 5)]), (1, [(0, 1), (2, 5)]), (2, [(0, 1), (1, 2)])] {
        // Disk 5 is of the same node.
        for columns in [0..128, 128..COLUMNS] {
            let answer = lab.ask(4, gather(made, columns, &from)).await;
            assert!(matches!(answer, Ok(Response::Done)), "{answer:?}");
        }
        assert_eq!(lab.sealed(4, made).await, roots[usize::from(made)]);
        lab.check(made, 4).await;
    }
    for (index, disk) in [(0, 1), (1, 2), (2, 5)] {
        lab.ask(4, gather(index, 0..COLUMNS, &[(index, disk)])).await.unwrap();
        assert_eq!(lab.sealed(4, index).await, roots[usize::from(index)]);
        lab.check(index, 4).await;
    }
}

#[tokio::test]
async fn what_cannot_be_had_is_said_and_changes_nothing() {
    let lab = Lab::new().await;
    lab.put(0, 1).await;
    lab.put(1, 4).await;
    // The shard is not there; its node is not there.
    let absent = (2, ErrorKind::Posix(Posix::NotFound));
    assert_eq!(lacks(lab.ask(4, gather(1, 0..128, &[(0, 1), (2, 2)])).await), absent);
    let away = (2, ErrorKind::Unavailable);
    assert_eq!(lacks(lab.ask(4, gather(1, 0..128, &[(0, 1), (2, 3)])).await), away);
    // Nor has it so many bytes.
    let short = lab.ask(4, gather(1, 0..COLUMNS + 64, &[(1, 4)])).await;
    assert_eq!(lacks(short), (1, ErrorKind::Internal));
    lab.check(1, 4).await;
    let odd = lab.ask(4, gather(1, 0..128, &[(0, 1)])).await;
    assert_eq!(kind(odd), Some(ErrorKind::Refused));
    lab.check(1, 4).await;
}

#[tokio::test]
async fn rows_come_in_order() {
    let lab = Lab::new().await;
    lab.put(0, 1).await;
    let copy = |columns| gather(0, columns, &[(0, 1)]);
    let early = lab.ask(4, copy(128..COLUMNS)).await;
    assert_eq!(kind(early), Some(ErrorKind::Internal), "it was not begun");
    lab.ask(4, copy(0..128)).await.unwrap();
    lab.ask(4, copy(128..256)).await.unwrap();
    let again = lab.ask(4, copy(128..256)).await;
    assert_eq!(kind(again), Some(ErrorKind::Internal), "they are there already");
    lab.ask(4, copy(256..COLUMNS)).await.unwrap();
    lab.sealed(4, 0).await;
    lab.check(0, 4).await;
}

#[tokio::test]
async fn gathering_needs_the_lease_and_the_newest_members() {
    let lab = Lab::new().await;
    lab.put(0, 1).await;
    let copy = || gather(0, 0..128, &[(0, 1)]);
    assert_eq!(kind(lab.ask_by((B, 1), 4, copy()).await), Some(ErrorKind::Superseded));
    lab.ask_by((A, 2), 4, copy()).await.unwrap();
    assert_eq!(kind(lab.ask_by((A, 1), 4, copy()).await), Some(ErrorKind::Fenced));
    // The disk goes over to another mount while the bytes are under way: that waits for nobody.
    let held = lab.gate.acquire_many(1000).await.unwrap();
    let hand_over = async {
        tokio::task::yield_now().await;
        lab.file(4, A, DiskCall::Unlock).await;
        lab.file(4, B, DiskCall::Lock { holder: "b".to_owned() }).await;
        drop(held);
    };
    let (gathered, ()) = tokio::join!(lab.ask_by((A, 2), 4, copy()), hand_over);
    assert_eq!(kind(gathered), Some(ErrorKind::Superseded));
    let append = Operation::Append(key(0), Vec::new());
    assert_eq!(kind(lab.ask_by((B, 2), 4, append).await), Some(ErrorKind::Internal), "no shard");
}
