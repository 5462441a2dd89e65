"""Loses the shards of some disks and watches them come back, idle and under a load that verifies what it reads."""

import argparse
import json
import mmap
import multiprocessing
import os
import random
import shutil
import subprocess
import time
import zlib

BLOCK = 64 * 1024
LARGE = 64 << 20
READERS = 2
WAIT_S = 600


def write_files(directory, size):
    """Files of 4 KiB to 64 MiB, `size` bytes in all; answers the CRC-32 of each whole block of each."""
    rng = random.Random(1)
    sums, left, number = {}, size, 0
    while left > 0:
        length = LARGE if rng.random() < 0.05 else rng.choice([4096, BLOCK, 4 * BLOCK, 16 * BLOCK])
        length = min(length, max(left, 4096))
        data = rng.randbytes(length)
        path = os.path.join(directory, f"{number % 64:02}", f"f{number}")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        sums[path] = [zlib.crc32(data[at : at + BLOCK]) for at in range(0, length, BLOCK)]
        left -= length
        number += 1
    return sums


def read_and_verify(sums, seed, stop, queue):
    """Reads random blocks past the kernel's cache until `stop`; tells the latency of each in microseconds."""
    rng = random.Random(seed)
    buffer = mmap.mmap(-1, BLOCK)
    places = [(path, at) for path, blocks in sums.items() for at in range(len(blocks))]
    descriptors, latencies, wrong = {}, [], 0
    while not stop.is_set():
        path, at = rng.choice(places)
        if path not in descriptors:
            if len(descriptors) >= 500:
                os.close(descriptors.pop(next(iter(descriptors))))
            descriptors[path] = os.open(path, os.O_RDONLY | os.O_DIRECT)
        start = time.perf_counter()
        length = os.preadv(descriptors[path], [buffer], at * BLOCK)
        latencies.append((time.perf_counter() - start) * 1e6)
        wrong += zlib.crc32(memoryview(buffer)[:length]) != sums[path][at]
    queue.put((latencies, wrong))


class Load:
    """Readers that run until they are ended."""

    def __init__(self, sums):
        self.stop, self.queue = multiprocessing.Event(), multiprocessing.Queue()
        self.readers = [
            multiprocessing.Process(target=read_and_verify, args=(sums, seed, self.stop, self.queue))
            for seed in range(READERS)
        ]
        for reader in self.readers:
            reader.start()

    def end(self):
        """Blocks read, and the median and p99 in microseconds; ends the program if one was wrong."""
        self.stop.set()
        results = [self.queue.get() for _reader in self.readers]
        for reader in self.readers:
            reader.join()
        wrong = sum(count for _latencies, count in results)
        if wrong:
            raise SystemExit(f"heal: {wrong} blocks were read wrong")
        latencies = sorted(value for found, _wrong in results for value in found)
        return len(latencies), latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]


def shard_bytes(disk):
    """Bytes of all shards on a disk."""
    walk = os.walk(os.path.join(disk, "shards"))
    return sum(os.path.getsize(os.path.join(place, name)) for place, _dirs, names in walk for name in names)


def lose_and_wait(arguments):
    """Deletes the shards of the disks; answers their MB and the seconds until every stripe has its margin again."""
    lost = sum(shard_bytes(disk) for disk in arguments.disks)
    start = time.monotonic()
    for disk in arguments.disks:
        shutil.rmtree(os.path.join(disk, "shards"))
    noticed = False
    while time.monotonic() - start < WAIT_S:
        answer = subprocess.run(
            [arguments.ironfs, "status", "--json", arguments.directory], check=True, capture_output=True
        )
        margins = json.loads(answer.stdout)["stripes_by_margin"]
        noticed = noticed or set(margins) != {"2"}
        if noticed and set(margins) == {"2"}:
            return lost / 1e6, time.monotonic() - start
        time.sleep(0.2)
    raise SystemExit(f"heal: after {WAIT_S} s the margins are {margins}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", metavar="DIR", help="the mount")
    parser.add_argument("--ironfs", required=True, help="the program")
    parser.add_argument("--disks", nargs="+", required=True, help="disks whose shards are deleted")
    parser.add_argument("--size", type=int, default=6144, help="MiB of files (default 6144)")
    parser.add_argument("--seconds", type=int, default=20, help="how long the healthy load is measured (default 20)")
    arguments = parser.parse_args()
    sums = write_files(arguments.directory, arguments.size << 20)
    subprocess.run([arguments.ironfs, "sync", arguments.directory], check=True)
    lost, seconds = lose_and_wait(arguments)
    print("| what | value |\n|---|---|")
    print(f"| shards of two disks lost, nothing else running | {lost:.0f} MB back in {seconds:.1f} s: {lost / seconds:.0f} MB/s |")
    load = Load(sums)
    time.sleep(arguments.seconds)
    count, median, healthy = load.end()
    print(f"| 64 KiB reads, {READERS} readers, healthy | {count / arguments.seconds:.0f} per second, median {median:.0f} us, p99 {healthy:.0f} us |")
    load = Load(sums)
    time.sleep(2)
    lost, seconds = lose_and_wait(arguments)
    _count, median, repairing = load.end()
    print(f"| the same while the shards of two disks come back | {lost:.0f} MB back in {seconds:.1f} s: {lost / seconds:.0f} MB/s; median {median:.0f} us, p99 {repairing:.0f} us, {repairing / healthy:.1f} times |")


if __name__ == "__main__":
    main()
