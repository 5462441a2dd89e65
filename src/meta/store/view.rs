//! Short read views of the state. Reads tables; never writes.

use super::{ChunkView, DirEntry, HotBytes, StripeUsage, Totals, check_format, decode_totals};
use crate::class::Class;
use crate::error::{Error, Result};
use crate::extent::ChunkMap;
use crate::format::Reader;
use crate::meta::command::{Inode, ScrubState};
use crate::meta::tables::rows::{self, Live, RepairEntry};
use crate::meta::tables::{
    self, BACKREF, CHUNK, CLASS, CONFIG, DEAD, DENTRY, HOT, INODE, LINK, LISTING, LIVE, ORPHAN,
    REAP, REPAIR, STRIPE, XATTR, db,
};
use crate::stripe::layout::StripeRecord;
use crate::types::{
    ChunkIndex, ClassId, FileKind, Ino, LogPosition, SegmentAddress, SegmentIndex, SlotIndex,
    StripeId, Version,
};
use bytes::Bytes;
use redb::{Key, ReadOnlyTable, ReadTransaction, ReadableTable, TableDefinition, Value};
use std::collections::BTreeSet;
use std::ops::Bound;

/// The state at one position: a short redb read transaction. Drop it soon, it pins pages.
pub struct View {
    transaction: ReadTransaction,
}

impl std::fmt::Debug for View {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("View").finish_non_exhaustive()
    }
}

/// Applied position and totals; `None` if the state is new.
pub(super) fn read_config(transaction: &ReadTransaction) -> Result<Option<(LogPosition, Totals)>> {
    let table = match transaction.open_table(CONFIG) {
        Ok(table) => table,
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(None),
        Err(error) => return Err(db(error)),
    };
    let get = |key: &'static str| {
        table.get(key).map_err(db)?.ok_or_else(|| Error::corrupt(format!("the state has no {key}")))
    };
    check_format(Reader::new(get("format")?.value()).u16()?)?;
    let applied = LogPosition(Reader::new(get("applied")?.value()).u64()?);
    Ok(Some((applied, decode_totals(get("totals")?.value())?)))
}

fn record(row: &[u8]) -> Result<StripeRecord> {
    Ok(StripeRecord::decode(&mut Reader::new(row))?)
}

/// The range behind `after`.
fn behind<T>(after: Option<T>) -> (Bound<T>, Bound<T>) {
    (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded)
}

impl View {
    pub(super) const fn new(transaction: ReadTransaction) -> Self {
        Self { transaction }
    }

    fn table<K: Key + 'static, V: Value + 'static>(
        &self,
        definition: TableDefinition<'_, K, V>,
    ) -> Result<ReadOnlyTable<K, V>> {
        self.transaction.open_table(definition).map_err(db)
    }

    fn config(&self) -> Result<(LogPosition, Totals)> {
        read_config(&self.transaction)?.ok_or_else(|| Error::corrupt("the state is empty"))
    }

    /// Position that this view shows.
    pub fn applied(&self) -> Result<LogPosition> {
        Ok(self.config()?.0)
    }

    /// Sums over the volume.
    pub fn totals(&self) -> Result<Totals> {
        Ok(self.config()?.1)
    }

    /// All classes.
    pub fn classes(&self) -> Result<Vec<(ClassId, Class)>> {
        let table = self.table(CLASS)?;
        let mut classes = Vec::new();
        for row in table.iter().map_err(db)? {
            let (id, row) = row.map_err(db)?;
            classes.push((ClassId(id.value()), Class::decode(&mut Reader::new(row.value()))?));
        }
        Ok(classes)
    }

    /// One class.
    pub fn class(&self, id: ClassId) -> Result<Option<Class>> {
        let row = self.table(CLASS)?.get(id.0).map_err(db)?;
        Ok(row.map(|row| Class::decode(&mut Reader::new(row.value()))).transpose()?)
    }

    /// One inode. Orphans are found; inodes in the reaping queue are not.
    pub fn inode(&self, ino: Ino) -> Result<Option<Inode>> {
        let row = self.table(INODE)?.get(ino.0).map_err(db)?;
        row.map(|row| rows::decode_inode(row.value())).transpose()
    }

    /// What a name leads to.
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Option<(Ino, FileKind)>> {
        let row = self.table(DENTRY)?.get((parent.0, name)).map_err(db)?;
        let dentry = row.map(|row| rows::decode_dentry(row.value())).transpose()?;
        Ok(dentry.map(|dentry| (dentry.ino, dentry.kind)))
    }

