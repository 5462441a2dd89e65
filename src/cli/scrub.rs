//! `scrub`: reading everything to see whether it is still good.

use super::{out, paths};
use crate::admin::{Done, Pause, client};
use crate::error::Result;
use crate::volume::status::ScrubStatus;
use clap::Subcommand;

/// Read every byte of every shard, and repair what is bad
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  ironfs scrub start media\n  ironfs scrub status media --json\n\nA scrub of everything begins by \
                  itself every `scrub_days` of the configuration."
)]
pub(super) enum ScrubCommand {
    /// Begin now, as fast as `scrub_mib_s` allows
    Start {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
    },
    /// Show how far it is
    Status {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Hold it, also over mounts
    Pause {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
    },
    /// Let it go on
    Resume {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
    },
}

impl ScrubCommand {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Start { volume } => {
                let socket = paths::socket_of(&volume)?;
                let _done: Done = paths::block_on(client::post(&socket, "/scrub/start", &()))?;
                Ok(())
            }
            Self::Status { volume, json } => {
                let socket = paths::socket_of(&volume)?;
                let status: ScrubStatus = paths::block_on(client::get(&socket, "/scrub"))?;
                if json { out::print_json(&status) } else { out::print(&text(&status)) }
            }
            Self::Pause { volume } => pause(&volume, true),
            Self::Resume { volume } => pause(&volume, false),
        }
    }
}

fn pause(volume: &str, paused: bool) -> Result<()> {
    let socket = paths::socket_of(volume)?;
    let _done: Done = paths::block_on(client::post(&socket, "/scrub/pause", &Pause { paused }))?;
    Ok(())
}

fn text(status: &ScrubStatus) -> String {
    let mut text = format!("{}\n", status.state);
    if let Some(started) = &status.started {
        text += &format!(
            "latest pass began {started}: {} of {} stripes, {} of {} read, {} bad shards\n",
            status.stripes_checked,
            status.stripes,
            out::size(status.bytes_checked),
            out::size(status.bytes),
            status.damaged
        );
    }
    match &status.finished {
        Some(finished) => text += &format!("{} passes, the last ended {finished}\n", status.passes),
        None => text += "no pass has ended yet\n",
    }
    text
}
