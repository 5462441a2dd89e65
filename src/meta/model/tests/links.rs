//! How many names a file may have, and how many directories lie in one.

use super::Bench;
use crate::error::Posix;
use crate::limits::LINKS_MAX;
use crate::meta::command::{Command, RenameMode};
use crate::types::{FileKind, Ino, ROOT_INO};

/// A bench with the directories 10 and 11, the file 12 and the directory 13 in the root; `ino` has so many links.
fn with_links(ino: u64, links: u32) -> Bench {
    let bench = Bench::new();
    for (name, ino, kind) in [
        ("a", 10, FileKind::Directory),
        ("b", 11, FileKind::Directory),
        ("f", 12, FileKind::File),
        ("d", 13, FileKind::Directory),
    ] {
        bench.create(1, name, ino, kind).unwrap();
    }
    // A million commands would take half a minute.
    bench.log.store().set_links(Ino(ino), links).unwrap();
    bench
}

fn link(bench: &Bench, name: &str) -> Result<(), Posix> {
    let (ino, parent, name) = (Ino(12), ROOT_INO, name.into());
    bench.apply(Command::Link { ino, parent, name, time: super::TIME }).map(drop)
}

#[test]
fn a_file_has_no_more_names_than_the_limit() {
    let bench = with_links(12, LINKS_MAX - 1);
    link(&bench, "last").unwrap();
    assert_eq!(link(&bench, "over"), Err(Posix::TooManyLinks));
    bench.rename((1, "last"), (1, "other"), RenameMode::Replace).unwrap();
    bench.unlink("other", false).unwrap();
    link(&bench, "again").unwrap();
    assert_eq!(bench.inode(12).unwrap().links, LINKS_MAX);
}

#[test]
fn a_directory_has_no_more_directories_than_the_limit() {
    let bench = with_links(10, LINKS_MAX);
    assert_eq!(bench.create(10, "x", 20, FileKind::Directory), Err(Posix::TooManyLinks));
    assert_eq!(
        bench.rename((1, "d"), (10, "x"), RenameMode::Replace),
        Err(Posix::TooManyLinks),
        "moved in"
    );
    bench.create(10, "file", 21, FileKind::File).unwrap();
    assert_eq!(
        bench.rename((1, "d"), (10, "file"), RenameMode::Exchange),
        Err(Posix::TooManyLinks),
        "exchanged for a file"
    );
    assert!(bench.inode(20).is_none(), "nothing was made");
    assert_eq!(bench.inode(10).unwrap().links, LINKS_MAX);
}

#[test]
fn the_last_directory_fits() {
    let bench = with_links(10, LINKS_MAX - 1);
    bench.rename((1, "d"), (10, "x"), RenameMode::Replace).unwrap();
    assert_eq!(bench.inode(10).unwrap().links, LINKS_MAX);
    // What is inside already may get another name, and give way to another.
    bench.rename((10, "x"), (10, "y"), RenameMode::Replace).unwrap();
    bench.rename((1, "b"), (10, "y"), RenameMode::Replace).unwrap();
    assert_eq!(bench.inode(10).unwrap().links, LINKS_MAX);
}