    /// A name's inode: `lookup` and `inode` in one.
    pub fn lookup_inode(&self, parent: Ino, name: &[u8]) -> Result<Option<Inode>> {
        match self.lookup(parent, name)? {
            Some((ino, _kind)) => self.inode(ino),
            None => Ok(None),
        }
    }

    /// Up to `limit` entries of a directory behind `after` (0 starts), in cookie order, without `.` and `..`.
    pub fn list(&self, dir: Ino, after: u64, limit: usize) -> Result<Vec<DirEntry>> {
        let table = self.table(LISTING)?;
        let from = Bound::Excluded((dir.0, after));
        let range = (from, Bound::Included((dir.0, u64::MAX)));
        let mut entries = Vec::new();
        for row in table.range(range).map_err(db)?.take(limit) {
            let (key, row) = row.map_err(db)?;
            let (ino, kind, name) = rows::decode_listing(row.value())?;
            entries.push(DirEntry { cookie: key.value().1, name: name.to_vec(), ino, kind });
        }
        Ok(entries)
    }

    /// Content of a chunk, as far as it is in extents and hot bytes (inline content is in the inode).
    pub fn chunk(&self, inode: &Inode, chunk: ChunkIndex) -> Result<ChunkView> {
        let cut = inode.cut.is_some_and(|cut| chunk >= cut);
        let hidden = |version: Version| cut && version < inode.floor;
        let row = self.table(CHUNK)?.get((inode.ino.0, chunk.0)).map_err(db)?;
        let mut map = match row {
            Some(row) => ChunkMap::decode(&mut Reader::new(row.value()))?,
            None => ChunkMap::default(),
        };
        if cut {
            let shown = map.iter().filter(|(_segment, place)| !hidden(place.version));
            map = shown.map(|(segment, place)| (segment, *place)).collect();
        }
        let table = self.table(HOT)?;
        let (low, high) = ((inode.ino.0, chunk.0, 0), (inode.ino.0, chunk.0, u32::MAX));
        let mut hot = Vec::new();
        for row in table.range(low..=high).map_err(db)? {
            let (key, row) = row.map_err(db)?;
            let (version, data) = rows::decode_hot(row.value())?;
            if !hidden(version) {
                let data = Bytes::copy_from_slice(data);
                hot.push(HotBytes { offset: key.value().2, version, data });
            }
        }
        Ok(ChunkView { map, hot, floor: inode.floor })
    }

    /// Up to `limit` chunks from `from` on that have extents or hot bytes.
    pub fn data_chunks(
        &self,
        inode: &Inode,
        from: ChunkIndex,
        limit: usize,
    ) -> Result<Vec<ChunkIndex>> {
        let (chunks, hot) = (self.table(CHUNK)?, self.table(HOT)?);
        let ino = inode.ino.0;
        let mut found = BTreeSet::new();
        for row in chunks.range((ino, from.0)..=(ino, u32::MAX)).map_err(db)?.take(limit) {
            found.insert(ChunkIndex(row.map_err(db)?.0.value().1));
        }
        let mut next = Some(from.0);
        for _chunk in 0..limit {
            let Some(from) = next else { break };
            let range = hot.range((ino, from, 0)..=(ino, u32::MAX, u32::MAX)).map_err(db)?;
            let Some(row) = range.into_iter().next() else { break };
            let chunk = row.map_err(db)?.0.value().1;
            found.insert(ChunkIndex(chunk));
            next = chunk.checked_add(1);
        }
        Ok(found.into_iter().take(limit).collect())
    }

    /// Value of an attribute.
    pub fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>> {
        let row = self.table(XATTR)?.get((ino.0, name)).map_err(db)?;
        Ok(row.map(|row| row.value().to_vec()))
    }

    /// Names of all attributes.
    pub fn xattrs(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        tables::xattr_names(&self.table(XATTR)?, ino)
    }

    /// A live stripe.
    pub fn stripe(&self, id: StripeId) -> Result<Option<StripeRecord>> {
        let row = self.table(STRIPE)?.get(id.get()).map_err(db)?;
        row.map(|row| record(row.value())).transpose()
    }

    /// Whether a stripe is in the delete queue.
    pub fn is_dead(&self, id: StripeId) -> Result<bool> {
        Ok(self.table(DEAD)?.get(id.get()).map_err(db)?.is_some())
    }

