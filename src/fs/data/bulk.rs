//! The way out into stripes: which segments share one, what they contain, and the commit when their shards are durable.

use super::Data;
use super::flush::{Snap, Snapshot};
use crate::class::Class;
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::limits::{SEGMENT_BYTES, SEGMENTS_PER_CHUNK, STRIPE_PAYLOAD_BYTES_MAX};
use crate::meta::command::{Answer, Command, FileUpdate, SegmentCommit, segment_address};
use crate::meta::store::ChunkView;
use crate::net::Priority;
use crate::stripe::pack::plan_stripes;
use crate::stripe::writer::{NewSegment, Written};
use crate::types::{ChunkIndex, ClassId, Ino, SlotIndex, Version};
use futures_util::future::{BoxFuture, join};
use futures_util::{FutureExt, StreamExt, stream};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};
use tokio::time::Instant;

const SEGMENT: u64 = SEGMENT_BYTES as u64;
/// How often a stripe is written before disks that are full are an error, and without a pause.
const PUT_ATTEMPTS: u32 = 4;
/// Pause between two attempts while disks are waited for.
const PUT_PAUSE: Duration = Duration::from_millis(250);

/// Content of a stripe up to which it counts as small.
const SMALL_STRIPE_BYTES: u64 = 2 << 20;
/// Small stripes that are written at once.
const SMALL_STRIPES_MAX: usize = 16;

/// Bounds how many stripes are in memory, whoever flushes them. Small ones do not wait behind the large ones: someone
/// waits for their fsync.
#[derive(Debug)]
pub(super) struct Lanes {
    large: Semaphore,
    small: Semaphore,
}

impl Lanes {
    /// `large` stripes at once beside the small ones.
    pub(super) fn new(large: usize) -> Self {
        Self { large: Semaphore::new(large.max(1)), small: Semaphore::new(SMALL_STRIPES_MAX) }
    }

    async fn enter(&self, bytes: u64) -> Result<SemaphorePermit<'_>> {
        let lane = if bytes <= SMALL_STRIPE_BYTES { &self.small } else { &self.large };
        lane.acquire().await.map_err(|_closed| Error::internal("stripes are not written any more"))
    }
}

/// One segment of one of the snapshots.
#[derive(Clone, Copy)]
struct Member<'s> {
    snapshot: &'s Snapshot,
    segment: &'s Snap,
}

/// A stripe that is written, and what it holds.
struct Stripe<'s> {
    members: Vec<Member<'s>>,
    expected: Vec<Version>,
    written: Option<Written>,
    /// Members whose committed part cannot be read.
    unreadable: Vec<Member<'s>>,
}

/// Whether an error of reading committed content means that it is lost for now, so that what is dirty of the segment
/// has to stay by itself.
pub(super) const fn is_unreadable(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Corrupt | ErrorKind::Unavailable | ErrorKind::Posix(Posix::NotFound)
    )
}

/// The segments that belong to chunks which are dirty from end to end.
pub(super) fn full_chunks(segments: Vec<Snap>) -> Vec<Snap> {
    let per_chunk = u64::from(SEGMENTS_PER_CHUNK);
    let mut full: BTreeMap<u64, u64> = BTreeMap::new();
    for segment in segments.iter().filter(|segment| is_full(segment)) {
        *full.entry(segment.number / per_chunk).or_default() += 1;
    }
    let is_in = |segment: &Snap| full.get(&(segment.number / per_chunk)) == Some(&per_chunk);
    segments.into_iter().filter(is_in).collect()
}

fn is_full(segment: &Snap) -> bool {
    matches!(segment.pieces.as_slice(), [piece] if piece.bytes().len() as u64 == SEGMENT)
}

/// Writes snapshots into stripes and commits them, several stripes at once, in the order of the files. Answers how many
/// segments had changed and stay dirty.
pub(super) async fn flush(data: &Data, snapshots: &[&Snapshot]) -> Result<usize> {
    let mut classes: BTreeMap<ClassId, Vec<&Snapshot>> = BTreeMap::new();
    for snapshot in snapshots {
        classes.entry(snapshot.class).or_default().push(snapshot);
    }
    let mut skipped = 0;
    for (class, snapshots) in classes {
        let writes: Vec<BoxFuture<'_, Result<Stripe<'_>>>> = plan(&snapshots)
            .into_iter()
            .map(|members| write(data, class, members).boxed())
            .collect();
        skipped += write_and_commit(data, writes).await?;
    }
    Ok(skipped)
}

