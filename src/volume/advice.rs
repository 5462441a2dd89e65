//! What is wrong with a volume, and what to do, in sentences for people. Changes nothing.

use super::Volume;
use super::census::Census;
use super::membership::candidates;
use super::report::root_class;
use super::status::DiskStatus;
use crate::class::Class;
use crate::error::Result;
use crate::meta::local::LogStatus;
use crate::meta::store::View;
use crate::placement::Ring;
use crate::types::{Incarnation, StripeId};

#[cfg(test)]
mod tests;

/// What a volume is like, as far as that is known.
pub(super) struct Seen<'a> {
    pub(super) log: &'a LogStatus,
    pub(super) disks: &'a [DiskStatus],
    /// None while the metadata cannot be read.
    pub(super) census: Option<&'a Census>,
    /// Why no data can be written in the class of the root directory.
    pub(super) too_few: Option<&'a str>,
    /// The class that needs more disks than are in use for what those that are away held.
    pub(super) unplaced: Option<Class>,
}

/// Problems, and what to do about them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Advice {
    pub(super) problems: Vec<String>,
    pub(super) actions: Vec<String>,
}

impl Advice {
    fn tell(&mut self, problem: impl Into<String>, action: impl Into<String>) {
        self.problems.push(problem.into());
        self.actions.push(action.into());
    }

    /// What keeps changes from being made.
    fn of_changes(&mut self, seen: &Seen<'_>, read_only: bool) {
        if let Some(reason) = seen.log.read_only.as_deref().filter(|_reason| !read_only) {
            let action = "bring disks back, then unmount and mount again";
            self.tell(format!("nothing can be changed: {reason}"), action);
        }
        if seen.log.cramped {
            let action = "remove files, or what else is on these disks, or add a disk";
            let room = if seen.log.in_memory { "no room" } else { "hardly any room" };
            let problem =
                format!("the disks have {room} for more metadata: nothing new can be made");
            self.tell(problem, action);
        }
        if let Some(reason) = &seen.log.waiting {
            let action = "bring disks back: all goes on by itself then";
            self.tell(format!("changes wait: {reason}"), action);
        } else if let Some(reason) = seen.too_few {
            let action = "bring disks back: what is written goes on by itself then";
            self.tell(format!("data cannot be written: {reason}"), action);
        }
    }

    fn of_disks(&mut self, seen: &Seen<'_>, replaceable: bool) {
        let of = |state: &'static str| seen.disks.iter().filter(move |disk| disk.state == state);
        for disk in of("down") {
            let reason = disk.reason.as_deref().unwrap_or("no reason is known");
            let back = format!("bring {} back", disk.path);
            let action = match replaceable {
                true => format!(
                    "{back}, or give its place to an empty directory: ironfs disk replace {} NEW",
                    disk.path
                ),
                false => back,
            };
            let kept = seen.unplaced.map_or_else(String::new, |class| {
                let needed = class.scheme.n();
                format!("; what it held stays missing: class {class} needs {needed} disks")
            });
            self.tell(format!("{} is down: {reason}{kept}", disk.path), action);
        }
        for disk in of("suspect") {
            let action = match disk.labels.node.as_str() {
                "" => "look at its device: the kernel's log, `smartctl`, its cable".to_owned(),
                node => format!("look at node {node}, the way to it, and the device there"),
            };
            self.tell(format!("{} is slow to answer", disk.path), action);
        }
        for disk in of("full") {
            let action = "delete files, or replace small disks with larger ones";
            self.tell(format!("{} is full", disk.path), action);
        }
    }

    fn of_stripes(&mut self, census: &Census) {
        if census.unreadable() > census.lost {
            self.problems.push("some data cannot be read while these disks are away".into());
        }
        if census.lost > 0 {
            let (stripes, their) = match census.lost {
                1 => ("1 stripe is".into(), "its"),
                many => (format!("{many} stripes are"), "their"),
            };
            let problem = format!(
                "{stripes} lost: more of {their} shards are damaged or gone than {their} class bears"
            );
            let action = "copy the files that cannot be read back from a backup; `ironfs info FILE` tells how their \
                          stripes are";
            self.tell(problem, action);
        }
    }
}

impl Volume {
    /// What is wrong with the volume.
    pub(super) fn advice(&self, seen: &Seen<'_>) -> Advice {
        let (log, mut advice) = (seen.log, Advice::default());
        let changes = log.read_only.is_none() && !self.fs.read_only();
        let readable = seen.census.is_none_or(|census| census.unreadable() == census.lost);
        advice.of_changes(seen, self.options.read_only);
        advice.of_disks(seen, changes && log.waiting.is_none() && readable);
        let copies = self.log_disks(log).count();
        if changes && log.waiting.is_none() && copies < log.wanted {
            let problem = format!("the metadata is on {copies} of {} disks", log.wanted);
            advice.tell(problem, "wait: it is being copied to another");
        }
        seen.census.into_iter().for_each(|census| advice.of_stripes(census));
        if advice.problems.is_empty() && seen.census.is_some_and(|census| census.missing > 0) {
            advice.tell("some stripes miss shards", self.how_they_are_repaired());
        }
        advice
    }

    fn how_they_are_repaired(&self) -> String {
        if self.fs.read_only() {
            "mount it read-write: they are repaired then".into()
        } else if self.repair.is_paused() {
            format!("ironfs repair resume {}", self.config.name)
        } else {
            "wait: they are being repaired; `ironfs repair history` shows how it goes".into()
        }
    }

    /// The class with stripes that needs more disks than are in use.
    pub(super) fn unplaced(&self, view: &View, census: &Census) -> Result<Option<Class>> {
        let (here, _away) = self.counted(&self.log.members());
        let widest = self.widest(view, census)?;
        Ok(Some(widest).filter(|class| here < usize::from(class.scheme.n())))
    }

    /// Why no data can be written in the class of the root directory, if too few disks are in use for a stripe.
    pub(super) fn too_few_disks(&self, view: &View) -> Result<Option<String>> {
        let (_id, class) = root_class(view)?;
        let (needed, used) = (usize::from(class.scheme.k()), self.placeable(&class));
        Ok((used < needed).then(|| {
            format!("class {class} needs {needed} disks for each stripe, and {used} are in use")
        }))
    }

    /// Disks in use on which a stripe of the class may be placed, whatever room they have.
    fn placeable(&self, class: &Class) -> usize {
        let found = candidates(&self.disks, &self.log.members(), 0).into_iter();
        let found: Vec<_> = found.map(|(disk, _full)| disk).collect();
        let any = StripeId::new(Incarnation::default(), 0);
        Ring::new(&found, &class.wanted(&self.config.node)).walk(any).len()
    }
}
