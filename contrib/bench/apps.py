"""Jobs of well-known programs. The source tree is a part of the crates that cargo has fetched: no more files than a
pass-through with a descriptor for each can open."""

import functools
import glob
import os
import sqlite3
import tempfile

from jobs import run, seconds, sync

PROJECT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
TRANSACTIONS = 1000
TREE_FILES = 5000


def crates(registry):
    """Names of crates with `TREE_FILES` files in all, in order."""
    names, count = [], 0
    for name in sorted(os.listdir(registry)):
        count += sum(len(files) for _, _, files in os.walk(os.path.join(registry, name)))
        if count > TREE_FILES:
            break
        names.append(name)
    return names


@functools.cache
def made():
    """A folder with the source tree as an archive and as a bare git repository, made once; it goes with the process."""
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    tree = glob.glob(os.path.join(home, "registry", "src", "*"))[0]
    names = crates(tree)
    folder = tempfile.TemporaryDirectory(prefix="ironfs-bench-", dir="/dev/shm")
    place = folder.name
    run("tar", "cf", os.path.join(place, "tree.tar"), "-C", tree, *names)
    run("git", "init", "-q", "--bare", f"{place}/tree.git")
    # No maintenance of its own in the background: it would run beside what is measured.
    git = ["git", "-c", "maintenance.auto=false", "-c", "gc.auto=0", f"--git-dir={place}/tree.git", f"--work-tree={tree}"]
    run(*git, "add", "--force", *names, cwd=tree)
    run(*git, "-c", "user.name=bench", "-c", "user.email=bench@localhost", "commit", "-q", "-m", "tree")
    run(*git, "repack", "-a", "-d", "-q")
    return folder


def sources():
    """Path of that folder."""
    return made().name


def rows(_args):
    """Name, unit and job of each row."""
    def untar(directory, _cold):
        archive = os.path.join(sources(), "tree.tar")
        place = os.path.join(directory, "tar")
        os.mkdir(place)

        def work():
            run("tar", "xf", archive, "-C", place)
            sync(place)
        return seconds(work)

    def clone(directory, _cold):
        place = os.path.join(directory, "clone")
        repository = os.path.join(sources(), "tree.git")

        def work():
            run("git", "clone", "-q", "--no-local", f"file://{repository}", place)
            sync(place)
        return seconds(work)

    def status(directory, cold):
        cold()
        return seconds(lambda: run("git", "-C", os.path.join(directory, "clone"), "status", "--short"))

    def cargo(directory, _cold):
        environment = {**os.environ, "CARGO_TARGET_DIR": os.path.join(directory, "target"), "CARGO_INCREMENTAL": "0"}
        command = ["cargo", "check", "--quiet", "--offline", "--locked", "--lib"]
        return seconds(lambda: run(*command, cwd=PROJECT, env=environment))

    def sqlite(journal):
        def job(directory, _cold):
            database = sqlite3.connect(os.path.join(directory, f"{journal}.db"), isolation_level=None)
            database.execute(f"pragma journal_mode={journal}")
            database.execute("pragma synchronous=full")
            database.execute("create table t (id integer primary key, text)")

            def work():
                for number in range(TRANSACTIONS):
                    database.execute("insert into t values (?, ?)", (number, "x" * 100))
            taken = seconds(work)
            database.close()
            return TRANSACTIONS / taken
        return job

    return [
        ("tar x of the crates' sources, fsync", "s", untar),
        ("git clone of them, fsync", "s", clone),
        ("git status, cold", "s", status),
        ("cargo check of ironfs", "s", cargo),
        ("SQLite, one row per transaction, rollback journal", "op/s", sqlite("delete")),
        ("SQLite, one row per transaction, WAL", "op/s", sqlite("wal")),
    ]
