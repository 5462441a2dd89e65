#!/usr/bin/env python3
"""Shows what the number of files costs: time per create in one directory and in a thousand, and time to mount.

    contrib/bench/growth.py --cold 'ironfs umount /mnt/iron; ironfs mount volume.toml /mnt/iron' /mnt/iron
    contrib/bench/growth.py --max 100000 --cold COMMAND /mnt/iron

Files are empty. A line stands for the files made since the line before it.
"""

import argparse
import os

from jobs import run, seconds, sync

STEPS = (1_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)


def one(root, number):
    """All in one directory."""
    return os.path.join(root, f"{number:07}")


def thousand(root, number):
    """Spread over a thousand directories."""
    return os.path.join(root, f"{number % 1000:03}", f"{number:07}")


def create(path, root, numbers):
    """Makes the files and has them on disk."""
    for number in numbers:
        os.close(os.open(path(root, number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    sync(root)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", metavar="DIR", help="an empty directory of the mount")
    parser.add_argument("--cold", metavar="COMMAND", required=True, help="unmounts and mounts again")
    parser.add_argument("--max", type=int, default=STEPS[-1], help="files in each layout (default 1000000)")
    args = parser.parse_args()
    print("| files in each layout | one directory, us per create | 1000 directories, us per create | unmount and mount, s |")
    print("|---|---|---|---|", flush=True)
    roots = {layout: os.path.join(args.directory, layout.__name__) for layout in (one, thousand)}
    for root in roots.values():
        os.makedirs(root)
    for number in range(1000):
        os.mkdir(os.path.join(roots[thousand], f"{number:03}"))
    made = 0
    for count in [step for step in STEPS if step <= args.max]:
        each = [seconds(lambda: create(layout, root, range(made, count))) / (count - made) * 1e6
                for layout, root in roots.items()]
        made = count
        again = seconds(lambda: run("sh", "-c", args.cold))
        print(f"| {count} | {each[0]:.0f} | {each[1]:.0f} | {again:.2f} |", flush=True)


if __name__ == "__main__":
    main()
