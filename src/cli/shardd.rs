//! `shardd` (hidden) and `ironfs-shardd`: serves the disks of this machine to mounts elsewhere.

use super::{paths, serve};
use crate::config::node::NodeConfig;
use crate::error::{Error, Result};
use crate::shardd::daemon;
use clap::Parser;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use tracing::level_filters::LevelFilter;

/// Serve disks to mounts on other machines, over QUIC with mutual TLS.
#[derive(Debug, Parser)]
#[command(name = "ironfs-shardd", version)]
#[command(
    after_help = "Examples:\n  ironfs-shardd --config /etc/ironfs/shardd.toml\n  ironfs-shardd --disk /srv/d0 /srv/d1 --identity /etc/ironfs/identity --zone attic\n\nSIGTERM ends it when the requests under way are done; SIGHUP has it read its identity anew."
)]
pub(super) struct Shardd {
    /// Configuration of the node
    #[arg(long, value_name = "FILE", conflicts_with_all = ["listen", "disks", "identity", "zone", "rack"])]
    config: Option<PathBuf>,
    /// UDP address to listen on [default: [::]:7440]
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Directories to serve, one for each disk
    #[arg(long = "disk", value_name = "DIR", num_args = 1.., required_unless_present = "config")]
    disks: Vec<PathBuf>,
    /// Directory with certificate and key, as `ironfs ca issue --role node` has made it
    #[arg(long, value_name = "DIR", required_unless_present = "config")]
    identity: Option<PathBuf>,
    /// The room or site that this machine is in
    #[arg(long, default_value = "")]
    zone: String,
    /// The rack that this machine is in
    #[arg(long, default_value = "")]
    rack: String,
    /// End with the process that started this one; say "ready ADDRESS" on stdout
    #[arg(long, hide = true)]
    attached: bool,
}

impl Shardd {
    pub(super) fn try_parse_standalone(
        arguments: impl IntoIterator<Item = OsString>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments)
    }

    pub(super) fn run(self) -> Result<()> {
        // Only how `ps` shows the process: nothing depends on it.
        rustix::thread::set_name(c"ironfs-shardd").unwrap_or_default();
        let attached = self.attached;
        serve::start_logging(if attached { LevelFilter::WARN } else { LevelFilter::INFO });
        if attached {
            let signal = Some(rustix::process::Signal::TERM);
            rustix::process::set_parent_process_death_signal(signal)
                .map_err(|error| Error::from_io("follow the parent", error.into()))?;
        }
        let config = self.node_config()?;
        daemon::serve(&config, |address| {
            if attached {
                let mut stdout = std::io::stdout().lock();
                // Who started this one may have gone: then it ends too.
                drop(writeln!(stdout, "ready {address}").and_then(|()| stdout.flush()));
            } else {
                tracing::info!("ready at {address}");
            }
        })
    }

    fn node_config(self) -> Result<NodeConfig> {
        if let Some(path) = &self.config {
            let text = std::fs::read_to_string(path).map_err(|error| {
                Error::refused(format!("read the configuration {}: {error}", path.display()))
            })?;
            let config = NodeConfig::parse(&text);
            return config.map_err(|error| error.while_doing(path.display().to_string()));
        }
        let disks = self.disks.iter().map(|disk| paths::absolute(disk)).collect::<Result<_>>()?;
        let identity = paths::absolute(&self.identity.unwrap_or_default())?;
        let mut config = NodeConfig::new(disks, identity);
        config.listen = self.listen.unwrap_or(config.listen);
        (config.zone, config.rack) = (self.zone, self.rack);
        config.validate()?;
        Ok(config)
    }
}
