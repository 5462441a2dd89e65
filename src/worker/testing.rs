//! A small volume in memory for the tests of workers: simulated disks, a real state, stripes on them.

use super::clean::Room;
use super::orphans::Orphans;
use super::rebalance::{Rebalance, RebalanceParts};
use super::repair::{Attempt, Journal, Now, Repair, RepairParts};
use super::throttle::{Caps, Throttle};
use super::{Mover, Shards, Step, Worker};
use crate::class::Class;
use crate::cpu::Cpu;
use crate::disk::pace::PATIENCE_MAX;
use crate::disk::queue::DiskQueue;
use crate::disk::set::{DiskHandle, DiskSet, DiskState, DiskStatus};
use crate::disk::sim::SimMachine;
use crate::error::{Error, Result};
use crate::limits::{CHUNK_BYTES, SEGMENT_BYTES};
use crate::meta::client::MetaClient;
use crate::meta::command::{
    Answer, Command, FileUpdate, HotExtent, Inode, NewNode, SegmentCommit, segment_address,
};
use crate::meta::store::Totals;
use crate::meta::testing::MemLog;
use crate::net::{Operation, Peers, Priority, Request, Response, ShardKey};
use crate::shard::serve::LocalPeers;
use crate::shard::store::{ShardStore, StoreLimits};
use crate::stripe::flight::Flights;
use crate::stripe::layout::StripeRecord;
use crate::stripe::reader::{Finding, Members, Piece, Presence, StripeReader};
use crate::stripe::writer::{NewSegment, Placer, StripeWriter, Target};
use crate::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use crate::sync::{Arc, Mutex};
use crate::types::{
    ChunkIndex, ClassId, DiskId, Epoch, FileKind, Incarnation, Ino, NodeId, ROOT_INO, SegmentIndex,
    SlotIndex, StripeId, Timestamp, VolumeId,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::sync::mpsc::Receiver;

const SEGMENT: usize = SEGMENT_BYTES as usize;

/// The volume.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) machine: SimMachine,
    pub(super) disks: Arc<DiskSet>,
    pub(super) peers: Arc<LocalPeers>,
    pub(super) log: Arc<MemLog>,
    pub(super) meta: MetaClient,
    pub(super) reader: StripeReader,
    pub(super) writer: StripeWriter,
    pub(super) placer: Arc<RigPlacer>,
    pub(super) shards: Shards,
    pub(super) members: Arc<RigMembers>,
    /// What repair told.
    pub(super) journal: Arc<RigJournal>,
    /// Seconds since 1970, for what is noted.
    pub(super) seconds: Arc<AtomicI64>,
    _findings: Receiver<Finding>,
    next_name: AtomicU32,
}

/// Gives the disks in use, in order, and ids of one incarnation.
#[derive(Debug)]
pub(super) struct RigPlacer {
    disks: Arc<DiskSet>,
    pub(super) members: Arc<RigMembers>,
    counter: AtomicU32,
    pub(super) incarnation: Incarnation,
    pub(super) flights: Flights,
}

impl Placer for RigPlacer {
    fn target(&self, class_id: ClassId, class: Class, priority: Priority) -> Result<Target> {
        let counter = self.counter.fetch_add(1, Ordering::Relaxed);
        let id = StripeId::new(self.incarnation, counter);
        let disks = self.disks.healthy().iter().map(|disk| (NodeId(0), disk.id)).collect();
        let flight = self.flights.begin(id);
        let whole = priority != Priority::Background;
        Ok(Target { id, flight, class_id, class, epoch: Epoch(1), disks, priority, whole })
    }

    fn home(&self, _id: StripeId, _class: Class) -> Vec<DiskId> {
        let disks = self.members.disks().into_iter();
        disks
            .filter(|(_disk, presence)| *presence == Presence::Here)
            .map(|(disk, _)| disk)
            .collect()
    }

    fn beside(&self, record: &StripeRecord, _kept: &[DiskId]) -> Vec<(NodeId, DiskId)> {
        let others = self.disks.healthy().into_iter();
        let others = others.filter(|disk| !record.disks.contains(&disk.id));
        others.map(|disk| (NodeId(0), disk.id)).collect()
    }
}

/// Keeps all attempts.
#[derive(Debug, Default)]
pub(super) struct RigJournal(pub(super) Mutex<Vec<Attempt>>);

impl Journal for RigJournal {
    fn record(&self, attempt: Attempt) {
        self.0.lock().unwrap().push(attempt);
    }
}