    /// How much of a live stripe is in use.
    pub fn stripe_usage(&self, id: StripeId) -> Result<Option<StripeUsage>> {
        let Some(row) = self.table(LIVE)?.get(id.get()).map_err(db)? else { return Ok(None) };
        let live = Live::decode(row.value())?;
        let slots = live.iter().map(SlotIndex).collect();
        Ok(Some(StripeUsage { live_bytes: live.bytes, live: slots, shared: live.shared }))
    }

    /// Up to `limit` live stripes behind `after`, in order of id, each with the bytes of its live frames.
    pub fn stripes(
        &self,
        after: Option<StripeId>,
        limit: usize,
    ) -> Result<Vec<(StripeRecord, u64)>> {
        let (stripes, live) = (self.table(STRIPE)?, self.table(LIVE)?);
        let mut found = Vec::new();
        let range = behind(after.map(StripeId::get));
        for row in stripes.range::<u64>(range).map_err(db)?.take(limit) {
            let (id, row) = row.map_err(db)?;
            let bytes = match live.get(id.value()).map_err(db)? {
                Some(row) => Live::decode(row.value())?.bytes,
                None => 0,
            };
            found.push((record(row.value())?, bytes));
        }
        Ok(found)
    }

    /// The live stripe with the largest id: the one that was begun last.
    pub fn last_stripe(&self) -> Result<Option<StripeId>> {
        let stripes = self.table(STRIPE)?;
        let last = stripes.last().map_err(db)?;
        Ok(last.map(|(id, _row)| StripeId(id.value())))
    }

    /// Up to `limit` stripes of the delete queue behind `after`.
    pub fn dead_stripes(&self, after: Option<StripeId>, limit: usize) -> Result<Vec<StripeRecord>> {
        let table = self.table(DEAD)?;
        let range = table.range::<u64>(behind(after.map(StripeId::get))).map_err(db)?;
        range.take(limit).map(|row| record(row.map_err(db)?.1.value())).collect()
    }

    /// Where scrubbing is.
    pub fn scrub(&self) -> Result<ScrubState> {
        let row = self.table(CONFIG)?.get("scrub").map_err(db)?;
        row.map_or_else(|| Ok(ScrubState::default()), |row| rows::decode_scrub(row.value()))
    }

    /// What the repair queue says of a stripe.
    pub fn repair(&self, id: StripeId) -> Result<Option<RepairEntry>> {
        let Some(table) = self.repair_table()? else { return Ok(None) };
        let row = table.get(id.get()).map_err(db)?;
        row.map(|row| RepairEntry::decode(row.value())).transpose()
    }

    /// Up to `limit` stripes of the repair queue behind `after`, in order of id.
    pub fn repairs(
        &self,
        after: Option<StripeId>,
        limit: usize,
    ) -> Result<Vec<(StripeId, RepairEntry)>> {
        let Some(table) = self.repair_table()? else { return Ok(Vec::new()) };
        let range = table.range::<u64>(behind(after.map(StripeId::get))).map_err(db)?;
        let entry = |row: std::result::Result<_, redb::StorageError>| {
            let (id, row): (redb::AccessGuard<'_, u64>, redb::AccessGuard<'_, &[u8]>) =
                row.map_err(db)?;
            Ok((StripeId(id.value()), RepairEntry::decode(row.value())?))
        };
        range.take(limit).map(entry).collect()
    }

    /// Stripes in the repair queue.
    pub fn repair_count(&self) -> Result<u64> {
        use redb::ReadableTableMetadata;
        self.repair_table()?.map_or(Ok(0), |table| table.len().map_err(db))
    }

