//! A short workload over two directories and three names, and what was true after each of its operations.

use crate::compare::{Checked, root_user};
use crate::reference::{Id, ROOT, Reference, Rename};
use crate::rig::Rig;
use crate::sim::disk::SimRng;
use crate::work::Work;
use ironfs::error::Result;
use ironfs::fs::Fs;
use ironfs::fs::attr::SetAttr;
use ironfs::fs::file::WriteHow;
use ironfs::fs::namespace::NewFile;
use ironfs::types::{FileKind, Ino, ROOT_INO};
use ironfs::volume::Volume;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

const O_RDWR: i32 = 0o2;
const O_EXCL: i32 = 0o200;
const FALLOC_KEEP_SIZE: i32 = 1;
const FALLOC_PUNCH_HOLE: i32 = 2;
/// Versions of content begin here in what comes before the workload.
const EARLIER: usize = 1000;
const NAMES: [&[u8]; 3] = [b"a", b"b", b"c"];
const DIRECTORIES: [&[u8]; 2] = [b"x", b"y"];
/// Operations of one workload.
const OPS: u64 = 14;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Create,
    Mkdir,
    Write,
    Append,
    Truncate,
    Rename,
    Exchange,
    Link,
    Unlink,
    SetXattr,
    Fsync,
    Sync,
    Checkpoint,
    Wait,
    // These only in the bounded workloads.
    /// Pages that were written through a mapping, as the kernel brings them.
    WritePages,
    Rmdir,
    Symlink,
    RenameNoReplace,
    Fallocate,
    Punch,
    Fdatasync,
    FsyncDir,
    // And this only where data is moved.
    /// Time for every worker: `length` milliseconds.
    Rest,
}

impl Kind {
    /// Whether what was done before is durable behind it: of one file, or all names.
    pub(super) const fn is_sync(self) -> bool {
        matches!(
            self,
            Self::Fsync | Self::Fdatasync | Self::FsyncDir | Self::Sync | Self::Checkpoint
        )
    }
}

/// An operation on name `file` of six, with another name where it takes two.
#[derive(Clone, Copy, Debug)]
pub(super) struct Op {
    pub(super) kind: Kind,
    pub(super) file: usize,
    pub(super) other: usize,
    pub(super) offset: usize,
    pub(super) length: usize,
}

pub(super) fn generate(seed: u64) -> Vec<Op> {
    use Kind::{
        Append, Checkpoint, Create, Exchange, Fsync, Link, Mkdir, Rename, SetXattr, Sync, Truncate,
        Unlink, Wait, Write,
    };
    const KINDS: [Kind; 30] = [
        Create, Create, Create, Create, Mkdir, Write, Write, Write, Write, Write, Write, Append,
        Append, Truncate, Truncate, Rename, Rename, Rename, Exchange, Link, Unlink, Unlink,
        SetXattr, Fsync, Fsync, Fsync, Sync, Checkpoint, Wait, Wait,
    ];
    const SIZES: [u64; 8] = [1, 700, 2048, 4096, 9000, 65_536, 100_000, 200_000];
    let mut rng = SimRng::new(seed);
    let mut below = |bound: usize| usize::try_from(rng.below(bound as u64)).unwrap();
    let mut op = |kind| Op {
        kind,
        file: below(6),
        other: below(6),
        offset: [0, 0, 1, 4096, 8000, 65_536][below(6)],
        length: usize::try_from(SIZES[below(8)]).unwrap() + below(2),
    };
    let mut ops = vec![op(Create), op(Write)];
    ops[1].file = ops[0].file;
    let mut kinds = SimRng::new(!seed);
    for _number in 2..OPS {
        let kind = KINDS[usize::try_from(kinds.below(30)).unwrap()];
        let mut op = op(kind);
        // Mostly on the file of the operation before.
        if kinds.below(2) == 0 {
            op.file = ops[ops.len() - 1].file;
        }
        ops.push(op);
    }
    ops
}

/// What was acknowledged when.
#[derive(Debug)]
pub(super) struct Moment {
    /// Operation, if it did something.
    pub(super) op: Op,
    /// Lengths of the journal before and after.
    pub(super) begins: usize,
    pub(super) ends: usize,
    /// File that it is about.
    pub(super) file: Option<Id>,
    /// Whether it was done at all.
    pub(super) done: bool,
    /// What workers did during a rest.
    pub(super) work: Vec<&'static str>,
}

/// A workload that ran.
pub(super) struct Record {
    pub(super) rig: Rig,
    /// `states[i]` is the reference before operation i.
    pub(super) states: Vec<Reference>,
    pub(super) moments: Vec<Moment>,
}

impl Record {
    /// Where the journal of the workload begins.
    pub(super) fn first(&self) -> usize {
        self.moments.first().map_or(0, |moment| moment.begins)
    }

