"""Acknowledged means kept: what `flush()` says True of is in the store, whatever queue and file went through."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import stores_fakes
from gobanfast.bans import Ban
from gobanfast.stores import StoreError, Sync, open_store
from gobanfast.stores.memory import MemoryStore
from gobanfast.stores.sqlite import SqliteStore
from gobanfast.stores.store import Changes, Cursor
from stores_fakes import WAIT, FakeEngine, eventually

redis_server, syncs = stores_fakes.redis_server, stores_fakes.syncs


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    """The URI of an empty store that processes share."""
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'bans.db'}"
    return request.getfixturevalue("redis_server").uri


def small(store, room=10, **options):
    """An engine whose queue has little room, in step with a store."""
    engine = FakeEngine()
    sync = Sync(engine, open_store(store) if isinstance(store, str) else store, queue=room, **options)
    sync.start()
    assert sync.ready(WAIT)
    return engine, sync


def keys(store):
    """The keys of all bans in a store."""
    opened = open_store(store) if isinstance(store, str) else store
    return {ban.key for ban in opened.scan()}


# ---- a full queue


def test_flush_is_true_when_all_is_stored_though_the_queue_was_full(place):
    """A loop of bans that is faster than the store: no outage, bans dropped from the queue, none lost."""
    engine, sync = small(place)
    try:
        made = {engine.ban(f"10.0.{n >> 8}.{n & 255}", duration=3600).key for n in range(3000)}
        assert not sync.flush(0)
        assert sync.health()["dropped"] > 0
        assert sync.flush(WAIT)
        assert made == keys(place)
        assert {"behind": False, "outages": 0, "queue": 0}.items() <= sync.health().items()
    finally:
        sync.close()


def test_bans_while_flush_waits(place):
    """What overflows while another thread waits in flush is stored, too, before the next flush is True."""
    engine, sync = small(place)
    try:
        stop, made = threading.Event(), set()

        def ban():
            n = 0
            while not stop.is_set() and n < 4000:
                made.add(engine.ban(f"10.1.{n >> 8}.{n & 255}", duration=3600).key)
                n += 1

        thread = threading.Thread(target=ban)
        thread.start()
        for _ in range(5):
            before = set(made)
            if sync.flush(1):
                assert before <= keys(place)
        stop.set()
        thread.join()
        assert sync.flush(WAIT)
        assert made == keys(place)
    finally:
        sync.close()


def test_lifts_find_room_when_bans_do_not(place):
    """The table cannot make up for a lift, so lifts wait in a longer queue; none is lost."""
    engine, sync = small(place)
    try:
        for n in range(500):
            engine.ban(f"10.0.{n >> 8}.{n & 255}", duration=3600)
        assert sync.flush(WAIT)
        for n in range(400):
            engine.unban(f"10.0.{n >> 8}.{n & 255}")
            engine.ban(f"10.9.{n >> 8}.{n & 255}", duration=3600)
        assert sync.flush(WAIT)
        expected = {ban.key for ban in engine.ban_table.bans()}
        assert 500 == len(expected)
        assert expected == keys(place)
    finally:
        sync.close()


def test_a_ban_without_room_is_not_lifted_by_the_lift_before_it():
    """Lifted, written, and banned again while the queue is full: what the store then says of the lift is older."""
    store, engine = MemoryStore(), FakeEngine()
    engine.ban("10.0.0.1", duration=3600)
    sync = Sync(engine, store, queue=1)  # not started: each step of its threads is taken here
    sync._cursor = store.watch(None, timeout=0).cursor
    sync._resync("first", sync._cursor)
    sync._write_batch()
    engine.unban("10.0.0.1")
    sync._follow()
    sync._write_batch()
    engine.ban("10.0.0.2", duration=3600)
    engine.ban("10.0.0.1", duration=60)
    sync._follow()
    assert 1 == sync.health()["dropped"]
    sync._take(store.watch(sync._cursor, timeout=0).changes)

    assert engine.banned("10.0.0.1")
    sync._write_batch()
    sync._resync("overflow")
    sync._write_batch()
    assert {"10.0.0.1", "10.0.0.2"} == keys(store)
    assert set() == sync._dropped


def test_what_was_shortened_while_nobody_looked_is_shorter_here():
    """A ban that others lifted and made again, shorter, ends when the store says, also after a whole reading."""
    store, engine = MemoryStore(), FakeEngine()
    store.set(Ban("10.0.0.1", expires=time.time() + 9000))
    sync = Sync(engine, store)
    sync._resync("first", store.watch(None, timeout=0).cursor)
    short = Ban("10.0.0.1", expires=time.time() + 60)
    store.apply([("10.0.0.1", None), ("10.0.0.1", short)])
    sync._resync("trimmed", store.watch(None, timeout=0).cursor)

    assert short.expires == pytest.approx(engine.ban_table.get("10.0.0.1").expires, abs=0.01)


def test_a_lift_without_room_is_undone_and_said(monkeypatch, caplog):
    """When even the longer queue is full, the ban comes back from the store, so both say the same; the log names it."""
    monkeypatch.setattr("gobanfast.stores.sync.LIFTS", 20)
    store = Slow()
    engine, sync = small(store)
    try:
        for n in range(60):
            engine.ban(f"10.0.0.{n}", duration=3600)
        assert sync.flush(WAIT)
        store.wait.clear()
        for n in range(60):
            engine.unban(f"10.0.0.{n}")
        assert not sync.flush(0.05)
        store.wait.set()
        assert sync.flush(WAIT)
        expected = {ban.key for ban in engine.ban_table.bans()}
        assert expected
        assert expected == keys(store)
        assert any("no room to lift 10.0.0.59" in text for text in caplog.messages)
    finally:
        sync.close()


class Slow(MemoryStore):
    """A memory store that can be held up, without failing."""

    def __init__(self):
        super().__init__()
        self.wait = threading.Event()
        self.wait.set()

    def apply(self, writes, *, now=None):
        """As the memory store, once it may."""
        self.wait.wait(WAIT)
        return super().apply(writes, now=now)


def test_overflow_during_an_outage(syncs, tmp_path):
    """Bans dropped while the file is locked are written when it is free."""
    path = tmp_path / "bans.db"
    engine, sync = small(f"sqlite:{path}")
    try:
        holder = sqlite3.connect(path, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        made = {engine.ban(f"10.0.0.{n}", duration=3600).key for n in range(200)}
        assert not sync.flush(0.1)
        holder.execute("ROLLBACK")
        holder.close()
        assert sync.flush(2 * WAIT)
        assert made == keys(f"sqlite:{path}")
    finally:
        sync.close()


def test_two_engines_that_overflow_at_once(place):
    """Both make up for what they dropped, and what one lifted meanwhile the other does not bring back."""
    (one, sync), (two, other) = small(place), small(place)
    try:
        one.ban("192.0.2.1", duration=3600)
        assert sync.flush(WAIT)
        assert eventually(lambda: two.banned("192.0.2.1"))
        one.unban("192.0.2.1")
        for n in range(800):
            one.ban(f"10.0.{n >> 8}.{n & 255}", duration=3600)
            two.ban(f"10.1.{n >> 8}.{n & 255}", duration=3600)
        assert sync.flush(WAIT)
        assert other.flush(WAIT)
        expected = {f"10.{m}.{n >> 8}.{n & 255}" for n in range(800) for m in range(2)}
        assert expected == keys(place)
        for engine in (one, two):
            assert eventually(lambda: expected == {ban.key for ban in engine.ban_table.bans()})  # noqa: B023
    finally:
        sync.close()
        other.close()


def test_what_was_banned_before_attaching_counts_for_flush(place):
    """Bans that the table has when the sync starts are in the store when flush is True, though they never queued up."""
    engine = FakeEngine()
    made = {engine.ban(f"10.0.{n >> 8}.{n & 255}", duration=3600).key for n in range(1000)}
    sync = Sync(engine, open_store(place), queue=10)
    sync.start()
    try:
        assert sync.flush(WAIT)
        assert made == keys(place)
    finally:
        sync.close()


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
from stores_fakes import FakeEngine
from gobanfast.stores import Sync, open_store
engine = FakeEngine()
sync = Sync(engine, open_store(sys.argv[1]), queue=20)
sync.start()
for n in range(100000):
    for m in range(100):
        engine.ban(f"10.{n >> 8 & 255}.{n & 255}.{m}", duration=3600)
    if sync.flush(20):
        print(n, flush=True)
"""


