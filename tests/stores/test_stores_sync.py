"""Engines and a store in step: propagation, order, outages and policies, forks and clocks. Decisions always go on."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from contextlib import contextmanager

import pytest

import stores_fakes
from gobanfast import Engine, Ruleset
from gobanfast.bans import Ban
from gobanfast.stores import StoreError, attach, open_store
from gobanfast.stores.memory import MemoryStore
from gobanfast.stores.sync import Sync
from stores_fakes import WAIT, FakeEngine, Redis, eventually

redis_server, syncs = stores_fakes.redis_server, stores_fakes.syncs


@pytest.fixture(params=["memory", "sqlite", "redis"])
def place(request, tmp_path):
    """What several engines can share: a store object, or a URI."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'bans.db'}"
    return request.getfixturevalue("redis_server").uri


def test_bans_and_lifts_reach_other_engines(place, syncs):
    """A ban of one is enforced by the other, with all that was known of it; so is its end."""
    one, sync = syncs(place)
    two, other = syncs(place)
    made = one.ban("203.0.113.7", duration=3600, reason="x", rule="r")

    assert sync.flush()
    assert eventually(lambda: two.banned("203.0.113.7"))
    assert made == two.ban_table.get("203.0.113.7")
    two.unban("203.0.113.7")
    assert eventually(lambda: not one.banned("203.0.113.7"))
    assert other.flush()
    assert {"queue": 0, "outage": False, "dropped": 0, "writes": "closed", "reads": "closed"}.items() <= (
        other.health().items()
    )


def test_a_new_engine_starts_with_what_is_stored(place, syncs):
    """Attaching brings the stored bans in before it returns, and stores those the engine had already."""
    one, sync = syncs(place)
    one.ban("203.0.113.7")
    one.ban("AS64500", duration=600)
    assert sync.flush()
    engine = FakeEngine()
    engine.ban("198.51.100.1")
    late = attach(engine, place)
    try:
        assert {"203.0.113.7", "AS64500", "198.51.100.1"} == {ban.key for ban in engine.ban_table.bans()}
        assert eventually(lambda: one.banned("198.51.100.1"))
    finally:
        late.close()


def test_a_shorter_ban_after_a_lift_replaces_the_longer(place, syncs):
    """Lifted and made again in one breath, a ban may be shorter everywhere, though a longer one is never shortened."""
    one, sync = syncs(place)
    two, _ = syncs(place)
    one.ban("AS64500", duration=9000)
    assert sync.flush()
    assert eventually(lambda: two.banned("AS64500"))
    one.unban("AS64500")
    short = one.ban("AS64500", duration=60)

    assert eventually(lambda: short == two.ban_table.get("AS64500"))
    sync.store.set(Ban("AS64500", expires=time.time() + 30))
    assert sync.flush()
    assert short == two.ban_table.get("AS64500")


