//! Counts stripes and files by what the loss of some disks does to them, in pages: a short view of the state for each,
//! on a thread for computations, so that nobody waits for the whole.

use super::{ClassFate, FileFate, FileFates};
use crate::error::Result;
use crate::meta::store::View;
use crate::stripe::layout::StripeRecord;
use crate::types::{ChunkIndex, DiskId, FileKind, Ino, ROOT_INO, StripeId};
use crate::volume::Volume;
use crate::volume::census::good_disks;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// Stripes, inodes or chunks that are read in one page.
const PAGE: usize = 1024;
/// Stripes whose fate is remembered: 2 MiB. Small files share stripes, and large ones come back to theirs.
const KNOWN_MAX: usize = 65_536;
/// Entries of a directory that are searched for a name: beyond them a file is told by its number.
const ENTRIES_MAX: usize = 65_536;
/// Directories above a file that are told.
const DEPTH_MAX: usize = 256;
/// Paths that are found in one page.
const PATHS: usize = 8;

/// What becomes of a stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Whole,
    Degraded,
    Lost,
}

/// A file that is being looked at.
#[derive(Clone, Copy, Debug)]
struct Open {
    ino: Ino,
    next: ChunkIndex,
    degraded_bytes: u64,
    lost_bytes: u64,
}

/// The count so far.
pub(super) struct Survey {
    volume: Arc<Volume>,
    /// Disks in use now, and those of them that would be left.
    here: BTreeSet<DiskId>,
    left: BTreeSet<DiskId>,
    /// The metadata is lost, and all with it.
    all_lost: bool,
    after_stripe: Option<StripeId>,
    after_ino: Option<Ino>,
    open: Option<Open>,
    known: HashMap<StripeId, Fate>,
    classes: BTreeMap<String, ClassFate>,
    files: FileFates,
    lost: Vec<(Ino, u64)>,
    degraded: Vec<(Ino, u64)>,
    limit: usize,
}

/// What was counted.
pub(super) struct Found {
    pub(super) classes: BTreeMap<String, ClassFate>,
    pub(super) files: FileFates,
    pub(super) listed: Vec<FileFate>,
}

impl Survey {
    pub(super) fn new(
        volume: Arc<Volume>,
        (here, left): (BTreeSet<DiskId>, BTreeSet<DiskId>),
        all_lost: bool,
    ) -> Self {
        Self {
            volume,
            here,
            left,
            all_lost,
            after_stripe: None,
            after_ino: None,
            open: None,
            known: HashMap::new(),
            classes: BTreeMap::new(),
            files: FileFates::default(),
            lost: Vec::new(),
            degraded: Vec::new(),
            limit: 0,
        }
    }

    /// Counts everything, and lists up to `limit` files.
    pub(super) async fn run(mut self, limit: usize) -> Result<Found> {
        self.limit = limit;
        let survey = self.pages(Self::stripes).await?;
        let survey = survey.pages(Self::inodes).await?;
        survey.list().await
    }

    /// Runs `page` until it answers that there is no more.
    async fn pages(mut self, page: fn(&mut Self) -> Result<bool>) -> Result<Self> {
        let cpu = self.volume.cpu();
        loop {
            let (survey, more) = cpu
                .run(move || {
                    let more = page(&mut self);
                    (self, more)
                })
                .await;
            self = survey;
            if !more? {
                return Ok(self);
            }
        }
    }

    /// A page of stripes.
    fn stripes(&mut self) -> Result<bool> {
        let view = self.volume.meta.view()?;
        let page = view.stripes(self.after_stripe, PAGE)?;
        let Some((last, _live)) = page.last() else { return Ok(false) };
        self.after_stripe = Some(last.id);
        for (record, live_bytes) in &page {
            let bad = view.repair(record.id)?.map_or(0, |entry| entry.bad);
            let fate = self.fate_on(record, bad, &self.left);
            let already = self.fate_on(record, bad, &self.here) == Fate::Lost;
            let class = self.classes.entry(record.class.to_string()).or_default();
            class.stripes += 1;
            class.lost_already += u64::from(already);
            match fate {
                Fate::Whole => {}
                Fate::Degraded => {
                    class.degraded_stripes += 1;
                    class.degraded_bytes += live_bytes;
                }
                Fate::Lost => {
                    class.lost_stripes += 1;
                    class.lost_bytes += live_bytes;
                }
            }
        }
        Ok(true)
    }

    /// What becomes of a stripe with shards on these disks, of which `bad` are noted as such.
    fn fate_on(&self, record: &StripeRecord, bad: u64, disks: &BTreeSet<DiskId>) -> Fate {
        let good = good_disks(record, bad, |disk| disks.contains(&disk)).count();
        let scheme = record.class.scheme;
        // Without the metadata nobody knows what the shards are.
        let unknown = self.all_lost && disks.len() < self.here.len();
        if good < usize::from(scheme.k()) || unknown {
            Fate::Lost
        } else if good < usize::from(scheme.n()) {
            Fate::Degraded
        } else {
            Fate::Whole
        }
    }

    /// What becomes of the stripe that an extent names.
    fn fate(&mut self, view: &View, id: StripeId) -> Result<Fate> {
        if let Some(fate) = self.known.get(&id) {
            return Ok(*fate);
        }
        let bad = view.repair(id)?.map_or(0, |entry| entry.bad);
        let fate = match view.stripe(id)? {
            Some(record) => self.fate_on(&record, bad, &self.left),
            // An extent whose stripe is not recorded cannot be read.
            None => Fate::Lost,
        };
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        self.known.insert(id, fate);
        Ok(fate)
    }

