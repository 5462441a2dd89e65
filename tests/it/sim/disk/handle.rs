//! A simulated disk and its files as one process sees them: the two traits, over the state of the machine.

use super::image::{FileId, Node, Op, parent, to_u64};
use super::{Call, Fault, SimMachine, State};
use ironfs::disk::{Disk, DiskEntry, DiskFile, DiskIdentity, OpenMode, Space};
use ironfs::error::{Error, Posix, Result};
use std::sync::{Arc, MutexGuard};

/// A disk as one process has opened it.
#[derive(Debug)]
pub(super) struct SimDisk {
    pub(super) machine: SimMachine,
    pub(super) index: usize,
    pub(super) life: u64,
    pub(super) id: u64,
}

impl SimDisk {
    /// The state, if the disk answers and no fault is aimed at this call.
    fn enter(&self, call: Option<Call>, context: &str) -> Result<(MutexGuard<'_, State>, bool)> {
        let mut state = self.machine.state();
        let dead = state.life != self.life;
        let disk = &mut state.disks[self.index];
        if dead || disk.offline {
            let reason = if dead { "the process is dead" } else { "the disk is offline" };
            return Err(Error::unavailable(format!("{context} on {}: {reason}", self.label())));
        }
        match call.and_then(|call| disk.fault(call)) {
            Some(Fault::Fail) => {
                drop(state);
                Err(Error::unavailable(format!("{context} on {}: injected", self.label())))
            }
            Some(Fault::Skip) => Ok((state, true)),
            None => Ok((state, false)),
        }
    }

    fn state(&self, call: Call, context: &str) -> Result<MutexGuard<'_, State>> {
        self.enter(Some(call), context).map(|(state, _skip)| state)
    }

    fn not_found<T>(&self, name: &str) -> Result<T> {
        let context = format!("{name} on {}: not found", self.label());
        Err(Error::new(ironfs::error::ErrorKind::Posix(Posix::NotFound), context))
    }
}

fn check_name(name: &str) -> Result<()> {
    match name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        true => Err(Error::internal(format!("{name:?} is no name on a disk"))),
        false => Ok(()),
    }
}

