//! Typed access to the tables of the state. Knows how rows are stored, not what commands mean.
//!
//! Keys are redb tuples, which sort; values are little-endian rows with a version byte each (`tables::rows`). The
//! table `config` holds the format of the whole state, the applied position and the totals.

pub mod rows;

use crate::error::{Error, Result};
use crate::extent::ChunkMap;
use crate::format::{Reader, Writer};
use crate::meta::command::{Inode, ScrubState};
use crate::stripe::layout::StripeRecord;
use crate::types::{ChunkIndex, FileKind, Incarnation, Ino, LogPosition, StripeId, Version};
use redb::{Key, ReadableTable, Table, TableDefinition, Value, WriteTransaction};
use rows::{Dentry, Live, ReapEntry, RepairEntry};
use std::cell::OnceCell;

/// Format of the state as a whole.
pub const FORMAT: u16 = 1;

type Bytes = &'static [u8];

/// Key of a backref: stripe, slot, inode, chunk, segment.
pub type BackrefKey = (u64, u32, u64, u32, u16);
/// Key of hot bytes: inode, chunk, offset in the chunk.
pub type HotKey = (u64, u32, u32);

pub(crate) const CONFIG: TableDefinition<'static, &'static str, Bytes> =
    TableDefinition::new("config");
pub(crate) const CLASS: TableDefinition<'static, u16, Bytes> = TableDefinition::new("class");
pub(crate) const INODE: TableDefinition<'static, u64, Bytes> = TableDefinition::new("inode");
pub(crate) const DENTRY: TableDefinition<'static, (u64, Bytes), Bytes> =
    TableDefinition::new("dentry");
pub(crate) const LISTING: TableDefinition<'static, (u64, u64), Bytes> =
    TableDefinition::new("listing");
pub(crate) const LINK: TableDefinition<'static, (u64, u64), u32> = TableDefinition::new("link");
pub(crate) const XATTR: TableDefinition<'static, (u64, Bytes), Bytes> =
    TableDefinition::new("xattr");
pub(crate) const CHUNK: TableDefinition<'static, (u64, u32), Bytes> = TableDefinition::new("chunk");
pub(crate) const HOT: TableDefinition<'static, HotKey, Bytes> = TableDefinition::new("hot");
pub(crate) const STRIPE: TableDefinition<'static, u64, Bytes> = TableDefinition::new("stripe");
pub(crate) const LIVE: TableDefinition<'static, u64, Bytes> = TableDefinition::new("live");
pub(crate) const BACKREF: TableDefinition<'static, BackrefKey, ()> =
    TableDefinition::new("backref");
pub(crate) const DEAD: TableDefinition<'static, u64, Bytes> = TableDefinition::new("dead");
pub(crate) const ORPHAN: TableDefinition<'static, (u32, u64), ()> = TableDefinition::new("orphan");
pub(crate) const REAP: TableDefinition<'static, u64, Bytes> = TableDefinition::new("reap");
pub(crate) const REPAIR: TableDefinition<'static, u64, Bytes> = TableDefinition::new("repair");

/// What redb says, as our error: the copy that it lies on cannot be used any more.
pub(crate) fn db(error: impl Into<redb::Error>) -> Error {
    Error::unavailable(format!("read or change the state: {}", error.into()))
}

/// Sums over the volume, kept by `apply`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Totals {
    /// Next inode number to give.
    pub next_ino: u64,
    /// Latest mount.
    pub incarnation: Incarnation,
    /// Inodes that exist.
    pub inodes: u64,
    /// Stripes that are live.
    pub stripes: u64,
    /// Bytes of all shards of live stripes (payload times n/k), parity included.
    pub stripe_bytes: u64,
    /// Bytes of all shards of stripes in the delete queue.
    pub dead_bytes: u64,
    /// Bytes of live frames (bodies and headers, before redundancy).
    pub live_bytes: u64,
    /// Bytes in hot extents.
    pub hot_bytes: u64,
    /// Bytes reserved by fallocate beyond what is allocated.
    pub reserved_bytes: u64,
}

/// One table, opened at its first use: most commands need few, and opening costs more than a look-up in it.
struct Lazy<'t, K: Key + 'static, V: Value + 'static> {
    transaction: &'t WriteTransaction,
    definition: TableDefinition<'static, K, V>,
    table: OnceCell<Table<'t, K, V>>,
}

