//! What the command line refuses, in one sentence with exit code 2 and nothing changed; and what scripts may rely on.

use crate::real::{Volume, fail, ironfs, pattern, succeed, wait};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Directories `d0`, `d1`, ... to format, and a place for the configuration.
struct Bench {
    root: tempfile::TempDir,
}

impl Bench {
    fn new(directories: usize) -> Self {
        let root = tempfile::Builder::new().prefix("ironfs-cli-").tempdir().unwrap();
        for index in 0..directories {
            fs::create_dir(root.path().join(format!("d{index}"))).unwrap();
        }
        Self { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("lab.toml")
    }

    /// Runs `ironfs WORDS` in the directory.
    fn command(&self, line: &str) -> Command {
        let mut command = ironfs();
        command.current_dir(self.root.path()).args(line.split_whitespace());
        command
    }

    fn format(&self, class: &str, disks: &str) {
        let line = format!(
            "format lab --class {class} --allow-same-device --config lab.toml --disk {disks}"
        );
        succeed(&mut self.command(&line));
    }

    /// Everything below the directory, with contents.
    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        collect(self.root.path(), &mut all);
        all
    }

    /// The command is refused: one sentence with `says` in it, exit code 2, and nothing changed.
    fn refuses(&self, line: &str, says: &str) {
        let before = self.contents();
        let said = fail(&mut self.command(line), 2);
        assert!(said.contains(says), "{line}: {said:?} should say {says:?}");
        assert_eq!(said.trim_end().lines().count(), 1, "{line}: one sentence: {said:?}");
        assert!(said.starts_with("ironfs: "), "{line}: {said:?}");
        let after = self.contents();
        assert!(before == after, "{line} changed {:?}", changed(&before, &after));
    }
}

fn collect(directory: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, all);
            all.insert(path, Vec::new());
        } else {
            all.insert(path.clone(), fs::read(path).unwrap());
        }
    }
}

fn changed(
    before: &BTreeMap<PathBuf, Vec<u8>>,
    after: &BTreeMap<PathBuf, Vec<u8>>,
) -> Vec<PathBuf> {
    let all = before.keys().chain(after.keys());
    all.filter(|path| before.get(*path) != after.get(*path)).cloned().collect()
}

#[test]
fn format_refuses_what_would_not_be_safe() {
    let bench = Bench::new(6);
    fs::write(bench.path("d4/photo.jpg"), "mine").unwrap();
    fs::write(bench.path("file"), "").unwrap();
    let same = "--allow-same-device --config lab.toml";
    let check = |line: String, says: &str| bench.refuses(&line, says);
    check(format!("format lab --disk d0 d1 d2 {same}"), "add 3 more");
    check("format lab --class 2+1 --config lab.toml --disk d0 d1 d2".into(), "the same device");
    check(format!("format lab --class 2+1 --disk d0 d1 d0 {same}"), "listed twice");
    check(format!("format lab --class 2+1 --disk d0 d1 ./d2/../d0 {same}"), "listed twice");
    check(format!("format lab --class 2+1 --disk d0 d1 d4 {same}"), "d4 is not empty");
    check(format!("format lab --class 2+1 --disk d0 d1 d9 {same}"), "No such file");
    check(format!("format lab --class 2+1 --disk d0 d1 file {same}"), "is not a directory");
    for name in ["a/b", "../x", ".x", "-x", "a,b", &"n".repeat(65)] {
        let line = format!("format --class 2+1 --disk d0 d1 d2 {same} -- {name}");
        check(line, "cannot name a volume");
    }
    for class in ["4", "0+1", "1+0", "33+2", "4+17", "4-2", "replica:0", "replica:18", "raid6"] {
        let line = format!("format lab --class {class} --disk d0 d1 d2 {same}");
        check(line, "is no redundancy scheme");
    }
    check(format!("format lab --class 2+1,gzip --disk d0 d1 d2 {same}"), "no option of a class");
    check(format!("format lab --class 2+1,zstd:99 --disk d0 d1 d2 {same}"), "zstd level 99");
    check(format!("format lab --class 2+1,place:x --disk d0 d1 d2 {same}"), "no placement rule");
    check(
        format!("format lab --class 2+1 --disk d0 d1 d2 {same} --label d0,room=x"),
        "is no label",
    );
    check(format!("format lab --class 2+1 --disk d0 d1 d2 {same} --label d3,zone=x"), "not listed");
    let smr = "--label d0,tag=smr --class 2+1,avoid:smr";
    check(format!("format lab --disk d0 d1 d2 {same} {smr}"), "needs 3 disks that it allows");
    check(format!("format lab --class 2+1,cell:7 --disk d0 d1 d2 {same}"), "cell size 7");
    let elsewhere = "format lab --class 2+1 --disk d0 d1 d2 --allow-same-device --config file/x";
    check(elsewhere.into(), "write the configuration file/x");
}

