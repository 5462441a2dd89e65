//! Reads the log of one disk: every good record, whatever is bad between them. Decides nothing.
#![deny(clippy::indexing_slicing)]

use crate::disk::{Disk, OpenMode};
use crate::error::{Error, Result};
use crate::format::FormatError;
use crate::meta::log::record::{Found, Header, Record, SECTOR_BYTES, find, seed};
use crate::meta::log::{Chain, LOG_DIR, list_files};
use crate::types::{Epoch, LogPosition, VolumeId};
use std::collections::BTreeMap;

/// Longest log file that is read: a round of the largest buffer, with room for what its records add.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// The log as one disk has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Copy {
    /// Epoch at which its chain was begun.
    pub base: Epoch,
    /// Position at which its first file starts: records before are trimmed.
    pub first: LogPosition,
    /// Good records.
    pub records: BTreeMap<LogPosition, Record>,
    /// Versions of `apply` that its files name.
    pub apply_versions: Vec<u16>,
    /// Records and file headers that are damaged.
    pub damaged: u64,
}

/// Reads the newest chain whose base is not above `epoch`. `None` if the disk has none.
///
/// Errors: those of the disk; `Refused` if a newer program wrote a file.
pub fn scan(disk: &dyn Disk, volume: VolumeId, epoch: Epoch) -> Result<Option<Copy>> {
    let mut files = list_files(disk)?;
    files.retain(|(_name, base, _first)| *base <= epoch);
    let Some(base) = files.iter().map(|(_name, base, _first)| *base).max() else {
        return Ok(None);
    };
    files.retain(|(_name, of, _first)| *of == base);
    let first = files.iter().map(|(_name, _base, first)| *first).min().unwrap_or_default();
    let mut copy =
        Copy { base, first, records: BTreeMap::new(), apply_versions: Vec::new(), damaged: 0 };
    let chain = Chain { volume, base };
    for (name, _base, first) in files {
        let context = || format!("read log file {name} of {}", disk.label());
        let bytes = read_file(disk, &name).map_err(|error| error.while_doing(context()))?;
        let header = Header::decode(bytes.get(..SECTOR_BYTES).unwrap_or(&bytes));
        match header {
            Ok(header) if header.chain == chain && header.first == first => {
                copy.apply_versions.push(header.apply_version);
            }
            Err(error @ FormatError::Newer { .. }) => {
                return Err(Error::from(error).while_doing(context()));
            }
            // The name says what the header should; records have sums of their own.
            Ok(_) | Err(_) => copy.damaged += 1,
        }
        copy.take(&bytes, seed(chain), first);
    }
    Ok(Some(copy))
}

fn read_file(disk: &dyn Disk, name: &str) -> Result<Vec<u8>> {
    let file = disk.open(&format!("{LOG_DIR}/{name}"), OpenMode::Read)?;
    let length = file.len()?;
    if length > FILE_BYTES_MAX {
        return Err(Error::corrupt(format!("it has {length} bytes, at most {FILE_BYTES_MAX}")));
    }
    let too_long = |_e| Error::corrupt("it is longer than memory");
    let mut bytes = vec![0; usize::try_from(length).map_err(too_long)?];
    file.read(0, &mut bytes)?;
    Ok(bytes)
}

impl Copy {
    /// Takes all good records of a file. Where none is, the next sector is tried: batches start on sectors, and a
    /// crash leaves any of them out.
    fn take(&mut self, bytes: &[u8], seed: u64, first: LogPosition) {
        let mut offset = SECTOR_BYTES;
        while let Some(rest) = bytes.get(offset..).filter(|rest| !rest.is_empty()) {
            match find(rest, seed) {
                Found::Record(record, length) => {
                    if record.position >= first {
                        self.insert(record);
                    }
                    offset += length;
                }
                Found::Damaged(length) => {
                    self.damaged += 1;
                    offset += length;
                }
                Found::Nothing => offset = (offset + 1).next_multiple_of(SECTOR_BYTES),
            }
        }
    }

    fn insert(&mut self, record: Record) {
        let place = self.records.entry(record.position);
        let place = place.or_insert_with(|| record.clone());
        if place.epoch < record.epoch {
            *place = record;
        }
    }
}
