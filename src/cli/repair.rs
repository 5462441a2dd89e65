//! `repair`: what goes on by itself, hurried, held and looked at.

use super::paths::VolumeArgs;
use super::{out, paths};
use crate::admin::{Done, Pause, RepairStripe, client};
use crate::error::{Error, Result};
use crate::volume::status::{RepairHistory, RepairLine, RepairReport};
use clap::Subcommand;

#[cfg(test)]
mod tests;

/// Rebuild shards that are missing or bad
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  ironfs repair run media\n  ironfs repair history --limit 20 media\n\nRepair goes on by \
                  itself; `run` only hurries it."
)]
pub(super) enum RepairCommand {
    /// Look at every stripe once and rebuild what is missing
    #[command(
        after_help = "Examples:\n  ironfs repair run media\n  ironfs repair run --json /mnt/media\n\nExit codes: 0 all is repaired, 1 not all could be, 2 wrong use or refused input"
    )]
    Run(VolumeArgs),
    /// Look at every byte of one stripe and rebuild what is bad
    #[command(
        after_help = "Examples:\n  ironfs repair stripe media 0000000100000007\n  ironfs repair stripe --force media 0000000100000007"
    )]
    Stripe {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
        /// Number of the stripe, as `ironfs info` shows it
        #[arg(value_parser = stripe_number)]
        stripe: u64,
        /// Write all its shards anew, the good ones too
        #[arg(long)]
        force: bool,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Hold the repair that goes on by itself, until `resume` or the next mount
    #[command(after_help = "Example:\n  ironfs repair pause media")]
    Pause(VolumeArgs),
    /// Let repair go on
    #[command(after_help = "Example:\n  ironfs repair resume media")]
    Resume(VolumeArgs),
    /// Show the last attempts, the latest first
    #[command(
        after_help = "Examples:\n  ironfs repair history media\n  ironfs repair history --limit 20 --json media"
    )]
    History {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
        /// Most attempts to show
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl RepairCommand {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Run(VolumeArgs { volume, json }) => {
                let socket = paths::socket_of(&volume)?;
                let report: RepairReport = paths::block_on(client::post(&socket, "/repair", &()))?;
                show(&report, json)
            }
            Self::Stripe { volume, stripe, force, json } => {
                let socket = paths::socket_of(&volume)?;
                let wanted = RepairStripe { stripe, force };
                let report: RepairReport =
                    paths::block_on(client::post(&socket, "/repair/stripe", &wanted))?;
                show(&report, json)
            }
            Self::Pause(of) => pause(&of, true),
            Self::Resume(of) => pause(&of, false),
            Self::History { volume, limit, json } => {
                let socket = paths::socket_of(&volume)?;
                let path = format!("/repair/history?limit={limit}");
                let history: RepairHistory = paths::block_on(client::get(&socket, &path))?;
                show_history(&history, json)
            }
        }
    }
}

fn pause(of: &VolumeArgs, paused: bool) -> Result<()> {
    let socket = paths::socket_of(&of.volume)?;
    let wanted = Pause { paused };
    let done: Done = paths::block_on(client::post(&socket, "/repair/pause", &wanted))?;
    out::done(done, of.json)
}

fn stripe_number(text: &str) -> std::result::Result<u64, String> {
    let digits = text.len() == 16;
    let number = u64::from_str_radix(text, 16).ok().filter(|_| digits);
    number
        .ok_or_else(|| "a stripe is 16 hexadecimal digits, as `ironfs info FILE` shows them".into())
}

/// Prints the history; it is an error if there may be one, and none of it can be read.
fn show_history(history: &RepairHistory, json: bool) -> Result<()> {
    let RepairHistory { lines, unread } = history;
    if json {
        out::print_json(lines)?;
    } else if lines.is_empty() && unread.is_empty() {
        out::print("no repair is recorded\n")?;
    } else {
        out::print(&attempts(lines))?;
    }
    match doubt(history) {
        None => Ok(()),
        Some(sentence) if lines.is_empty() => Err(Error::unavailable(sentence)),
        Some(sentence) => {
            out::tell(&format!("ironfs: {sentence}"));
            Ok(())
        }
    }
}

/// What a history leaves open, if some disks cannot be read.
fn doubt(history: &RepairHistory) -> Option<String> {
    let unread = history.unread.join(", ");
    match history.lines.as_slice() {
        _ if unread.is_empty() => None,
        [] => Some(format!(
            "the repair history cannot be read: if there is any, it is on {unread}, now out of reach"
        )),
        [..] => Some(format!("more of the history may be on {unread}, now out of reach")),
    }
}

fn attempts(lines: &[RepairLine]) -> String {
    let mut text = String::new();
    for line in lines {
        let list = |numbers: &[u8]| numbers.iter().map(u8::to_string).collect::<Vec<_>>().join(",");
        text += &format!(
            "{}  {}  {}  shards {}: {}, {} in {} ms",
            line.time,
            line.stripe,
            line.class,
            list(&line.missing_shards),
            line.result,
            out::size(line.bytes),
            line.milliseconds
        );
        if let Some(error) = &line.error {
            text += &format!("; {error}");
        }
        if let Some(retry) = &line.next_retry {
            text += &format!("; next at {retry}");
        }
        text.push('\n');
    }
    text
}

/// Prints a report; what could not be repaired makes the command fail.
pub(super) fn show(report: &RepairReport, json: bool) -> Result<()> {
    if json {
        out::print_json(report)?;
    } else {
        out::print(&format!(
            "{} stripes checked, {} touched, {} shards restored ({})\n",
            report.stripes_checked,
            report.stripes_touched,
            report.shards_restored,
            out::size(report.bytes_restored)
        ))?;
    }
    for failure in &report.failures {
        out::tell(&format!("ironfs: {failure}"));
    }
    match failed(report) {
        Some(sentence) => Err(Error::unavailable(sentence)),
        None => Ok(()),
    }
}

/// What to say of failures: some are of a shard, some of a whole stripe, so that neither is counted.
fn failed(report: &RepairReport) -> Option<String> {
    let (count, listed) = (report.failure_count, report.failures.len());
    let all = u64::try_from(listed).is_ok_and(|listed| listed >= count);
    let failures = match count {
        0 => return None,
        1 => "1 failure".to_owned(),
        _ if all => format!("{count} failures"),
        _ => format!("{count} failures, of which {listed} are listed"),
    };
    Some(format!("not all is repaired: {failures}; add or bring back disks and run it again"))
}