    /// For the message of a failed test.
    pub(super) fn story(&self, at: usize) -> String {
        let mut story = String::new();
        for (number, moment) in self.moments.iter().enumerate() {
            let cut = if (moment.begins..moment.ends).contains(&at) { " <- the cut" } else { "" };
            let Moment { op, begins, ends, done, work, .. } = moment;
            write!(story, "  {number}: {op:?} done: {done}, journal {begins}..{ends}").unwrap();
            writeln!(story, ", work: {work:?}{cut}").unwrap();
        }
        story
    }
}

/// Content that tells its version and place at every eighth byte.
fn content(version: usize, length: usize) -> Vec<u8> {
    let words = (0..length as u64).step_by(8).map(|at| ((version as u64) << 40 | at).to_le_bytes());
    let mut bytes: Vec<u8> = words.flatten().collect();
    bytes.truncate(length);
    bytes
}

struct Writer<'a> {
    rig: &'a Rig,
    volume: Arc<Volume>,
    fs: Arc<Fs>,
    reference: Reference,
    inos: BTreeMap<Id, Ino>,
    directories: [Id; 2],
    /// Deletes shards before the commit that frees them.
    reclaims: bool,
}

/// Runs `ops`; `before` is called when the volume is ready, with all before durable, that of `earlier` too.
pub(super) async fn record(
    rig: Rig,
    (earlier, ops): (&[Op], &[Op]),
    before: &dyn Fn(&Rig),
    reclaims: bool,
) -> Checked<Record> {
    let failed = |error: ironfs::error::Error| format!("workload: {error}");
    let volume = rig.open().await.map_err(failed)?;
    let mut writer = Writer {
        fs: volume.fs(),
        volume,
        rig: &rig,
        reference: Reference::new(),
        inos: BTreeMap::from([(ROOT, ROOT_INO)]),
        directories: [ROOT; 2],
        reclaims,
    };
    for (number, name) in DIRECTORIES.into_iter().enumerate() {
        writer.directories[number] = writer.mkdir(ROOT, name).await.map_err(failed)?.unwrap();
    }
    for (number, op) in earlier.iter().enumerate() {
        writer.step(EARLIER + number, op).await.map_err(failed)?;
    }
    writer.volume.sync().await.map_err(failed)?;
    rig.machine.settle();
    before(&rig);
    let (mut states, mut moments) = (Vec::new(), Vec::new());
    for (number, op) in ops.iter().enumerate() {
        let begins = rig.machine.journal_len();
        states.push(writer.reference.clone());
        let file = writer.target(op).ok();
        let mut work = Work::default();
        let rests = op.kind == Kind::Rest;
        if rests {
            work.done(&writer.volume);
        }
        let did = writer.step(number + 1, op).await;
        let done = did.map_err(|error| format!("operation {number}, {op:?}: {error}"))?;
        let ends = rig.machine.journal_len();
        let work = if rests { work.done(&writer.volume) } else { Vec::new() };
        moments.push(Moment { op: *op, begins, ends, file, done, work });
    }
    states.push(writer.reference.clone());
    let Writer { volume, fs, .. } = writer;
    drop(fs);
    rig.kill(volume).await;
    Ok(Record { rig: rig.clone(), states, moments })
}

