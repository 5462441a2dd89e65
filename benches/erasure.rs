//! Encoding and reconstruction of one row of full cells, and of pieces of them: `cargo bench --bench erasure`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use ironfs::erasure::Scheme;
use ironfs::erasure::{ErasureCoder, coder};
use ironfs::limits::CELL_BYTES;
use ironfs::types::ShardIndex;
use reed_solomon_simd::ReedSolomonEncoder;
use std::hint::black_box;

const SCHEMES: [&str; 2] = ["4+2", "6+3"];
/// What a read of one block needs of each cell.
const PIECE_BYTES: u32 = 4096;

/// k data cells and their m parity cells.
fn row(coder: &dyn ErasureCoder) -> Vec<Vec<u8>> {
    let cell = |shard: u8| (0..CELL_BYTES).map(|i| i.to_le_bytes()[0] ^ shard).collect();
    let mut cells: Vec<Vec<u8>> = (0..coder.scheme().n()).map(cell).collect();
    let (data, parity) = cells.split_at_mut(usize::from(coder.scheme().k()));
    let data: Vec<_> = data.iter().map(Vec::as_slice).collect();
    coder.encode(&data, &mut parity.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
    cells
}

fn encode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode");
    for scheme in SCHEMES {
        let coder = coder(scheme.parse().expect("a scheme"));
        let mut cells = row(&*coder);
        let (data, parity) = cells.split_at_mut(usize::from(coder.scheme().k()));
        let data: Vec<_> = data.iter().map(Vec::as_slice).collect();
        let mut parity: Vec<_> = parity.iter_mut().map(Vec::as_mut_slice).collect();
        group.throughput(Throughput::Bytes(u64::from(coder.scheme().k()) * u64::from(CELL_BYTES)));
        group.bench_function(scheme, |bencher| {
            bencher.iter(|| coder.encode(black_box(&data), black_box(&mut parity)));
        });
    }
    group.finish();
}

/// The crate's encoder by itself, with its parity left where it is: our encoding should reach 80 % of it.
fn encode_bare(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("encode bare");
    for scheme in SCHEMES {
        let scheme: Scheme = scheme.parse().expect("a scheme");
        let cells = row(&*coder(scheme));
        let (k, m) = (usize::from(scheme.k()), usize::from(scheme.m()));
        let length = usize::try_from(CELL_BYTES).expect("a cell fits");
        let mut encoder = ReedSolomonEncoder::new(k, m, length).expect("the crate knows it");
        group.throughput(Throughput::Bytes((k * length) as u64));
        group.bench_function(scheme.to_string(), |bencher| {
            bencher.iter(|| {
                for cell in black_box(&cells[..k]) {
                    encoder.add_original_shard(cell).expect("as long as the others");
                }
                black_box(encoder.encode().expect("all are there").recovery(0));
            });
        });
    }
    group.finish();
}

/// The first `lost` data cells are gone, or pieces of them. Bytes are those of the row's data, as for encoding.
fn reconstruct(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reconstruct");
    for (scheme, length) in SCHEMES.iter().flat_map(|s| [(*s, CELL_BYTES), (*s, PIECE_BYTES)]) {
        let coder = coder(scheme.parse().expect("a scheme"));
        let cells = row(&*coder);
        let length = usize::try_from(length).expect("a cell fits");
        let k = usize::from(coder.scheme().k());
        group.throughput(Throughput::Bytes((k * length) as u64));
        for lost in 1..=coder.scheme().m() {
            let wanted: Vec<_> = (0..lost).map(ShardIndex).collect();
            let good: Vec<_> =
                (0..).zip(&cells).map(|(i, c)| (i >= lost).then_some(&c[..length])).collect();
            let name = BenchmarkId::new(format!("{scheme} lost {lost}"), length);
            group.bench_function(name, |bencher| {
                bencher
                    .iter(|| coder.reconstruct(black_box(&good), &wanted).expect("enough cells"));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, encode, encode_bare, reconstruct);
criterion_main!(benches);
