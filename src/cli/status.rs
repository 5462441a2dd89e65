//! `status` and `df`.

use super::{out, paths};
use crate::admin::client;
use crate::error::Result;
use crate::volume::status::{ClassSpace, MetadataStatus, Status};
use clap::Args;

#[cfg(test)]
mod tests;

/// Show what state a volume is in, what can still be lost, and what to do
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ironfs status media\n  ironfs status /mnt/media --json")]
pub(super) struct StatusCommand {
    /// Name of the volume, path of its configuration, or a path inside the mount
    volume: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl StatusCommand {
    pub(super) fn run(self) -> Result<()> {
        let socket = paths::socket_of(&self.volume)?;
        let status: Status = paths::block_on(client::get(&socket, "/status"))?;
        if self.json { out::print_json(&status) } else { out::print(&text(&status)) }
    }
}

fn text(status: &Status) -> String {
    let mut lines = vec![
        ("volume", format!("{} ({})", status.name, status.volume)),
        ("state", status.state.clone()),
    ];
    lines.extend(status.problems.iter().map(|problem| ("problem", problem.clone())));
    lines.extend(status.actions.iter().map(|action| ("action", action.clone())));
    lines.extend(status.mount.as_ref().map(|mount| {
        ("mounted", format!("{mount}, served by pid {}", status.pid.unwrap_or_default()))
    }));
    let mut dirty = out::size(status.dirty_bytes);
    if let Some(metadata) = &status.metadata {
        lines.extend(metadata_lines(metadata));
        let hot = out::size(metadata.hot_bytes);
        dirty.push_str(&format!(", and {hot} of small data in the log"));
    }
    lines.push(("dirty", dirty));
    let log = &status.log;
    let disks: Vec<String> = log.disks.iter().map(ToString::to_string).collect();
    let place = match disks.as_slice() {
        [] => "on no disk that is in use".to_owned(),
        disks => format!("on disks {}", disks.join(" ")),
    };
    lines.push(("log", format!("applied {}, durable {}, {place}", log.applied, log.durable)));
    let mut text: String =
        lines.iter().map(|(name, value)| format!("{name:>9}: {value}\n")).collect();
    text.push('\n');
    text.push_str(&disks_table(status));
    text
}

fn metadata_lines(metadata: &MetadataStatus) -> Vec<(&'static str, String)> {
    let margins: Vec<String> = metadata
        .stripes_by_margin
        .iter()
        .map(|(margin, stripes)| format!("{stripes} with margin {margin}"))
        .collect();
    let stripes = if margins.is_empty() { "none yet".to_owned() } else { margins.join(", ") };
    let mut lines = vec![
        ("class", metadata.class.clone()),
        ("survives", metadata.survives.clone()),
        ("stripes", stripes),
    ];
    let repair = &metadata.repair;
    if repair.waiting + repair.noted > 0 || repair.paused {
        let held = if repair.paused { ", and repair is held" } else { "" };
        let left = repair.full_margin_seconds.map(out::span);
        let left = left.map_or_else(String::new, |left| format!(", full margin in {left}"));
        let text = format!("{} stripes wait, {} noted{left}{held}", repair.waiting, repair.noted);
        lines.push(("repair", text));
    }
    let space = &metadata.space;
    let room = format!(
        "{} used of {}, {} available",
        out::size(space.used_bytes),
        out::size(space.total_bytes),
        out::size(space.available_bytes)
    );
    lines.extend([("space", room), ("inodes", metadata.inodes.to_string())]);
    lines
}

pub(super) fn disks_table(status: &Status) -> String {
    let header = ["DISK", "STATE", "SIZE", "FREE", "ERRORS", "MEDIAN", "P99", "PATH"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    let labelled = status.disks.iter().any(|disk| !disk.labels.is_empty());
    rows.iter_mut().filter(|_header| labelled).for_each(|row| row.insert(5, "LABELS".to_owned()));
    for disk in &status.disks {
        let reason = disk.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        rows.push(vec![
            format!("{}{}", disk.id, if disk.log { " log" } else { "" }),
            disk.state.clone(),
            out::size(disk.total_bytes),
            out::size(disk.free_bytes),
            disk.errors.to_string(),
            milliseconds(disk.latency_median_ms),
            milliseconds(disk.latency_p99_ms),
            format!("{}{reason}", disk.path),
        ]);
        let row = rows.last_mut().filter(|_row| labelled);
        row.into_iter().for_each(|row| row.insert(5, disk.labels.to_string()));
    }
    out::table(&rows)
}

/// How long the jobs of a disk take.
fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2} ms"))
}

/// Show space by class: what can be written, after redundancy and reserve
///
/// Classes share the disks: what one of them takes is missing to all, so USED is what the volume takes.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  ironfs df media\n  ironfs df /mnt/media --json")]
pub(super) struct Df {
    /// Name of the volume, path of its configuration, or a path inside the mount
    volume: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Df {
    pub(super) fn run(self) -> Result<()> {
        let socket = paths::socket_of(&self.volume)?;
        let spaces: Vec<ClassSpace> = paths::block_on(client::get(&socket, "/df"))?;
        if self.json {
            return out::print_json(&spaces);
        }
        let header = ["CLASS", "SIZE", "USED", "AVAIL", "RAW SIZE", "RAW FREE", "RAW RESERVED"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        for space in &spaces {
            let sizes = [
                space.total_bytes,
                space.used_bytes,
                space.available_bytes,
                space.raw_total_bytes,
                space.raw_free_bytes,
                space.raw_reserved_bytes,
            ];
            let cells = sizes.into_iter().map(out::size);
            rows.push([space.class.clone()].into_iter().chain(cells).collect());
        }
        out::print(&out::table(&rows))
    }
}
