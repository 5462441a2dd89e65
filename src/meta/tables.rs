//! Typed access to the tables of the state. Knows how rows are stored, not what commands mean.
//!
//! Keys are redb tuples, which sort; values are little-endian rows with a version byte each (`tables::rows`). The
//! table `config` holds the format of the whole state, the applied position and the totals.

pub mod rows;

use crate::error::{Error, Result};
use crate::extent::ChunkMap;
use crate::format::{Reader, Writer};
use crate::meta::command::Inode;
use crate::stripe::layout::StripeRecord;
use crate::types::{ChunkIndex, FileKind, Incarnation, Ino, LogPosition, StripeId, Version};
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};
use rows::{Dentry, Live, ReapEntry};

/// Format of the state as a whole.
pub const FORMAT: u16 = 1;

type Bytes = &'static [u8];

/// Key of a backref: stripe, slot, inode, chunk, segment.
pub type BackrefKey = (u64, u32, u64, u32, u16);
/// Key of hot bytes: inode, chunk, offset in the chunk.
pub type HotKey = (u64, u32, u32);

pub(crate) const CONFIG: TableDefinition<'_, &'static str, Bytes> = TableDefinition::new("config");
pub(crate) const CLASS: TableDefinition<'_, u16, Bytes> = TableDefinition::new("class");
pub(crate) const INODE: TableDefinition<'_, u64, Bytes> = TableDefinition::new("inode");
pub(crate) const DENTRY: TableDefinition<'_, (u64, Bytes), Bytes> = TableDefinition::new("dentry");
pub(crate) const LISTING: TableDefinition<'_, (u64, u64), Bytes> = TableDefinition::new("listing");
pub(crate) const LINK: TableDefinition<'_, (u64, u64), u32> = TableDefinition::new("link");
pub(crate) const XATTR: TableDefinition<'_, (u64, Bytes), Bytes> = TableDefinition::new("xattr");
pub(crate) const CHUNK: TableDefinition<'_, (u64, u32), Bytes> = TableDefinition::new("chunk");
pub(crate) const HOT: TableDefinition<'_, HotKey, Bytes> = TableDefinition::new("hot");
pub(crate) const STRIPE: TableDefinition<'_, u64, Bytes> = TableDefinition::new("stripe");
pub(crate) const LIVE: TableDefinition<'_, u64, Bytes> = TableDefinition::new("live");
pub(crate) const BACKREF: TableDefinition<'_, BackrefKey, ()> = TableDefinition::new("backref");
pub(crate) const DEAD: TableDefinition<'_, u64, Bytes> = TableDefinition::new("dead");
pub(crate) const ORPHAN: TableDefinition<'_, (u32, u64), ()> = TableDefinition::new("orphan");
pub(crate) const REAP: TableDefinition<'_, u64, Bytes> = TableDefinition::new("reap");

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

/// All tables of one write transaction, and the totals, which are written back once at its end.
#[expect(missing_debug_implementations, reason = "redb's tables have nothing to show")]
pub struct Txn<'t> {
    config: Table<'t, &'static str, Bytes>,
    class: Table<'t, u16, Bytes>,
    inode: Table<'t, u64, Bytes>,
    dentry: Table<'t, (u64, Bytes), Bytes>,
    listing: Table<'t, (u64, u64), Bytes>,
    link: Table<'t, (u64, u64), u32>,
    xattr: Table<'t, (u64, Bytes), Bytes>,
    chunk: Table<'t, (u64, u32), Bytes>,
    hot: Table<'t, HotKey, Bytes>,
    stripe: Table<'t, u64, Bytes>,
    live: Table<'t, u64, Bytes>,
    backref: Table<'t, BackrefKey, ()>,
    dead: Table<'t, u64, Bytes>,
    orphan: Table<'t, (u32, u64), ()>,
    reap: Table<'t, u64, Bytes>,
    /// Sums over the volume.
    pub totals: Totals,
}

