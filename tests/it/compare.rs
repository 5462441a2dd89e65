//! Compares a file system with the reference: every name, attribute, byte, hole and extended attribute. Changes
//! neither.

use crate::reference::{Id, Node, Reference};
use ironfs::fs::{Caller, Fs};
use ironfs::types::{FileKind, HandleId, Ino};
use std::collections::BTreeMap;

/// What a check finds wrong, in a sentence.
pub(crate) type Checked<T = ()> = Result<T, String>;

const O_NOATIME: i32 = 0o1_000_000;
const READ_BYTES: u32 = 1 << 20;
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;

/// The user of all harnesses.
pub(crate) fn root_user() -> Caller {
    Caller { cap_fsetid: true, ..Caller::default() }
}

/// Names a place in an error.
pub(crate) fn at(path: &[u8]) -> String {
    format!("{:?}", String::from_utf8_lossy(if path.is_empty() { b"/" } else { path }))
}

/// Compares the whole tree. `inos` says which inode each node is; `handles` gives an open file for those without
/// a name.
pub(crate) async fn compare(
    fs: &Fs,
    reference: &Reference,
    inos: &BTreeMap<Id, Ino>,
    handles: &[(HandleId, Id)],
) -> Checked {
    for (path, id) in reference.paths() {
        let node = reference.node(id);
        compare_node(fs, node, inos[&id])
            .await
            .map_err(|wrong| format!("{}: {wrong}", at(&path)))?;
        if node.kind == FileKind::Directory {
            let names = list(fs, inos[&id]).await?;
            let wanted: BTreeMap<_, _> =
                node.entries.iter().map(|(name, child)| (name.clone(), inos[child])).collect();
            if names != wanted {
                return Err(format!("{}: it holds {names:?}, not {wanted:?}", at(&path)));
            }
        }
    }
    for id in reference.orphans() {
        let handle = handles.iter().find(|(_handle, open)| *open == id);
        let Some((handle, _id)) = handle else { continue };
        let (node, ino) = (reference.node(id), inos[&id]);
        compare_attributes(fs, node, (ino, Some(*handle))).await?;
        if node.kind == FileKind::File {
            compare_content(fs, node, (ino, *handle))
                .await
                .map_err(|wrong| format!("open file {ino} without a name: {wrong}"))?;
        }
    }
    Ok(())
}

async fn compare_node(fs: &Fs, node: &Node, ino: Ino) -> Checked {
    compare_attributes(fs, node, (ino, None)).await?;
    compare_xattrs(fs, node, ino).await?;
    match node.kind {
        FileKind::File => {
            let opened = fs.open(&root_user(), ino, O_NOATIME).await;
            let handle = opened.map_err(|error| format!("open: {error}"))?.handle;
            let content = compare_content(fs, node, (ino, handle)).await;
            fs.release(ino, handle).await.map_err(|error| format!("release: {error}"))?;
            content
        }
        FileKind::Symlink => {
            let target = fs.readlink(ino).await.map_err(|error| format!("readlink: {error}"))?;
            equal("target", &target[..], &node.target[..])
        }
        _ => Ok(()),
    }
}

fn equal<T: PartialEq + std::fmt::Debug>(what: &str, found: T, wanted: T) -> Checked {
    if found == wanted { Ok(()) } else { Err(format!("{what} is {found:?}, not {wanted:?}")) }
}

async fn compare_attributes(
    fs: &Fs,
    node: &Node,
    (ino, handle): (Ino, Option<HandleId>),
) -> Checked {
    let found = fs.getattr(ino, handle).await.map_err(|error| format!("getattr: {error}"))?;
    equal("kind", found.kind, node.kind)?;
    equal("links", found.links, node.links)?;
    if node.kind != FileKind::Symlink {
        equal("mode", found.mode, node.mode)?;
    }
    equal("owner", (found.uid, found.gid), (node.uid, node.gid))?;
    if let Some(mtime) = node.mtime {
        equal("modification time", found.mtime, mtime)?;
    }
    match node.kind {
        FileKind::File => equal("size", found.size, node.content.len() as u64),
        FileKind::Symlink => equal("size", found.size, node.target.len() as u64),
        _ => Ok(()),
    }
}

