//! One replica: its file, whether it is alive, and reads of it that are checked.

use super::Deaths;
use super::layout::{PAGE, PAGE_BYTES, Sums, check_pages, page_offset, run_length, sum_offset};
use crate::disk::DiskFile;
use crate::error::{Error, Posix, Result};
use crate::types::DiskId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[derive(Debug)]
pub(super) struct Replica {
    pub(super) disk: DiskId,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) alive: AtomicBool,
    /// It kept a reader waiting, and has not been synced since: others are asked first.
    pub(super) late: AtomicBool,
    /// It died because its disk has no room.
    pub(super) full: AtomicBool,
}

impl Replica {
    pub(super) fn new(disk: DiskId, file: Arc<dyn DiskFile>) -> Arc<Self> {
        let alive = AtomicBool::new(true);
        let (late, full) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { disk, file, alive, late, full })
    }

    pub(super) fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    /// Does `work` if this replica is alive; answers whether it was done. Failure means death.
    pub(super) fn attempt(
        &self,
        deaths: &mut Deaths,
        work: impl FnOnce(&Self) -> Result<()>,
    ) -> bool {
        if !self.is_alive() {
            return false;
        }
        let Err(error) = work(self) else { return true };
        if error.is(Posix::NoSpace) {
            self.full.store(true, Ordering::SeqCst);
        }
        if self.alive.swap(false, Ordering::SeqCst) {
            let context = format!("the state copy on disk {}", self.disk);
            deaths.push((self.disk, error.while_doing(context)));
        }
        false
    }

    pub(super) fn write_sums(&self, group: u64, sums: &Sums) -> Result<()> {
        self.file.write(sum_offset(group), &sums.encode(group))
    }

    /// Fills `out` from `offset` (behind page 0) on, and checks all pages that it touches. Answers false if that takes longer
    /// than `patience`.
    pub(super) fn read(
        &self,
        offset: u64,
        out: &mut [u8],
        sums: &Sums,
        patience: Option<Duration>,
    ) -> Result<bool> {
        let end = offset + out.len() as u64;
        if offset.is_multiple_of(PAGE) && end.is_multiple_of(PAGE) {
            return self.read_pages(offset / PAGE, out, sums, patience);
        }
        let first = offset / PAGE;
        let bytes = (end.div_ceil(PAGE) - first) * PAGE;
        let too_long = |_e| Error::internal("read longer than memory");
        let mut pages = vec![0; usize::try_from(bytes).map_err(too_long)?];
        if !self.read_pages(first, &mut pages, sums, patience)? {
            return Ok(false);
        }
        let skip = usize::try_from(offset % PAGE).map_err(too_long)?;
        out.iter_mut().zip(pages.iter().skip(skip)).for_each(|(to, from)| *to = *from);
        Ok(true)
    }

    fn read_pages(
        &self,
        first: u64,
        out: &mut [u8],
        sums: &Sums,
        patience: Option<Duration>,
    ) -> Result<bool> {
        let (mut page, mut left) = (first, out);
        while !left.is_empty() {
            let length = run_length(page, (left.len() / PAGE_BYTES) as u64);
            let bytes = usize::try_from(length * PAGE).unwrap_or(left.len());
            let (run, rest) = left.split_at_mut(bytes.min(left.len()));
            match patience {
                None => self.file.read(page_offset(page), run)?,
                Some(patience) if self.file.read_soon(page_offset(page), run, patience)? => {}
                Some(_) => return Ok(false),
            }
            check_pages(page, run, sums)?;
            page += length;
            left = rest;
        }
        Ok(true)
    }
}
