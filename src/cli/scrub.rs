//! `scrub`: reading everything to see whether it is still good.

use super::paths::VolumeArgs;
use super::{out, paths};
use crate::admin::{Done, Pause, client};
use crate::error::Result;
use crate::volume::status::ScrubStatus;
use clap::Subcommand;

#[cfg(test)]
mod tests;

/// Read every byte of every shard, and repair what is bad
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  ironfs scrub start media\n  ironfs scrub status media --json\n\nA scrub of everything begins by \
                  itself every `scrub_days` of the configuration."
)]
pub(super) enum ScrubCommand {
    /// Begin now, as fast as `scrub_mib_s` allows
    #[command(after_help = "Example:\n  ironfs scrub start media")]
    Start(VolumeArgs),
    /// Show how far it is, or what the last pass has found
    #[command(
        after_help = "Examples:\n  ironfs scrub status media\n  ironfs scrub status --json /mnt/media"
    )]
    Status(VolumeArgs),
    /// Hold it, also over mounts
    #[command(after_help = "Example:\n  ironfs scrub pause media")]
    Pause(VolumeArgs),
    /// Let it go on
    #[command(after_help = "Example:\n  ironfs scrub resume media")]
    Resume(VolumeArgs),
}

impl ScrubCommand {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Start(VolumeArgs { volume, json }) => {
                let socket = paths::socket_of(&volume)?;
                let done: Done = paths::block_on(client::post(&socket, "/scrub/start", &()))?;
                out::done(done, json)
            }
            Self::Status(VolumeArgs { volume, json }) => {
                let socket = paths::socket_of(&volume)?;
                let status: ScrubStatus = paths::block_on(client::get(&socket, "/scrub"))?;
                if json { out::print_json(&status) } else { out::print(&text(&status)) }
            }
            Self::Pause(of) => pause(&of, true),
            Self::Resume(of) => pause(&of, false),
        }
    }
}

fn pause(of: &VolumeArgs, paused: bool) -> Result<()> {
    let socket = paths::socket_of(&of.volume)?;
    let wanted = Pause { paused };
    let done: Done = paths::block_on(client::post(&socket, "/scrub/pause", &wanted))?;
    out::done(done, of.json)
}

fn text(status: &ScrubStatus) -> String {
    let mut text = format!("{}\n", status.state);
    let passes = status.passes;
    if let Some(started) = status.started.as_ref().filter(|_started| status.under_way) {
        text += &format!("pass {} began {started}: {} so far\n", passes + 1, so_far(status));
    }
    match (&status.started, &status.finished) {
        (_, None) => text.push_str("no pass has ended yet\n"),
        (Some(started), Some(finished)) if !status.under_way => {
            text += &format!(
                "pass {passes} began {started} and ended {finished}: {} stripes, {} read, {} bad shards\n",
                status.stripes_checked,
                out::size(status.bytes_checked),
                status.damaged
            );
        }
        (_, Some(finished)) => text += &format!("pass {passes} ended {finished}\n"),
    }
    text
}

/// How far a pass is. What there is changes meanwhile, and some of what was read is gone: this is about how much, and never
/// more than all.
fn so_far(status: &ScrubStatus) -> String {
    format!(
        "{} of about {} stripes, {} of about {} read, {} bad shards",
        status.stripes_checked,
        status.stripes.max(status.stripes_checked),
        out::size(status.bytes_checked),
        out::size(status.bytes.max(status.bytes_checked)),
        status.damaged
    )
}
