//! Commands on the repair queue, and on scrub: which shards of live stripes are known to be bad, and how their repair went so far.

use crate::error::Result;
use crate::meta::command::{Answer, ScrubState};
use crate::meta::tables::Txn;
use crate::meta::tables::rows::RepairEntry;
use crate::types::{ShardIndex, StripeId, Timestamp};

pub(super) fn note_damage(
    txn: &mut Txn<'_>,
    shards: &[(StripeId, ShardIndex)],
    time: Timestamp,
) -> Result<Answer> {
    for (stripe, index) in shards {
        let Some(record) = txn.stripe(*stripe)? else { continue };
        if usize::from(index.0) >= record.disks.len() {
            continue;
        }
        let mut entry = txn.repair(*stripe)?.unwrap_or_else(|| RepairEntry::new(time));
        entry.bad |= 1 << index.0;
        txn.put_repair(*stripe, &entry)?;
    }
    Ok(Answer::Done)
}

pub(super) fn note_repair(
    txn: &mut Txn<'_>,
    stripe: StripeId,
    good: u64,
    retry: Option<Timestamp>,
    time: Timestamp,
) -> Result<Answer> {
    if txn.stripe(stripe)?.is_none() {
        return Ok(Answer::Done);
    }
    let held = txn.repair(stripe)?;
    let mut entry = held.unwrap_or_else(|| RepairEntry::new(time));
    entry.bad &= !good;
    if let Some(retry) = retry {
        entry.attempts = entry.attempts.saturating_add(1);
        entry.retry = retry;
    }
    if retry.is_none() && entry.bad == 0 {
        txn.remove_repair(stripe)?;
    } else {
        txn.put_repair(stripe, &entry)?;
    }
    Ok(Answer::Done)
}

/// A shard is where it belongs again: that attempt was no failure, and those before it do not count any more.
pub(super) fn placed(txn: &mut Txn<'_>, stripe: StripeId, index: ShardIndex) -> Result<()> {
    let Some(mut entry) = txn.repair(stripe)? else { return Ok(()) };
    entry.bad &= !(1 << index.0);
    if entry.bad == 0 {
        return txn.remove_repair(stripe);
    }
    (entry.attempts, entry.retry) = (0, entry.since);
    txn.put_repair(stripe, &entry)
}

pub(super) fn set_scrub(txn: &mut Txn<'_>, state: &ScrubState) -> Result<Answer> {
    txn.put_scrub(state)?;
    Ok(Answer::Done)
}