impl Writer<'_> {
    fn place(&self, file: usize) -> (Id, &'static [u8]) {
        (self.directories[file / 3], NAMES[file % 3])
    }

    fn target(&self, op: &Op) -> std::result::Result<Id, ironfs::error::Posix> {
        let (parent, name) = self.place(op.file);
        self.reference.lookup(parent, name)
    }

    async fn mkdir(&mut self, parent: Id, name: &[u8]) -> Result<Option<Id>> {
        let Ok(id) = self.reference.create(parent, name, (FileKind::Directory, 0o755, b"")) else {
            return Ok(None);
        };
        let made = self.fs.mkdir(&root_user(), self.inos[&parent], name, 0o755, 0).await?;
        self.fs.forget(made.ino, 1);
        self.inos.insert(id, made.ino);
        Ok(Some(id))
    }

    /// Does one operation; one that would fail is left out.
    async fn step(&mut self, version: usize, op: &Op) -> Result<bool> {
        let (parent, name) = self.place(op.file);
        let (to, to_name) = self.place(op.other);
        let (parent_ino, to_ino) = (self.inos[&parent], self.inos[&to]);
        match op.kind {
            Kind::Create => return self.create((parent, name)).await,
            Kind::Mkdir => return Ok(self.mkdir(parent, name).await?.is_some()),
            Kind::Rename | Kind::Exchange | Kind::RenameNoReplace => {
                let mode = match op.kind {
                    Kind::Rename => Rename::Replace,
                    Kind::Exchange => Rename::Exchange,
                    _ => Rename::NoReplace,
                };
                if self.reference.rename((parent, name), (to, to_name), mode).is_err() {
                    return Ok(false);
                }
                let (source, target) = ((parent_ino, name), (to_ino, to_name));
                self.fs.rename(&root_user(), source, target, mode.flags()).await?;
            }
            Kind::Link => {
                let Ok(id) = self.target(op) else { return Ok(false) };
                if self.reference.link(id, to, to_name).is_err() {
                    return Ok(false);
                }
                let linked = self.fs.link(self.inos[&id], to_ino, to_name).await?;
                self.fs.forget(linked.ino, 1);
            }
            Kind::Unlink => {
                if self.reference.unlink(parent, name).is_err() {
                    return Ok(false);
                }
                self.fs.unlink(parent_ino, name).await?;
            }
            Kind::Rmdir => {
                if self.reference.rmdir(parent, name).is_err() {
                    return Ok(false);
                }
                self.fs.rmdir(parent_ino, name).await?;
            }
            Kind::Symlink => {
                let kind = (FileKind::Symlink, 0o777, b"target".as_slice());
                let Ok(id) = self.reference.create(parent, name, kind) else { return Ok(false) };
                let made = self.fs.symlink(&root_user(), parent_ino, name, b"target").await?;
                self.fs.forget(made.ino, 1);
                self.inos.insert(id, made.ino);
            }
            Kind::FsyncDir => {
                let handle = self.fs.opendir(parent_ino).await?.handle;
                self.fs.fsyncdir(parent_ino, handle).await?;
                self.fs.releasedir(parent_ino, handle).await?;
            }
            Kind::SetXattr => {
                let Ok(id) = self.target(op) else { return Ok(false) };
                let value = version.to_string().into_bytes();
                if self.reference.set_xattr(id, (b"user.v", &value), 0).is_err() {
                    return Ok(false);
                }
                let ino = self.inos[&id];
                self.fs.setxattr(&root_user(), ino, b"user.v", &value, 0).await?;
            }
            Kind::Sync => self.volume.sync().await?,
            Kind::Checkpoint => self.volume.checkpoint().await?,
            Kind::Wait | Kind::Rest => {
                let bound = if op.kind == Kind::Wait { 7000 } else { u64::MAX };
                tokio::time::sleep(Duration::from_millis(op.length as u64 % bound)).await;
            }
            _ => return self.content(version, op).await,
        }
        Ok(true)
    }

    async fn create(&mut self, (parent, name): (Id, &[u8])) -> Result<bool> {
        let Ok(id) = self.reference.create(parent, name, (FileKind::File, 0o644, b"")) else {
            return Ok(false);
        };
        let new = NewFile { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
        let flags = O_RDWR | O_EXCL;
        let (made, opened) =
            self.fs.create(&root_user(), self.inos[&parent], name, new, flags).await?;
        self.fs.forget(made.ino, 1);
        self.fs.release(made.ino, opened.handle).await?;
        self.inos.insert(id, made.ino);
        Ok(true)
    }

    async fn content(&mut self, version: usize, op: &Op) -> Result<bool> {
        let Ok(id) = self.target(op) else { return Ok(false) };
        if self.reference.node(id).kind != FileKind::File {
            return Ok(false);
        }
        let (ino, caller, fs) = (self.inos[&id], root_user(), self.fs.clone());
        let size = self.reference.node(id).content.len();
        let handle = fs.open(&caller, ino, O_RDWR).await?.handle;
        match op.kind {
            Kind::Write | Kind::Append | Kind::WritePages => {
                let at = if op.kind == Kind::Append { size } else { op.offset };
                let bytes = content(version, op.length);
                let from_cache = op.kind == Kind::WritePages;
                let how = WriteHow { from_cache, ..WriteHow::default() };
                fs.write(&caller, (ino, handle), at as u64, &bytes, how).await?;
                self.reference.write(id, at, &bytes);
            }
            Kind::Truncate => {
                let set = SetAttr { size: Some(op.length as u64), ..SetAttr::default() };
                fs.setattr(&caller, ino, set).await?;
                self.reference.truncate(id, op.length);
            }
            Kind::Fallocate | Kind::Punch => {
                let (zeroes, mode) = match op.kind {
                    Kind::Punch => (true, FALLOC_PUNCH_HOLE | FALLOC_KEEP_SIZE),
                    _ => (false, 0),
                };
                let (at, count) = (op.offset as u64, op.length as u64);
                fs.fallocate(&caller, (ino, handle), at, count, mode).await?;
                let place = (op.offset, op.length);
                let extended = self.reference.fallocate(id, place, (zeroes, zeroes));
                assert_eq!(extended, Ok(()), "a length that is not 0");
            }
            kind => {
                if self.reclaims {
                    self.reclaim()?;
                }
                fs.fsync(ino, handle, kind == Kind::Fdatasync).await?;
            }
        }
        fs.release(ino, handle).await?;
        Ok(true)
    }

    /// The planted bug: all shards that there are go at once.
    fn reclaim(&self) -> Result<()> {
        for (number, disk) in self.rig.machine.disks().into_iter().enumerate() {
            for name in self.rig.machine.file_names(number) {
                if let Some((directory, _leaf)) = name.rsplit_once('/')
                    && name.starts_with("shards/")
                {
                    disk.remove(&name)?;
                    disk.sync_dir(directory)?;
                }
            }
        }
        Ok(())
    }
}
