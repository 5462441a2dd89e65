//! A stripe writer and a reader on simulated disks, for the tests of this module.

use crate::class::Class;
use crate::cpu::Cpu;
use crate::disk::pace::PATIENCE_MAX;
use crate::disk::queue::DiskQueue;
use crate::disk::set::{DiskHandle, DiskSet};
use crate::disk::sim::SimMachine;
use crate::error::Result;
use crate::net::gather::NodeAddress;
use crate::net::{Operation, Peers, Priority, Request, Response, Seal, ShardHeader, ShardKey};
use crate::shard::serve::LocalPeers;
use crate::shard::store::{ShardStore, StoreLimits};
use crate::stripe::flight::Flights;
use crate::stripe::reader::{Finding, Members, Piece, Presence, StripeReader};
use crate::stripe::writer::{NewSegment, StripeWriter, Target, Written};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::{
    ChunkIndex, ClassId, DiskId, Epoch, Incarnation, Ino, NodeId, SegmentAddress, SegmentIndex,
    ShardIndex, StripeId, VolumeId,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc::{Receiver, channel};

const LIMITS: StoreLimits = StoreLimits { footer_bytes: 1 << 20, open_files: 8 };

/// Members of which a test takes some down.
#[derive(Debug, Default)]
pub(super) struct TestMembers {
    /// Disks that are known to be down.
    pub(super) down: Mutex<BTreeSet<u32>>,
    /// Disks that are slow to answer.
    pub(super) suspects: Mutex<BTreeSet<u32>>,
    /// Whether each disk is that of a node of its own, but for disk 9.
    pub(super) remote: AtomicBool,
}

impl Members for TestMembers {
    fn node(&self, disk: DiskId) -> Option<NodeId> {
        (!self.down.lock().unwrap().contains(&disk.0)).then_some(NodeId(0))
    }

    fn address(&self, disk: DiskId) -> Option<NodeAddress> {
        let remote = self.remote.load(Ordering::Relaxed) && disk != DiskId(9);
        let node = || NodeAddress { name: format!("n{disk}"), address: "10.0.0.1:1".to_owned() };
        self.node(disk).filter(|_here| remote).map(|_here| node())
    }

    fn epoch(&self) -> Epoch {
        Epoch(3)
    }

    fn disks(&self) -> BTreeMap<DiskId, Presence> {
        let down = self.down.lock().unwrap();
        down.iter().map(|disk| (DiskId(*disk), Presence::Away)).collect()
    }

    fn is_suspect(&self, disk: DiskId) -> bool {
        self.suspects.lock().unwrap().contains(&disk.0)
    }

    fn patience(&self) -> Duration {
        PATIENCE_MAX
    }

    fn note_silent(&self, _disk: DiskId) {}

    fn has_room(&self, _disk: DiskId) -> bool {
        true
    }
}

/// Peers of which some disks never answer, or late.
#[derive(Debug)]
pub(super) struct Silent {
    pub(super) peers: Arc<LocalPeers>,
    pub(super) disks: Vec<u32>,
    pub(super) late: BTreeMap<u32, Duration>,
}

impl Peers for Silent {
    fn call(&self, node: NodeId, request: Request) -> BoxFuture<'_, Result<Response>> {
        if self.disks.contains(&request.disk.0) {
            return Box::pin(std::future::pending());
        }
        let late = self.late.get(&request.disk.0).copied().unwrap_or_default();
        let call = self.peers.call(node, request);
        Box::pin(async move {
            tokio::time::sleep(late).await;
            call.await
        })
    }
}

/// Disks 0.. of one machine with a writer and a reader.
pub(super) struct Cluster {
    pub(super) machine: SimMachine,
    pub(super) peers: Arc<LocalPeers>,
    pub(super) members: Arc<TestMembers>,
    pub(super) writer: StripeWriter,
    pub(super) reader: StripeReader,
    findings: Receiver<Finding>,
    disks: u32,
}

impl Cluster {
    pub(super) fn new(disks: u32) -> Self {
        let machine = SimMachine::new(u64::from(disks), disks as usize);
        let handle = |id: u32| {
            let (id, disk) = (DiskId(id), machine.disk(id as usize));
            (
                id,
                id.to_string(),
                Some(Arc::new(DiskHandle { id, disk, queue: DiskQueue::inline() })),
            )
        };
        let set = Arc::new(DiskSet::new((0..disks).map(handle).collect()));
        let peers = Arc::new(LocalPeers::new(set));
        let (cpu, members) = (Arc::new(Cpu::new(2)), Arc::new(TestMembers::default()));
        let (sender, findings) = channel(100);
        let writer = StripeWriter::new(peers.clone(), cpu.clone(), Arc::default());
        let reader = StripeReader::new(peers.clone(), cpu, members.clone(), sender, Arc::default());
        let cluster = Self { machine, peers, members, writer, reader, findings, disks };
        cluster.reopen();
        cluster
    }

    /// Opens all stores anew, so that nothing comes from their memory.
    pub(super) fn reopen(&self) {
        for id in 0..self.disks {
            let disk = self.machine.disk(id as usize);
            let store = ShardStore::open(VolumeId([7; 16]), DiskId(id), disk, LIMITS, false);
            self.peers.add_store(DiskId(id), Arc::new(store.unwrap()));
        }
    }

