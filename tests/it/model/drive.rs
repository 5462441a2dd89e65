//! Does each operation to the volume and to the reference, and compares what they answer.

mod maintain;

use super::coverage::{Coverage, FAULTS, Phase};
use super::ops::{Kind, Op, data, length, name, offset};
use super::wrong::{self, Here};
use crate::compare::{Checked, compare, root_user};
use crate::reference::{Id, ROOT, Reference, Rename};
use crate::rig::Rig;
use crate::work::Work;
use ironfs::error::{Error, Posix};
use ironfs::fs::Fs;
use ironfs::fs::attr::{SetAttr, SetTime};
use ironfs::fs::file::WriteHow;
use ironfs::fs::namespace::NewFile;
use ironfs::types::{FileKind, HandleId, Ino, ROOT_INO, Timestamp};
use ironfs::volume::Volume;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// The tree is compared after so many operations.
const COMPARE_EVERY: u64 = 8;
const O_RDWR: i32 = 0o2;
const O_TRUNC: i32 = 0o1000;
const FALLOC_KEEP_SIZE: i32 = 1;
const FALLOC_PUNCH_HOLE: i32 = 2;
const FALLOC_ZERO_RANGE: i32 = 16;
const HANDLES_MAX: usize = 4;
/// Files that are written one after the other, and bytes of each at least: more than stays in the metadata.
const EACH_MAX: usize = 6;
const EACH_BYTES: usize = 65_537;
const PAGE: usize = 4096;

type Done<T = ()> = Result<T, Error>;
/// What came of an operation.
type Tried<T = ()> = Result<T, Refusal>;

/// Why an operation did not answer as the reference does.
#[derive(Debug)]
enum Refusal {
    /// There is no room. Nothing of it may have been done.
    NoRoom,
    Wrong(String),
}

impl From<String> for Refusal {
    fn from(wrong: String) -> Self {
        Self::Wrong(wrong)
    }
}

/// Whether it may be refused when the disks are full: what only takes away may not, nor what was acknowledged.
const fn takes_room(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Write
            | Kind::Append
            | Kind::WritePages
            | Kind::ZeroRange
            | Kind::Fallocate
            | Kind::Copy
    )
}

/// A volume, its reference, and what belongs together in them.
pub(super) struct Driver {
    rig: Rig,
    /// `None` only between two mounts: what is left of a volume holds the locks of its disks.
    mounted: Option<(Arc<Volume>, Arc<Fs>)>,
    reference: Reference,
    inos: BTreeMap<Id, Ino>,
    handles: Vec<(HandleId, Id)>,
    /// Those of them that were opened with O_TRUNC.
    truncating: HashSet<HandleId>,
    /// The only disks that are ever lost or rot: as many as every class survives.
    frail: [usize; 2],
    lost: [bool; 2],
    /// Sizes of the disks while there is little room on them.
    squeezed: Option<Vec<u64>>,
    holds_repair: bool,
    steps: u64,
    work: Work,
    coverage: Coverage,
}

fn pick<T: Copy>(from: &[T], raw: u64) -> Option<T> {
    let count = from.len() as u64;
    if count == 0 { None } else { Some(from[usize::try_from(raw % count).unwrap()]) }
}

/// Compares two answers.
fn same<T: PartialEq + std::fmt::Debug>(found: Done<T>, wanted: Result<T, Posix>) -> Tried {
    match (found, wanted) {
        (Ok(found), Ok(wanted)) if found == wanted => Ok(()),
        (Err(found), Err(wanted)) if found.is(wanted) => Ok(()),
        (Err(found), Ok(_)) if found.is(Posix::NoSpace) => Err(Refusal::NoRoom),
        (Ok(found), wanted) => Err(Refusal::Wrong(format!("it answers {found:?}, not {wanted:?}"))),
        (Err(found), wanted) => {
            Err(Refusal::Wrong(format!("it answers {:?} ({found}), not {wanted:?}", found.posix())))
        }
    }
}

/// What may not fail, whatever room there is.
fn must<T>(what: &str, done: Done<T>) -> Checked<T> {
    done.map_err(|error| format!("{what}: {error}"))
}

