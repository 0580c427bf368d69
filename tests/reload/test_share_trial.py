"""Trials of share rules: what is shared counts as what becomes of a request does."""

from __future__ import annotations

from typing import Any

import pytest

from gobanfast import Engine, Ruleset
from gobanfast.reload.canary import Trial
from gobanfast.reload.decision_diff import Budget, Differences

BOTH = "https://app.example.com, https://new.example.com"
TEXT = """
rules:
- {{id: net, when: {{prefix: 192.0.2.0/25}}, action: {action}}}
share:
- {{id: old, when: {{path: /x/**, origin: [{origins}]}}, action: {share}}}
"""


def made(origins: str = "https://app.example.com", share: str = "grant", action: str = "log") -> Ruleset:
    return Ruleset.from_text(TEXT.format(origins=origins, share=share, action=action))


def compared(old: Ruleset, new: Ruleset, *requests: tuple[str, str | None, int]) -> Differences:
    """Both on requests: (address, origin, how many)."""
    found, engines = Differences(), [Engine(old), Engine(new)]
    for address, origin, count in requests:
        headers = [] if origin is None else [(b"origin", origin.encode())]
        answers = [engine.peek(address, headers=headers, method="GET", path="/x/1") for engine in engines]
        found.add(answers[0], answers[1], count)
    return found


def test_what_is_shared_has_a_matrix_of_its_own() -> None:
    """A request differs when either does, and counts once when both do."""
    found = compared(
        made(), made("https://new.example.com", action="ban"),
        ("192.0.2.1", "https://app.example.com", 3), ("198.51.100.1", "https://app.example.com", 2),
        ("198.51.100.1", "https://new.example.com", 4), ("192.0.2.1", None, 5), ("198.51.100.1", None, 6),
    )  # fmt: skip
    report = found.report()

    assert (20, 14) == (found.compared, found.differing)
    assert {("allow", "ban"): 8, ("allow", "allow"): 12} == found.matrix
    assert {("granted", "withheld"): 5, ("withheld", "granted"): 4} == found.shares
    assert {(None, "net"): 8} == found.rules
    assert {("old", None): 5, (None, "old"): 4} == found.share_rules
    assert [
        {"old": "granted", "new": "withheld", "requests": 5},
        {"old": "withheld", "new": "granted", "requests": 4},
    ] == (report["shares"])
    assert ("https://app.example.com", "granted", "old", "withheld", None) == tuple(
        report["examples"][0][name] for name in ("origin", "old_share", "old_share_rule", "new_share", "new_share_rule")
    )
    lines = "\n".join(found.lines())
    assert "14 of 20 requests differ (70.0%)" in lines
    assert "  share granted -> withheld: 5\n" in lines
    assert "  share rule old -> -: 5\n" in lines
    assert (
        "  for example 192.0.2.1 /x/1 from 'https://app.example.com': allow (-) -> ban (net), share granted (old) -> "
        "withheld (-)"
    ) in lines


@pytest.mark.parametrize(
    ("new", "budget", "words"),
    [
        (made("https://new.example.com"), {"max_changed": 0.1}, "20.0% of 10 requests differ"),
        (
            made("https://new.example.com"),
            {"max_changed": 1, "actions": {"ban": 0.1}},
            "20.0% of 10 requests newly get ban",
        ),
        (made("https://new.example.com"), {"max_changed": 1, "actions": {"withheld": 0.1}}, "newly get withheld"),
        (made("https://app.example.com", "refuse"), {"max_changed": 1, "actions": {"ban": 0.1}}, "newly get ban"),
        (
            made("https://app.example.com", "refuse"),
            {"max_changed": 1, "actions": {"refused": 0.1}},
            "newly get refused",
        ),
        (made(BOTH), {"max_changed": 1, "actions": {"ban": 0, "withheld": 0, "refused": 0}}, None),
        (made(BOTH), {"max_changed": 1, "actions": {"granted": 0.1}}, None),
        (made(), {"max_changed": 0}, None),
    ],
)
def test_budgets_hold_for_both(new: Ruleset, budget: dict[str, Any], words: str | None) -> None:
    """What is newly withheld or refused is a difference, counts like a new ban, and has budgets of its own."""
    found = compared(
        made(), new, ("198.51.100.1", "https://app.example.com", 2), ("198.51.100.1", None, 8)
    )  # fmt: skip
    over = found.over(Budget(**budget))

    assert over is None if words is None else words in str(over)


def test_what_becomes_softer_is_no_new_ban() -> None:
    """Refused before and withheld now: a difference, but not one of harder answers."""
    found = compared(
        made(share="refuse"), made("https://new.example.com"), ("198.51.100.1", "https://app.example.com", 1)
    )

    assert {("refused", "withheld"): 1} == found.shares
    assert found.over(Budget(max_changed=1, actions={"ban": 0})) is None
    assert found.over(Budget(max_changed=1, actions={"withheld": 0})) is not None


def test_a_trial_sees_what_is_shared() -> None:
    """Of live requests, with all that `decide` was told: scheme and host too."""
    old = Ruleset.from_text("share:\n- {id: a, when: {not: {host: a.example}}, action: refuse}\n")
    new = Ruleset.from_text("share:\n- {id: a, when: {not: {host: [a.example, b.example]}}, action: refuse}\n")
    engine = Engine(old)
    trial = Trial(old, new, Budget(requests=2))
    engine.candidate = trial
    for host in ("a.example", "b.example"):
        engine.decide("192.0.2.1", headers=[], method="GET", path="/", scheme="https", host=host)

    assert trial.full.is_set()
    assert 0 == trial.errors
    assert {("refused", "none"): 1} == trial.differences.shares


def test_an_unknown_budget_is_refused() -> None:
    """All words that would be right are named."""
    with pytest.raises(ValueError, match="actions are allow, challenge, ban, granted, withheld, refused"):
        Budget(actions={"share": 0.1})
