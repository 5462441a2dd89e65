use crate::error::Posix;
use crate::extent::FrameRef;
use crate::limits::{CHUNK_BYTES, SEGMENT_BYTES};
use crate::meta::check::check;
use crate::meta::command::{
    Answer, Command, FileUpdate, HotExtent, Inode, NewNode, Rename, RenameMode, SegmentCommit,
    SegmentMove, SetAttributes, XattrMode, segment_address,
};
use crate::meta::store::View;
use crate::meta::tables::rows::RepairEntry;
use crate::meta::testing::MemLog;
use crate::stripe::layout::StripeRecord;
use crate::types::{
    ChunkIndex, ClassId, DiskId, Epoch, FileKind, Incarnation, Ino, ROOT_INO, SegmentIndex,
    ShardIndex, SlotIndex, StripeId, Timestamp, Version,
};
use bytes::Bytes;
use std::sync::Arc;

mod links;
mod random;

const TIME: Timestamp = Timestamp { seconds: 7, nanoseconds: 8 };
const SEGMENT: u64 = SEGMENT_BYTES as u64;

pub(super) struct Bench {
    log: Arc<MemLog>,
    stripes: u32,
}

pub(super) fn node(ino: u64, kind: FileKind) -> NewNode {
    NewNode {
        ino: Ino(ino),
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        rdev: 0,
        target: if kind == FileKind::Symlink { b"target".to_vec() } else { Vec::new() },
        class: None,
        xattrs: Vec::new(),
    }
}

impl Bench {
    pub(super) fn new() -> Self {
        Self { log: MemLog::formatted("4+2"), stripes: 0 }
    }

    pub(super) fn apply(&self, command: Command) -> Result<Answer, Posix> {
        self.log.apply(command)
    }

    pub(super) fn check(&self) {
        let findings = check(&self.log.store().view().unwrap()).unwrap();
        assert!(findings.count == 0, "{:#?}", findings.list);
    }

    fn view(&self) -> View {
        self.log.store().view().unwrap()
    }

