"""What the jobs of all sets are made of: fio, clocks, syncs."""

import json
import os
import subprocess
import sys
import time


def run(*command, **options):
    """Runs a command; its failure ends the benchmark."""
    result = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    if result.returncode != 0:
        sys.exit(f"bench: {' '.join(command)}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


def fio(directory, name, **options):
    """One fio job; answers its JSON."""
    command = ["fio", "--output-format=json", f"--name={name}", f"--directory={directory}", "--fallocate=none"]
    command += [f"--{key}" if value is True else f"--{key}={value}" for key, value in options.items()]
    output = run(*command)
    return json.loads(output[output.index("{"):])


def rate(directory, name, kind, unit, jobs=1, **options):
    """Sum over the jobs of what one fio job moved: MiB/s, or operations per second."""
    output = fio(directory, name, numjobs=jobs, group_reporting=True, **options)["jobs"][0][kind]
    return output["bw_bytes"] / 2**20 if unit == "MiB/s" else output["iops"]


def p99(directory, name, kind, **options):
    """99th percentile of the latencies of one fio job in microseconds; `kind` is read, write or sync."""
    job = fio(directory, name, **options)["jobs"][0]
    latency = job["sync"]["lat_ns"] if kind == "sync" else job[kind]["clat_ns"]
    return latency["percentile"]["99.000000"] / 1000


def sync(directory):
    """fsync of the directory: what came before is durable."""
    handle = os.open(directory, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def seconds(work):
    """How long `work` takes."""
    start = time.monotonic()
    work()
    return time.monotonic() - start
