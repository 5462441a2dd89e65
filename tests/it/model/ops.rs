//! The operations of a history. Their operands are bare numbers, taken modulo what exists when they run: so every
//! list of operations can run, and a part of it too.

use crate::sim::disk::{Call, SimRng};
use std::fmt;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Create,
    Mkdir,
    Mknod,
    Symlink,
    Link,
    Unlink,
    Rmdir,
    Rename,
    Exchange,
    RenameNoReplace,
    Write,
    Append,
    WritePages,
    WriteEach,
    Truncate,
    Read,
    Punch,
    ZeroRange,
    Fallocate,
    Copy,
    SetXattr,
    RemoveXattr,
    Chmod,
    Chown,
    SetTimes,
    Fsync,
    Open,
    OpenTruncate,
    Close,
    Wrong,
    Sync,
    Checkpoint,
    Remount,
    SyncAndKill,
    SyncAndCut,
    Wait,
    Repair,
    HoldRepair,
    LoseDisk,
    ReturnDisk,
    Outage,
    LongOutage,
    Rot,
    FailCalls,
    Squeeze,
    Enlarge,
}

/// How often each kind comes, of the sum of all.
const WEIGHTS: &[(Kind, u64)] = &[
    (Kind::Create, 16),
    (Kind::Mkdir, 6),
    (Kind::Mknod, 1),
    (Kind::Symlink, 2),
    (Kind::Link, 5),
    (Kind::Unlink, 10),
    (Kind::Rmdir, 3),
    (Kind::Rename, 8),
    (Kind::Exchange, 3),
    (Kind::RenameNoReplace, 2),
    (Kind::Write, 34),
    (Kind::Append, 8),
    (Kind::WritePages, 4),
    (Kind::WriteEach, 3),
    (Kind::Truncate, 10),
    (Kind::Read, 10),
    (Kind::Punch, 6),
    (Kind::ZeroRange, 4),
    (Kind::Fallocate, 4),
    (Kind::Copy, 8),
    (Kind::SetXattr, 6),
    (Kind::RemoveXattr, 3),
    (Kind::Chmod, 3),
    (Kind::Chown, 3),
    (Kind::SetTimes, 5),
    (Kind::Fsync, 12),
    (Kind::Open, 6),
    (Kind::OpenTruncate, 3),
    (Kind::Close, 5),
    (Kind::Wrong, 5),
    (Kind::Sync, 8),
    (Kind::Checkpoint, 2),
    (Kind::Remount, 3),
    (Kind::SyncAndKill, 2),
    (Kind::SyncAndCut, 2),
    (Kind::Wait, 10),
    (Kind::Repair, 4),
    (Kind::HoldRepair, 6),
    (Kind::LoseDisk, 3),
    (Kind::ReturnDisk, 3),
    (Kind::Outage, 2),
    (Kind::LongOutage, 2),
    (Kind::Rot, 3),
    (Kind::FailCalls, 3),
    (Kind::Squeeze, 2),
    (Kind::Enlarge, 2),
];

/// How a history begins.
const FIRST: [Kind; 10] = [
    Kind::Create,
    Kind::Write,
    Kind::Create,
    Kind::Write,
    Kind::Write,
    Kind::Sync,
    Kind::Create,
    Kind::Write,
    Kind::Write,
    Kind::Sync,
];
/// `length` of this, beyond a multiple of 16, is up to 300 000.
const LARGE: u64 = 8;

/// One operation with its operands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    pub(super) kind: Kind,
    pub(super) a: u64,
    pub(super) b: u64,
    pub(super) c: u64,
    pub(super) d: u64,
}

