//! `info`: explains one file.

use super::{out, paths};
use crate::admin::client;
use crate::error::{Error, Result};
use crate::volume::info::{FileInfo, StripeInfo};
use clap::Args;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

#[cfg(test)]
mod tests;

/// Explain one file: size, class, chunks, stripes, and which disk holds which shard
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  ironfs info /mnt/media/film.mkv\n  ironfs info --json /mnt/media/film.mkv"
)]
pub(super) struct Info {
    /// File or directory inside a mount
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Info {
    pub(super) fn run(self) -> Result<()> {
        let file = self.file.display();
        let meta = std::fs::symlink_metadata(&self.file)
            .map_err(|error| Error::refused(format!("{file}: {error}")))?;
        let mount = paths::mount_of(&self.file)?
            .ok_or_else(|| Error::refused(format!("{file} is not inside an ironfs mount")))?;
        let path = format!("/info?ino={}", meta.ino());
        let info: FileInfo = paths::block_on(client::get(&paths::socket(&mount.source), &path))?;
        if self.json { out::print_json(&info) } else { out::print(&text(&info)) }
    }
}

fn text(info: &FileInfo) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        writeln!(text, "{name:>10}: {value}").expect("a string takes everything");
    };
    line("inode", format!("{} ({})", info.ino, info.kind));
    line("class", info.class.clone());
    line("size", format!("{} ({} bytes)", out::size(info.size), info.size));
    line("allocated", out::size(info.allocated_bytes));
    for (name, bytes) in [
        ("reserved", info.reserved_bytes),
        ("inline", info.inline_bytes),
        ("hot", info.hot_bytes),
        ("dirty", info.dirty_bytes),
    ] {
        if bytes > 0 {
            line(name, out::size(bytes));
        }
    }
    if let Some(margin) = info.margin {
        let of = if info.truncated { " (of the stripes below)" } else { "" };
        line("margin", format!("{}{of}", worst(margin)));
    }
    for chunk in &info.chunks {
        let hot = out::size(chunk.hot_bytes);
        line("chunk", format!("{}: {} segments, {hot} hot", chunk.chunk, chunk.segments));
    }
    for stripe in &info.stripes {
        text.push_str(&stripe_text(stripe));
    }
    if info.truncated {
        text.push_str("(more chunks and stripes are not shown)\n");
    }
    text
}

/// What the least margin of its stripes means for a file.
fn worst(margin: i64) -> String {
    match margin {
        ..=-2 => {
            format!("its worst stripe cannot be read now: it needs {} more good shards", -margin)
        }
        -1 => "its worst stripe cannot be read now: it needs 1 more good shard".into(),
        0 => "no more shards of its worst stripe may be lost".into(),
        1 => "1 more shard of its worst stripe may be lost".into(),
        2.. => format!("{margin} more shards of its worst stripe may be lost"),
    }
}

fn stripe_text(stripe: &StripeInfo) -> String {
    let payload = out::size(stripe.payload_bytes);
    let mut rows = vec![vec![format!(
        "stripe {} ({}, {payload}, {})",
        stripe.stripe,
        stripe.class,
        match stripe.margin {
            ..0 => "cannot be read now".to_owned(),
            margin => format!("margin {margin}"),
        }
    )]];
    for shard in &stripe.shards {
        rows.push(vec![
            format!("    {} {}", shard.index, shard.role),
            shard.state.clone(),
            format!("disk {}", shard.disk),
            shard.path.clone(),
        ]);
    }
    let (head, shards) = rows.split_at(1);
    format!("{}{}", out::table(head), out::table(shards))
}