impl Driver {
    /// A new volume. Its class, the number of its disks, and whether nodes serve them, follow from the seed.
    pub(super) async fn start(seed: u64) -> Checked<Self> {
        const SHAPES: [(&str, usize); 6] = [
            ("4+2", 6),
            ("4+2", 6),
            ("4+2,zstd", 7),
            ("4+2", 8),
            ("replica:3", 4),
            ("2+2,zstd", 5),
        ];
        let (class, disks) = pick(&SHAPES, seed).unwrap();
        // Over a network more than half of the disks must be there: two of four are not.
        let rig = match seed % 3 == 2 && disks > 4 {
            true => Rig::over_nodes(seed, disks, disks).0,
            false => Rig::new(seed, disks),
        };
        must("format", rig.format(class).await)?;
        let volume = must("open", rig.open().await)?;
        let first = usize::try_from(seed % disks as u64).unwrap();
        Ok(Self {
            mounted: Some((volume.clone(), volume.fs())),
            rig,
            reference: Reference::new(),
            inos: BTreeMap::from([(ROOT, ROOT_INO)]),
            handles: Vec::new(),
            truncating: HashSet::new(),
            frail: [first, (first + 1) % disks],
            lost: [false; 2],
            squeezed: None,
            holds_repair: false,
            steps: 0,
            work: Work::default(),
            coverage: Coverage::default(),
        })
    }

    /// Compares all, and ends with a check of the volume. Answers what met what.
    pub(super) async fn finish(mut self) -> Checked<Coverage> {
        self.compare().await?;
        self.enlarge();
        for disk in self.frail {
            self.rig.machine.heal(disk);
        }
        self.lost = [false; 2];
        tokio::time::sleep(Duration::from_secs(30)).await;
        self.compare().await?;
        self.repair().await?;
        self.remount().await?;
        self.compare().await?;
        self.unmount().await?;
        self.check_metadata().await?;
        Ok(self.coverage)
    }

    /// The metadata must agree with themselves; shards of the frail disks may be rotten or out of date.
    async fn check_metadata(&self) -> Checked {
        let report = must("fsck", self.rig.fsck().await)?;
        let wrong: Vec<_> =
            report.findings.iter().filter(|finding| !finding.starts_with("shard ")).collect();
        if wrong.is_empty() { Ok(()) } else { Err(format!("fsck finds {wrong:#?}")) }
    }

    async fn compare(&self) -> Checked {
        compare(self.fs(), &self.reference, &self.inos, &self.handles).await
    }

    pub(super) async fn step(&mut self, op: &Op) -> Checked {
        self.steps += 1;
        let phases = self.phases()?;
        if FAULTS.contains(&op.kind) {
            self.coverage.note(&format!("{:?}", op.kind), &phases);
        }
        let kept = self.squeezed.is_some().then(|| self.reference.clone());
        match (self.act(op).await, kept) {
            (Ok(()), _) => {}
            (Err(Refusal::NoRoom), Some(kept)) if takes_room(op.kind) => self.reference = kept,
            (Err(Refusal::NoRoom), _) => return Err("there is no room".to_owned()),
            (Err(Refusal::Wrong(wrong)), _) => return Err(wrong),
        }
        for kind in self.work.done(&self.mounted.as_ref().unwrap().0) {
            self.coverage.note(kind, &phases);
        }
        if self.steps.is_multiple_of(COMPARE_EVERY)
            || matches!(op.kind, Kind::Remount | Kind::SyncAndKill | Kind::SyncAndCut)
        {
            self.compare().await?;
        }
        Ok(())
    }

    /// What the volume is in the middle of.
    fn phases(&self) -> Checked<Vec<Phase>> {
        let status = self.volume().status();
        let metadata = status.metadata.as_ref();
        let all = [
            (Phase::Dirty, status.dirty_bytes > 0),
            (Phase::Hot, metadata.is_some_and(|metadata| metadata.hot_bytes > 0)),
            (Phase::Repair, metadata.is_some_and(|metadata| metadata.repair.waiting > 0)),
            (Phase::Away, self.lost.contains(&true)),
            (Phase::Full, self.squeezed.is_some()),
            (Phase::Orphan, !self.reference.orphans().is_empty()),
        ];
        Ok(all.into_iter().filter(|(_phase, is)| *is).map(|(phase, _is)| phase).collect())
    }

