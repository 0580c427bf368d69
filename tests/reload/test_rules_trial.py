"""Changed rules on trial: they answer beside those in force, and come into force or do not."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import followed
from followed import RULES, action, put
from gobanfast import Engine
from gobanfast.reload.decision_diff import Budget
from gobanfast.reload.watch import Watcher
from stores_fakes import eventually

rules = followed.rules


def watched(rules: Path, budget: Budget) -> tuple[Engine, Watcher]:
    """An engine and a watcher without a thread: `check` is called by the test."""
    engine = Engine.load(rules)
    return engine, Watcher(engine, rules, budget=budget)


def with_traffic(engine: Engine, watcher: Watcher, changed: int) -> bool:
    """`check`, while of a hundred requests `changed` come from the network the rules are about."""
    stop = threading.Event()

    def ask() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            engine.decide("192.0.2.1" if number % 100 < changed else "198.51.100.1")

    client = threading.Thread(target=ask)
    client.start()
    try:
        return watcher.check()
    finally:
        stop.set()
        client.join()


@pytest.mark.parametrize(("changed", "promoted"), [(4, True), (7, False)])
def test_a_candidate_within_its_budget_is_promoted_and_one_above_is_rolled_back(
    rules: Path, changed: int, promoted: bool
) -> None:
    """With 4 % other decisions new rules come into force, with 7 % the old ones stay; both leave the same report."""
    rules.write_text("rules: []")
    engine, watcher = watched(rules, Budget(requests=2000, seconds=10))
    rules.write_text(RULES.format(action="ban"))

    assert promoted == with_traffic(engine, watcher, changed)
    report = watcher.report
    assert report is not None
    assert (promoted, not promoted) == (report["promoted"], watcher.stale)
    assert abs(report["differing"] / report["compared"] - changed / 100) < 0.005
    assert [{"old": None, "new": "net", "requests": report["differing"]}] == report["rules"]
    assert {"old": "allow", "new": "ban", "requests": report["differing"]} in report["actions"]
    assert ("192.0.2.1", "ban") == (report["examples"][0]["address"], report["examples"][0]["new"])
    assert ("ban" if promoted else "allow") == action(engine)
    assert engine.candidate is None
    if not promoted:
        assert "rolled back: 7.0% of 2000 requests differ, the budget is 5.0%" in watcher.problems[0]
        assert not watcher.check()  # the same file is not tried again


def test_a_budget_may_be_set_per_action(rules: Path) -> None:
    """Few bans may be too many where challenges are not."""
    rules.write_text("rules: []")
    engine, watcher = watched(rules, Budget(max_changed=0.5, actions={"ban": 0.01}, requests=500))
    rules.write_text(RULES.format(action="ban"))
    assert not with_traffic(engine, watcher, 4)
    assert "requests newly get ban, the budget is 1.0%" in watcher.problems[0]
    rules.write_text(RULES.format(action="challenge"))

    assert with_traffic(engine, watcher, 4)


def test_without_traffic_nothing_speaks_against_a_candidate(rules: Path) -> None:
    """The time runs out and the rules come into force; with no requests there is no difference."""
    engine, watcher = watched(rules, Budget(seconds=0.2))
    rules.write_text(RULES.format(action="challenge"))

    assert watcher.check()
    assert "challenge" == action(engine)


def test_a_newer_change_ends_the_trial(rules: Path) -> None:
    """What is on trial when the file changes again is dropped for the newer one."""
    engine = Engine.load(rules)
    with engine.watch(rules, budget=Budget(seconds=60), interval=0.05):
        put(rules, RULES.format(action="challenge"))
        assert eventually(lambda: engine.candidate is not None)
        put(rules, RULES.format(action="ban") + "# the same decisions\n")
        assert eventually(lambda: engine.candidate is None and engine.generation == 2)
        assert "ban" == action(engine)


def test_budgets_are_parts() -> None:
    """5 for five percent is refused, and so are actions that do not exist."""
    for wrong in ({"max_changed": 5}, {"actions": {"bann": 0.1}}, {"requests": 0}, {"seconds": 0}, {"sample": 0}):
        with pytest.raises(ValueError, match="budget"):
            Budget(**wrong)
