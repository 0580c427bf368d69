"""What a swap replaces, at once or not at all, and who hears of it."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest

from gobanfast import AsnTable, Engine, Ruleset
from gobanfast._errors import GobanError

RULES = "rules: [{id: spam, when: {asn: 64500}, action: ban}, {id: old, when: {prefix: 198.51.100.0/24}, action: log}]"
NEXT = (
    "rules: [{id: spam, when: {asn: 64500}, action: challenge}, {id: new, when: {prefix: 192.0.2.0/24}, action: log}]"
)


def network(folder: Path, name: str) -> AsnTable:
    path = folder / f"{name}.csv"
    path.write_text(f"203.0.113.0,203.0.113.255,64500,{name}\n")
    return AsnTable.from_csv(path)


def test_a_snapshot_is_all_that_a_swap_replaces() -> None:
    """Rules, ruleset, settings and generation of a snapshot are those of one moment, also after later swaps."""
    first, second = Ruleset.from_text(RULES), Ruleset.from_text("bans: {on_full: evict}\n" + NEXT)
    engine = Engine(first)
    before = engine.snapshot
    engine.swap(second)

    assert (1, first, first.compiled, first.settings) == (
        before.generation, before.ruleset, before.compiled, before.settings,
    )  # fmt: skip
    now = engine.snapshot
    assert (2, second, second.compiled, second.settings) == (now.generation, now.ruleset, now.compiled, now.settings)
    assert (now.generation, now.ruleset, now.compiled) == (engine.generation, engine.ruleset, engine.compiled)


@pytest.mark.parametrize("wrong", [{"ipv6_client": 63}, {"on_full": "drop"}, {"escalate": object()}])
def test_a_swap_that_fails_changes_nothing(wrong: dict[str, object]) -> None:
    """Settings that cannot be put in force leave the snapshot as it was, and the policy of the ban table too."""
    engine = Engine(Ruleset.from_text("bans: {capacity: 1}\n" + RULES))
    engine.ban("192.0.2.1")
    before = engine.snapshot
    heard: list[object] = []
    engine.on_swap.append(heard.append)
    asked = Ruleset.from_text("bans: {capacity: 1, on_full: evict, escalate: {factor: 9}}\n" + NEXT)
    bans = dataclasses.replace(asked.settings.bans, **wrong)  # type: ignore[arg-type]
    bad = dataclasses.replace(asked, settings=dataclasses.replace(asked.settings, bans=bans))

    with pytest.raises((ValueError, AttributeError)):
        engine.swap(bad)

    assert (1, [], before) == (engine.generation, heard, engine.snapshot)
    with pytest.raises(GobanError, match="full"):  # "evict" would make room
        engine.ban("192.0.2.2", duration=1e6)


def test_another_capacity_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The ban table keeps its size until a restart, and the log says so at each swap to rules that require another."""
    engine = Engine(Ruleset.from_text("bans: {capacity: 5}\n" + RULES))
    with caplog.at_level(logging.WARNING, "gobanfast.rules"):
        engine.swap(Ruleset.from_text("bans: {capacity: 5}\n" + NEXT))
        assert [] == caplog.messages
        engine.swap(Ruleset.from_text("bans: {capacity: 7}\n" + NEXT, source="r.yaml"))

    said = "r.yaml: bans: capacity: 7 takes effect at the next start; the ban table keeps room for 5 until then"
    assert [said] == caplog.messages
    assert (3, 5) == (engine.generation, engine.ban_table.capacity)


def test_on_swap_is_told_what_changed() -> None:
    """Callables get each swap, once the new rules are in force, with what differs from the rules before."""
    engine = Engine(Ruleset.from_text(RULES))
    heard = []
    engine.on_swap.append(lambda swap: heard.append((swap, engine.snapshot)))
    engine.swap(Ruleset.from_text(NEXT))
    swap, in_force = heard.pop()

    assert (2, engine.ruleset.content_hash) == (swap.generation, swap.content_hash)
    assert (1, True) == (swap.before.generation, swap.snapshot is in_force is engine.snapshot)
    assert [("changed", "spam"), ("added", "new"), ("removed", "old")] == [
        (change.what, change.name) for change in swap.changes()
    ]
    engine.on_swap.clear()
    engine.swap(Ruleset.from_text(RULES))
    assert [] == heard


def test_a_callable_that_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in `on_swap` is logged; the rules are in force and the other callables are called."""
    engine = Engine(Ruleset.from_text(RULES))
    heard: list[int] = []
    engine.on_swap.extend((lambda _: 1 // 0, lambda swap: heard.append(swap.generation)))
    engine.swap(Ruleset.from_text(NEXT))

    assert ([2], 2) == (heard, engine.generation)
    assert [("generation 2: a callable in on_swap failed", ZeroDivisionError)] == [
        (record.getMessage(), record.exc_info and record.exc_info[0]) for record in caplog.records
    ]


def test_a_callable_may_take_itself_out() -> None:
    """A callable that removes itself while it is called leaves the others their turn."""
    engine = Engine(Ruleset.from_text(RULES))
    heard: list[int] = []

    def once(_: object) -> None:
        engine.on_swap.remove(once)

    engine.on_swap.extend((once, lambda swap: heard.append(swap.generation)))
    engine.swap(Ruleset.from_text(NEXT))
    engine.swap(Ruleset.from_text(RULES))

    assert ([2, 3], 1) == (heard, len(engine.on_swap))


def test_explain_names_networks_by_the_decisions_own_table(tmp_path: Path) -> None:
    """After a swap to rules over another AS table an older decision is explained by its own."""
    engine = Engine(Ruleset.from_text(RULES, asn=network(tmp_path, "OLDNAME")))
    before = engine.decide("203.0.113.9")
    engine.swap(Ruleset.from_text(RULES, asn=network(tmp_path, "NEWNAME")))

    assert "OLDNAME" in engine.explain(before)
    assert "NEWNAME" in engine.explain(engine.decide("203.0.113.9"))


def test_hits_of_a_swap_inside_a_swap_are_kept(tmp_path: Path) -> None:
    """Decisions counted by a snapshot are added up once, when it is replaced, whoever replaces it."""
    rules = Ruleset.from_text(RULES, asn=network(tmp_path, "NAME"))
    engine = Engine(rules)
    engine.on_swap.append(lambda swap: swap.generation < 4 and engine.swap(rules))
    engine.on_swap.append(lambda _: engine.decide("203.0.113.9"))
    engine.decide("203.0.113.9")
    engine.swap(rules)

    assert 4 == engine.generation
    assert {"spam": 4} == engine.hits()
    assert {("rule", "ban"): 4} == engine.decided()
