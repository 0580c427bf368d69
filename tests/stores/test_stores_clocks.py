"""Hosts whose clocks differ: a ban of ten minutes lasts ten minutes on each, and records are in the server's time."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

import stores_fakes
from gobanfast._core.ban_table import BanTable
from gobanfast.bans import Ban
from gobanfast.stores import Sync
from gobanfast.stores.redis import RedisStore
from stores_fakes import WAIT, FakeEngine, eventually

redis_server = stores_fakes.redis_server


def host(uri, skew):
    """An engine and a sync on a host whose clock is `skew` seconds ahead of the server's."""

    def clock():
        return time.time() + skew

    engine = FakeEngine()
    engine.ban_table = BanTable(offset=clock() - time.monotonic())
    sync = Sync(engine, RedisStore(uri, clock=clock), clock=clock)
    sync.start()
    assert sync.ready(WAIT)
    return engine, sync, clock


@pytest.mark.parametrize("ours", [0, 700, -700, 86_400])
@pytest.mark.parametrize("theirs", [700, -700, 3.0, 0])
def test_ten_minutes_are_ten_minutes_on_every_host(redis_server, ours, theirs):
    """A ban made on one host is in force on the other and ends there after ten minutes by its clock; so are lifts."""
    (one, sync, clock), (two, other, wall) = host(redis_server.uri, ours), host(redis_server.uri, theirs)
    try:
        one.ban("203.0.113.7", duration=600)
        one.ban("AS64500", duration=None)
        assert sync.flush(WAIT)
        assert eventually(lambda: two.banned("203.0.113.7") and two.banned("AS64500"))
        assert 595 < two.ban_table.get("203.0.113.7").expires - wall() < 605
        assert 595 < one.ban_table.get("203.0.113.7").expires - clock() < 605
        assert two.ban_table.get("AS64500").expires is None
        assert 595_000 < sync.store._ask("PTTL", "ban:203.0.113.7") < 605_000
        stored = sync.store._ask("GET", "ban:203.0.113.7")
        assert 595 < float(stored.partition('"expires":')[2].partition(",")[0]) - time.time() < 605
        late, third, third_clock = host(redis_server.uri, theirs + 50)
        assert 595 < late.ban_table.get("203.0.113.7").expires - third_clock() < 605
        third.close()
        two.unban("203.0.113.7")
        assert other.flush(WAIT)
        assert eventually(lambda: not one.banned("203.0.113.7"))
        assert pytest.approx(-ours if abs(ours) > 1 else 0, abs=0.5) == sync.health()["clock_ahead"]
    finally:
        sync.close()
        other.close()


def test_a_difference_is_told(redis_server, caplog):
    """The log says by how much the clocks differ, once."""
    _, sync, _ = host(redis_server.uri, 700)
    sync.close()

    assert 1 == sum("the server's clock is -700" in text for text in caplog.messages)


def test_a_longer_ban_stays_whoever_made_it(redis_server):
    """Which of two bans ends later is asked in the server's time, not in that of the hosts that made them."""
    ahead = RedisStore(redis_server.uri, clock=lambda: time.time() + 700)
    behind = RedisStore(redis_server.uri, clock=lambda: time.time() - 700)
    behind.set(Ban("203.0.113.7", "long", expires=time.time() - 700 + 900))
    ahead.set(Ban("203.0.113.7", "short", expires=time.time() + 700 + 300))

    assert "long" == ahead.get("203.0.113.7").reason == behind.get("203.0.113.7").reason
    longer = ahead.extend("203.0.113.7", time.time() + 700 + 1200)
    assert 1195 < longer.expires - time.time() - 700 < 1205
    assert 1195 < behind.get("203.0.113.7").expires - time.time() + 700 < 1205
    assert not ahead.exists("203.0.113.7", now=time.time() + 700 + 1300)
    ahead.close()
    behind.close()


def test_a_clock_that_is_set_while_the_server_s_stays(redis_server):
    """Set ahead by an hour while in step, a host lifts nothing and makes nothing longer for others."""
    skew = [0.0]
    engine = FakeEngine()
    sync = Sync(
        engine,
        RedisStore(redis_server.uri, clock=lambda: time.time() + skew[0]),
        clock=lambda: time.time() + skew[0],
    )
    sync.start()
    other, tie, _ = host(redis_server.uri, 0)
    try:
        assert sync.ready(WAIT)
        engine.ban("203.0.113.7", duration=600)
        assert sync.flush(WAIT)
        skew[0] = 3600.0
        assert eventually(lambda: sync.health()["clock_jumps"] == 1)
        engine.ban("203.0.113.8", duration=600)
        assert sync.flush(WAIT)
        for key in ("203.0.113.7", "203.0.113.8"):
            assert eventually(lambda: other.banned(key))  # noqa: B023
            assert 590 < other.ban_table.get(key).expires - time.time() < 605
            assert 590_000 < sync.store._ask("PTTL", f"ban:{key}") < 605_000
            assert engine.banned(key)
    finally:
        sync.close()
        tie.close()


SKEWED = """
import sys, time
real, skew = time.time, float(sys.argv[2])
time.time = lambda: real() + skew
from gobanfast import Engine, Ruleset
from gobanfast.stores import attach
engine = Engine(Ruleset.from_text("rules:\\n- {id: a, when: {prefix: 192.0.2.1/32}, action: ban}\\n"))
sync = attach(engine, sys.argv[1])
engine.ban(sys.argv[3], duration="10m")
assert sync.flush(20)
deadline = time.monotonic() + 20
while engine.decide(sys.argv[4]).cause != "ban" and time.monotonic() < deadline:
    time.sleep(0.01)
print(next(ban.expires for ban in engine.bans() if ban.key == sys.argv[4]) - time.time())
sync.close()
"""


def test_processes_whose_time_of_day_differs(redis_server):
    """Two real processes, 1,400 s apart: each enforces the other's ban of ten minutes for about ten minutes."""
    words = [("700", "203.0.113.1", "203.0.113.2"), ("-700", "203.0.113.2", "203.0.113.1")]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SKEWED, redis_server.uri, *given],
            stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.getcwd()},
        )
        for given in words
    ]  # fmt: skip
    said = [float(process.communicate(timeout=3 * WAIT)[0]) for process in running]

    assert [pytest.approx(600, abs=30)] * 2 == said
