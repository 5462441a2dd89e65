//! Random commands, with the whole state checked against itself as they go.

use super::{Bench, TIME, frame, node, update};
use crate::limits::SEGMENT_BYTES;
use crate::meta::command::{
    Answer, Command, HotExtent, Rename, RenameMode, SegmentCommit, SegmentMove, SetAttributes,
    segment_address,
};
use crate::types::{FileKind, Ino, SlotIndex, StripeId};
use bytes::Bytes;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Create(u8, u8, bool),
    Link(u8, u8, u8),
    Remove(u8, u8, bool),
    Rename((u8, u8), (u8, u8), u8),
    Truncate(u8, u32),
    Punch(u8, u8, u8),
    Commit(u8, Vec<(u8, bool)>),
    Hot(u8, u32, u16),
    Inline(u8, u16),
    Clone(u8, u8, u8, u8, u8),
    Move(u8),
    Reserve(u8, u16),
    Reap,
    Remount,
    Forget,
}

fn step() -> impl Strategy<Value = Step> {
    let b = any::<u8>;
    prop_oneof![
        4 => (b(), b(), any::<bool>()).prop_map(|(a, n, d)| Step::Create(a, n, d)),
        1 => (b(), b(), b()).prop_map(|(i, a, n)| Step::Link(i, a, n)),
        2 => (b(), b(), any::<bool>()).prop_map(|(a, n, k)| Step::Remove(a, n, k)),
        2 => ((b(), b()), (b(), b()), b()).prop_map(|(f, t, m)| Step::Rename(f, t, m)),
        2 => (b(), 0..20 * SEGMENT_BYTES).prop_map(|(i, s)| Step::Truncate(i, s)),
        1 => (b(), b(), b()).prop_map(|(i, f, c)| Step::Punch(i, f, c)),
        6 => (b(), prop::collection::vec((b(), prop::bool::weighted(0.1)), 1..8))
            .prop_map(|(i, s)| Step::Commit(i, s)),
        3 => (b(), 0..20 * SEGMENT_BYTES, 1..9000_u16).prop_map(|(i, o, l)| Step::Hot(i, o, l)),
        1 => (b(), 0..2048_u16).prop_map(|(i, l)| Step::Inline(i, l)),
        2 => (b(), b(), b(), b(), b()).prop_map(|(f, a, t, o, c)| Step::Clone(f, a, t, o, c)),
        2 => b().prop_map(Step::Move),
        1 => (b(), any::<u16>()).prop_map(|(i, r)| Step::Reserve(i, r)),
        1 => Just(Step::Reap),
        1 => Just(Step::Remount),
        1 => Just(Step::Forget),
    ]
}

struct Run {
    bench: Bench,
    next_ino: u64,
    incarnation: u32,
}

/// Three directories at most, and eight names, so that steps meet.
fn name(n: u8) -> Vec<u8> {
    vec![b'a' + n % 8]
}

impl Run {
    fn ino(&self, pick: u8) -> Ino {
        Ino(1 + u64::from(pick) % self.next_ino.max(2))
    }

    fn dir(&self, pick: u8) -> Ino {
        let dirs: Vec<u64> = (1..=self.next_ino)
            .filter(|ino| self.bench.inode(*ino).is_some_and(|i| i.kind == FileKind::Directory))
            .collect();
        Ino(dirs[usize::from(pick) % dirs.len().min(3)])
    }

    fn command(&mut self, step: &Step) -> Option<Command> {
        let set = SetAttributes::default();
        Some(match step {
            Step::Create(at, n, dir) => {
                self.next_ino += 1;
                let kind = if *dir { FileKind::Directory } else { FileKind::File };
                let node = node(self.next_ino, kind);
                Command::Create { parent: self.dir(*at), name: name(*n), node, time: TIME }
            }
            Step::Link(ino, at, n) => Command::Link {
                ino: self.ino(*ino),
                parent: self.dir(*at),
                name: name(*n),
                time: TIME,
            },
            Step::Remove(at, n, keep) => {
                let (parent, name, keep) = (self.dir(*at), name(*n), *keep);
                match self.bench.log.store().view().unwrap().lookup(parent, &name).unwrap() {
                    Some((_ino, FileKind::Directory)) => {
                        Command::Rmdir { parent, name, keep, time: TIME }
                    }
                    _ => Command::Unlink { parent, name, keep, time: TIME },
                }
            }
            Step::Rename(from, to, mode) => Command::Rename(Rename {
                from: self.dir(from.0),
                from_name: name(from.1),
                to: self.dir(to.0),
                to_name: name(to.1),
                mode: [RenameMode::Replace, RenameMode::NoReplace, RenameMode::Exchange]
                    [usize::from(*mode) % 3],
                whiteout: None,
                time: TIME,
            }),
            Step::Truncate(ino, size) => {
                Command::Truncate { ino: self.ino(*ino), size: u64::from(*size), set }
            }
            Step::Punch(ino, first, count) => Command::Punch {
                ino: self.ino(*ino),
                first: u64::from(*first % 20),
                count: u64::from(*count % 20),
                set,
            },
            Step::Commit(ino, segments) => return self.commit(self.ino(*ino), segments),
            Step::Hot(ino, offset, length) => self.hot(self.ino(*ino), *offset, *length),
            Step::Clone(from, from_first, to, to_first, count) => {
                let (from, to) = (self.ino(*from), self.ino(*to));
                self.share(from, to, (*from_first, *to_first, *count))
            }
            Step::Inline(ino, length) => Command::CommitInline {
                file: update(self.ino(*ino).0, u64::from(*length)),
                data: Bytes::from(vec![1; usize::from(*length)]),
            },
            Step::Move(pick) => return self.relocate(*pick),
            Step::Reserve(ino, bytes) => {
                let ino = self.ino(*ino);
                let file = update(ino.0, self.size(ino));
                Command::Reserve { ino, bytes: u64::from(*bytes), file }
            }
            Step::Reap => Command::Reap { chunks: 2 },
            Step::Remount => {
                self.incarnation += 1;
                Command::StartMount { incarnation: crate::types::Incarnation(self.incarnation) }
            }
            Step::Forget => {
                let dead = self.bench.log.store().view().unwrap().dead_stripes(None, 3).unwrap();
                Command::ForgetStripes { stripes: dead.iter().map(|record| record.id).collect() }
            }
        })
    }

