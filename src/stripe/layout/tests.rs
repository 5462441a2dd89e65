use super::*;
use crate::erasure::Scheme;

fn class(k: u8, m: u8, cell_bytes: u32) -> Class {
    let scheme = if k == 1 { Scheme::Replica(m + 1) } else { Scheme::ReedSolomon { k, m } };
    Class { cell_bytes, ..Class::new(scheme) }
}

#[test]
fn every_payload_byte_has_a_place_of_its_own() {
    for (k, m) in [(1, 1), (2, 1), (3, 2), (5, 3)] {
        for payload in [1, 63, 64, 65, 127, 128, 129, 640, 641, 1000, 1280, 1281, 5000] {
            let geometry = Geometry::new(&class(k, m, 128), payload);
            let mut seen = std::collections::BTreeSet::new();
            for offset in 0..payload {
                let place = geometry.locate(offset);
                assert!(u64::from(place.row.0) < geometry.rows());
                assert!(place.shard.0 < k);
                assert!(place.offset < geometry.cell_bytes_of(u64::from(place.row.0)));
                assert_eq!(geometry.payload_offset(place), offset);
                assert!(seen.insert((place.row, place.shard, place.offset)));
            }
        }
    }
}

#[test]
fn shards_hold_the_cells_of_all_rows() {
    for payload in [1, 64, 500, 512, 513, 4096, 12345] {
        let geometry = Geometry::new(&class(4, 2, 128), payload);
        let cells: u64 = (0..geometry.rows()).map(|row| geometry.cell_bytes_of(row)).sum();
        assert_eq!(geometry.shard_bytes(), cells);
        assert_eq!(geometry.coded_bytes(), cells * 6);
        assert!(cells * 4 >= payload && cells.is_multiple_of(UNIT_BYTES));
        assert!((cells * 4 - payload) < 4 * UNIT_BYTES + 4);
        let columns: Vec<_> = (0..geometry.rows()).map(|row| geometry.columns_of(row)).collect();
        assert_eq!(merge(columns, 0), [0..cells]);
    }
}

#[test]
fn the_last_row_is_short() {
    let geometry = Geometry::new(&class(4, 2, 65600), 4 * 65600 + 100);
    assert_eq!(
        (geometry.rows(), geometry.cell_bytes_of(0), geometry.cell_bytes_of(1)),
        (2, 65600, 64)
    );
    assert_eq!(geometry.shard_bytes(), 65664);
    let place = geometry.locate(4 * 65600 + 70);
    assert_eq!((place.row.0, place.shard.0, place.offset), (1, 1, 6));
}

#[test]
fn parts_cover_a_range_in_order() {
    let geometry = Geometry::new(&class(3, 2, 128), 1000);
    for start in (0..1000).step_by(37) {
        for end in (start..=1000).step_by(41) {
            let mut at = start;
            for part in geometry.parts(start..end) {
                let place = geometry.locate(at);
                assert_eq!(part.shard, place.shard);
                assert_eq!(part.columns.start, u64::from(place.row.0) * 128 + place.offset);
                at += part.columns.end - part.columns.start;
            }
            assert_eq!(at, end);
        }
    }
}

#[test]
fn whole_frames_of_neighbours_are_one_range_of_each_shard() {
    let geometry = Geometry::new(&class(4, 2, 65600), 64 * 65600);
    let of_first: Vec<_> = geometry
        .parts(0..64 * 65600)
        .filter(|part| part.shard == ShardIndex(0))
        .map(|part| part.columns)
        .collect();
    assert_eq!(merge(of_first, 0), [0..16 * 65600]);
}

#[test]
fn ranges_merge_and_align() {
    assert_eq!(merge(vec![10..20, 0..5, 20..30, 7..7], 0), [0..5, 10..30]);
    assert_eq!(merge(vec![10..20, 0..5], 5), [0..20]);
    assert_eq!(merge(vec![0..50, 10..20], 0), [0..50]);
    assert_eq!(align(&(65..65)), 64..128);
    assert_eq!(align(&(1..64)), 0..64);
}