    async fn act(&mut self, op: &Op) -> Tried {
        match op.kind {
            Kind::Create | Kind::Mkdir | Kind::Mknod | Kind::Symlink => self.create(op).await?,
            Kind::Link | Kind::Unlink | Kind::Rmdir => self.names(op).await?,
            Kind::Rename | Kind::Exchange | Kind::RenameNoReplace => self.rename(op).await?,
            Kind::Write
            | Kind::Append
            | Kind::WritePages
            | Kind::Truncate
            | Kind::Read
            | Kind::Punch
            | Kind::ZeroRange
            | Kind::Fallocate
            | Kind::Fsync => self.content(op).await?,
            Kind::WriteEach => self.write_each(op).await?,
            Kind::Copy => self.copy(op).await?,
            Kind::SetXattr | Kind::RemoveXattr | Kind::Chmod => self.attributes(op).await?,
            Kind::Chown | Kind::SetTimes => self.owner_or_times(op).await?,
            Kind::Open | Kind::OpenTruncate | Kind::Close => self.handles(op).await?,
            Kind::Wrong => self.wrong(op).await?,
            _ => self.maintain(op).await?,
        }
        Ok(())
    }

    fn volume(&self) -> &Volume {
        &self.mounted.as_ref().unwrap().0
    }

    fn fs(&self) -> &Fs {
        &self.mounted.as_ref().unwrap().1
    }

    fn a_directory(&self, raw: u64) -> (Id, Ino) {
        let directories = self.reference.named(|node| node.kind == FileKind::Directory);
        let id = pick(&directories, raw).unwrap_or(ROOT);
        (id, self.inos[&id])
    }

    /// A directory with a name in it; mostly one that is there.
    fn a_name(&self, raw: u64) -> (Id, Ino, Vec<u8>) {
        let (id, ino) = self.a_directory(raw);
        let names: Vec<&Vec<u8>> = self.reference.node(id).entries.keys().collect();
        let known = if raw.is_multiple_of(5) { None } else { pick(&names, raw / 7) };
        (id, ino, known.cloned().unwrap_or_else(|| name(raw / 7).to_vec()))
    }

    async fn create(&mut self, op: &Op) -> Tried {
        let caller = root_user();
        let ((parent, ino), name) = (self.a_directory(op.a), name(op.b));
        let mode = 0o600 | u32::try_from(op.c % 64).unwrap();
        let target = data(op.d, 1 + length(op.c) % 300);
        let kind = match op.kind {
            Kind::Mkdir => FileKind::Directory,
            Kind::Symlink => FileKind::Symlink,
            Kind::Mknod if op.d.is_multiple_of(2) => FileKind::Fifo,
            _ => FileKind::File,
        };
        let new = NewFile { kind, mode, umask: 0, rdev: 0 };
        let text = if kind == FileKind::Symlink { target.as_slice() } else { b"" };
        let wanted = self.reference.create(parent, name, (kind, mode, text));
        let mut handle = None;
        let made = match op.kind {
            Kind::Mkdir => self.fs().mkdir(&caller, ino, name, mode, 0).await,
            Kind::Symlink => self.fs().symlink(&caller, ino, name, text).await,
            Kind::Mknod => self.fs().mknod(&caller, ino, name, new).await,
            _ => {
                let o_excl = 0o200;
                let created = self.fs().create(&caller, ino, name, new, O_RDWR | o_excl).await;
                created.map(|(attributes, opened)| {
                    handle = Some(opened.handle);
                    attributes
                })
            }
        };
        let made = made.map(|attributes| attributes.ino);
        if let (Ok(made), Ok(id)) = (&made, wanted) {
            self.fs().forget(*made, 1);
            self.inos.insert(id, *made);
            if let Some(handle) = handle {
                must("release", self.fs().release(*made, handle).await)?;
            }
        }
        same(made.map(drop), wanted.map(drop))
    }

