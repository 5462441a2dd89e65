#!/usr/bin/env python3
"""Runs the same jobs on several directories, in turn, and prints a table of medians side by side.

    contrib/bench/bench.py ironfs=/mnt/iron plain=/srv/plain
    contrib/bench/bench.py --size 1024 --files 10000 --repeat 5 --json out.json a=/mnt/a b=/mnt/b

Ratios are of speed, against the last directory given: above 1 is faster. `--set` chooses the jobs: `io` (the default),
`apps` (git, tar, cargo, SQLite), `scale` (1 to 16 writers and readers).

`--cold NAME=COMMAND` names a command that empties the caches of that file system (unmount and mount again); the kernel's
caches are dropped in any case, which needs root. `--away NAME=COMMAND` names one that does the same with some disks taken
away; it is called with 0, 1, 2 ... up to --away-sets, and the slowest counts. What has no such command is measured as it
is. `--pid NAME=COMMAND` names one that prints the process that serves it: the table then shows the most memory that it has
had resident since it was mounted, as of the end of each row.

`--touch MIB` writes to so much memory before each row and gives it back. In a virtual machine, memory that the host has not
given yet is written several times slower than what was used before, and whichever row needs it first pays for that.
"""

import argparse
import json
import mmap
import os
import shutil
import statistics
import subprocess
import sys

import apps
import scale
from jobs import p99, rate, seconds, sync

LESS_IS_BETTER = ("s", "us")


class Small:
    """Many small files in directories of a hundred."""

    def __init__(self, directory, count):
        self.root = os.path.join(directory, "small")
        self.count = count

    def path(self, number):
        return os.path.join(self.root, f"{number // 100:05}", f"{number:07}")

    def create(self):
        data = os.urandom(4096)
        for number in range(self.count):
            if number % 100 == 0:
                os.makedirs(os.path.dirname(self.path(number)))
            with open(self.path(number), "wb", buffering=0) as file:
                file.write(data)
        os.sync()
        sync(self.root)

    def stat(self):
        for directory, _, names in os.walk(self.root):
            for name in names:
                os.lstat(os.path.join(directory, name))

    def read(self):
        for number in range(self.count):
            with open(self.path(number), "rb", buffering=0) as file:
                if len(file.read()) != 4096:
                    sys.exit(f"bench: {self.path(number)} is short")

    def remove(self):
        shutil.rmtree(self.root)


def rows(args):
    """Name, unit and job of each row; a job gets the directory and a function that empties caches."""
    size = f"{args.size}m"

    def sequential_read(jobs):
        def job(directory, cold):
            cold()
            each = f"{args.size // jobs}m"
            options = {"offset_increment": each} if jobs > 1 else {}
            return rate(directory, "big", "read", "MiB/s", jobs, rw="read", bs="1m", size=each, filename="big.0.0", **options)
        return job

    def random_read(directory, cold):
        cold()
        return rate(directory, "big", "read", "op/s", 4, rw="randread", bs="4k", size=size, filename="big.0.0",
                    direct=1, runtime=args.seconds, time_based=True)

    def random_write(directory, _cold):
        return rate(directory, "random", "write", "op/s", rw="randwrite", bs="4k", size=f"{args.size // 4}m",
                    end_fsync=1, filename="random")

    def write_fsync(directory, _cold):
        return rate(directory, "synced", "write", "op/s", rw="write", bs="4k", size="64m", fsync=1,
                    runtime=args.seconds, time_based=True, filename="synced")

    def worst(job):
        """The slowest of all sets of disks that may be away; the last word is the healthy file system's again."""
        def run(directory, cold):
            slowest = min(job(directory, cold.without(number)) for number in range(cold.sets))
            if cold.sets > 1:
                cold()
            return slowest
        return run

    def read_p99(directory, cold):
        cold()
        return p99(directory, "big", "read", rw="randread", bs="4k", size=size, filename="big.0.0",
                   direct=1, runtime=args.seconds, time_based=True)

    def fsync_p99(directory, _cold):
        return p99(directory, "synced", "sync", rw="write", bs="4k", size="64m", fsync=1,
                   runtime=args.seconds, time_based=True, filename="synced")

    def small(step):
        def job(directory, cold):
            files = Small(directory, args.files)
            if step != "create":
                cold()
            return args.files / seconds(getattr(files, step))
        return job

    away = [
        ("1 MiB sequential read, worst disks away", "MiB/s", worst(sequential_read(1))),
        ("4 KiB random read, direct, 4 jobs, worst disks away", "op/s", worst(random_read)),
    ]
    return [
        ("1 MiB sequential write, one fsync", "MiB/s",
         lambda d, _c: rate(d, "big", "write", "MiB/s", rw="write", bs="1m", size=size, end_fsync=1)),
        ("1 MiB sequential read, cold, 1 reader", "MiB/s", sequential_read(1)),
        ("1 MiB sequential read, cold, 4 readers", "MiB/s", sequential_read(4)),
        ("4 KiB random read, direct, 4 jobs, cold", "op/s", random_read),
        *(away if args.away else []),
        ("4 KiB random write, one fsync", "op/s", random_write),
        ("4 KiB write + fsync each", "op/s", write_fsync),
        ("p99 of 4 KiB random read, cold", "us", read_p99),
        ("p99 of fsync after 4 KiB", "us", fsync_p99),
        ("create 4 KiB files, then sync", "op/s", small("create")),
        ("stat walk, cold", "op/s", small("stat")),
        ("read 4 KiB files, cold", "op/s", small("read")),
        ("rm -r", "op/s", small("remove")),
    ]


