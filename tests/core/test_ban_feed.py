"""The change feed of a ban table: order, several readers, falling behind, waiting, forks, memory."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable

import pytest

from gobanfast import Ban, BanTable

WINDOW = 65_536  # changes, the last of which is being written
WAIT = 20.0  # generous seconds for what should take milliseconds


class Reader:
    """Bans by key, as a frontend would keep them that has a set of its own."""

    def __init__(self, table: BanTable) -> None:
        self.table, self.rereads = table, 0
        self.bans: dict[str, Ban] = {}
        self.cursor: int | None = None

    def follow(self, limit: int = 1024) -> None:
        """Takes what changed until nothing did."""
        while True:
            before = self.cursor
            changes, self.cursor = self.table.changes(before, limit=limit)
            if changes is None:
                self.rereads += 1
                self.bans = {ban.key: ban for ban in self.table.bans()}
            for change in changes or ():
                if change.event in ("add", "extend"):
                    self.bans[change.ban.key] = change.ban
                else:
                    self.bans.pop(change.ban.key, None)
            if before == self.cursor:
                return


def stored(table: BanTable) -> dict[str, Ban]:
    """All bans of a table by key."""
    return {ban.key: ban for ban in table.bans()}


def fill(table: BanTable, changes: int) -> None:
    """So many changes that leave nothing behind."""
    for _ in range(changes // 2):
        table.ban("192.0.2.99", duration=60)
        table.unban("192.0.2.99")


def test_a_change_says_what_who_and_when() -> None:
    """Each change has the ban as it then stood, whose doing it was, and when; what changes nothing is none."""
    table = BanTable(clock=lambda: 5.0, offset=100.0)
    _, cursor = table.changes()
    table.ban("203.0.113.7", duration=10, reason="x", rule="r", by="tracker", now=1)
    table.ban("203.0.113.7", duration=1, reason="shorter", now=2)
    table.extend("203.0.113.7", expires=150.0, now=3)
    table.put(Ban("AS64500", "there", None, 50.0, None, 3, "rule"), now=4)
    table.put(Ban("AS64500", "there", None, 50.0, None, 9, "rule"), now=4)
    table.unban("203.0.113.7", maker="store")
    table.unban("203.0.113.8")
    first = Ban("203.0.113.7", "x", "r", 101.0, 111.0, 1, "tracker")
    longer = Ban("203.0.113.7", "x", "r", 101.0, 150.0, 1, "tracker")
    changes, last = table.changes(cursor)

    assert changes is not None
    assert [
        ("add", first, "tracker", 101.0),
        ("extend", longer, "manual", 103.0),
        ("add", Ban("AS64500", "there", None, 50.0, None, 3, "rule"), "store", 104.0),
        ("lift", longer, "store", 105.0),
    ] == [(change.event, change.ban, change.maker, change.at) for change in changes]
    assert ([*range(cursor + 1, last + 1)], 4) == ([change.position for change in changes], len(changes))
    assert changes[1:3] == table.changes(changes[0].position, limit=2)[0]
    assert ([], last) == table.changes(last)


def test_that_a_ban_is_over_is_no_change() -> None:
    """Bans that end, are purged or forgotten leave no change: a reader knows their end."""
    table = BanTable()
    table.ban("203.0.113.7", duration=1, now=0)
    _, cursor = table.changes()

    assert 1 == table.purge(now=10)
    assert table.unban("203.0.113.7", now=10) is None
    assert ([], cursor) == table.changes(cursor)


def test_an_evicted_ban_is_told_before_the_one_in_its_place() -> None:
    """A full table drops the ban that ends soonest: the feed has both, in this order, with the maker of the new one."""
    table = BanTable(capacity=2, on_full="evict")
    _, cursor = table.changes()
    for n, by in enumerate(["manual", "rule", "tracker"]):
        table.ban(f"203.0.113.{n}", duration=60 + n, by=by)
    table.ban("203.0.113.9", duration=1)

    assert [
        ("add", "203.0.113.0", "manual"), ("add", "203.0.113.1", "rule"), ("evict", "203.0.113.0", "tracker"),
        ("add", "203.0.113.2", "tracker"),
    ] == [(change.event, change.ban.key, change.maker) for change in table.changes(cursor)[0] or ()]  # fmt: skip


def test_a_reader_too_far_behind_is_told_to_read_all() -> None:
    """Within the window nothing is lost; one change beyond it, the reader is told, and a reader in step is not."""
    table = BanTable()
    _, cursor = table.changes()
    near, far = Reader(table), Reader(table)
    near.follow()
    far.follow()
    fill(table, WINDOW - 2)
    near.follow()
    table.ban("203.0.113.7", duration=60)
    changes, last = table.changes(cursor, limit=2 * WINDOW)

    assert (WINDOW - 1, cursor + WINDOW - 1) == (len(changes or ()), last)
    table.ban("203.0.113.8", duration=60)
    assert (None, cursor + WINDOW) == table.changes(cursor)
    for reader in (near, far):
        reader.follow()
        assert stored(table) == reader.bans
    assert (1, 2) == (near.rereads, far.rereads)


@pytest.mark.parametrize("cursor", [0, 3, 1 << 40, (1 << 64) - 1])
def test_a_cursor_of_nobody_is_told_to_read_all(cursor: int) -> None:
    """A number that no feed gave out, or one of another table, is no error and no silence."""
    table = BanTable()
    _, last = table.changes()

    assert (None, last) == table.changes(cursor)
    assert table.wait(cursor, 0)
    assert (None, 1) == BanTable().changes(0)


@pytest.mark.parametrize("wrong", [-1, 1 << 64])
def test_a_cursor_that_is_no_number_of_64_bits(wrong: int) -> None:
    """Misuse is an error."""
    with pytest.raises(OverflowError):
        BanTable().changes(wrong)
    with pytest.raises(ValueError, match="skip='nobody' is not one of manual, rule, tracker, import, store"):
        BanTable().changes(1, skip="nobody")


def test_memory_is_counted_and_bounded() -> None:
    """A feed that nobody reads takes nothing; one that is read takes 64 bytes a change, and never more than 4 MiB."""
    table = BanTable()
    fill(table, 1000)
    before = table.nbytes
    table.changes()
    assert before == table.nbytes
    fill(table, 1000)
    assert before + 64 * 1000 == table.nbytes
    fill(table, 3 * WINDOW)
    assert before + 4 * 1024 * 1024 == table.nbytes


def test_texts_that_run_out_are_never_those_of_another_ban() -> None:
    """When reasons are used again, a reader gets each change with its own reason, or is told to read all."""
    table = BanTable()
    _, cursor = table.changes()
    told = rereads = 0
    for n in range(150_000):
        key = f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}"
        table.ban(key, duration=60, reason=key)
        table.unban(key)
        if not n % 10_007:
            changes, cursor = table.changes(cursor, limit=WINDOW)
            rereads += changes is None
            told += len(changes or ())
            assert all(change.ban.reason in (change.ban.key, "") for change in changes or ())
    changes, _ = table.changes(cursor, limit=WINDOW)
    kept = [change for change in changes or () if change.ban.reason]

    assert told
    assert kept
    assert all(change.ban.reason == change.ban.key for change in kept)


def test_waiting_ends_with_a_change_and_not_before() -> None:
    """A reader sleeps until something changes, its time is over, or it is woken; a ban that is kept wakes nobody."""
    table = BanTable()
    table.ban("203.0.113.7", duration=60)
    _, cursor = table.changes()
    assert not table.wait(cursor, 0)
    assert not table.wait(cursor, 0.01)
    ends: list[bool] = []

    def waits(after: Callable[[], object]) -> bool:
        threads = [threading.Thread(target=lambda: ends.append(table.wait(cursor, WAIT))) for _ in range(3)]
        ends.clear()
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        while any(thread.is_alive() for thread in threads):
            after()
            time.sleep(0.001)
        return ends == [ends[0]] * 3 and ends[0]

    assert not waits(table.wake)
    assert waits(lambda: table.ban("203.0.113.8", duration=60))
    _, cursor = table.changes()
    assert waits(lambda: (table.ban("203.0.113.8", duration=1), table.unban("203.0.113.9"), table.unban("203.0.113.7")))
    assert table.wait(cursor)


def test_readers_and_writers_at_once() -> None:
    """Whatever threads write, each reader ends with the table's bans, one that reads little by little too."""
    table = BanTable(capacity=300, on_full="evict")
    stop, failures = threading.Event(), list[BaseException]()

    def run(job: Callable[[random.Random], None], seed: int) -> None:
        draw = random.Random(seed)
        try:
            while not stop.is_set():
                job(draw)
        except BaseException as error:  # noqa: BLE001 - raised in the main thread
            failures.append(error)

    def write(draw: random.Random) -> None:
        key = f"10.0.{draw.randrange(2)}.{draw.randrange(256)}"
        if draw.random() < 0.6:
            table.ban(key, duration=draw.randrange(1000, 2000), reason=key)
        elif draw.random() < 0.5:
            table.unban(key)
        else:
            table.extend(key, expires=None)

    readers = [Reader(table) for _ in range(3)]

    def read(reader: Reader, limit: int) -> None:
        if reader.cursor is not None:
            table.wait(reader.cursor, 0.01)
        reader.follow(limit)

    jobs: list[Callable[[random.Random], None]] = [write, write]
    jobs += [lambda _, reader=reader, limit=limit: read(reader, limit) for reader, limit in zip(readers, (1, 7, 1024))]  # type: ignore[misc]  # noqa: B905
    threads = [threading.Thread(target=run, args=(job, seed)) for seed, job in enumerate(jobs)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    stop.set()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    for reader in readers:
        reader.follow()

        assert stored(table) == reader.bans
        assert all(ban.reason == ban.key for ban in reader.bans.values())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_made_by_fork_reads_all_again() -> None:
    """In a child a cursor of before is told to read all, then goes on; in the parent nothing is lost, nobody hangs."""
    table = BanTable()
    _, cursor = table.changes()
    table.ban("203.0.113.7", duration=60)
    waiting = threading.Thread(target=table.wait, args=(cursor + 1, WAIT))
    waiting.start()
    pid = os.fork()
    if pid == 0:
        signal.alarm(10)  # a lock that nobody opens any more
        code = 1
        try:
            changes, here = table.changes(cursor)
            fine = changes is None and table.changes(cursor + 1)[0] is None and ["203.0.113.7"] == list(stored(table))
            threading.Timer(0.01, lambda: table.ban("203.0.113.8", duration=60)).start()
            fine = fine and table.wait(here, 5)
            told, _ = table.changes(here)
            code = 0 if fine and told is not None and ["203.0.113.8"] == [change.ban.key for change in told] else 1
        finally:
            os._exit(code)
    status = os.waitpid(pid, 0)[1]
    table.ban("203.0.113.9", duration=60)
    waiting.join(WAIT)

    assert 0 == os.waitstatus_to_exitcode(status)
    assert not waiting.is_alive()
    assert ["203.0.113.7", "203.0.113.9"] == [change.ban.key for change in table.changes(cursor)[0] or ()]
