//! `what-if`: what would become of the data without some disks.

use super::{out, paths};
use crate::admin::client;
use crate::error::{Error, Result};
use crate::volume::what_if::{NamedDisk, WhatIf, WhatIfReport};
use clap::Args;

/// Tell what would become of the data if disks were gone, and whether it is safe to unplug them
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ironfs what-if --lose disk:/srv/d3 media\n  ironfs what-if --lose disk:1,disk:2 --limit 100 media\n  ironfs what-if --lose zone:attic --json media\n\nExit codes: 0 safe, 1 failed, 2 wrong use or refused input, 3 not safe\n\nWhat is still dirty in memory is not counted: `ironfs sync` first. A rack is meant by its name alone, in whatever zone \
                  it is, and a node too."
)]
pub(super) struct WhatIfCommand {
    /// Disks that are thought away, all at once: disk:PATH, disk:NUMBER, zone:Z, rack:R, node:N
    #[arg(long, value_name = "WHAT", required = true, value_delimiter = ',')]
    lose: Vec<String>,
    /// Most files to list; the counts are complete
    #[arg(long, value_name = "FILES", default_value_t = 20)]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Name of the volume, path of its configuration, or a path inside the mount
    volume: String,
}

impl WhatIfCommand {
    /// Answers whether it is safe.
    pub(super) fn run(self) -> Result<bool> {
        let socket = paths::socket_of(&self.volume)?;
        let lose = self.lose.iter().map(|word| plain(word)).collect::<Result<Vec<_>>>()?;
        let question = WhatIf { lose, limit: self.limit };
        let report: WhatIfReport = paths::block_on(client::post(&socket, "/what-if", &question))?;
        if self.json {
            out::print_json(&report)?;
        } else {
            out::print(&text(&report))?;
        }
        Ok(report.safe)
    }
}

/// A path is made absolute here, where it means something.
fn plain(word: &str) -> Result<String> {
    match word.strip_prefix("disk:") {
        Some(disk) if disk.parse::<u32>().is_err() => {
            let path = std::path::absolute(disk)
                .map_err(|error| Error::from_io(format!("find the disk {disk}"), error))?;
            Ok(format!("disk:{}", path.display()))
        }
        Some(_) | None => Ok(word.to_owned()),
    }
}

fn text(report: &WhatIfReport) -> String {
    let disks = |disks: &[NamedDisk]| {
        let shown = disks.iter().map(|disk| format!("disk {} ({})", disk.id, disk.path));
        shown.collect::<Vec<_>>().join(", ")
    };
    let numbers = |disks: &[u32]| match disks {
        [] => "no disk".to_owned(),
        _ => format!("disks {}", disks.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")),
    };
    let mut text = format!("without {}:\n", disks(&report.lose));
    if !report.away.is_empty() {
        text += &format!("away already, and counted so: {}\n", disks(&report.away));
    }
    text += &format!("{}\n\n", report.verdict);
    let header = ["CLASS", "NEW DATA", "STRIPES", "DEGRADED", "LOST"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for (class, fate) in &report.classes {
        let part = |stripes: u64, bytes: u64| match stripes {
            0 => "0".to_owned(),
            _ => format!("{stripes} ({})", out::size(bytes)),
        };
        let new = match fate.writable {
            true => format!("margin {}", fate.new_margin),
            false => "cannot be written".to_owned(),
        };
        rows.push(vec![
            class.clone(),
            new,
            fate.stripes.to_string(),
            part(fate.degraded_stripes, fate.degraded_bytes),
            part(fate.lost_stripes, fate.lost_bytes),
        ]);
    }
    text += &out::table(&rows);
    let files = &report.files;
    text += &format!(
        "\nfiles: {} in all, {} degraded ({}), {} lost ({})\n",
        files.checked,
        files.degraded,
        out::size(files.degraded_bytes),
        files.lost,
        out::size(files.lost_bytes)
    );
    let (left, now) = (numbers(&report.log_left), numbers(&report.log_disks));
    text += &format!("metadata: left on {left}, now on {now}\n");
    if report.listed.is_empty() {
        return text;
    }
    let header = ["STATE", "BYTES", "PATH"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for file in &report.listed {
        rows.push(vec![file.state.clone(), out::size(file.bytes), file.path.clone()]);
    }
    text += &format!("\n{}", out::table(&rows));
    let more = (files.degraded + files.lost).saturating_sub(report.listed.len() as u64);
    if more > 0 {
        text += &format!("({more} more are not shown: --limit)\n");
    }
    text
}
