//! What the compiler cannot check: who imports whom, one door per library, lengths of files, banned words. Knows the
//! source text only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Longest file; tests of `x` lie in `x/tests.rs`.
const LINES_MAX: usize = 700;
/// Nothing larger belongs into the repository.
const FILE_BYTES_MAX: u64 = 512 * 1024;

/// Layers 0 and 1, and what is format or value alone: open to all above.
const WORDS: &[&str] = &["types", "limits", "error", "config", "sync"];
const OPEN: &[&str] = &[
    "types",
    "limits",
    "error",
    "config",
    "sync",
    "format",
    "sum",
    "erasure",
    "codec",
    "placement",
    "extent",
    "class",
    "metrics",
    "load",
    "stripe/layout",
    "stripe/frame",
    "stripe/slots",
    "shard/file",
    "meta/command",
];

/// What a module may import.
struct Row {
    /// The module, and those below it that have no row of their own.
    module: &'static str,
    /// Which of the open modules it may see.
    open: &'static [&'static str],
    /// What else. `meta!` is what `meta.rs` itself defines, without its submodules.
    more: &'static [&'static str],
}

const fn row(
    module: &'static str,
    open: &'static [&'static str],
    more: &'static [&'static str],
) -> Row {
    Row { module, open, more }
}

/// The table of the house style, section 3. Where it has a row more than the style, the reason stands beside it.
const MAY_IMPORT: &[Row] = &[
    row("types", &[], &[]),
    row("limits", &["types"], &[]),
    row("error", &["types"], &[]),
    row("sync", &["types"], &[]),
    row("config", &["types", "error"], &[]),
    row("format", WORDS, &["format", "sum"]),
    row("sum", WORDS, &["format", "sum"]),
    row("erasure", WORDS, &["format", "sum"]),
    // The words for compression are part of a class; the coder of segments reads them.
    row("codec", WORDS, &["format", "sum", "class"]),
    row("placement", WORDS, &["format", "sum"]),
    row("extent", WORDS, &["format", "sum"]),
    row("class", WORDS, &["format", "sum", "erasure", "codec", "placement", "extent"]),
    row("stripe/layout", OPEN, &[]),
    row("stripe/frame", OPEN, &[]),
    row("stripe/slots", OPEN, &[]),
    // Keys, headers and footers of shards are words that peers speak.
    row("shard/file", OPEN, &["net"]),
    row("meta/command", OPEN, &[]),
    // Threads for blocking work, one kind for disks and computations.
    row("lane", OPEN, &[]),
    row("disk", OPEN, &["lane"]),
    // Peers answer the space of a disk as the disk tells it; a disk may be at a peer.
    row("net", OPEN, &["disk!"]),
    // The files of an identity, for all who connect.
    row("identity", OPEN, &["net"]),
    row("process", OPEN, &[]),
    row("cpu", OPEN, &["lane"]),
    row("metrics", OPEN, &[]),
    // How loaded the foreground is: measured in fs, heeded by workers.
    row("load", &[], &[]),
    row("meta", OPEN, &["meta/command"]),
    row("meta/tables", OPEN, &["meta/command"]),
    row("meta/model", OPEN, &["meta!", "meta/tables"]),
    row("meta/store", OPEN, &["meta!", "meta/tables", "meta/model", "disk"]),
    row("meta/changes", OPEN, &[]),
    row("meta/client", OPEN, &["meta!", "meta/changes", "meta/store"]),
    row("meta/log", OPEN, &["meta!", "disk", "net", "lane"]),
    // Compares what the tables hold; offline, for fsck.
    row("meta/check", OPEN, &["meta!", "meta/store"]),
    // The local log joins records on disks with the state copies that follow them, and answers readers' views.
    row(
        "meta/local",
        OPEN,
        &["meta!", "meta/log", "meta/store", "meta/changes", "meta/client", "meta/recover", "disk"],
    ),
    // Finds the newest state of all, and starts the local log from it.
    row(
        "meta/recover",
        OPEN,
        &["meta!", "meta/log", "meta/store", "meta/client", "meta/local", "disk"],
    ),
    row("shard", OPEN, &["disk", "cpu", "net"]),
    row("stripe", OPEN, &["net", "cpu"]),
    row("fs", OPEN, &["stripe", "meta!", "meta/client", "meta/store", "cpu"]),
    // A commit is one flush of stripes: it says how urgent its puts are.
    row("fs/data", OPEN, &["fs", "stripe", "meta!", "meta/client", "meta/store", "cpu", "net"]),
    // Orders to peers (delete, list) are not stripes.
    row("worker", OPEN, &["stripe", "meta!", "meta/client", "meta/store", "cpu", "net"]),
    row("volume", OPEN, &["disk", "net", "cpu", "lane", "meta", "shard", "stripe", "fs", "worker"]),
    row(
        "admin",
        OPEN,
        &["disk", "net", "cpu", "meta", "shard", "stripe", "fs", "worker", "volume"],
    ),
    row(
        "mountd",
        OPEN,
        &[
            "disk", "net", "cpu", "meta", "shard", "stripe", "fs", "worker", "volume", "admin",
            "identity", "process",
        ],
    ),
    row("shardd", OPEN, &["disk", "net", "shard", "identity", "process"]),
    // Starts the daemons, and asks the kernel's mount table.
    row(
        "cli",
        OPEN,
        &[
            "disk", "net", "cpu", "meta", "shard", "stripe", "fs", "worker", "volume", "admin",
            "mountd", "shardd", "identity",
        ],
    ),
];