    fn create(&self, parent: u64, name: &str, ino: u64, kind: FileKind) -> Result<Inode, Posix> {
        let command = Command::Create {
            parent: Ino(parent),
            name: name.into(),
            node: node(ino, kind),
            time: TIME,
        };
        match self.apply(command)? {
            Answer::Inode(inode) => Ok(*inode),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn inode(&self, ino: u64) -> Option<Inode> {
        self.log.store().view().unwrap().inode(Ino(ino)).unwrap()
    }

    fn unlink(&self, name: &str, keep: bool) -> Result<Answer, Posix> {
        self.apply(Command::Unlink { parent: ROOT_INO, name: name.into(), keep, time: TIME })
    }

    fn rename(
        &self,
        from: (u64, &str),
        to: (u64, &str),
        mode: RenameMode,
    ) -> Result<Answer, Posix> {
        self.apply(Command::Rename(Rename {
            from: Ino(from.0),
            from_name: from.1.into(),
            to: Ino(to.0),
            to_name: to.1.into(),
            mode,
            whiteout: None,
            time: TIME,
        }))
    }

    pub(super) fn version(&self, ino: u64, segment: u64) -> Version {
        let view = self.log.store().view().unwrap();
        let Some(inode) = view.inode(Ino(ino)).unwrap() else { return Version(0) };
        let address = segment_address(Ino(ino), segment).unwrap();
        view.chunk(&inode, address.chunk).unwrap().version(address.segment)
    }

    /// A record of a stripe with `slots` full frames.
    pub(super) fn stripe(&mut self, slots: u32) -> StripeRecord {
        self.stripes += 1;
        StripeRecord {
            id: StripeId::new(Incarnation(1), self.stripes),
            class_id: ClassId(0),
            class: "4+2".parse().unwrap(),
            epoch: Epoch(1),
            payload_bytes: u64::from(slots) * (SEGMENT + 64),
            slots,
            disks: (0..6).map(DiskId).collect(),
            missing: 0,
            shard_roots: vec![[3; 32]; 6],
        }
    }

    /// Commits whole segments of one file at their present versions.
    pub(super) fn commit(&mut self, ino: u64, segments: &[u64]) -> Vec<u32> {
        let versions =
            segments.iter().map(|segment| self.version(ino, *segment)).collect::<Vec<_>>();
        self.commit_from(ino, segments, &versions)
    }

    fn commit_from(&mut self, ino: u64, segments: &[u64], versions: &[Version]) -> Vec<u32> {
        let stripe = self.stripe(u32::try_from(segments.len()).unwrap());
        let size = segments.iter().max().unwrap() * SEGMENT + SEGMENT;
        let size = self.inode(ino).map_or(size, |inode| inode.size.max(size));
        let commits =
            (0..).zip(segments).zip(versions).map(|((slot, segment), expected)| SegmentCommit {
                address: segment_address(Ino(ino), *segment).unwrap(),
                expected: *expected,
                slot: SlotIndex(slot),
                frame: frame(slot),
            });
        let command = Command::CommitExtents {
            stripe,
            segments: commits.collect(),
            files: vec![update(ino, size)],
        };
        match self.apply(command).unwrap() {
            Answer::Committed { skipped, .. } => skipped,
            other => panic!("{other:?}"),
        }
    }

    fn truncate(&self, ino: u64, size: u64) -> Result<Answer, Posix> {
        self.apply(Command::Truncate { ino: Ino(ino), size, set: SetAttributes::default() })
    }

    fn hot(&self, ino: u64, offset: u32, data: &[u8], size: u64) -> Result<Answer, Posix> {
        let data = Bytes::copy_from_slice(data);
        let extents = vec![HotExtent { chunk: ChunkIndex(0), offset, data }];
        self.apply(Command::CommitHot { file: update(ino, size), extents })
    }

    /// Hot rows of chunk 0: offset and content.
    fn hot_rows(&self, ino: u64) -> Vec<(u32, Vec<u8>)> {
        let view = self.log.store().view().unwrap();
        let inode = view.inode(Ino(ino)).unwrap().unwrap();
        let chunk = view.chunk(&inode, ChunkIndex(0)).unwrap();
        chunk.hot.into_iter().map(|hot| (hot.offset, hot.data.to_vec())).collect()
    }

    fn dead(&self) -> usize {
        self.log.store().view().unwrap().dead_stripes(None, 100).unwrap().len()
    }
}

pub(super) fn frame(slot: u32) -> FrameRef {
    FrameRef {
        payload_offset: slot * (SEGMENT_BYTES + 64),
        body_bytes: SEGMENT_BYTES,
        raw_bytes: SEGMENT_BYTES,
        compressed: false,
        header_sum: u64::from(slot),
    }
}

pub(super) fn update(ino: u64, size: u64) -> FileUpdate {
    FileUpdate { ino: Ino(ino), size, mtime: Some(TIME), ctime: Some(TIME) }
}

#[test]
fn genesis_happens_once_and_mounts_rise() {
    let bench = Bench::new();
    let class = "2+1".parse().unwrap();
    let again = Command::Genesis { class, uid: 0, gid: 0, time: TIME };
    assert_eq!(bench.apply(again), Err(Posix::Exists));
    let stale = Command::StartMount { incarnation: Incarnation(1) };
    assert_eq!(bench.apply(stale), Err(Posix::Stale));
    bench.check();
}

#[test]
fn names_and_links() {
    let bench = Bench::new();
    bench.create(1, "a", 10, FileKind::File).unwrap();
    bench.create(1, "d", 11, FileKind::Directory).unwrap();
    assert_eq!(bench.create(1, "a", 12, FileKind::File), Err(Posix::Exists));
    assert_eq!(bench.create(10, "x", 12, FileKind::File), Err(Posix::NotDirectory));
    assert_eq!(bench.create(99, "x", 12, FileKind::File), Err(Posix::NotFound));
    assert_eq!(bench.inode(1).unwrap().links, 3);
    let link = |ino, parent, name: &str| {
        bench.apply(Command::Link {
            ino: Ino(ino),
            parent: Ino(parent),
            name: name.into(),
            time: TIME,
        })
    };
    assert_eq!(link(11, 1, "dd"), Err(Posix::NotPermitted));
    link(10, 11, "b").unwrap();
    link(10, 11, "c").unwrap();
    bench.check();
    assert_eq!(bench.inode(10).unwrap().links, 3);
    bench.unlink("a", false).unwrap();
    assert_eq!(bench.inode(10).unwrap().parent, Ino(11));
    bench.check();
    assert_eq!(bench.unlink("d", false), Err(Posix::IsDirectory));
    let rmdir = |parent, name: &str| {
        bench.apply(Command::Rmdir {
            parent: Ino(parent),
            name: name.into(),
            keep: false,
            time: TIME,
        })
    };
    assert_eq!(rmdir(1, "d"), Err(Posix::NotEmpty));
    for name in ["b", "c"] {
        let name = name.into();
        bench.apply(Command::Unlink { parent: Ino(11), name, keep: true, time: TIME }).unwrap();
        bench.check();
    }
    assert_eq!(bench.inode(10).unwrap().links, 0, "kept as an orphan");
    bench.apply(Command::ReleaseOrphans { inos: vec![Ino(10), Ino(1)] }).unwrap();
    assert_eq!(bench.inode(10), None);
    rmdir(1, "d").unwrap();
    assert_eq!(bench.create(11, "x", 13, FileKind::File), Err(Posix::NotFound));
    bench.check();
}

#[test]
fn renames() {
    let bench = Bench::new();
    for (name, ino, kind) in [
        ("a", 10, FileKind::File),
        ("b", 11, FileKind::File),
        ("d", 12, FileKind::Directory),
        ("e", 13, FileKind::Directory),
    ] {
        bench.create(1, name, ino, kind).unwrap();
    }
    bench.create(12, "sub", 14, FileKind::Directory).unwrap();
    use RenameMode::{Exchange, NoReplace, Replace};
    assert_eq!(bench.rename((1, "a"), (1, "b"), NoReplace), Err(Posix::Exists));
    assert_eq!(bench.rename((1, "a"), (1, "d"), Replace), Err(Posix::IsDirectory));
    assert_eq!(bench.rename((1, "d"), (1, "a"), Replace), Err(Posix::NotDirectory));
    assert_eq!(bench.rename((1, "e"), (1, "d"), Replace), Err(Posix::NotEmpty));
    assert_eq!(bench.rename((1, "d"), (14, "x"), Replace), Err(Posix::Invalid));
    assert_eq!(bench.rename((1, "d"), (12, "x"), Replace), Err(Posix::Invalid));
    assert_eq!(bench.rename((1, "none"), (1, "x"), Replace), Err(Posix::NotFound));
    assert_eq!(bench.rename((1, "a"), (1, "none"), Exchange), Err(Posix::NotFound));
    assert_eq!(bench.rename((1, "a"), (12, "sub"), Exchange), Ok(Answer::Removed(None)));
    bench.check();
    assert_eq!((bench.inode(1).unwrap().links, bench.inode(12).unwrap().links), (5, 2));
    assert_eq!(bench.inode(14).unwrap().parent, ROOT_INO);
    bench.rename((1, "b"), (12, "sub"), Replace).unwrap();
    assert_eq!(bench.inode(10).unwrap().links, 0, "replaced, kept as an orphan");
    bench.rename((1, "e"), (1, "a"), Replace).unwrap();
    bench.rename((1, "d"), (1, "a"), Exchange).unwrap();
    bench.rename((1, "a"), (13, "in"), Replace).unwrap();
    bench.check();
    bench.apply(Command::StartMount { incarnation: Incarnation(2) }).unwrap();
    let reaped = bench.apply(Command::Reap { chunks: 8 }).unwrap();
    assert_eq!(reaped, Answer::Reaped { chunks: 2, more: false });
    assert_eq!(bench.inode(10), None);
    bench.check();
}

#[test]
fn commits_skip_what_has_moved_on() {
    let mut bench = Bench::new();
    bench.create(1, "a", 10, FileKind::File).unwrap();
    assert_eq!(bench.commit(10, &[0, 1, 600]), [0u32; 0]);
    bench.check();
    let old = bench.version(10, 1);
    bench.hot(10, SEGMENT_BYTES + 5, b"new", 601 * SEGMENT).unwrap();
    assert!(bench.version(10, 1) > old);
    let versions = [bench.version(10, 0), old];
    assert_eq!(bench.commit_from(10, &[0, 1], &versions), [1]);
    bench.check();
    assert_eq!(bench.hot_rows(10).len(), 1, "the skipped segment keeps its hot bytes");
    assert_eq!(bench.commit(10, &[1]), [0u32; 0]);
    assert!(bench.hot_rows(10).is_empty());
    bench.check();
    assert_eq!(bench.commit_from(99, &[0], &[Version(0)]), [0], "no such file");
    assert_eq!(bench.dead(), 1, "a stripe without live segments is dead at once");
    bench.commit(10, &[600]);
    assert_eq!(bench.dead(), 2);
    let dead = bench.log.store().view().unwrap().dead_stripes(None, 10).unwrap();
    let stripes = dead.iter().map(|record| record.id).collect();
    bench.apply(Command::ForgetStripes { stripes }).unwrap();
    bench.check();
}

#[test]
fn hot_bytes_overlay_and_merge() {
    let bench = Bench::new();
    bench.create(1, "a", 10, FileKind::File).unwrap();
    bench.hot(10, 10, b"aaaa", 14).unwrap();
    bench.hot(10, 12, b"bbbb", 16).unwrap();
    bench.hot(10, 8, b"cc", 16).unwrap();
    assert_eq!(bench.hot_rows(10), [(8, b"ccaabbbb".to_vec())]);
    bench.hot(10, 0, &[7; 8192], 8192).unwrap();
    bench.hot(10, 100, b"x", 8192).unwrap();
    assert_eq!(bench.hot_rows(10).len(), 1, "within the merge bound");
    bench.hot(10, 8192, b"tail", 8196).unwrap();
    bench.hot(10, 4000, &[9; 6000], 10_000).unwrap();
    let rows = bench.hot_rows(10);
    let joined: Vec<u8> = rows.iter().flat_map(|(_offset, data)| data.clone()).collect();
    let mut expected = vec![7; 4000];
    expected[100] = b'x';
    expected.extend([9; 6000]);
    assert_eq!(joined, expected);
    bench.check();
    bench.truncate(10, 4500).unwrap();
    let joined: Vec<u8> = bench.hot_rows(10).into_iter().flat_map(|(_offset, data)| data).collect();
    assert_eq!(joined, expected[..4500]);
    bench.check();
}

#[test]
fn truncates_shorten_and_release() {
    let mut bench = Bench::new();
    bench.create(1, "a", 10, FileKind::File).unwrap();
    bench.commit(10, &[0, 1, 2, 3, 511, 512, 513]);
    let stale = bench.version(10, 1);
    bench.truncate(10, SEGMENT + 100).unwrap();
    bench.check();
    assert_eq!(bench.commit_from(10, &[1], &[stale]), [0]);
    let view = bench.log.store().view().unwrap();
    let inode = view.inode(Ino(10)).unwrap().unwrap();
    let map = view.chunk(&inode, ChunkIndex(0)).unwrap().map;
    assert_eq!(map.len(), 2);
    assert_eq!(map.get(SegmentIndex(1)).unwrap().frame.raw_bytes, 100);
    assert_eq!(inode.allocated_bytes, SEGMENT + 100);
    bench.truncate(10, 0).unwrap();
    assert_eq!(bench.inode(10).unwrap().allocated_bytes, 0);
    bench.check();
}

#[test]
fn large_cuts_hide_at_once_and_are_reaped() {
    let mut bench = Bench::new();
    bench.create(1, "a", 10, FileKind::File).unwrap();
    for chunk in 0..40 {
        bench.commit(10, &[chunk * 512, chunk * 512 + 1]);
    }
    bench.truncate(10, CHUNK_BYTES).unwrap();
    assert_eq!(bench.inode(10).unwrap().cut, Some(ChunkIndex(1)));
    assert_eq!(bench.truncate(10, 5), Err(Posix::Again));
    bench.truncate(10, 4 * CHUNK_BYTES).unwrap();
    bench.commit(10, &[3 * 512]);
    let shown = |bench: &Bench, chunk| {
        let view = bench.log.store().view().unwrap();
        let inode = view.inode(Ino(10)).unwrap().unwrap();
        view.chunk(&inode, ChunkIndex(chunk)).unwrap().map.len()
    };
    assert_eq!([0, 1, 3, 39].map(|chunk| shown(&bench, chunk)), [2, 0, 1, 0]);
    bench.check();
    let mut steps = 0;
    while let Answer::Reaped { more: true, .. } = bench.apply(Command::Reap { chunks: 8 }).unwrap()
    {
        steps += 1;
        bench.check();
    }
    assert!(steps >= 4, "{steps}");
    assert_eq!(bench.inode(10).unwrap().cut, None);
    assert_eq!([0, 1, 3, 39].map(|chunk| shown(&bench, chunk)), [2, 0, 1, 0]);
    for chunk in 4..40 {
        bench.commit(10, &[chunk * 512]);
    }
    bench.unlink("a", false).unwrap();
    assert_eq!(bench.inode(10), None);
    bench.check();
    while let Answer::Reaped { more: true, .. } = bench.apply(Command::Reap { chunks: 8 }).unwrap()
    {
    }
    bench.check();
    assert_eq!(bench.log.store().totals().live_bytes, 0);
}

#[test]
fn clones_share_and_moves_redirect_all_owners() {
    let mut bench = Bench::new();
    bench.create(1, "a", 10, FileKind::File).unwrap();
    bench.create(1, "b", 11, FileKind::File).unwrap();
    bench.commit(10, &[0, 1, 2]);
    bench.commit(11, &[0]);
    let clone = |bench: &Bench, from: u64, from_first, to: u64, to_first, count, size| {
        bench.apply(Command::CloneExtents {
            from: Ino(from),
            from_first,
            to: Ino(to),
            to_first,
            count,
            file: update(to, size),
        })
    };
    clone(&bench, 10, 0, 11, 1, 3, 4 * SEGMENT).unwrap();
    bench.check();
    clone(&bench, 10, 0, 11, 1, 3, 4 * SEGMENT).unwrap();
    bench.check();
    clone(&bench, 10, 0, 10, 5, 2, 7 * SEGMENT).unwrap();
    bench.check();
    assert_eq!(clone(&bench, 10, 0, 10, 1, 2, 7 * SEGMENT), Err(Posix::Invalid));
    bench.hot(10, 3, b"x", 7 * SEGMENT).unwrap();
    assert_eq!(clone(&bench, 10, 0, 11, 1, 3, 4 * SEGMENT), Err(Posix::Again));

    let owners = [(10, 0), (11, 1), (10, 5), (11, 0)];
    let stripe = bench.stripe(1);
    let from_stripe = StripeId::new(Incarnation(1), 1);
    let moves = owners.map(|(ino, segment)| SegmentMove {
        address: segment_address(Ino(ino), segment).unwrap(),
        from_stripe,
        from_slot: SlotIndex(0),
        slot: SlotIndex(0),
        frame: frame(0),
    });
    let answer = bench.apply(Command::MoveExtents { stripe, segments: moves.to_vec() }).unwrap();
    assert_eq!(answer, Answer::Committed { skipped: vec![3], inodes: Vec::new() });
    bench.check();
    assert_eq!(bench.hot_rows(10).len(), 1, "hot bytes stay above what moved");
    bench.unlink("a", false).unwrap();
    bench.check();
    bench.truncate(11, 0).unwrap();
    bench.check();
    assert_eq!(bench.log.store().totals().live_bytes, 0);
}

#[test]
fn inline_content_gives_way() {
    let mut bench = Bench::new();
    bench.create(1, "a", 10, FileKind::File).unwrap();
    let inline = |bench: &Bench, data: &'static [u8]| {
        let file = update(10, data.len() as u64);
        bench.apply(Command::CommitInline { file, data: Bytes::from_static(data) })
    };
    inline(&bench, b"hello").unwrap();
    assert_eq!(bench.inode(10).unwrap().allocated_bytes, 5);
    bench.truncate(10, 3).unwrap();
    assert_eq!(bench.inode(10).unwrap().inline, &b"hel"[..]);
    bench.commit(10, &[1]);
    assert_eq!(bench.inode(10).unwrap().inline, &b"hel"[..], "another segment leaves it");
    bench.commit(10, &[0]);
    assert!(bench.inode(10).unwrap().inline.is_empty());
    inline(&bench, b"again").unwrap();
    assert_eq!(bench.inode(10).unwrap().allocated_bytes, 5);
    assert_eq!(bench.dead(), 2);
    bench.check();
}

#[test]
fn punches_and_reservations() {
    let mut bench = Bench::new();
    bench.create(1, "a", 10, FileKind::File).unwrap();
    bench.commit(10, &[0, 1, 2]);
    let set = SetAttributes::default();
    bench.apply(Command::Punch { ino: Ino(10), first: 1, count: 1, set }).unwrap();
    assert_eq!(bench.inode(10).unwrap().allocated_bytes, 2 * SEGMENT);
    assert_eq!(
        bench.apply(Command::Punch { ino: Ino(10), first: 1, count: 0, set }),
        Err(Posix::Invalid)
    );
    bench
        .apply(Command::Reserve { ino: Ino(10), bytes: 3 * SEGMENT, file: update(10, 3 * SEGMENT) })
        .unwrap();
    bench.commit(10, &[1]);
    assert_eq!(bench.inode(10).unwrap().reserved_bytes, 2 * SEGMENT);
    bench.check();
    bench.unlink("a", false).unwrap();
    bench.check();
}

#[test]
fn attributes_and_xattrs() {
    let bench = Bench::new();
    bench.create(1, "a", 10, FileKind::File).unwrap();
    let set = SetAttributes { mode: Some(0o4700), uid: Some(5), ..SetAttributes::default() };
    bench.apply(Command::SetAttributes { ino: Ino(10), set }).unwrap();
    let inode = bench.inode(10).unwrap();
    assert_eq!((inode.mode, inode.uid, inode.gid), (0o4700, 5, 2));
    let xattr = |mode| Command::SetXattr {
        ino: Ino(10),
        name: b"user.x".to_vec(),
        value: b"v".to_vec(),
        mode,
        set: SetAttributes::default(),
    };
    assert_eq!(bench.apply(xattr(XattrMode::Replace)), Err(Posix::NoData));
    bench.apply(xattr(XattrMode::Create)).unwrap();
    assert_eq!(bench.apply(xattr(XattrMode::Create)), Err(Posix::Exists));
    bench.check();
    let remove = Command::RemoveXattr {
        ino: Ino(10),
        name: b"user.x".to_vec(),
        set: SetAttributes::default(),
    };
    bench.apply(remove.clone()).unwrap();
    assert_eq!(bench.apply(remove), Err(Posix::NoData));
    assert!(!bench.inode(10).unwrap().has_xattrs);
    let class = Command::SetInodeClass { ino: Ino(10), class: ClassId(9), time: TIME };
    assert_eq!(bench.apply(class), Err(Posix::Invalid));
    bench.check();
}

#[test]
fn the_repair_queue_follows_its_stripes() {
    let mut bench = Bench::new();
    bench.create(1, "a", 10, FileKind::File).unwrap();
    bench.commit(10, &[0]);
    let record = bench.view().stripes(None, 1).unwrap().remove(0).0;
    let (id, later) = (record.id, Timestamp { seconds: TIME.seconds + 60, ..TIME });
    let note = |index| Command::NoteDamage { shards: vec![(id, ShardIndex(index))], time: TIME };
    let entry = |bench: &Bench| bench.view().repair(id).unwrap();
    bench.apply(note(1)).unwrap();
    bench.apply(note(3)).unwrap();
    // Neither a shard nor a stripe that is not there.
    bench.apply(note(40)).unwrap();
    let unknown = vec![(StripeId(id.get() + 1), ShardIndex(0))];
    bench.apply(Command::NoteDamage { shards: unknown, time: TIME }).unwrap();
    let noted = RepairEntry { bad: 0b1010, ..RepairEntry::new(TIME) };
    assert_eq!(bench.view().repairs(None, 9).unwrap(), [(id, noted)]);
    bench.check();

    let failed = |good| Command::NoteRepair { stripe: id, good, retry: Some(later), time: TIME };
    bench.apply(failed(0)).unwrap();
    bench.apply(failed(0b1000)).unwrap();
    let tried = RepairEntry { since: TIME, bad: 0b0010, attempts: 2, retry: later };
    assert_eq!(entry(&bench), Some(tried));
    bench.apply(note(0)).unwrap();
    let place = |index: u8, root| Command::PlaceShard {
        stripe: id,
        index: ShardIndex(index),
        from: record.disks[usize::from(index)],
        disk: DiskId(90 + u32::from(index)),
        root,
    };
    bench.apply(place(1, [1; 32])).unwrap();
    assert_eq!(entry(&bench), Some(RepairEntry { bad: 1, ..RepairEntry::new(TIME) }));
    bench.apply(place(0, [2; 32])).unwrap();
    assert_eq!(entry(&bench), None);

    bench.apply(failed(0)).unwrap();
    let done = Command::NoteRepair { stripe: id, good: 0, retry: None, time: TIME };
    bench.apply(done.clone()).unwrap();
    assert_eq!(entry(&bench), None);
    bench.apply(note(2)).unwrap();
    bench.apply(done).unwrap();
    assert_eq!(entry(&bench).map(|entry| entry.bad), Some(0b100), "it is bad still");
    bench.unlink("a", false).unwrap();
    bench.apply(Command::Reap { chunks: 10 }).unwrap();
    assert_eq!(bench.view().repairs(None, 9).unwrap(), []);
    bench.check();
}
