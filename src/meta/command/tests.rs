#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use super::*;
use crate::format::{Decoded, Reader, Writer};
use crate::sum::xxh3;
use crate::types::Epoch;

const TIME: Timestamp = Timestamp { seconds: -7, nanoseconds: 123_456_789 };
const DIR: Ino = Ino(2);
const FILE: Ino = Ino(0x0102_0304_0506);

fn node(kind: FileKind) -> NewNode {
    NewNode {
        ino: FILE,
        kind,
        mode: 0o4750,
        uid: 1000,
        gid: 100,
        rdev: 0x0803,
        target: b"where".to_vec(),
        class: Some(ClassId(3)),
        xattrs: vec![(b"user.a".to_vec(), b"1".to_vec()), (b"user.b".to_vec(), Vec::new())],
    }
}

fn set() -> SetAttributes {
    SetAttributes {
        mode: Some(0o600),
        gid: Some(5),
        mtime: Some(TIME),
        ctime: Some(TIME),
        ..SetAttributes::default()
    }
}

fn update() -> FileUpdate {
    FileUpdate { ino: FILE, size: 5_000_000_000, mtime: Some(TIME), ctime: None }
}

fn stripe() -> StripeRecord {
    StripeRecord {
        id: StripeId(0x0000_0002_0000_0009),
        class_id: ClassId(1),
        class: "2+1,zstd:5".parse().unwrap(),
        epoch: Epoch(4),
        payload_bytes: 200_000,
        slots: 4,
        disks: vec![DiskId(1), DiskId(3), DiskId(2)],
        missing: 0b100,
        shard_roots: vec![[1; 32], [2; 32], [0; 32]],
    }
}

fn frame() -> FrameRef {
    FrameRef {
        payload_offset: 65_600,
        body_bytes: 4000,
        raw_bytes: 65_536,
        compressed: true,
        header_sum: 0x1122_3344_5566_7788,
    }
}

fn address() -> SegmentAddress {
    SegmentAddress { ino: FILE, chunk: ChunkIndex(6), segment: SegmentIndex(511) }
}

fn scrub() -> ScrubState {
    ScrubState {
        passes: 2,
        running: true,
        paused: false,
        hurried: true,
        started: TIME,
        finished: Some(TIME),
        after: Some(StripeId(9)),
        stripes: 3,
        bytes: 4,
        damaged: 5,
    }
}

fn volume_commands() -> Vec<Command> {
    vec![
        Command::StartMount { incarnation: Incarnation(8) },
        Command::SetClass { id: ClassId(2), class: "replica:3".parse().unwrap() },
        Command::ReleaseOrphans { inos: vec![DIR, FILE] },
        Command::Reap { chunks: 9 },
        Command::ForgetStripes { stripes: vec![StripeId(1), StripeId(2)] },
        Command::PlaceShard {
            stripe: StripeId(7),
            index: ShardIndex(2),
            from: DiskId(1),
            disk: DiskId(4),
            root: [9; 32],
        },
        Command::NoteDamage { shards: vec![(StripeId(7), ShardIndex(1))], time: TIME },
        Command::SetScrub { state: scrub() },
        Command::NoteRepair { stripe: StripeId(7), good: 0b110, retry: Some(TIME), time: TIME },
        Command::Genesis { class: "4+2".parse().unwrap(), uid: 1, gid: 2, time: TIME },
    ]
}

fn name_commands() -> Vec<Command> {
    let (parent, name) = (DIR, b"name".to_vec());
    vec![
        Command::Create { parent, name: name.clone(), node: node(FileKind::Symlink), time: TIME },
        Command::Link { ino: FILE, parent, name: name.clone(), time: TIME },
        Command::Unlink { parent, name: name.clone(), keep: true, time: TIME },
        Command::Rmdir { parent, name: name.clone(), keep: false, time: TIME },
        Command::Rename(Rename {
            from: DIR,
            from_name: name,
            to: Ino(3),
            to_name: b"other".to_vec(),
            mode: RenameMode::Exchange,
            whiteout: Some(node(FileKind::CharDevice)),
            time: TIME,
        }),
    ]
}

fn attribute_commands() -> Vec<Command> {
    let (ino, name, set) = (FILE, b"user.x".to_vec(), set());
    vec![
        Command::SetAttributes { ino, set },
        Command::SetAccessTimes { times: vec![(ino, TIME), (DIR, Timestamp::default())] },
        Command::SetXattr {
            ino,
            name: name.clone(),
            value: b"value".to_vec(),
            mode: XattrMode::Replace,
            set,
        },
        Command::RemoveXattr { ino, name, set },
        Command::SetInodeClass { ino, class: ClassId(2), time: TIME },
    ]
}