    async fn names(&mut self, op: &Op) -> Tried {
        if op.kind == Kind::Link {
            let nodes = self.reference.named(|_node| true);
            let id = pick(&nodes, op.a).unwrap_or(ROOT);
            let ((parent, to), name) = (self.a_directory(op.b), name(op.c));
            let linked = self.fs().link(self.inos[&id], to, name).await.map(|found| found.ino);
            if let Ok(ino) = linked {
                self.fs().forget(ino, 1);
            }
            let wanted = self.reference.link(id, parent, name);
            return same(linked.map(drop), wanted);
        }
        let (parent, ino, name) = self.a_name(op.a);
        let (removed, wanted) = match op.kind {
            Kind::Unlink => {
                (self.fs().unlink(ino, &name).await, self.reference.unlink(parent, &name))
            }
            _ => (self.fs().rmdir(ino, &name).await, self.reference.rmdir(parent, &name)),
        };
        same(removed, wanted)
    }

    async fn rename(&mut self, op: &Op) -> Tried {
        let mode = match op.kind {
            Kind::Exchange => Rename::Exchange,
            Kind::RenameNoReplace => Rename::NoReplace,
            _ => Rename::Replace,
        };
        let (from, from_ino, from_name) = self.a_name(op.a);
        let (to, to_ino, to_name) = self.a_name(op.b);
        let (source, target) = ((from_ino, from_name.as_slice()), (to_ino, to_name.as_slice()));
        let renamed = self.fs().rename(&root_user(), source, target, mode.flags()).await;
        let wanted = self.reference.rename((from, &from_name), (to, &to_name), mode);
        same(renamed, wanted)
    }

    /// A file, open: by a handle that is there, or by one of its own, which is then to be closed.
    async fn open_file(&mut self, raw: u64) -> Checked<Option<(HandleId, Id, bool)>> {
        if let Some((handle, id)) = pick(&self.handles, raw / 3)
            && raw.is_multiple_of(3)
        {
            return Ok(Some((handle, id, false)));
        }
        let files = self.reference.named(|node| node.kind == FileKind::File);
        let Some(id) = pick(&files, raw) else { return Ok(None) };
        let opened = must("open", self.fs().open(&root_user(), self.inos[&id], O_RDWR).await)?;
        Ok(Some((opened.handle, id, true)))
    }

    /// Nothing stays dirty behind the close of a handle that cut the file: a crash does not leave it empty.
    async fn close(&mut self, (handle, id, own): (HandleId, Id, bool)) -> Checked {
        if own {
            let ino = self.inos[&id];
            must("release", self.fs().release(ino, handle).await)?;
            let dirty = self.fs().dirty_bytes(ino);
            if self.truncating.remove(&handle) && dirty > 0 {
                return Err(format!("{dirty} bytes of {ino} are dirty behind O_TRUNC and close"));
            }
        }
        Ok(())
    }

    async fn content(&mut self, op: &Op) -> Tried {
        let Some(open) = self.open_file(op.a).await? else { return Ok(()) };
        let done = self.content_of(op, (open.0, open.1)).await;
        self.close(open).await?;
        done
    }