    fn hot(&self, ino: Ino, offset: u32, length: u16) -> Command {
        let length = u32::from(length).min(SEGMENT_BYTES - offset % SEGMENT_BYTES);
        let size = self.size(ino).max(u64::from(offset + length));
        let extents = vec![HotExtent {
            chunk: crate::types::ChunkIndex(0),
            offset,
            data: Bytes::from(vec![7; length as usize]),
        }];
        Command::CommitHot { file: update(ino.0, size), extents }
    }

    /// Shares up to eight of the first segments of `from` with `to`.
    fn share(&self, from: Ino, to: Ino, (first, to_first, count): (u8, u8, u8)) -> Command {
        let (first, to_first) = (u64::from(first % 20), u64::from(to_first % 20));
        let count = u64::from(count % 8) + 1;
        let end = (to_first + count) * u64::from(SEGMENT_BYTES);
        let file = update(to.0, self.size(to).max(end));
        Command::CloneExtents { from, from_first: first, to, to_first, count, file }
    }

    fn size(&self, ino: Ino) -> u64 {
        self.bench.inode(ino.0).map_or(0, |inode| inode.size)
    }

    fn commit(&mut self, ino: Ino, segments: &[(u8, bool)]) -> Option<Command> {
        let stripe = self.bench.stripe(u32::try_from(segments.len()).unwrap());
        let mut commits = Vec::new();
        let mut size = self.size(ino);
        for (slot, (segment, stale)) in (0..).zip(segments) {
            let number = u64::from(segment % 20);
            let mut expected = self.bench.version(ino.0, number);
            expected.0 = expected.0.saturating_sub(u64::from(*stale));
            commits.push(SegmentCommit {
                address: segment_address(ino, number).unwrap(),
                expected,
                slot: SlotIndex(slot),
                frame: frame(slot),
            });
            size = size.max((number + 1) * u64::from(SEGMENT_BYTES));
        }
        Some(Command::CommitExtents { stripe, segments: commits, files: vec![update(ino.0, size)] })
    }

    /// Moves all live slots of some stripe, the way the cleaner does.
    fn relocate(&mut self, pick: u8) -> Option<Command> {
        let view = self.bench.log.store().view().unwrap();
        let stripes = view.stripes(None, 100).unwrap();
        let id = stripes.get(usize::from(pick) % stripes.len().max(1))?.0.id;
        let usage = view.stripe_usage(id).unwrap().unwrap();
        let mut moves = Vec::new();
        for (slot, from_slot) in (0..).zip(&usage.live) {
            for address in owners(&view, id, *from_slot) {
                moves.push(SegmentMove {
                    address,
                    from_stripe: id,
                    from_slot: *from_slot,
                    slot: SlotIndex(slot),
                    frame: frame(slot),
                });
            }
        }
        let stripe = self.bench.stripe(u32::try_from(usage.live.len()).unwrap());
        Some(Command::MoveExtents { stripe, segments: moves })
    }
}

/// Owners of a slot, found the slow way.
fn owners(
    view: &crate::meta::store::View,
    stripe: StripeId,
    slot: SlotIndex,
) -> Vec<crate::types::SegmentAddress> {
    let rows = view.chunk_rows(None, 10_000).unwrap();
    let mut found = Vec::new();
    for (ino, chunk, map) in rows {
        for (segment, place) in map.iter() {
            if (place.stripe, place.slot) == (stripe, slot) {
                found.push(crate::types::SegmentAddress { ino, chunk, segment });
            }
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn state_agrees_with_itself(steps in prop::collection::vec(step(), 1..60)) {
        let mut run = Run { bench: Bench::new(), next_ino: 1, incarnation: 1 };
        for step in &steps {
            let Some(command) = run.command(step) else { continue };
            match run.bench.apply(command) {
                Ok(Answer::Committed { .. } | _) | Err(_) => run.bench.check(),
            }
        }
    }
}
