//! Sealing and opening frames of whole segments: `cargo bench --bench frame`.

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ironfs::class::Compression;
use ironfs::limits::SEGMENT_BYTES;
use ironfs::stripe::frame::{self, Frame};
use std::hint::black_box;

const COMPRESSIONS: [(&str, Compression); 2] =
    [("raw", Compression::None), ("zstd", Compression::Zstd(3))];

/// A segment that zstd makes about half as long: runs of noise and of zeros.
fn segment() -> Bytes {
    let mut state = 0x9e37_79b9_u32;
    let mut noise = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..SEGMENT_BYTES).map(|at| if at / 64 % 2 == 0 { noise() } else { 0 }).collect()
}

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    group.throughput(Throughput::Bytes(u64::from(SEGMENT_BYTES)));
    let segment = segment();
    for (name, compression) in COMPRESSIONS {
        group.bench_function(name, |bencher| {
            bencher.iter(|| Frame::seal(compression, black_box(segment.clone())));
        });
    }
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open");
    group.throughput(Throughput::Bytes(u64::from(SEGMENT_BYTES)));
    for (name, compression) in COMPRESSIONS {
        let sealed = Frame::seal(compression, segment());
        let reference = sealed.reference(0);
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let body = black_box(&sealed.body).to_vec();
                frame::open(&reference, 0..SEGMENT_BYTES, 0, &sealed.header, body)
            });
        });
    }
    group.finish();
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
