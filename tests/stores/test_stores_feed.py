"""Stores and the change feed: a sync writes what the feed has from here, and what it brings in is in the feed."""

from __future__ import annotations

import threading

import stores_fakes
from gobanfast.bans import Ban
from gobanfast.stores import Sync
from gobanfast.stores.memory import MemoryStore
from stores_fakes import WAIT, FakeEngine, eventually

syncs = stores_fakes.syncs
WINDOW = 65_536  # changes of the feed


class Counting(MemoryStore):
    """A memory store that keeps what was written to it, in order."""

    def __init__(self):
        super().__init__()
        self.written = []

    def apply(self, writes, *, now=None):
        """As the memory store."""
        writes = list(writes)
        self.written += [(key, ban is not None) for key, ban in writes]
        return super().apply(writes, now=now)


def told(engine, cursor):
    """(event, key, maker) of every change since."""
    changes, _ = engine.ban_table.changes(cursor)
    return [(change.event, change.ban.key, change.maker) for change in changes]


def test_bans_of_other_hosts_are_in_the_feed_and_not_written_back(syncs):
    """Who follows the feed of one engine sees what the other does, as the store's doing; the store gets each once."""
    store = Counting()
    (one, sync), (two, other) = syncs(store), syncs(store)
    _, cursor = two.ban_table.changes()
    made = one.ban("203.0.113.7", duration=60, reason="x", rule="r")
    assert eventually(lambda: two.banned("203.0.113.7"))
    two.ban("203.0.113.8")
    assert other.flush()
    one.unban("203.0.113.7")
    assert eventually(lambda: not two.banned("203.0.113.7"))
    assert eventually(lambda: one.banned("203.0.113.8"))
    assert sync.flush()
    assert other.flush()

    assert [
        ("add", "203.0.113.7", "store"), ("add", "203.0.113.8", "manual"), ("lift", "203.0.113.7", "store"),
    ] == told(two, cursor)  # fmt: skip
    assert made == two.ban_table.changes(cursor)[0][0].ban
    assert [("203.0.113.7", True), ("203.0.113.8", True), ("203.0.113.7", False)] == store.written


def test_what_is_stored_already_is_read_into_the_feed_and_not_written_back(syncs):
    """A store with more bans than the feed has room for: all are in force, told as its doing, and none is written."""
    store = Counting()
    for n in range(70_000):
        store._write(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}", Ban("", expires=None), 0)
    store._bans = {key: (at, Ban(key), when) for key, (at, _, when) in store._bans.items()}
    engine, sync = syncs(store, wait=WAIT)

    assert 70_000 == len(engine.ban_table)
    assert sync.flush()
    assert {"dropped": 0, "queue": 0, "behind": False}.items() <= sync.health().items()
    assert [] == store.written


def test_an_extended_ban_is_written_and_an_evicted_one_is_not_lifted(syncs):
    """The store gets a later end, however it came about; it keeps a ban that found no room here."""
    store = Counting()
    engine, sync = syncs(store)
    engine.ban("203.0.113.7", duration=60)
    longer = engine.ban_table.extend("203.0.113.7", expires=None)
    engine.ban("203.0.113.7", duration=60)
    assert sync.flush()
    assert longer == store.get("203.0.113.7")

    small = FakeEngine(capacity=1, on_full="evict")
    evicting = Sync(small, store)
    small.ban("198.51.100.1", duration=60)
    small.ban("198.51.100.2", duration=600)
    assert not evicting.flush(0)
    assert 2 == evicting.health()["queue"]
    evicting.start()
    assert evicting.flush()
    evicting.close()
    assert {"203.0.113.7", "198.51.100.1", "198.51.100.2"} == {ban.key for ban in store.scan()}


def test_policy_open_is_in_the_feed_and_not_in_the_store(syncs):
    """Bans set aside during an outage are lifted and added by the store, for whoever follows; nobody writes."""
    store = Counting()
    engine, sync = syncs(store, on_outage="open")
    engine.ban("203.0.113.7")
    assert sync.flush()
    _, cursor = engine.ban_table.changes()
    sync.outage = True
    sync._enter_outage()
    assert [("lift", "203.0.113.7", "store")] == told(engine, cursor)
    sync._leave_outage()
    sync.outage = False
    assert sync.flush()

    assert [("lift", "203.0.113.7", "store"), ("add", "203.0.113.7", "store")] == told(engine, cursor)[:2]
    assert [("203.0.113.7", True)] == store.written


def test_a_feed_that_runs_ahead_loses_no_ban(syncs, caplog):
    """Changes that come while the sync cannot read are made up for from the table; it says so, and how many."""
    store = MemoryStore()
    engine, sync = syncs(store)
    engine.ban("192.0.2.1")
    assert sync.flush()
    with sync._lock:
        for n in range(WINDOW):
            engine.ban(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}")
        assert not sync.flush(0)
        assert WINDOW == sync.health()["dropped"]
        assert sync.health()["behind"]
    assert sync.flush(WAIT)

    assert {ban.key for ban in engine.ban_table.bans()} == {ban.key for ban in store.scan()}
    assert WINDOW + 1 == sum(1 for _ in store.scan())
    assert 1 == sum("65536 changes came faster than they could be queued" in text for text in caplog.messages)


def test_health_takes_no_lock(syncs):
    """A signal handler may ask for it, whatever the thread that it interrupts is in the middle of."""
    _, sync = syncs(MemoryStore())
    asked = threading.Thread(target=sync.health, daemon=True)
    with sync._at_rest, sync._lock, sync._wake._cond:
        asked.start()
        asked.join(WAIT)
        assert not asked.is_alive()
