//! Writing whole stripes to directories of this machine, synced: `cargo bench --bench stripe`.

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ironfs::cpu::Cpu;
use ironfs::disk::local::LocalDisk;
use ironfs::disk::queue::DiskQueue;
use ironfs::disk::set::{DiskHandle, DiskSet};
use ironfs::limits::{SEGMENT_BYTES, SEGMENTS_PER_CHUNK};
use ironfs::net::Priority;
use ironfs::shard::serve::LocalPeers;
use ironfs::shard::store::{ShardStore, StoreLimits};
use ironfs::stripe::flight::Flights;
use ironfs::stripe::writer::{NewSegment, StripeWriter, Target};
use ironfs::types::{
    ChunkIndex, ClassId, DiskId, Epoch, Ino, NodeId, SegmentAddress, SegmentIndex, StripeId,
    VolumeId,
};
use std::path::Path;
use std::sync::Arc;

const DISKS: u32 = 6;
const LIMITS: StoreLimits = StoreLimits { footer_bytes: 1 << 20, open_files: 8 };

/// A writer to `DISKS` directories below `root`.
fn writer(root: &Path) -> StripeWriter {
    let mut handles = Vec::new();
    let mut stores = Vec::new();
    for id in (0..DISKS).map(DiskId) {
        let path = root.join(id.to_string());
        std::fs::create_dir(&path).expect("a directory");
        let disk: Arc<dyn ironfs::disk::Disk> = Arc::new(LocalDisk::open(&path).expect("a disk"));
        let store = ShardStore::open(VolumeId([7; 16]), id, Arc::clone(&disk), LIMITS, false);
        stores.push((id, Arc::new(store.expect("a store"))));
        let queue = DiskQueue::threads(&format!("disk {id}"), 2, 8).expect("threads");
        handles.push((id, id.to_string(), Some(Arc::new(DiskHandle { id, disk, queue }))));
    }
    let peers = LocalPeers::new(Arc::new(DiskSet::new(handles)));
    stores.into_iter().for_each(|(id, store)| peers.add_store(id, store));
    StripeWriter::new(Arc::new(peers), Arc::new(Cpu::new(2)), Arc::default())
}

/// The segments of one chunk.
fn chunk() -> Vec<NewSegment> {
    let data: Bytes = (0..SEGMENT_BYTES).map(|at| at.wrapping_mul(77).to_le_bytes()[1]).collect();
    let address = |segment| SegmentAddress { ino: Ino(9), chunk: ChunkIndex(0), segment };
    let segment = |at| NewSegment { address: address(SegmentIndex(at)), data: data.clone() };
    (0..SEGMENTS_PER_CHUNK).map(segment).collect()
}

fn write(criterion: &mut Criterion) {
    let root = tempfile::tempdir().expect("a directory");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads");
    let (writer, segments) = (writer(root.path()), chunk());
    let target = Target {
        // Always the same stripe: each replaces the one before, so the bench needs little space.
        id: StripeId(1),
        flight: Flights::default().begin(StripeId(1)),
        class_id: ClassId(1),
        class: "4+2".parse().expect("a class"),
        epoch: Epoch(1),
        disks: (0..DISKS).map(|disk| (NodeId(0), DiskId(disk))).collect(),
        priority: Priority::Sync,
        whole: true,
    };
    let mut group = criterion.benchmark_group("write");
    group.sample_size(10);
    group.throughput(Throughput::Bytes(u64::from(SEGMENT_BYTES) * u64::from(SEGMENTS_PER_CHUNK)));
    group.bench_function("4+2", |bencher| {
        bencher.iter_batched(
            || (target.clone(), segments.clone()),
            |(target, segments)| {
                runtime.block_on(writer.write(target, segments)).expect("a stripe")
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, write);
criterion_main!(benches);
