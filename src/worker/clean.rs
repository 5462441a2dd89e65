//! Cleaning: live segments of stripes that are mostly dead, or very short, move to new stripes. The emptied stripes are
//! deleted by another worker. Knows no shard and no disk.

use super::{Mover, Step, Worker};
use crate::class::Class;
use crate::error::{Error, Posix, Result};
use crate::extent::FrameRef;
use crate::limits::{SLOTS_PER_STRIPE_MAX, STRIPE_PAYLOAD_BYTES_MAX};
use crate::meta::client::MetaClient;
use crate::meta::command::{Command, SegmentMove};
use crate::meta::store::{ChunkView, Totals, View};
use crate::metrics::Move;
use crate::net::Priority;
use crate::stripe::layout::StripeRecord;
use crate::stripe::pack::plan_stripes;
use crate::stripe::reader::Piece;
use crate::stripe::slots::SlotTable;
use crate::stripe::writer::{NewSegment, Target};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{ChunkIndex, ClassId, Ino, SegmentAddress, SlotIndex, StripeId};
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::Instant;

mod choose;

use choose::Chooser;
pub use choose::{Choice, CleanLimits};

#[cfg(test)]
mod tests;

/// Pause between looks at all stripes: a look reads a row per stripe.
const SCAN_PAUSE: Duration = Duration::from_secs(10);
/// Pause while there is no room to move anything, and between looks while somebody waits for room.
const ROOM_PAUSE: Duration = Duration::from_millis(500);
/// Stripes of one page of a look: a read transaction is short.
const PAGE: usize = 1024;
/// Most moves of one command; together they stay far below `COMMAND_BYTES_MAX`. A slot with more owners stays.
const MOVES_MAX: usize = 2 * SLOTS_PER_STRIPE_MAX as usize;
/// Most stripes that are remembered as not worth a merge.
const REFUSED_MAX: usize = 4096;

/// What cleaning and the room of users have to do with each other.
pub trait Room: Send + Sync + Debug {
    /// Whether so much payload of a class may be written now without taking the room of users: segments are held twice
    /// until the stripes that they leave are deleted. `gains`: it makes room; what does not needs disks that are not full for
    /// all its shards. It is taken for written if the answer is yes.
    fn may_move(&self, class: ClassId, payload_bytes: u64, gains: bool) -> bool;

    /// Whether users have so little room in a class that so many dead bytes in its stripes are worth much work.
    fn is_scarce(&self, class: ClassId, dead_bytes: u64) -> bool;

    /// Whether somebody waits for room.
    fn is_awaited(&self) -> bool;

    /// Takes note of a look at all stripes: the sums when it began, and what cleaning gives to each class from now on.
    fn note_look(&self, of: Totals, gains: BTreeMap<ClassId, u64>);
}

/// Moves live segments together.
#[derive(Debug)]
pub struct Clean {
    meta: MetaClient,
    mover: Mover,
    room: Arc<dyn Room>,
    limits: CleanLimits,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    choices: VecDeque<Choice>,
    scanned: Option<Instant>,
    /// Short stripes that fill as many stripes anew: their frames compress well.
    refused: BTreeSet<StripeId>,
}

/// A live slot and who shows how much of it.
#[derive(Debug)]
struct LiveSlot {
    record: Arc<StripeRecord>,
    slot: SlotIndex,
    /// The frame as it was written, showing what the longest owner shows.
    frame: FrameRef,
    owners: Vec<(SegmentAddress, u32)>,
}

