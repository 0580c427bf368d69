"""Stores alone: each against the oracle, what they refuse, and what survives."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gobanfast import FormatError
from gobanfast.bans import Ban
from gobanfast.stores import AsyncStore, Cursor, StoreError, decode_ban, encode_ban, open_store, store_name
from gobanfast.stores.breaker import Breaker
from oracle.store import OracleStore
from stores_fakes import WAIT, eventually, redis_server  # noqa: F401 - a fixture

NOW = 1_800_000_000.0
KEYS = ["203.0.113.7", "2001:db8::1", "203.0.113.0/24", "AS64500", "gh2:" + "0" * 32, f"gh2:{'f' * 32}@203.0.113.7"]


@pytest.fixture(params=["memory", "sqlite", "redis"])
def store(request, tmp_path):
    """Each kind of store, empty."""
    uri = {"memory": "memory:", "sqlite": f"sqlite:{tmp_path / 'bans.db'}"}.get(request.param)
    opened = open_store(uri or request.getfixturevalue("redis_server").uri + "?prefix=t[1]:")
    yield opened
    opened.close()


expiries = st.one_of(st.none(), st.integers(1, 50).map(lambda ahead: NOW + 1000.0 * ahead))
steps = st.lists(
    st.tuples(st.sampled_from(["set", "extend", "delete", "get"]), st.sampled_from(KEYS), expiries), max_size=30
)


@settings(max_examples=60)
@given(steps=steps)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_store_does_what_the_oracle_does(kind, steps, tmp_path_factory):
    """After any calls, get, exists, scan and the watched changes agree with the definition; time stands still."""
    path = tmp_path_factory.mktemp("store") / "bans.db"
    check_steps(open_store("memory:" if kind == "memory" else f"sqlite:{path}"), steps)


@settings(max_examples=25)
@given(many=st.lists(steps, min_size=1, max_size=6))
def test_redis_does_what_the_oracle_does(redis_session, many):
    """The same of Redis; expiries are thousands of seconds apart, because its clock is its own."""
    for number, steps in enumerate(many):
        store = open_store(f"{redis_session.uri}?prefix=run{number}:")
        check_steps(store, steps)
        store._ask("FLUSHALL")
        store.close()


@pytest.fixture(scope="module")
def redis_session(tmp_path_factory):
    """One Redis for many examples."""
    import shutil

    from stores_fakes import Redis

    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on PATH")
    server = Redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.kill()


def check_steps(store, steps):
    oracle = OracleStore()
    cursor = store.watch(None, timeout=0).cursor
    follower = {}
    for number, (call, key, expires) in enumerate(steps):
        if call == "set":
            store.set(Ban(key, f"r{number}", None, NOW, expires), now=NOW)
            oracle.set(key, expires, f"r{number}", NOW)
        elif call == "extend":
            store.extend(key, expires, now=NOW)
            oracle.extend(key, expires, NOW)
        elif call == "delete":
            assert oracle.delete(key, NOW) == store.delete(key, now=NOW)
        found, expected = store.get(key, now=NOW), oracle.get(key, NOW)
        assert expected == (None if found is None else (found.expires, found.reason))
        assert (expected is not None) == store.exists(key, now=NOW)
        if number % 7 == 3:
            changes = store.watch(cursor, timeout=0)
            cursor = changes.cursor
            follower.update({change.key: change.ban for change in changes.changes})
    assert oracle.scan(NOW) == {ban.key for ban in store.scan(now=NOW)}
    assert {key for key in oracle.scan(NOW) if key.startswith("2")} == {ban.key for ban in store.scan("2", now=NOW)}
    changes = store.watch(cursor, timeout=0)
    follower.update({change.key: change.ban for change in changes.changes})
    assert "" == changes.gap
    assert oracle.held == {key: (ban.expires, ban.reason) for key, ban in follower.items() if ban is not None}


def test_expiry_is_absolute_and_enforced_by_every_read(store):
    """A ban is over at its expiry, whether or not anything was purged; one that is over is not stored."""
    ends = time.time() + 3600
    store.set(Ban("203.0.113.7", expires=ends))
    store.set(Ban("203.0.113.8", expires=ends - 7200))

    assert store.exists("203.0.113.7", now=ends - 0.001)
    assert not store.exists("203.0.113.7", now=ends)
    assert store.get("203.0.113.7", now=ends + 1) is None
    assert [] == list(store.scan(now=ends))
    assert store.extend("203.0.113.7", ends + 60, now=ends) is None
    assert ["203.0.113.7"] == [ban.key for ban in store.scan()]


def test_purge_looks_at_the_expiry_again(store):
    """Purge removes what is over and nothing else, and a ban made again after its end is a new one."""
    now = time.time()
    store.set(Ban("203.0.113.7", "old", expires=now + 3600))
    store.set(Ban("203.0.113.8", "good"))
    store.purge(now=now + 10_000)
    store.set(Ban("203.0.113.7", "new", expires=now + 1800))

    assert store.exists("203.0.113.8")
    if store.uri.startswith("redis"):
        assert 0 < store._ask("PTTL", "t[1]:ban:203.0.113.7") <= 3_600_000
        assert -1 == store._ask("TTL", "t[1]:ban:203.0.113.8")
    else:
        assert "new" == store.get("203.0.113.7").reason


def test_a_sub_millisecond_duration_rounds_up(store):
    """No duration above zero becomes none, which Redis would refuse."""
    now = time.time()
    store.set(Ban("203.0.113.7", expires=now + 1e-5), now=now)


def test_a_batch_is_one_step_and_more_than_one_chunk(store):
    """5,000 changes at once arrive whole and in order."""
    cursor = store.watch(None, timeout=0).cursor
    writes = {f"10.0.{n >> 8}.{n & 255}": Ban(f"10.0.{n >> 8}.{n & 255}", f"r{n}") for n in range(5000)}
    first = store.apply([*writes.items(), ("10.0.0.3", None)])
    seen = []
    while not seen or seen[-1].key != "10.0.0.3":
        changes = store.watch(cursor, timeout=1)
        assert changes.changes
        cursor = changes.cursor
        seen += changes.changes

    assert first == seen[0].position
    assert sorted(change.position for change in seen) == [change.position for change in seen]
    assert {key: None if key == "10.0.0.3" else ban for key, ban in writes.items()} == {
        change.key: change.ban for change in seen
    }
    assert 4999 == sum(1 for _ in store.scan())


def test_watch_says_when_history_is_missing(store):
    """Without a cursor, with another store's, and behind what is kept, the answer is a gap and not silence."""
    store.set(Ban("203.0.113.7"))
    here = store.watch(None, timeout=0)

    assert ("first", "replaced", "trimmed", "replaced") == (
        here.gap,
        store.watch(Cursor("other", 1), timeout=0).gap,
        store.watch(here.cursor._replace(position=-1), timeout=0).gap,
        "replaced" if store.uri == "memory:" else store.watch(here.cursor._replace(position=99), timeout=0).gap,
    )


