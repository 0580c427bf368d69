"""Bans that grow into those of networks: by evidence, never past the people who live there, and back again."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from gobanfast import Engine, Ruleset, spared
from gobanfast._core.crowd import Crowd
from gobanfast.ladder import LABEL

TEXT = """
bans: {ladder: {ipv4: {24: 16, 20: 64}, ipv6: {48: 4}, for: 2h, collateral: 3}}
rules: [{id: crowded, when: {label: ladder}, action: challenge}]
limits: [{id: flood, when: any, limit: 2, window: 1m, action: ban, for: 1h}]
"""


class Clock:
    def __init__(self):
        self.now = 10_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def engine(clock, monkeypatch):
    """An engine that climbs when it is told to."""
    monkeypatch.setattr(Engine, "_climb", lambda self, now: None)
    return Engine(Ruleset.from_text(TEXT), clock=clock)


def attack(engine, *addresses):
    for address in addresses:
        while engine.decide(address).action != "ban":
            pass


def keys(engine):
    return sorted(ban.key for ban in engine.bans())


def test_two_hundred_attackers_of_one_network_end_as_one_ban_of_it(engine, caplog):
    """A neighbour network with good traffic keeps its bans of clients; its people come in, and the label says so."""
    attack(engine, *(f"45.66.7.{i}" for i in range(200)))
    for i in range(100, 110):
        assert engine.decide(f"45.66.8.{i}").action == "allow"
    attack(engine, *(f"45.66.8.{i}" for i in range(40)))

    with caplog.at_level(logging.WARNING, "gobanfast.rules"):
        steps = engine.climb()

    assert {("45.66.7.0/24", "banned", "flood", 0), ("45.66.8.0/24", "crowded", "flood", 10)} == {
        (step.network, step.outcome, step.rule, step.others) for step in steps if step.network.endswith("/24")
    }
    assert ["45.66.7.0/24", *sorted(f"45.66.8.{i}" for i in range(40))] == keys(engine)
    assert engine.decide("45.66.7.250").action == "ban"
    neighbour = engine.decide("45.66.8.100")
    assert ("challenge", "crowded") == (neighbour.action, neighbour.rule)
    assert engine.decide("45.66.9.100").action == "allow"
    assert ("45.66.8.0/24", LABEL) in {(label.key, label.word) for label in engine.labels()}
    assert "45.66.7.0/24 is banned: " in caplog.text
    assert [] == engine.climb()


def test_few_bans_stay_bans_of_clients(engine):
    attack(engine, *(f"45.66.7.{i}" for i in range(15)))

    assert [] == engine.climb()
    assert 15 == len(keys(engine))


def test_the_budget_is_that_of_others(engine):
    """Attackers were let in before they were banned, and are not who lives there; three others are within it."""
    attack(engine, *(f"45.66.7.{i}" for i in range(16)))
    for i in (101, 102, 103):
        engine.decide(f"45.66.7.{i}")

    (step,) = engine.climb()

    assert ("banned", 3) == (step.outcome, step.others)


def test_ipv6_clients_grow_into_a_48(engine):
    attack(engine, *(f"2a01:4f8:0:{i:x}::1" for i in range(4)))

    assert ["2a01:4f8::/48"] == [step.network for step in engine.climb()]
    assert ["2a01:4f8::/48"] == keys(engine)


def test_bans_of_people_and_lists_are_no_evidence(engine):
    for i in range(30):
        engine.ban(f"45.66.7.{i}")

    assert [] == engine.climb()


def test_bans_that_are_over_or_lifted_are_no_evidence(engine, clock):
    attack(engine, *(f"45.66.7.{i}" for i in range(15)))
    engine.climb()
    clock.now += 2 * 3600
    attack(engine, *(f"45.66.7.{i}" for i in range(20, 22)))
    assert [] == engine.climb()
    attack(engine, *(f"45.66.7.{i}" for i in range(30, 43)))
    engine.unban("45.66.7.30")

    assert [] == engine.climb()
    attack(engine, *(f"45.66.7.{i}" for i in range(50, 52)))
    assert ["banned"] == [step.outcome for step in engine.climb()]


def test_a_network_ban_ends_and_names_the_rule_that_undo_asks_for(engine, clock):
    attack(engine, *(f"45.66.7.{i}" for i in range(16)))
    engine.climb()
    (ban,) = engine.bans()

    assert ("flood", "tracker", "16 banned clients") == (ban.rule, ban.by, ban.reason)
    clock.now += 2.3 * 3600
    assert [] == keys(engine)


def test_a_decision_has_a_thread_climb(clock):
    engine = Engine(Ruleset.from_text(TEXT), clock=clock)
    attack(engine, *(f"45.66.7.{i}" for i in range(16)))
    until = time.monotonic() + 30
    while keys(engine) != ["45.66.7.0/24"] and time.monotonic() < until:
        time.sleep(0.02)

    assert ["45.66.7.0/24"] == keys(engine)


def test_a_full_table_of_labels_stops_no_other_network(clock, monkeypatch):
    """A crowded network goes without its label, and the one that is judged after it is banned all the same."""
    monkeypatch.setattr(Engine, "_climb", lambda self, now: None)
    engine = Engine(Ruleset.from_text(TEXT + "labels: {capacity: 1}\n"), clock=clock)
    engine.label("192.0.2.1", "other")
    for i in range(100, 110):
        engine.decide(f"45.66.7.{i}")
    attack(engine, *(f"45.66.7.{i}" for i in range(16)), *(f"45.99.7.{i}" for i in range(16)))

    assert {("45.66.7.0/24", "crowded"), ("45.99.7.0/24", "banned")} == {step[:2] for step in engine.climb()}
    assert "45.99.7.0/24" in keys(engine)


def test_a_decision_stands_where_no_thread_can_be_had(clock, monkeypatch):
    """As in an interpreter that ends, or at the limit of threads; the next ban tries again."""
    engine = Engine(Ruleset.from_text(TEXT), clock=clock)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_to_be_had)
        patched.setattr("gobanfast.spared.HOST", spared._Host())
        attack(engine, *(f"45.66.7.{i}" for i in range(15)))
    attack(engine, "45.66.7.15")
    until = time.monotonic() + 30
    while keys(engine) != ["45.66.7.0/24"] and time.monotonic() < until:
        time.sleep(0.02)

    assert ["45.66.7.0/24"] == keys(engine)


def none_to_be_had(_):
    raise RuntimeError("can't start new thread")


def test_without_a_ladder_nothing_grows(clock):
    engine = Engine(Ruleset.from_text(TEXT.split("\n", 2)[2]), clock=clock)
    attack(engine, *(f"45.66.7.{i}" for i in range(30)))

    assert [] == engine.climb()
    assert engine.others_in("45.66.7.0/24") is None


@pytest.mark.parametrize(
    ("ladder", "problem"),
    [
        ("{ipv4: {8: 16}}", "ipv4 prefix length 8 is not 16 to 24"),
        ("{ipv4: {24: 1}}", "clients of a /24 1 is not 2 to 4096"),
        ("{ipv4: {24: 16, 20: 16}}", "ipv4 asks for 16 clients of a /24 and 16 of a /20"),
        ("{ipv6: []}", "ipv6 of several values is not a mapping"),
        ("{collateral: -1}", "collateral -1 is out of range"),
    ],
)
def test_ladders_that_are_refused(ladder, problem):
    with pytest.raises(Exception, match=problem.replace("/", ".")):
        Ruleset.from_text(f"bans: {{ladder: {ladder}}}\nrules: []")


def test_a_crowd_counts_each_client_of_the_last_hour_once():
    crowd = Crowd(seed=b"12345678")
    for address in (
        "45.66.7.1",
        "45.66.7.1",
        "45.66.7.2",
        "45.66.8.1",
        "2a01:4f8::1",
        "2a01:4f8::2",
        "2a01:4f8:0:1::1",
    ):
        crowd.note(address, now=3600.0)

    assert 2 == crowd.count("45.66.7.0/24", now=3600.0)
    assert 3 == crowd.count("45.66.0.0/16", now=3600.0)
    assert 1 == crowd.count("45.66.7.0/24", ["45.66.7.2", "45.66.8.1"], now=3600.0)
    assert 2 == crowd.count("2a01:4f8::/48", now=3600.0)
    assert 2 == crowd.count("45.66.7.0/24", now=3600.0 + 1800)
    crowd.note("45.66.7.3", now=3600.0 + 1800)
    assert 3 == crowd.count("45.66.7.0/24", now=3600.0 + 1800)
    assert 1 == crowd.count("45.66.7.0/24", now=3600.0 + 3600)
    assert 0 == crowd.count("45.66.7.0/24", now=3600.0 + 5400)


def test_a_crowd_that_had_no_room_knows_nothing():
    crowd = Crowd(seed=b"12345678")
    for i in range(200_000):
        crowd.note(f"{1 + (i >> 16)}.{i >> 8 & 255}.{i & 255}.1", now=3600.0)

    assert crowd.count("1.0.0.0/24", now=3600.0) is None
    assert crowd.count("1.0.0.0/24", now=3600.0 + 7200) == 0


def test_evidence_is_bounded(engine, monkeypatch):
    """What was heard of longest ago is forgotten; the network at hand keeps the newest of its clients."""
    monkeypatch.setattr("gobanfast.ladder.CLIENTS", 40)
    for net in range(10):
        attack(engine, *(f"45.70.{16 * net}.{i}" for i in range(10)))
    engine.climb()
    follower = engine._follower()

    assert sum(map(len, follower._networks.values())) == follower._total <= 40
    attack(engine, *(f"45.71.1.{i}" for i in range(16)))
    assert ["45.71.1.0/24"] == [step.network for step in engine.climb()]


def test_bans_that_were_there_before_count(engine):
    """Those of a store: what is enough climbs at once, what is not yet climbs with the next one."""
    table = engine.ban_table
    for i in range(16):
        table.ban(f"45.66.7.{i}", duration=3600.0, rule="old", by="tracker")
    for i in range(15):
        table.ban(f"45.66.8.{i}", duration=3600.0, rule="old", by="tracker")
    for i in range(3):
        table.ban(f"2a01:4f8:0:{i}::/64", duration=3600.0, rule="old", by="tracker")

    assert ["45.66.7.0/24"] == [step.network for step in engine.climb()]
    attack(engine, "45.66.8.99", "2a01:4f8:0:9::1")
    assert {("45.66.8.0/24", 16), ("2a01:4f8::/48", 4)} == {(step.network, step.clients) for step in engine.climb()}
    assert ["2a01:4f8::/48", "45.66.7.0/24", "45.66.8.0/24"] == keys(engine)