impl<'t, K: Key + 'static, V: Value + 'static> Lazy<'t, K, V> {
    const fn new(
        transaction: &'t WriteTransaction,
        definition: TableDefinition<'static, K, V>,
    ) -> Self {
        Self { transaction, definition, table: OnceCell::new() }
    }

    fn read(&self) -> Result<&Table<'t, K, V>> {
        if let Some(table) = self.table.get() {
            return Ok(table);
        }
        let table = self.transaction.open_table(self.definition).map_err(db)?;
        Ok(self.table.get_or_init(|| table))
    }

    fn write(&mut self) -> Result<&mut Table<'t, K, V>> {
        self.read()?;
        self.table.get_mut().ok_or_else(|| Error::internal("an opened table is not there"))
    }
}

/// All tables of one write transaction, and the totals, which are written back once at its end.
#[expect(missing_debug_implementations, reason = "redb's tables have nothing to show")]
pub struct Txn<'t> {
    config: Lazy<'t, &'static str, Bytes>,
    class: Lazy<'t, u16, Bytes>,
    inode: Lazy<'t, u64, Bytes>,
    dentry: Lazy<'t, (u64, Bytes), Bytes>,
    listing: Lazy<'t, (u64, u64), Bytes>,
    link: Lazy<'t, (u64, u64), u32>,
    xattr: Lazy<'t, (u64, Bytes), Bytes>,
    chunk: Lazy<'t, (u64, u32), Bytes>,
    hot: Lazy<'t, HotKey, Bytes>,
    stripe: Lazy<'t, u64, Bytes>,
    live: Lazy<'t, u64, Bytes>,
    backref: Lazy<'t, BackrefKey, ()>,
    dead: Lazy<'t, u64, Bytes>,
    orphan: Lazy<'t, (u32, u64), ()>,
    reap: Lazy<'t, u64, Bytes>,
    repair: Lazy<'t, u64, Bytes>,
    /// Sums over the volume.
    pub totals: Totals,
}

impl<'t> Txn<'t> {
    /// The tables of `transaction`, each opened at its first use.
    pub const fn new(transaction: &'t WriteTransaction, totals: Totals) -> Self {
        Self {
            config: Lazy::new(transaction, CONFIG),
            class: Lazy::new(transaction, CLASS),
            inode: Lazy::new(transaction, INODE),
            dentry: Lazy::new(transaction, DENTRY),
            listing: Lazy::new(transaction, LISTING),
            link: Lazy::new(transaction, LINK),
            xattr: Lazy::new(transaction, XATTR),
            chunk: Lazy::new(transaction, CHUNK),
            hot: Lazy::new(transaction, HOT),
            stripe: Lazy::new(transaction, STRIPE),
            live: Lazy::new(transaction, LIVE),
            backref: Lazy::new(transaction, BACKREF),
            dead: Lazy::new(transaction, DEAD),
            orphan: Lazy::new(transaction, ORPHAN),
            reap: Lazy::new(transaction, REAP),
            repair: Lazy::new(transaction, REPAIR),
            totals,
        }
    }

    /// Makes all tables, in an empty state: views open them without asking.
    pub fn create(&mut self) -> Result<()> {
        self.config.write()?.insert("format", FORMAT.to_le_bytes().as_slice()).map_err(db)?;
        self.class.write()?;
        self.inode.write()?;
        self.dentry.write()?;
        self.listing.write()?;
        self.link.write()?;
        self.xattr.write()?;
        self.chunk.write()?;
        self.hot.write()?;
        self.stripe.write()?;
        self.live.write()?;
        self.backref.write()?;
        self.dead.write()?;
        self.orphan.write()?;
        self.reap.write()?;
        self.repair.write()?;
        Ok(())
    }

