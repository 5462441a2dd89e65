//! Where the pages of a mirrored file lie in a replica, and the sums that guard them. Pure; does no I/O.
#![deny(clippy::indexing_slicing)]

use crate::error::{Error, Result};
use crate::format::{Decoded, FormatError, Reader};
use crate::sum::xxh3;
use std::collections::BTreeSet;

/// redb's page, and ours.
pub(super) const PAGE_BYTES: usize = 4096;
/// `PAGE_BYTES` as a file offset.
pub(super) const PAGE: u64 = PAGE_BYTES as u64;
/// Sums in a sum page, and so pages of a group.
pub(super) const GROUP_PAGES: u64 = PAGE / 8;
/// Bytes of logical page 0 that may be other than zero.
pub(super) const HEADER_BYTES: usize = 504;
/// The header with its sum: what a device writes whole or not at all.
pub(super) const SECTOR_BYTES: usize = 512;
/// Longest logical file: bounds the sums in memory to 512 MiB, for a state of billions of files.
pub(super) const LENGTH_MAX: u64 = 256 * 1024 * 1024 * 1024;

/// Mixed into sums so that a page or header of zeros has a sum other than zero, and pages that changed places do
/// not match (odd, from the golden ratio).
const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
/// As `MIX`, for the header: "ironfsMH".
const HEADER_MIX: u64 = u64::from_le_bytes(*b"ironfsMH");

/// redb's header is 64 bytes and two commit slots of 128.
const _: () = assert!(64 + 2 * 128 <= HEADER_BYTES && HEADER_BYTES + 8 == SECTOR_BYTES);

/// First kilobytes of logical page 0.
pub(super) type Header = [u8; HEADER_BYTES];

/// Offset of logical page `page` (not 0) in a replica.
pub(super) const fn page_offset(page: u64) -> u64 {
    let index = page - 1;
    sum_offset(index / GROUP_PAGES) + (1 + index % GROUP_PAGES) * PAGE
}

/// Offset of the sum page of a group.
pub(super) const fn sum_offset(group: u64) -> u64 {
    (1 + group * (GROUP_PAGES + 1)) * PAGE
}

/// Length of a replica that holds `pages` logical pages.
pub(super) const fn replica_bytes(pages: u64) -> u64 {
    match pages.checked_sub(1) {
        None => 0,
        Some(behind_header) => (1 + behind_header + behind_header.div_ceil(GROUP_PAGES)) * PAGE,
    }
}

/// Logical pages in a replica of `bytes`.
pub(super) const fn logical_pages(bytes: u64) -> u64 {
    match (bytes / PAGE).checked_sub(1) {
        None => 0,
        Some(rest) => {
            let (groups, left) = (rest / (GROUP_PAGES + 1), rest % (GROUP_PAGES + 1));
            1 + groups * GROUP_PAGES + left.saturating_sub(1)
        }
    }
}

/// Number of pages, from page `first` on and at most `count`, that lie side by side in a replica.
pub(super) fn run_length(first: u64, count: u64) -> u64 {
    count.min(GROUP_PAGES - (first - 1) % GROUP_PAGES)
}

/// Sum of a page's content at its place; never 0.
pub(super) fn page_sum(page: u64, bytes: &[u8]) -> u64 {
    (xxh3(bytes) ^ page.wrapping_mul(MIX)).max(1)
}

/// Checks pages that lie side by side from `first` on.
pub(super) fn check_pages(first: u64, bytes: &[u8], sums: &Sums) -> Result<()> {
    for (page, content) in (first..).zip(bytes.chunks(PAGE_BYTES)) {
        let expected = sums.get(page);
        if expected == 0 {
            if content.iter().any(|byte| *byte != 0) {
                return Err(Error::corrupt(format!(
                    "page {page} was never written, and is not zero"
                )));
            }
        } else {
            let found = page_sum(page, content);
            if found != expected {
                return Err(Error::corrupt(format!(
                    "page {page}: expected sum {expected:016x}, found {found:016x}"
                )));
            }
        }
    }
    Ok(())
}

/// The sector for a header.
pub(super) fn seal_header(header: &Header) -> Vec<u8> {
    let sum = xxh3(header) ^ HEADER_MIX;
    header.iter().copied().chain(sum.to_le_bytes()).collect()
}