SETS = {"io": rows, "apps": apps.rows, "scale": scale.rows}


class Cold:
    """Empties the caches of one file system; `without` does so with disks away."""

    def __init__(self, command, away, sets):
        self.command = command
        self.away = away
        self.sets = sets if away else 1

    def __call__(self, command=None):
        command = command or self.command
        if command:
            subprocess.run(command, shell=True, check=True)
        os.sync()
        with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
            file.write("3\n")

    def without(self, number):
        return lambda: self(f"{self.away} {number}" if self.away else None)


def pair(text):
    name, _, value = text.partition("=")
    if not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def peak_mib(command):
    """Most memory that a process has had resident, in MiB."""
    pid = int(subprocess.check_output(command, shell=True))
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def touch(mib):
    """Has the system own so much free memory: writes to each page of it, and gives it back."""
    if mib == 0:
        return
    pages = mmap.mmap(-1, mib << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    filling = b"\1" * (1 << 20)
    for _ in range(mib):
        pages.write(filling)
    pages.close()


def measure(args):
    """Values by row and directory, one for each repetition, and the most memory by row and directory."""
    colds, aways, pids = dict(args.cold), dict(args.away), dict(args.pid)
    values, peaks = {}, {}
    for repetition in range(args.repeat):
        for name, directory in args.targets:
            place = os.path.join(directory, f"bench-{os.getpid()}")
            os.makedirs(place)
            cold = Cold(colds.get(name), aways.get(name), args.away_sets)
            for row, unit, job in SETS[args.set](args):
                if args.only and not any(word in row for word in args.only):
                    continue
                touch(args.touch)
                value = job(place, cold)
                values.setdefault((row, unit), {}).setdefault(name, []).append(value)
                if name in pids:
                    peaks[row, name] = max(peaks.get((row, name), 0), peak_mib(pids[name]))
                print(f"{repetition + 1}/{args.repeat} {name}: {row}: {value:.0f} {unit}", file=sys.stderr)
            shutil.rmtree(place)
    return values, peaks


def table(values, peaks, names):
    last = names[-1]
    served = [name for name in names if any(name == other for _row, other in peaks)]
    heads = ["row", *names, *(f"{n} / {last}" for n in names[:-1]), *(f"{n} has in memory" for n in served)]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for (row, unit), by_name in values.items():
        medians = {name: statistics.median(by_name[name]) for name in names}
        speeds = {name: 1 / medians[name] if unit in LESS_IS_BETTER else medians[name] for name in names}
        cells = [f"{medians[name]:.{1 if medians[name] < 10 else 0}f} {unit}" for name in names]
        cells += [f"{speeds[name] / speeds[last]:.2f}" for name in names[:-1]]
        cells += [f"{peaks[row, name]:.0f} MiB" for name in served]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", metavar="NAME=DIR", nargs="+", type=pair, help="directories to compare")
    parser.add_argument("--set", choices=SETS, default="io", help="which jobs (default io)")
    parser.add_argument("--cold", metavar="NAME=COMMAND", action="append", default=[], type=pair)
    parser.add_argument("--away", metavar="NAME=COMMAND", action="append", default=[], type=pair)
    parser.add_argument("--pid", metavar="NAME=COMMAND", action="append", default=[], type=pair)
    parser.add_argument("--away-sets", type=int, default=15, help="sets of disks to take away in turn (default 15)")
    parser.add_argument("--size", type=int, default=512, help="MiB of the large file (default 512)")
    parser.add_argument("--files", type=int, default=5000, help="small files (default 5000)")
    parser.add_argument("--seconds", type=int, default=5, help="length of the timed jobs (default 5)")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default 3)")
    parser.add_argument("--touch", metavar="MIB", type=int, default=0, help="memory to touch before each row (default 0)")
    parser.add_argument("--only", metavar="WORD", action="append", help="rows whose name contains WORD")
    parser.add_argument("--json", metavar="FILE", help="write all values there")
    args = parser.parse_args()
    values, peaks = measure(args)
    print(table(values, peaks, [name for name, _ in args.targets]))
    if args.json:
        flat = [{"row": row, "unit": unit, "values": by_name} for (row, unit), by_name in values.items()]
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(flat, file, indent=1)


if __name__ == "__main__":
    main()
