//! The command line: one file for each subcommand, flags defined once. Reads the environment, which nothing below
//! does, and decides the exit code: 0 done, 1 failed, 2 wrong use or refused input, 3 not safe (`what-if`).

use crate::error::{Error, ErrorKind};
use clap::{Parser, Subcommand};
use std::process::ExitCode;

pub mod out;

mod ca;
mod class;
mod completions;
mod disk;
mod format;
mod fsck;
mod helper;
mod info;
mod jobs;
mod mount;
mod node;
mod nodes;
mod paths;
mod repair;
mod scan;
mod scrub;
mod serve;
mod shardd;
mod status;
mod sync;
mod up;
mod what_if;

#[cfg(test)]
mod tests;

/// Exit code of a failure.
const FAILED: u8 = 1;
/// Exit code of wrong use or refused input.
const REFUSED: u8 = 2;
/// Exit code of `what-if` when the answer is no.
const UNSAFE: u8 = 3;

/// A POSIX file system whose file data is Reed-Solomon coded.
#[derive(Debug, Parser)]
#[command(name = "ironfs", version, propagate_version = true, disable_help_subcommand = true)]
#[command(
    after_help = "Try it:\n  ironfs up /mnt/iron\n\nExit codes: 0 done, 1 failed, 2 wrong use or refused input, 3 not safe (what-if)"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Format(format::Format),
    Mount(mount::Mount),
    Umount(mount::Umount),
    Status(status::StatusCommand),
    Df(status::Df),
    Info(info::Info),
    #[command(subcommand)]
    Class(class::ClassCommand),
    #[command(subcommand)]
    Disk(disk::DiskCommand),
    #[command(subcommand)]
    Node(node::NodeCommand),
    #[command(subcommand)]
    Repair(repair::RepairCommand),
    #[command(subcommand)]
    Scrub(scrub::ScrubCommand),
    Jobs(jobs::JobsCommand),
    #[command(subcommand)]
    Ca(ca::CaCommand),
    WhatIf(what_if::WhatIfCommand),
    Scan(scan::Scan),
    Fsck(fsck::Fsck),
    Sync(sync::Sync),
    Completions(completions::Completions),
    #[command(hide = true)]
    Man(completions::Man),
    #[command(hide = true)]
    Serve(serve::Serve),
    #[command(hide = true)]
    Shardd(shardd::Shardd),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if let Some(name) = arguments.first().and_then(|name| helper::is_helper(name)) {
        return helper::main(name, arguments.get(1..).unwrap_or_default());
    }
    match Cli::try_parse_from(&arguments) {
        Ok(cli) => end(run(cli.command)),
        Err(error) => usage(&error),
    }
}

/// Runs `ironfs-mountd`: one mount in the foreground.
pub fn mountd_main() -> ExitCode {
    match serve::Serve::try_parse_standalone(std::env::args_os()) {
        Ok(serve) => end(serve.run().map(|()| ExitCode::SUCCESS)),
        Err(error) => usage(&error),
    }
}

/// Runs `ironfs-shardd`: the disks of this machine.
pub fn shardd_main() -> ExitCode {
    match shardd::Shardd::try_parse_standalone(std::env::args_os()) {
        Ok(shardd) => end(shardd.run().map(|()| ExitCode::SUCCESS)),
        Err(error) => usage(&error),
    }
}

fn run(command: Command) -> Result<ExitCode, Error> {
    let done = match command {
        Command::WhatIf(what_if) => {
            return what_if.run().map(|safe| ExitCode::from(if safe { 0 } else { UNSAFE }));
        }
        Command::Up(up) => up.run(),
        Command::Format(format) => format.run(),
        Command::Mount(mount) => mount.run(),
        Command::Umount(umount) => umount.run(),
        Command::Status(status) => status.run(),
        Command::Df(df) => df.run(),
        Command::Info(info) => info.run(),
        Command::Class(class) => class.run(),
        Command::Disk(disk) => disk.run(),
        Command::Node(node) => node.run(),
        Command::Repair(repair) => repair.run(),
        Command::Scrub(scrub) => scrub.run(),
        Command::Jobs(jobs) => jobs.run(),
        Command::Scan(scan) => scan.run(),
        Command::Fsck(fsck) => fsck.run(),
        Command::Sync(sync) => sync.run(),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
        Command::Serve(serve) => serve.run(),
        Command::Ca(ca) => ca.run(),
        Command::Shardd(shardd) => shardd.run(),
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// Whether a path leads to a mount whose server is gone, or was just going when it was asked.
fn is_dead_mount(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

/// Help and version go to stdout with code 0, wrong use to stderr with code 2.
fn usage(error: &clap::Error) -> ExitCode {
    // A reader that went away does not change the code.
    drop(error.print());
    if error.use_stderr() { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS }
}

fn end(result: Result<ExitCode, Error>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            out::complain(&error);
            let refused = matches!(error.kind(), ErrorKind::Refused);
            ExitCode::from(if refused { REFUSED } else { FAILED })
        }
    }
}
