//! Checks the state against itself: names against inodes, extents against stripes, sums against what they sum. Reads
//! through a view; knows no disk and no shard.

use crate::error::Result;
use crate::meta::command::Inode;
use crate::meta::store::{Totals, View};
use crate::types::{FileKind, Ino, ROOT_INO, SegmentAddress, SlotIndex, StripeId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Most findings that are listed; the others are counted.
pub const FINDINGS_MAX: usize = 1000;
/// Rows read at once.
const PAGE_ROWS: usize = 512;

/// What is wrong.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Findings {
    /// One sentence each.
    pub list: Vec<String>,
    /// How many there are, listed or not.
    pub count: usize,
}

impl Findings {
    fn add(&mut self, finding: impl FnOnce() -> String) {
        self.count += 1;
        if self.list.len() < FINDINGS_MAX {
            self.list.push(finding());
        }
    }

    fn expect(&mut self, good: bool, finding: impl FnOnce() -> String) {
        if !good {
            self.add(finding);
        }
    }
}

/// What is kept of an inode while the rest is read.
struct Known {
    kind: FileKind,
    links: u32,
    size: u64,
    parent: Ino,
    names: u32,
    subdirectories: u32,
}

/// Owners and bytes of the slots of one stripe, as extents name them.
type Used = HashMap<StripeId, BTreeMap<u32, (u64, Vec<SegmentAddress>)>>;

struct Check<'v> {
    view: &'v View,
    findings: Findings,
    inodes: HashMap<Ino, Known>,
    sums: Totals,
    used: Used,
}

/// Reads the whole state; needs memory in proportion to the number of inodes and segments.
pub fn check(view: &View) -> Result<Findings> {
    let mut check = Check {
        view,
        findings: Findings::default(),
        inodes: HashMap::new(),
        sums: Totals::default(),
        used: Used::new(),
    };
    check.read_inodes()?;
    check.names()?;
    check.links()?;
    check.extents()?;
    check.stripes()?;
    check.totals()?;
    Ok(check.findings)
}