/// One door per library: who may name it.
const DOORS: &[(&str, &[&str])] = &[
    ("fuser", &["mountd/fuse", "mountd/daemon"]),
    (
        "redb",
        &["meta/tables", "meta/model", "meta/store", "meta/local", "shard/index", "disk/mirror"],
    ),
    ("reed_solomon_simd", &["erasure/rs"]),
    ("blake3", &["sum"]),
    ("crc_fast", &["sum"]),
    ("twox_hash", &["sum"]),
    ("zstd", &["codec"]),
    ("axum", &["admin"]),
    ("hyper", &["admin"]),
    ("hyper_util", &["admin"]),
    ("http_body_util", &["admin"]),
    ("clap", &["cli", "mountd", "shardd"]),
    ("indicatif", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
    ("tracing_subscriber", &["cli", "mountd", "shardd"]),
    ("toml", &["config"]),
    ("prometheus", &["metrics"]),
    ("serde_json", &["admin", "cli", "volume/repair_log"]),
    ("getrandom", &["volume", "cli/ca", "shardd"]),
    ("quinn", &["net/quic", "net/tls"]),
    ("rustls", &["net/quic", "net/tls"]),
    ("x509_parser", &["net/tls"]),
    ("rcgen", &["net/authority"]),
    ("time", &["net/authority"]),
    ("socket2", &["net/quic"]),
    ("libc", &["cli", "mountd"]),
    // System calls; below the edge only disks and threads make them.
    ("rustix", &["disk/local", "lane", "cli", "mountd", "net/quic", "process"]),
    // The admin socket is a file too.
    ("std::fs", &["disk/local", "admin", "cli", "mountd", "shardd", "identity"]),
    ("std::env", &["cli", "mountd", "shardd"]),
    ("tokio::signal", &["mountd", "shardd"]),
    ("shuttle", &["sync"]),
];

/// Where `unsafe` may be, each file with a reason of its own at its top.
const UNSAFE: &[&str] = &["erasure/simd", "mountd/mount"];

/// A source file of the product.
struct Source {
    path: String,
    /// `fs/data/flush` for `src/fs/data/flush.rs`.
    module: String,
    text: String,
    test: bool,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(directory: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files_below(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// The Rust files below these folders of the repository.
fn rust_files(folders: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    for folder in folders {
        files_below(&root().join(folder), &mut found);
    }
    let sources = found.into_iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    sources
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
            let module = path.strip_prefix("src/").unwrap_or(&path).trim_end_matches(".rs");
            let module = match module {
                "mountd/mountd" => "mountd",
                "shardd/shardd" => "shardd",
                other => other,
            };
            let module = module.to_owned();
            let test = module.split('/').any(|part| part == "tests" || part == "testing");
            Source { path, module, text, test }
        })
        .collect()
}

fn product() -> Vec<Source> {
    rust_files(&["src", "mountd", "shardd"])
}

/// The text without line comments and without the inline test module at its end.
fn code(source: &Source) -> String {
    let text = source.text.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    let mut code = String::new();
    for line in text.lines() {
        let line = line.split(" //").next().unwrap_or_default();
        if !line.trim_start().starts_with("//") {
            code.push_str(line);
            code.push('\n');
        }
    }
    code
}

fn is_below(module: &str, parent: &str) -> bool {
    module.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `{a, b::{c, d}}` or `a::b`, as paths below `prefix`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        paths.push(format!("{prefix}{}", tree.split_whitespace().next().unwrap_or_default()));
        return;
    };
    let prefix = format!("{prefix}{}", head.trim());
    let group = group.trim_end().trim_end_matches('}');
    let (mut depth, mut start) = (0, 0);
    for (at, letter) in group.char_indices().chain([(group.len(), ',')]) {
        match letter {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = group.get(start..at).unwrap_or_default();
                if !part.trim().is_empty() {
                    expand(&prefix, part, paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// All paths that the code names below `crate::`, in `use` lines and elsewhere, and what `super::` means in `use`.
fn imports(source: &Source) -> Vec<String> {
    let code = code(source);
    let mut paths = Vec::new();
    for (at, _word) in code.match_indices("crate::") {
        let rest = code.get(at + "crate::".len()..).unwrap_or_default();
        let line = code.get(..at).unwrap_or_default().rsplit('\n').next().unwrap_or_default();
        if line.trim_start().trim_start_matches("pub ").trim_start().starts_with("use ") {
            expand("", rest.split(';').next().unwrap_or_default(), &mut paths);
        } else {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_:".contains(c)));
            paths.push(rest.get(..end.unwrap_or(rest.len())).unwrap_or_default().to_owned());
        }
    }
    for statement in code.split(';') {
        let Some((_before, tree)) = statement.split_once("use super::") else { continue };
        let mut parent = source.module.rsplit_once('/').map_or("", |(parent, _name)| parent);
        let mut tree = tree;
        while let Some(rest) = tree.strip_prefix("super::") {
            parent = parent.rsplit_once('/').map_or("", |(above, _name)| above);
            tree = rest;
        }
        let prefix =
            if parent.is_empty() { String::new() } else { parent.replace('/', "::") + "::" };
        expand(&prefix, tree, &mut paths);
    }
    paths
}

/// The module that a path leads to: as far as there are files for it.
fn module_of(path: &str, modules: &BTreeSet<String>) -> String {
    let mut module = String::new();
    for part in path.split("::") {
        let longer = if module.is_empty() { part.to_owned() } else { format!("{module}/{part}") };
        if !modules.contains(&longer) {
            break;
        }
        module = longer;
    }
    module
}

fn may_import(row: &Row, module: &str, target: &str) -> bool {
    let own = is_below(target, row.module) || is_below(row.module, target) && !target.is_empty();
    own && target != "meta"
        || is_below(target, module)
        || row.open.iter().any(|open| is_below(target, open))
        || row.more.iter().any(|more| match more.strip_suffix('!') {
            Some(exact) => target == exact,
            None => is_below(target, more),
        })
}

#[test]
fn modules_import_only_what_the_style_allows() {
    let sources = product();
    let modules: BTreeSet<String> = sources.iter().map(|source| source.module.clone()).collect();
    let mut wrong = BTreeSet::new();
    for source in sources.iter().filter(|source| !source.test) {
        let module = source.module.as_str();
        if ["lib", "main", "mountd/main", "shardd/main"].contains(&module) {
            continue;
        }
        let rows = MAY_IMPORT.iter().filter(|row| is_below(module, row.module));
        let Some(row) = rows.max_by_key(|row| row.module.len()) else {
            panic!("{}: module {module} has no row in the table", source.path);
        };
        for path in imports(source) {
            let target = module_of(&path, &modules);
            if target.is_empty() || !may_import(row, module, &target) {
                wrong.insert(format!("{}: {module} may not import {path}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_refuses_shortcuts() {
    fn check(module: &str, target: &str, expected: bool) {
        let rows = MAY_IMPORT.iter().filter(|row| is_below(module, row.module));
        let row = rows.max_by_key(|row| row.module.len()).unwrap();
        assert_eq!(may_import(row, module, target), expected, "{module} imports {target}");
    }
    check("fs/dir", "disk/set", false);
    check("fs/dir", "net", false);
    check("fs/dir", "meta/local", false);
    check("fs/dir", "fs/handle", true);
    check("stripe/writer", "meta/client", false);
    check("stripe/layout", "stripe/writer", false);
    check("shard/store", "meta/command", true);
    check("shard/store", "meta/store", false);
    check("meta/model/names", "meta", true);
    check("meta/model/names", "meta/store", false);
    check("meta/model/names", "disk", false);
    check("meta/log/merge", "meta/recover", false);
    check("types", "limits", false);
    check("volume", "admin", false);
    check("admin", "mountd/fuse", false);
}

#[test]
fn each_library_has_one_door() {
    let mut wrong = Vec::new();
    for source in product().iter().filter(|source| !source.test) {
        let code = code(source);
        for (library, doors) in DOORS {
            if doors.iter().any(|door| is_below(&source.module, door)) {
                continue;
            }
            let named = code.match_indices(&format!("{library}::")).any(|(at, _name)| {
                let before = code.get(..at).unwrap_or_default().chars().next_back();
                before
                    .is_none_or(|letter| !letter.is_ascii_alphanumeric() && !"_:".contains(letter))
            });
            if named {
                wrong.push(format!("{} names {library}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn locks_come_from_sync() {
    // A cache of the metadata's database calls the second one with locks of std in its hands.
    const OWN: &[&str] = &["sync", "disk/mirror"];
    const LOCKS: &[&str] = &["Mutex", "RwLock", "Condvar", "mpsc"];
    let mut wrong = Vec::new();
    for source in product().iter().filter(|source| !OWN.contains(&source.module.as_str())) {
        for statement in code(source).split(';') {
            let Some((_before, tree)) = statement.split_once("std::sync::") else { continue };
            let mut paths = Vec::new();
            expand("", tree, &mut paths);
            let lock = |path: &String| LOCKS.iter().any(|lock| path.starts_with(lock));
            wrong.extend(paths.into_iter().filter(lock).map(|path| (source.path.clone(), path)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn files_are_short_plain_and_say_what_they_own() {
    let mut wrong = Vec::new();
    for source in rust_files(&["src", "mountd", "shardd", "tests", "benches"]) {
        let Source { path, text, .. } = &source;
        let lines = text.lines().count();
        if lines >= LINES_MAX {
            wrong.push(format!("{path} has {lines} lines: split it"));
        }
        if !text.is_ascii() {
            wrong.push(format!("{path} has other letters than ASCII"));
        }
        if path.ends_with("/mod.rs") {
            wrong.push(format!("{path}: name the file after its module"));
        }
        let documented = text.starts_with("//!");
        let test = source.test || path.starts_with("tests/it/posix/");
        if !documented && !test {
            wrong.push(format!("{path}: the first line says what the module owns"));
        }
        for banned in ["todo!(", "unimplemented!(", "dbg!("] {
            if code(&source).contains(banned) && !path.ends_with("tidy.rs") {
                wrong.push(format!("{path} contains {banned}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_product_neither_unwraps_nor_is_unsafe() {
    let mut wrong = Vec::new();
    for source in product().iter().filter(|source| !source.test) {
        let code = code(source);
        for (number, line) in code.lines().enumerate() {
            if line.contains(".unwrap()") {
                wrong.push(format!("{}: unwrap in code line {number}", source.path));
            }
        }
        let unsafe_code = code.contains("unsafe {") || code.contains("unsafe fn");
        if unsafe_code && !UNSAFE.contains(&source.module.as_str()) {
            wrong.push(format!("{} is unsafe", source.path));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_large_is_kept() {
    let mut found = Vec::new();
    for folder in ["src", "mountd", "shardd", "tests", "benches", "contrib", ".config"] {
        files_below(&root().join(folder), &mut found);
    }
    for path in found {
        let length = fs::metadata(&path).unwrap().len();
        assert!(length <= FILE_BYTES_MAX, "{} has {length} bytes", path.display());
    }
}

#[test]
fn import_trees_expand() {
    fn check(tree: &str, expected: &[&str]) {
        let mut paths = Vec::new();
        expand("", tree, &mut paths);
        assert_eq!(paths, expected, "{tree}");
    }
    check("fs::Fs", &["fs::Fs"]);
    check("fs::{Fs, data::{A, B}, x as y}", &["fs::Fs", "fs::data::A", "fs::data::B", "fs::x"]);
    check("disk::{\n    self, Disk,\n}", &["disk::self", "disk::Disk"]);
}

#[test]
fn no_limit_of_the_configuration_does_nothing() {
    let sources = product();
    let config = sources.iter().find(|source| source.module == "config").unwrap();
    let (_before, limits) = config.text.split_once("pub struct Limits {").unwrap();
    let (limits, _after) = limits.split_once("\n}").unwrap();
    let names: Vec<&str> = limits
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'))
        .map(|(name, _type)| name)
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        let used = sources.iter().any(|source| {
            !source.test
                && source.module != "config"
                && code(source).contains(&format!("limits.{name}"))
        });
        assert!(used, "nothing reads limits.{name}");
    }
}
