//! What a simulated disk holds: names and sparse contents that are cheap to copy. Knows no faults and no crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Unit of copying. Absent pages are zero.
const PAGE_BYTES: usize = 4096;
/// What a medium writes in one piece.
pub(super) const SECTOR_BYTES: u64 = 512;

/// Identity of a file, so that it stays the same through renames. Unique within a machine.
pub type FileId = u64;

/// A change of a disk, or a sync.
#[derive(Clone, Debug)]
pub enum Op {
    /// Bytes were written.
    Write { file: FileId, offset: u64, data: Arc<[u8]> },
    /// The length was set.
    SetLen { file: FileId, length: u64 },
    /// A file was created.
    Create { name: String, file: FileId },
    /// A file was removed.
    Remove { name: String, file: FileId },
    /// A file was renamed, over another perhaps.
    Rename { from: String, to: String, file: FileId, replaced: Option<FileId> },
    /// A directory was made.
    CreateDir { name: String },
    /// A file was synced, or its sync failed.
    SyncData { file: FileId, failed: bool },
    /// A directory was synced, or its sync failed.
    SyncDir { dir: String, failed: bool },
}

impl Op {
    /// Whether this is a sync, which changes no content.
    pub const fn is_sync(&self) -> bool {
        matches!(self, Self::SyncData { .. } | Self::SyncDir { .. })
    }

    /// Whether a power cut can leave a part of it.
    pub(super) fn can_tear(&self) -> bool {
        match self {
            Self::Write { offset, data, .. } => {
                let last = offset + to_u64(data.len().saturating_sub(1));
                offset / SECTOR_BYTES != last / SECTOR_BYTES
            }
            _ => false,
        }
    }
}

/// What a name leads to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    File(FileId),
    Dir,
}

/// Bytes of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Content {
    length: u64,
    pages: Arc<BTreeMap<u64, Arc<[u8; PAGE_BYTES]>>>,
}

impl Content {
    pub(super) const fn len(&self) -> u64 {
        self.length
    }

    /// Fills `buffer`; what lies behind the end reads as zeros.
    pub(super) fn read(&self, offset: u64, buffer: &mut [u8]) {
        for (page, start, piece) in pieces(offset, buffer.len()) {
            let target = &mut buffer[piece];
            match self.pages.get(&page) {
                Some(bytes) => target.copy_from_slice(&bytes[start..start + target.len()]),
                None => target.fill(0),
            }
        }
    }

    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; to_usize(self.length)];
        self.read(0, &mut bytes);
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let pages = Arc::make_mut(&mut self.pages);
        for (page, start, piece) in pieces(offset, data.len()) {
            let source = &data[piece];
            let bytes = pages.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(bytes)[start..start + source.len()].copy_from_slice(source);
        }
        self.length = self.length.max(offset + to_u64(data.len()));
    }

    pub(super) fn set_len(&mut self, length: u64) {
        if length < self.length {
            let pages = Arc::make_mut(&mut self.pages);
            let page = length / to_u64(PAGE_BYTES);
            pages.split_off(&(page + 1));
            if let Some(bytes) = pages.get_mut(&page) {
                Arc::make_mut(bytes)[to_usize(length % to_u64(PAGE_BYTES))..].fill(0);
            }
        }
        self.length = length;
    }

    /// Writes only the sectors whose bit is set in `kept` (bit i % 64 for the i-th sector that is touched).
    fn write_torn(&mut self, offset: u64, data: &[u8], kept: u64) {
        let end = offset + to_u64(data.len());
        let mut start = offset;
        while start < end {
            let stop = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            let sector = start / SECTOR_BYTES - offset / SECTOR_BYTES;
            if kept >> (sector % 64) & 1 == 1 {
                self.write(start, &data[to_usize(start - offset)..to_usize(stop - offset)]);
            }
            start = stop;
        }
    }
}

/// The pages of `offset..offset + length`: number, start within the page, piece of the range.
fn pieces(
    offset: u64,
    length: usize,
) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == length {
            return None;
        }
        let at = offset + to_u64(done);
        let start = to_usize(at % to_u64(PAGE_BYTES));
        let piece = done..length.min(done + PAGE_BYTES - start);
        done = piece.end;
        Some((at / to_u64(PAGE_BYTES), start, piece))
    })
}

/// Names and contents of one disk. Names are whole paths.
#[derive(Clone, Debug, Default)]
pub(super) struct DiskImage {
    pub(super) names: BTreeMap<String, Node>,
    pub(super) files: BTreeMap<FileId, Content>,
}

impl DiskImage {
    /// Applies `op`; of a write only the sectors in `kept`. An operation on a name that leads elsewhere by now
    /// (because one before it was lost) touches only what it was about.
    pub(super) fn apply(&mut self, op: &Op, kept: u64) {
        match op {
            Op::Write { file, offset, data } => {
                let content = self.files.entry(*file).or_default();
                match kept {
                    u64::MAX => content.write(*offset, data),
                    kept => content.write_torn(*offset, data, kept),
                }
            }
            Op::SetLen { file, length } => self.files.entry(*file).or_default().set_len(*length),
            Op::Create { name, file } => self.name(name, *file),
            Op::Remove { name, file } => self.forget(name, *file),
            Op::Rename { from, to, file, .. } => {
                self.forget(from, *file);
                self.name(to, *file);
            }
            Op::CreateDir { name } => {
                self.names.insert(name.clone(), Node::Dir);
            }
            Op::SyncData { .. } | Op::SyncDir { .. } => {}
        }
    }

    fn name(&mut self, name: &str, file: FileId) {
        self.names.insert(name.to_owned(), Node::File(file));
        self.files.entry(file).or_default();
    }

    fn forget(&mut self, name: &str, file: FileId) {
        if self.names.get(name) == Some(&Node::File(file)) {
            self.names.remove(name);
        }
    }

    pub(super) fn is_dir(&self, dir: &str) -> bool {
        dir.is_empty() || self.names.get(dir) == Some(&Node::Dir)
    }

    /// Whether something is not reachable from the root.
    fn has_strays(&self) -> bool {
        let named = self.names.values().filter(|node| matches!(node, Node::File(_))).count();
        named != self.files.len() || self.names.keys().any(|name| !self.is_dir(parent(name)))
    }

    /// The image without what cannot be reached from the root.
    pub(super) fn without_strays(self: Arc<Self>) -> Arc<Self> {
        if !self.has_strays() {
            return self;
        }
        let mut pruned = Self::default();
        for (name, node) in &self.names {
            // A directory sorts before what it holds.
            if pruned.is_dir(parent(name)) {
                pruned.names.insert(name.clone(), *node);
            }
        }
        let named: BTreeSet<_> = pruned.names.values().filter_map(file_of).collect();
        pruned.files = self
            .files
            .iter()
            .filter(|(file, _content)| named.contains(file))
            .map(|(file, content)| (*file, content.clone()))
            .collect();
        Arc::new(pruned)
    }
}

const fn file_of(node: &Node) -> Option<FileId> {
    match node {
        Node::File(file) => Some(*file),
        Node::Dir => None,
    }
}

/// The directory of a name; "" is the root.
pub(super) fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _leaf)| dir)
}

pub(super) fn to_usize(value: u64) -> usize {
    usize::try_from(value).expect("tests run on 64-bit machines")
}

pub(super) fn to_u64(value: usize) -> u64 {
    u64::try_from(value).expect("usize is at most 64 bits wide")
}
