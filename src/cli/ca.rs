//! `ca`: the authority of a volume over a network: makes it, issues identities, lists them, takes them back.

use super::{format, out};
use crate::config::validate_holder;
use crate::error::{Error, Result};
use crate::identity::{AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, REVOKED_FILE, write_secret};
use crate::net::authority::{self, Issued, Revoked, Role, SERIAL_BYTES, Wanted};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the authority lies unless another place is named.
const CA_DIR: &str = "/etc/ironfs/ca";
/// Which certificates were issued, in the authority's directory.
const LIST_FILE: &str = "issued.json";
/// Where identities are put, below it.
const ISSUED_DIR: &str = "issued";
/// Form of the list.
const LIST_VERSION: u32 = 1;
const DAY_SECONDS: i64 = 86_400;

/// Make the authority of a volume over a network, and the identities that it signs
#[derive(Debug, Subcommand)]
#[command(
    after_help = "Examples:\n  ironfs ca init\n  ironfs ca issue --role node --name alpha\n  ironfs ca issue --role client --name desktop\n  ironfs ca list\n  ironfs ca revoke alpha\n\nKeep the authority's directory where no node and no client can read it."
)]
pub(super) enum CaCommand {
    /// Make an authority; keep its directory safe: who has it can join any machine
    #[command(after_help = "Examples:\n  ironfs ca init\n  ironfs ca init --ca /media/stick/ca")]
    Init {
        #[command(flatten)]
        place: Place,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make an identity: a directory with certificate and key, to be copied to one machine
    #[command(
        after_help = "Examples:\n  ironfs ca issue --role node --name alpha\n  ironfs ca issue --role client --name desktop --out ./desktop --days 365"
    )]
    Issue {
        #[command(flatten)]
        place: Place,
        /// What the holder may do: node (serve disks), client (mount), admin (look)
        #[arg(long)]
        role: String,
        /// Name of the holder: a-z, 0-9 and -
        #[arg(long)]
        name: String,
        /// Where to put it [default: issued/NAME in the authority's directory]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// How long it holds
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=7300))]
        days: u32,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what was issued
    #[command(after_help = "Examples:\n  ironfs ca list\n  ironfs ca list --json")]
    List {
        #[command(flatten)]
        place: Place,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Take back all certificates of a holder; tells which file has to be copied where
    #[command(after_help = "Example:\n  ironfs ca revoke alpha")]
    Revoke {
        #[command(flatten)]
        place: Place,
        /// Name of the holder
        name: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What `init` has made.
#[derive(Serialize)]
struct Made<'a> {
    authority: &'a Path,
}

/// What `issue` has made.
#[derive(Serialize)]
struct Given<'a> {
    name: &'a str,
    role: String,
    directory: &'a Path,
}

/// What `revoke` has taken back, and the file that says so.
#[derive(Serialize)]
struct Taken<'a> {
    name: &'a str,
    certificates: u64,
    file: &'a Path,
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// Directory of the authority
    #[arg(long = "ca", value_name = "DIR", default_value = CA_DIR)]
    directory: PathBuf,
}

/// The list of certificates.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    version: u32,
    /// Number of the latest list of revoked certificates.
    revocations: u64,
    certificates: Vec<Certificate>,
}

/// A certificate that was issued; times in seconds since 1970.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Certificate {
    name: String,
    role: String,
    serial: String,
    issued: i64,
    expires: i64,
    revoked: Option<i64>,
}

impl CaCommand {
    pub(super) fn run(self) -> Result<()> {
        match self {
            Self::Init { place, json } => place.init(json),
            Self::Issue { place, role, name, out, days, json } => {
                let out = out.unwrap_or_else(|| place.directory.join(ISSUED_DIR).join(&name));
                let role = role.parse()?;
                place.issue(role, &name, &out, days)?;
                if json {
                    let role = role.to_string();
                    return out::print_json(&Given { name: &name, role, directory: &out });
                }
                out::print(&format!(
                    "{} has the identity of {role} {name}: copy it to that machine, and keep it secret\n",
                    out.display()
                ))
            }
            Self::List { place, json } => place.show(json),
            Self::Revoke { place, name, json } => place.revoke(&name, json),
        }
    }
}

/// Makes an authority in `directory`.
pub(super) fn init(directory: &Path) -> Result<()> {
    Place { directory: directory.to_path_buf() }.make()
}

/// Makes the identity of `name` in `out`, signed by the authority in `directory`.
pub(super) fn issue(directory: &Path, role: Role, name: &str, out: &Path) -> Result<()> {
    Place { directory: directory.to_path_buf() }.issue(role, name, out, 3650)
}

impl Place {
    fn init(&self, json: bool) -> Result<()> {
        self.make()?;
        if json {
            return out::print_json(&Made { authority: &self.directory });
        }
        out::print(&format!(
            "{} is the authority; next: ironfs ca issue --role node --name NAME for each machine with disks, and \
             --role client for each one that mounts\n",
            self.directory.display()
        ))
    }

    fn make(&self) -> Result<()> {
        let shown = self.directory.display();
        if self.directory.join(KEY_FILE).exists() {
            return Err(Error::refused(format!("{shown} has an authority already")));
        }
        make_dir(&self.directory)?;
        let made = authority::create(&shown.to_string(), random()?, format::now().seconds)?;
        write_secret(&self.directory.join(AUTHORITY_FILE), &made.certificate)?;
        let list = List { version: LIST_VERSION, revocations: 0, certificates: Vec::new() };
        self.write_list(&list)?;
        // Last: an authority without its key is made again.
        write_secret(&self.directory.join(KEY_FILE), &made.key)
    }