def test_everyone_ends_with_the_same_bans(place, syncs):
    """Four engines ban and lift the same few keys at once; when they are done, all tables are the store's."""
    engines = [syncs(place) for _ in range(4)]
    keys = [f"10.0.0.{n}" for n in range(8)]

    def work(engine, seed):
        for n in range(120):
            key = keys[(n * 7 + seed) % len(keys)]
            if (n + seed) % 3:
                engine.ban(key, duration=1000 + n)
            else:
                engine.unban(key)
            time.sleep(0.0005)

    threads = [threading.Thread(target=work, args=(engine, seed)) for seed, (engine, _) in enumerate(engines)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(sync.flush(WAIT) for _, sync in engines)
    stored = open_store(place) if isinstance(place, str) else place

    def settled():
        expected = {ban.key: ban.expires for ban in stored.scan()}
        return all(expected == {ban.key: ban.expires for ban in engine.ban_table.bans()} for engine, _ in engines)

    assert eventually(settled)


def test_expired_bans_are_not_brought_in(place, syncs):
    """What is over when it is read stays out; what ends later ends by itself."""
    one, sync = syncs(place)
    one.ban("203.0.113.7", duration=0.3)
    one.ban("203.0.113.8", duration=60)
    sync.flush()
    time.sleep(0.4)
    two, _ = syncs(place)

    assert ["203.0.113.8"] == [ban.key for ban in two.ban_table.bans()]


# ---- a store that fails on command


class Broken(MemoryStore):
    """A memory store that can be down."""

    def __init__(self):
        super().__init__()
        self.down = False

    def apply(self, writes, *, now=None):
        if self.down:
            raise StoreError("broken: down")
        return super().apply(writes, now=now)

    def watch(self, cursor, *, timeout):
        if self.down:
            raise StoreError("broken: down")
        return super().watch(cursor, timeout=min(timeout, 0.05))


@contextmanager
def outage(store, *syncs):
    store.down = True
    assert eventually(lambda: all(sync.outage for sync in syncs))
    yield
    store.down = False
    assert eventually(lambda: not any(sync.outage for sync in syncs))


def test_policy_local_goes_on_with_what_is_known(syncs):
    """Bans known before and made during an outage hold; the others learn of them when it is over."""
    store = Broken()
    (one, sync), (two, other) = syncs(store), syncs(store)
    one.ban("203.0.113.7")
    assert eventually(lambda: two.banned("203.0.113.7"))
    with outage(store, sync, other):
        one.ban("203.0.113.8")
        two.unban("203.0.113.7")
        assert not sync.flush(0.05)
        assert (True, True, False) == (one.banned("203.0.113.7"), one.banned("203.0.113.8"), two.banned("203.0.113.8"))
        assert {"outage": True, "queue": 1, "error": "broken: down", "outages": 1}.items() <= sync.health().items()

    assert eventually(lambda: two.banned("203.0.113.8") and not one.banned("203.0.113.7"))
    assert sync.flush()


def test_policy_open_enforces_no_stored_ban_until_the_store_answers(syncs):
    """Open: what cannot be confirmed is not enforced; new bans are, and all come back."""
    store = Broken()
    one, sync = syncs(store, on_outage="open")
    one.ban("203.0.113.7")
    assert sync.flush()
    with outage(store, sync):
        assert eventually(lambda: not one.banned("203.0.113.7"))
        one.ban("203.0.113.8")
        assert one.banned("203.0.113.8")

    assert eventually(lambda: one.banned("203.0.113.7") and one.banned("203.0.113.8"))
    assert sync.flush()
    assert {"203.0.113.7", "203.0.113.8"} == {ban.key for ban in store.scan()}


def test_policy_closed_is_a_flag_until_the_store_answers(syncs):
    """Closed: during an outage the table is, and holds no ban of its own for it; the store hears nothing of it."""
    store = Broken()
    one, sync = syncs(store, on_outage="closed")
    with outage(store, sync):
        assert eventually(lambda: one.ban_table.closed)
        assert 0 == len(one.ban_table)

    assert eventually(lambda: not one.ban_table.closed)
    assert [] == list(store.scan())


class Watching(logging.Handler):
    """Notes whether a table is closed, and an outage told, at the moment of each line."""

    def __init__(self, sync):
        super().__init__()
        self.sync, self.seen = sync, []

    def emit(self, record):
        self.seen.append((record.levelname, self.sync.engine.ban_table.closed, self.sync.outage))


def test_a_policy_is_at_work_before_anyone_is_told(syncs):
    """A log that hangs keeps nobody's door open, or closed: the line about an outage comes after the policy."""
    store = Broken()
    _, sync = syncs(store, on_outage="closed")
    watching = Watching(sync)
    logging.getLogger("gobanfast.stores").addHandler(watching)
    try:
        with outage(store, sync):
            assert sync.engine.ban_table.closed
        assert not sync.engine.ban_table.closed
        assert eventually(lambda: len(watching.seen) == 2)
    finally:
        logging.getLogger("gobanfast.stores").removeHandler(watching)
    assert [("ERROR", True, True), ("WARNING", False, False)] == watching.seen


@pytest.mark.parametrize("on_full", ["refuse", "evict"])
def test_closed_keeps_out_whoever_no_rule_allows(on_full):
    """With a full table, and without an address or with a malformed one; a client's own ban is what it is told, and
    nothing that is banned or lifted meanwhile opens it."""
    rules = "rules:\n- {id: office, when: {prefix: 192.0.2.0/24}, action: allow}\n"
    rules += f"bans: {{capacity: 10, on_full: {on_full}}}\n"
    store, engine = Broken(), Engine(Ruleset.from_text(rules))
    sync = attach(engine, store, on_outage="closed")
    try:
        for n in range(10):
            engine.ban(f"203.0.113.{n}", duration="1h", reason="own")
        with outage(store, sync):
            asked = ["8.8.8.8", "2001:db8::1", "64:ff9b::808:808", None, "", "nonsense", "203.0.113.77"]
            for said in (engine.decide(text) for text in asked):
                assert ("ban", "outage", "store outage", None) == (said.action, said.cause, said.reason, said.ban)
                assert "the store does not answer" in engine.explain(said)
            assert ("ban", "own") == ((said := engine.decide("203.0.113.7")).cause, said.reason)
            assert ("allow", "rule") == ((said := engine.decide("192.0.2.1")).action, said.cause)
            for n in range(10):
                engine.unban(f"203.0.113.{n}")
            assert "outage" == engine.peek("203.0.113.7").cause
            engine.swap(Ruleset.from_text(rules))
            assert "outage" == engine.decide(None).cause
            assert 8 == engine.decided()["outage", "ban"]
        assert "allow" == engine.decide("8.8.8.8").action
        store.down = True
        assert eventually(lambda: engine.decide(None).action == "ban")
    finally:
        sync.close()
    assert ("allow", False) == (engine.decide("8.8.8.8").action, engine.ban_table.closed)


def test_policies_on_a_real_engine(syncs):
    """Decisions go on in an outage: closed bans all but whom a rule allows, open none, local those that are known."""
    rules = "rules:\n  - {id: office, when: {prefix: 192.0.2.0/24}, action: allow}\n"
    expected = {
        "local": ["allow", "ban", "allow"],
        "open": ["allow", "allow", "allow"],
        "closed": ["allow", "ban", "ban"],
    }
    for policy, actions in expected.items():
        store, engine = Broken(), Engine(Ruleset.from_text(rules))
        sync = attach(engine, store, on_outage=policy)
        try:
            engine.ban("203.0.113.7", duration="1h")
            assert sync.flush()
            asked = ("192.0.2.1", "203.0.113.7", "198.51.100.1")
            with outage(store, sync):
                assert eventually(lambda: actions == [engine.decide(text).action for text in asked])  # noqa: B023
                assert engine.status()["store"]["outage"]
            usual = ["allow", "ban", "allow"]
            assert eventually(lambda: usual == [engine.decide(text).action for text in asked])  # noqa: B023
        finally:
            sync.close()
        assert engine.sync is None


def test_bans_that_decisions_make_reach_other_engines(place, syncs):
    """A rule with `for:` bans in the course of a decision; the store has it, and another engine enforces it."""
    rules = "rules:\n  - {id: names, when: {sni: .evil.example}, action: ban, for: 1h, reason: name}\n"
    one, two = (Engine(Ruleset.from_text(rules)) for _ in range(2))
    ties = [attach(engine, place) for engine in (one, two)]
    try:
        assert "ban" == one.decide("203.0.113.7", sni="www.evil.example").action
        assert ties[0].flush()
        assert eventually(lambda: ("ban", "names") == (two.decide("203.0.113.7").cause, two.decide("203.0.113.7").rule))
        assert "allow" == two.decide("203.0.113.8").action
    finally:
        for tie in ties:
            tie.close()


def test_a_full_queue_drops_loudly_and_makes_up_for_it(syncs, caplog):
    """What does not fit the queue is counted, logged, and written from the table after the outage."""
    store = Broken()
    engine = FakeEngine()
    sync = Sync(engine, store, queue=10)
    sync.start()
    try:
        assert sync.ready(WAIT)
        with outage(store, sync):
            for n in range(30):
                engine.ban(f"10.0.0.{n}")
            engine.unban("10.0.0.1")
            assert not sync.flush(0)
            assert 20 == sync.health()["dropped"]
            assert 1 == sum("queue of 10 changes is full" in text for text in caplog.messages)
        expected = {f"10.0.0.{n}" for n in range(30) if n != 1}
        assert eventually(lambda: expected == {ban.key for ban in store.scan()})
        assert expected == {ban.key for ban in engine.ban_table.bans()}
    finally:
        sync.close()


def test_errors_that_no_one_foresaw_do_not_stop_the_threads(syncs, caplog):
    """A store that raises anything at all is a store that fails."""
    store = Broken()
    _, sync = syncs(store)
    store.watch = lambda cursor, *, timeout: 1 / 0
    assert eventually(lambda: sync.outage)
    del store.watch

    assert eventually(lambda: not sync.outage)
    assert sync.health()["running"]
    assert "division by zero" in caplog.text


# ---- clocks


def test_a_clock_that_jumps_lifts_nothing(syncs):
    """Set ahead by a day, a host's clock ends no ban in its table, and the store gets them again with the time left."""
    store, wall = MemoryStore(), [0.0]
    engine = FakeEngine()
    sync = Sync(engine, store, clock=lambda: time.time() + wall[0])
    sync.start()
    try:
        assert sync.ready(WAIT)
        engine.ban("203.0.113.7", duration=600)
        assert sync.flush()
        wall[0] = 86_400.0
        assert not store.exists("203.0.113.7", now=time.time() + wall[0])
        assert eventually(lambda: sync.health()["clock_jumps"] == 1)
        assert sync.flush()
        assert engine.banned("203.0.113.7")
        assert 590 < store.get("203.0.113.7").expires - time.time() - wall[0] < 610
        store.set(Ban("203.0.113.8", expires=time.time() + wall[0] + 300))
        assert eventually(lambda: engine.banned("203.0.113.8"))
        assert 290 < engine.ban_table.get("203.0.113.8").expires - time.time() < 310
    finally:
        sync.close()


def test_a_clock_set_back_makes_no_ban_longer_here(syncs):
    """Set back by a day, times in the store look a day ahead; in the table nothing changes."""
    store, wall = MemoryStore(), [0.0]
    engine = FakeEngine()
    sync = Sync(engine, store, clock=lambda: time.time() + wall[0])
    sync.start()
    try:
        assert sync.ready(WAIT)
        ban = engine.ban("203.0.113.7", duration=600)
        assert sync.flush()
        wall[0] = -86_400.0
        assert eventually(lambda: sync.health()["clock_jumps"] == 1)
        assert sync.flush()
        assert ban.expires == pytest.approx(engine.ban_table.get("203.0.113.7").expires, abs=0.01)
        engine.ban("203.0.113.9", duration=60)
        assert sync.flush()
        assert 50 < store.get("203.0.113.9", now=time.time() + wall[0]).expires - time.time() - wall[0] < 70
    finally:
        sync.close()


# ---- processes


def test_a_child_made_by_fork_syncs_by_itself(tmp_path, syncs):
    """Threads start anew in a child, over a connection of its own; each sees the other's bans."""
    place = f"sqlite:{tmp_path / 'bans.db'}"
    engine, sync = syncs(place)
    engine.ban("203.0.113.7")
    children = []
    for n in range(2):
        child = os.fork()
        if child == 0:
            engine.ban(f"198.51.100.{n}")
            fine = eventually(lambda: engine.banned("198.51.100.0") and engine.banned("198.51.100.1"))
            fine = fine and eventually(lambda: engine.banned("192.0.2.1")) and sync.health()["running"]
            os._exit(0 if fine and sync.flush() else 1)
        children.append(child)
    engine.ban("192.0.2.1")
    statuses = [os.waitpid(child, 0)[1] for child in children]

    assert [0, 0] == statuses
    assert eventually(lambda: engine.banned("198.51.100.0") and engine.banned("198.51.100.1"))
    assert {"203.0.113.7", "198.51.100.0", "198.51.100.1", "192.0.2.1"} == {ban.key for ban in sync.store.scan()}


def test_forks_under_load_never_hang(tmp_path, syncs):
    """Forking again and again while bans are written and read leaves parent and children working."""
    engine, sync = syncs(f"sqlite:{tmp_path / 'bans.db'}")
    stop = threading.Event()

    def load():
        n = 0
        while not stop.is_set():
            n += 1
            engine.ban(f"10.0.{n >> 8 & 255}.{n & 255}")
            time.sleep(0.001)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for n in range(10):
            child = os.fork()
            if child == 0:
                engine.ban(f"192.0.2.{n}")
                os._exit(0 if sync.flush(WAIT) else 1)
            assert (child, 0) == os.waitpid(child, 0)
    finally:
        stop.set()
        thread.join()

    assert eventually(lambda: all(engine.banned(f"192.0.2.{n}") for n in range(10)))


def test_several_workers_with_memory_are_warned(caplog):
    """A second fork of a process whose store is memory says that the workers share nothing."""
    engine = FakeEngine()
    sync = attach(engine, "memory:")
    try:
        for _ in range(2):
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
    finally:
        sync.close()

    assert 1 == sum("store memory: is not shared" in text for text in caplog.messages)


def test_closing_lets_go(tmp_path):
    """After close no thread runs, the engine has no sync, and everything that was banned before was written."""
    engine = FakeEngine()
    before = threading.active_count()
    sync = attach(engine, f"sqlite:{tmp_path / 'bans.db'}")
    engine.ban("203.0.113.7")
    sync.close()

    assert (before, None) == (threading.active_count(), engine.sync)
    engine.ban("203.0.113.8")
    assert not sync.flush(0.1)
    assert ["203.0.113.7"] == [ban.key for ban in open_store(f"sqlite:{tmp_path / 'bans.db'}").scan()]


def test_wrong_policy_is_refused():
    """A policy that is none is named with those that are."""
    with pytest.raises(ValueError, match="on_outage='maybe' is not one of local, open, closed"):
        Sync(FakeEngine(), MemoryStore(), on_outage="maybe")


def test_a_store_that_is_down_from_the_start(tmp_path, caplog):
    """Attaching to a store that does not answer returns, and takes it up when it comes."""
    caplog.set_level(logging.WARNING)
    pytest.importorskip("redis")
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on PATH")
    running = Redis(tmp_path)
    running.kill()
    engine = FakeEngine()
    sync = attach(engine, running.uri, wait=0.2)
    try:
        engine.ban("203.0.113.7")
        assert not sync.ready(0)
        assert eventually(lambda: sync.outage)
        running.start()
        assert sync.flush(WAIT)
    finally:
        sync.close()
        running.kill()
