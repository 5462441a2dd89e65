#!/usr/bin/env python3
"""Shows how many bytes the server writes to its disks for each byte that a user writes.

    contrib/bench/amplification.py --pid "$(ironfs status --json /mnt/iron | jq .pid)" /mnt/iron

Counted are the bytes that the server passes to write calls (`wchar` of /proc/PID/io): data, parity, log, copies of the
metadata, cleaning, and the answers to the kernel, which are small for writes. Each row ends when the directories of the
disks have been still for a while, so that cleaning that it caused is counted.
"""

import argparse
import os
import shutil
import time

from jobs import fio, sync

QUIET_SECONDS = 12


def written(pid):
    """Bytes that the process has passed to write calls."""
    with open(f"/proc/{pid}/io", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("wchar"))


def settle(pid, directory):
    """Waits until nothing but small things is written."""
    sync(directory)
    before = written(pid)
    while True:
        time.sleep(QUIET_SECONDS)
        now = written(pid)
        if now - before < 1 << 20:
            return now
        before = now


def rows(args, place):
    """Name, and a job that answers how many bytes it has written."""
    size = f"{args.size}m"

    def stream():
        fio(place, "stream", rw="write", bs="1m", size=size, end_fsync=1, filename="stream")
        return args.size << 20

    def random():
        fio(place, "random", rw="randwrite", bs="4k", size=size, io_size=f"{args.size * 2}m", end_fsync=1, filename="stream")
        return args.size * 2 << 20

    def direct():
        fio(place, "direct", rw="randwrite", bs="4k", direct=1, size=size, io_size=size, end_fsync=1, filename="stream")
        return args.size << 20

    def synced():
        fio(place, "synced", rw="write", bs="4k", size="64m", fsync=1, filename="synced")
        return 64 << 20

    def small():
        for number in range(args.files):
            if number % 100 == 0:
                os.makedirs(os.path.join(place, "small", f"{number // 100}"))
            with open(os.path.join(place, "small", f"{number // 100}", f"{number}"), "wb", buffering=0) as file:
                file.write(os.urandom(4096))
        return args.files * 4096

    return [
        ("1 MiB sequential write", stream),
        ("4 KiB random write over it, twice its size, with cleaning", random),
        ("the same once, past the kernel's cache", direct),
        ("4 KiB write + fsync each", synced),
        ("create 4 KiB files", small),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR", help="a directory of the mount")
    parser.add_argument("--pid", type=int, required=True, help="the server's process")
    parser.add_argument("--size", type=int, default=512, help="MiB of the large file (default 512)")
    parser.add_argument("--files", type=int, default=5000, help="small files (default 5000)")
    args = parser.parse_args()
    place = os.path.join(args.directory, f"bench-{os.getpid()}")
    os.makedirs(place)
    print("| row | bytes to disks / bytes by the user |")
    print("|---|---|", flush=True)
    before = settle(args.pid, place)
    for name, job in rows(args, place):
        user = job()
        now = settle(args.pid, place)
        print(f"| {name} | {(now - before) / user:.2f} |", flush=True)
        before = now
    shutil.rmtree(place)


if __name__ == "__main__":
    main()