#[test]
fn format_never_replaces_a_volume_or_a_configuration() {
    let bench = Bench::new(6);
    bench.format("2+1", "d0 d1 d2");
    let same = "--class 2+1 --allow-same-device";
    let again = format!("format lab {same} --config other.toml --disk d2 d3 d4");
    bench.refuses(&again, "is disk 3 of volume lab already");
    bench
        .refuses(&format!("format lab {same} --config lab.toml --disk d3 d4 d5"), "exists already");
}

#[test]
fn wrong_words_are_explained() {
    for line in ["", "frobnicate", "format lab", "mount", "fsck", "status --colour x"] {
        let said = fail(ironfs().args(line.split_whitespace()), 2);
        assert!(said.contains("Usage:"), "{line}: {said}");
    }
}

#[test]
fn configurations_with_mistakes_are_refused() {
    let bench = Bench::new(4);
    bench.format("2+1", "d0 d1 d2");
    let good = fs::read_to_string(bench.config()).unwrap();
    let check = |text: &str, says: &str| {
        fs::write(bench.path("bad.toml"), text).unwrap();
        for line in ["mount bad.toml d3", "fsck bad.toml"] {
            let said = fail(&mut bench.command(line), 2);
            assert!(said.contains(says), "{line}: {said:?} should say {says:?}");
        }
    };
    check(&format!("colour = 1\n{good}"), "unknown field `colour`");
    check(&good.replace("dirty_mib", "dirty_mb"), "unknown field `dirty_mb`");
    check(&good.replace("dirty_mib = 256", "dirty_mib = 1"), "limits.dirty_mib is 1");
    check(&good.replace("dirty_mib = 256", "dirty_mib = -1"), "dirty_mib");
    check("name = \"lab\"", "missing field `disks`");
    check("name = \"lab\"\ndisks = []", "lists no disks");
    check("name = \"lab\"\ndisks = [\"d0\"]", "absolute path");
    check("name = \"../lab\"\ndisks = [\"/d0\"]", "cannot name a volume");
    check("\u{0}", "bad.toml");
    let other = good.replace("name = \"lab\"", "name = \"other\"");
    check(&other, "belongs to volume lab, not to other");
}

#[test]
fn commands_without_a_mount_say_so() {
    let bench = Bench::new(4);
    bench.format("2+1", "d0 d1 d2");
    bench.refuses("mount nonesuch d3", "`ironfs scan DIR...` rebuilds it");
    bench.refuses("mount lab.toml nonesuch", "mount point nonesuch");
    bench.refuses("mount lab.toml lab.toml", "is not a directory");
    bench.refuses("mount lab.toml d3 -o ro,sparkle", "\"sparkle\" is unknown");
    bench.refuses("mount lab.toml d3 -o remount,ro", "no ironfs volume is mounted there");
    bench.refuses("umount d3", "no ironfs volume is mounted there");
    bench.refuses("umount /proc", "no ironfs volume is mounted there");
    for line in ["status lab.toml", "df lab.toml", "repair run lab.toml", "status nonesuch-volume"]
    {
        bench.refuses(line, "not mounted");
    }
    bench.refuses("what-if --lose disk:1 lab.toml", "not mounted");
    bench.refuses("node list lab.toml", "not mounted");
    bench.refuses("node add lab.toml beta=10.0.0.3:7440", "not mounted");
    bench.refuses("node add lab.toml beta", "say NODE=HOST:PORT");
    bench.refuses("disk label d0 --zone a", "no single mounted volume has a disk");
    for line in ["info d3", "class get d3", "class set d3 replica:2", "sync d3", "status d3"] {
        bench.refuses(line, "is not inside an ironfs mount");
    }
    bench.refuses("disk replace d0 d3 --yes", "no single mounted volume has a disk");
    bench.refuses("scan d3", "no disk of an ironfs volume was found");
    bench.refuses("fsck d3", "is not a disk of an ironfs volume");
    bench.refuses("fsck lab.toml d0", "give one volume");
}