impl Disk for SimDisk {
    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
        check_name(name)?;
        let call = if mode == OpenMode::CreateNew { Call::Create } else { Call::Open };
        let mut state = self.state(call, &format!("open {name}"))?;
        let disk = &state.disks[self.index];
        let file = match (mode, disk.live.names.get(name)) {
            (OpenMode::CreateNew, None) if disk.live.is_dir(parent(name)) => {
                let file = state.new_id();
                state.op(self.index, Op::Create { name: name.to_owned(), file });
                file
            }
            (OpenMode::CreateNew, Some(_)) => return Err(Posix::Exists.into()),
            (OpenMode::Read | OpenMode::Write, Some(Node::File(file))) => *file,
            (OpenMode::Read | OpenMode::Write, Some(Node::Dir)) => {
                return Err(Error::unavailable(format!("open {name}: it is a directory")));
            }
            (_, None) => return self.not_found(name),
        };
        *state.disks[self.index].open.entry(file).or_default() += 1;
        let disk =
            Self { machine: self.machine.clone(), index: self.index, life: self.life, id: 0 };
        Ok(Arc::new(SimFile {
            disk,
            file,
            name: name.to_owned(),
            writable: mode != OpenMode::Read,
        }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        let mut state = self.state(Call::Remove, &format!("remove {name}"))?;
        let Some(file) = state.disks[self.index].file(name) else { return self.not_found(name) };
        state.op(self.index, Op::Remove { name: name.to_owned(), file });
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        check_name(to)?;
        let mut state = self.state(Call::Rename, &format!("rename {from} to {to}"))?;
        let disk = &state.disks[self.index];
        let Some(file) = disk.file(from) else { return self.not_found(from) };
        if !disk.live.is_dir(parent(to)) {
            return self.not_found(to);
        }
        let replaced = match disk.live.names.get(to) {
            Some(Node::Dir) => {
                return Err(Error::unavailable(format!("rename to {to}: it is a directory")));
            }
            Some(Node::File(replaced)) if *replaced == file => return Ok(()),
            Some(Node::File(replaced)) => Some(*replaced),
            None => None,
        };
        let (from, to) = (from.to_owned(), to.to_owned());
        state.op(self.index, Op::Rename { from, to, file, replaced });
        Ok(())
    }

    fn create_dir(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let mut state = self.state(Call::Create, &format!("make directory {name}"))?;
        let disk = &state.disks[self.index];
        if disk.live.names.contains_key(name) {
            return Err(Posix::Exists.into());
        }
        if !disk.live.is_dir(parent(name)) {
            return self.not_found(name);
        }
        state.op(self.index, Op::CreateDir { name: name.to_owned() });
        Ok(())
    }

    fn list(&self, dir: &str) -> Result<Vec<DiskEntry>> {
        let (state, _skip) = self.enter(None, &format!("list {dir:?}"))?;
        let live = &state.disks[self.index].live;
        if !live.is_dir(dir) {
            return self.not_found(dir);
        }
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let below = live.names.range(prefix.clone()..);
        let below = below.map_while(|(name, node)| Some((name.strip_prefix(&prefix)?, node)));
        let direct = below.filter(|(name, _node)| !name.contains('/'));
        Ok(direct
            .map(|(name, node)| DiskEntry { name: name.to_owned(), is_dir: *node == Node::Dir })
            .collect())
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        match self.enter(Some(Call::SyncDir), &format!("sync directory {dir:?}")) {
            Ok((_state, true)) => Ok(()),
            Ok((state, false)) if !state.disks[self.index].live.is_dir(dir) => self.not_found(dir),
            Ok((mut state, false)) => {
                state.sync_dir(self.index, dir, false);
                Ok(())
            }
            Err(error) => {
                let mut state = self.machine.state();
                if state.life == self.life && !state.disks[self.index].offline {
                    state.sync_dir(self.index, dir, true);
                }
                Err(error)
            }
        }
    }

    fn space(&self) -> Result<Space> {
        let (state, _skip) = self.enter(None, "ask for space")?;
        let disk = &state.disks[self.index];
        let free_bytes = disk.capacity_bytes.saturating_sub(disk.used_bytes);
        let device = to_u64(self.index) + 1;
        Ok(Space { total_bytes: disk.capacity_bytes, free_bytes, device })
    }

    fn identity(&self) -> Result<DiskIdentity> {
        let (state, _skip) = self.enter(None, "look at the root")?;
        let device = to_u64(self.index) + 1;
        Ok(DiskIdentity { device, inode: state.disks[self.index].inode })
    }

    fn lock(&self, holder: &str) -> Result<()> {
        let (mut state, _skip) = self.enter(None, "lock")?;
        let held = &mut state.disks[self.index].holder;
        match held {
            Some((id, other)) if *id != self.id => {
                Err(Error::refused(format!("{} is in use by {other}", self.label())))
            }
            _ => {
                *held = Some((self.id, holder.to_owned()));
                Ok(())
            }
        }
    }

    fn label(&self) -> String {
        // A path, as that of a directory is: recovery names a member by it, and it is opened again by it.
        format!("/sim/d{}", self.index)
    }
}

impl Drop for SimDisk {
    fn drop(&mut self) {
        let mut state = self.machine.state();
        let held = &mut state.disks[self.index].holder;
        if held.as_ref().is_some_and(|(id, _holder)| *id == self.id) {
            *held = None;
        }
    }
}

/// An open file.
#[derive(Debug)]
struct SimFile {
    disk: SimDisk,
    file: FileId,
    name: String,
    writable: bool,
}

impl SimFile {
    /// What a sync of it counts as.
    fn sync_call(&self) -> Call {
        let state = self.disk.machine.state();
        let is_meant = state.disks[self.disk.index].faults.contains_key(&Call::SyncShard);
        if is_meant && self.name.starts_with("shards/") { Call::SyncShard } else { Call::SyncData }
    }

    fn change(&self, call: Call, length: u64, op: impl FnOnce() -> Op) -> Result<()> {
        let context = format!("write {}", self.name);
        if !self.writable {
            return Err(Error::unavailable(format!("{context}: it is open for reading")));
        }
        let mut state = self.disk.state(call, &context)?;
        let index = self.disk.index;
        state.disks[index].check_space(self.file, length)?;
        state.op(index, op());
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> Result<u64> {
        let (state, _skip) =
            self.disk.enter(None, &format!("ask for the length of {}", self.name))?;
        Ok(state.disks[self.disk.index].len(self.file))
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let context = format!("read {} at {offset}", self.name);
        let state = self.disk.state(Call::Read, &context)?;
        let disk = &state.disks[self.disk.index];
        let wanted = offset.saturating_add(to_u64(buffer.len()));
        let length = disk.len(self.file);
        if wanted > length {
            return Err(Error::corrupt(format!(
                "{context}: expected {wanted} bytes, found {length}"
            )));
        }
        if let Some(content) = disk.live.files.get(&self.file) {
            content.read(offset, buffer);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let end = offset.saturating_add(to_u64(data.len()));
        let file = self.file;
        self.change(Call::Write, end, || Op::Write { file, offset, data: data.into() })
    }

    fn set_len(&self, length: u64) -> Result<()> {
        let file = self.file;
        self.change(Call::SetLen, length, || Op::SetLen { file, length })
    }

    fn sync_data(&self) -> Result<()> {
        let index = self.disk.index;
        match self.disk.enter(Some(self.sync_call()), &format!("sync {}", self.name)) {
            Ok((_state, true)) => Ok(()),
            Ok((mut state, false)) => {
                state.sync_data(index, self.file, false);
                Ok(())
            }
            Err(error) => {
                let mut state = self.disk.machine.state();
                if state.life == self.disk.life && !state.disks[index].offline {
                    state.sync_data(index, self.file, true);
                }
                Err(error)
            }
        }
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.machine.state().disks[self.disk.index].close(self.file);
    }
}
