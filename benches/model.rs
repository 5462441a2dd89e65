//! Commands that the state machine applies per second, over a store in memory: `cargo bench --bench model`.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ironfs::class::Class;
use ironfs::extent::FrameRef;
use ironfs::limits::{CELL_BYTES, SEGMENT_BYTES};
use ironfs::meta::command::{
    Command, FileUpdate, HotExtent, NewNode, SegmentCommit, segment_address,
};
use ironfs::meta::store::Store;
use ironfs::stripe::layout::StripeRecord;
use ironfs::types::{
    ClassId, DiskId, Epoch, FileKind, Incarnation, Ino, ROOT_INO, SlotIndex, StripeId, Timestamp,
    Version,
};

/// Commands in one batch: what arrives during one sync under load.
const BATCH: u64 = 256;
/// Segments that one stripe commit names: a chunk.
const SEGMENTS: u32 = 512;
const CACHE_BYTES: usize = 64 << 20;
const TIME: Timestamp = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };

/// A formatted state in memory, with a mount under way and `files` files.
struct State {
    store: Store,
    next: u64,
}

impl State {
    fn new(files: u64) -> Self {
        let backend = redb::backends::InMemoryBackend::new();
        let store = Store::open(backend, CACHE_BYTES).expect("an empty store");
        let mut state = Self { store, next: ROOT_INO.0 + 1 };
        state.apply(&[
            Command::Genesis { class: class(), uid: 0, gid: 0, time: TIME },
            Command::StartMount { incarnation: Incarnation(1) },
        ]);
        let creates = state.creates(files);
        state.apply(&creates);
        state
    }

    fn apply(&mut self, commands: &[Command]) {
        let replies = self.store.apply(self.store.applied(), commands).expect("memory works");
        assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    }

    fn creates(&mut self, count: u64) -> Vec<Command> {
        let first = self.next;
        self.next += count;
        (first..self.next).map(create).collect()
    }
}

fn class() -> Class {
    "4+2".parse().expect("a class")
}

fn create(ino: u64) -> Command {
    let node = NewNode::new(Ino(ino), FileKind::File, 0o644);
    Command::Create { parent: ROOT_INO, name: format!("file-{ino}").into(), node, time: TIME }
}

fn update(ino: u64, size: u64) -> FileUpdate {
    FileUpdate { ino: Ino(ino), size, mtime: Some(TIME), ctime: None }
}

/// 4 KiB that an fsync puts into the log.
fn hot(ino: u64) -> Command {
    let data = Bytes::from_static(&[0x5a; 4096]);
    let chunk = ironfs::types::ChunkIndex(0);
    Command::CommitHot {
        file: update(ino, 8192),
        extents: vec![HotExtent { chunk, offset: 4096, data }],
    }
}

/// A chunk of a file in one new stripe.
fn extents(ino: u64, counter: u32) -> Command {
    let segment = |number: u32| SegmentCommit {
        address: segment_address(Ino(ino), u64::from(number)).expect("in the first chunk"),
        expected: Version(0),
        slot: SlotIndex(number),
        frame: FrameRef {
            payload_offset: number * CELL_BYTES,
            body_bytes: SEGMENT_BYTES,
            raw_bytes: SEGMENT_BYTES,
            compressed: false,
            header_sum: u64::from(number),
        },
    };
    let stripe = StripeRecord {
        id: StripeId::new(Incarnation(1), counter),
        class_id: ClassId(0),
        class: class(),
        epoch: Epoch(1),
        payload_bytes: u64::from(SEGMENTS) * u64::from(CELL_BYTES),
        slots: SEGMENTS,
        disks: (1..7).map(DiskId).collect(),
        missing: 0,
        shard_roots: vec![[0; 32]; 6],
    };
    let size = u64::from(SEGMENTS) * u64::from(SEGMENT_BYTES);
    Command::CommitExtents {
        stripe,
        segments: (0..SEGMENTS).map(segment).collect(),
        files: vec![update(ino, size)],
    }
}

fn commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("model");
    group.sample_size(10);
    group.throughput(Throughput::Elements(BATCH));
    let first = ROOT_INO.0 + 1;
    let mut state = State::new(0);
    group.bench_function("create", |bencher| {
        bencher.iter(|| {
            let creates = state.creates(BATCH);
            state.apply(&creates);
        });
    });
    group.throughput(Throughput::Elements(1));
    let mut state = State::new(0);
    group.bench_function("create alone", |bencher| {
        bencher.iter(|| {
            let creates = state.creates(1);
            state.apply(&creates);
        });
    });
    group.throughput(Throughput::Elements(BATCH));
    let mut state = State::new(BATCH);
    let hots: Vec<Command> = (first..first + BATCH).map(hot).collect();
    group.bench_function("commit_hot", |bencher| bencher.iter(|| state.apply(&hots)));
    group.throughput(Throughput::Elements(1));
    group.bench_function("commit_extents", |bencher| {
        let fresh = || State::new(1);
        bencher.iter_batched_ref(
            fresh,
            |state| state.apply(&[extents(first, 0)]),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

criterion_group!(benches, commands);
criterion_main!(benches);
