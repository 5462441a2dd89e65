//! What must be true after a power cut.

use super::workload::{Kind, Moment, Record};
use crate::compare::{Checked, at as named, list, read_all};
use crate::reference::{Id, Reference};
use crate::rig::Rig;
use crate::sim::disk::SimRng;
use ironfs::fs::Fs;
use ironfs::types::{FileKind, Ino, ROOT_INO};
use std::collections::BTreeMap;
use std::time::Duration;

/// Long enough for every keeper: grace of deleted shards, age of hot data, two looks at orphans.
const SETTLING: Duration = Duration::from_secs(150);
/// States that are tried of a cut within a recovery.
const NESTED_STATES: usize = 4;
const PAGE: usize = 4096;
const O_NOATIME: i32 = 0o1_000_000;

/// What a path leads to.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Found {
    ino: Ino,
    kind: FileKind,
    links: u32,
    /// Of a symlink, which has no mode.
    target: Vec<u8>,
    mode: u32,
    xattr: Option<Vec<u8>>,
    content: Vec<u8>,
}

type Tree = BTreeMap<Vec<u8>, Found>;

/// How thoroughly a state is checked.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Depth {
    /// fsck looks before anybody could mend what the cut should not have broken.
    pub(super) untouched: bool,
    /// A cut within the recovery, by this seed.
    pub(super) nested: Option<u64>,
    /// The keepers get time to tidy up.
    pub(super) settles: bool,
}

/// Opens what a cut at `at` has left and checks it.
pub(super) async fn check(record: &Record, at: usize, rig: Rig, depth: Depth) -> Checked {
    if depth.untouched {
        untouched(&rig).await?;
    }
    let settles = depth.settles;
    let tree = recovered(record, at, &rig).await?;
    if let Some(seed) = depth.nested {
        let points = rig.machine.sync_points();
        let mut rng = SimRng::new(seed);
        if !points.is_empty() {
            let cut = points[usize::try_from(rng.below(points.len() as u64)).unwrap()];
            for state in rig.machine.crash_states(cut, NESTED_STATES, rng.next()) {
                let again = rig.after_crash(state.image);
                untouched(&again)
                    .await
                    .map_err(|wrong| format!("a second cut at {cut}: {wrong}"))?;
                let inner = recovered(record, at, &again).await;
                inner.map_err(|wrong| format!("after a second cut at {cut}: {wrong}"))?;
            }
        }
    }
    // Opening again gives the same, whether the first one was unmounted or not.
    let volume = rig.open().await.map_err(|error| format!("open again: {error}"))?;
    let second = walk(&volume.fs()).await?;
    if second != tree {
        return Err("opening again shows another tree".to_owned());
    }
    if settles {
        tokio::time::sleep(SETTLING).await;
        if walk(&volume.fs()).await? != tree {
            return Err("the keepers have changed the tree".to_owned());
        }
    }
    volume.shutdown().await.map_err(|error| format!("shutdown: {error}"))?;
    drop(volume);
    let report = rig.fsck_clean().await?;
    let surplus = report.notes.iter().find(|note| settles && note.contains("no stripe names"));
    surplus.map_or(Ok(()), |note| Err(note.clone()))
}

/// fsck finds nothing, and changes nothing.
async fn untouched(rig: &Rig) -> Checked {
    let before = rig.machine.journal_len();
    rig.fsck_clean().await.map_err(|wrong| format!("before it is opened: {wrong}"))?;
    // Nodes make a note of whom they serve.
    if !rig.is_over_nodes() && rig.machine.journal_len() != before {
        return Err("fsck has written".to_owned());
    }
    Ok(())
}

/// Opens, checks the tree, and dies.
async fn recovered(record: &Record, at: usize, rig: &Rig) -> Checked<Tree> {
    let volume = rig.open().await.map_err(|error| format!("open: {error}"))?;
    let tree = walk(&volume.fs()).await;
    rig.kill(volume).await;
    let tree = tree?;
    prefix(record, at, &tree)?;
    Ok(tree)
}

async fn walk(fs: &Fs) -> Checked<Tree> {
    let mut tree = Tree::new();
    let mut open = vec![(Vec::new(), ROOT_INO)];
    while let Some((path, ino)) = open.pop() {
        for (name, child) in list(fs, ino).await? {
            let path: Vec<u8> = [path.as_slice(), b"/", &name].concat();
            let found = look(fs, child).await;
            let found = found.map_err(|wrong| format!("{}: {wrong}", named(&path)))?;
            if found.kind == FileKind::Directory {
                open.push((path.clone(), child));
            }
            tree.insert(path, found);
        }
    }
    Ok(tree)
}

async fn look(fs: &Fs, ino: Ino) -> Checked<Found> {
    let seen = fs.getattr(ino, None).await.map_err(|error| format!("getattr: {error}"))?;
    let xattr = fs.getxattr(ino, b"user.v").await.ok();
    let mut content = Vec::new();
    if seen.kind == FileKind::File {
        let opened = fs.open(&crate::compare::root_user(), ino, O_NOATIME).await;
        let handle = opened.map_err(|error| format!("open: {error}"))?.handle;
        content = read_all(fs, ino, handle).await?;
        fs.release(ino, handle).await.map_err(|error| format!("release: {error}"))?;
        if content.len() as u64 != seen.size {
            return Err(format!("{} bytes of a file of {}", content.len(), seen.size));
        }
    }
    let (mut target, mut mode) = (Vec::new(), seen.mode);
    if seen.kind == FileKind::Symlink {
        let read = fs.readlink(ino).await.map_err(|error| format!("readlink: {error}"))?;
        (target, mode) = (read.to_vec(), 0);
    }
    Ok(Found { ino, kind: seen.kind, links: seen.links, target, mode, xattr, content })
}