/// Commits each stripe when it and all before it are written. The writes go on meanwhile: one that is not polled may have been
/// given the turn at something that the commit before it needs, and then neither would ever end.
async fn write_and_commit<'s>(
    data: &Data,
    writes: Vec<BoxFuture<'_, Result<Stripe<'s>>>>,
) -> Result<usize> {
    // There is room for all, so that no write ever waits for a commit: of each stripe only what is to be committed waits there.
    let (sender, mut written) = mpsc::channel(writes.len().max(1));
    let mut stripes = stream::iter(writes).buffered(data.limits.stripes_in_flight.max(1));
    let write_all = async move {
        while let Some(stripe) = stripes.next().await {
            if sender.send(stripe?).await.is_err() {
                // A commit has failed, which says why.
                break;
            }
        }
        Ok(())
    };
    let commit_all = async move {
        let mut skipped = 0;
        while let Some(stripe) = written.recv().await {
            skipped += commit(data, stripe).await?;
        }
        Ok(skipped)
    };
    let (writing, committing) = join(write_all, commit_all).await;
    writing.and(committing)
}

/// Which segments share a stripe: each whole chunk has its own, the others are packed and come last.
fn plan<'s>(snapshots: &[&'s Snapshot]) -> Vec<Vec<Member<'s>>> {
    let per_chunk = usize::from(SEGMENTS_PER_CHUNK);
    let (mut stripes, mut rest): (Vec<Vec<Member<'s>>>, Vec<Member<'s>>) = Default::default();
    for snapshot in snapshots {
        let chunk = |segment: &Snap| segment.number / u64::from(SEGMENTS_PER_CHUNK);
        for run in snapshot.segments.chunk_by(|a, b| chunk(a) == chunk(b)) {
            let members = run.iter().map(|segment| Member { snapshot, segment });
            if run.len() == per_chunk {
                stripes.push(members.collect());
            } else {
                rest.extend(members);
            }
        }
    }
    let sizes: Vec<u32> = rest.iter().map(|member| member.segment.visible.max(1)).collect();
    for range in plan_stripes(&sizes, STRIPE_PAYLOAD_BYTES_MAX) {
        stripes.push(part(&rest, range));
    }
    stripes
}

fn part<'s>(members: &[Member<'s>], range: Range<usize>) -> Vec<Member<'s>> {
    members.get(range).unwrap_or_default().to_vec()
}

/// Makes one stripe durable.
async fn write<'s>(data: &Data, class: ClassId, members: Vec<Member<'s>>) -> Result<Stripe<'s>> {
    let bytes = members.iter().map(|member| u64::from(member.segment.visible)).sum();
    let _lane = data.lanes.enter(bytes).await?;
    let mut stripe =
        Stripe { members: Vec::new(), expected: Vec::new(), written: None, unreadable: Vec::new() };
    let mut segments = Vec::with_capacity(members.len());
    let mut chunk = None;
    for member in members {
        let ino = member.snapshot.node.ino;
        let address = segment_address(ino, member.segment.number).ok_or(Posix::FileTooBig)?;
        // The version comes first: content that is read later is at least as new, and the gate keeps both still.
        let Some(version) = version(data, &member, &mut chunk)? else { continue };
        match data.content(member.snapshot, member.segment).await {
            Ok(content) => {
                segments.push(NewSegment { address, data: content });
                stripe.members.push(member);
                stripe.expected.push(version);
            }
            Err(error) if is_unreadable(&error) => stripe.unreadable.push(member),
            Err(error) => return Err(error),
        }
    }
    if !segments.is_empty() {
        let policy = data.meta.view()?.class(class)?;
        let policy =
            policy.ok_or_else(|| Error::corrupt(format!("class {class} is not defined")))?;
        stripe.written = Some(put(data, (class, policy), segments).await?);
    }
    Ok(stripe)
}

