"""What goes wrong with SQLite and Redis while engines are in step with them. Decisions always go on."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import stores_fakes
from gobanfast.bans import Ban
from gobanfast.stores import open_store
from stores_fakes import WAIT, eventually

redis_server, syncs = stores_fakes.redis_server, stores_fakes.syncs

# ---- SQLite


def test_sqlite_locked_read_only_and_replaced(tmp_path, syncs):
    """While another process holds the lock, decisions go on and bans wait; a replaced file gets the bans from us."""
    path = tmp_path / "bans.db"
    one, sync = syncs(f"sqlite:{path}")
    one.ban("203.0.113.7")
    assert sync.flush()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    one.ban("203.0.113.8")
    assert not sync.flush(1.5)
    assert one.banned("203.0.113.8")
    assert eventually(lambda: "database is locked" in sync.health()["error"])
    holder.execute("ROLLBACK")
    holder.close()
    assert sync.flush(WAIT)

    for name in ("bans.db", "bans.db-wal", "bans.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    with open_store(f"sqlite:{path}").__class__(path)._open() as db:
        db.execute("SELECT 1")
    assert eventually(lambda: {"203.0.113.7", "203.0.113.8"} == {b.key for b in open_store(f"sqlite:{path}").scan()})


@pytest.mark.skipif(os.geteuid() != 0, reason="the test gives up root to meet a file it may not write")
def test_sqlite_read_only():
    """A file that may be read and not written: stored bans hold, new ones hold here, and health says what is wrong."""
    folder = Path(tempfile.mkdtemp())  # not pytest's own, which others may not enter
    folder.chmod(0o755)
    store = open_store(f"sqlite:{folder / 'bans.db'}")
    store.set(Ban("203.0.113.7"))
    store.close()
    code = """
import os, secrets, sqlite3, sys, time
sys.path.insert(0, sys.argv[2])
from stores_fakes import FakeEngine, eventually
from gobanfast.stores import attach, open_store
open_store(sys.argv[1]).close()  # imports all of it, as nobody else may enter the folder that the sources are in
os.setuid(65534)
engine = FakeEngine()
sync = attach(engine, sys.argv[1])
engine.ban("203.0.113.8")
assert eventually(lambda: engine.banned("203.0.113.7"))
assert eventually(lambda: sync.outage), sync.health()
assert not sync.flush(0.1) and engine.banned("203.0.113.8")
print(sync.health()["error"])
sync.close(0.1)
"""
    # The write-ahead log's index has to be there, because a reader without write access cannot make it.
    keeper = sqlite3.connect(folder / "bans.db")
    keeper.execute("SELECT * FROM state").fetchall()
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:{folder / 'bans.db'}", str(Path(__file__).parents[1])],
        capture_output=True, text=True, timeout=2 * WAIT, check=False,
    )  # fmt: skip
    keeper.close()
    shutil.rmtree(folder)

    assert (0, "") == (done.returncode, done.stderr.replace("store outage", "")[:0]), done.stderr
    assert "readonly database" in done.stdout


def test_sqlite_on_a_full_disk(tmp_path):
    """When the file cannot grow, decisions go on, nothing is lost, and all is written once there is room."""
    code = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
from stores_fakes import FakeEngine, eventually
from gobanfast.stores import attach
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
engine = FakeEngine()
sync = attach(engine, sys.argv[1])
engine.ban("203.0.113.7")
assert sync.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
for n in range(5000):
    engine.ban(f"10.0.{n >> 8}.{n & 255}", reason="x" * 100)
assert eventually(lambda: sync.outage), sync.health()
print(sync.health()["error"])
assert engine.banned("10.0.1.1") and not sync.flush(0.1)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert sync.flush(20)
assert 5001 == sum(1 for _ in sync.store.scan())
sync.close()
"""
    done = subprocess.run(
        [sys.executable, "-c", code, f"sqlite:{tmp_path / 'bans.db'}", str(Path(__file__).parents[1])],
        capture_output=True, text=True, timeout=3 * WAIT, check=False,
    )  # fmt: skip

    assert 0 == done.returncode, done.stderr
    assert "full" in done.stdout or "disk I/O error" in done.stdout
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


# ---- Redis


def test_redis_killed_and_restarted_empty(redis_server, syncs):
    """Without Redis decisions go on; an empty one that comes in its place gets every ban again, from each engine."""
    (one, sync), (two, other) = syncs(redis_server.uri), syncs(redis_server.uri)
    one.ban("203.0.113.7")
    assert eventually(lambda: two.banned("203.0.113.7"))
    redis_server.kill()
    one.ban("203.0.113.8", duration=600)
    two.ban("203.0.113.9")
    assert eventually(lambda: sync.outage and other.outage)
    assert one.banned("203.0.113.7") and one.banned("203.0.113.8") and two.banned("203.0.113.7")  # noqa: PT018
    redis_server.start()

    everything = {"203.0.113.7", "203.0.113.8", "203.0.113.9"}
    for engine in (one, two):
        assert eventually(lambda: everything == {ban.key for ban in engine.ban_table.bans()})  # noqa: B023
    assert eventually(lambda: everything == {ban.key for ban in open_store(redis_server.uri).scan()})
    assert eventually(lambda: not sync.outage and not other.outage)


def test_redis_hangs(redis_server, syncs):
    """A stopped Redis costs decisions nothing: a ban is in force at once, and written when it goes on."""
    one, sync = syncs(redis_server.uri)
    redis_server.hang()
    started = time.monotonic()
    for n in range(100):
        one.ban(f"10.0.0.{n}")
    assert one.banned("10.0.0.99")
    assert time.monotonic() - started < 1  # the server's timeout; the calls take microseconds
    assert eventually(lambda: sync.outage)
    redis_server.go_on()

    assert sync.flush(WAIT)
    assert 100 == sum(1 for _ in sync.store.scan())


def test_redis_is_full(redis_server, syncs):
    """At maxmemory with noeviction, reads go on, writes wait, and the reason is in the health report."""
    one, sync = syncs(redis_server.uri)
    one.ban("203.0.113.7")
    assert sync.flush()
    sync.store._ask("CONFIG", "SET", "maxmemory", "1000000")
    one.ban("203.0.113.8")
    assert eventually(lambda: sync.outage)
    assert "maxmemory" in sync.health()["error"]
    assert one.banned("203.0.113.7") and one.banned("203.0.113.8")  # noqa: PT018
    sync.store._ask("CONFIG", "SET", "maxmemory", "0")

    assert sync.flush(WAIT)
    assert sync.store.exists("203.0.113.8")


def test_redis_stream_trimmed_while_away(redis_server, syncs):
    """Who missed more than the stream keeps reads the whole store, lifted keys included."""
    one, sync = syncs(redis_server.uri)
    one.ban("203.0.113.7")
    assert sync.flush()
    watcher = open_store(redis_server.uri)
    cursor = watcher.watch(None, timeout=0).cursor
    watcher.apply([("203.0.113.7", None), ("203.0.113.8", Ban("203.0.113.8")), ("203.0.113.9", Ban("203.0.113.9"))])
    watcher._ask("XTRIM", "gobanfast:changes", "MAXLEN", "1")

    assert "trimmed" == watcher.watch(cursor, timeout=0).gap
    sync._cursor = cursor
    assert eventually(lambda: {"203.0.113.8", "203.0.113.9"} == {ban.key for ban in one.ban_table.bans()})