    /// A state that is older than the queue has none.
    fn repair_table(&self) -> Result<Option<ReadOnlyTable<u64, &'static [u8]>>> {
        match self.transaction.open_table(REPAIR) {
            Ok(table) => Ok(Some(table)),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(db(error)),
        }
    }

    /// Owners of a shared slot; empty for a slot with a single owner (which the slot table names).
    pub fn owners(&self, stripe: StripeId, slot: SlotIndex) -> Result<Vec<SegmentAddress>> {
        let table = self.table(BACKREF)?;
        let low = (stripe.get(), slot.0, 0, 0, 0);
        let high = (stripe.get(), slot.0, u64::MAX, u32::MAX, u16::MAX);
        let mut owners = Vec::new();
        for row in table.range(low..=high).map_err(db)? {
            let (_stripe, _slot, ino, chunk, segment) = row.map_err(db)?.0.value();
            owners.push(SegmentAddress {
                ino: Ino(ino),
                chunk: ChunkIndex(chunk),
                segment: SegmentIndex(segment),
            });
        }
        Ok(owners)
    }

    /// Up to `limit` orphans behind `after`, in order of number, of whatever mount.
    pub fn orphans(&self, after: Option<Ino>, limit: usize) -> Result<Vec<Ino>> {
        let table = self.table(ORPHAN)?;
        let mut orphans = BTreeSet::new();
        for row in table.iter().map_err(db)? {
            let ino = Ino(row.map_err(db)?.0.value().1);
            if after.is_none_or(|after| ino > after) {
                orphans.insert(ino);
            }
        }
        Ok(orphans.into_iter().take(limit).collect())
    }

    /// Whether the reaping queue has work, orphans of earlier mounts included.
    pub fn reap_pending(&self) -> Result<bool> {
        if self.table(REAP)?.first().map_err(db)?.is_some() {
            return Ok(true);
        }
        let incarnation = self.totals()?.incarnation.0;
        let orphans = self.table(ORPHAN)?;
        let first = orphans.range(..(incarnation, 0)).map_err(db)?.next();
        Ok(first.transpose().map_err(db)?.is_some())
    }

    /// Inodes in the reaping queue, whole or cut.
    pub fn reaping(&self) -> Result<Vec<(Ino, bool)>> {
        let table = self.table(REAP)?;
        let mut found = Vec::new();
        for row in table.iter().map_err(db)? {
            let (ino, row) = row.map_err(db)?;
            found.push((Ino(ino.value()), rows::ReapEntry::decode(row.value())?.whole));
        }
        Ok(found)
    }

    /// Up to `limit` files with hot extents behind `after`, with their hot bytes.
    pub fn hot_files(&self, after: Option<Ino>, limit: usize) -> Result<Vec<(Ino, u64)>> {
        let table = self.table(HOT)?;
        let low =
            after.map_or(Bound::Unbounded, |ino| Bound::Excluded((ino.0, u32::MAX, u32::MAX)));
        let mut files: Vec<(Ino, u64)> = Vec::new();
        for row in table.range((low, Bound::Unbounded)).map_err(db)? {
            let (key, row) = row.map_err(db)?;
            let (_version, data) = rows::decode_hot(row.value())?;
            let ino = Ino(key.value().0);
            let full = files.len() == limit;
            match files.last_mut() {
                Some((last, bytes)) if *last == ino => *bytes += data.len() as u64,
                _ if full => break,
                _ => files.push((ino, data.len() as u64)),
            }
        }
        Ok(files)
    }

    /// Up to `limit` inodes behind `after`, orphans included.
    pub fn inodes(&self, after: Option<Ino>, limit: usize) -> Result<Vec<Inode>> {
        let table = self.table(INODE)?;
        let range = table.range::<u64>(behind(after.map(Ino::get))).map_err(db)?;
        range.take(limit).map(|row| rows::decode_inode(row.map_err(db)?.1.value())).collect()
    }

    /// Parent directories of an inode (several for hard links), without names.
    pub fn parents(&self, ino: Ino) -> Result<Vec<Ino>> {
        let table = self.table(LINK)?;
        let mut parents = Vec::new();
        for row in table.range((ino.0, 0)..=(ino.0, u64::MAX)).map_err(db)? {
            parents.push(Ino(row.map_err(db)?.0.value().1));
        }
        if parents.is_empty()
            && let Some(inode) = self.inode(ino)?
            && inode.links > 0
        {
            parents.push(inode.parent);
        }
        Ok(parents)
    }

    /// Number of names, and of places in listings: equal, or the state is wrong.
    pub fn name_counts(&self) -> Result<(u64, u64)> {
        use redb::ReadableTableMetadata;
        let names = self.table(DENTRY)?.len().map_err(db)?;
        Ok((names, self.table(LISTING)?.len().map_err(db)?))
    }

    /// Every chunk row of the state behind `after`, up to `limit`: for checks.
    pub fn chunk_rows(
        &self,
        after: Option<(Ino, ChunkIndex)>,
        limit: usize,
    ) -> Result<Vec<(Ino, ChunkIndex, ChunkMap)>> {
        let table = self.table(CHUNK)?;
        let range = behind(after.map(|(ino, chunk)| (ino.0, chunk.0)));
        let mut found = Vec::new();
        for row in table.range::<(u64, u32)>(range).map_err(db)?.take(limit) {
            let (key, row) = row.map_err(db)?;
            let (ino, chunk) = key.value();
            found.push((
                Ino(ino),
                ChunkIndex(chunk),
                ChunkMap::decode(&mut Reader::new(row.value()))?,
            ));
        }
        Ok(found)
    }
}