/// Writes one stripe. If the member list changes meanwhile it is written anew by the next one: a disk that is lost
/// changes the list, and that must not fail who is writing at this moment. The same goes for disks that fail or are
/// found full under the stripe before anybody has noticed: those that are left may be enough. While they are not, because
/// too many are away at once, they are waited for, though not for ever.
async fn put(
    data: &Data,
    (class, policy): (ClassId, Class),
    segments: Vec<NewSegment>,
) -> Result<Written> {
    let deadline = Instant::now() + data.limits.patience;
    let mut attempt = 1;
    loop {
        let written = match data.placer.target(class, policy, Priority::Sync) {
            Ok(target) => data.writer.write(target, segments.clone()).await,
            Err(error) => Err(error),
        };
        match written {
            Err(error) if is_worth_another(&error, attempt, deadline) => {
                tracing::debug!(%error, "a stripe is written anew on the disks that are left");
                // It takes a moment until it is known whose data a disk is full of.
                if attempt >= PUT_ATTEMPTS || error.is(Posix::NoSpace) {
                    tokio::time::sleep(PUT_PAUSE).await;
                }
                attempt += 1;
            }
            written => {
                if let Ok(written) = &written {
                    data.space.note_put(written.record.payload_bytes);
                }
                return written;
            }
        }
    }
}

fn is_worth_another(error: &Error, attempt: u32, deadline: Instant) -> bool {
    match error.kind() {
        ErrorKind::Posix(Posix::NoSpace) => attempt < PUT_ATTEMPTS,
        ErrorKind::Fenced | ErrorKind::Unavailable => {
            attempt < PUT_ATTEMPTS || Instant::now() < deadline
        }
        _ => false,
    }
}

/// The chunk that was looked at last: neighbours ask for the same one.
type LastChunk = Option<(Ino, ChunkIndex, ChunkView)>;

/// Version of a segment now; `None` if its file is gone.
fn version(data: &Data, member: &Member<'_>, last: &mut LastChunk) -> Result<Option<Version>> {
    let ino = member.snapshot.node.ino;
    let address = segment_address(ino, member.segment.number).ok_or(Posix::FileTooBig)?;
    if let Some((held, chunk, content)) = last
        && (*held, *chunk) == (ino, address.chunk)
    {
        return Ok(Some(content.version(address.segment)));
    }
    let view = data.meta.view()?;
    let Some(inode) = view.inode(ino)? else {
        data.discard(&member.snapshot.node);
        return Ok(None);
    };
    let content = view.chunk(&inode, address.chunk)?;
    let version = content.version(address.segment);
    *last = Some((ino, address.chunk, content));
    Ok(Some(version))
}

/// Commits one stripe; what it holds is clean when the commit is durable.
async fn commit(data: &Data, stripe: Stripe<'_>) -> Result<usize> {
    for member in &stripe.unreadable {
        data.commit_hot(member.snapshot, &[member.segment]).await?;
    }
    let Some(written) = stripe.written else { return Ok(0) };
    let mut commits = Vec::with_capacity(stripe.members.len());
    let mut ends: BTreeMap<Ino, (&Snapshot, u64)> = BTreeMap::new();
    let slots = (0..).map(SlotIndex);
    for (((member, expected), frame), slot) in
        stripe.members.iter().zip(&stripe.expected).zip(&written.frames).zip(slots)
    {
        let ino = member.snapshot.node.ino;
        let address = segment_address(ino, member.segment.number).ok_or(Posix::FileTooBig)?;
        commits.push(SegmentCommit { address, expected: *expected, slot, frame: *frame });
        let end = member.segment.number * SEGMENT + u64::from(member.segment.visible);
        ends.entry(ino).or_insert((member.snapshot, 0)).1 = end;
    }
    let files: Vec<FileUpdate> =
        ends.values().map(|(snapshot, end)| snapshot.update(*end)).collect();
    let command = Command::CommitExtents { stripe: written.record, segments: commits, files };
    let (answer, position) = data.meta.propose_at(command).await?;
    let Answer::Committed { skipped, inodes } = answer else {
        return Err(Error::internal("a commit of a stripe answered something else"));
    };
    data.meta.sync().await?;
    for inode in inodes {
        if let Some((snapshot, _end)) = ends.get(&inode.ino) {
            snapshot.node.install(inode, position);
        }
    }
    let skipped: BTreeSet<u32> = skipped.into_iter().collect();
    for (index, member) in (0..).zip(&stripe.members) {
        if !skipped.contains(&index) {
            data.clean(member.snapshot, &[member.segment]);
        }
    }
    Ok(skipped.len())
}

#[cfg(test)]
mod tests;