#[test]
fn scan_rebuilds_the_configuration() {
    let bench = Bench::new(4);
    bench.format("2+1", "d2 d0 d1");
    let original = fs::read_to_string(bench.config()).unwrap();
    let printed = succeed(&mut bench.command("scan ."));
    assert_eq!(String::from_utf8_lossy(&printed.stdout), original);
    bench.refuses("scan --write lab.toml d0 d1 d2", "exists already");
    succeed(&mut bench.command("scan --write again.toml d0 d1 d2"));
    assert_eq!(fs::read_to_string(bench.path("again.toml")).unwrap(), original);
    let output = succeed(&mut bench.command("scan --json d0 d1"));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found[0]["name"], "lab");
    assert_eq!(found[0]["missing"], serde_json::json!([1]));
    assert!(
        String::from_utf8_lossy(&succeed(&mut bench.command("scan d0")).stderr)
            .contains("not found")
    );
}

#[test]
fn copies_and_foreign_disks_are_refused() {
    let bench = Bench::new(3);
    bench.format("2+1", "d0 d1 d2");
    succeed(Command::new("cp").arg("-a").arg(bench.path("d0")).arg(bench.path("d0copy")));
    bench.refuses("scan .", "one is a copy");
    let config = fs::read_to_string(bench.config()).unwrap();
    let mnt = bench.path("mnt");
    fs::create_dir(&mnt).unwrap();
    let check = |config: String, says: &str| {
        fs::write(bench.path("bad.toml"), config).unwrap();
        let said = fail(&mut bench.command("mount bad.toml mnt"), 2);
        assert!(said.contains(says), "{said:?} should say {says:?}");
        let said = fail(&mut bench.command("fsck bad.toml"), 2);
        assert!(said.contains(says), "{said:?} should say {says:?}");
    };
    check(config.replace("/d1\"", "/d0copy\""), "one is a copy");
    let foreign = Bench::new(3);
    let line = "format other --class 2+1 --allow-same-device --config o.toml --disk d0 d1 d2";
    succeed(&mut foreign.command(line));
    let with_foreign = |from: &Bench| {
        let disk = bench.path("d1").display().to_string();
        config.replace(&disk, &from.path("d1").display().to_string())
    };
    check(with_foreign(&foreign), "belongs to volume other, not to lab");
    // The same name does not make it the same volume.
    let twin = Bench::new(3);
    twin.format("2+1", "d0 d1 d2");
    check(with_foreign(&twin), "two volumes of the same name");
}

#[test]
fn every_subcommand_shows_examples() {
    let help = String::from_utf8(succeed(ironfs().arg("--help")).stdout).unwrap();
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    let names = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names: Vec<&str> = names.filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() >= 14 && names.contains(&"format"), "{names:?}");
    for name in names {
        let help = String::from_utf8(succeed(ironfs().args([name, "--help"])).stdout).unwrap();
        assert!(help.contains("Example") && help.contains(&format!("  ironfs {name}")), "{help}");
    }
    assert!(help.contains("Exit codes"));
}

