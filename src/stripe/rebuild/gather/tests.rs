use super::REST;
use crate::cpu::Cpu;
use crate::erasure::coder;
use crate::error::{Error, ErrorKind, Result};
use crate::net::gather::Gather;
use crate::net::{Operation, Peers, Priority, Request, Response, ShardKey};
use crate::shard::serve::LocalPeers;
use crate::stripe::reader::StripeReader;
use crate::stripe::testing::{Cluster, MIXED, segments};
use crate::stripe::writer::Written;
use crate::sync::atomic::Ordering;
use crate::sync::{Arc, Mutex};
use crate::types::{DiskId, NodeId, ShardIndex};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::ops::Range;

/// What goes wrong with what a node is asked to make.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Trouble {
    Nothing,
    /// A source cannot be had.
    Lacks(ErrorKind),
    /// Its own disk fails.
    Fails(ErrorKind),
    /// A byte of a cell is wrong.
    Errs,
}

/// What was made so.
#[derive(Debug)]
struct Made {
    /// Out of these shards.
    from: Vec<u8>,
    columns: Range<u64>,
}

/// Disks that make shards of what others hold, as those of nodes do.
#[derive(Debug)]
struct Nodes {
    peers: Arc<LocalPeers>,
    trouble: Mutex<Trouble>,
    made: Mutex<Vec<Made>>,
    /// Cells that came from whoever asks.
    appended: Mutex<usize>,
}

impl Peers for Nodes {
    fn call(&self, node: NodeId, request: Request) -> BoxFuture<'_, Result<Response>> {
        if let Operation::Append(_key, cells) = &request.operation {
            *self.appended.lock().unwrap() += cells.len();
        }
        match request.operation.clone() {
            Operation::Gather(gather) => Box::pin(self.gather(gather, request)),
            _ => self.peers.call(node, request),
        }
    }
}

impl Nodes {
    async fn gather(&self, gather: Gather, request: Request) -> Result<Response> {
        gather.check()?;
        let trouble = *self.trouble.lock().unwrap();
        let index = gather.sources[0].index;
        match trouble {
            Trouble::Lacks(kind) => {
                return Ok(Response::Lacking { index, error: Error::new(kind, "planted") });
            }
            Trouble::Fails(kind) => return Err(Error::new(kind, "planted")),
            Trouble::Nothing | Trouble::Errs => {}
        }
        let from = gather.sources.iter().map(|source| source.index.0).collect();
        self.made.lock().unwrap().push(Made { from, columns: gather.columns.clone() });
        let mut columns = vec![None; usize::from(gather.scheme.n())];
        for source in &gather.sources {
            let key = ShardKey { index: source.index, ..gather.header.key };
            let operation = Operation::Fetch(key, vec![gather.columns.clone()]);
            let request = Request { disk: source.disk, operation, ..request.clone() };
            let Response::Bytes(bytes) = self.peers.call(NodeId(0), request).await? else {
                panic!("no bytes");
            };
            columns[usize::from(source.index.0)] = Some(bytes[0].clone());
        }
        let columns: Vec<Option<&[u8]>> = columns.iter().map(Option::as_deref).collect();
        let wanted = [gather.header.key.index];
        let mut column = coder(gather.scheme).reconstruct(&columns, &wanted).unwrap().remove(0);
        column[0] ^= u8::from(trouble == Trouble::Errs);
        let cells = column.chunks(gather.header.cell_bytes as usize);
        let cells = cells.map(Bytes::copy_from_slice).collect();
        let call = |operation| self.peers.call(NodeId(0), Request { operation, ..request.clone() });
        if gather.columns.start == 0 {
            call(Operation::Begin(gather.header)).await?;
        }
        call(Operation::Append(gather.header.key, cells)).await
    }
}

/// A stripe of `class` on nodes, and a reader that has them make shards.
struct Rig {
    cluster: Cluster,
    nodes: Arc<Nodes>,
    reader: StripeReader,
    written: Written,
}

impl Rig {
    async fn new(class: &str, lengths: &[u32]) -> Self {
        let cluster = Cluster::new(10);
        let mut target = cluster.target(class);
        target.disks.truncate(6);
        let written = cluster.writer.write(target, segments(lengths)).await.unwrap();
        cluster.members.remote.store(true, Ordering::Relaxed);
        let nodes = Arc::new(Nodes {
            peers: cluster.peers.clone(),
            trouble: Mutex::new(Trouble::Nothing),
            made: Mutex::default(),
            appended: Mutex::default(),
        });
        let (findings, _found) = tokio::sync::mpsc::channel(1);
        let (cpu, members) = (Arc::new(Cpu::new(2)), cluster.members.clone());
        let reader = StripeReader::new(nodes.clone(), cpu, members, findings, Arc::default());
        Self { cluster, nodes, reader, written }
    }

    async fn rebuild(&self, index: u8, disk: u32) -> Result<[u8; 32]> {
        let to = (NodeId(0), DiskId(disk));
        let record = &self.written.record;
        self.reader.rebuild_shard(record, ShardIndex(index), to, Priority::Background).await
    }

    /// The shard is on this disk as it should be, and was made there or not.
    async fn check(&self, index: u8, disk: u32, made_there: bool) {
        let mut record = self.written.record.clone();
        record.disks[usize::from(index)] = DiskId(disk);
        self.reader.verify_shard(&record, ShardIndex(index)).await.unwrap();
        let made = std::mem::take(&mut *self.nodes.made.lock().unwrap());
        let appended = std::mem::take(&mut *self.nodes.appended.lock().unwrap());
        assert_eq!((!made.is_empty(), appended == 0), (made_there, made_there), "{made:?}");
    }