#[derive(Debug)]
pub(super) struct RigMembers {
    disks: Arc<DiskSet>,
    out: Mutex<BTreeSet<DiskId>>,
    /// Disks that are to be emptied.
    pub(super) leaving: Mutex<BTreeSet<DiskId>>,
    /// Disks that have no room.
    pub(super) tight: Mutex<BTreeSet<DiskId>>,
}

impl Members for RigMembers {
    fn node(&self, disk: DiskId) -> Option<NodeId> {
        self.disks.get(disk).map(|_handle| NodeId(0))
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    fn disks(&self) -> BTreeMap<DiskId, Presence> {
        let states = self.disks.states().into_iter();
        let (out, leaving) = (self.out.lock().unwrap(), self.leaving.lock().unwrap());
        let presence = |status: &DiskStatus| match &status.state {
            _given_up if out.contains(&status.id) => Presence::Out,
            DiskState::Healthy | DiskState::Suspect if leaving.contains(&status.id) => {
                Presence::Leaving
            }
            DiskState::Healthy | DiskState::Suspect => Presence::Here,
            DiskState::Down(_) => Presence::Away,
        };
        states.map(|status| (status.id, presence(&status))).collect()
    }

    fn is_suspect(&self, _disk: DiskId) -> bool {
        false
    }

    fn patience(&self) -> Duration {
        PATIENCE_MAX
    }

    fn note_silent(&self, _disk: DiskId) {}

    fn has_room(&self, disk: DiskId) -> bool {
        !self.tight.lock().unwrap().contains(&disk)
    }
}

impl Rig {
    /// A volume of `class` on `count` disks, in its first mount.
    pub(super) fn new(class: &str, count: u32) -> Self {
        let machine = SimMachine::new(7, count as usize);
        let handles: Vec<_> = (0..count).map(|number| handle(&machine, number)).collect();
        let named = |handle: &Arc<DiskHandle>| {
            (handle.id, format!("d{}", handle.id), Some(Arc::clone(handle)))
        };
        let disks = Arc::new(DiskSet::new(handles.iter().map(named).collect()));
        let peers = Arc::new(LocalPeers::new(Arc::clone(&disks)));
        let limits = StoreLimits { footer_bytes: 1 << 20, open_files: 64 };
        for handle in &handles {
            let (id, disk) = (handle.id, Arc::clone(&handle.disk));
            let store = ShardStore::open(VolumeId([7; 16]), id, disk, limits, false).unwrap();
            peers.add_store(id, Arc::new(store));
        }
        let log = MemLog::formatted(class);
        let cpu = Arc::new(Cpu::new(2));
        let rig_members = Arc::new(RigMembers {
            disks: Arc::clone(&disks),
            out: Mutex::default(),
            leaving: Mutex::default(),
            tight: Mutex::default(),
        });
        let members: Arc<dyn Members> = rig_members.clone();
        let seam: Arc<dyn Peers> = peers.clone();
        let (sender, findings) = tokio::sync::mpsc::channel(16);
        let placer = RigPlacer {
            disks: Arc::clone(&disks),
            members: rig_members.clone(),
            counter: AtomicU32::new(1),
            incarnation: Incarnation(1),
            flights: Flights::default(),
        };
        Self {
            machine,
            meta: log.client(),
            reader: StripeReader::new(
                seam.clone(),
                cpu.clone(),
                members.clone(),
                sender,
                Arc::default(),
            ),
            writer: StripeWriter::new(seam.clone(), cpu, Arc::default()),
            shards: Shards::new(seam, members),
            placer: Arc::new(placer),
            disks,
            peers,
            log,
            members: rig_members,
            journal: Arc::default(),
            seconds: Arc::new(AtomicI64::new(1_000_000)),
            _findings: findings,
            next_name: AtomicU32::new(2),
        }
    }

    /// Takes a disk out of use.
    pub(super) fn fail_disk(&self, disk: u32) {
        self.disks.fail(DiskId(disk), &Error::unavailable("the test says so"));
    }

    /// Gives a disk up.
    pub(super) fn give_up(&self, disk: u32) {
        self.fail_disk(disk);
        self.members.out.lock().unwrap().insert(DiskId(disk));
    }

    /// The clock of `seconds`.
    pub(super) fn now(&self) -> Now {
        let seconds = Arc::clone(&self.seconds);
        Arc::new(move || Timestamp { seconds: seconds.load(Ordering::Relaxed), nanoseconds: 0 })
    }

    /// Counts on its own what it moves.
    pub(super) fn mover(&self) -> Mover {
        Mover {
            reader: self.reader.clone(),
            writer: self.writer.clone(),
            placer: self.placer.clone(),
            moves: Arc::default(),
        }
    }

