use super::{
    Dentry, Live, ReapEntry, RepairEntry, decode_dentry, decode_hot, decode_inode, decode_listing,
    decode_totals, encode_dentry, encode_inode, encode_listing, encode_totals, new_inode,
};
use crate::error::ErrorKind;
use crate::format::Writer;
use crate::meta::command::Inode;
use crate::meta::tables::Totals;
use crate::sum::xxh3;
use crate::types::{ChunkIndex, ClassId, FileKind, Incarnation, Ino, Timestamp, Version};
use bytes::Bytes;

fn sample() -> Inode {
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

fn row(inode: &Inode) -> Vec<u8> {
    let mut w = Writer::new();
    encode_inode(inode, &mut w);
    w.into_vec()
}

fn inode_row() -> Vec<u8> {
    row(&sample())
}

/// An inode of which nothing can be left out.
fn full() -> Inode {
    let time = |seconds| Timestamp { seconds, nanoseconds: 5 };
    let (mtime, ctime) = (time(7), time(8));
    Inode { rdev: 0x0801, mtime, ctime, next_cookie: 6, ..sample() }
}

#[test]
fn every_field_of_an_inode_round_trips_alone() {
    let plain = Inode { links: 1, ..new_inode(Ino(9), FileKind::File) };
    assert_eq!((row(&plain).len(), decode_inode(&row(&plain)).unwrap()), (52, plain.clone()));
    let time = Timestamp { seconds: 3, nanoseconds: 4 };
    let each = [
        Inode { uid: 1, ..plain.clone() },
        Inode { gid: 1, ..plain.clone() },
        Inode { links: 0, ..plain.clone() },
        Inode { rdev: 1, ..plain.clone() },
        Inode { atime: time, ..plain.clone() },
        Inode { mtime: time, ..plain.clone() },
        Inode { ctime: time, ..plain.clone() },
        Inode { floor: Version(1), ..plain.clone() },
        Inode { cut: Some(ChunkIndex(0)), ..plain.clone() },
        Inode { size: 1, ..plain.clone() },
        Inode { allocated_bytes: 1, ..plain.clone() },
        Inode { reserved_bytes: 1, ..plain.clone() },
        Inode { has_xattrs: true, ..plain.clone() },
        Inode { next_cookie: 2, ..plain.clone() },
        Inode { inline: Bytes::from_static(b"x"), ..plain },
        full(),
    ];
    for inode in each {
        assert_eq!(decode_inode(&row(&inode)).unwrap(), inode);
    }
}

/// What version 1 wrote for `full`.
#[test]
fn inodes_of_version_1_are_read() {
    let inode = full();
    let mut w = Writer::new();
    w.u8(1);
    w.u64(inode.ino.0);
    w.u8(inode.kind.code());
    for value in [inode.mode, inode.uid, inode.gid, inode.links, inode.rdev] {
        w.u32(value);
    }
    w.u64(inode.size);
    for time in [inode.atime, inode.mtime, inode.ctime] {
        w.i64(time.seconds);
        w.u32(time.nanoseconds);
    }
    w.u16(inode.class.0);
    for value in [inode.parent.0, inode.version.0, inode.floor.0] {
        w.u64(value);
    }
    w.flag(true);
    w.u32(3);
    w.u64(inode.allocated_bytes);
    w.u64(inode.reserved_bytes);
    w.flag(inode.has_xattrs);
    w.u64(inode.next_cookie);
    w.bytes(&inode.inline);
    assert_eq!(decode_inode(w.as_slice()).unwrap(), inode);
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
    assert_eq!(RepairEntry::decode(&repair_entry().encode()).unwrap(), repair_entry());
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
    let hex: String = row(&full()).iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, INODE);
    let mut live = Live::new(9);
    assert!(live.set(8, true));
    assert_eq!(live.encode(), [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 1]);
    assert_eq!(decode_hot(&[9, 0, 0, 0, 0, 0, 0, 0, b'x']).unwrap(), (Version(9), &b"x"[..]));
    let dentry = Dentry { ino: Ino(5), kind: FileKind::Symlink, cookie: 11 };
    let listing = encode_listing(Ino(6), FileKind::Fifo, b"name");
    let entry = ReapEntry { from: ChunkIndex(7), whole: true };
    let repair = repair_entry().encode();
    let rows = [encode_dentry(dentry), listing, entry.encode(), totals_row(), repair];
    assert_eq!(rows.map(|row| (row.len(), xxh3(&row))), ROWS);
}

fn repair_entry() -> RepairEntry {
    let since = Timestamp { seconds: 5, nanoseconds: 6 };
    let retry = Timestamp { seconds: 7, nanoseconds: 8 };
    RepairEntry { since, bad: 0b1001, attempts: 3, retry }
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
const ROWS: [(usize, u64); 5] = [
    (18, 0x9d16_be01_6861_7201),
    (14, 0x4aa9_a915_4991_38db),
    (6, 0xc110_b7c4_7f4f_9a13),
    (69, 0x4320_f3e6_fa07_2569),
    (37, 0xf645_5c9c_e6fe_4096),
];

/// `full` as it is stored.
const INODE: &str = concat!(
    "02ff074d0000000000000001ed0902004d00000000000000090000000000000000f2052a01000000",
    "ffffffffffffffffffc99a3be80300006400000003000000010800000700000000000000050000000800000000000000",
    "050000000400000000000000030000000c000000000000000d00000000000000060000000000000068656c6c6f",
);

#[test]
fn damaged_rows_are_refused() {
    let row = inode_row();
    // What is left of a row that ends in its inline content is a shorter inline content: the page has a sum.
    for length in 0..row.len() - sample().inline.len() {
        assert!(decode_inode(&row[..length]).is_err(), "length {length}");
    }
    let mut newer = row;
    newer[2] = 8;
    assert_eq!(decode_inode(&newer).unwrap_err().kind(), ErrorKind::Corrupt);
    newer[0] = 3;
    assert_eq!(decode_inode(&newer).unwrap_err().kind(), ErrorKind::Refused);
    assert!(decode_hot(&[0; 8]).is_err(), "no content");
    assert!(Live::decode(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255]).is_err());
}