    /// Writes the applied position and the totals.
    pub fn put_config(&mut self, applied: LogPosition) -> Result<()> {
        let mut totals = Writer::new();
        rows::encode_totals(&self.totals, &mut totals);
        let config = self.config.write()?;
        config.insert("applied", applied.0.to_le_bytes().as_slice()).map_err(db)?;
        config.insert("totals", totals.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Writes where scrubbing is.
    pub fn put_scrub(&mut self, state: &ScrubState) -> Result<()> {
        let row = rows::encode_scrub(state);
        self.config.write()?.insert("scrub", row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Defines a class.
    pub fn put_class(&mut self, id: u16, row: &[u8]) -> Result<()> {
        self.class.write()?.insert(id, row).map_err(db)?;
        Ok(())
    }

    /// Whether a class exists.
    pub fn has_class(&self, id: u16) -> Result<bool> {
        Ok(self.class.read()?.get(id).map_err(db)?.is_some())
    }

    /// An inode.
    pub fn inode(&self, ino: Ino) -> Result<Option<Inode>> {
        self.inode
            .read()?
            .get(ino.0)
            .map_err(db)?
            .map(|row| rows::decode_inode(row.value()))
            .transpose()
    }

    /// Stores an inode.
    pub fn put_inode(&mut self, inode: &Inode) -> Result<()> {
        let mut row = Writer::with_capacity(160 + inode.inline.len());
        rows::encode_inode(inode, &mut row);
        self.inode.write()?.insert(inode.ino.0, row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Removes an inode.
    pub fn remove_inode(&mut self, ino: Ino) -> Result<()> {
        self.inode.write()?.remove(ino.0).map_err(db)?;
        Ok(())
    }

    /// A name.
    pub fn dentry(&self, parent: Ino, name: &[u8]) -> Result<Option<Dentry>> {
        let row = self.dentry.read()?.get((parent.0, name)).map_err(db)?;
        row.map(|row| rows::decode_dentry(row.value())).transpose()
    }

    /// Stores a name and its place in the listing.
    pub fn put_dentry(&mut self, parent: Ino, name: &[u8], dentry: Dentry) -> Result<()> {
        let row = rows::encode_dentry(dentry);
        self.dentry.write()?.insert((parent.0, name), row.as_slice()).map_err(db)?;
        let row = rows::encode_listing(dentry.ino, dentry.kind, name);
        self.listing.write()?.insert((parent.0, dentry.cookie), row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Removes a name and its place in the listing.
    pub fn remove_dentry(&mut self, parent: Ino, name: &[u8], cookie: u64) -> Result<()> {
        self.dentry.write()?.remove((parent.0, name)).map_err(db)?;
        self.listing.write()?.remove((parent.0, cookie)).map_err(db)?;
        Ok(())
    }

    /// Number of names of `ino` in `parent`, if the inode has several names at all.
    pub fn link(&self, ino: Ino, parent: Ino) -> Result<u32> {
        Ok(self.link.read()?.get((ino.0, parent.0)).map_err(db)?.map_or(0, |count| count.value()))
    }

    /// Sets the number of names of `ino` in `parent`; 0 removes the row.
    pub fn put_link(&mut self, ino: Ino, parent: Ino, count: u32) -> Result<()> {
        if count == 0 {
            self.link.write()?.remove((ino.0, parent.0)).map_err(db)?;
        } else {
            self.link.write()?.insert((ino.0, parent.0), count).map_err(db)?;
        }
        Ok(())
    }

    /// Some directory that has a name of `ino`, by the link rows.
    pub fn any_link(&self, ino: Ino) -> Result<Option<Ino>> {
        let mut range = self.link.read()?.range((ino.0, 0)..=(ino.0, u64::MAX)).map_err(db)?;
        range.next().transpose().map_err(db).map(|row| row.map(|(key, _count)| Ino(key.value().1)))
    }

    /// Value of an attribute.
    pub fn has_xattr(&self, ino: Ino, name: &[u8]) -> Result<bool> {
        Ok(self.xattr.read()?.get((ino.0, name)).map_err(db)?.is_some())
    }

    /// Stores an attribute.
    pub fn put_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8]) -> Result<()> {
        self.xattr.write()?.insert((ino.0, name), value).map_err(db)?;
        Ok(())
    }

    /// Removes an attribute.
    pub fn remove_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<()> {
        self.xattr.write()?.remove((ino.0, name)).map_err(db)?;
        Ok(())
    }

    /// Names of all attributes of an inode.
    pub fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        xattr_names(self.xattr.read()?, ino)
    }

    /// Extents of a chunk.
    pub fn chunk(&self, ino: Ino, chunk: ChunkIndex) -> Result<ChunkMap> {
        match self.chunk.read()?.get((ino.0, chunk.0)).map_err(db)? {
            Some(row) => Ok(ChunkMap::decode(&mut Reader::new(row.value()))?),
            None => Ok(ChunkMap::default()),
        }
    }

    /// Stores the extents of a chunk; an empty map removes the row.
    pub fn put_chunk(&mut self, ino: Ino, chunk: ChunkIndex, map: &ChunkMap) -> Result<()> {
        if map.is_empty() {
            self.chunk.write()?.remove((ino.0, chunk.0)).map_err(db)?;
            return Ok(());
        }
        let mut row = Writer::with_capacity(64 + map.len() * 9);
        map.encode(&mut row);
        self.chunk.write()?.insert((ino.0, chunk.0), row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// First chunk at or behind `from` that has extents.
    pub fn next_chunk(&self, ino: Ino, from: ChunkIndex) -> Result<Option<ChunkIndex>> {
        let mut range =
            self.chunk.read()?.range((ino.0, from.0)..=(ino.0, u32::MAX)).map_err(db)?;
        let first = range.next().transpose().map_err(db)?;
        Ok(first.map(|(key, _row)| ChunkIndex(key.value().1)))
    }

    /// First chunk at or behind `from` that has hot bytes.
    pub fn next_hot_chunk(&self, ino: Ino, from: ChunkIndex) -> Result<Option<ChunkIndex>> {
        let mut range =
            self.hot.read()?.range((ino.0, from.0, 0)..=(ino.0, u32::MAX, u32::MAX)).map_err(db)?;
        let first = range.next().transpose().map_err(db)?;
        Ok(first.map(|(key, _row)| ChunkIndex(key.value().1)))
    }

    /// Hot bytes that start in `offsets` of a chunk: offset, version, content.
    pub fn hot(
        &self,
        ino: Ino,
        chunk: ChunkIndex,
        offsets: std::ops::Range<u32>,
    ) -> Result<Vec<(u32, Version, Vec<u8>)>> {
        let range = (ino.0, chunk.0, offsets.start)..(ino.0, chunk.0, offsets.end);
        let mut found = Vec::new();
        for row in self.hot.read()?.range(range).map_err(db)? {
            let (key, row) = row.map_err(db)?;
            let (version, data) = rows::decode_hot(row.value())?;
            found.push((key.value().2, version, data.to_vec()));
        }
        Ok(found)
    }

    /// Stores hot bytes.
    pub fn put_hot(
        &mut self,
        ino: Ino,
        (chunk, offset): (ChunkIndex, u32),
        version: Version,
        data: &[u8],
    ) -> Result<()> {
        let mut row = Writer::with_capacity(8 + data.len());
        row.u64(version.0);
        row.raw(data);
        self.hot.write()?.insert((ino.0, chunk.0, offset), row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Removes hot bytes.
    pub fn remove_hot(&mut self, ino: Ino, chunk: ChunkIndex, offset: u32) -> Result<()> {
        self.hot.write()?.remove((ino.0, chunk.0, offset)).map_err(db)?;
        Ok(())
    }

    /// A live stripe.
    pub fn stripe(&self, id: StripeId) -> Result<Option<StripeRecord>> {
        let row = self.stripe.read()?.get(id.get()).map_err(db)?;
        Ok(row.map(|row| StripeRecord::decode(&mut Reader::new(row.value()))).transpose()?)
    }

    /// Stores a live stripe.
    pub fn put_stripe(&mut self, record: &StripeRecord) -> Result<()> {
        let mut row = Writer::new();
        record.encode(&mut row);
        self.stripe.write()?.insert(record.id.get(), row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Which slots of a stripe are live.
    pub fn live(&self, id: StripeId) -> Result<Option<Live>> {
        self.live
            .read()?
            .get(id.get())
            .map_err(db)?
            .map(|row| Live::decode(row.value()))
            .transpose()
    }

    /// Stores which slots of a stripe are live.
    pub fn put_live(&mut self, id: StripeId, live: &Live) -> Result<()> {
        self.live.write()?.insert(id.get(), live.encode().as_slice()).map_err(db)?;
        Ok(())
    }

    /// Takes a stripe out of the live ones.
    pub fn remove_stripe(&mut self, id: StripeId) -> Result<()> {
        self.stripe.write()?.remove(id.get()).map_err(db)?;
        self.live.write()?.remove(id.get()).map_err(db)?;
        Ok(())
    }

    /// Owners of a shared slot; none for a slot with one owner.
    pub fn backrefs(&self, stripe: StripeId, slot: u32) -> Result<Vec<BackrefKey>> {
        let low = (stripe.get(), slot, 0, 0, 0);
        let high = (stripe.get(), slot, u64::MAX, u32::MAX, u16::MAX);
        let range = self.backref.read()?.range(low..=high).map_err(db)?;
        range.map(|row| Ok(row.map_err(db)?.0.value())).collect()
    }

    /// Adds an owner.
    pub fn put_backref(&mut self, key: BackrefKey) -> Result<()> {
        self.backref.write()?.insert(key, ()).map_err(db)?;
        Ok(())
    }

    /// Removes an owner.
    pub fn remove_backref(&mut self, key: BackrefKey) -> Result<()> {
        self.backref.write()?.remove(key).map_err(db)?;
        Ok(())
    }

    /// A stripe of the delete queue.
    pub fn dead(&self, id: StripeId) -> Result<Option<StripeRecord>> {
        let row = self.dead.read()?.get(id.get()).map_err(db)?;
        Ok(row.map(|row| StripeRecord::decode(&mut Reader::new(row.value()))).transpose()?)
    }

    /// Puts a stripe into the delete queue.
    pub fn put_dead(&mut self, record: &StripeRecord) -> Result<()> {
        let mut row = Writer::new();
        record.encode(&mut row);
        self.dead.write()?.insert(record.id.get(), row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Takes a stripe out of the delete queue.
    pub fn remove_dead(&mut self, id: StripeId) -> Result<()> {
        self.dead.write()?.remove(id.get()).map_err(db)?;
        Ok(())
    }

    /// Adds an orphan of a mount.
    pub fn put_orphan(&mut self, incarnation: u32, ino: Ino) -> Result<()> {
        self.orphan.write()?.insert((incarnation, ino.0), ()).map_err(db)?;
        Ok(())
    }

    /// Removes an orphan; answers whether it was one.
    pub fn remove_orphan(&mut self, incarnation: u32, ino: Ino) -> Result<bool> {
        Ok(self.orphan.write()?.remove((incarnation, ino.0)).map_err(db)?.is_some())
    }

    /// First orphan of a mount before `incarnation`.
    pub fn first_old_orphan(&self, incarnation: u32) -> Result<Option<(u32, Ino)>> {
        let mut range = self.orphan.read()?.range(..(incarnation, 0)).map_err(db)?;
        let first = range.next().transpose().map_err(db)?;
        Ok(first.map(|(key, _unit)| (key.value().0, Ino(key.value().1))))
    }

    /// Front of the reaping queue.
    pub fn first_reap(&self) -> Result<Option<(Ino, ReapEntry)>> {
        let Some((key, row)) = self.reap.read()?.first().map_err(db)? else { return Ok(None) };
        Ok(Some((Ino(key.value()), ReapEntry::decode(row.value())?)))
    }

    /// Whether an inode number is in the reaping queue.
    pub fn is_reaped(&self, ino: Ino) -> Result<bool> {
        Ok(self.reap.read()?.get(ino.0).map_err(db)?.is_some())
    }

    /// Puts an inode into the reaping queue.
    pub fn put_reap(&mut self, ino: Ino, entry: ReapEntry) -> Result<()> {
        self.reap.write()?.insert(ino.0, entry.encode().as_slice()).map_err(db)?;
        Ok(())
    }

    /// Takes an inode out of the reaping queue.
    pub fn remove_reap(&mut self, ino: Ino) -> Result<()> {
        self.reap.write()?.remove(ino.0).map_err(db)?;
        Ok(())
    }

    /// What the repair queue says of a stripe.
    pub fn repair(&self, id: StripeId) -> Result<Option<RepairEntry>> {
        let row = self.repair.read()?.get(id.get()).map_err(db)?;
        row.map(|row| RepairEntry::decode(row.value())).transpose()
    }

    /// Puts a stripe into the repair queue.
    pub fn put_repair(&mut self, id: StripeId, entry: &RepairEntry) -> Result<()> {
        self.repair.write()?.insert(id.get(), entry.encode().as_slice()).map_err(db)?;
        Ok(())
    }

    /// Takes a stripe out of the repair queue.
    pub fn remove_repair(&mut self, id: StripeId) -> Result<()> {
        self.repair.write()?.remove(id.get()).map_err(db)?;
        Ok(())
    }
}

/// Names of all attributes of an inode.
pub(crate) fn xattr_names(
    table: &impl ReadableTable<(u64, Bytes), Bytes>,
    ino: Ino,
) -> Result<Vec<Vec<u8>>> {
    let range = table.range((ino.0, &[][..])..(ino.0 + 1, &[][..])).map_err(db)?;
    range.map(|row| Ok(row.map_err(db)?.0.value().1.to_vec())).collect()
}

/// The kind with this stored number.
pub(crate) fn kind(code: u8) -> Result<FileKind> {
    FileKind::from_code(code).ok_or_else(|| Error::corrupt(format!("kind {code} of an inode")))
}