    async fn content_of(&mut self, op: &Op, (handle, id): (HandleId, Id)) -> Tried {
        let (ino, caller) = (self.inos[&id], root_user());
        let fs = self.mounted.as_ref().unwrap().1.clone();
        let size = self.reference.node(id).content.len();
        let (at, count) = (offset(op.b, size), length(op.c));
        let (at64, count64) = (at as u64, count as u64);
        match op.kind {
            Kind::Write | Kind::Append => {
                let at = if op.kind == Kind::Append { size } else { at };
                let bytes = data(op.d, count);
                let how = WriteHow::default();
                let open = (ino, handle);
                let written = match fs.write_now(open, at as u64, &bytes, how) {
                    Some(written) => Ok(written),
                    None => fs.write(&caller, open, at as u64, &bytes, how).await,
                };
                same(written, Ok(u32::try_from(count).unwrap()))?;
                self.reference.write(id, at, &bytes);
            }
            Kind::WritePages => {
                // As the kernel brings what was written through a mapping: whole pages, and not beyond the end.
                let at = at.min(size.saturating_sub(1)) / PAGE * PAGE;
                let count = count.next_multiple_of(PAGE).min(size - at);
                if count > 0 {
                    let bytes = data(op.d, count);
                    let how = WriteHow { from_cache: true, ..WriteHow::default() };
                    let written = fs.write(&caller, (ino, handle), at as u64, &bytes, how).await;
                    same(written, Ok(u32::try_from(count).unwrap()))?;
                    self.reference.write(id, at, &bytes);
                }
            }
            Kind::Truncate => {
                let handle = op.d.is_multiple_of(2).then_some(handle);
                let set = SetAttr { size: Some(at64), handle, ..SetAttr::default() };
                let found = fs.setattr(&caller, ino, set).await.map(|found| found.size);
                same(found, Ok(at64))?;
                self.reference.truncate(id, at);
            }
            Kind::Read => {
                let read = fs.read(ino, handle, at64, u32::try_from(count).unwrap(), 0).await;
                let read = must("read", read)?;
                let wanted = self.reference.read(id, at, count);
                if let Some(wrong) = crate::compare::first_difference(&read, wanted) {
                    return Err(Refusal::Wrong(format!("{count} bytes at {at}: {wrong}")));
                }
            }
            Kind::Punch | Kind::ZeroRange | Kind::Fallocate => {
                let keeps = op.kind == Kind::Punch || op.d.is_multiple_of(2);
                let work = match op.kind {
                    Kind::Punch => FALLOC_PUNCH_HOLE,
                    Kind::ZeroRange => FALLOC_ZERO_RANGE,
                    _ => 0,
                };
                let mode = work | if keeps { FALLOC_KEEP_SIZE } else { 0 };
                let done = fs.fallocate(&caller, (ino, handle), at64, count64, mode).await;
                let wanted = self.reference.fallocate(id, (at, count), (work != 0, keeps));
                same(done, wanted)?;
            }
            _ => must("fsync", fs.fsync(ino, handle, op.d.is_multiple_of(2)).await)?,
        }
        Ok(())
    }

    /// Some files, one after the other, get content that goes into a stripe of its own. Not while there is little room: a
    /// part of it might be done.
    async fn write_each(&mut self, op: &Op) -> Tried {
        if self.squeezed.is_some() {
            return Ok(());
        }
        let files = self.reference.named(|node| node.kind == FileKind::File);
        for (number, id) in (0..).zip(files.into_iter().take(EACH_MAX)) {
            let (ino, caller) = (self.inos[&id], root_user());
            let handle = must("open", self.fs().open(&caller, ino, O_RDWR).await)?.handle;
            let bytes = data(op.d + number, EACH_BYTES + length(op.c));
            let (open, how) = ((ino, handle), WriteHow::default());
            must("write", self.fs().write(&caller, open, 0, &bytes, how).await)?;
            self.reference.write(id, 0, &bytes);
            must("fsync", self.fs().fsync(ino, handle, op.b.is_multiple_of(2)).await)?;
            self.close((handle, id, true)).await?;
        }
        Ok(())
    }

    async fn copy(&mut self, op: &Op) -> Tried {
        let Some(from) = self.open_file(op.a).await? else { return Ok(()) };
        let Some(to) = self.open_file(op.b).await? else { return Ok(()) };
        let size = |id| self.reference.node(id).content.len();
        // Whole segments at equal places of segments are shared: often.
        let (mut at, mut to_at) = (offset(op.c, size(from.1)), offset(op.d, size(to.1)));
        if op.c.is_multiple_of(2) {
            (at, to_at) = (at / 65_536 * 65_536, to_at / 65_536 * 65_536);
        }
        let count = length(op.c / 3 + op.d) * if op.d.is_multiple_of(3) { 3 } else { 1 };
        let (source, target) =
            ((self.inos[&from.1], from.0, at as u64), (self.inos[&to.1], to.0, to_at as u64));
        let copied = self.fs().copy_file_range(&root_user(), source, target, count as u64).await;
        // It may be short where there is hardly room.
        let count = match copied {
            Ok(short) if short > 0 && self.squeezed.is_some() => count.min(short as usize),
            _ => count,
        };
        let wanted = self.reference.copy((from.1, at), (to.1, to_at), count);
        let done = same(copied, wanted.map(|count| u32::try_from(count).unwrap()));
        self.close(from).await?;
        self.close(to).await?;
        done
    }