#[test]
fn completions_and_manual_pages_come_from_the_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let output = succeed(ironfs().args(["completions", shell]));
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(script.contains("allow-same-device"), "{shell}");
        assert!(!script.contains("Serve one mount"), "{shell}: hidden flags stay hidden");
    }
    let bench = Bench::new(1);
    succeed(&mut bench.command("man d0"));
    let page = fs::read_to_string(bench.path("d0/ironfs-format.1")).unwrap();
    assert!(page.contains("allow\\-same\\-device") && page.contains("Examples"), "{page}");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = ironfs().args(["completions", "zsh"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

fn json(command: &mut Command) -> serde_json::Value {
    serde_json::from_slice(&succeed(command).stdout).unwrap()
}

#[test]
fn json_has_the_promised_fields() {
    let volume = Volume::format("2+1", 4);
    volume.mount();
    fs::write(volume.mnt().join("file"), pattern(1, 700_000)).unwrap();
    let info = || json(ironfs().args(["info", "--json"]).arg(volume.mnt().join("file")));
    assert_eq!(info()["size"], 700_000, "it may be dirty");
    volume.sync();
    let status = volume.status();
    assert_eq!(status["state"], "healthy");
    assert_eq!(status["survives_disks"], 1);
    assert_eq!(status["stripes_by_margin"], serde_json::json!({ "1": 1 }));
    assert_eq!(status["dirty_bytes"], 0);
    let disks = status["disks"].as_array().unwrap();
    assert_eq!(disks.len(), 4);
    for (disk, path) in disks.iter().zip(&volume.disks) {
        assert_eq!(disk["path"], path.display().to_string());
        assert_eq!(disk["state"], "healthy");
    }
    let info = info();
    assert_eq!((&info["size"], &info["margin"]), (&700_000.into(), &1.into()));
    assert_eq!(info["stripes"][0]["shards"].as_array().unwrap().len(), 3);
    let spaces = json(ironfs().args(["df", "--json"]).arg(volume.mnt()));
    assert_eq!(spaces[0]["class"], "2+1");
    assert!(spaces[0]["available_bytes"].as_u64().unwrap() > 0);
    let class = json(ironfs().args(["class", "get", "--json"]).arg(volume.mnt()));
    assert_eq!(class["class"], "2+1");
    let repaired = json(ironfs().args(["repair", "run", "--json"]).arg(volume.mnt()));
    assert_eq!(repaired["stripes_checked"], 1);
    volume.umount();
    let report = json(ironfs().args(["fsck", "--json"]).arg(volume.config()));
    assert_eq!(report["findings"], serde_json::json!([]));
}

fn text(command: &mut Command) -> String {
    String::from_utf8(succeed(command).stdout).unwrap()
}

#[test]
fn orders_say_in_json_that_they_are_done() {
    let volume = Volume::format("2+1", 3);
    volume.mount();
    let order = |line: &str, json: bool| {
        let mut command = ironfs();
        command.args(line.split(' ')).arg(volume.mnt()).args(json.then_some("--json"));
        command
    };
    let orders = ["repair pause", "repair resume", "scrub pause", "scrub resume", "scrub start"];
    for line in orders {
        assert_eq!(text(&mut order(line, false)), "", "{line}");
        assert_eq!(json(&mut order(line, true)), serde_json::json!({ "done": true }), "{line}");
    }
    let set = json(ironfs().args(["class", "set", "--json"]).arg(volume.mnt()).arg("replica:2"));
    assert_eq!(set["class"], "replica:2");
    let bench = Bench::new(1);
    let ca = |line: &str| json(&mut bench.command(&format!("ca {line} --ca ca --json")));
    assert_eq!(ca("init")["authority"], "ca");
    assert_eq!(ca("issue --role node --name a")["directory"], "ca/issued/a");
    assert_eq!(ca("revoke a")["certificates"], 1);
}

#[test]
fn a_scrub_that_has_ended_says_what_it_read() {
    let volume = Volume::format("2+1", 3);
    volume.set_limit("scrub_days", 14, 0);
    volume.mount();
    let scrub = |words: &[&str]| text(ironfs().arg("scrub").args(words).arg(volume.mnt()));
    let status =
        || -> serde_json::Value { serde_json::from_str(&scrub(&["status", "--json"])).unwrap() };
    assert_eq!(scrub(&["status"]), "idle\nno pass has ended yet\n");
    fs::write(volume.mnt().join("file"), pattern(1, 700_000)).unwrap();
    volume.sync();
    scrub(&["start"]);
    wait("everything was read", || status()["passes"] == 1);
    // The volume shrinks; the pass has read what it has read.
    fs::remove_file(volume.mnt().join("file")).unwrap();
    volume.sync();
    wait("the stripe is deleted", || status()["stripes"] == 0);
    assert_eq!((&status()["under_way"], &status()["stripes_checked"]), (&false.into(), &1.into()));
    let told = scrub(&["status"]);
    let (finished, said) =
        (status()["finished"].clone(), "1 stripes, 1.0 MiB read, 0 bad shards\n");
    assert!(told.contains(&format!("ended {}: {said}", finished.as_str().unwrap())), "{told}");
}

#[test]
fn repairs_that_fail_and_a_history_out_of_reach() {
    let volume = Volume::format("2+1", 3);
    volume.mount();
    let repair = |words: &[&str]| {
        let mut command = ironfs();
        command.arg("repair").args(words).arg(volume.mnt());
        command
    };
    assert_eq!(text(&mut repair(&["history"])), "no repair is recorded\n");
    for name in ["one", "two"] {
        fs::write(volume.mnt().join(name), pattern(1, 700_000)).unwrap();
        volume.sync();
    }
    fs::rename(&volume.disks[1], volume.root().join("aside")).unwrap();
    volume.wait_status("a disk is away", |status| status["disks"][1]["state"] == "down");
    // A disk that is only away is not repaired unasked: nothing is recorded yet, but who knows.
    let said = fail(&mut repair(&["history"]), 1);
    let away = volume.disks[1].display().to_string();
    assert!(said.contains("cannot be read") && said.contains(&away), "{said}");
    let output = repair(&["run", "--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((report["failure_count"].as_u64(), output.status.code()), (Some(2), Some(1)));
    let said = fail(&mut repair(&["run"]), 1);
    assert!(said.contains("not all is repaired: 2 failures"), "{said}");
    wait("the attempts are recorded", || volume.disks[0].join("repair_log").exists());
    let recorded = || repair(&["history"]).output().unwrap();
    wait("the history shows them", || recorded().status.success());
    let said = String::from_utf8(recorded().stderr).unwrap();
    assert!(said.contains("more of the history may be on") && said.contains(&away), "{said}");
    fs::rename(volume.root().join("aside"), &volume.disks[1]).unwrap();
}

/// What `what-if` says, and its exit code.
fn what_if(volume: &Volume, words: &[&str]) -> (i32, String) {
    let output = ironfs().arg("what-if").args(words).arg(&volume.name).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8(said).unwrap())
}

#[test]
fn what_if_says_whether_it_is_safe() {
    let volume = Volume::prepare(4, &std::env::temp_dir());
    let label = format!("{},zone=attic,tag=psu=2", volume.disks[3].display());
    volume.format_disks("2+1", &["--allow-same-device", "--label", &label]);
    volume.mount();
    fs::write(volume.mnt().join("film"), pattern(1, 700_000)).unwrap();
    volume.sync();
    let all = ["disk:1", "disk:2", "disk:3", "disk:4"];
    // A stripe lies on three of four disks; the metadata on two, one of them in the attic.
    let single = all.map(|disk| what_if(&volume, &["--lose", disk]));
    assert!(
        single.iter().all(|(code, said)| *code == 0 && said.contains("\nSafe: ")),
        "{single:?}"
    );
    let degraded =
        single.iter().filter(|(_, said)| said.contains("degraded  683.5 KiB  /film")).count();
    assert_eq!(degraded, 3, "{single:?}");
    let path = format!("disk:{}", volume.disks[0].display());
    let by_path = what_if(&volume, &["--lose", &path]);
    assert_eq!(by_path, single[0]);
    let (code, said) = what_if(&volume, &["--lose", "disk:1,disk:2", "--lose", "disk:3"]);
    assert_eq!(code, 3);
    assert!(said.contains("Not safe: 1 of 1 files would be lost"), "{said}");
    assert!(said.contains("lost   683.5 KiB  /film"), "{said}");
    let output =
        ironfs().args(["what-if", "--json", "--lose", "zone:attic"]).arg(volume.mnt()).output();
    let told: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    assert_eq!(
        (&told["safe"], &told["mountable"], &told["lose"][0]["id"]),
        (&true.into(), &true.into(), &4.into())
    );
    for (word, says) in [
        ("disk:9", "is no disk of volume"),
        ("zone:cellar", "no disk of the volume has zone:cellar"),
        ("attic", "names no disks"),
    ] {
        let (code, said) = what_if(&volume, &["--lose", word]);
        assert!(code == 2 && said.contains(says), "{word}: {code} {said}");
    }
    volume.umount();
}

#[test]
fn labels_of_disks_are_set_shown_and_kept() {
    let volume = Volume::format("2+1", 3);
    volume.mount();
    assert!(volume.status()["disks"][0].get("labels").is_none());
    let label = |words: &[&str]| {
        let mut command = ironfs();
        command.args(["disk", "label"]).args(words);
        command
    };
    let disk = volume.disks[1].display().to_string();
    let said = succeed(&mut label(&[&disk, "--zone", "attic", "--tag", "smr", "--tag", "psu=2"]));
    let said = String::from_utf8(said.stdout).unwrap();
    assert_eq!(said, format!("disk 2 ({disk}): zone=attic,tag=psu=2,tag=smr\n"));
    succeed(&mut label(&["2", "--rack", "7", "--tag", "", "--volume", &volume.name]));
    assert_eq!(
        volume.status()["disks"][1]["labels"],
        serde_json::json!({ "zone": "attic", "rack": "7" })
    );
    let text = String::from_utf8(succeed(ironfs().arg("status").arg(volume.mnt())).stdout).unwrap();
    assert!(text.contains("LABELS") && text.contains("zone=attic,rack=7"), "{text}");
    assert!(fail(&mut label(&["2", "--volume", &volume.name]), 2).contains("say what to change"));
    let said = fail(&mut label(&["2", "--zone", "a b", "--volume", &volume.name]), 2);
    assert!(said.contains("\"a b\" cannot be a zone"), "{said}");
    volume.remount();
    assert_eq!(volume.status()["disks"][1]["labels"]["zone"], "attic");
    volume.umount();
    let config =
        String::from_utf8(succeed(ironfs().arg("scan").args(&volume.disks)).stdout).unwrap();
    assert!(
        config.contains(&format!("[disk.\"{disk}\"]\nrack = \"7\"\nzone = \"attic\"\n")),
        "{config}"
    );
    volume.fsck();
}

#[test]
fn classes_of_directories() {
    let volume = Volume::format("2+1", 4);
    volume.mount();
    let dir = volume.mnt().join("dir");
    fs::create_dir(&dir).unwrap();
    let set = |class: &str| {
        let mut command = ironfs();
        command.args(["class", "set"]).arg(&dir).arg(class);
        command
    };
    assert!(fail(&mut set("strong"), 2).contains("is no redundancy scheme"));
    assert!(fail(&mut set("4+2"), 2).contains("too few disks for class 4+2"));
    assert_eq!(json(ironfs().args(["class", "get", "--json"]).arg(&dir))["class"], "2+1");
    succeed(&mut set("replica:3,zstd"));
    succeed(&mut set("replica:3,zstd"));
    fs::write(dir.join("file"), vec![7; 300_000]).unwrap();
    fs::write(volume.mnt().join("old"), pattern(2, 300_000)).unwrap();
    volume.sync();
    let info = json(ironfs().args(["info", "--json"]).arg(dir.join("file")));
    assert_eq!(info["class"], "replica:3,zstd");
    assert_eq!(info["stripes"][0]["class"], "replica:3,zstd");
    assert_eq!(info["margin"], 2);
    let old = json(ironfs().args(["info", "--json"]).arg(volume.mnt().join("old")));
    assert_eq!((&old["class"], &old["margin"]), (&"2+1".into(), &1.into()));
    // What survives two losses is named by metadata that does, too.
    volume.wait_status("the log is on three disks", |status| {
        status["log"]["disks"].as_array().unwrap().len() == 3
    });
    volume.remount();
    assert_eq!(
        json(ironfs().args(["class", "get", "--json"]).arg(&dir))["class"],
        "replica:3,zstd"
    );
    assert_eq!(fs::read(dir.join("file")).unwrap(), vec![7; 300_000]);
    // What is of a class that bears less is whole as well, and is what counts for what may be lost.
    succeed(ironfs().args(["class", "set"]).arg(volume.mnt()).arg("replica:3"));
    let status = volume.status();
    assert_eq!(
        (&status["state"], &status["problems"]),
        (&"healthy".into(), &serde_json::json!([]))
    );
    assert_eq!((&status["class"], &status["survives_disks"]), (&"replica:3".into(), &1.into()));
    assert!(status["survives"].as_str().unwrap().starts_with("any 1 directory"), "{status}");
    volume.umount();
    volume.fsck();
}

#[test]
fn a_second_mount_is_refused_at_once_with_the_pid() {
    let volume = Volume::format("2+1", 3);
    volume.mount();
    let other = volume.root().join("other");
    fs::create_dir(&other).unwrap();
    let start = Instant::now();
    let mut second = ironfs();
    second.arg("mount").arg(volume.config()).arg(&other);
    let said = fail(&mut second, 2);
    assert!(said.contains(&format!("pid {}", volume.pid())), "{said}");
    assert!(start.elapsed() < Duration::from_secs(5), "refused after {:?}", start.elapsed());
    let said = fail(ironfs().arg("fsck").arg(&volume.name), 2);
    assert!(said.contains("is mounted on"), "its configuration is elsewhere: {said}");
    let said = fail(ironfs().arg("fsck").arg(volume.config()), 2);
    assert!(said.contains(&format!("pid {}", volume.pid())), "{said}");
    volume.umount();
}

#[test]
fn a_mount_right_after_an_unmount_waits_for_the_old_server() {
    let volume = Volume::format("2+1", 3);
    for round in 0..5 {
        volume.mount();
        let path = volume.mnt().join("file");
        if round > 0 {
            assert_eq!(fs::read(&path).unwrap(), pattern(round - 1, 3_000_000));
        }
        fs::write(&path, pattern(round, 3_000_000)).unwrap();
        // As umount(8) without a helper: it returns while the server still writes.
        let flags = rustix::mount::UnmountFlags::empty();
        wait("an unmount", || rustix::mount::unmount(volume.mnt(), flags).is_ok());
    }
    volume.mount();
    assert_eq!(fs::read(volume.mnt().join("file")).unwrap(), pattern(4, 3_000_000));
}

/// Calls the program as mount(8) calls its helper.
fn helper(name: &str) -> Command {
    let mut command = ironfs();
    command.arg0(format!("/sbin/{name}"));
    command
}

/// Options of the mount in the kernel's table.
fn mount_options(volume: &Volume) -> Option<String> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mnt = volume.mnt().display().to_string();
    let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&mnt))?;
    line.split(' ').nth(3).map(str::to_owned)
}