    /// What it has in `incarnation`.
    pub(super) fn orphans(&self, incarnation: Incarnation, complete: bool) -> Orphans {
        let (meta, shards) = (self.meta.clone(), self.shards.clone());
        Orphans::new(meta, shards, self.placer.flights.clone(), (incarnation, complete))
    }

    /// A repair worker over all of it.
    pub(super) fn repair(&self) -> Repair {
        Repair::new(RepairParts {
            meta: self.meta.clone(),
            reader: self.reader.clone(),
            shards: self.shards.clone(),
            placer: self.placer.clone(),
            now: self.now(),
            journal: self.journal.clone(),
            throttle: self.throttle(),
            concurrency: 4,
        })
    }

    /// A rebalance worker over all of it.
    pub(super) fn rebalance(&self) -> Rebalance {
        Rebalance::new(RebalanceParts {
            meta: self.meta.clone(),
            shards: self.shards.clone(),
            placer: self.placer.clone(),
            repair: Arc::new(self.repair()),
            throttle: self.throttle(),
        })
    }

    /// One that holds nobody up.
    fn throttle(&self) -> Arc<Throttle> {
        Arc::new(Throttle::new(Caps::default(), Arc::default()))
    }

    /// Puts a disk into use again, with what it holds.
    pub(super) fn admit_disk(&self, disk: u32) {
        self.disks.admit(handle(&self.machine, disk));
    }

    /// A new, empty file.
    pub(super) async fn create(&self) -> Ino {
        let ino = Ino(u64::from(self.next_name.fetch_add(1, Ordering::Relaxed)));
        let node = NewNode::new(ino, FileKind::File, 0o600);
        let name = ino.to_string().into_bytes();
        let time = Timestamp::default();
        let command = Command::Create { parent: ROOT_INO, name, node, time };
        self.meta.propose_inode(command).await.unwrap().ino
    }

    /// Removes a file.
    pub(super) async fn unlink(&self, ino: Ino) {
        let name = ino.to_string().into_bytes();
        let time = Timestamp::default();
        let command = Command::Unlink { parent: ROOT_INO, name, keep: false, time };
        self.meta.propose(command).await.unwrap();
    }

    /// The inode of a file.
    pub(super) fn inode(&self, ino: Ino) -> Inode {
        self.meta.view().unwrap().inode(ino).unwrap().unwrap()
    }

    /// Writes whole segments from `first` on as one stripe; answers its id.
    pub(super) async fn write(&self, ino: Ino, first: u64, data: &[u8]) -> StripeId {
        let command = self.prepare(ino, first, data).await;
        let Command::CommitExtents { stripe, .. } = &command else { unreachable!() };
        let id = stripe.id;
        match self.meta.propose(command).await.unwrap() {
            Answer::Committed { skipped, .. } => assert!(skipped.is_empty()),
            other => panic!("{other:?}"),
        }
        id
    }

    /// Puts whole segments from `first` on as one stripe; answers what commits it.
    pub(super) async fn prepare(&self, ino: Ino, first: u64, data: &[u8]) -> Command {
        let inode = self.inode(ino);
        let class = self.meta.view().unwrap().class(inode.class).unwrap().unwrap();
        let addresses = (first..).map(|number| segment_address(ino, number).unwrap());
        let segments: Vec<NewSegment> = addresses
            .zip(data.chunks(SEGMENT))
            .map(|(address, data)| NewSegment { address, data: Bytes::copy_from_slice(data) })
            .collect();
        let target = self.placer.target(inode.class, class, Priority::Sync).unwrap();
        let written = self.writer.write(target, segments.clone()).await.unwrap();
        let view = self.meta.view().unwrap();
        let commits = (0..).zip(&segments).zip(&written.frames).map(|((slot, segment), frame)| {
            let chunk = view.chunk(&inode, segment.address.chunk).unwrap();
            SegmentCommit {
                address: segment.address,
                expected: chunk.version(segment.address.segment),
                slot: SlotIndex(slot),
                frame: *frame,
            }
        });
        let commits = commits.collect();
        let end = first * u64::from(SEGMENT_BYTES) + data.len() as u64;
        let files = vec![update(&inode, end)];
        Command::CommitExtents { stripe: written.record, segments: commits, files }
    }