    fn set(&self, trouble: Trouble) {
        *self.nodes.trouble.lock().unwrap() = trouble;
    }

    fn root(&self, index: u8) -> [u8; 32] {
        self.written.record.shard_roots[usize::from(index)]
    }

    fn is_empty(&self, disk: usize) -> bool {
        let names = self.cluster.machine.file_names(disk);
        !names.iter().any(|name| name.starts_with("shards/"))
    }
}

#[tokio::test]
async fn nodes_make_what_was_lost_and_what_is_moved() {
    for class in ["4+2", "4+2,zstd", "5+1", "replica:3"] {
        let rig = Rig::new(class, &MIXED).await;
        let k = usize::from(rig.written.record.class.scheme.k());
        for index in 0..3 {
            assert_eq!(rig.rebuild(index, 7).await.unwrap(), rig.root(index));
            assert_eq!(rig.nodes.made.lock().unwrap()[0].from.len(), k);
            rig.check(index, 7, true).await;
            let (record, to) = (&rig.written.record, (NodeId(0), DiskId(8)));
            let copied =
                rig.reader.copy_shard(record, ShardIndex(index), to, Priority::Background).await;
            assert_eq!(copied.unwrap(), rig.root(index));
            assert_eq!(rig.nodes.made.lock().unwrap()[0].from, [index]);
            rig.check(index, 8, true).await;
        }
    }
}

#[tokio::test]
async fn large_shards_are_made_piece_by_piece_several_at_once() {
    let rig = Rig::new("4+2", &[65_536; 90]).await;
    *rig.cluster.members.down.lock().unwrap() = [1, 4].into();
    let to = |disk| (NodeId(0), DiskId(disk));
    let lost = [(ShardIndex(1), to(6)), (ShardIndex(4), to(7))];
    let record = &rig.written.record;
    let roots = rig.reader.rebuild_shards(record, &lost, Priority::Background).await.unwrap();
    assert_eq!(roots, [rig.root(1), rig.root(4)]);
    {
        let made = rig.nodes.made.lock().unwrap();
        assert_eq!(made.len(), 4, "{made:?}");
        assert!(made.iter().all(|made| made.from == [0, 2, 3, 5]), "{made:?}");
        let starts = (made[0].columns.start, made[2].columns.start);
        assert_eq!(starts, (0, made[0].columns.end), "{made:?}");
        assert_eq!(made[3].columns.end, record.geometry().shard_bytes());
    }
    rig.check(1, 6, true).await;
}

#[tokio::test]
async fn where_a_disk_is_not_a_node_s_the_bytes_go_through_here() {
    let rig = Rig::new("4+2", &MIXED).await;
    assert_eq!(rig.rebuild(2, 9).await.unwrap(), rig.root(2));
    rig.check(2, 9, false).await;
    let mut record = rig.written.record.clone();
    assert!(rig.reader.gathers(&record));
    record.disks[2] = DiskId(9);
    assert!(!rig.reader.gathers(&record));
    // Shard 2 is a source now.
    let to = (NodeId(0), DiskId(7));
    let rebuilt = rig.reader.rebuild_shard(&record, ShardIndex(0), to, Priority::Background).await;
    assert_eq!(rebuilt.unwrap(), rig.root(0));
    rig.check(0, 7, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_cannot_reach_others_rests() {
    for trouble in [
        Trouble::Lacks(ErrorKind::Unavailable),
        Trouble::Lacks(ErrorKind::Refused),
        Trouble::Fails(ErrorKind::Corrupt),
    ] {
        let rig = Rig::new("4+2", &MIXED).await;
        rig.set(trouble);
        assert_eq!(rig.rebuild(1, 7).await.unwrap(), rig.root(1));
        rig.check(1, 7, false).await;
        rig.set(Trouble::Nothing);
        assert_eq!(rig.rebuild(1, 7).await.unwrap(), rig.root(1));
        rig.check(1, 7, false).await;
        assert_eq!(rig.rebuild(1, 8).await.unwrap(), rig.root(1));
        rig.check(1, 8, true).await;
        tokio::time::advance(REST).await;
        assert_eq!(rig.rebuild(1, 7).await.unwrap(), rig.root(1));
        rig.check(1, 7, true).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_nodes_get_wrong_is_made_here() {
    for trouble in [
        Trouble::Errs,
        Trouble::Lacks(ErrorKind::Corrupt),
        // Whatever others say: only the disk itself fences.
        Trouble::Lacks(ErrorKind::Superseded),
        Trouble::Fails(ErrorKind::Posix(crate::error::Posix::NoSpace)),
    ] {
        let rig = Rig::new("4+2", &MIXED).await;
        rig.set(trouble);
        assert_eq!(rig.rebuild(1, 7).await.unwrap(), rig.root(1));
        rig.nodes.made.lock().unwrap().clear();
        rig.check(1, 7, false).await;
        // Nobody is to blame for longer than that.
        rig.set(Trouble::Nothing);
        assert_eq!(rig.rebuild(1, 7).await.unwrap(), rig.root(1));
        rig.check(1, 7, true).await;
    }
}

#[tokio::test]
async fn whoever_is_fenced_hears_of_it() {
    for kind in [ErrorKind::Fenced, ErrorKind::Superseded] {
        let rig = Rig::new("4+2", &MIXED).await;
        rig.set(Trouble::Fails(kind));
        assert_eq!(rig.rebuild(1, 7).await.unwrap_err().kind(), kind);
        assert!(rig.is_empty(7));
        assert_eq!(*rig.nodes.appended.lock().unwrap(), 0);
    }
}
