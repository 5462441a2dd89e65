//! What goes on in the background of a volume, and holding it.

use super::Volume;
use super::status::Job;
use crate::disk::superblock::MemberState;
use crate::error::{Error, Result};
use crate::worker::rebalance::Amount;
use std::time::Duration;

#[cfg(test)]
mod tests;

impl Volume {
    /// All background work that moves or reads shards.
    pub fn jobs(&self) -> Result<Vec<Job>> {
        let mut jobs = vec![self.repair_job(), self.scrub_job()?];
        jobs.extend(self.rebalance_jobs());
        Ok(jobs)
    }

    /// Holds a job, or lets it go on. Holding `rebalance` holds what drains too.
    ///
    /// Errors: `Refused` if there is no such job, or the mount is read-only.
    pub async fn pause_job(&self, name: &str, paused: bool) -> Result<()> {
        match name {
            "repair" => self.repair.set_paused(paused),
            "scrub" => self.pause_scrub(paused).await?,
            "rebalance" => self.rebalance.set_paused(paused),
            other => {
                return Err(Error::refused(format!(
                    "there is no job {other} to hold: there are repair, scrub and rebalance"
                )));
            }
        }
        Ok(())
    }

    fn repair_job(&self) -> Job {
        let (left, done, rate) = self.repair.progress();
        let waiting = self.repair.waiting();
        let detail = match waiting {
            0 => None,
            1 => Some("1 stripe waits".to_owned()),
            many => Some(format!("{many} stripes wait")),
        };
        job("repair", (self.repair.is_paused(), waiting > 0), (done, left, rate), detail)
    }

    fn scrub_job(&self) -> Result<Job> {
        let status = self.scrub_status()?;
        let (paused, running) = (status.state == "paused", status.state == "running");
        let left = status.bytes.saturating_sub(status.bytes_checked);
        let left = if status.under_way { left } else { 0 };
        let detail = (status.damaged > 0).then(|| format!("{} bad shards found", status.damaged));
        let rate = self.scrub_rate();
        Ok(job("scrub", (paused, running), (status.bytes_checked, left, rate), detail))
    }

    fn rebalance_jobs(&self) -> Vec<Job> {
        let progress = self.rebalance.progress();
        let (paused, rate) = (self.rebalance.is_paused(), progress.bytes_per_second);
        let members = self.log.members();
        let draining =
            |disk| members.member(disk).is_some_and(|member| member.state == MemberState::Draining);
        let drains: Vec<_> =
            members.disks.iter().filter(|member| member.state == MemberState::Draining).collect();
        let moving = progress.left.iter().filter(|(disk, _amount)| !draining(**disk));
        let left: u64 = moving.map(|(_disk, amount)| amount.bytes).sum();
        let trouble = progress.trouble.clone();
        let detail = if drains.is_empty() { trouble.clone() } else { None };
        let done = progress.moved.bytes;
        // What drains goes first: nothing else moves until then.
        let drains_first = drains.iter().any(|member| progress.left.contains_key(&member.disk));
        let own_rate = if drains_first { 0 } else { rate };
        let mut jobs = vec![job("rebalance", (paused, left > 0), (done, left, own_rate), detail)];
        for member in drains {
            let Amount { shards, bytes } =
                progress.left.get(&member.disk).copied().unwrap_or_default();
            let detail = match (&trouble, progress.known) {
                (Some(trouble), _) => trouble.clone(),
                (None, false) => format!("{}: looking what it holds", member.path),
                (None, true) => format!("{}: {shards} shards to go", member.path),
            };
            let name = format!("drain:{}", member.disk);
            let done = progress.drained.get(&member.disk).map_or(0, |drained| drained.bytes);
            let rate = if bytes > 0 { rate } else { 0 };
            jobs.push(job(&name, (paused, true), (done, bytes, rate), Some(detail)));
        }
        jobs
    }

    /// How long until every stripe has its full margin at the present rate; `None` if nothing waits or nothing goes on.
    pub(super) fn full_margin_in(&self) -> Option<Duration> {
        let (left, _done, rate) = self.repair.progress();
        (left > 0 && rate > 0).then(|| Duration::from_secs(left / rate + 1))
    }
}

fn job(
    name: &str,
    (paused, busy): (bool, bool),
    (done, left, rate): (u64, u64, u64),
    detail: Option<String>,
) -> Job {
    let state = match (paused, busy) {
        (true, _) => "paused",
        (false, true) => "running",
        (false, false) => "idle",
    };
    // What the meter still tells of a job that has nothing to do is of before.
    let rate = if busy && !paused { rate } else { 0 };
    Job {
        name: name.into(),
        state: state.into(),
        done_bytes: done,
        left_bytes: left,
        bytes_per_second: rate,
        eta_seconds: (left > 0 && rate > 0).then(|| left / rate + 1),
        detail,
    }
}