impl Clean {
    /// Cleans the stripes of this volume. Only for read-write mounts.
    pub fn new(meta: MetaClient, mover: Mover, room: Arc<dyn Room>, limits: CleanLimits) -> Self {
        Self { meta, mover, room, limits, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn clean(&self) -> Result<Step> {
        let next = self.state().choices.pop_front();
        if let Some(choice) = next {
            if !self.room.may_move(choice.class, choice.live_bytes, !choice.merge) {
                if choice.merge {
                    // It can wait, and what makes room may stand behind it: the next look finds it again.
                    return Ok(Step::Busy);
                }
                self.state().choices.push_front(choice);
                return Ok(Step::Throttled(ROOM_PAUSE));
            }
            self.carry_out(&choice).await?;
            return Ok(Step::Busy);
        }
        let scanned = self.state().scanned;
        let pause = if self.room.is_awaited() { ROOM_PAUSE } else { SCAN_PAUSE };
        let rest = scanned.map_or(Duration::ZERO, |at| pause.saturating_sub(at.elapsed()));
        if !rest.is_zero() {
            return Ok(Step::Throttled(rest.min(ROOM_PAUSE)));
        }
        self.scan().await?;
        Ok(if self.state().choices.is_empty() { Step::Idle } else { Step::Busy })
    }

    /// Looks at all stripes and keeps the best choices.
    async fn scan(&self) -> Result<()> {
        let refused = self.state().refused.clone();
        let of = self.meta.totals();
        let mut chooser = Chooser::new(self.limits);
        let mut after = None;
        loop {
            let page = self.meta.view()?.stripes(after, PAGE)?;
            let Some((last, _live)) = page.last() else { break };
            after = Some(last.id);
            for (record, live_bytes) in &page {
                chooser.note(record, *live_bytes, !refused.contains(&record.id));
            }
            tokio::task::yield_now().await;
        }
        let choices = chooser.choices(|class, dead| self.room.is_scarce(class, dead));
        let mut gains = BTreeMap::<ClassId, u64>::new();
        for choice in choices.iter().filter(|choice| !choice.merge) {
            *gains.entry(choice.class).or_default() += choice.dead_bytes;
        }
        self.room.note_look(of, gains);
        let mut state = self.state();
        state.choices = choices.into();
        state.scanned = Some(Instant::now());
        Ok(())
    }

    /// Moves all that can be moved out of the chosen stripes.
    async fn carry_out(&self, choice: &Choice) -> Result<()> {
        let mut slots = Vec::new();
        for id in &choice.stripes {
            slots.extend(self.live_slots(*id).await?);
        }
        let Some(class_id) = slots.first().map(|slot| slot.record.class_id) else { return Ok(()) };
        let class = self.meta.view()?.class(class_id)?;
        let class = class.or_else(|| slots.first().map(|slot| slot.record.class));
        let Some(class) = class else { return Ok(()) };

        let raw_bytes: Vec<u32> = slots.iter().map(|slot| slot.frame.raw_bytes).collect();
        let runs = plan_stripes(&raw_bytes, STRIPE_PAYLOAD_BYTES_MAX);
        if choice.merge && runs.len() * 2 > choice.stripes.len() {
            self.refuse(&choice.stripes);
            return Ok(());
        }
        let why = if choice.merge { Move::Merge } else { Move::Clean };
        let runs = runs.into_iter().filter_map(|run| slots.get(run));
        for run in runs.flat_map(split_moves) {
            let moved = self.move_slots((class_id, class), run, choice.merge).await;
            let moved = moved.map_err(|error| {
                error.while_doing(format!("clean stripes {:?}", choice.stripes))
            })?;
            if !moved {
                self.state().choices.retain(|choice| !choice.merge);
                return Ok(());
            }
            let bytes = run.iter().map(|slot| u64::from(slot.frame.raw_bytes)).sum();
            self.mover.moves.note(why, bytes);
        }
        Ok(())
    }

    fn refuse(&self, stripes: &[StripeId]) {
        let mut state = self.state();
        if state.refused.len() >= REFUSED_MAX {
            state.refused.clear();
        }
        state.refused.extend(stripes);
    }

    /// The live slots of a stripe that have an owner; none if the stripe is gone.
    async fn live_slots(&self, id: StripeId) -> Result<Vec<LiveSlot>> {
        let Some(record) = self.meta.view()?.stripe(id)? else { return Ok(Vec::new()) };
        let table = self.mover.reader.slots(&record).await?;
        let view = self.meta.view()?;
        Owners { view: &view, chunk: None }.live_slots(Arc::new(record), &table)
    }

    /// Writes these slots as one stripe and redirects their owners. Tidiness is not worth a shard: what is only merged stays
    /// where it is, and the answer is false, if a disk turns out to be full and no other takes its shard.
    async fn move_slots(
        &self,
        (class_id, class): (ClassId, Class),
        slots: &[LiveSlot],
        merge: bool,
    ) -> Result<bool> {
        let mut segments = Vec::with_capacity(slots.len());
        for run in slots.chunk_by(|one, next| one.record.id == next.record.id) {
            let Some(first) = run.first() else { continue };
            let pieces: Vec<Piece> = run
                .iter()
                .map(|slot| Piece { frame: slot.frame, offset: 0, length: slot.frame.raw_bytes })
                .collect();
            let contents = self.mover.reader.read(&first.record, &pieces).await?;
            for (slot, data) in run.iter().zip(contents) {
                let Some((address, _shown)) = slot.owners.first() else { continue };
                segments.push(NewSegment { address: *address, data });
            }
        }
        let target = self.mover.placer.target(class_id, class, Priority::Background)?;
        let target = Target { whole: merge, ..target };
        let written = match self.mover.writer.write(target, segments).await {
            Err(error) if merge && error.is(Posix::NoSpace) => {
                tracing::debug!(%error, "short stripes stay as they are");
                return Ok(false);
            }
            written => written?,
        };

        let mut moves = Vec::with_capacity(slots.len());
        for ((number, slot), frame) in (0..).zip(slots).zip(&written.frames) {
            moves.extend(slot.owners.iter().map(|(address, shown)| SegmentMove {
                address: *address,
                from_stripe: slot.record.id,
                from_slot: slot.slot,
                slot: SlotIndex(number),
                frame: FrameRef { raw_bytes: *shown, ..*frame },
            }));
        }
        let id = written.record.id;
        let command = Command::MoveExtents { stripe: written.record, segments: moves };
        self.meta.propose(command).await?;
        let count = slots.len();
        tracing::debug!(stripe = %id, count, "live segments moved to a new stripe");
        Ok(true)
    }
}

/// Splits slots so that one command redirects the owners of each part.
fn split_moves(mut slots: &[LiveSlot]) -> Vec<&[LiveSlot]> {
    let mut parts = Vec::new();
    while !slots.is_empty() {
        let mut moves = 0;
        let fits = slots.iter().take_while(|slot| {
            moves += slot.owners.len();
            moves <= MOVES_MAX
        });
        let (part, rest) = slots.split_at(fits.count().max(1));
        parts.push(part);
        slots = rest;
    }
    parts
}

/// Looks up who shows the slots of a stripe. Remembers the chunk that was looked at last: owners of neighbouring slots
/// mostly share it.
struct Owners<'a> {
    view: &'a View,
    chunk: Option<(Ino, ChunkIndex, ChunkView)>,
}

impl Owners<'_> {
    fn live_slots(
        &mut self,
        record: Arc<StripeRecord>,
        table: &SlotTable,
    ) -> Result<Vec<LiveSlot>> {
        let Some(usage) = self.view.stripe_usage(record.id)? else { return Ok(Vec::new()) };
        let mut live = Vec::with_capacity(usage.live.len());
        for slot in usage.live {
            let written = table.slots.get(slot.0 as usize).ok_or_else(|| {
                Error::corrupt(format!("stripe {}: slot {slot} is not in its table", record.id))
            })?;
            let mut addresses = Vec::new();
            if usage.shared {
                addresses = self.view.owners(record.id, slot)?;
            }
            if addresses.is_empty() {
                addresses.push(written.owner);
            }
            let mut owners = Vec::with_capacity(addresses.len());
            for address in addresses {
                if let Some(shown) = self.shown(record.id, slot, address)? {
                    owners.push((address, shown));
                }
            }
            // A slot with no owner left to find is about to be reaped.
            let Some(raw_bytes) = owners.iter().map(|(_address, shown)| *shown).max() else {
                continue;
            };
            if owners.len() <= MOVES_MAX {
                let frame = FrameRef { raw_bytes, ..written.frame };
                live.push(LiveSlot { record: Arc::clone(&record), slot, frame, owners });
            }
        }
        Ok(live)
    }

    /// How many bytes of this slot the segment shows, if it still points there.
    fn shown(
        &mut self,
        stripe: StripeId,
        slot: SlotIndex,
        address: SegmentAddress,
    ) -> Result<Option<u32>> {
        let known = |(ino, chunk, _): &(Ino, ChunkIndex, ChunkView)| {
            (*ino, *chunk) == (address.ino, address.chunk)
        };
        if !self.chunk.as_ref().is_some_and(known) {
            let Some(inode) = self.view.inode(address.ino)? else { return Ok(None) };
            let chunk = self.view.chunk(&inode, address.chunk)?;
            self.chunk = Some((address.ino, address.chunk, chunk));
        }
        let place = self.chunk.as_ref().and_then(|(_, _, chunk)| chunk.map.get(address.segment));
        Ok(place
            .filter(|place| (place.stripe, place.slot) == (stripe, slot))
            .map(|place| place.frame.raw_bytes))
    }
}

impl Worker for Clean {
    fn name(&self) -> &'static str {
        "clean"
    }

    fn step(&self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.clean())
    }
}