    /// Writes small data into the metadata; it does not cross a segment.
    pub(super) async fn write_hot(&self, ino: Ino, offset: u64, data: &[u8]) {
        let extent = HotExtent {
            chunk: ChunkIndex(u32::try_from(offset / CHUNK_BYTES).unwrap()),
            offset: u32::try_from(offset % CHUNK_BYTES).unwrap(),
            data: Bytes::copy_from_slice(data),
        };
        let file = update(&self.inode(ino), offset + data.len() as u64);
        self.meta.propose(Command::CommitHot { file, extents: vec![extent] }).await.unwrap();
    }

    /// The content of a file of at most one chunk, read through extents and hot bytes.
    pub(super) async fn read(&self, ino: Ino) -> Vec<u8> {
        let view = self.meta.view().unwrap();
        let inode = self.inode(ino);
        let mut content = vec![0; usize::try_from(inode.size).unwrap().next_multiple_of(SEGMENT)];
        let chunk = view.chunk(&inode, ChunkIndex(0)).unwrap();
        for (segment, place) in chunk.map.iter() {
            let record = view.stripe(place.stripe).unwrap().unwrap();
            let piece = Piece { frame: place.frame, offset: 0, length: place.frame.raw_bytes };
            let bytes = self.reader.read(&record, &[piece]).await.unwrap();
            let start = usize::from(segment.0) * SEGMENT;
            content[start..start + bytes[0].len()].copy_from_slice(&bytes[0]);
        }
        for hot in chunk.hot {
            let start = hot.offset as usize;
            content[start..start + hot.data.len()].copy_from_slice(&hot.data);
        }
        content.truncate(usize::try_from(inode.size).unwrap());
        content
    }

    /// The stripe that a segment of the first chunk lies in.
    pub(super) fn stripe_of(&self, ino: Ino, segment: u16) -> Option<StripeId> {
        let chunk = self.meta.view().unwrap().chunk(&self.inode(ino), ChunkIndex(0)).unwrap();
        chunk.map.get(SegmentIndex(segment)).map(|place| place.stripe)
    }

    /// All live stripes.
    pub(super) fn stripes(&self) -> Vec<StripeRecord> {
        let stripes = self.meta.view().unwrap().stripes(None, 10_000).unwrap();
        stripes.into_iter().map(|(record, _live)| record).collect()
    }

    /// Ids of all stripes in the delete queue.
    pub(super) fn dead(&self) -> Vec<StripeId> {
        let dead = self.meta.view().unwrap().dead_stripes(None, 10_000).unwrap();
        dead.into_iter().map(|record| record.id).collect()
    }

    /// What each disk in use holds.
    pub(super) async fn on_disks(&self) -> BTreeMap<DiskId, Vec<ShardKey>> {
        let mut found = BTreeMap::new();
        for disk in self.disks.healthy() {
            let list = Operation::List { after: None, limit: 10_000, seen: false };
            let Response::Keys(keys) = self.call(disk.id, list).await.unwrap() else { panic!() };
            found.insert(disk.id, keys);
        }
        found
    }

    /// Number of shards on all disks in use.
    pub(super) async fn shard_count(&self) -> usize {
        self.on_disks().await.values().map(Vec::len).sum()
    }

    /// Sends one operation to a disk.
    pub(super) async fn call(&self, disk: DiskId, operation: Operation) -> Result<Response> {
        let request = Request { disk, epoch: Epoch(1), priority: Priority::Background, operation };
        self.peers.call(NodeId(0), request).await
    }
}

fn handle(machine: &SimMachine, number: u32) -> Arc<DiskHandle> {
    let disk = machine.disk(number as usize);
    Arc::new(DiskHandle { id: DiskId(number), disk, queue: DiskQueue::inline() })
}

fn update(inode: &Inode, end: u64) -> FileUpdate {
    FileUpdate { ino: inode.ino, size: inode.size.max(end), mtime: None, ctime: None }
}

/// Steps a worker until it is not busy; answers how it ended.
pub(super) async fn settle(worker: &dyn Worker) -> Step {
    for _ in 0..1000 {
        match worker.step().await.unwrap() {
            Step::Busy => {}
            step => return step,
        }
    }
    panic!("{} does not end", worker.name());
}

/// Bytes that differ everywhere and do not compress.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..length).map(|_| next()).collect()
}

/// There is always room to move segments.
#[derive(Debug)]
pub(crate) struct Plenty;

impl Room for Plenty {
    fn may_move(&self, _class: ClassId, _payload_bytes: u64, _gains: bool) -> bool {
        true
    }

    fn is_scarce(&self, _class: ClassId, _dead_bytes: u64) -> bool {
        false
    }

    fn is_awaited(&self) -> bool {
        false
    }

    fn note_look(&self, _of: Totals, _gains: BTreeMap<ClassId, u64>) {}
}