def test_killed_while_the_queue_overflows_loses_nothing_acknowledged(place):
    """SIGKILL in the middle: every ban of a round that flush said True of is in the store."""
    writer = subprocess.Popen(
        [sys.executable, "-c", KILLED, place, str(Path(__file__).parents[1])], stdout=subprocess.PIPE
    )  # fmt: skip
    for _ in range(3):
        last = int(writer.stdout.readline())
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.communicate(timeout=WAIT)[0].split()
    last = int(rest[-1]) if rest else last

    assert set() == {f"10.{n >> 8 & 255}.{n & 255}.{m}" for n in range(last + 1) for m in range(100)} - keys(place)


# ---- a file that another one takes the place of


def another(path):
    """A file of bans with another name of its own."""
    store = SqliteStore(path)
    store.set(Ban("192.0.2.99"))
    store.close()
    return path


def renamed(path, folder):
    """Another file is renamed over it; the write-ahead log of the old one stays."""
    os.replace(another(folder / "other.db"), path)


def deleted(path, _folder):
    """The file alone goes."""
    path.unlink()


def moved(path, folder):
    """The file is moved away, with its logs."""
    for end in ("", "-wal", "-shm"):
        if (path.parent / f"{path.name}{end}").exists():
            os.replace(f"{path}{end}", f"{folder / 'away.db'}{end}")


def made_again(path, folder):
    """Deleted, and an empty store made in its place by another process."""
    moved(path, folder)
    another(path)