#[test]
fn the_mount_helper_does_what_mount_asks() {
    let volume = Volume::format("2+1", 3);
    let call = |options: &str| {
        let mut command = helper("mount.fuse.ironfs");
        command.arg(volume.config()).arg(volume.mnt()).args(["-o", options]);
        command
    };
    let said = fail(&mut call("rw,sparkle"), 32);
    assert!(said.starts_with("mount.fuse.ironfs: ") && said.contains("sparkle"), "{said}");
    assert!(fail(helper("mount.ironfs").arg("lab"), 1).contains("usage"));
    succeed(call("rw,sparkle").arg("-f").arg("-s"));
    assert_eq!(mount_options(&volume), None);
    succeed(call("rw,noatime,sparkle,_netdev,x-systemd.automount").arg("-s"));
    assert!(mount_options(&volume).unwrap().starts_with("rw,noatime"));
    fs::write(volume.mnt().join("file"), "content").unwrap();
    succeed(&mut call("remount,ro"));
    assert!(mount_options(&volume).unwrap().starts_with("ro"));
    assert_eq!(volume.status()["state"], "read-only");
    let error = fs::write(volume.mnt().join("file"), "other").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    succeed(&mut call("remount,rw"));
    fs::write(volume.mnt().join("file"), "other").unwrap();
    succeed(helper("umount.fuse.ironfs").arg(volume.mnt()).args(["-t", "fuse.ironfs"]));
    wait("it is unmounted", || mount_options(&volume).is_none());
    volume.fsck();
}