    /// A page of files and their chunks.
    fn inodes(&mut self) -> Result<bool> {
        let view = self.volume.meta.view()?;
        let mut budget = PAGE;
        while budget > 0 {
            let open = match self.open.take() {
                Some(open) => open,
                None => {
                    let Some(inode) = view.inodes(self.after_ino, 1)?.pop() else {
                        return Ok(false);
                    };
                    self.after_ino = Some(inode.ino);
                    budget -= 1;
                    if inode.kind != FileKind::File {
                        continue;
                    }
                    let lost_bytes = if self.all_lost { inode.allocated_bytes } else { 0 };
                    Open { ino: inode.ino, next: ChunkIndex(0), degraded_bytes: 0, lost_bytes }
                }
            };
            budget = budget.saturating_sub(self.chunks(&view, open, budget.max(1))?);
        }
        Ok(true)
    }

    /// Looks at up to `limit` chunks of a file; answers how many there were.
    fn chunks(&mut self, view: &View, mut open: Open, limit: usize) -> Result<usize> {
        // It may have been deleted since the last page.
        let inode = view.inode(open.ino)?.filter(|_inode| !self.all_lost);
        let Some(inode) = inode else {
            self.finish(open);
            return Ok(0);
        };
        let chunks = view.data_chunks(&inode, open.next, limit)?;
        for chunk in &chunks {
            for (_segment, place) in view.chunk(&inode, *chunk)?.map.iter() {
                let bytes = u64::from(place.frame.raw_bytes);
                match self.fate(view, place.stripe)? {
                    Fate::Whole => {}
                    Fate::Degraded => open.degraded_bytes += bytes,
                    Fate::Lost => open.lost_bytes += bytes,
                }
            }
        }
        let next = chunks.last().and_then(|last| last.0.checked_add(1)).map(ChunkIndex);
        match next.filter(|_next| chunks.len() == limit) {
            Some(next) => self.open = Some(Open { next, ..open }),
            None => self.finish(open),
        }
        Ok(chunks.len())
    }

    /// Counts a file.
    fn finish(&mut self, open: Open) {
        let files = &mut self.files;
        files.checked += 1;
        files.degraded_bytes += open.degraded_bytes;
        files.lost_bytes += open.lost_bytes;
        let (list, bytes) = if open.lost_bytes > 0 || self.all_lost {
            files.lost += 1;
            (&mut self.lost, open.lost_bytes)
        } else if open.degraded_bytes > 0 {
            files.degraded += 1;
            (&mut self.degraded, open.degraded_bytes)
        } else {
            return;
        };
        if list.len() < self.limit {
            list.push((open.ino, bytes));
        }
    }

    /// Finds the paths of the files to list.
    async fn list(self) -> Result<Found> {
        let lost = self.lost.iter().map(|(ino, bytes)| (*ino, *bytes, "lost"));
        let degraded = self.degraded.iter().map(|(ino, bytes)| (*ino, *bytes, "degraded"));
        let files: Vec<_> = lost.chain(degraded).take(self.limit).collect();
        let mut listed = Vec::with_capacity(files.len());
        let cpu = self.volume.cpu();
        for page in files.chunks(PATHS) {
            let (volume, inos) = (self.volume.clone(), page.iter().map(|(ino, ..)| *ino));
            let inos: Vec<Ino> = inos.collect();
            let paths = cpu.run(move || paths(&volume, &inos)).await?;
            listed.extend(paths.into_iter().zip(page).map(|(path, (_ino, bytes, state))| {
                FileFate { path, state: (*state).into(), bytes: *bytes }
            }));
        }
        Ok(Found { classes: self.classes, files: self.files, listed })
    }
}

/// The path of each inode, as far as it is found.
fn paths(volume: &Volume, inos: &[Ino]) -> Result<Vec<String>> {
    let view = volume.meta.view()?;
    inos.iter().map(|ino| path(&view, *ino)).collect()
}

fn path(view: &View, file: Ino) -> Result<String> {
    let mut names = Vec::new();
    let mut ino = file;
    while ino != ROOT_INO && names.len() < DEPTH_MAX {
        let inode = view.inode(ino)?.filter(|inode| inode.links > 0);
        let Some(inode) = inode else { return Ok(format!("(unlinked inode {file})")) };
        let Some(name) = name_in(view, inode.parent, ino)? else {
            names.push(format!("(inode {ino})"));
            break;
        };
        names.push(String::from_utf8_lossy(&name).into_owned());
        ino = inode.parent;
    }
    names.reverse();
    Ok(format!("/{}", names.join("/")))
}

/// A name of `ino` in a directory.
fn name_in(view: &View, directory: Ino, ino: Ino) -> Result<Option<Vec<u8>>> {
    let (mut after, mut seen) = (0, 0);
    while seen < ENTRIES_MAX {
        let page = view.list(directory, after, PAGE)?;
        let Some(last) = page.last() else { return Ok(None) };
        (after, seen) = (last.cookie, seen + page.len());
        if let Some(entry) = page.into_iter().find(|entry| entry.ino == ino) {
            return Ok(Some(entry.name));
        }
    }
    Ok(None)
}