impl Check<'_> {
    fn read_inodes(&mut self) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.view.inodes(after, PAGE_ROWS)?;
            let Some(last) = page.last() else { break };
            after = Some(last.ino);
            for inode in page {
                self.read_inode(&inode)?;
            }
        }
        if self.view.totals()?.next_ino != 0 {
            let root = self.inodes.get(&ROOT_INO).map(|known| known.kind);
            self.findings
                .expect(root == Some(FileKind::Directory), || "there is no root directory".into());
        }
        Ok(())
    }

    fn read_inode(&mut self, inode: &Inode) -> Result<()> {
        let ino = inode.ino;
        let xattrs = !self.view.xattrs(ino)?.is_empty();
        self.findings.expect(xattrs == inode.has_xattrs, || {
            format!("inode {ino} says {} of xattrs, there are {xattrs}", inode.has_xattrs)
        });
        self.findings.expect(inode.floor < inode.version, || {
            format!("inode {ino} has floor {} and version {}", inode.floor, inode.version)
        });
        self.sums.inodes += 1;
        self.sums.reserved_bytes += inode.reserved_bytes;
        let known = Known {
            kind: inode.kind,
            links: inode.links,
            size: inode.size,
            parent: inode.parent,
            names: 0,
            subdirectories: 0,
        };
        self.inodes.insert(ino, known);
        Ok(())
    }

    fn names(&mut self) -> Result<()> {
        let directories: Vec<(Ino, u64)> = self
            .inodes
            .iter()
            .filter(|(_ino, known)| known.kind == FileKind::Directory)
            .map(|(ino, known)| (*ino, known.size))
            .collect();
        let mut listed = 0;
        for (directory, size) in directories {
            let found = self.directory(directory)?;
            listed += found;
            self.findings.expect(found == size, || {
                format!("directory {directory} says {size} entries, there are {found}")
            });
        }
        let (names, places) = self.view.name_counts()?;
        self.findings.expect((names, places) == (listed, listed), || {
            format!(
                "{names} names and {places} listed places, of which {listed} are in directories"
            )
        });
        Ok(())
    }

    /// Checks the entries of one directory and answers their number.
    fn directory(&mut self, directory: Ino) -> Result<u64> {
        let (mut after, mut found) = (0, 0);
        loop {
            let page = self.view.list(directory, after, PAGE_ROWS)?;
            let Some(last) = page.last() else { return Ok(found) };
            after = last.cookie;
            for entry in page {
                found += 1;
                let name = || String::from_utf8_lossy(&entry.name).into_owned();
                let dentry = self.view.lookup(directory, &entry.name)?;
                self.findings.expect(dentry == Some((entry.ino, entry.kind)), || {
                    format!("directory {directory} lists {:?} and finds {dentry:?}", name())
                });
                let Some(child) = self.inodes.get_mut(&entry.ino) else {
                    self.findings.add(|| {
                        format!(
                            "{:?} in directory {directory} leads to inode {}, which is not there",
                            name(),
                            entry.ino
                        )
                    });
                    continue;
                };
                child.names += 1;
                let (kind, parent) = (child.kind, child.parent);
                self.findings.expect(kind == entry.kind, || {
                    format!(
                        "{:?} in directory {directory} is {:?}, its inode {kind:?}",
                        name(),
                        entry.kind
                    )
                });
                if kind == FileKind::Directory {
                    self.findings.expect(parent == directory, || {
                        format!("directory {} is in {directory} and says {parent}", entry.ino)
                    });
                    if let Some(known) = self.inodes.get_mut(&directory) {
                        known.subdirectories += 1;
                    }
                } else {
                    let parents = self.view.parents(entry.ino)?;
                    self.findings.expect(parents.contains(&directory), || {
                        format!(
                            "inode {} has a name in {directory} and says {parents:?}",
                            entry.ino
                        )
                    });
                }
            }
        }
    }

    fn links(&mut self) -> Result<()> {
        let orphans: BTreeSet<Ino> = self.view.orphans(None, usize::MAX)?.into_iter().collect();
        for (ino, known) in &self.inodes {
            let is_dir = known.kind == FileKind::Directory;
            let named = if *ino == ROOT_INO { 1 } else { known.names };
            let expected = match (is_dir, named) {
                (true, 0) => 0,
                (true, _) => 2 + known.subdirectories,
                (false, names) => names,
            };
            self.findings.expect(known.links == expected, || {
                format!("inode {ino} says {} links, there are {expected}", known.links)
            });
            self.findings.expect((named == 0) == orphans.contains(ino), || {
                format!(
                    "inode {ino} has {named} names, and is an orphan: {}",
                    orphans.contains(ino)
                )
            });
            self.findings
                .expect(!is_dir || named <= 1, || format!("directory {ino} has {named} names"));
            if is_dir && named > 0 && !self.is_rooted(*ino) {
                self.findings.add(|| format!("directory {ino} does not hang on the root"));
            }
        }
        for ino in orphans.iter().filter(|ino| !self.inodes.contains_key(ino)) {
            self.findings.add(|| format!("orphan {ino} has no inode"));
        }
        Ok(())
    }

    fn is_rooted(&self, mut ino: Ino) -> bool {
        for _step in 0..=self.inodes.len() {
            if ino == ROOT_INO {
                return true;
            }
            match self.inodes.get(&ino) {
                Some(known) => ino = known.parent,
                None => return false,
            }
        }
        false
    }

    fn extents(&mut self) -> Result<()> {
        let reaped: BTreeSet<Ino> = self
            .view
            .reaping()?
            .into_iter()
            .filter(|(_ino, whole)| *whole)
            .map(|(ino, _whole)| ino)
            .collect();
        let mut after = None;
        loop {
            let page = self.view.chunk_rows(after, PAGE_ROWS)?;
            let Some((ino, chunk, _map)) = page.last() else { break };
            after = Some((*ino, *chunk));
            for (ino, chunk, map) in page {
                let owned = reaped.contains(&ino)
                    || self.inodes.get(&ino).is_some_and(|known| known.kind == FileKind::File);
                self.findings
                    .expect(owned, || format!("chunk {chunk} belongs to no file: inode {ino}"));
                for (segment, place) in map.iter() {
                    let slots = self.used.entry(place.stripe).or_default();
                    let bytes = place.frame.stored_bytes();
                    let slot = slots.entry(place.slot.0).or_insert_with(|| (bytes, Vec::new()));
                    slot.1.push(SegmentAddress { ino, chunk, segment });
                }
            }
        }
        let mut after = None;
        loop {
            let page = self.view.hot_files(after, PAGE_ROWS)?;
            let Some((ino, _bytes)) = page.last() else { return Ok(()) };
            after = Some(*ino);
            for (ino, bytes) in page {
                self.sums.hot_bytes += bytes;
                let owned = reaped.contains(&ino) || self.inodes.contains_key(&ino);
                self.findings.expect(owned, || format!("hot bytes belong to no file: inode {ino}"));
            }
        }
    }

    fn stripes(&mut self) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.view.stripes(after, PAGE_ROWS)?;
            let Some((last, _bytes)) = page.last() else { break };
            after = Some(last.id);
            for (record, bytes) in page {
                self.sums.stripes += 1;
                self.sums.stripe_bytes += record.geometry().coded_bytes();
                self.sums.live_bytes += bytes;
                let slots = self.used.remove(&record.id).unwrap_or_default();
                self.stripe(record.id, bytes, &slots)?;
                let disks: BTreeSet<_> = record.disks.iter().collect();
                self.findings
                    .expect(disks.len() == record.disks.len() || record.missing != 0, || {
                        format!("stripe {} has two shards on one disk", record.id)
                    });
            }
        }
        for stripe in self.used.keys() {
            self.findings.add(|| format!("extents name stripe {stripe}, which is not there"));
        }
        self.repairs()?;
        let mut after = None;
        loop {
            let page = self.view.dead_stripes(after, PAGE_ROWS)?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.id);
            self.sums.dead_bytes +=
                page.iter().map(|record| record.geometry().coded_bytes()).sum::<u64>();
        }
    }

    fn repairs(&mut self) -> Result<()> {
        let mut after = None;
        loop {
            let page = self.view.repairs(after, PAGE_ROWS)?;
            let Some((last, _entry)) = page.last() else { return Ok(()) };
            after = Some(*last);
            for (id, entry) in page {
                let scheme = self.view.stripe(id)?.map(|record| record.class.scheme);
                let beyond = |n: u8| entry.bad.checked_shr(n.into()).unwrap_or(0);
                let known = scheme.is_some_and(|scheme| beyond(scheme.n()) == 0);
                self.findings.expect(known, || {
                    format!("the repair queue names shards of stripe {id} that are not there")
                });
            }
        }
    }

    fn stripe(
        &mut self,
        id: StripeId,
        bytes: u64,
        slots: &BTreeMap<u32, (u64, Vec<SegmentAddress>)>,
    ) -> Result<()> {
        let usage = self.view.stripe_usage(id)?.unwrap_or_default();
        let used: Vec<SlotIndex> = slots.keys().copied().map(SlotIndex).collect();
        self.findings.expect(usage.live == used, || {
            format!("stripe {id} says live slots {:?}, extents name {used:?}", usage.live)
        });
        let sum: u64 = slots.values().map(|(bytes, _owners)| bytes).sum();
        self.findings.expect(sum == bytes, || {
            format!("stripe {id} says {bytes} live bytes, extents name {sum}")
        });
        for (slot, (_bytes, owners)) in slots {
            if !usage.shared {
                self.findings.expect(owners.len() == 1, || {
                    format!("slot {slot} of stripe {id} has several owners and is not marked so")
                });
                continue;
            }
            let mut named = self.view.owners(id, SlotIndex(*slot))?;
            named.sort_unstable();
            let mut owners = owners.clone();
            owners.sort_unstable();
            let single = named.is_empty() && owners.len() == 1;
            self.findings.expect(single || named == owners, || {
                format!(
                    "slot {slot} of stripe {id} has owners {owners:?}, its backrefs say {named:?}"
                )
            });
        }
        Ok(())
    }

    fn totals(&mut self) -> Result<()> {
        let stored = self.view.totals()?;
        let expected =
            Totals { next_ino: stored.next_ino, incarnation: stored.incarnation, ..self.sums };
        self.findings.expect(stored == expected, || {
            format!("the totals are {stored:?}; they should be {expected:?}")
        });
        Ok(())
    }
}