def test_watch_wakes_when_something_changes(store):
    """A watch that waits comes back with a change another thread makes."""
    import threading

    cursor = store.watch(None, timeout=0).cursor
    timer = threading.Timer(0.1, store.set, [Ban("203.0.113.7", "x")])
    timer.start()
    changes = []
    assert eventually(lambda: changes.extend(store.watch(cursor, timeout=0.4).changes) or changes)
    timer.join()

    assert [("203.0.113.7", "x")] == [(change.key, change.ban.reason) for change in changes]


def test_async_store_is_the_same_store(store):
    """Each call of the protocol can be awaited."""
    awaited = AsyncStore(store)

    async def use():
        await awaited.set(Ban("203.0.113.7", "x"))
        cursor = (await awaited.watch(None, timeout=0)).cursor
        longer = await awaited.extend("203.0.113.7", None)
        seen = [await awaited.exists("203.0.113.7"), longer.reason, len(await awaited.scan("203."))]
        seen += [await awaited.delete("203.0.113.7"), await awaited.get("203.0.113.7")]
        assert (await awaited.watch(cursor, timeout=1)).changes
        assert await awaited.health()
        await awaited.close()
        return seen

    assert [True, "x", 1, True, None] == asyncio.run(use())


def test_names_in_stores_are_readable():
    """Each kind of key has its own name, so `redis-cli` shows what is what."""
    assert [
        "ban:203.0.113.7",
        "ban:2001:db8::1",
        "ban:net:203.0.113.0/24",
        "ban:asn:64500",
        "ban:fp:gh2:" + "0" * 32,
        f"ban:fp:gh2:{'f' * 32}@203.0.113.7",
    ] == [store_name(key) for key in KEYS]


