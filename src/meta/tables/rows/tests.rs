use super::{
    Dentry, Live, ReapEntry, decode_dentry, decode_hot, decode_inode, decode_listing,
    decode_totals, encode_dentry, encode_inode, encode_listing, encode_totals, new_inode,
};
use crate::error::ErrorKind;
use crate::format::Writer;
use crate::meta::tables::Totals;
use crate::sum::xxh3;
use crate::types::{ChunkIndex, ClassId, FileKind, Incarnation, Ino, Timestamp, Version};
use bytes::Bytes;

fn sample() -> crate::meta::command::Inode {
    let mut inode = new_inode(Ino(77), FileKind::File);
    inode.mode = 0o4755;
    inode.uid = 1000;
    inode.gid = 100;
    inode.links = 3;
    inode.size = 5_000_000_000;
    inode.atime = Timestamp { seconds: -1, nanoseconds: 999_999_999 };
    inode.class = ClassId(2);
    inode.version = Version(9);
    inode.floor = Version(4);
    inode.cut = Some(ChunkIndex(3));
    inode.allocated_bytes = 12;
    inode.reserved_bytes = 13;
    inode.has_xattrs = true;
    inode.inline = Bytes::from_static(b"hello");
    inode
}

fn inode_row() -> Vec<u8> {
    let mut w = Writer::new();
    encode_inode(&sample(), &mut w);
    w.into_vec()
}

#[test]
fn rows_round_trip() {
    assert_eq!(decode_inode(&inode_row()).unwrap(), sample());
    let dentry = Dentry { ino: Ino(5), kind: FileKind::Symlink, cookie: 11 };
    assert_eq!(decode_dentry(&encode_dentry(dentry)).unwrap(), dentry);
    let row = encode_listing(Ino(6), FileKind::Fifo, b"name");
    assert_eq!(decode_listing(&row).unwrap(), (Ino(6), FileKind::Fifo, &b"name"[..]));
    let entry = ReapEntry { from: ChunkIndex(7), whole: true };
    assert_eq!(ReapEntry::decode(&entry.encode()).unwrap(), entry);
    let totals =
        Totals { next_ino: 3, incarnation: Incarnation(2), hot_bytes: 8, ..Totals::default() };
    let mut w = Writer::new();
    encode_totals(&totals, &mut w);
    assert_eq!(decode_totals(w.as_slice()).unwrap(), totals);
}

#[test]
fn live_slots() {
    let mut live = Live::new(11);
    assert!(live.is_dead());
    assert!(live.set(10, true) && live.set(0, true) && !live.set(0, true) && !live.set(11, true));
    live.bytes = 99;
    let again = Live::decode(&live.encode()).unwrap();
    assert_eq!(again, live);
    assert_eq!(again.iter().collect::<Vec<_>>(), [0, 10]);
    assert!(live.set(10, false) && live.set(0, false) && live.is_dead());
}

/// The stored form must never change under a volume.
#[test]
fn stored_forms_are_pinned() {
    let row = inode_row();
    assert_eq!((row.len(), xxh3(&row)), (INODE_BYTES, INODE_SUM));
    let mut live = Live::new(9);
    assert!(live.set(8, true));
    assert_eq!(live.encode(), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 1]);
    assert_eq!(decode_hot(&[9, 0, 0, 0, 0, 0, 0, 0, b'x']).unwrap(), (Version(9), &b"x"[..]));
    let dentry = Dentry { ino: Ino(5), kind: FileKind::Symlink, cookie: 11 };
    let listing = encode_listing(Ino(6), FileKind::Fifo, b"name");
    let entry = ReapEntry { from: ChunkIndex(7), whole: true };
    let rows = [encode_dentry(dentry), listing, entry.encode(), totals_row()];
    assert_eq!(rows.map(|row| (row.len(), xxh3(&row))), ROWS);
}

fn totals_row() -> Vec<u8> {
    let totals = Totals {
        next_ino: 1,
        incarnation: Incarnation(2),
        inodes: 3,
        stripes: 4,
        stripe_bytes: 5,
        dead_bytes: 6,
        live_bytes: 7,
        hot_bytes: 8,
        reserved_bytes: 9,
    };
    let mut w = Writer::new();
    encode_totals(&totals, &mut w);
    w.into_vec()
}

/// Length and XXH3-64 of a dentry, a listing, a reaping entry and totals.
const ROWS: [(usize, u64); 4] = [
    (18, 0x9d16_be01_6861_7201),
    (14, 0x4aa9_a915_4991_38db),
    (6, 0xc110_b7c4_7f4f_9a13),
    (69, 0x4320_f3e6_fa07_2569),
];

const INODE_BYTES: usize = 139;
const INODE_SUM: u64 = 1_614_764_115_359_555_279;

#[test]
fn damaged_rows_are_refused() {
    let row = inode_row();
    for length in 0..row.len() {
        assert!(decode_inode(&row[..length]).is_err(), "length {length}");
    }
    let mut newer = row;
    newer[0] = 2;
    assert_eq!(decode_inode(&newer).unwrap_err().kind(), ErrorKind::Refused);
    assert!(decode_hot(&[0; 8]).is_err(), "no content");
    assert!(Live::decode(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]).is_err());
}
