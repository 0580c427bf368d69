"""BanTable under threads and fork, filled to its million, and under a flood."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from gobanfast import Ban, BanTable
from gobanfast.rules.settings import Escalation

SECONDS = 1.0
STEADY = [f"10.0.{i >> 8}.{i & 255}" for i in range(500)]


def run_all(jobs: list[Callable[[], None]], seconds: float) -> None:
    """Each job over and over in a thread of its own for so long; the first failure of any is raised here."""
    stop, failures = threading.Event(), list[BaseException]()

    def run(job: Callable[[], None]) -> None:
        try:
            while not stop.is_set():
                job()
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            failures.append(error)
            stop.set()

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    stop.wait(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def hammers(bans: BanTable) -> list[Callable[[], None]]:
    """Jobs that ban, lift, extend, purge, iterate and look up; steady bans must be seen by all of them."""
    for key in STEADY:
        bans.ban(key, duration=None, reason=key)

    def write() -> None:
        key = f"10.1.{random.randrange(20)}.{random.randrange(256)}"
        ban = bans.ban(key, duration=random.choice([0.001, 60]), reason=key, by="rule")
        assert ban is None or (key, key) == (ban.key, ban.reason)
        bans.extend(key, expires=None)
        if random.random() < 0.5:
            bans.unban(key)

    def read() -> None:
        for key in random.sample(STEADY, 50):
            ban = bans.lookup(key)
            assert ban is not None
            assert (key, key) == (ban.key, ban.reason)
        assert bans.lookup(f"192.0.2.{random.randrange(256)}") is None

    def iterate() -> None:
        found = [ban.key for ban in bans.bans() if ban.key.startswith("10.0.")]
        assert sorted(STEADY) == sorted(found)

    def purge() -> None:
        bans.purge()
        bans.configure(escalate=Escalation(memory=random.choice([0.001, 60.0])))
        assert len(bans) >= len(STEADY)

    return [write, write, read, read, iterate, purge]


@pytest.mark.parametrize("capacity", [1_000_000, 3_000])
def test_threads_share_a_table(capacity: int) -> None:
    """Whatever other threads write, bans that nobody lifts are found and listed, each once and with its own reason."""
    run_all(hammers(BanTable(capacity=capacity, on_full="evict")), SECONDS)


def exit_code(child: Callable[[], bool]) -> int:
    """That of a forked child: 0 when `child` says True within ten seconds."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)  # a lock that nobody opens any more
        try:
            os._exit(0 if child() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_bans_survive_a_fork() -> None:
    """A child has the bans of its parent, writes its own, and neither sees what the other does afterwards."""
    bans = BanTable()
    bans.ban("192.0.2.1", duration=60)

    def child() -> bool:
        bans.ban("192.0.2.2", duration=60)
        return "192.0.2.1" in bans and "192.0.2.2" in bans and len(bans) == 2

    assert 0 == exit_code(child)
    assert "192.0.2.2" not in bans


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_fork_in_the_middle_of_writes() -> None:
    """However many threads were writing, the child's table is whole and can be written."""
    bans = BanTable(capacity=5_000, on_full="evict")

    def child() -> bool:
        bans.purge()
        listed = {ban.key: ban for ban in bans.bans()}
        fresh = bans.ban("203.0.113.1", duration=60, reason="child")
        return (
            fresh is not None
            and all(key in listed for key in STEADY)
            and all(bans.lookup(key) is not None for key in listed)
        )

    def fork() -> None:
        assert 0 == exit_code(child)

    run_all([*hammers(bans), fork], 2 * SECONDS)


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_a_million_bans_fit_the_budget_and_a_flood_changes_none() -> None:
    """1 M bans take 64 MB and a table takes what it holds; when it is full, 50,000 more bans evict none."""
    before = resident()
    bans = BanTable(clock=lambda: 0.0, offset=0.0, seed=1)  # consecutive addresses: a rare key takes 65 MB for them
    for number in range(1000):
        bans.ban(f"10.9.{number >> 8}.{number & 255}", duration=60)
    assert resident() - before < 8_000_000
    assert bans.nbytes < 100_000

    for number in range(1_000_000 - 1000):
        bans.put(Ban(f"{11 + (number >> 18)}.{number >> 10 & 255}.{number >> 2 & 255}.{number & 3}", expires=60.0))
    assert bans.saturated
    assert bans.nbytes <= 64_000_000
    assert resident() - before <= 68_000_000

    draw = random.Random(3)
    kept = [
        f"{11 + (number >> 18)}.{number >> 10 & 255}.{number >> 2 & 255}.{number & 3}"
        for number in range(0, 999_000, 97)
    ]
    for _ in range(50_000):
        bans.ban(
            f"{draw.randrange(100, 200)}.{draw.randrange(256)}.{draw.randrange(256)}.9", duration=None, by="tracker"
        )
    assert all(key in bans for key in kept)
    assert 1_000_000 == len(bans)
    assert 50_000 == bans.stats()["refused"]
    assert 1_000_000 == bans.purge(now=60)
    assert bans.nbytes <= 64_000_000
