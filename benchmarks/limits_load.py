"""Table of offered load against admitted requests, for one limit over 1, 4 and 8 workers of a host.

    .venv/bin/python benchmarks/limits_load.py [--seconds 3.99]

Each worker is a process of its own, over one shared file, and offers its share of the load evenly in time. What may be
let in is what the limit says: of windows, `limit` for each that began (the last one has its time); of a
bucket, `burst + seconds * rate`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path

from gobanfast._core.limits import LimitTable

Told = Queue  # of offered, admitted, when the first and the last was let in
LIMIT, WINDOW, BURST = 2000, 1.0, 100
WORKERS, LOADS = (1, 4, 8), (1.0, 1.1, 2.0, 5.0, 10.0)


def offer(path: str, rate: float, start: float, seconds: float, burst: int, told: Told) -> None:
    """Offers `rate` requests a second from `start` on."""
    table = LimitTable(path, capacity=1024)
    offered = admitted = 0
    first = last = 0.0
    while (now := time.monotonic()) < start:
        time.sleep(min(0.01, start - now))
    while (now := time.monotonic()) < start + seconds:
        for _ in range(int((now - start) * rate) - offered):
            offered += 1
            at = int(time.monotonic() * 1000) / 1000  # as exact as the table's clock
            if table.step("take", b"k", LIMIT, WINDOW, burst=burst, now=at)[0]:
                admitted += 1
                last = at
                first = first or at
        time.sleep(0.0005)
    told.put((offered, admitted, first, last))


def run(workers: int, load: float, burst: int, seconds: float) -> tuple[int, int, float]:
    """(offered, admitted, admitted of what may be)."""
    told: Told = multiprocessing.Queue()
    rate = load * LIMIT / WINDOW / workers
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "limits")
        holder = LimitTable(path, capacity=1024)
        start = time.monotonic() + 1.0
        arguments = path, rate, start, seconds, burst, told
        started = [multiprocessing.Process(target=offer, args=arguments) for _ in range(workers)]
        for process in started:
            process.start()
        found = [told.get() for _ in started]
        for process in started:
            process.join()
        del holder
    offered, admitted = sum(one[0] for one in found), sum(one[1] for one in found)
    took = round(1000 * (max(one[3] for one in found) - min(one[2] for one in found if one[2])))
    windows = 1 + int(took // (1000 * WINDOW))  # that began
    most = burst + took * LIMIT / WINDOW / 1000 if burst else LIMIT * windows
    return offered, admitted, admitted / min(most, offered)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=3.99)
    options = parser.parse_args()
    print("| workers | offered, of the limit | window: admitted, of what may be | bucket |\n|---|---|---|---|")
    for count in WORKERS:
        for load in LOADS:
            shares = [run(count, load, burst, options.seconds)[2] for burst in (0, BURST)]
            print(f"| {count} | {load:g}x | {shares[0]:.2%} | {shares[1]:.2%} |", flush=True)