async fn compare_xattrs(fs: &Fs, node: &Node, ino: Ino) -> Checked {
    let caller = root_user();
    let names = fs.listxattr(&caller, ino).await.map_err(|error| format!("listxattr: {error}"))?;
    let mut found = BTreeMap::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let value = fs.getxattr(ino, name).await.map_err(|error| format!("getxattr: {error}"))?;
        found.insert(name.to_vec(), value);
    }
    equal("list of attributes", &found, &node.xattrs)
}

/// The whole content of a file.
pub(crate) async fn read_all(fs: &Fs, ino: Ino, handle: HandleId) -> Checked<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let offset = content.len() as u64;
        let bytes = fs
            .read(ino, handle, offset, READ_BYTES, O_NOATIME)
            .await
            .map_err(|error| format!("read at {offset}: {error}"))?;
        if bytes.is_empty() {
            return Ok(content);
        }
        content.extend_from_slice(&bytes);
    }
}

async fn compare_content(fs: &Fs, node: &Node, (ino, handle): (Ino, HandleId)) -> Checked {
    let found = read_all(fs, ino, handle).await?;
    if let Some(wrong) = first_difference(&found, &node.content) {
        return Err(wrong);
    }
    compare_holes(fs, node, (ino, handle)).await
}

/// Where two contents differ first.
pub(crate) fn first_difference(found: &[u8], wanted: &[u8]) -> Option<String> {
    if found == wanted {
        return None;
    }
    if found.len() != wanted.len() {
        return Some(format!("{} bytes were read, not {}", found.len(), wanted.len()));
    }
    let place = found.iter().zip(wanted).position(|(found, wanted)| found != wanted)?;
    let differ = found.iter().zip(wanted).filter(|(found, wanted)| found != wanted).count();
    let zeros = found.iter().zip(wanted).filter(|(found, wanted)| found != wanted);
    let zeros = zeros.filter(|(found, _wanted)| **found == 0).count();
    Some(format!(
        "{differ} of {} bytes differ ({zeros} of them are 0), the first at {place}: {} instead of {}",
        found.len(),
        found[place],
        wanted[place]
    ))
}

/// What is called a hole must read as zeros, and seeking must come to an end.
async fn compare_holes(fs: &Fs, node: &Node, (ino, handle): (Ino, HandleId)) -> Checked {
    let mut place = 0;
    while place < node.content.len() {
        let seek = |whence| fs.lseek(ino, handle, i64::try_from(place).unwrap(), whence);
        let data = match seek(SEEK_DATA).await {
            Ok(data) => usize::try_from(data).unwrap(),
            Err(error) if error.is(ironfs::error::Posix::NoSuchAddress) => node.content.len(),
            Err(error) => return Err(format!("SEEK_DATA: {error}")),
        };
        if node.content[place..data].iter().any(|byte| *byte != 0) {
            return Err(format!("{place}..{data} is called a hole and is none"));
        }
        if data >= node.content.len() {
            break;
        }
        let start = i64::try_from(data).unwrap();
        let hole = fs.lseek(ino, handle, start, SEEK_HOLE).await;
        let hole = usize::try_from(hole.map_err(|error| format!("SEEK_HOLE: {error}"))?).unwrap();
        if hole <= data {
            return Err(format!("there is data at {data} and a hole at {hole}"));
        }
        place = hole;
    }
    Ok(())
}

/// Names of a directory, the dots left out.
pub(crate) async fn list(fs: &Fs, ino: Ino) -> Checked<BTreeMap<Vec<u8>, Ino>> {
    let opened = fs.opendir(ino).await.map_err(|error| format!("opendir: {error}"))?;
    let mut names = BTreeMap::new();
    let mut twice = None;
    let read = fs
        .readdir(ino, opened.handle, 0, false, &mut |item| {
            let is_dot = item.name == b"." || item.name == b"..";
            if !is_dot && names.insert(item.name.to_vec(), item.ino).is_some() {
                twice = Some(item.name.to_vec());
            }
            false
        })
        .await;
    read.map_err(|error| format!("readdir: {error}"))?;
    fs.releasedir(ino, opened.handle).await.map_err(|error| format!("releasedir: {error}"))?;
    if let Some(name) = twice {
        return Err(format!("{} is listed twice", at(&name)));
    }
    for (name, ino_listed) in &names {
        let found = fs.lookup(ino, name).await;
        let found = found.map_err(|error| format!("look up {}: {error}", at(name)))?;
        fs.forget(found.ino, 1);
        equal("inode of a name", found.ino, *ino_listed)?;
    }
    Ok(names)
}