fn data_commands() -> Vec<Command> {
    let (ino, set, file, frame) = (FILE, set(), update(), frame());
    let (address, slot) = (address(), SlotIndex(3));
    let extents =
        vec![HotExtent { chunk: ChunkIndex(6), offset: 4096, data: Bytes::from_static(b"hot") }];
    vec![
        Command::Truncate { ino, size: 77, set },
        Command::Punch { ino, first: 5, count: 6, set },
        Command::CommitExtents {
            stripe: stripe(),
            segments: vec![SegmentCommit { address, expected: Version(12), slot, frame }],
            files: vec![file],
        },
        Command::MoveExtents {
            stripe: stripe(),
            segments: vec![SegmentMove {
                address,
                from_stripe: StripeId(5),
                from_slot: SlotIndex(1),
                slot,
                frame,
            }],
        },
        Command::CommitHot { file, extents },
        Command::CommitInline { file, data: Bytes::from_static(b"inline") },
        Command::CloneExtents { from: DIR, from_first: 1, to: ino, to_first: 2, count: 3, file },
        Command::Reserve { ino, bytes: 1 << 40, file },
    ]
}

fn encoded(command: &Command) -> Vec<u8> {
    let mut w = Writer::new();
    command.encode(&mut w);
    w.into_vec()
}

fn decoded(bytes: &[u8]) -> Decoded<Command> {
    let mut r = Reader::new(bytes);
    let command = Command::decode(&mut r)?;
    r.finish()?;
    Ok(command)
}

/// Each kind of command, in the order of the tables of golden sums.
fn all() -> Vec<Command> {
    [volume_commands(), name_commands(), attribute_commands(), data_commands()].concat()
}

/// First byte, length and XXH3-64 of the stored form of each command of `all`, version 1.
const GOLDEN: [(u8, usize, u64); 28] = [
    (1, 5, 0x725e_6a10_570a_5f32),
    (2, 16, 0x79fe_b0fa_8fa7_e2aa),
    (8, 21, 0x3a9d_d4a2_d257_e3d6),
    (4, 5, 0x7b45_86cc_3f99_7ba1),
    (5, 21, 0x3726_1305_d336_082c),
    (6, 50, 0xff7f_5527_fbb2_d33f),
    (7, 26, 0x8d6e_a9bc_41c3_866e),
    (10, 70, 0xb12d_06ff_8cd4_f542),
    (9, 42, 0xbb5c_7606_f978_f118),
    (3, 34, 0x9da0_40b5_58aa_8564),
    (20, 99, 0x01fc_6e71_d3ec_0d1d),
    (21, 37, 0x3e7f_9f63_1cea_532f),
    (22, 30, 0x9589_2b1d_e445_55da),
    (23, 30, 0x2449_8c8b_3c51_d854),
    (24, 118, 0xac4b_4639_fb00_3692),
    (40, 47, 0x4e40_c709_44c3_c9f2),
    (41, 45, 0xb172_cfc4_eb89_ad99),
    (42, 67, 0x6ce8_a0c5_5cac_1e1b),
    (43, 57, 0xd7c0_3862_2160_367d),
    (44, 23, 0x240c_8fb6_f287_1900),
    (60, 55, 0xf335_a944_1696_e0e7),
    (61, 63, 0xe10c_e972_ac96_80f3),
    (62, 247, 0x1922_b2a7_87cd_9940),
    (63, 217, 0x866c_5488_cd08_ff4a),
    (64, 50, 0x303f_8731_0b0c_a253),
    (65, 41, 0x81e0_fa25_f3bd_7dd8),
    (66, 71, 0xd0cb_a915_378e_f5da),
    (67, 47, 0xecb8_5329_a25d_a098),
];

/// A log is replayed long after it was written: the stored form must never change under a version.
#[test]
fn stored_forms_are_pinned() {
    let rows: Vec<Vec<u8>> = all().iter().map(encoded).collect();
    let found: Vec<_> = rows.iter().map(|row| (row[0], row.len(), xxh3(row))).collect();
    assert_eq!(found, GOLDEN);
}

#[test]
fn stripe_records_are_pinned() {
    let mut w = Writer::new();
    stripe().encode(&mut w);
    assert_eq!((w.as_slice().len(), xxh3(w.as_slice())), STRIPE_GOLDEN);
}

/// Length and XXH3-64 of a stripe record, version 1.
const STRIPE_GOLDEN: (usize, u64) = (161, 0x7ff2_cc62_637c_1cbe);

#[test]
fn commands_come_back_as_they_were() {
    for command in all() {
        assert_eq!(decoded(&encoded(&command)), Ok(command));
    }
}

#[test]
fn cut_and_changed_bytes_never_panic() {
    for command in all() {
        let row = encoded(&command);
        for length in 0..row.len() {
            assert!(decoded(&row[..length]).is_err(), "{command:?} cut to {length}");
        }
        for at in 0..row.len() {
            for bit in 0..8 {
                let mut bad = row.clone();
                bad[at] ^= 1 << bit;
                // The record's sum finds this; decoding alone must not panic, nor take it for the same command.
                assert_ne!(decoded(&bad).as_ref(), Ok(&command), "byte {at} bit {bit}");
            }
        }
    }
}
