use super::{GATHER_BYTES_MAX, Gather, NodeAddress, Source};
use crate::erasure::Scheme;
use crate::error::ErrorKind;
use crate::net::{ShardHeader, ShardKey};
use crate::types::{ClassId, DiskId, Epoch, ShardIndex, StripeId};

fn source(index: u8) -> Source {
    let node = NodeAddress { name: format!("n{index}"), address: "10.0.0.1:1".to_owned() };
    Source { index: ShardIndex(index), disk: DiskId(index.into()), node }
}

/// Shard 5 of a 4+2 stripe, out of these.
fn gather(sources: &[u8]) -> Gather {
    let header = ShardHeader {
        key: ShardKey { stripe: StripeId(7), index: ShardIndex(5) },
        class: ClassId(0),
        data_shards: 4,
        parity_shards: 2,
        cell_bytes: 4160,
        epoch: Epoch(1),
    };
    Gather {
        header,
        scheme: Scheme::ReedSolomon { k: 4, m: 2 },
        columns: 4160..3 * 4160 + 64,
        sources: sources.iter().copied().map(source).collect(),
    }
}

fn check(what: &str, change: impl FnOnce(&mut Gather), good: bool) {
    let mut gather = gather(&[0, 1, 2, 4]);
    change(&mut gather);
    let kind = gather.check().err().map(|error| error.kind());
    assert_eq!(kind, if good { None } else { Some(ErrorKind::Refused) }, "{what}: {gather:?}");
}

#[test]
fn what_cannot_be_carried_out_is_refused() {
    check("four others", |_gather| {}, true);
    check("itself", |g| g.sources = vec![source(5)], true);
    check("one of four", |g| g.sources = vec![source(0)], false);
    check("nothing", |g| g.sources.clear(), false);
    check("three of four", |g| drop(g.sources.pop()), false);
    check("more than four", |g| g.sources.push(source(3)), false);
    check("one twice", |g| g.sources[3] = source(0), false);
    check("itself among others", |g| g.sources[3] = source(5), false);
    check("one beyond the last", |g| g.sources[3] = source(6), false);
    check("one far beyond the last", |g| g.sources[3] = source(255), false);
    check("a shard beyond the last", |g| g.header.key.index = ShardIndex(6), false);
    check("another scheme", |g| g.header.data_shards = 3, false);
    let large = Scheme::ReedSolomon { k: 255, m: 255 };
    let grown = |g: &mut Gather| {
        g.scheme = large;
        (g.header.data_shards, g.header.parity_shards) = (255, 255);
    };
    check("a scheme beyond all limits", grown, false);
    for cell_bytes in [0, 63, 65_664, u32::MAX] {
        check("no cell", |g| g.header.cell_bytes = cell_bytes, false);
    }
    let most = GATHER_BYTES_MAX / 4;
    for (start, end, good) in [
        (0, 64, true),
        (0, most, true),
        (0, most + 64, false),
        (64, 4160, false),
        (4160, 4160, false),
        (8320, 4160, false),
        (0, 65, false),
        (0, u64::MAX, false),
        (u64::MAX, 0, false),
    ] {
        check("columns", |g| g.columns = start..end, good);
    }
}

#[test]
fn a_copy_of_a_replica_and_one_made_of_another() {
    let mut gather = gather(&[2]);
    gather.scheme = Scheme::Replica(3);
    (gather.header.data_shards, gather.header.parity_shards) = (1, 2);
    gather.header.key.index = ShardIndex(2);
    assert!(gather.check().is_ok() && gather.is_copy());
    gather.header.key.index = ShardIndex(0);
    assert!(gather.check().is_ok() && !gather.is_copy());
}

#[test]
fn a_request_has_as_many_rows_as_fit() {
    for (sources, cell_bytes) in [(1, 65_600), (4, 65_600), (32, 65_600), (10, 4160), (1, 64)] {
        let rows = Gather::rows(sources, cell_bytes);
        let bytes = |rows: u64| rows * sources as u64 * u64::from(cell_bytes);
        assert!(rows > 0 && bytes(rows) <= GATHER_BYTES_MAX && bytes(rows + 1) > GATHER_BYTES_MAX);
    }
}