def retargeted(path, folder):
    """A symbolic link that points to another file."""
    target = another(folder / "target.db")
    (folder / "link").symlink_to(target)
    os.replace(folder / "link", path)


def restored(path, folder):
    """A copy made earlier, which has the same name inside, comes back."""
    os.replace(folder / "copy.db", path)


@pytest.mark.parametrize("change", [renamed, deleted, moved, made_again, retargeted, restored])
def test_a_replaced_file_is_noticed_before_a_write_is_told_as_done(change, tmp_path, syncs):
    """Whatever takes the place of the file, flush True means that the ban is in what is there now; old bans, too."""
    path = tmp_path / "bans.db"
    if change is retargeted:
        path.symlink_to(tmp_path / "first.db")
    engine, sync = syncs(f"sqlite:{path}")
    engine.ban("203.0.113.1", duration=3600)
    assert sync.flush(WAIT)
    if change is restored:
        with sqlite3.connect(path) as db:
            copy = sqlite3.connect(tmp_path / "copy.db")
            db.backup(copy)
            copy.close()
        db.close()
    for n in range(2, 6):
        engine.ban(f"203.0.113.{n}", duration=3600)
    assert sync.flush(WAIT)
    change(path, tmp_path)
    engine.ban("203.0.113.77", duration=3600)
    assert sync.flush(WAIT)

    assert "203.0.113.77" in keys(f"sqlite:{path}")
    expected = {f"203.0.113.{n}" for n in range(1, 6)} | {"203.0.113.77"}
    assert eventually(lambda: expected <= keys(f"sqlite:{path}"))
    store = SqliteStore(path)
    assert [("ok",)] == store._read("PRAGMA integrity_check", ())
    store.close()


def test_a_write_to_a_file_that_is_gone_is_an_error(tmp_path):
    """Replaced between the beginning of a write and its commit: the write is not told as done, and repeated."""
    path = tmp_path / "bans.db"
    store = SqliteStore(path)
    store.set(Ban("203.0.113.1"))

    def act(db):
        renamed(path, tmp_path)
        return db.execute("UPDATE state SET seq = seq + 1")

    with pytest.raises(StoreError, match="the file was replaced during a write"):
        store._transact(act)
    store.set(Ban("203.0.113.2"))
    assert {"192.0.2.99", "203.0.113.2"} == keys(f"sqlite:{path}")
    store.close()


def test_two_processes_notice_and_neither_takes_the_new_log_away(tmp_path):
    """The first that sees a stale write-ahead log removes it; the second leaves the new one, with what is in it."""
    path = tmp_path / "bans.db"
    one, two = SqliteStore(path), SqliteStore(path)
    one.set(Ban("203.0.113.1"))
    cursor = two.watch(None, timeout=0).cursor
    renamed(path, tmp_path)
    one.set(Ban("203.0.113.2"))
    assert "replaced" == two.watch(cursor, timeout=0).gap
    two.set(Ban("203.0.113.3"))
    one.set(Ban("203.0.113.4"))

    expected = {"192.0.2.99", "203.0.113.2", "203.0.113.3", "203.0.113.4"}
    assert expected == {ban.key for ban in one.scan()} == {ban.key for ban in two.scan()}
    one.close()
    two.close()
    assert expected == keys(f"sqlite:{path}")


def test_a_redis_that_lost_its_bans_is_made_up_for_before_flush_is_true(redis_server):
    """FLUSHALL: once the loss is seen, flush is False until every ban is there again."""
    engine, sync = small(redis_server.uri)
    try:
        made = {engine.ban(f"10.0.0.{n}", duration=3600).key for n in range(200)}
        assert sync.flush(WAIT)
        resyncs = sync.health()["resyncs"]
        sync.store._ask("FLUSHALL")
        assert eventually(lambda: sync.health()["resyncs"] > resyncs)
        assert sync.flush(WAIT)
        assert made == keys(redis_server.uri)
    finally:
        sync.close()


class EmptiedBetween(MemoryStore):
    """Another store, and an empty one, between what a watch says and the scan that follows it."""

    emptied = False

    def watch(self, cursor, *, timeout):
        if not self.emptied and cursor is not None and self._bans:
            return Changes((), Cursor(self._name, self._position), "trimmed")
        return super().watch(cursor, timeout=timeout)

    def scan(self, prefix="", *, now=None):
        if self._bans and not self.emptied:
            self.emptied, self._name = True, "another"
            self._bans.clear()
        return super().scan(prefix, now=now)


def test_a_store_that_is_emptied_while_it_is_read_again_lifts_nothing():
    """What a store has lost by the time of the scan was lifted by nobody: it is written again from the table."""
    engine, sync = small(EmptiedBetween())
    try:
        key = engine.ban("192.0.2.1", duration=3600).key
        assert eventually(lambda: sync.store.emptied)
        assert eventually(lambda: {key} == keys(sync.store))
        assert engine.banned(key)
    finally:
        sync.close()