/// The states between which the tree may be: at least the last one that was synced, at most the last one begun.
fn bounds(record: &Record, at: usize) -> (usize, usize) {
    let synced = |moment: &Moment| moment.done && moment.op.kind.is_sync();
    let moments = &record.moments;
    let low = moments.iter().rposition(|moment| synced(moment) && moment.ends <= at);
    let high = moments.iter().rposition(|moment| moment.begins <= at);
    (low.map_or(0, |low| low + 1), high.map_or(0, |high| high + 1))
}

/// The names of the tree must be those of one state, and every page one that was written.
fn prefix(record: &Record, at: usize, tree: &Tree) -> Checked {
    let (low, high) = bounds(record, at);
    let mut wrong = String::new();
    for state in (low..=high).rev() {
        let reference = &record.states[state];
        match same_names(reference, tree)
            .and_then(|()| same_content(record, at, (state, high), tree))
        {
            Ok(()) => return Ok(()),
            Err(why) => wrong = format!("{wrong}\n  not the state {state}: {why}"),
        }
    }
    Err(format!("the tree is none of the states {low} to {high}:{wrong}"))
}

fn same_names(reference: &Reference, tree: &Tree) -> Checked {
    let paths = reference.paths();
    if paths.len() != tree.len() + 1 {
        let names: Vec<_> = tree.keys().map(|path| named(path)).collect();
        return Err(format!("there are {names:?}"));
    }
    let mut inos: BTreeMap<Id, Ino> = BTreeMap::new();
    for (path, id) in paths.into_iter().skip(1) {
        let found = tree.get(&path).ok_or_else(|| format!("{} is not there", named(&path)))?;
        let node = reference.node(id);
        if *inos.entry(id).or_insert(found.ino) != found.ino {
            return Err(format!("the names of {} lead to two files", named(&path)));
        }
        if (found.kind, found.links) != (node.kind, node.links) {
            return Err(format!("{} has {} links", named(&path), found.links));
        }
        let mode = if node.kind == FileKind::Symlink { 0 } else { node.mode };
        if (&found.target, found.mode) != (&node.target, mode) {
            return Err(format!("{} has another target or mode", named(&path)));
        }
        if found.xattr.as_ref() != node.xattrs.get(b"user.v".as_slice()) {
            return Err(format!("{} has another attribute", named(&path)));
        }
    }
    Ok(())
}

/// The state that the content of a file is at least of, if the names are those of `state`.
fn oldest(record: &Record, at: usize, id: Id, state: usize) -> usize {
    let moments = record.moments.iter().enumerate();
    let holds = moments.filter(|(number, moment)| match moment.op.kind {
        _ if !moment.done => false,
        Kind::Sync | Kind::Checkpoint => moment.ends <= at,
        Kind::Fsync | Kind::Fdatasync => moment.ends <= at && moment.file == Some(id),
        // A name that was moved comes with what was dirty before it; an exchange with that of both.
        Kind::Rename | Kind::RenameNoReplace | Kind::Exchange => {
            *number < state && moment.file == Some(id)
        }
        _ => false,
    });
    holds.map(|(number, _moment)| number + 1).next_back().unwrap_or(0)
}

fn same_content(record: &Record, at: usize, (state, high): (usize, usize), tree: &Tree) -> Checked {
    for (path, id) in record.states[state].paths().into_iter().skip(1) {
        let found = &tree[&path];
        if found.kind != FileKind::File {
            continue;
        }
        let low = oldest(record, at, id, state);
        let states = record.states[low..=high].iter();
        let versions: Vec<&[u8]> = states
            .filter_map(|state| state.nodes.get(&id))
            .map(|node| node.content.as_slice())
            .collect();
        let content = &found.content;
        let sizes = versions.iter().map(|version| version.len());
        let (least, most) = (sizes.clone().min().unwrap_or(0), sizes.max().unwrap_or(0));
        if !(least..=most).contains(&content.len()) {
            return Err(format!(
                "{} has {} bytes, not {least} to {most}",
                named(&path),
                content.len()
            ));
        }
        for (number, page) in content.chunks(PAGE).enumerate() {
            if !versions.iter().any(|version| is_page(page, version, number * PAGE)) {
                let head = &page[..page.len().min(16)];
                return Err(format!(
                    "page {number} of {} is of no version of the states {low} to {high}: {head:?}",
                    named(&path)
                ));
            }
        }
    }
    Ok(())
}

/// Whether a page is that of a version, behind whose end there are zeros.
fn is_page(page: &[u8], version: &[u8], start: usize) -> bool {
    let there = version.get(start..).unwrap_or_default();
    let there = &there[..there.len().min(page.len())];
    page[..there.len()] == *there && page[there.len()..].iter().all(|byte| *byte == 0)
}
