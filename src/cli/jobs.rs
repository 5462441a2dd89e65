//! `jobs`: what goes on in the background, and holding it.

use super::{out, paths};
use crate::admin::{Done, PauseJob, client};
use crate::error::Result;
use crate::volume::status::Job;
use clap::Args;

#[cfg(test)]
mod tests;

/// Show background work: repair, scrub, moves between disks
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ironfs jobs media\n  ironfs jobs --pause rebalance media\n  ironfs jobs --resume rebalance media"
)]
pub(super) struct JobsCommand {
    /// Name of the volume, path of its configuration, or a path inside the mount
    volume: String,
    /// Hold a job: repair, scrub or rebalance (what drains is held with it)
    #[arg(long, value_name = "JOB", conflicts_with = "resume")]
    pause: Option<String>,
    /// Let a job go on
    #[arg(long, value_name = "JOB")]
    resume: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl JobsCommand {
    pub(super) fn run(self) -> Result<()> {
        let socket = paths::socket_of(&self.volume)?;
        let wanted =
            self.pause.map(|job| (job, true)).or_else(|| self.resume.map(|job| (job, false)));
        if let Some((job, paused)) = wanted {
            let body = PauseJob { job, paused };
            let _done: Done = paths::block_on(client::post(&socket, "/jobs/pause", &body))?;
        }
        let jobs: Vec<Job> = paths::block_on(client::get(&socket, "/jobs"))?;
        if self.json { out::print_json(&jobs) } else { out::print(&text(&jobs)) }
    }
}

fn text(jobs: &[Job]) -> String {
    let header = ["JOB", "STATE", "DONE", "LEFT", "RATE", "TO GO", ""];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for job in jobs {
        rows.push(vec![
            job.name.clone(),
            job.state.clone(),
            out::size(job.done_bytes),
            out::size(job.left_bytes),
            match job.bytes_per_second {
                0 => "-".into(),
                rate => format!("{}/s", out::size(rate)),
            },
            job.eta_seconds.map_or_else(|| "-".into(), out::span),
            job.detail.clone().unwrap_or_default(),
        ]);
    }
    out::table(&rows)
}