    pub(super) fn target(&self, class: &str) -> Target {
        Target {
            id: StripeId::new(Incarnation(1), 5),
            flight: Flights::default().begin(StripeId::new(Incarnation(1), 5)),
            class_id: ClassId(1),
            class: class.parse::<Class>().unwrap(),
            epoch: Epoch(3),
            disks: (0..self.disks).map(|disk| (NodeId(0), DiskId(disk))).collect(),
            priority: Priority::Sync,
            whole: true,
        }
    }

    pub(super) async fn write(&self, class: &str, segments: &[NewSegment]) -> Written {
        self.writer.write(self.target(class), segments.to_vec()).await.unwrap()
    }

    /// From now on these disks are silent for the writer and the reader.
    pub(super) fn silence(&mut self, disks: &[u32]) {
        self.disturb(disks, &[]);
    }

    /// Disks `silent` never answer from now on, and each of `late` so much later.
    pub(super) fn disturb(&mut self, silent: &[u32], late: &[(u32, Duration)]) {
        let (peers, late) = (Arc::clone(&self.peers), late.iter().copied().collect());
        let silent = Silent { peers, disks: silent.to_vec(), late };
        let (silent, cpu) = (Arc::new(silent), Arc::new(Cpu::new(2)));
        let (sender, findings) = channel(100);
        self.findings = findings;
        self.writer = StripeWriter::new(silent.clone(), cpu.clone(), Arc::default());
        self.reader = StripeReader::new(silent, cpu, self.members.clone(), sender, Arc::default());
    }

    /// Reads everything and compares.
    pub(super) async fn check(&self, written: &Written, segments: &[NewSegment]) {
        let read = self.reader.read(&written.record, &whole(written)).await.unwrap();
        assert_eq!(read.len(), segments.len());
        for (at, (read, segment)) in read.iter().zip(segments).enumerate() {
            assert!(*read == segment.data, "segment {at}");
        }
    }

    /// Shards that were reported since the last call, each once.
    pub(super) fn found(&mut self) -> BTreeSet<u8> {
        std::iter::from_fn(|| self.findings.try_recv().ok()).map(|found| found.shard.0).collect()
    }

    /// Name of the one shard file on a disk.
    pub(super) fn file(&self, written: &Written, index: u8) -> (usize, String) {
        let disk = written.record.disks[usize::from(index)].0 as usize;
        let end = format!("/{}.{}", written.record.id, ShardIndex(index));
        let name = self.machine.file_names(disk).into_iter().find(|name| name.ends_with(&end));
        (disk, name.unwrap())
    }

    /// Replaces a shard by another that is valid in itself, but wrong.
    pub(super) async fn lie(&self, written: &Written, index: u8) {
        let record = &written.record;
        let disk = record.disks[usize::from(index)];
        let key = ShardKey { stripe: record.id, index: ShardIndex(index) };
        let call = |operation| {
            let priority = Priority::Background;
            let request = Request { disk, epoch: Epoch(3), priority, operation };
            self.peers.call(NodeId(0), request)
        };
        let header = ShardHeader {
            key,
            class: record.class_id,
            data_shards: record.class.scheme.k(),
            parity_shards: record.class.scheme.m(),
            cell_bytes: record.class.cell_bytes,
            epoch: record.epoch,
        };
        let table = self.reader.slots(record).await.unwrap().encode();
        call(Operation::Begin(header)).await.unwrap();
        for row in 0..record.geometry().rows() {
            let length = usize::try_from(record.geometry().cell_bytes_of(row)).unwrap();
            let cell = Bytes::from(vec![index ^ 0x5a; length]);
            call(Operation::Append(key, vec![cell])).await.unwrap();
        }
        let payload_bytes = record.payload_bytes;
        let seal = Seal { payload_bytes, slot_table: Bytes::from(table) };
        call(Operation::Seal(key, seal)).await.unwrap();
    }
}

/// Pieces for all bytes of all frames.
pub(super) fn whole(written: &Written) -> Vec<Piece> {
    let piece = |frame: &crate::extent::FrameRef| Piece {
        frame: *frame,
        offset: 0,
        length: frame.raw_bytes,
    };
    written.frames.iter().map(piece).collect()
}

/// Segments of these lengths: every third one compresses well.
pub(super) fn segments(lengths: &[u32]) -> Vec<NewSegment> {
    let mut state = 0x9e37_79b9_u32;
    let mut noise = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    let segment = |(at, length): (u16, &u32)| NewSegment {
        address: SegmentAddress { ino: Ino(9), chunk: ChunkIndex(2), segment: SegmentIndex(at) },
        data: match at % 3 {
            2 => Bytes::from(vec![b'a' + at.to_le_bytes()[0] % 26; *length as usize]),
            _ => (0..*length).map(|_byte| noise()).collect(),
        },
    };
    (0..).zip(lengths).map(segment).collect()
}

/// Lengths that give full and short rows, and frames across cells.
pub(super) const MIXED: [u32; 12] =
    [65536, 1, 8192, 65536, 63, 65, 65536, 40000, 8193, 65536, 65535, 100];