    fn issue(&self, role: Role, name: &str, out: &Path, days: u32) -> Result<()> {
        validate_holder(name)?;
        let (authority, mut list) = (self.authority()?, self.list()?);
        if out.join(KEY_FILE).exists() {
            return Err(Error::refused(format!("{} has an identity already", out.display())));
        }
        let (serial, now) = (random()?, format::now().seconds);
        let expires = now + i64::from(days) * DAY_SECONDS;
        // Clocks differ by a little.
        let valid = now - DAY_SECONDS..expires;
        let wanted = Wanted { holder: name.to_owned(), role, serial, valid };
        let issued = authority::issue(&authority, &wanted)?;
        // Noted first: what is not listed cannot be revoked.
        list.certificates.push(Certificate {
            name: name.to_owned(),
            role: role.to_string(),
            serial: hex(&serial),
            issued: now,
            expires,
            revoked: None,
        });
        self.write_list(&list)?;
        make_dir(out)?;
        write_secret(&out.join(AUTHORITY_FILE), &authority.certificate)?;
        write_secret(&out.join(CERTIFICATE_FILE), &issued.certificate)?;
        if let Ok(revoked) = std::fs::read_to_string(self.directory.join(REVOKED_FILE)) {
            write_secret(&out.join(REVOKED_FILE), &revoked)?;
        }
        write_secret(&out.join(KEY_FILE), &issued.key)
    }

    fn show(&self, json: bool) -> Result<()> {
        let (list, now) = (self.list()?, format::now().seconds);
        if json {
            return out::print_json(&list.certificates);
        }
        let state = |one: &Certificate| match one.revoked {
            Some(_) => "revoked".to_owned(),
            None if one.expires <= now => "expired".to_owned(),
            None => format!("{} days left", (one.expires - now) / DAY_SECONDS),
        };
        let line = |one: &Certificate| {
            format!("{:<20} {:<7} {:<34} {}\n", one.name, one.role, one.serial, state(one))
        };
        let lines: String = list.certificates.iter().map(line).collect();
        out::print(&format!("{:<20} {:<7} {:<34} STATE\n{lines}", "NAME", "ROLE", "SERIAL"))
    }

    fn revoke(&self, name: &str, json: bool) -> Result<()> {
        let (authority, mut list) = (self.authority()?, self.list()?);
        let now = format::now().seconds;
        let held = |one: &&mut Certificate| one.name == name && one.revoked.is_none();
        let mut count = 0;
        for one in list.certificates.iter_mut().filter(held) {
            one.revoked = Some(now);
            count += 1;
        }
        if count == 0 {
            return Err(Error::refused(format!(
                "{name} holds no certificate: `ironfs ca list` shows who does"
            )));
        }
        list.revocations += 1;
        let revoked = list.certificates.iter().filter_map(|one| {
            let time = one.revoked?;
            Some(unhex(&one.serial).map(|serial| Revoked { serial, time }))
        });
        let revoked = revoked.collect::<Result<Vec<_>>>()?;
        let text = authority::revocations(&authority, &revoked, list.revocations, now)?;
        self.write_list(&list)?;
        let path = self.directory.join(REVOKED_FILE);
        write_secret(&path, &text)?;
        if json {
            return out::print_json(&Taken { name, certificates: count, file: &path });
        }
        out::print(&format!(
            "{name} is revoked. Copy {} into the identity directory of every node and client, then send SIGHUP to each \
             ironfs-shardd: from then on {name} is turned away\n",
            path.display()
        ))
    }

    fn authority(&self) -> Result<Issued> {
        Ok(Issued { certificate: self.read(AUTHORITY_FILE)?, key: self.read(KEY_FILE)? })
    }

    fn list(&self) -> Result<List> {
        let wrong = |what: String| {
            Error::refused(format!("{}: {what}", self.directory.join(LIST_FILE).display()))
        };
        let list: List = serde_json::from_str(&self.read(LIST_FILE)?)
            .map_err(|error| wrong(error.to_string()))?;
        if list.version != LIST_VERSION {
            return Err(wrong(format!("version {} is newer than this program", list.version)));
        }
        Ok(list)
    }

    fn write_list(&self, list: &List) -> Result<()> {
        let text = serde_json::to_string_pretty(list)
            .map_err(|error| Error::internal(format!("write the list: {error}")))?;
        write_secret(&self.directory.join(LIST_FILE), &text)
    }

    fn read(&self, name: &str) -> Result<String> {
        std::fs::read_to_string(self.directory.join(name)).map_err(|error| {
            let shown = self.directory.display();
            Error::refused(format!(
                "{shown} has no authority ({name}: {error}); `ironfs ca init` makes one"
            ))
        })
    }
}

fn make_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| Error::from_io(format!("make {}", path.display()), error))
}

fn random() -> Result<[u8; SERIAL_BYTES]> {
    let mut serial = [0; SERIAL_BYTES];
    getrandom::fill(&mut serial)
        .map_err(|error| Error::internal(format!("draw a serial number: {error}")))?;
    Ok(authority::positive(serial))
}

fn hex(serial: &[u8; SERIAL_BYTES]) -> String {
    serial.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Result<[u8; SERIAL_BYTES]> {
    let number = u128::from_str_radix(text, 16);
    let number =
        number.map_err(|_other| Error::refused(format!("{text:?} is no serial number")))?;
    let mut serial = number.to_le_bytes();
    serial.reverse();
    Ok(serial)
}
