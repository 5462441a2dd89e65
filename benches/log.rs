//! Group commit of the record log on three local disks: `cargo bench --bench log`. The directories are under
//! `TMPDIR`, so on one device; put it on the device to measure.

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ironfs::disk::local::LocalDisk;
use ironfs::disk::queue::DiskQueue;
use ironfs::disk::set::DiskHandle;
use ironfs::meta::log::record::Batch;
use ironfs::meta::log::{Chain, LogDisk, LogWriter, SEGMENT_BYTES, SegmentLog};
use ironfs::types::{DiskId, Epoch, LogPosition, VolumeId};
use std::path::Path;
use std::sync::Arc;

const CHAIN: Chain = Chain { volume: VolumeId([1; 16]), base: Epoch(1) };
/// Bytes of a command: a `Create` with a short name.
const COMMAND_BYTES: usize = 120;
/// Older log is trimmed as checkpoints do, so that the device does not fill.
const TRIM_RECORDS: u64 = 100_000;

fn log_disk(root: &Path, number: u32) -> LogDisk {
    let path = root.join(number.to_string());
    std::fs::create_dir(&path).expect("a new directory");
    let disk = Arc::new(LocalDisk::open(&path).expect("the directory is there"));
    let writer =
        LogWriter::begin(disk.clone(), CHAIN, SEGMENT_BYTES, None).expect("an empty directory");
    let queue = DiskQueue::threads("bench", 2, 64).expect("threads");
    LogDisk::new(Arc::new(DiskHandle { id: DiskId(number), disk, queue }), writer)
}

/// One round: seal a batch, append it on all disks, sync.
async fn round(log: &SegmentLog, first: LogPosition, commands: &[Bytes]) -> LogPosition {
    let batch = Arc::new(Batch::seal(CHAIN, CHAIN.base, first, commands));
    let end = batch.end();
    let failed = log.append(batch).await;
    assert!(failed.is_empty(), "{failed:?}");
    if end.get() % TRIM_RECORDS < commands.len() as u64 {
        let failed = log.trim(end).await;
        assert!(failed.is_empty(), "{failed:?}");
    }
    end
}

fn group_commit(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut group = criterion.benchmark_group("log");
    group.sample_size(10);
    for records in [1_usize, 16, 256, 4096] {
        let root = tempfile::tempdir().expect("a temporary directory");
        let log = SegmentLog::new((1..4).map(|number| log_disk(root.path(), number)).collect());
        let commands = vec![Bytes::from(vec![0x5a; COMMAND_BYTES]); records];
        let mut next = LogPosition(0);
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(BenchmarkId::new("commit", records), |bencher| {
            bencher.iter(|| next = runtime.block_on(round(&log, next, &commands)));
        });
    }
    group.finish();
}

criterion_group!(benches, group_commit);
criterion_main!(benches);
