//! Stored form of a stripe record, version 1: version u8, stripe u64, class id u16, class, epoch u64, payload u64,
//! slots u32, n u8, n times disk u32, missing u64, n times root 32.
#![deny(clippy::indexing_slicing)]

use super::StripeRecord;
use crate::class::Class;
use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::limits::{SLOTS_PER_STRIPE_MAX, STRIPE_PAYLOAD_BYTES_MAX};
use crate::types::{ClassId, DiskId, Epoch, StripeId};

const VERSION: u8 = 1;

impl StripeRecord {
    /// Appends the stored form.
    pub fn encode(&self, w: &mut Writer) {
        w.u8(VERSION);
        w.u64(self.id.get());
        w.u16(self.class_id.0);
        self.class.encode(w);
        w.u64(self.epoch.0);
        w.u64(self.payload_bytes);
        w.u32(self.slots);
        w.u8(self.class.scheme.n());
        self.disks.iter().for_each(|disk| w.u32(disk.0));
        w.u64(self.missing);
        self.shard_roots.iter().for_each(|root| w.raw(root));
    }

    /// Reads the stored form.
    pub fn decode(r: &mut Reader<'_>) -> Decoded<Self> {
        match r.u8()? {
            VERSION => {}
            found => return Err(FormatError::Newer { known: 1, found: u16::from(found) }),
        }
        let (id, class_id) = (StripeId(r.u64()?), ClassId(r.u16()?));
        let class = Class::decode(r)?;
        let (epoch, payload_bytes, slots) = (Epoch(r.u64()?), r.u64()?, r.u32()?);
        if payload_bytes == 0 || payload_bytes > STRIPE_PAYLOAD_BYTES_MAX {
            return Err(FormatError::Invalid("payload of a stripe"));
        }
        if slots == 0 || slots > SLOTS_PER_STRIPE_MAX {
            return Err(FormatError::Invalid("slots of a stripe"));
        }
        let n = r.u8()?;
        if n != class.scheme.n() {
            return Err(FormatError::Invalid("number of shards"));
        }
        let disks = (0..n).map(|_shard| r.u32().map(DiskId)).collect::<Decoded<Vec<_>>>()?;
        let missing = r.u64()?;
        if n < 64 && missing >> n != 0 {
            return Err(FormatError::Invalid("missing shards"));
        }
        let shard_roots = (0..n).map(|_shard| r.array()).collect::<Decoded<Vec<_>>>()?;
        Ok(Self { id, class_id, class, epoch, payload_bytes, slots, disks, missing, shard_roots })
    }
}
