//! `mount.ironfs` and `mount.fuse.ironfs`: what mount(8) calls for `mount -t ironfs` and for fstab; and
//! `umount.fuse.ironfs`, which umount(8) calls, so that it returns when everything is on the disks.

use super::mount::{self, Unmount};
use super::out;
use crate::error::{Error, Result};
use crate::mountd::options::MountOptions;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Exit codes of mount(8).
const USAGE: u8 = 1;
const MOUNT_FAILED: u8 = 32;

/// The names under which mount(8) and umount(8) call this program.
const HELPERS: [&str; 4] =
    ["mount.ironfs", "mount.fuse.ironfs", "umount.ironfs", "umount.fuse.ironfs"];

/// The name, if this program was called as the mount helper.
pub(super) fn is_helper(argument: &OsStr) -> Option<&str> {
    let name = Path::new(argument).file_name()?.to_str()?;
    HELPERS.contains(&name).then_some(name)
}

/// Runs the helper: `mount.ironfs SOURCE DIR [-sfnv] [-N NS] [-t TYPE] [-o OPTIONS]`.
pub(super) fn main(name: &str, arguments: &[OsString]) -> ExitCode {
    let parsed = if name.starts_with("umount") {
        parse_umount(arguments).map(|(directory, how)| {
            Box::new(move || mount::unmount(&directory, how)) as Box<dyn FnOnce() -> Result<()>>
        })
    } else {
        parse(arguments).map(|call| Box::new(move || call.run()) as _)
    };
    match parsed {
        Ok(run) => match run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                out::tell(&format!("{name}: {error}"));
                ExitCode::from(MOUNT_FAILED)
            }
        },
        Err(error) => {
            out::tell(&format!("{name}: {error}"));
            ExitCode::from(USAGE)
        }
    }
}

/// A call of mount(8).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Call {
    source: String,
    directory: PathBuf,
    options: String,
    fake: bool,
    sloppy: bool,
}

impl Call {
    fn run(&self) -> Result<()> {
        MountOptions::parse(&self.options, self.sloppy)?;
        if self.fake {
            return super::paths::read_config(&self.source).map(drop);
        }
        let text = if self.sloppy { known_options(&self.options) } else { self.options.clone() };
        mount::mount(&self.source, &self.directory, &text)
    }
}

/// Without the words that only `-s` lets through.
fn known_options(text: &str) -> String {
    let known = |word: &&str| MountOptions::parse(word, false).is_ok();
    text.split(',').filter(known).collect::<Vec<_>>().join(",")
}

fn parse(arguments: &[OsString]) -> Result<Call> {
    let mut call = Call::default();
    let mut places = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        match text.as_ref() {
            "-o" => {
                let options = words.next().ok_or_else(|| Error::refused("-o needs options"))?;
                if !call.options.is_empty() {
                    call.options.push(',');
                }
                call.options.push_str(&options.to_string_lossy());
            }
            "-t" | "-N" => {
                words.next().ok_or_else(|| Error::refused(format!("{text} needs a value")))?;
            }
            _ => match text.strip_prefix('-') {
                Some(letters) if !letters.is_empty() => {
                    for letter in letters.chars() {
                        match letter {
                            's' => call.sloppy = true,
                            'f' => call.fake = true,
                            'n' | 'v' => {}
                            _ => return Err(Error::refused(format!("unknown option -{letter}"))),
                        }
                    }
                }
                Some(_) | None => places.push(word.clone()),
            },
        }
    }
    let [source, directory] = places.as_slice() else {
        return Err(Error::refused("usage: mount.ironfs NAME DIR [-sfnv] [-o OPTIONS]"));
    };
    call.source = source.to_string_lossy().into_owned();
    call.directory = PathBuf::from(directory);
    Ok(call)
}

/// `umount.fuse.ironfs DIR [-flnrv] [-N NS] [-t TYPE]`.
fn parse_umount(arguments: &[OsString]) -> Result<(PathBuf, Unmount)> {
    let usage = || Error::refused("usage: umount.fuse.ironfs DIR [-flnrv] [-t TYPE]");
    let (mut directory, mut lazy) = (None, false);
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        let text = word.to_string_lossy();
        match text.strip_prefix('-') {
            Some("t" | "N") => drop(words.next().ok_or_else(usage)?),
            Some(letters) if letters.chars().all(|letter| "flnrv".contains(letter)) => {
                lazy |= letters.contains('l');
            }
            Some(_) => return Err(usage()),
            None if directory.is_none() => directory = Some(PathBuf::from(word)),
            None => return Err(usage()),
        }
    }
    Ok((directory.ok_or_else(usage)?, Unmount { lazy, wait: !lazy }))
}

#[cfg(test)]
mod tests {
    use super::{Call, is_helper, known_options, parse, parse_umount};
    use std::ffi::{OsStr, OsString};
    use std::path::PathBuf;

    fn check(line: &str, expected: Option<Call>) {
        let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        assert_eq!(parse(&words).ok(), expected, "{line}");
    }

    #[test]
    fn calls_of_mount() {
        let call = Call {
            source: "media".to_owned(),
            directory: PathBuf::from("/mnt"),
            options: "rw,noatime".to_owned(),
            ..Call::default()
        };
        check("media /mnt -o rw,noatime", Some(call.clone()));
        check("media /mnt -n -v -t fuse.ironfs -o rw -o noatime", Some(call.clone()));
        check("media /mnt -sf -o rw,noatime", Some(Call { sloppy: true, fake: true, ..call }));
        check("media", None);
        check("media /mnt -x", None);
        check("media /mnt -o", None);
    }

    #[test]
    fn calls_of_umount() {
        let check = |line: &str, expected: Option<(&str, bool)>| {
            let words: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
            let parsed = parse_umount(&words).ok();
            let found = parsed.as_ref().map(|(place, how)| (place.to_str().unwrap(), how.lazy));
            assert_eq!(found, expected, "{line}");
        };
        check("/mnt", Some(("/mnt", false)));
        check("/mnt -n -v -t fuse.ironfs", Some(("/mnt", false)));
        check("/mnt -fl", Some(("/mnt", true)));
        check("/mnt /other", None);
        check("/mnt -x", None);
        check("", None);
    }

    #[test]
    fn names_and_sloppy_options() {
        assert_eq!(is_helper(OsStr::new("/sbin/mount.fuse.ironfs")), Some("mount.fuse.ironfs"));
        assert_eq!(is_helper(OsStr::new("/sbin/umount.ironfs")), Some("umount.ironfs"));
        assert_eq!(is_helper(OsStr::new("/usr/bin/ironfs")), None);
        assert_eq!(known_options("ro,sparkle,noatime"), "ro,noatime");
    }
}
