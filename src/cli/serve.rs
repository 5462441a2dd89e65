//! `serve` (hidden) and `ironfs-mountd`: serves one mount in this process.

use super::paths;
use crate::error::{Error, Result};
use crate::mountd::daemon::{self, ServeRequest};
use crate::mountd::options::MountOptions;
use clap::Parser;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use tracing::level_filters::LevelFilter;

/// Serve one mount of a volume in the foreground.
#[derive(Debug, Parser)]
#[command(name = "ironfs-mountd", version)]
pub(super) struct Serve {
    /// Name of the volume, or path of its configuration
    volume: String,
    /// Mount point
    directory: PathBuf,
    /// Mount options, separated by commas
    #[arg(short = 'o', value_name = "OPTIONS", default_value = "")]
    options: String,
    /// Detach from the terminal; say "ready" or the reason of a failure on stdout
    #[arg(long, hide = true)]
    detached: bool,
}

impl Serve {
    pub(super) fn try_parse_standalone(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments)
    }

    pub(super) fn run(self) -> Result<()> {
        // Only how `ps` shows the process: nothing depends on it.
        rustix::thread::set_name(c"ironfs-mountd").unwrap_or_default();
        start_logging(LevelFilter::INFO);
        let served = self.serve();
        if self.detached
            && let Err(error) = &served
        {
            report(&format!("error {error}"));
        }
        served
    }

    fn serve(&self) -> Result<()> {
        let config = paths::read_config(&self.volume)?;
        if self.detached {
            rustix::process::setsid()
                .map_err(|error| Error::from_io("leave the terminal", error.into()))?;
            rustix::process::chdir("/")
                .map_err(|error| Error::from_io("change to /", error.into()))?;
        }
        let request = ServeRequest {
            socket: paths::socket(&config.name),
            config,
            directory: paths::absolute(&self.directory)?,
            options: MountOptions::parse(&self.options, true)?,
        };
        let detached = self.detached;
        daemon::serve(request, move |ready| {
            if detached {
                report("ready");
            } else {
                tracing::info!("ready; survives {}", ready.survives);
            }
        })
    }
}

/// One line for the process that started this one. If it went away, the mount goes on.
fn report(line: &str) {
    let mut stdout = std::io::stdout().lock();
    drop(writeln!(stdout, "{}", line.replace('\n', " ")).and_then(|()| stdout.flush()));
}

/// Log lines go to stderr; `RUST_LOG` chooses what is shown instead of `level` and what is worse.
pub(super) fn start_logging(level: LevelFilter) {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(level.into())
        .from_env_lossy();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false);
    // A second call in one process (tests) keeps the first.
    drop(subscriber.try_init());
}