pub(super) fn generate(seed: u64, count: usize) -> Vec<Op> {
    let mut rng = SimRng::new(seed);
    let sum: u64 = WEIGHTS.iter().map(|(_kind, weight)| weight).sum();
    let mut op = || {
        let mut left = rng.below(sum);
        let kind = WEIGHTS.iter().find(|(_kind, weight)| {
            let is_it = left < *weight;
            left = left.saturating_sub(*weight);
            is_it
        });
        let (kind, _weight) = kind.unwrap_or(&WEIGHTS[0]);
        // Small numbers, so that a history can be read.
        let mut operand = || rng.below(100_000);
        Op { kind: *kind, a: operand(), b: operand(), c: operand(), d: operand() }
    };
    let mut ops: Vec<Op> = (0..count).map(|_number| op()).collect();
    // Without stripes there would be little to lose.
    for (op, kind) in ops.iter_mut().zip(FIRST) {
        op.kind = kind;
        if kind == Kind::Write {
            op.c = LARGE + op.c / 16 * 16;
        }
    }
    ops
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, a, b, c, d } = self;
        write!(f, "{kind:?} {a} {b} {c} {d}")
    }
}

/// An operation as it is written.
pub(super) fn parse(line: &str) -> Option<Op> {
    let mut words = line.split_whitespace();
    let word = words.next()?;
    let (kind, _weight) = WEIGHTS.iter().find(|(kind, _weight)| format!("{kind:?}") == word)?;
    let operands: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
    let [a, b, c, d] = operands.try_into().ok()?;
    Some(Op { kind: *kind, a, b, c, d })
}

/// A call of a disk that fails.
pub(super) fn call(raw: u64) -> Call {
    const CALLS: [Call; 9] = [
        Call::SyncData,
        Call::SyncDir,
        Call::Write,
        Call::Create,
        Call::Read,
        Call::Open,
        Call::SetLen,
        Call::Remove,
        Call::Rename,
    ];
    // Half of them are syncs: what was not synced is in doubt for ever.
    if raw.is_multiple_of(2) {
        Call::SyncData
    } else {
        CALLS[usize::try_from(raw / 2 % 9).unwrap()]
    }
}

/// A name of a few letters: names have to meet.
pub(super) fn name(raw: u64) -> &'static [u8] {
    const NAMES: [&[u8]; 7] =
        [b"a", b"b", b"c", b"aa", b"ab", b"abcdefghijklmnopqrstuvwxyz-", b"c."];
    NAMES[usize::try_from(raw % 7).unwrap()]
}

/// A row of class 4+2: where its segments and cells meet.
const ROW: u64 = 4 * (64 * 1024 + 64);
const MARKS: [u64; 9] = [0, 2048, 4096, 8192, 65_536, 2 * 65_536, 4 * 65_536, ROW, 7 * 65_536];
/// Files stay below this, but for a rare one.
const SIZE_MAX: u64 = 600 * 1024;
const CHUNK: u64 = 32 << 20;

/// A place in a file of `size` bytes: near a mark, near its end, or anywhere.
pub(super) fn offset(raw: u64, size: usize) -> usize {
    let size = size as u64;
    let near = raw / 100 % 3;
    let mark = match raw % 32 {
        0..9 => MARKS[usize::try_from(raw % 32).unwrap()],
        9..15 => size,
        15..18 => size / 2,
        18 if (raw / 300).is_multiple_of(24) => CHUNK,
        _ => return usize::try_from(raw * 7919 % SIZE_MAX).unwrap(),
    };
    usize::try_from((mark + near).saturating_sub(1)).unwrap()
}

pub(super) fn length(raw: u64) -> usize {
    const LENGTHS: [u64; 8] = [1, 100, 2048, 4096, 8192, 65_536, 3 * 65_536, ROW];
    let near = raw / 100 % 3;
    let mark = match raw % 16 {
        0..8 => LENGTHS[usize::try_from(raw % 16).unwrap()],
        8..11 => 1 + raw * 31 % 300_000,
        _ => 1 + raw * 31 % 20_000,
    };
    usize::try_from((mark + near).saturating_sub(1)).unwrap()
}

/// Bytes that differ from write to write; one in three is easy to compress.
pub(super) fn data(raw: u64, length: usize) -> Vec<u8> {
    let mut rng = SimRng::new(raw);
    if raw.is_multiple_of(3) {
        let word = rng.next().to_le_bytes();
        return word.iter().copied().cycle().take(length).collect();
    }
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&rng.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}
