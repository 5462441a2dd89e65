"""Throughput against the number of writers and readers."""

from pathlib import Path

from jobs import rate, sync

COUNTS = (1, 2, 4, 8, 16)


def rows(args):
    """Name, unit and job of each row."""
    def write(jobs):
        def job(directory, cold):
            # All begin with the same room: memory is what the disks, and the kernel's caches of both sides, are made of.
            for file in Path(directory).glob("scale*"):
                file.unlink()
            sync(directory)
            cold()
            return rate(directory, f"scale{jobs}", "write", "MiB/s", jobs, rw="write", bs="1m", size=f"{args.size // jobs}m",
                        end_fsync=1)
        return job

    def read(jobs):
        def job(directory, cold):
            cold()
            return rate(directory, f"scale{jobs}", "read", "MiB/s", jobs, rw="read", bs="1m", size=f"{args.size // jobs}m")
        return job

    def random(kind, jobs):
        def job(directory, cold):
            cold()
            options = {"end_fsync": 1} if kind == "write" else {}
            return rate(directory, f"scale{jobs}", kind, "op/s", jobs, rw=f"rand{kind}", bs="4k", direct=1,
                        size=f"{args.size // jobs}m", runtime=args.seconds, time_based=True, **options)
        return job

    found = []
    for jobs in COUNTS:
        found += [
            (f"1 MiB sequential write, {jobs} writers", "MiB/s", write(jobs)),
            (f"1 MiB sequential read, cold, {jobs} readers", "MiB/s", read(jobs)),
            (f"4 KiB random read, direct, cold, {jobs} readers", "op/s", random("read", jobs)),
            (f"4 KiB random write, direct, {jobs} writers", "op/s", random("write", jobs)),
        ]
    return found
