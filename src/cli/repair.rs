//! `repair run`: one sweep now.

use super::{out, paths};
use crate::admin::client;
use crate::error::{Error, Result};
use crate::volume::status::RepairReport;
use clap::Subcommand;

/// Rebuild shards that are missing or bad
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  ironfs repair run media")]
pub(super) enum RepairCommand {
    /// Look at every stripe once and rebuild what is missing
    Run {
        /// Name of the volume, path of its configuration, or a path inside the mount
        volume: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

impl RepairCommand {
    pub(super) fn run(self) -> Result<()> {
        let Self::Run { volume, json } = self;
        let socket = paths::socket_of(&volume)?;
        let report: RepairReport = paths::block_on(client::post(&socket, "/repair", &()))?;
        show(&report, json)
    }
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