impl<'t> Txn<'t> {
    /// Opens (or makes) all tables in `transaction`.
    pub fn open(transaction: &'t WriteTransaction, totals: Totals) -> Result<Self> {
        Ok(Self {
            config: transaction.open_table(CONFIG).map_err(db)?,
            class: transaction.open_table(CLASS).map_err(db)?,
            inode: transaction.open_table(INODE).map_err(db)?,
            dentry: transaction.open_table(DENTRY).map_err(db)?,
            listing: transaction.open_table(LISTING).map_err(db)?,
            link: transaction.open_table(LINK).map_err(db)?,
            xattr: transaction.open_table(XATTR).map_err(db)?,
            chunk: transaction.open_table(CHUNK).map_err(db)?,
            hot: transaction.open_table(HOT).map_err(db)?,
            stripe: transaction.open_table(STRIPE).map_err(db)?,
            live: transaction.open_table(LIVE).map_err(db)?,
            backref: transaction.open_table(BACKREF).map_err(db)?,
            dead: transaction.open_table(DEAD).map_err(db)?,
            orphan: transaction.open_table(ORPHAN).map_err(db)?,
            reap: transaction.open_table(REAP).map_err(db)?,
            totals,
        })
    }

    /// Writes the format, the applied position and the totals.
    pub fn put_config(&mut self, applied: LogPosition) -> Result<()> {
        let mut totals = Writer::new();
        rows::encode_totals(&self.totals, &mut totals);
        self.config.insert("format", FORMAT.to_le_bytes().as_slice()).map_err(db)?;
        self.config.insert("applied", applied.0.to_le_bytes().as_slice()).map_err(db)?;
        self.config.insert("totals", totals.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Defines a class.
    pub fn put_class(&mut self, id: u16, row: &[u8]) -> Result<()> {
        self.class.insert(id, row).map_err(db)?;
        Ok(())
    }

    /// Whether a class exists.
    pub fn has_class(&self, id: u16) -> Result<bool> {
        Ok(self.class.get(id).map_err(db)?.is_some())
    }

    /// An inode.
    pub fn inode(&self, ino: Ino) -> Result<Option<Inode>> {
        self.inode.get(ino.0).map_err(db)?.map(|row| rows::decode_inode(row.value())).transpose()
    }

    /// Stores an inode.
    pub fn put_inode(&mut self, inode: &Inode) -> Result<()> {
        let mut row = Writer::with_capacity(160 + inode.inline.len());
        rows::encode_inode(inode, &mut row);
        self.inode.insert(inode.ino.0, row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Removes an inode.
    pub fn remove_inode(&mut self, ino: Ino) -> Result<()> {
        self.inode.remove(ino.0).map_err(db)?;
        Ok(())
    }

    /// A name.
    pub fn dentry(&self, parent: Ino, name: &[u8]) -> Result<Option<Dentry>> {
        let row = self.dentry.get((parent.0, name)).map_err(db)?;
        row.map(|row| rows::decode_dentry(row.value())).transpose()
    }

    /// Stores a name and its place in the listing.
    pub fn put_dentry(&mut self, parent: Ino, name: &[u8], dentry: Dentry) -> Result<()> {
        let row = rows::encode_dentry(dentry);
        self.dentry.insert((parent.0, name), row.as_slice()).map_err(db)?;
        let row = rows::encode_listing(dentry.ino, dentry.kind, name);
        self.listing.insert((parent.0, dentry.cookie), row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Removes a name and its place in the listing.
    pub fn remove_dentry(&mut self, parent: Ino, name: &[u8], cookie: u64) -> Result<()> {
        self.dentry.remove((parent.0, name)).map_err(db)?;
        self.listing.remove((parent.0, cookie)).map_err(db)?;
        Ok(())
    }

    /// Number of names of `ino` in `parent`, if the inode has several names at all.
    pub fn link(&self, ino: Ino, parent: Ino) -> Result<u32> {
        Ok(self.link.get((ino.0, parent.0)).map_err(db)?.map_or(0, |count| count.value()))
    }

    /// Sets the number of names of `ino` in `parent`; 0 removes the row.
    pub fn put_link(&mut self, ino: Ino, parent: Ino, count: u32) -> Result<()> {
        if count == 0 {
            self.link.remove((ino.0, parent.0)).map_err(db)?;
        } else {
            self.link.insert((ino.0, parent.0), count).map_err(db)?;
        }
        Ok(())
    }

    /// Some directory that has a name of `ino`, by the link rows.
    pub fn any_link(&self, ino: Ino) -> Result<Option<Ino>> {
        let mut range = self.link.range((ino.0, 0)..=(ino.0, u64::MAX)).map_err(db)?;
        range.next().transpose().map_err(db).map(|row| row.map(|(key, _count)| Ino(key.value().1)))
    }

    /// Value of an attribute.
    pub fn has_xattr(&self, ino: Ino, name: &[u8]) -> Result<bool> {
        Ok(self.xattr.get((ino.0, name)).map_err(db)?.is_some())
    }

    /// Stores an attribute.
    pub fn put_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8]) -> Result<()> {
        self.xattr.insert((ino.0, name), value).map_err(db)?;
        Ok(())
    }

    /// Removes an attribute.
    pub fn remove_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<()> {
        self.xattr.remove((ino.0, name)).map_err(db)?;
        Ok(())
    }

    /// Names of all attributes of an inode.
    pub fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        xattr_names(&self.xattr, ino)
    }

    /// Extents of a chunk.
    pub fn chunk(&self, ino: Ino, chunk: ChunkIndex) -> Result<ChunkMap> {
        match self.chunk.get((ino.0, chunk.0)).map_err(db)? {
            Some(row) => Ok(ChunkMap::decode(&mut Reader::new(row.value()))?),
            None => Ok(ChunkMap::default()),
        }
    }

    /// Stores the extents of a chunk; an empty map removes the row.
    pub fn put_chunk(&mut self, ino: Ino, chunk: ChunkIndex, map: &ChunkMap) -> Result<()> {
        if map.is_empty() {
            self.chunk.remove((ino.0, chunk.0)).map_err(db)?;
            return Ok(());
        }
        let mut row = Writer::with_capacity(64 + map.len() * 9);
        map.encode(&mut row);
        self.chunk.insert((ino.0, chunk.0), row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// First chunk at or behind `from` that has extents.
    pub fn next_chunk(&self, ino: Ino, from: ChunkIndex) -> Result<Option<ChunkIndex>> {
        let mut range = self.chunk.range((ino.0, from.0)..=(ino.0, u32::MAX)).map_err(db)?;
        let first = range.next().transpose().map_err(db)?;
        Ok(first.map(|(key, _row)| ChunkIndex(key.value().1)))
    }

    /// First chunk at or behind `from` that has hot bytes.
    pub fn next_hot_chunk(&self, ino: Ino, from: ChunkIndex) -> Result<Option<ChunkIndex>> {
        let mut range =
            self.hot.range((ino.0, from.0, 0)..=(ino.0, u32::MAX, u32::MAX)).map_err(db)?;
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
        for row in self.hot.range(range).map_err(db)? {
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
        self.hot.insert((ino.0, chunk.0, offset), row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Removes hot bytes.
    pub fn remove_hot(&mut self, ino: Ino, chunk: ChunkIndex, offset: u32) -> Result<()> {
        self.hot.remove((ino.0, chunk.0, offset)).map_err(db)?;
        Ok(())
    }

    /// A live stripe.
    pub fn stripe(&self, id: StripeId) -> Result<Option<StripeRecord>> {
        let row = self.stripe.get(id.get()).map_err(db)?;
        Ok(row.map(|row| StripeRecord::decode(&mut Reader::new(row.value()))).transpose()?)
    }

    /// Stores a live stripe.
    pub fn put_stripe(&mut self, record: &StripeRecord) -> Result<()> {
        let mut row = Writer::new();
        record.encode(&mut row);
        self.stripe.insert(record.id.get(), row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Which slots of a stripe are live.
    pub fn live(&self, id: StripeId) -> Result<Option<Live>> {
        self.live.get(id.get()).map_err(db)?.map(|row| Live::decode(row.value())).transpose()
    }

    /// Stores which slots of a stripe are live.
    pub fn put_live(&mut self, id: StripeId, live: &Live) -> Result<()> {
        self.live.insert(id.get(), live.encode().as_slice()).map_err(db)?;
        Ok(())
    }

    /// Takes a stripe out of the live ones.
    pub fn remove_stripe(&mut self, id: StripeId) -> Result<()> {
        self.stripe.remove(id.get()).map_err(db)?;
        self.live.remove(id.get()).map_err(db)?;
        Ok(())
    }

    /// Owners of a shared slot; none for a slot with one owner.
    pub fn backrefs(&self, stripe: StripeId, slot: u32) -> Result<Vec<BackrefKey>> {
        let low = (stripe.get(), slot, 0, 0, 0);
        let high = (stripe.get(), slot, u64::MAX, u32::MAX, u16::MAX);
        let range = self.backref.range(low..=high).map_err(db)?;
        range.map(|row| Ok(row.map_err(db)?.0.value())).collect()
    }

    /// Adds an owner.
    pub fn put_backref(&mut self, key: BackrefKey) -> Result<()> {
        self.backref.insert(key, ()).map_err(db)?;
        Ok(())
    }

    /// Removes an owner.
    pub fn remove_backref(&mut self, key: BackrefKey) -> Result<()> {
        self.backref.remove(key).map_err(db)?;
        Ok(())
    }

    /// A stripe of the delete queue.
    pub fn dead(&self, id: StripeId) -> Result<Option<StripeRecord>> {
        let row = self.dead.get(id.get()).map_err(db)?;
        Ok(row.map(|row| StripeRecord::decode(&mut Reader::new(row.value()))).transpose()?)
    }

    /// Puts a stripe into the delete queue.
    pub fn put_dead(&mut self, record: &StripeRecord) -> Result<()> {
        let mut row = Writer::new();
        record.encode(&mut row);
        self.dead.insert(record.id.get(), row.as_slice()).map_err(db)?;
        Ok(())
    }

    /// Takes a stripe out of the delete queue.
    pub fn remove_dead(&mut self, id: StripeId) -> Result<()> {
        self.dead.remove(id.get()).map_err(db)?;
        Ok(())
    }

    /// Adds an orphan of a mount.
    pub fn put_orphan(&mut self, incarnation: u32, ino: Ino) -> Result<()> {
        self.orphan.insert((incarnation, ino.0), ()).map_err(db)?;
        Ok(())
    }

    /// Removes an orphan; answers whether it was one.
    pub fn remove_orphan(&mut self, incarnation: u32, ino: Ino) -> Result<bool> {
        Ok(self.orphan.remove((incarnation, ino.0)).map_err(db)?.is_some())
    }

    /// First orphan of a mount before `incarnation`.
    pub fn first_old_orphan(&self, incarnation: u32) -> Result<Option<(u32, Ino)>> {
        let mut range = self.orphan.range(..(incarnation, 0)).map_err(db)?;
        let first = range.next().transpose().map_err(db)?;
        Ok(first.map(|(key, _unit)| (key.value().0, Ino(key.value().1))))
    }

    /// Front of the reaping queue.
    pub fn first_reap(&self) -> Result<Option<(Ino, ReapEntry)>> {
        let Some((key, row)) = self.reap.first().map_err(db)? else { return Ok(None) };
        Ok(Some((Ino(key.value()), ReapEntry::decode(row.value())?)))
    }

    /// Whether an inode number is in the reaping queue.
    pub fn is_reaped(&self, ino: Ino) -> Result<bool> {
        Ok(self.reap.get(ino.0).map_err(db)?.is_some())
    }

    /// Puts an inode into the reaping queue.
    pub fn put_reap(&mut self, ino: Ino, entry: ReapEntry) -> Result<()> {
        self.reap.insert(ino.0, entry.encode().as_slice()).map_err(db)?;
        Ok(())
    }

    /// Takes an inode out of the reaping queue.
    pub fn remove_reap(&mut self, ino: Ino) -> Result<()> {
        self.reap.remove(ino.0).map_err(db)?;
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
