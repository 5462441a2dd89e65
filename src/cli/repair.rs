//! `repair run`: one sweep now.

use super::{out, paths};
use crate::admin::{Done, Pause, RepairStripe, client};
use crate::error::{Error, Result};
use crate::volume::status::{RepairLine, RepairReport};
use clap::Subcommand;

/// Rebuild shards that are missing or bad
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  ironfs repair run media\n  ironfs repair history --limit 20 media\n\nRepair goes on by \
                  itself; `run` only hurries it."
)]
pub(super) enum RepairCommand {
    /// Look at every stripe once and rebuild what is missing
    Run {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Look at every byte of one stripe and rebuild what is bad
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
    Pause {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
    },
    /// Let repair go on
    Resume {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
    },
    /// Show the last attempts, the latest first
    History {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
        /// Most attempts to show
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl RepairCommand {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Run { volume, json } => {
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
            Self::Pause { volume } => pause(&volume, true),
            Self::Resume { volume } => pause(&volume, false),
            Self::History { volume, limit, json } => {
                let socket = paths::socket_of(&volume)?;
                let path = format!("/repair/history?limit={limit}");
                let lines: Vec<RepairLine> = paths::block_on(client::get(&socket, &path))?;
                if json { out::print_json(&lines) } else { out::print(&history(&lines)) }
            }
        }
    }
}

fn pause(volume: &str, paused: bool) -> Result<()> {
    let socket = paths::socket_of(volume)?;
    let wanted = Pause { paused };
    let _done: Done = paths::block_on(client::post(&socket, "/repair/pause", &wanted))?;
    Ok(())
}

fn stripe_number(text: &str) -> std::result::Result<u64, String> {
    let digits = text.len() == 16;
    let number = u64::from_str_radix(text, 16).ok().filter(|_| digits);
    number
        .ok_or_else(|| "a stripe is 16 hexadecimal digits, as `ironfs info FILE` shows them".into())
}

fn history(lines: &[RepairLine]) -> String {
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
    if text.is_empty() {
        text.push_str("nothing was repaired yet\n");
    }
    text
}

/// Prints a report; stripes that could not be repaired make the command fail.
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
    if report.failures.is_empty() {
        return Ok(());
    }
    Err(Error::unavailable(format!(
        "{} stripes are not at full margin; add or bring back disks and run it again",
        report.failures.len()
    )))
}