    async fn attributes(&mut self, op: &Op) -> Tried {
        let plain = |kind| matches!(kind, FileKind::File | FileKind::Directory);
        let nodes = self.reference.named(|node| plain(node.kind));
        let id = pick(&nodes, op.a).unwrap_or(ROOT);
        let (ino, caller) = (self.inos[&id], root_user());
        let name: &[u8] = if op.b.is_multiple_of(2) { b"user.a" } else { b"user.b" };
        match op.kind {
            Kind::SetXattr => {
                let (flags, value) =
                    (i32::try_from(op.c % 3).unwrap(), data(op.d, length(op.d) % 5000));
                let set = self.fs().setxattr(&caller, ino, name, &value, flags).await;
                let wanted = self.reference.set_xattr(id, (name, &value), flags);
                same(set, wanted)
            }
            Kind::RemoveXattr => {
                let removed = self.fs().removexattr(&caller, ino, name).await;
                same(removed, self.reference.remove_xattr(id, name))
            }
            _ => {
                let mode = u32::try_from(op.c % 0o10_000).unwrap();
                let set = SetAttr { mode: Some(mode), ..SetAttr::default() };
                let found = self.fs().setattr(&caller, ino, set).await.map(|found| found.mode);
                self.reference.chmod(id, mode);
                same(found, Ok(mode))
            }
        }
    }

    async fn owner_or_times(&mut self, op: &Op) -> Tried {
        let nodes = self.reference.named(|_node| true);
        let id = pick(&nodes, op.a).unwrap_or(ROOT);
        let number = |raw: u64| (!raw.is_multiple_of(4)).then(|| u32::try_from(raw).unwrap());
        let mtime = Timestamp { seconds: i64::try_from(op.b).unwrap() - 50_000, nanoseconds: 7 };
        let set = match op.kind {
            Kind::Chown => SetAttr { uid: number(op.b), gid: number(op.c), ..SetAttr::default() },
            _ => SetAttr { mtime: Some(SetTime::At(mtime)), ..SetAttr::default() },
        };
        let changed = self.fs().setattr(&root_user(), self.inos[&id], set).await;
        match op.kind {
            Kind::Chown if set.uid.is_some() || set.gid.is_some() => {
                self.reference.chown(id, (set.uid, set.gid));
            }
            Kind::Chown => {}
            _ => self.reference.set_mtime(id, mtime),
        }
        same(changed.map(drop), Ok(()))
    }

    async fn handles(&mut self, op: &Op) -> Checked {
        if op.kind == Kind::Close || self.handles.len() >= HANDLES_MAX {
            if self.handles.is_empty() {
                return Ok(());
            }
            let at = usize::try_from(op.a % self.handles.len() as u64).unwrap();
            let (handle, id) = self.handles.swap_remove(at);
            self.close((handle, id, true)).await?;
            self.reference.close(id);
            return Ok(());
        }
        let files = self.reference.named(|node| node.kind == FileKind::File);
        let Some(id) = pick(&files, op.a) else { return Ok(()) };
        let truncates = op.kind == Kind::OpenTruncate;
        let flags = O_RDWR | if truncates { O_TRUNC } else { 0 };
        let opened = must("open", self.fs().open(&root_user(), self.inos[&id], flags).await)?;
        self.reference.open(id);
        if truncates {
            self.reference.truncate(id, 0);
            self.truncating.insert(opened.handle);
        }
        self.handles.push((opened.handle, id));
        Ok(())
    }

    async fn wrong(&mut self, op: &Op) -> Tried {
        let Some(open) = self.open_file(op.a).await? else { return Ok(()) };
        let (_id, directory) = self.a_directory(op.b);
        let here = Here { file: (self.inos[&open.1], open.0), directory };
        let (answer, wanted) = wrong::call(self.fs(), here, op.c).await;
        self.close(open).await?;
        same(answer, Err(wanted))
    }
}