/// The header in a sector.
pub(super) fn open_header(sector: &[u8; SECTOR_BYTES]) -> Result<Header> {
    let short = || Error::internal("a sector is longer than a header");
    let (header, sum) = sector.split_first_chunk::<HEADER_BYTES>().ok_or_else(short)?;
    let (sum, _rest) = sum.split_first_chunk::<8>().ok_or_else(short)?;
    if sector.iter().all(|byte| *byte == 0) {
        return Err(Error::corrupt("the header was never written: this copy was not completed"));
    }
    let (expected, found) = (u64::from_le_bytes(*sum), xxh3(header) ^ HEADER_MIX);
    if expected != found {
        return Err(Error::corrupt(format!(
            "the header: expected sum {expected:016x}, found {found:016x}"
        )));
    }
    Ok(*header)
}

/// Sums of all logical pages behind page 0; 0 for a page that was never written.
#[derive(Debug, Default)]
pub(super) struct Sums {
    values: Vec<u64>,
    /// How many of them are 0.
    unused: u64,
    dirty: BTreeSet<u64>,
}

impl Sums {
    /// Sum of a page; 0 beyond the end.
    pub(super) fn get(&self, page: u64) -> u64 {
        Self::index(page).and_then(|index| self.values.get(index)).copied().unwrap_or(0)
    }

    /// Sets the sum of a page; nothing beyond the end.
    pub(super) fn set(&mut self, page: u64, sum: u64) {
        if let Some(value) = Self::index(page).and_then(|index| self.values.get_mut(index))
            && *value != sum
        {
            self.unused = self.unused + u64::from(sum == 0) - u64::from(*value == 0);
            *value = sum;
            self.dirty.insert((page - 1) / GROUP_PAGES);
        }
    }

    /// Pages that were never written.
    pub(super) const fn unused(&self) -> u64 {
        self.unused
    }

    /// Number of groups.
    pub(super) fn groups(&self) -> u64 {
        (self.values.len() as u64).div_ceil(GROUP_PAGES)
    }

    /// Cuts or extends to `pages` logical pages.
    pub(super) fn resize(&mut self, pages: u64) {
        let count = usize::try_from(pages.saturating_sub(1)).unwrap_or(usize::MAX);
        let cut = count < self.values.len();
        let zeros = |values: &[u64]| values.iter().filter(|value| **value == 0).count() as u64;
        let before = self.values.len();
        self.unused -= zeros(self.values.get(count..).unwrap_or_default());
        self.values.resize(count, 0);
        self.unused += zeros(self.values.get(before..).unwrap_or_default());
        let groups = self.groups();
        self.dirty.retain(|group| *group < groups);
        if cut && !(count as u64).is_multiple_of(GROUP_PAGES) {
            self.dirty.insert(groups - 1);
        }
    }

    /// The groups that changed since the last call.
    pub(super) fn take_dirty(&mut self) -> BTreeSet<u64> {
        std::mem::take(&mut self.dirty)
    }

    /// Content of the sum page of a group.
    pub(super) fn encode(&self, group: u64) -> Vec<u8> {
        let first = group * GROUP_PAGES + 1;
        let sums = first..first + GROUP_PAGES;
        sums.flat_map(|page| self.get(page).to_le_bytes()).collect()
    }

    /// Takes the sums of a group from its sum page. Sums beyond the end are left over from before the file was
    /// cut: they are written anew, as zeros.
    pub(super) fn load(&mut self, group: u64, page: &[u8]) {
        let end = self.values.len() as u64;
        let mut stale = false;
        let (chunks, _rest) = page.as_chunks::<8>();
        for (at, chunk) in (group * GROUP_PAGES + 1..).zip(chunks) {
            let sum = u64::from_le_bytes(*chunk);
            self.set(at, sum);
            stale |= at > end && sum != 0;
        }
        self.dirty.remove(&group);
        if stale {
            self.dirty.insert(group);
        }
    }

    fn index(page: u64) -> Option<usize> {
        usize::try_from(page.checked_sub(1)?).ok()
    }
}

/// Bytes of a redb file as its header tells them: a page for the header, then regions of header and data pages, the last
/// of which may be partial (redb 4, docs/design.md). 0 for what is no header of redb.
pub(super) fn told_bytes(header: &Header) -> Decoded<u64> {
    let mut reader = Reader::new(header);
    if reader.take(12)?.get(..4) != Some(b"redb".as_slice()) {
        return Ok(0);
    }
    let mut next = || reader.u32().map(u64::from);
    let (page, region_header, region_data) = (next()?, next()?, next()?);
    let (full, partial) = (next()?, next()?);
    let partial = if partial == 0 { 0 } else { region_header + partial };
    let pages = (region_header + region_data)
        .checked_mul(full)
        .and_then(|pages| pages.checked_add(partial));
    let bytes =
        pages.and_then(|pages| pages.checked_add(1)).and_then(|pages| pages.checked_mul(page));
    bytes.ok_or(FormatError::Invalid("layout of the state"))
}