@given(
    key=st.sampled_from(KEYS),
    reason=st.text(max_size=20),
    rule=st.none() | st.text(max_size=9),
    created=st.floats(0, 4e9),
    expires=st.none() | st.floats(0, 4e9),
    count=st.integers(1, 99),
)
def test_records_come_back(key, reason, rule, created, expires, count):
    """Decoding what was encoded gives the same ban, to the last bit of its times."""
    ban = Ban(key, reason, rule, created, expires, count, "tracker")

    assert ban == decode_ban(encode_ban(ban))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ("[]", "has no key"),
        ('{"v":1}', "has no key"),
        ('{"v":2,"key":"AS1"}', "has version 2; this release reads 1"),
        ('{"key":"AS1","expires":"soon"}', "has expires 'soon'; write a number"),
        ('{"key":"AS1","expires":NaN}', "has expires nan"),
        ('{"key":"AS1","rule":7}', "has rule 7; write a text or null"),
    ],
)
def test_bad_records_say_what_is_wrong(text, words):
    """A record that is none is named, with its value."""
    with pytest.raises(ValueError, match=words):
        decode_ban(text)


def test_old_records_are_read_for_good():
    """Version 1 as first written; members of the future are passed over."""
    text = '{"v":1,"key":"AS64500","reason":"x","rule":"r","created":1.5,"expires":null,"count":2,"by":"rule","new":[]}'

    assert Ban("AS64500", "x", "r", 1.5, None, 2, "rule") == decode_ban(text)


@pytest.mark.parametrize("uri", ["", "memory", "memory:x", "sqlite:", "redis:x", "http://x", "x://user:secret@host"])
def test_unknown_stores_are_refused(uri):
    """A URI that names no store is an error with the forms, and without the password."""
    with pytest.raises(ValueError, match="write memory:, sqlite:PATH") as caught:
        open_store(uri)
    assert "secret" not in str(caught.value)


def test_a_password_is_not_shown(redis_server):  # noqa: F811
    """Neither the store nor its errors show it."""
    store = open_store(f"redis://user:secret@127.0.0.1:{redis_server.port}/0")

    assert "secret" not in store.uri
    with pytest.raises(StoreError) as caught:
        store.health()
    assert "secret" not in str(caught.value)


# ---- SQLite: its file


def test_a_later_schema_is_refused_and_left_alone(tmp_path):
    """A file of a later release, or of something else, is named with the place, and not written to."""
    later, other, junk = tmp_path / "later.db", tmp_path / "other.db", tmp_path / "junk.db"
    for path, statement in ((later, "PRAGMA user_version = 2"), (other, "CREATE TABLE t(x)")):
        with sqlite3.connect(path) as db:
            db.execute(statement)
        db.close()
    junk.write_bytes(b"not a database, and longer than its header is" * 100)
    before = [path.read_bytes() for path in (later, junk)]

    with pytest.raises(FormatError, match="schema version 2, this release reads 1 at offset 60"):
        open_store(f"sqlite:{later}").get("AS1")
    with pytest.raises(FormatError, match="database of something else"):
        open_store(f"sqlite:{other}").get("AS1")
    with pytest.raises(StoreError, match="not a database"):
        open_store(f"sqlite:{junk}").get("AS1")
    assert before == [path.read_bytes() for path in (later, junk)]


def test_first_schema_still_opens(tmp_path):
    """A file as the first release made it is read and written."""
    path = tmp_path / "bans.db"
    with sqlite3.connect(path) as db:
        db.executescript(
            """CREATE TABLE bans(key TEXT PRIMARY KEY, seq INTEGER NOT NULL, expires REAL NOT NULL,
                 changed REAL NOT NULL, record TEXT) WITHOUT ROWID;
               CREATE INDEX bans_by_seq ON bans(seq); CREATE INDEX bans_by_expiry ON bans(expires);
               CREATE TABLE state(store TEXT NOT NULL, seq INTEGER NOT NULL, horizon INTEGER NOT NULL);
               INSERT INTO state VALUES('aaaa', 1, 0);
               INSERT INTO bans VALUES('AS1', 1, 1e300, 0, '{"v":1,"key":"AS1","expires":null}');
               PRAGMA user_version = 1;"""
        )
    db.close()
    store = open_store(f"sqlite:{path}")
    store.set(Ban("AS2"))

    assert {"AS1", "AS2"} == {ban.key for ban in store.scan()}


def test_lifted_keys_are_forgotten_after_an_hour_and_a_gap_says_so(tmp_path):
    """Who was away while a lifted key was forgotten must read all."""
    store = open_store(f"sqlite:{tmp_path / 'bans.db'}")
    now = time.time()
    store.set(Ban("AS1"))
    cursor = store.watch(None, timeout=0).cursor
    store.delete("AS1", now=now)
    store.purge(now=now + 3000)
    assert [("AS1", None)] == [(change.key, change.ban) for change in store.watch(cursor, timeout=0).changes]
    store.purge(now=now + 4000)

    assert "trimmed" == store.watch(cursor, timeout=0).gap


WRITER = """
import sys
from gobanfast.bans import Ban
from gobanfast.stores import open_store
store = open_store(sys.argv[1])
for n in range(100000):
    keys = [f"10.{n >> 8 & 255}.{n & 255}.{m}" for m in range(20)]
    store.apply([(key, Ban(key)) for key in keys])
    print(n, flush=True)
"""


def test_killed_in_the_middle_of_writing_loses_nothing_acknowledged(tmp_path):
    """A process killed with SIGKILL while it writes: the file opens, whole, with every batch it had acknowledged."""
    uri = f"sqlite:{tmp_path / 'bans.db'}"
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, uri], stdout=subprocess.PIPE)
        for _ in range(20):
            last = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        rest = writer.communicate(timeout=WAIT)[0].split()
        last = int(rest[-1]) if rest else last
        store = open_store(uri)
        kept = {ban.key for ban in store.scan()}
        (check,) = store._read("PRAGMA integrity_check", ())
        store.close()

        assert ("ok",) == check
        assert set() == {f"10.{n >> 8 & 255}.{n & 255}.{m}" for n in range(last + 1) for m in range(20)} - kept
        assert 0 == len(kept) % 20


def test_two_processes_write_one_file(tmp_path):
    """Writers of several processes take turns; nothing is lost and no position is used twice."""
    path = tmp_path / "bans.db"
    code = (
        "import sys; from gobanfast.bans import Ban; from gobanfast.stores import open_store;"
        "s = open_store(sys.argv[1]);"
        "[s.set(Ban(f'10.0.{sys.argv[2]}.{n}')) for n in range(50)]"
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, f"sqlite:{path}", str(n)]) for n in range(3)]
    assert [0, 0, 0] == [writer.wait(WAIT) for writer in writers]
    store = open_store(f"sqlite:{path}")

    assert 150 == store.health()["position"] == sum(1 for _ in store.scan())


# ---- the breaker


def test_breaker_opens_after_three_failures_and_probes():
    """Three failures in a row open it; one success closes it; pauses double to five seconds."""
    now = [0.0]
    breaker = Breaker(lambda: now[0])
    breaker.failure("a")
    breaker.success(0.01)
    for _ in range(2):
        breaker.failure("b")
    assert ("closed", 0.0) == (breaker.state, breaker.wait())
    breaker.failure("c")
    pauses = []
    for _ in range(7):
        pauses.append(breaker.wait())
        now[0] += pauses[-1]
        assert 0.0 == breaker.wait()
        assert "half-open" == breaker.state
        breaker.failure("d")
    assert [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0] == pytest.approx(pauses)
    now[0] += 5.0
    breaker.wait()
    breaker.success(0.01)

    assert ("closed", 0, "", 1) == (breaker.state, breaker.failures, breaker.error, breaker.opened)


def test_breaker_takes_300_ms_over_the_usual_as_failure():
    """A store that got slow is a store that is out, until slow is the usual."""
    breaker = Breaker(lambda: 0.0)
    for _ in range(50):
        breaker.success(0.01)
    breaker.success(0.3)
    assert "closed" == breaker.state
    for _ in range(3):
        breaker.success(0.5)
    assert "open" == breaker.state
    for _ in range(40):
        breaker.success(0.5)

    assert "closed" == breaker.state


@pytest.mark.parametrize(
    "uri", ["redis+sentinel://user:secret@host/main", "sentinel://host/main", "rediscluster://host"]
)
def test_sentinel_and_cluster_addresses_are_refused_with_what_to_write(uri):
    """Neither is asked; the error says what stands in their place, without the password."""
    with pytest.raises(ValueError, match=r"write redis://host:port/db of one server") as caught:
        open_store(uri)
    assert "secret" not in str(caught.value)
